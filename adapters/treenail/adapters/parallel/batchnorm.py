"""Batch normalisation over the samples of all ranks, and the way back."""

from __future__ import annotations

from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from treenail.adapters.parallel.world import is_distributed


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation over the samples of all ranks: on the CPU, and by torch's SyncBatchNorm elsewhere.

    Shares may be of different sizes, and empty. In evaluation, alone, and without a process group it is plain batch
    normalisation. Made by `convert_sync_batchnorm`.
    """

    converted_from: type[_BatchNorm]
    process_group: dist.ProcessGroup | None
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  # torch's name
        self.converted_from._check_input_dim(self, input)  # type: ignore[no-untyped-call]  # torch's own

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        """Normalise over N and … of all ranks.

        Args:
            input: float[N, C, …] of this rank, N of which may be 0.

        Returns:
            float[N, C, …]: Of the input's dtype.

        Raises:
            ValueError: The input has other dimensions, or all ranks together have one value per channel, or none.
        """
        if not self.training or not is_distributed() or dist.get_world_size(self.process_group) == 1:
            return _BatchNorm.forward(self, input)
        if input.device.type != "cpu":
            # It is no base class, since DistributedDataParallel refuses modules of that class on the CPU.
            return nn.SyncBatchNorm.forward(cast("nn.SyncBatchNorm", self), input)
        self._check_input_dim(input)
        mean, var = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the mean over all batches
                momentum = 1.0 / float(self.num_batches_tracked)
        normalised = _SyncedNormalisation.apply(  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            input, self.weight, self.bias, mean, var, self.eps, momentum, self.process_group
        )
        return cast("Tensor", normalised)


class BatchNorm(_BatchNorm):
    """Batch normalisation of inputs [N, C, …] of any number of dimensions, as SyncBatchNorm takes them."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  # torch's name
        if input.dim() < 2:
            raise ValueError(f"expected an input of shape [N, C, …], got {list(input.shape)}")


def convert_sync_batchnorm(module: nn.Module, process_group: dist.ProcessGroup | None = None) -> nn.Module:
    """Let every batch normalisation in a module count the samples of all ranks.

    The layers change their class and nothing else: they, their parameters and their buffers stay the same objects, with
    their hooks, whoever refers to them.

    Args:
        module: Not yet wrapped for data parallelism.
        process_group: The ranks to count; all where None.

    Returns:
        The module.

    Raises:
        ValueError: A layer normalises in a way of its own, or was not called yet though it is lazy; nothing was
            changed.
    """
    found = {name: layer for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)}
    layers = {name: layer for name, layer in found.items() if not isinstance(layer, nn.SyncBatchNorm | SyncBatchNorm)}
    for name, layer in layers.items():
        kind = type(layer)
        if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
            raise ValueError(f"'{name}' is a {kind.__name__} without a size; run a batch through the module first")
        if kind.forward is not _BatchNorm.forward:
            raise ValueError(f"'{name}' is a {kind.__name__} with a forward of its own, which cannot be synchronised")
    for layer in layers.values():
        # A new layer would leave optimizers, hooks and tied references with the old one.
        kind, layer.__class__ = type(layer), SyncBatchNorm
        vars(layer).update(converted_from=kind, process_group=process_group)
    return module


def revert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Undo `convert_sync_batchnorm`: each layer gets the class that it had, and keeps everything else.

    A layer that was made as torch's own SyncBatchNorm becomes a `BatchNorm`, which like it takes any number of
    dimensions.

    Returns:
        The module.
    """
    for layer in module.modules():
        if isinstance(layer, nn.SyncBatchNorm | SyncBatchNorm):
            kind = layer.__dict__.pop("converted_from", BatchNorm)
            del layer.process_group
            layer.__class__ = kind
    return module


class _Saved(Protocol):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    has_weight: bool
    group: dist.ProcessGroup | None


class _SyncedNormalisation(torch.autograd.Function):
    """Normalisation with the statistics of all ranks: one all_gather forward, one all_reduce backward.

    Means and squared deviations of the ranks are merged as by T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating
    formulae and a pairwise algorithm for computing sample variances" (1979), which loses no digits where the mean is
    large.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        input: Tensor,  # noqa: A002  # torch's name
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
        momentum: float,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        """Return what is normalised by the statistics of all ranks."""
        wide = torch.promote_types(input.dtype, torch.float32)
        values = input.to(wide)
        over = [dim for dim in range(input.dim()) if dim != 1]
        count, channels = input.numel() // max(1, input.shape[1]), input.shape[1]
        own = torch.zeros(2 * channels + 1, dtype=wide)
        if count:
            own[:channels] = values.mean(over)
            own[channels:-1] = (values - _column(own[:channels], values)).square_().sum(over)
            own[-1] = count
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(gathered, own, group=group)
        every = torch.stack(gathered)
        means, deviations, counts = every[:, :channels], every[:, channels:-1], every[:, -1:]
        total = counts.sum()
        if total <= 1:
            raise ValueError(
                f"batch normalisation needs more than one value per channel in training; all ranks together have "
                f"{int(total)}: choose another batch_size, or drop_last"
            )
        mean = (means * counts).sum(0) / total
        squares = (deviations + (means - mean).square() * counts).sum(0)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((squares / (total - 1)).to(running_var.dtype), momentum)
        scale = (squares / total + eps).rsqrt()
        ctx.save_for_backward(input, mean, scale, total, *([] if weight is None else [weight]))
        saved = cast("_Saved", ctx)
        saved.has_weight, saved.group = weight is not None, group
        output = (values - _column(mean, values)).mul_(_column(scale, values))
        if weight is not None:
            output = output * _column(weight.to(wide), values)
        if bias is not None:
            output = output + _column(bias.to(wide), values)
        return output.to(input.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of inputs, weight and bias; those of the inputs need sums over all ranks."""
        saved = cast("_Saved", ctx)
        values, mean, scale, total, *rest = saved.saved_tensors
        weight = rest[0].to(mean.dtype) if saved.has_weight else None
        over = [dim for dim in range(values.dim()) if dim != 1]
        dtype, gradient = gradient.dtype, gradient.to(mean.dtype)
        normal = (values.to(mean.dtype) - _column(mean, values)).mul_(_column(scale, values))
        sums = torch.cat([gradient.sum(over), (gradient * normal).sum(over)])
        by_bias, by_weight = (part.clone() for part in sums.chunk(2))  # of this rank: data parallelism averages them
        by_input = None
        if saved.needs_input_grad[0]:
            dist.all_reduce(sums, group=saved.group)
            shift, slope = (_column(part, values) for part in (sums / total).chunk(2))
            factor = scale if weight is None else scale * weight
            by_input = (gradient - shift - normal.mul_(slope)).mul_(_column(factor, values)).to(dtype)
        grads = (by_weight, by_bias)
        by_parameters = [
            grad.to(rest[0].dtype if rest else dtype) if needed else None
            for grad, needed in zip(grads, saved.needs_input_grad[1:3], strict=True)
        ]
        return (by_input, *by_parameters, None, None, None, None, None)


def _column(vector: Tensor, like: Tensor) -> Tensor:
    """View float[C] so that it broadcasts over a tensor [N, C, …]."""
    return vector.view(1, -1, *([1] * (like.dim() - 2)))
