"""torch's ZeroRedundancyOptimizer, with states that are saved and loaded as any optimizer's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

from treenail.adapters.comm import TorchCommunicator, gather_object
from treenail.adapters.parallel.closures import needs_closure


class ZeroOptimizer(ZeroRedundancyOptimizer):
    """An optimizer whose states are divided over ranks; `optim` is what updates this rank's share.

    Args:
        params: Parameters, or groups of them.
        make: Makes the optimizer of a share, given as groups.
        communicator: The ranks.

    Raises:
        ValueError: As for `zero_redundancy`.
    """

    optim: Optimizer

    def __init__(
        self,
        params: list[nn.Parameter],
        make: Callable[[Iterable[nn.Parameter]], Optimizer],
        communicator: TorchCommunicator,
    ) -> None:
        # torch calls what it takes for a class with this rank's groups, and nothing else.
        super().__init__(params, make, process_group=communicator.process_group)  # type: ignore[arg-type]
        self._communicator = communicator
        self.defaults = self.optim.defaults  # schedulers look there for what can be scheduled
        if any(hasattr(parameter, "to_local") for parameter in self._numbers()):
            raise ValueError(
                "the parameters are spread over ranks, each of which keeps only its part of the optimizer's states "
                f"already; use {type(self.optim).__name__} without ZeRO"
            )
        if needs_closure(self.optim):
            raise ValueError(
                f"{type(self.optim).__name__} evaluates the loss several times a step; its states cannot be divided"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state as the optimizer by itself would; every rank calls this.

        Rank 0 gets the states of all parameters, on the CPU, any other rank those of its share: what it loads.
        """
        whole = Optimizer.state_dict(self)
        kept = {parameter: _on_cpu(state) for parameter, state in self.optim.state.items()}
        states: dict[int, object] = {}
        for parameter, number in self._numbers().items():  # one at a time, so that rank 0 holds none of them twice
            own = kept.get(parameter)
            gathered = gather_object(self._communicator, own) or [own]
            state = next((each for each in gathered if each is not None), None)
            if state is not None:
                states[number] = state
        return {**whole, "state": states}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the state of any optimizer of the same kind, divided or not.

        Raises:
            ValueError: It is of other groups of parameters.
        """
        # torch's own would keep this rank's states a second time, and write into the one that it is given.
        Optimizer.load_state_dict(self, {**state_dict, "state": {}})
        numbers, states, shares = self._numbers(), state_dict["state"], self.optim.state_dict()["param_groups"]
        mine = [parameter for group in self.optim.param_groups for parameter in group["params"]]
        self.optim.load_state_dict(
            {
                "state": {
                    place: states[numbers[parameter]]
                    for place, parameter in enumerate(mine)
                    if numbers[parameter] in states
                },
                "param_groups": [
                    {**group, "params": share["params"]}
                    for group, share in zip(state_dict["param_groups"], shares, strict=True)
                ],
            }
        )

    def _numbers(self) -> dict[nn.Parameter, int]:
        """Return the numbers that parameters have in a state."""
        parameters = (parameter for group in self.param_groups for parameter in group["params"])
        return {parameter: number for number, parameter in enumerate(parameters)}


def _on_cpu(state: Mapping[str, object]) -> dict[str, object]:
    return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in state.items()}
