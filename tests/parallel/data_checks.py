"""What is promised of data parallelism, on two ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.parallel.models import (
    BATCH,
    Gan,
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
)
from treenail.adapters.parallel import (
    SyncBatchNorm,
    bare,
    convert_sync_batchnorm,
    data_parallel,
    data_share,
    separate_data_parallel,
    without_gradient_sync,
)

IMAGE = (2, 4, 4)


def data_parallel_trains_as_one_process(_: Path) -> None:
    for options in ({}, {"static_graph": True}, {"find_unused_parameters": True, "gradient_as_bucket_view": False}):
        module = data_parallel(made(Net), **options)
        assert isinstance(module, DistributedDataParallel)
        train(module, optimizer_of(module), data_share(module))
        assert_equal_states(bare(module), trained_alone(Net))


def buffers_are_those_of_rank_0_where_they_are_broadcast(_: Path) -> None:
    for is_broadcast in (True, False):
        module = data_parallel(made(NormNet), broadcast_buffers=is_broadcast)
        own = bare(module).get_buffer("norm.running_mean").fill_(float(dist.get_rank()))
        norm = bare(module).get_submodule("norm")
        assert isinstance(norm, nn.BatchNorm2d)
        norm.momentum = 0.0
        module(torch.ones(2, *IMAGE).double())
        assert own.tolist() == [0.0 if is_broadcast else float(dist.get_rank())] * 3


def data_parallel_without_trained_parameters_is_the_module(_: Path) -> None:
    module = made(Net).requires_grad_(False)
    assert data_parallel(module) is module


def accumulated_gradients_are_those_of_the_whole_batch_and_synced_once(_: Path) -> None:
    module = data_parallel(made(Net))
    assert isinstance(module, DistributedDataParallel)
    syncs: list[int] = []

    def count(_, bucket):  # type: ignore[no-untyped-def]  # torch compares annotations, which are texts here
        syncs.append(bucket.index())
        work = dist.all_reduce(bucket.buffer().div_(dist.get_world_size()), async_op=True)
        assert work is not None
        return work.get_future().then(lambda future: future.value()[0])

    module.register_comm_hook(None, count)
    accumulate(module, data_share(module))
    assert syncs == [0]
    alone = made(Net)
    accumulate(alone)
    assert_close(whole_gradients(bare(module)), whole_gradients(alone))


def no_sync_reaches_wrappers_inside_and_may_be_nested(_: Path) -> None:
    module = separate_data_parallel(made(Gan))
    assert isinstance(module, Gan)

    def gradients_differ() -> list[bool]:
        module.zero_grad()
        module(module.latent(4) + dist.get_rank()).sum().backward()
        ranks: list[list[Tensor | None]] = [[], []]
        dist.all_gather_object(ranks, [parameter.grad for parameter in module.parameters()])
        return [not torch.equal(*pair) for pair in zip(*ranks, strict=True) if isinstance(pair[0], Tensor)]

    with without_gradient_sync(module):
        with without_gradient_sync(module):
            assert any(gradients_differ())
        assert any(gradients_differ())
    assert not any(gradients_differ())


def a_wrapper_of_ones_own_is_a_wrapper(_: Path) -> None:
    class TwiceADay(DistributedDataParallel):
        def train_step(self, inputs: Tensor, optimizer: torch.optim.Optimizer) -> None:
            for flipped in (inputs, inputs.flip(0)):
                optimizer.zero_grad()
                self(flipped).square().mean().backward()
                optimizer.step()

    model = made(Net)
    wrapped = TwiceADay(model)
    assert bare(wrapped) is model
    with without_gradient_sync(wrapped):
        assert not wrapped.require_backward_grad_sync
    wrapped.train_step(next(batches())[0][dist.get_rank() :: 2], optimizer_of(model))


def a_gan_of_two_optimizers_trains_as_one_process(_: Path) -> None:
    alone, together = made(Gan), separate_data_parallel(made(Gan))
    assert isinstance(alone, Gan)
    assert isinstance(together, Gan)
    assert together.latent_size == 3
    assert isinstance(together.get_submodule("generator"), DistributedDataParallel)
    assert isinstance(together.get_submodule("upsample"), nn.Upsample)
    _train_gan(alone, 0, 1)
    _train_gan(together, dist.get_rank(), dist.get_world_size())
    assert_equal_states(bare(together), alone)
    assert together.generator is not bare(together).get_submodule("generator")


def _train_gan(gan: Gan, rank: int, size: int) -> None:
    optimizers = [torch.optim.Adam(part.parameters(), lr=0.02) for part in (gan.discriminator, gan.generator)]
    real = torch.linspace(0, 2, 4 * BATCH, dtype=torch.float64).view(BATCH, 4)[rank::size]
    for _ in range(3):
        z = gan.latent(BATCH)[rank::size]
        optimizers[0].zero_grad()
        fake = gan.generator(z).detach()
        (gan.discriminator(fake).mean() - gan.discriminator(real).mean()).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        (-gan(z).mean()).backward()
        optimizers[1].step()


def parts_may_be_named_at_any_depth(_: Path) -> None:
    module = separate_data_parallel(
        nn.ModuleDict({"nets": made(Gan)}), modules=("nets.generator", "nets.discriminator")
    )
    nets = module.get_submodule("nets")
    assert isinstance(nets.generator, DistributedDataParallel)
    assert list(bare(module).state_dict()) == [f"nets.{name}" for name in made(Gan).state_dict()]


def parts_that_would_train_apart_are_refused(_: Path) -> None:
    gan, tied, scaled = made(Gan), made(Gan), made(Gan)
    tied.get_submodule("generator.2").bias = tied.get_submodule("discriminator.2").bias
    scaled.register_parameter("scale", nn.Parameter(torch.ones(1)))
    for module, modules, message in (
        (gan, ("generater", "discriminator"), "Gan has no module 'generater'; did you mean 'generator'"),
        (gan, ("xyz",), "its children are generator, discriminator, upsample"),
        (gan, ("generator", "generator.0"), "'generator.0' lies in 'generator'"),
        (
            gan,
            ("generator",),
            "'discriminator.0.weight' and 3 more of Gan lies in none of the parts generator.*name its module, too",
        ),
        (tied, (), "share the parameter 'discriminator.2.bias'"),
        (scaled, (), "the parameter 'scale' of Gan lies in none.*; let it be a parameter of a part"),
    ):
        with pytest.raises(ValueError, match=message):
            separate_data_parallel(module, modules=modules)
        assert not any(isinstance(part, DistributedDataParallel) for part in module.modules())


def a_checkpoint_of_data_parallel_loads_in_one_process_and_back(_: Path) -> None:
    module = data_parallel(made(Net))
    state = bare(module).state_dict()
    alone = made(Net, seed=1)
    alone.load_state_dict(state)
    assert_equal_states(alone, made(Net))
    other = made(Net, seed=2).state_dict()
    bare(module).load_state_dict(other)
    assert_equal_states(bare(module), made(Net, seed=2))


def synced_normalisation_is_that_of_the_whole_batch(_: Path) -> None:
    plain = data_parallel(made(NormNet))
    synced = data_parallel(made(NormNet), sync_batchnorm=True)
    for module in (plain, synced):
        train(module, optimizer_of(module), data_share(module), IMAGE)
    alone = trained_alone(NormNet, IMAGE)
    assert_equal_states(bare(synced), alone)
    with pytest.raises(AssertionError):  # without it, each rank normalises by its own share
        assert_equal_states(bare(plain), alone)


def synced_normalisation_takes_uneven_and_empty_shares(_: Path) -> None:
    for layer, shape in (
        (nn.BatchNorm1d(3), ()),
        (nn.BatchNorm1d(3, momentum=None), (5,)),
        (nn.BatchNorm3d(3, affine=False), (2, 1, 2)),
    ):
        for split in (5, BATCH, 1):
            torch.manual_seed(split)
            whole = torch.randn(BATCH, 3, *shape, dtype=torch.float64) * 3 + 100
            upstream = torch.randn_like(whole)
            share = slice(0, split) if dist.get_rank() == 0 else slice(split, None)
            _compare_normalisation(layer, whole, upstream, share)


def _compare_normalisation(layer: nn.Module, whole: Tensor, upstream: Tensor, share: slice) -> None:
    kind = type(layer)
    options = {"affine": layer.affine, "momentum": layer.momentum}
    alone, synced = kind(3, **options).double(), kind(3, **options).double()
    convert_sync_batchnorm(synced)
    assert isinstance(synced, SyncBatchNorm)
    expected_input, found_input = whole.clone().requires_grad_(), whole[share].clone().requires_grad_()
    expected, found = alone(expected_input), synced(found_input)
    (expected * upstream).sum().backward()
    (found * upstream[share]).sum().backward()
    assert expected_input.grad is not None
    assert found_input.grad is not None
    torch.testing.assert_close(found, expected[share], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found_input.grad, expected_input.grad[share], rtol=1e-9, atol=1e-9)
    for parameter, reference in zip(synced.parameters(), alone.parameters(), strict=True):
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-9, atol=1e-9)
    assert_close(dict(synced.named_buffers()), dict(alone.named_buffers()))


def synced_normalisation_of_low_precision_keeps_its_dtype(_: Path) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        layer = convert_sync_batchnorm(nn.BatchNorm1d(3))
        values = torch.randn(6, 3).to(dtype).requires_grad_()
        out = layer(values)
        out.float().square().sum().backward()
        assert out.dtype == dtype
        assert values.grad is not None
        assert values.grad.dtype == dtype


def synced_normalisation_of_one_value_is_refused_on_every_rank(_: Path) -> None:
    layer = convert_sync_batchnorm(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="more than one value per channel"):
        layer(torch.ones(1 - dist.get_rank(), 3))
    with pytest.raises(ValueError, match="expected 2D or 3D input"):
        layer(torch.ones(2, 3, 4, 4))


def synced_normalisation_in_evaluation_needs_no_other_rank(_: Path) -> None:
    layer = convert_sync_batchnorm(nn.BatchNorm1d(3)).eval()
    if dist.get_rank() == 0:
        torch.testing.assert_close(layer(torch.ones(2, 3)), torch.ones(2, 3) / (1 + 1e-5) ** 0.5)


CHECKS = (
    data_parallel_trains_as_one_process,
    buffers_are_those_of_rank_0_where_they_are_broadcast,
    data_parallel_without_trained_parameters_is_the_module,
    accumulated_gradients_are_those_of_the_whole_batch_and_synced_once,
    no_sync_reaches_wrappers_inside_and_may_be_nested,
    a_wrapper_of_ones_own_is_a_wrapper,
    a_gan_of_two_optimizers_trains_as_one_process,
    parts_may_be_named_at_any_depth,
    parts_that_would_train_apart_are_refused,
    a_checkpoint_of_data_parallel_loads_in_one_process_and_back,
    synced_normalisation_is_that_of_the_whole_batch,
    synced_normalisation_takes_uneven_and_empty_shares,
    synced_normalisation_of_low_precision_keeps_its_dtype,
    synced_normalisation_of_one_value_is_refused_on_every_rank,
    synced_normalisation_in_evaluation_needs_no_other_rank,
)
