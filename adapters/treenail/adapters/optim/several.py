"""Several optimizers, each with its own way to update, under names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import NoReturn

from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.adapters.optim.wrapper import OptimWrapper
from treenail.kernel import StateError, did_you_mean


class OptimizerDict(Mapping[str, Optimizer]):
    """Optimizers by name, saved together.

    Args:
        **optimizers: The optimizers.
    """

    def __init__(self, **optimizers: Optimizer) -> None:
        self._optimizers = optimizers

    def __getitem__(self, name: str) -> Optimizer:
        """Return an optimizer.

        Raises:
            KeyError: There is none of this name.
        """
        return self._optimizers[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._optimizers)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._optimizers)

    def state_dict(self) -> dict[str, object]:
        """Return the state of each by its name."""
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take the states.

        Raises:
            StateError: They are of other optimizers; the message names one.
        """
        for name, state in _states(state_dict, self._optimizers, "optimizer").items():
            self._optimizers[name].load_state_dict(state)


def _states(states: Mapping[str, object], ours: Mapping[str, object], where: str) -> dict[str, dict[str, object]]:
    """Return the states of our optimizers, if they are of just these."""
    for name in sorted(states.keys() ^ ours.keys()):
        have, lack = ("the state", "this run") if name in states else ("this run", "the state")
        raise StateError(f"{have} has an optimizer '{name}', {lack} has none", where=where)
    found = {name: state for name, state in states.items() if isinstance(state, dict)}
    for name in states.keys() - found.keys():
        raise StateError(f"expected a mapping, got a {type(states[name]).__name__}", where=f"{where}.{name}")
    return found


class OptimWrapperDict(Mapping[str, OptimWrapper]):
    """Wrappers by name, for models with several optimizers, which say in their ``train_step`` what each does when.

    What only one optimizer could mean (`update_params`, `backward`, `step`, `optim_context`) is an error that says so.

    Args:
        **optim_wrapper_dict: The wrappers.

    Raises:
        TypeError: One of them is none.
    """

    def __init__(self, **optim_wrapper_dict: OptimWrapper) -> None:
        for name, wrapper in optim_wrapper_dict.items():
            if not isinstance(wrapper, OptimWrapper):
                raise TypeError(
                    f"'{name}' is a {type(wrapper).__name__}, not an OptimWrapper: wrap the optimizer in one"
                )
        self._wrappers = optim_wrapper_dict

    def __getitem__(self, name: str) -> OptimWrapper:
        """Return a wrapper.

        Raises:
            KeyError: There is none of this name.
        """
        if name not in self._wrappers:
            hint = did_you_mean(name, self._wrappers) or f"there are {', '.join(self._wrappers) or 'none'}"
            raise KeyError(f"no optimizer '{name}': {hint}")
        return self._wrappers[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._wrappers)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._wrappers)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a wrapper of this name."""
        return name in self._wrappers

    def update_params(self, loss: Tensor) -> NoReturn:
        """Refuse.

        Raises:
            NotImplementedError: Always.
        """
        self._refuse("update_params(loss)")

    def backward(self, loss: Tensor) -> NoReturn:
        """Refuse.

        Raises:
            NotImplementedError: Always.
        """
        self._refuse("backward(loss)")

    def step(self) -> NoReturn:
        """Refuse.

        Raises:
            NotImplementedError: Always.
        """
        self._refuse("step()")

    def optim_context(self, model: nn.Module) -> AbstractContextManager[object]:
        """Refuse.

        Raises:
            NotImplementedError: Always.
        """
        self._refuse("optim_context(model)")

    def _refuse(self, call: str) -> NoReturn:
        name = next(iter(self._wrappers), "name")
        raise NotImplementedError(
            f"{call} of several optimizers means nothing: call it of one of them, ['{name}'].{call}"
        )

    def zero_grad(self) -> None:
        """Forget the gradients of all."""
        for wrapper in self._wrappers.values():
            wrapper.zero_grad()

    def initialize_count_status(self, model: nn.Module, cur_iter: int, max_iters: int) -> None:
        """Do nothing: how often each optimizer is used is the model's affair."""

    @property
    def param_groups(self) -> dict[str, list[dict[str, object]]]:
        """The groups of each optimizer by its name."""
        return {name: wrapper.param_groups for name, wrapper in self._wrappers.items()}

    @property
    def steps(self) -> int:
        """Steps that were made, of all together."""
        return sum(wrapper.steps for wrapper in self._wrappers.values())

    @property
    def skipped(self) -> int:
        """Steps that were not made, of all together."""
        return sum(wrapper.skipped for wrapper in self._wrappers.values())

    def get_lr(self) -> dict[str, list[float]]:
        """Return ``{"name.lr": [of each group]}`` of all."""
        return {f"{name}.lr": wrapper.get_lr()["lr"] for name, wrapper in self._wrappers.items()}

    def get_momentum(self) -> dict[str, list[float]]:
        """Return ``{"name.momentum": [of each group]}`` of all."""
        return {f"{name}.momentum": wrapper.get_momentum()["momentum"] for name, wrapper in self._wrappers.items()}

    def state_dict(self) -> dict[str, object]:
        """Return the state of each by its name."""
        return {name: wrapper.state_dict() for name, wrapper in self._wrappers.items()}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take the states.

        Raises:
            StateError: They are of other optimizers; the message names one.
        """
        for name, state in _states(state_dict, self._wrappers, "updates").items():
            self._wrappers[name].load_state_dict(state)

    def __repr__(self) -> str:
        """Show each under its name."""
        return "\n".join(f"name: {name}\n{wrapper!r}" for name, wrapper in self._wrappers.items())
