"""What is promised of sharded parameters and split layers, on four ranks and on two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from tests.parallel.models import (
    Net,
    NormNet,
    accumulate,
    assert_close,
    assert_equal_states,
    batches,
    made,
    optimizer_of,
    train,
    trained_alone,
    whole_gradients,
    whole_state,
)
from treenail.adapters.parallel import (
    Plan,
    Split,
    bare,
    clip_grad_norm,
    data_parallel,
    data_share,
    device_mesh,
    fully_sharded,
    separate_data_parallel,
    tensor_parallel,
    without_gradient_sync,
)

PLAN: Plan = {"blocks.*.up": "colwise", "blocks.*.down": "rowwise"}


def fully_sharded_trains_as_one_process(_: Path) -> None:
    for options, units in (
        ({"classes": ("Block",)}, {"", "blocks.0", "blocks.1"}),
        (
            {"min_parameters": 55, "reshard_after_forward": False},
            {"", "blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down"},
        ),
        ({"cpu_offload": True, "reshard_after_forward": True}, {""}),
        ({"mesh": {"data": 2, "replicate": -1}, "classes": ("Linear", "Block")}, None),
    ):
        module = fully_sharded(made(Net), **options)
        assert module is bare(module)
        if units is not None:
            assert {name for name, part in module.named_modules() if isinstance(part, FSDPModule)} == units
        train(module, optimizer_of(module), data_share(module))
        assert_equal_states(module, trained_alone(Net))


def accumulated_gradients_of_shards_are_those_of_the_whole_batch(_: Path) -> None:
    module, alone = fully_sharded(made(Net), classes=("Block",)), made(Net)

    def nothing_yet() -> None:
        assert all(parameter.grad is None for parameter in module.parameters())
        with without_gradient_sync(module):
            pass  # leaving an inner one must not end the outer one

    accumulate(module, data_share(module), nothing_yet)
    accumulate(alone)
    assert_close(whole_gradients(module), whole_gradients(alone))


def lower_precision_computes_and_keeps_the_parameters(_: Path) -> None:
    module = fully_sharded(made(Net), param_dtype="bfloat16", reduce_dtype="float32")
    out = module(torch.zeros(2, 5))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float64}


def synced_normalisation_of_shards_is_that_of_the_whole_batch(_: Path) -> None:
    module = fully_sharded(made(NormNet), sync_batchnorm=True)
    train(module, optimizer_of(module), data_share(module), (2, 4, 4))
    assert_equal_states(module, trained_alone(NormNet, (2, 4, 4)))


def tensor_and_data_parallel_train_as_one_process(_: Path) -> None:
    module = fully_sharded(made(Net), classes=("Block",), mesh={"data": 2, "tensor": 2}, tensor_plan=PLAN)
    assert data_share(module) == (dist.get_rank() // 2, 2)
    weight = module.get_parameter("blocks.0.up.weight")
    assert isinstance(weight, DTensor)
    assert weight.to_local().shape in {(3, 5), (2, 5)}  # 10 rows over 2, and over 2 again
    train(module, optimizer_of(module), data_share(module))
    assert_equal_states(module, trained_alone(Net))


def tensor_parallel_trains_as_one_process(_: Path) -> None:
    module = tensor_parallel(made(Net), plan=PLAN)
    assert data_share(module) == (0, 1)
    train(module, torch.optim.AdamW(module.parameters(), lr=0.05, foreach=False), data_share(module))
    assert_equal_states(module, trained_alone(Net))


class Wide(Net):
    def __init__(self) -> None:
        super().__init__(16)


def clipped_gradients_are_those_of_one_process(_: Path) -> None:
    wide = next(batches())[0][:, :1].expand(-1, 16)
    ways: tuple[Callable[[nn.Module], nn.Module], ...] = (
        data_parallel,
        lambda module: fully_sharded(module, classes=("Block",)),
        lambda module: fully_sharded(module, mesh={"data": -1, "tensor": 2}, tensor_plan=PLAN),
        lambda module: tensor_parallel(module, plan={"blocks.0.up": "colwise", "blocks.0.down": "rowwise"}),
    )
    for way in ways:
        for norm_type, largest in ((2.0, 0.1), (float("inf"), 0.01), (1.0, 1e9)):
            module, alone = way(made(Wide)), made(Wide)
            rank, size = data_share(module)
            module(wide[rank::size]).square().mean().backward()
            alone(wide).square().mean().backward()
            expected = torch.nn.utils.clip_grad_norm_(alone.parameters(), largest, norm_type)
            torch.testing.assert_close(clip_grad_norm(module.parameters(), largest, norm_type), expected)
            assert_close(whole_gradients(bare(module)), whole_gradients(alone))
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, float("nan"))
        with pytest.raises(RuntimeError, match="norm of the gradients is nan"):
            clip_grad_norm(module.parameters(), 1.0, error_if_nonfinite=True)


def layouts_of_inputs_and_outputs_may_be_given(_: Path) -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(8, 6)
            self.norm = nn.LayerNorm(6)
            self.up = nn.Linear(6, 8)
            self.head = nn.Linear(8, 4)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.up(self.norm(self.embed(tokens))).relu())
            return out

    plan: Plan = {
        "embed": Split(kind="rowwise", inputs="replicated", outputs="sequence"),
        "norm": "sequence",
        "up": Split(kind="colwise", inputs="sequence"),
        "head": "rowwise",
    }
    tokens = torch.arange(8).view(2, 4)
    module, alone = tensor_parallel(made(Text), plan=plan), made(Text)
    torch.testing.assert_close(module(tokens), alone(tokens))
    module(tokens).square().sum().backward()
    alone(tokens).square().sum().backward()
    assert_close(whole_gradients(module), whole_gradients(alone))


def wrong_plans_are_refused(_: Path) -> None:
    wrong: tuple[tuple[Plan, str], ...] = (
        ({}, "splits nothing"),
        ({"blocks.*.upp": "colwise"}, r"'blocks.\*.upp' in the plan matches no module of Net"),
        ({"haed": "colwise"}, "did you mean 'head'"),
        (
            {"blocks.*.upp": "colwise", "head": "rowwise", "tail": "colwise"},
            r"'blocks.\*.upp', 'tail' in the plan match no module of Net; .* are blocks.\*.up, blocks.\*.down, head",
        ),
        ({"blocks.*.up": "colwise", "blocks.0.up": "rowwise"}, "both match 'blocks.0.up'"),
        ({"norm": "colwise"}, "'norm' is a LayerNorm; only Linear and Embedding"),
        ({"blocks.*": "rowwise"}, "'blocks.0' is a Block"),
        ({"head": "colwise"}, "'head' cannot be split colwise: 5 does not divide by the"),
        ({"norm": Split(kind="sequence", inputs="features")}, "leave them out"),
    )
    for plan, message in wrong:
        with pytest.raises(ValueError, match=message):
            tensor_parallel(made(Net), plan=plan)


def wrong_policies_are_refused(_: Path) -> None:
    for options, message in (
        ({"classes": ("Blocks",)}, "no module of the class 'Blocks'; did you mean 'Block'"),
        ({"classes": ("ModuleList",)}, "is not called itself"),
        ({"mesh": {"tensor": -1}}, "no dimension 'data'"),
        ({"mesh": {"data": 1, "tensor": -1}}, "need each other"),
        ({"tensor_plan": PLAN}, "need each other"),
    ):
        with pytest.raises(ValueError, match=message):
            fully_sharded(made(Net), **options)


def wrong_meshes_are_refused(_: Path) -> None:
    world = dist.get_world_size()
    for shape, message in (
        ({"dta": 2}, "no dimension 'dta'; did you mean 'data'"),
        ({"data": 3}, f"data 3 does not fit {world} ranks"),
        ({"data": 0}, "'data' is 0"),
        ({"data": -1, "tensor": -1}, "only one dimension may be -1"),
        ({"data": -1, "tensor": 3}, f"does not fit {world} ranks"),
        ({}, "nothing does not fit"),
    ):
        with pytest.raises(ValueError, match=message):
            device_mesh(shape, "cpu")


def a_bare_module_has_the_names_of_the_model(_: Path) -> None:
    module = fully_sharded(made(Net), classes=("Block",))
    assert list(whole_state(bare(module))) == list(made(Net).state_dict())


def alone_in_a_group_it_is_as_without_others(_: Path) -> None:
    module = made(NormNet)
    assert data_parallel(module, sync_batchnorm=True) is module
    assert separate_data_parallel(module) is module
    for split in (fully_sharded(made(Net), classes=("Block",)), tensor_parallel(made(Net), plan=PLAN)):
        train(split, optimizer_of(split), data_share(split))
        assert_equal_states(split, trained_alone(Net))


ALONE = (alone_in_a_group_it_is_as_without_others,)
ON_FOUR = (
    fully_sharded_trains_as_one_process,
    accumulated_gradients_of_shards_are_those_of_the_whole_batch,
    lower_precision_computes_and_keeps_the_parameters,
    synced_normalisation_of_shards_is_that_of_the_whole_batch,
    tensor_and_data_parallel_train_as_one_process,
    clipped_gradients_are_those_of_one_process,
    layouts_of_inputs_and_outputs_may_be_given,
    wrong_plans_are_refused,
    wrong_policies_are_refused,
    wrong_meshes_are_refused,
    a_bare_module_has_the_names_of_the_model,
)
ON_TWO = (tensor_parallel_trains_as_one_process,)
