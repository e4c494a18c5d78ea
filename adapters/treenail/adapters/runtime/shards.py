"""Checkpoints of a run whose parameters are spread over ranks: each rank saves and loads its own parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.checkpoint.parts import SHARDS, places_of, put, take
from treenail.adapters.checkpoint.sharded import read_shards, snapshot_shards, write_shards
from treenail.adapters.comm import gather_object
from treenail.adapters.runtime.ranks import on_rank_0
from treenail.contracts import Manifest
from treenail.kernel import CheckpointError, Communicator, StateError, Stateful


class RankCheckpointer:
    """Saves a run of many ranks: a `Checkpointer` that every rank calls.

    Rank 0 saves what is equal on all ranks; of what is spread over them each writes its part, beside it.

    Args:
        store: Of a backend that all ranks share.
        communicator: The ranks, those of torch's process group.
    """

    def __init__(self, store: CheckpointStore, communicator: Communicator) -> None:
        self._store = store
        self._communicator = communicator

    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        """Save; all ranks go on once it is done.

        Raises:
            CheckpointError: It could not be saved; on every rank.
        """
        store, ranks = self._store, self._communicator
        rest, shards = take(checkpoint)
        directory = on_rank_0(ranks, lambda: self._begin(step, claimed=bool(shards)))
        entries = []
        if shards:
            snapshot = snapshot_shards(shards)
            entry, failure = None, None
            try:
                entry = write_shards(snapshot, store.files, directory)
            except CheckpointError as error:
                failure = error
            entries = gather_object(ranks, (entry, failure)) or []

        def finish() -> str:
            for _, failure in entries:
                if failure is not None:
                    raise failure
            written = [entry for entry, _ in entries if entry is not None]
            return store.finish(
                directory, rest, step=step, epoch=epoch, reason=reason, pointers=pointers, shards=written
            )

        return on_rank_0(ranks, finish)

    def _begin(self, step: int, *, claimed: bool) -> str:
        directory = self._store.begin(step)
        if claimed:
            self._store.claim(directory)
        return directory


def load(
    store: CheckpointStore, name: str, parts: Mapping[str, Stateful], communicator: Communicator
) -> tuple[Manifest, dict[str, object]]:
    """Read a checkpoint for the parts of a run, each rank what it needs, whatever ranks saved it.

    Args:
        store: Where it is.
        name: A pointer, or a directory's name.
        parts: Those of the run; of ``model`` and ``optimizer`` parameters may be spread over ranks.
        communicator: The ranks, which all call this.

    Raises:
        CheckpointError: It is missing, torn, or of another run.
    """
    model, optimizer = parts.get("model"), parts.get("optimizer")
    spread = isinstance(model, nn.Module) and any(map(_is_spread, model.parameters()))
    name = on_rank_0(communicator, lambda: store.resolve(name))  # a shared directory may show ranks different pointers
    manifest, state = store.load(name, shards=not spread)
    if not spread or not isinstance(model, nn.Module):
        return manifest, state
    if not isinstance(optimizer, Optimizer):
        raise CheckpointError("the parameters are spread over ranks, but the part 'optimizer' is no optimizer of torch")
    targets = _Targets(model, optimizer)
    recorded = state.pop(SHARDS, None)
    if recorded is None:  # of a run that was not spread
        targets.spread(state)
        return manifest, state
    places = places_of(recorded)
    filled = {tensor: targets.memory(path) for tensor, path in places.items()}
    read_shards(filled, store.files, name)
    for tensor, path in places.items():
        put(state, path, filled[tensor])
    return manifest, state


class _Targets:
    """Where the tensors of a checkpoint go."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model = model.state_dict()
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def memory(self, path: tuple[str | int, ...]) -> Tensor:
        """Return memory for what was saved at a path of the state."""
        if path[0] == "model" and len(path) == 2 and path[1] in self._model:
            tensor: Tensor = torch.empty_like(self._model[str(path[1])])
            return tensor
        if path[:2] == ("optimizer", "state") and isinstance(path[2], int) and path[2] < len(self._parameters):
            return torch.empty_like(self._parameters[path[2]]).detach()
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
                    if isinstance(value, Tensor) and parameter is not None and value.shape == parameter.shape:
                        values[name] = _like(value, parameter)


def _is_spread(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _like(value: object, target: object) -> object:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(value, Tensor) or not isinstance(target, DTensor) or value.shape != target.shape:
        return value  # what does not fit is refused by who takes it
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
