"""Specs: described now, checked now, built later."""

import functools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from treenail.kernel import BuildError, Late, Spec, SpecError, late, partial, spec


class Mlp(nn.Module):
    def __init__(self, width: int, *, depth: int = 2) -> None:
        super().__init__()
        if width < 1:
            raise ValueError("width must be positive")
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


def test_a_spec_builds_a_new_object_each_time() -> None:
    described = spec(Mlp)(8, depth=3)
    first, second = described.build(), described.build()
    assert first is not second
    assert len(first.layers) == 3


def test_nothing_is_called_before_build() -> None:
    described = spec(Mlp)(width=-1)
    with pytest.raises(BuildError, match="width must be positive"):
        described.build()


def test_a_misspelt_argument_is_refused_at_once_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match=r"Mlp takes no 'widht'; did you mean 'width'\?"):
        spec(Mlp)(widht=8)  # type: ignore[call-arg]  # the mistake under test


def test_a_missing_argument_is_refused_at_once() -> None:
    with pytest.raises(SpecError, match="missing a required argument: 'width'"):
        Spec(Mlp)


def test_a_late_spec_gets_its_first_argument_when_it_is_built() -> None:
    described = late(torch.optim.AdamW)(lr=0.5)
    optimizer = described.build(nn.Linear(2, 2).parameters())
    assert optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(SpecError, match="multiple values"):
        Late(torch.optim.AdamW, kwargs={"params": []}, awaited=1)


def test_partial_fixes_the_arguments_after_the_first_two() -> None:
    loss = partial(cross_entropy)(label_smoothing=0.1).build()
    outputs, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert torch.equal(loss(outputs, targets), cross_entropy(outputs, targets, label_smoothing=0.1))
    with pytest.raises(SpecError, match="takes no 'label_smoothin'; did you mean"):
        partial(cross_entropy)(label_smoothin=0.1)  # type: ignore[call-arg]  # the mistake under test


def test_nested_specs_are_built_first_inside_lists_tuples_and_dicts() -> None:
    described = Spec(nn.Sequential, (Spec(nn.Linear, (2, 3)), Spec(nn.ReLU)))
    assert [type(layer) for layer in described.build()] == [nn.Linear, nn.ReLU]
    built: dict[str, object] = Spec(
        dict[str, object], kwargs={"a": [Spec(nn.ReLU)], "b": {"c": (Spec(nn.ReLU),)}}
    ).build()
    assert str(built) == "{'a': [ReLU()], 'b': {'c': (ReLU(),)}}"


def test_a_constructor_that_raises_keeps_its_traceback_and_gains_the_place() -> None:
    with pytest.raises(BuildError, match=r"^config\.yaml:3:1: model: .*Mlp could not be built: ValueError") as caught:
        Spec(Mlp, kwargs={"width": -1}, where="config.yaml:3:1: model").build()
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__cause__.__traceback__ is not None


def test_filled_gives_only_what_is_taken_and_not_written() -> None:
    described = spec(Mlp)(width=4).filled(depth=5, width=9, colour="red")
    assert described.kwargs == {"width": 4, "depth": 5}
    assert spec(Mlp)(4).filled(width=9).kwargs == {}
    assert Spec(functools.partial, (print,)).filled(colour="red").build() is not None


def test_specs_compare_by_target_and_arguments() -> None:
    assert spec(Mlp)(width=4) == spec(Mlp)(width=4)
    assert spec(Mlp)(width=4) != spec(Mlp)(width=5)
