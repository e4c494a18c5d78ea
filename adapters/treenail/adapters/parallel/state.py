"""The state of a model and its optimizer on many ranks, under the names that one process would give it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.adapters.parallel.wrappers import bare
from treenail.kernel import StateError


class ShardedModel:
    """The state of a module in any wrapping, with the names of the bare module; a `treenail.kernel.Stateful`.

    Parameters that are split over ranks are DTensors in the state, which share their memory with the module.

    Args:
        module: Bare, or as one of the ways of parallelising returned it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = bare(module)

    def state_dict(self) -> dict[str, object]:
        """Return parameters and buffers by name."""
        return dict(self._module.state_dict())

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state of the same model; tensors are DTensors where the module's are.

        Raises:
            StateError: It is another model's.
        """
        try:
            self._module.load_state_dict(state_dict)
        except RuntimeError as error:
            raise StateError(f"the state does not fit the model: {error}") from error


class ShardedOptimizer:
    """The state of an optimizer by the names of the module's parameters, flat; a `treenail.kernel.Stateful`.

    ``state.conv.weight.exp_avg`` and ``param_groups.conv.weight.lr``, as `torch.distributed.checkpoint.state_dict`
    names them: neither the order of the parameters nor how they are split over ranks matters to who loads it.

    Args:
        module: Bare, or as one of the ways of parallelising returned it.
        optimizer: Of the module's parameters, all or some; one that keeps its state by parameter, which LBFGS does not.

    Raises:
        StateError: A parameter of the optimizer is none of the module's.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer) -> None:
        names = {parameter: name for name, parameter in bare(module).named_parameters()}
        self._optimizer = optimizer
        self._names: list[list[str]] = []
        for group in optimizer.param_groups:
            if unknown := [parameter for parameter in group["params"] if parameter not in names]:
                raise StateError(
                    f"a parameter of shape {list(unknown[0].shape)} of the optimizer is none of the module's",
                    mend="make the optimizer after the module was parallelised, from its parameters",
                )
            self._names.append([names[parameter] for parameter in group["params"]])

    def state_dict(self) -> dict[str, object]:
        """Return tensors and numbers by name; tensors share their memory with the optimizer, as those of torch's do."""
        flat: dict[str, object] = {}
        for group, names in zip(self._optimizer.param_groups, self._names, strict=True):
            for parameter, name in zip(group["params"], names, strict=True):
                state = self._optimizer.state.get(parameter, {})
                flat.update({f"state.{name}.{key}": value for key, value in state.items()})
                flat.update({f"param_groups.{name}.{key}": value for key, value in group.items() if key != "params"})
        return flat

    def template(self, names: Container[str]) -> dict[str, Tensor]:
        """Return tensors to read a state into: laid out over ranks as the optimizer's own are after its first step.

        An optimizer that has not stepped yet makes a step for it that changes nothing, and forgets it again.

        Args:
            names: Of the tensors that were saved.

        Raises:
            StateError: The optimizer cannot make such a step.
        """
        with self._stepped():
            return {
                name: torch.empty_like(value)
                for name, value in self.state_dict().items()
                if isinstance(value, Tensor) and name in names
            }

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Take a state of an optimizer of the same kind and parameters, its groups the same or others.

        Raises:
            StateError: It is of other parameters, or parameters of one group had different options.
        """
        rest = dict(state_dict)
        packed = self._optimizer.state_dict()
        state: dict[int, dict[str, object]] = {}
        for group, names in zip(packed["param_groups"], self._names, strict=True):
            for key in group.keys() - {"params"}:
                values = [_taken(rest, f"param_groups.{name}.{key}") for name in names]
                if not all(_is_equal(value, values[0]) for value in values):
                    raise StateError(f"the parameters {names[0]} … of one group were saved with different '{key}'")
                group[key] = values[0] if values else group[key]
            for index, name in zip(group["params"], names, strict=True):
                prefix = f"state.{name}."
                # A parameter may be called as the beginning of another one; what a state holds has no dots in its name.
                own = [key for key in rest if key.startswith(prefix) and "." not in key[len(prefix) :]]
                if own:
                    state[index] = {key[len(prefix) :]: rest.pop(key) for key in own}
        if rest:
            raise StateError(
                f"the state does not fit the optimizer: it has '{min(rest)}'",
                mend="load it with the same model and optimizer",
            )
        self._optimizer.load_state_dict({"state": state, "param_groups": packed["param_groups"]})

    @contextmanager
    def _stepped(self) -> Iterator[None]:
        if self._optimizer.state:
            yield
            return
        groups = self._optimizer.param_groups
        rates = [group.get("lr") for group in groups]
        parameters = [parameter for group in groups for parameter in group["params"] if parameter.requires_grad]
        gradients = [parameter.grad for parameter in parameters]
        try:
            for group in groups:
                if "lr" in group:
                    group["lr"] = torch.zeros_like(group["lr"]) if isinstance(group["lr"], Tensor) else 0.0
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
            try:
                self._optimizer.step()
            except (TypeError, RuntimeError) as error:
                kind = type(self._optimizer).__name__
                raise StateError(f"{kind} cannot make the step that shows what its state is like: {error}") from error
            yield
        finally:
            self._optimizer.state.clear()
            for group, rate in zip(groups, rates, strict=True):
                if "lr" in group:
                    group["lr"] = rate
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient


def _is_equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one == other


def _taken(state: dict[str, object], name: str) -> object:
    try:
        return state.pop(name)
    except KeyError:
        raise StateError(
            f"the state does not fit the optimizer: it has no '{name}'",
            mend="load it with the same model and optimizer",
        ) from None
