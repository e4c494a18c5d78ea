"""Checkpoints of a run whose parameters may be spread over ranks: each rank saves and loads its own parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.adapters.checkpoint.parts import SHARDS, places_of, put, take
from treenail.adapters.checkpoint.ranks import on_first, together
from treenail.adapters.checkpoint.sharded import read_shards, snapshot_shards, write_shards
from treenail.adapters.checkpoint.store import CheckpointStore
from treenail.adapters.checkpoint.tensors import is_spread
from treenail.contracts import FileEntry, Manifest
from treenail.kernel import CheckpointError, Communicator, StateError, Stateful


class RankCheckpointer:
    """Saves a run of many ranks: a `Checkpointer` that every rank calls.

    Rank 0 saves what is equal on all ranks; of what is spread over them each writes its part, beside it.

    Args:
        store: Of a backend that all ranks share.
        communicator: The ranks; those of torch's process group where tensors are spread.
    """

    def __init__(self, store: CheckpointStore, communicator: Communicator) -> None:
        self._store = store
        self._ranks = communicator

    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        """Save; all ranks go on once it is done.

        Raises:
            CheckpointError: It could not be saved; on every rank.
        """
        store, ranks = self._store, self._ranks
        rest, shards = take(checkpoint)
        directory = on_first(ranks, lambda: self._begin(step, claimed=bool(shards)))
        written: list[FileEntry] = []
        if shards:
            frozen = snapshot_shards(shards, ranks)
            written = together(ranks, lambda: write_shards(frozen, store.files, directory))
        return on_first(
            ranks,
            lambda: store.finish(
                directory, rest, step=step, epoch=epoch, reason=reason, pointers=pointers, shards=written
            ),
        )

    def _begin(self, step: int, *, claimed: bool) -> str:
        directory = self._store.begin(step)
        if claimed:
            self._store.claim(directory)
        return directory

    def load(self, name: str, parts: Mapping[str, Stateful]) -> tuple[Manifest, dict[str, object]]:
        """Read a checkpoint for the parts of a run, each rank what it needs, whatever ranks saved it.

        Args:
            name: A pointer, or a directory's name.
            parts: Those of the run; of ``model`` and ``optimizer`` parameters may be spread over ranks.

        Raises:
            CheckpointError: It is missing, torn, or of another run.
        """
        store = self._store
        directory = on_first(self._ranks, lambda: store.resolve(name))  # a shared place may show different pointers
        model, optimizer = parts.get("model"), parts.get("optimizer")
        if not isinstance(model, nn.Module) or not any(map(is_spread, model.parameters())):
            return store.load(directory)
        if not isinstance(optimizer, Optimizer):
            raise CheckpointError(
                "the parameters are spread over ranks, but the part 'optimizer' is no optimizer of torch"
            )
        manifest, state = store.load(directory, shards=False)
        targets = _Targets(model, optimizer, parts)
        recorded = state.pop(SHARDS, None)
        if recorded is None:  # of a run that was not spread
            targets.spread(state)
            return manifest, state
        places = places_of(recorded)
        filled = {tensor: targets.memory(path) for tensor, path in places.items()}
        read_shards(filled, store.files, directory, self._ranks)
        for tensor, path in places.items():
            put(state, path, filled[tensor])
        return manifest, state


class _Targets:
    """Where the tensors of a checkpoint go."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, parts: Mapping[str, Stateful]) -> None:
        self._others = {name: part.state_dict() for name, part in parts.items() if name not in ("model", "optimizer")}
        self._model = model.state_dict()
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def memory(self, path: tuple[str | int, ...]) -> Tensor:
        """Return memory for what was saved at a path of the state."""
        if path[0] == "model" and len(path) == 2 and path[1] in self._model:
            tensor: Tensor = torch.empty_like(self._model[str(path[1])])
            return tensor
        if path[:2] == ("optimizer", "state") and isinstance(path[2], int) and path[2] < len(self._parameters):
            return torch.empty_like(self._parameters[path[2]]).detach()
        found: object = self._others
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if is_spread(found):
            return torch.empty_like(found).detach()
        raise StateError(
            f"the run has no place for {'/'.join(map(str, path))}", mend="is the checkpoint of another model or config?"
        )

    def spread(self, state: Mapping[str, object]) -> None:
        """Spread the tensors of a state that has them whole."""
        model, optimizer = state.get("model"), state.get("optimizer")
        if isinstance(model, dict):
            for name, value in model.items():
                model[name] = _like(value, self._model.get(name))
        inner = optimizer.get("state") if isinstance(optimizer, dict) else None
        if isinstance(inner, dict):
            for number, values in inner.items():
                parameter = self._parameters[number] if number < len(self._parameters) else None
                for name, value in values.items():
                    values[name] = _like(value, parameter)


def _like(value: object, target: object) -> object:
    if not isinstance(value, Tensor) or not is_spread(target) or value.shape != target.shape:
        return value  # what does not fit is refused by who takes it
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
