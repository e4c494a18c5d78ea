"""Several optimizers under names, with mmengine's semantics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.optim.test_wrapper import network
from treenail.adapters.optim import OptimizerDict, OptimWrapper, OptimWrapperDict
from treenail.kernel import StateError


def pair() -> OptimWrapperDict:
    return OptimWrapperDict(
        gen=OptimWrapper(torch.optim.SGD(network().parameters(), lr=0.01)),
        disc=OptimWrapper(torch.optim.Adam(network(1).parameters(), lr=0.02, betas=(0.5, 0.9))),
    )


def test_it_is_a_mapping() -> None:
    both = pair()
    assert list(both) == list(both.keys()) == ["gen", "disc"]
    assert (len(both), "gen" in both, "generator" in both) == (2, True, False)
    assert [name for name, wrapper in both.items() if wrapper is both["gen"]] == ["gen"]
    with pytest.raises(KeyError, match="no optimizer 'dics': did you mean 'disc'"):
        both["dics"]


def test_rates_and_momenta_have_the_names_before_them() -> None:
    both = pair()
    assert both.get_lr() == {"gen.lr": [0.01], "disc.lr": [0.02]}
    assert both.get_momentum() == {"gen.momentum": [0], "disc.momentum": [0.5]}
    assert both.param_groups == {name: wrapper.param_groups for name, wrapper in both.items()}


@pytest.mark.parametrize(
    "call",
    [
        lambda both: both.update_params(torch.ones(())),
        lambda both: both.backward(torch.ones(())),
        lambda both: both.step(),
        lambda both: both.optim_context(nn.Linear(1, 1)),
    ],
)
def test_what_only_one_could_mean_is_refused(call: Callable[[OptimWrapperDict], object]) -> None:
    with pytest.raises(
        NotImplementedError, match=r"of several optimizers means nothing: call it of one of them, \['gen'\]"
    ):
        call(pair())


def test_gradients_of_all_are_forgotten_and_counting_is_nobodys_affair() -> None:
    both = pair()
    both.initialize_count_status(nn.Linear(1, 1), 3, 2)
    for wrapper in both.values():
        for group in wrapper.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
    both.zero_grad()
    assert all(p.grad is None for w in both.values() for g in w.optimizer.param_groups for p in g["params"])


def test_states_go_by_name() -> None:
    both = pair()
    both["gen"].skipped = 3
    other = pair()
    other.load_state_dict(both.state_dict())
    assert (other["gen"].skipped, other["disc"].skipped, other.skipped) == (3, 0, 3)
    with pytest.raises(StateError, match="the state has an optimizer 'critic', this run has none"):
        other.load_state_dict({**both.state_dict(), "critic": {}})
    with pytest.raises(StateError, match="this run has an optimizer 'gen', the state has none"):
        other.load_state_dict({"disc": {}})
    with pytest.raises(StateError, match=r"updates\.gen: expected a mapping, got a int"):
        other.load_state_dict({"gen": 1, "disc": {}})


def test_optimizers_are_saved_together() -> None:
    model = network()
    optimizers = OptimizerDict(
        one=torch.optim.SGD(model[0].parameters(), lr=1.0), two=torch.optim.SGD(model[2].parameters(), lr=2.0)
    )
    state = optimizers.state_dict()
    optimizers["one"].param_groups[0]["lr"] = 9.0
    optimizers.load_state_dict(state)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers.values()] == [1.0, 2.0]
    with pytest.raises(StateError, match="has an optimizer 'two'"):
        optimizers.load_state_dict({"one": state["one"]})


def test_what_is_no_wrapper_is_named() -> None:
    with pytest.raises(TypeError, match="'gen' is a SGD, not an OptimWrapper"):
        OptimWrapperDict(gen=torch.optim.SGD(network().parameters(), lr=1.0))  # type: ignore[arg-type]  # on purpose


def test_its_representation_names_each() -> None:
    lines = repr(pair()).splitlines()
    assert lines[:4] == ["name: gen", "Type: OptimWrapper", "accumulative_counts: 1", "optimizer: "]
    assert "name: disc" in lines
