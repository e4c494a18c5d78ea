"""Shows the groups in which the parameters of a run are trained."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from treenail.adapters.config import Source, load
from treenail.adapters.files import mounts_of, use_mounts
from treenail.adapters.optim import GroupSummary, summarize_frozen, summarize_groups, with_loss
from treenail.adapters.runtime import build_groups, build_optimizer
from treenail.adapters.seeding import seed_process
from treenail.contracts import Run

_SHOWN = 3
_HEAD = ("group", "lr", "weight_decay", "tensors", "numbers", "parameters")
_RIGHT = (False, True, True, True, True, False)  # which columns are aligned so


def parameter_table(source: Source) -> list[str]:
    """Build the model and the optimizer of a run on the CPU, and return the lines of the table of its groups.

    Raises:
        TreenailError: Something is wrong with the config, the model or the groups.
    """
    run = load(source).run
    with use_mounts(mounts_of(run.files)):
        model, optimizers = _built(run)
    groups = [
        group._replace(name=f"{name}: {group.name}" if name else group.name)
        for name, optimizer in optimizers.items()
        for group in summarize_groups(model, optimizer)
    ]
    rows = [_HEAD, *(_row(group) for group in [*groups, summarize_frozen(model)] if group.parameters)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_aligned, row, widths, _RIGHT)).rstrip() for row in rows]


def _built(run: Run) -> tuple[nn.Module, dict[str, Optimizer]]:
    """Return what is trained, and its optimizers by the names of parts; of a single one that is empty."""
    seed_process(run.seed)
    model = run.model.build()
    loss = run.loss.build() if run.loss is not None else None
    optimizer = build_optimizer(run, model, loss, build_groups(run, model, loss))
    trained = with_loss(model, loss)
    return trained, {"": optimizer} if isinstance(optimizer, Optimizer) else dict(optimizer)


def _row(group: GroupSummary) -> tuple[str, ...]:
    examples = ", ".join(group.parameters[:_SHOWN]) + (" …" if len(group.parameters) > _SHOWN else "")
    options = "".join(f" {key}={value}" for key, value in group.options.items())
    rates = ("" if value is None else f"{value:.6g}" for value in (group.lr, group.weight_decay))
    return (group.name + options, *rates, str(len(group.parameters)), f"{group.numbers:,}", examples)


def _aligned(cell: str, width: int, right: bool) -> str:  # one of map's columns
    return cell.rjust(width) if right else cell.ljust(width)
