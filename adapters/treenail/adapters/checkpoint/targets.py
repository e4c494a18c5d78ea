"""Where the tensors of a checkpoint go in a run whose parameters are spread over ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.adapters.checkpoint.tensors import is_spread
from treenail.kernel import StateError, Stateful


class Targets:
    """Where the tensors of a checkpoint go.

    Args:
        model: Of the run.
        optimizer: Of the run.
        parts: All of the run, these two included.
    """

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
