"""Adam steps by fused kernels unless its config or its parameters say otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from tests.processes import Starter
from treenail.adapters.optim.fused import fastest
from treenail.adapters.parallel import fully_sharded, tensor_parallel
from treenail.kernel import Late, late

Make = Late[Iterable[nn.Parameter], Optimizer]


def parameters(*dtypes: torch.dtype) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(5, 3, dtype=dtype)) for dtype in dtypes or (torch.float32,)]


def chosen(make: Make, given: list[nn.Parameter]) -> object:
    return fastest(make, given).build(given).param_groups[0].get("fused")


@pytest.mark.parametrize(
    "make",
    [
        late(Adam)(lr=0.1),
        late(AdamW)(lr=0.1, amsgrad=True, weight_decay=0.2),
        late(AdamW)(lr=torch.tensor(0.1), maximize=True),
    ],
)
def test_adam_is_fused_and_what_it_was_asked_for_stays(make: Make) -> None:
    given = parameters()
    fused = fastest(make, given)
    assert fused.kwargs == {**make.kwargs, "fused": True}
    before = given[0].detach().clone()
    assert chosen(make, given) is True
    assert torch.equal(given[0], before)
    assert given[0].grad is None
    fused.build([{"params": given[:1]}, {"params": []}])  # type: ignore[list-item]  # groups, as torch takes


@pytest.mark.parametrize(
    "make",
    [
        late(Adam)(fused=False),
        late(Adam)(foreach=True),
        late(AdamW)(foreach=False),
        late(AdamW)(differentiable=True),
        late(AdamW)(capturable=True),
        late(SGD)(lr=0.1),  # which may get sparse gradients
        late(Adagrad)(lr=0.1),
        late(torch.optim.RMSprop)(),
    ],
)
def test_what_a_config_says_and_other_optimizers_stay(make: Make) -> None:
    assert fastest(make, parameters()) is make


def test_a_subclass_and_a_function_of_ones_own_stay() -> None:
    class Own(AdamW):
        pass

    def own(params: Iterable[nn.Parameter], fused: bool | None = None) -> Optimizer:
        return AdamW(params, fused=fused)

    for make in (late(Own)(), late(own)()):
        assert fastest(make, parameters()) is make


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_of_weights_is_served(dtype: torch.dtype) -> None:
    assert chosen(late(AdamW)(lr=0.1), parameters(dtype, torch.float32)) is True


@pytest.mark.parametrize(
    "given",
    [
        [nn.Parameter(torch.zeros(2, dtype=torch.complex64))],
        [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=torch.complex64))],
        [nn.Parameter(torch.zeros(2, device="meta"))],
    ],
)
def test_parameters_without_such_kernels_are_left_to_the_default(given: list[nn.Parameter]) -> None:
    make = late(AdamW)(lr=0.1)
    assert fastest(make, given) is make


def test_a_mistake_in_the_arguments_is_reported_by_the_optimizer_itself() -> None:
    make = late(AdamW)(lr=-1.0)
    with pytest.raises(Exception, match="Invalid learning rate"):
        fastest(make, parameters()).build(parameters())


def trained(make: Callable[[list[nn.Parameter]], Optimizer]) -> list[torch.Tensor]:
    """Return the weights after a number of steps, with a step that overflows in between."""
    given = parameters(torch.float32, torch.float32)
    optimizer = make(given)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    generator = torch.Generator().manual_seed(1)
    for step in range(20):
        for each in given:
            each.grad = 4.0 * torch.randn(each.shape, generator=generator)
            if step == 5:
                each.grad[0, 0] = torch.inf
        scaler.scale(torch.zeros(()))
        before = [each.detach().clone() for each in given]
        scaler.step(optimizer)
        scaler.update()
        assert all(map(torch.equal, given, before)) == (step == 5)
    return [each.detach() for each in given]


@pytest.mark.parametrize("make", [late(Adam)(lr=0.01, weight_decay=0.1), late(AdamW)(lr=0.01, weight_decay=0.1)])
def test_fused_steps_are_those_of_the_loop_but_for_rounding(make: Make) -> None:
    loop = trained(lambda given: make.filled(foreach=False).build(given))
    torch.testing.assert_close(trained(fastest(make, parameters()).build), loop, rtol=1e-5, atol=1e-6)


def step_on_ranks(directory: Path) -> None:
    """Step by what is chosen for parameters that ranks hold parts of, the second rank none of the last."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    make: Make = late(AdamW)(lr=0.01)
    found = []
    for kind in ("fused", "loop"):
        torch.manual_seed(0)
        module = fully_sharded(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)))
        chosen = fastest(make, module.parameters())
        assert chosen.kwargs == {"lr": 0.01, "fused": True}
        optimizer = (chosen if kind == "fused" else make).build(module.parameters())
        for step in range(4):
            module(torch.randn(3, 4, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            optimizer.step()
        found.append([each.full_tensor() for each in module.parameters() if isinstance(each, DTensor)])
    assert len(found[0]) == 4
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    mixed = tensor_parallel(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), plan={"0": "colwise"})
    assert fastest(make, mixed.parameters()) is make
    dist.barrier()  # the first rank keeps what the others meet at
    dist.destroy_process_group()


def test_sharded_parameters_are_served_and_a_mixture_is_not(tmp_path: Path, starter: Starter) -> None:
    starter.launch(step_on_ranks, tmp_path, 2)
