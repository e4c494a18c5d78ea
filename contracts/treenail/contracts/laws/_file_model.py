"""Files as a dict, names and paths to try, and writes that fail, for the laws of a file backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from treenail.contracts.files import CopiesFiles, CreatesFiles, ScansFiles, StreamsFiles, TellsDirectories
from treenail.contracts.laws._support import refused
from treenail.kernel import FileBackend, FileError, FileMissingError

NAMES = (
    *("plain", "UPPER", "upper", "with space", " edge ", "100%", "a%20b", "a b", "a+b", "a%2Fb", "a&b=c", "a#b", "a?b"),
    *(
        ".hidden",
        "..two",
        "...",
        "dir.d/.hidden/x",
        "~",
        "$HOME",
        "-rf",
        "a:b",
        "a,b;c",
        "'\"",
        "*",
        "[a]",
        "a.b",
        "a-b/c",
    ),
    *("ünïcödé/文件.bin", "e\u0301", "\ue000", "\U0001f600"),
    *("nested/very/very/deep/file", "nested/very.txt", "nested/verya"),
)
"""Unusual names of files, all of which can lie side by side."""
BAD_PATHS = (
    *("/", "/a", "..", "../a", "../keep", "a/..", "a/../b", "keep/../keep", "d/../a", "a/../../b"),
    *(".", "./keep", "keep/.", "a/./b", "a//b", "keep/", "\0", "a\0b", "\ud800"),
)
"""What is no path below a root; "" is none of a file."""
_PATHS = (
    *(
        "a",
        "b",
        "ab",
        "a.b",
        "d/a",
        "d/b",
        "d/e/a",
        "d/e",
        "dd/a",
        "d.x",
        "d x/ü%20.bin",
        "文件/\U0001f600",
        "a/b",
        "d",
    ),
    *(f"{'long' * 20}/{'name' * 15}", "d/.hidden", "d/e/f/g/h/i/j"),
)
_paths = st.sampled_from(_PATHS)
_contents = st.binary(max_size=20) | st.integers(0, 3000).map(lambda size: bytes(range(250)) * (size // 250 + 1))


class BrokenSourceError(Exception):
    """What an iterable raises midway."""


class Interrupt(BaseException):
    """Like KeyboardInterrupt, which is no Exception either."""


def by_bytes(path: str) -> bytes:
    """Return what paths are sorted by."""
    return path.encode()


def broken(error: type[BaseException]) -> Iterator[bytes]:
    """Yield some bytes, then raise."""
    yield b"half of the " * 10_000
    raise error("the source broke")


def write_and_fail(backend: FileBackend, path: str, error: type[BaseException]) -> None:
    """Write from an iterable that raises midway; the write must raise, too."""
    try:
        backend.write(path, broken(error))
    except (error, FileError):
        return
    raise AssertionError(f"write swallowed the {error.__name__} that its iterable raised")


class AgainstDict(RuleBasedStateMachine):
    """Does the same to a backend and to a dict, and compares; with the backend's abilities, too.

    A file and a directory of one name: the backend may refuse the second, or have both.
    """

    def __init__(self, backend: FileBackend) -> None:
        super().__init__()
        self.backend = backend
        self.model: dict[str, bytes] = {}

    @rule(path=_paths, data=_contents, chunked=st.booleans())
    def write(self, path: str, data: bytes, chunked: bool) -> None:
        chunks = iter([data[:7], data[7:]]) if chunked else data
        if self._done(path, lambda: self.backend.write(path, chunks)):
            self.model[path] = data

    @rule(path=_paths)
    def fail_to_write(self, path: str) -> None:
        write_and_fail(self.backend, path, BrokenSourceError)

    @rule(path=_paths, data=_contents)
    @precondition(lambda self: isinstance(self.backend, CreatesFiles))
    def create(self, path: str, data: bytes) -> None:
        backend, made = self.backend, list[bool]()
        assert isinstance(backend, CreatesFiles)
        if self._done(path, lambda: made.append(backend.create(path, data))):
            assert made == [path not in self.model], f"create('{path}') says {made[0]}; it was there: {not made[0]}"
            self.model.setdefault(path, data)

    @rule(source=_paths, place=_paths)
    @precondition(lambda self: isinstance(self.backend, CopiesFiles))
    def copy(self, source: str, place: str) -> None:
        backend = self.backend
        assert isinstance(backend, CopiesFiles)
        if source not in self.model:
            kinds = (FileError,) if self._conflicts(place) else (FileMissingError,)
            with refused(f"copy('{source}', '{place}') of what is no file", *kinds):
                backend.copy(source, place)
        elif self._done(place, lambda: backend.copy(source, place)):
            self.model[place] = self.model[source]

    @rule(path=_paths)
    def delete(self, path: str) -> None:
        if path in self.model:
            self.list("")
            self.backend.delete(path)
            del self.model[path]
            self.list("")
        else:
            with refused(f"delete('{path}'), which is no file,", FileMissingError):
                self.backend.delete(path)

    @rule(path=_paths, start=st.integers(0, 30), length=st.none() | st.integers(0, 30))
    def read(self, path: str, start: int, length: int | None) -> None:
        if path in self.model:
            data = self.model[path]
            assert self.backend.read(path) == data, f"read('{path}') gives another content"
            assert self.backend.stat(path).size == len(data), f"stat('{path}') gives another size"
            part = data[start:] if length is None else data[start : start + length]
            assert self.backend.read(path, start, length) == part, f"read('{path}', {start}, {length}) is wrong"
            if isinstance(self.backend, StreamsFiles):
                streamed = b"".join(self.backend.stream(path, start, length))
                assert streamed == part, f"stream('{path}', {start}, {length}) is wrong"
        else:
            verbs: tuple[Callable[[str], object], ...] = (self.backend.read, self.backend.stat)
            for verb in verbs:
                with refused(f"{verb.__name__}('{path}'), which is no file,", FileMissingError):
                    verb(path)

    @rule(path=st.sampled_from(("", *BAD_PATHS)), data=_contents)
    def be_given_a_bad_path(self, path: str, data: bytes) -> None:
        with refused(f"read({path!r})", FileError, never=(FileMissingError,)):
            self.backend.read(path)
        with refused(f"write({path!r})", FileError, never=(FileMissingError,)):
            self.backend.write(path, data)

    @rule(prefix=st.sampled_from(("", "d", "d/e", "dd", "a", "missing", "d x", "文件")))
    def list(self, prefix: str) -> None:
        lead = f"{prefix}/" if prefix else ""
        expected = sorted((path for path in self.model if path.startswith(lead)), key=by_bytes)
        found = [*self.backend.list(prefix)]
        assert found == expected, f"list('{prefix}') gives {found}, there are {expected}"
        if isinstance(self.backend, ScansFiles):
            scanned = [(path, stat.size) for path, stat in self.backend.scan(prefix)]
            sizes = [(path, len(self.model[path])) for path in expected]
            assert scanned == sizes, f"scan('{prefix}') gives {scanned}, there are {sizes}"

    def teardown(self) -> None:
        """Look at everything once more."""
        self.list("")
        for path, data in self.model.items():
            assert self.backend.read(path) == data, f"in the end '{path}' holds another content"

    def _conflicts(self, path: str) -> bool:
        if isinstance(self.backend, TellsDirectories) and self.backend.is_directory(path):  # may be left, empty
            return True
        return any(each.startswith(f"{path}/") or path.startswith(f"{each}/") for each in self.model)

    def _done(self, path: str, act: Callable[[], object]) -> bool:
        """Do it; return False where it was refused as a second thing of one name."""
        try:
            act()
        except FileError:
            if not self._conflicts(path):
                raise
            return False
        return True
