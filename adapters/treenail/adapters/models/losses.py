"""What a model's losses come to: one number to differentiate, and numbers to log."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from treenail.kernel import TrainingError


def parse_losses(losses: Mapping[str, object], of: str = "the model") -> tuple[Tensor, dict[str, Tensor]]:
    """Average each entry, and add up those with ``loss`` in their names.

    Args:
        losses: Tensors of any shape, and lists of such: of a list the means are added up.
        of: Whose they are, for messages.

    Returns:
        (total, {"loss": total, and the mean of each entry by its name, in their order}). An entry named just ``loss``
        counts in the total, which has its place.

    Raises:
        TrainingError: An entry is something else, or has no elements; a name is no text, or none has ``loss`` in it.
    """
    if strange := [name for name in losses if not isinstance(name, str)]:
        raise TrainingError(f"a loss of {of} is called {strange[0]!r}", mend="let names be texts")
    means = {name: _mean(value, f"'{name}' among the losses of {of}") for name, value in losses.items()}
    counted = [mean for name, mean in means.items() if "loss" in name]
    if not counted:
        raise TrainingError(
            f"the losses of {of} are {', '.join(means) or 'none at all'}: no name has 'loss' in it",
            mend='name what is differentiated "loss" or "loss_…"; everything else is logged',
        )
    total = sum(counted[1:], start=counted[0])
    return total, {"loss": total, **{name: mean for name, mean in means.items() if name != "loss"}}


def _mean(value: object, what: str) -> Tensor:
    if isinstance(value, Tensor):
        if not value.numel():
            raise TrainingError(
                f"{what} has no elements (its shape is {list(value.shape)}), and no mean",
                mend="return its sum where nothing counts, which is 0",
            )
        if value.is_complex():
            raise TrainingError(
                f"{what} is complex ({value.dtype}), and no more or less than another", mend="return its abs()"
            )
        return (value if value.is_floating_point() else value.float()).mean()
    if isinstance(value, list | tuple) and value:
        means = [_mean(each, f"part {index} of {what}") for index, each in enumerate(value)]
        return sum(means[1:], start=means[0])
    empty = " without entries" if isinstance(value, list | tuple) else ""
    raise TrainingError(
        f"{what} is a {type(value).__name__}{empty}", mend="return tensors, or lists of them: torch.as_tensor(number)"
    )


def check_differentiable(total: Tensor, losses: Mapping[str, object], of: str) -> None:
    """Refuse a total that no parameter changes.

    Raises:
        TrainingError: It is such a total.
    """
    if torch.is_grad_enabled() and not total.requires_grad:
        names = [f"'{name}'" for name in losses if "loss" in name]
        raise TrainingError(
            f"{', '.join(names)} of {of} {'depend' if names[1:] else 'depends'} on no parameter that is trained",
            mend="are all parameters frozen, or was the loss computed with detach() or under no_grad()?",
        )
