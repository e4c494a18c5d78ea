"""mmengine's CheckpointHook under its name and with its arguments."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer
from treenail.adapters.hooks.best import GREATER_KEYS, LESS_KEYS
from treenail.adapters.hooks.checkpoint import CheckpointHook as OwnCheckpointHook
from treenail.kernel import Engine

_MEANT_ELSEWHERE = {
    "out_dir": "say where checkpoints lie by files.checkpoints of the config",
    "file_client_args": "say where checkpoints lie by files.checkpoints of the config",
    "backend_args": "give the options of a store in files.schemes of the config",
    "filename_tmpl": "leave it out: a checkpoint is a directory such as step-00000200",
}


def _keys(given: str | tuple[str, ...] | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    return usual if given is None else (given,) if isinstance(given, str) else tuple(given)


class CheckpointHook(OwnCheckpointHook):
    """Requests checkpoints as mmengine's hook of this name saves them; written in our format, at commits.

    A checkpoint always holds the whole state, so that a run can go on from it. All ranks take part; rank 0 writes what they have
    in common.

    Args:
        interval: How many epochs or steps lie between two; -1: none are taken but the last and the best.
        by_epoch: Count epochs, not steps.
        save_optimizer: Must be true; `published_keys` gives files without it.
        save_param_scheduler: The same.
        out_dir: Must be None: ``files.checkpoints`` of the config says it.
        max_keep_ckpts: How many stay besides those that a pointer leads to; -1: all. It goes before ``checkpoints.keep_last``.
        save_last: Save when training ends.
        save_best: Metrics of which the best checkpoint is kept; ``auto``: the first one.
        rule: Whether a greater or a lesser value is better; one for all, or one for each. None: as the names say.
        greater_keys: What a metric's name is, or contains, if greater is better; one or several.
        less_keys: The same, if less is better.
        file_client_args: Must be None.
        filename_tmpl: Must be None.
        backend_args: Must be None.
        published_keys: If it has ``state_dict``, the weights of the last and the best checkpoint are published.
        save_begin: The epoch or step from which on it is counted.
    """

    def __init__(
        self,
        interval: Annotated[int, Meta(ge=-1)] = -1,
        by_epoch: bool = True,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        out_dir: str | None = None,
        max_keep_ckpts: Annotated[int, Meta(ge=-1)] = -1,
        save_last: bool = True,
        save_best: str | tuple[str, ...] | None = None,
        rule: Literal["greater", "less"] | tuple[Literal["greater", "less"] | None, ...] | None = None,
        greater_keys: str | tuple[str, ...] | None = None,
        less_keys: str | tuple[str, ...] | None = None,
        file_client_args: dict[str, str] | None = None,
        filename_tmpl: str | None = None,
        backend_args: dict[str, str] | None = None,
        published_keys: str | tuple[str, ...] | None = None,
        save_begin: Annotated[int, Meta(ge=0)] = 0,
    ) -> None:
        given = {
            "out_dir": out_dir,
            "file_client_args": file_client_args,
            "filename_tmpl": filename_tmpl,
            "backend_args": backend_args,
        }
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} is {value!r}: {_MEANT_ELSEWHERE[name]}")
        if not save_optimizer or not save_param_scheduler:
            raise ValueError(
                "a checkpoint holds the whole state: leave this out; published_keys gives the weights alone"
            )
        if interval == 0 or interval < -1 or max_keep_ckpts == 0 or max_keep_ckpts < -1:
            raise ValueError(f"interval={interval} and max_keep_ckpts={max_keep_ckpts} must be -1, or at least 1")
        keys = (published_keys,) if isinstance(published_keys, str) else tuple(published_keys or ())
        if keys and "state_dict" not in keys:
            raise ValueError(f"published_keys is {published_keys!r}: what is published are the weights, 'state_dict'")
        best: tuple[Literal["best"], ...] = ("best",) if save_best is not None else ()
        metrics = 1 if isinstance(save_best, str | None) else len(save_best)
        if not isinstance(rule, str | None):
            rule = tuple(rule) * metrics if len(rule) == 1 else tuple(rule)
            if len(rule) != metrics:
                raise ValueError(
                    f"rule has {len(rule)} entries for {metrics} metrics of save_best: give one, or one for each"
                )
        super().__init__(
            interval if interval > 0 else None,
            "epoch" if by_epoch else "step",
            begin=save_begin,
            save_last=save_last,
            save_best=save_best if isinstance(save_best, str | None) else tuple(save_best),
            rule=rule,
            greater_keys=_keys(greater_keys, GREATER_KEYS),
            less_keys=_keys(less_keys, LESS_KEYS),
            published=("last", *best) if keys else (),
        )
        self.max_keep_ckpts = max_keep_ckpts

    def before_run(self, engine: Engine) -> None:
        """Say how many checkpoints stay."""
        super().before_run(engine)
        found = engine.checkpointer
        store = found.store if isinstance(found, RankCheckpointer) else found
        if isinstance(store, CheckpointStore):
            store.keep_last = self.max_keep_ckpts if self.max_keep_ckpts > 0 else None
