"""What the parts of a run tell each other: histories of scalars, and other information."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, SupportsFloat, TypeVar

from treenail.adapters.logging.compat.errors import ConflictError, KindError, UnknownNameError
from treenail.adapters.logging.compat.history import HistoryBuffer
from treenail.adapters.logging.compat.instances import Instances
from treenail.kernel import StateError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Scalar = float | SupportsFloat | Tensor | NDArray[np.number[Any]]  # Any: numbers of any width

T = TypeVar("T")
_FIELDS: Final = ("log_scalars", "runtime_info", "resumed_keys")
_NONE: Final = object()


class MessageHub:
    """Histories of scalars and other information, by name; mmengine's class of this name.

    A `LogProcessor` makes log lines of the scalars whose names begin with ``train/``, ``val/`` or ``test/``. Each name is
    either kept in checkpoints or not, by what `resumed` is at its first update.

    Args:
        name: Of the hub.
        log_scalars: Histories to begin with.
        runtime_info: Information to begin with.
        resumed_keys: For names of either, whether checkpoints keep them; those that are not in it are not kept.

    Raises:
        KindError: A value of log_scalars is no HistoryBuffer; also a TypeError.
        ConflictError: A name of resumed_keys is in neither of the others; also an AssertionError.

    References:
        https://mmengine.readthedocs.io/en/latest/advanced_tutorials/logging.html
    """

    def __init__(
        self,
        name: str,
        log_scalars: Mapping[str, HistoryBuffer] | None = None,
        runtime_info: Mapping[str, object] | None = None,
        resumed_keys: Mapping[str, bool] | None = None,
    ) -> None:
        self._name = name
        self._log_scalars = OrderedDict(log_scalars or {})
        self._runtime_info = OrderedDict(runtime_info or {})
        self._resumed_keys = OrderedDict(resumed_keys or {})
        for key, value in self._log_scalars.items():
            if not isinstance(value, HistoryBuffer):
                raise KindError(f"log_scalars['{key}'] is a {type(value).__qualname__}, must be a HistoryBuffer")
        for key in self._resumed_keys:
            if key not in self._log_scalars and key not in self._runtime_info:
                raise ConflictError(f"resumed_keys names '{key}', which is neither in log_scalars nor in runtime_info")

    # Instances

    @classmethod
    def get_instance(cls, name: str, **kwargs: Any) -> MessageHub:  # Any: each of its own type, as in the constructor
        """Return the hub of a name in this context; make it, and let it be the current one, if there is none.

        Args:
            name: Its name.
            **kwargs: How to make it: arguments of the class.

        Raises:
            ConflictError: There are arguments for a hub that is there already; also an AssertionError.
        """
        return _HUBS.get_or_make(name, cls, kwargs)

    @classmethod
    def get_current_instance(cls) -> MessageHub:
        """Return the hub made last; one named ``mmengine`` where there is none yet."""
        return _HUBS.latest() or cls.get_instance("mmengine")

    @classmethod
    def check_instance_created(cls, name: str) -> bool:
        """Return whether there is a hub of a name."""
        return _HUBS.get(name) is not None

    @property
    def instance_name(self) -> str:
        """The hub's name."""
        return self._name

    # Scalars

    def update_scalar(self, key: str, value: Scalar, count: int = 1, resumed: bool = True) -> None:
        """Add a value to the history of a name.

        Args:
            key: The name.
            value: A number, or a tensor or array of one element, which is copied to the CPU at once.
            count: What it counts in a mean.
            resumed: Whether checkpoints keep the history.

        Raises:
            ConflictError: resumed was something else before, or the name is that of information; also an AssertionError.
            KindError: The value is no single number; also a TypeError.
            ValueError: The count is negative or not finite.
        """
        self._check_resumed(key, resumed)
        buffer = self._log_scalars.get(key)
        if buffer is None:
            if key in self._runtime_info:
                raise _taken(key, "information")
            buffer = HistoryBuffer()
        buffer.update(_single(key, value), _single(key, count))
        self._log_scalars[key] = buffer
        self._resumed_keys[key] = resumed

    def update_scalars(self, log_dict: Mapping[str, Scalar | Mapping[str, Any]], resumed: bool = True) -> None:
        """Add values to the histories of several names.

        Args:
            log_dict: By name, a value as `update_scalar` takes it, or ``{"value": value, "count": count}``.
            resumed: Whether checkpoints keep these histories.

        Raises:
            ConflictError: resumed was something else before, or there is no 'value'; also an AssertionError.
            KindError: A value is no single number; also a TypeError.
        """
        for key, given in log_dict.items():
            if not isinstance(given, Mapping):
                self.update_scalar(key, given, 1, resumed)
            elif "value" not in given or given.keys() - {"value", "count"}:
                raise ConflictError(f"'{key}' has {', '.join(map(str, given)) or 'nothing'}, not value and count")
            else:
                self.update_scalar(key, given["value"], given.get("count", 1), resumed)

    def get_scalar(self, key: str) -> HistoryBuffer:
        """Return the history of a name, itself and no copy.

        Raises:
            UnknownNameError: There is none; also a KeyError.
        """
        if key not in self._log_scalars:
            raise _unknown(self._name, "scalar", key, self._log_scalars)
        return self._log_scalars[key]

    @property
    def log_scalars(self) -> OrderedDict[str, HistoryBuffer]:
        """The histories by name, themselves and no copies."""
        return self._log_scalars

    # Information

    # Any, here and below: what is told is known to those who tell and ask
    def update_info(self, key: str, value: Any, resumed: bool = True) -> None:
        """Set the information of a name.

        Args:
            key: The name.
            value: Anything; to be kept in checkpoints, it must be copyable.
            resumed: Whether checkpoints keep it.

        Raises:
            ConflictError: resumed was something else before, or the name is a scalar's; also an AssertionError.
        """
        if key in self._log_scalars:
            raise _taken(key, "a scalar")
        self._check_resumed(key, resumed)
        self._runtime_info[key] = value
        self._resumed_keys[key] = resumed

    def update_info_dict(self, info_dict: Mapping[str, Any], resumed: bool = True) -> None:
        """Set the information of several names; see `update_info`.

        Args:
            info_dict: The information by name.
            resumed: Whether checkpoints keep it.
        """
        for key, value in info_dict.items():
            self.update_info(key, value, resumed)

    def get_info(self, key: str, default: Any = _NONE) -> Any:
        """Return a copy of the information of a name.

        Args:
            key: The name.
            default: What to return where there is none.

        Raises:
            UnknownNameError: There is none, and no default; also a KeyError.
        """
        if key in self._runtime_info:
            return _copied(key, self._runtime_info[key])
        if default is _NONE:
            raise _unknown(self._name, "information", key, self._runtime_info)
        return default

    def pop_info(self, key: str, default: Any = None) -> Any:
        """Remove the information of a name and return it, or the default where there is none.

        Args:
            key: The name.
            default: What to return where there is none.
        """
        if key in self._runtime_info and key not in self._log_scalars:
            self._resumed_keys.pop(key, None)
        return self._runtime_info.pop(key, default)

    @property
    def runtime_info(self) -> OrderedDict[str, Any]:
        """The information by name, in a dict of its own."""
        return self._runtime_info.copy()

    # State

    def state_dict(self) -> dict[str, object]:
        """Return what checkpoints keep: ``log_scalars``, ``runtime_info`` and ``resumed_keys``, histories as their states.

        Raises:
            KindError: Some information cannot be copied; also a TypeError.
        """
        kept = [key for key, resumed in self._resumed_keys.items() if resumed]
        return {
            "log_scalars": {key: self._log_scalars[key].state_dict() for key in kept if key in self._log_scalars},
            "runtime_info": {key: _copied(key, self._runtime_info[key]) for key in kept if key in self._runtime_info},
            "resumed_keys": dict.fromkeys(kept, True),
        }

    def load_state_dict(self, state_dict: Mapping[str, object] | MessageHub) -> None:
        """Take a state beside what is there: of a dict what it says is to be resumed, of another hub everything.

        Args:
            state_dict: What `state_dict` returned (a history may be a HistoryBuffer, too), or a hub; it is copied.

        Raises:
            StateError: The state has another form; nothing was taken.
            KindError: Some information cannot be copied; also a TypeError.
        """
        if isinstance(state_dict, MessageHub):
            scalars = {key: copy.deepcopy(buffer) for key, buffer in state_dict._log_scalars.items()}
            infos, resumed = state_dict._runtime_info, dict(state_dict._resumed_keys)
        else:
            parts = [_mapping(state_dict, field) for field in _FIELDS]
            resumed = {key: True for key, is_resumed in parts[2].items() if is_resumed}
            scalars = {key: _history(key, state) for key, state in parts[0].items() if key in resumed}
            infos = OrderedDict((key, value) for key, value in parts[1].items() if key in resumed)
        infos = OrderedDict((key, _copied(key, value)) for key, value in infos.items())
        self._log_scalars.update(scalars)
        self._runtime_info.update(infos)
        self._resumed_keys.update(resumed)

    def _check_resumed(self, key: str, resumed: bool) -> None:
        before = self._resumed_keys.get(key, resumed)
        if before != resumed:
            raise ConflictError(
                f"{key} used to be {before}, but got {resumed} now. resumed keys cannot be modified repeatedly",
                mend="give the same resumed at each update of a name",
            )


