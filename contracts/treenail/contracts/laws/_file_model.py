"""Files as a dict, and writes that fail, for the laws of a file backend."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from treenail.contracts.laws._support import refused
from treenail.kernel import FileBackend, FileError, FileMissingError

_paths = st.sampled_from(("a", "b", "ab", "d/a", "d/b", "d/e/a", "dd/a", "d.x"))


class BrokenSourceError(Exception):
    """What an iterable raises midway."""


class Interrupt(BaseException):
    """Like KeyboardInterrupt, which is no Exception either."""


def by_bytes(path: str) -> bytes:
    """Return what paths are sorted by."""
    return path.encode()


def write_and_fail(backend: FileBackend, path: str, error: type[BaseException]) -> None:
    """Write from an iterable that raises midway; the write must raise, too."""

    def chunks() -> Iterator[bytes]:
        yield b"half of the " * 10_000
        raise error("the source broke")

    try:
        backend.write(path, chunks())
    except (error, FileError):
        return
    raise AssertionError(f"write swallowed the {error.__name__} that its iterable raised")


class AgainstDict(RuleBasedStateMachine):
    """Does the same to a backend and to a dict, and compares."""

    def __init__(self, backend: FileBackend) -> None:
        super().__init__()
        self.backend = backend
        self.model: dict[str, bytes] = {}

    @rule(path=_paths, data=st.binary(max_size=20))
    def write(self, path: str, data: bytes) -> None:
        self.backend.write(path, data)
        self.model[path] = data

    @rule(path=_paths)
    def fail_to_write(self, path: str) -> None:
        write_and_fail(self.backend, path, BrokenSourceError)

    @rule(path=_paths)
    def delete(self, path: str) -> None:
        if path in self.model:
            self.backend.delete(path)
            del self.model[path]
        else:
            with refused(f"delete('{path}'), which is no file,", FileMissingError):
                self.backend.delete(path)

    @rule(path=_paths)
    def read(self, path: str) -> None:
        if path in self.model:
            assert self.backend.read(path) == self.model[path], f"read('{path}') gives another content"
        else:
            with refused(f"read('{path}'), which is no file,", FileMissingError):
                self.backend.read(path)

    @invariant()
    def lists_the_same(self) -> None:
        for prefix in ("", "d"):
            expected = [path for path in self.model if path.startswith(f"{prefix}/" if prefix else "")]
            found = list(self.backend.list(prefix))
            assert found == sorted(expected, key=by_bytes), (
                f"list('{prefix}') gives {found}, there are {sorted(expected)}"
            )