_HUBS: Final = Instances[MessageHub]("message hub")


def _single(key: str, value: object) -> float:
    """Return a single number as Python has it."""
    if type(value) is float or type(value) is int:  # nearly always, and much faster to find out
        return value
    item = getattr(value, "item", None)
    if callable(item):  # of a tensor, an array, or a number of numpy
        try:
            value = item()
        except (ValueError, RuntimeError) as error:
            shape = list(getattr(value, "shape", ()))
            raise KindError(f"the value of '{key}' has shape {shape}, must be a single number") from error
    if not isinstance(value, SupportsFloat):
        raise KindError(f"the value of '{key}' is a {type(value).__qualname__}, must be a number")
    return value if isinstance(value, int | float) else float(value)


def _copied(key: str, value: T) -> T:
    try:
        return copy.deepcopy(value)
    except Exception as error:
        raise KindError(
            f"the information '{key}', a {type(value).__qualname__}, cannot be copied: {error}",
            mend="keep what a copy can be made of, and out of checkpoints what is no data (resumed=False)",
        ) from error


def _taken(key: str, kind: str) -> ConflictError:
    return ConflictError(
        f"'{key}' is {kind} already", mend="choose another name: one stands for a scalar or for information"
    )


def _unknown(hub: str, what: str, key: str, there: Mapping[str, object]) -> UnknownNameError:
    mend = f"there are {', '.join(there)}" if there else "there is none yet"
    return UnknownNameError(f"the message hub '{hub}' has no {what} '{key}'", mend=mend)


def _mapping(state: Mapping[str, object], field: str) -> Mapping[str, object]:
    found = state.get(field)
    if not isinstance(found, Mapping):
        raise StateError(f"the state has no mapping '{field}'", where="message_hub")
    return found


def _history(key: str, state: object) -> HistoryBuffer:
    if isinstance(state, HistoryBuffer):
        return copy.deepcopy(state)
    if not isinstance(state, Mapping):
        raise StateError(f"a {type(state).__qualname__} is no history", where=f"message_hub.log_scalars.{key}")
    buffer = HistoryBuffer()
    try:
        buffer.load_state_dict(state)
    except StateError as error:
        raise StateError(str(error), where=f"message_hub.log_scalars.{key}") from error
    return buffer


__all__ = ["MessageHub"]
