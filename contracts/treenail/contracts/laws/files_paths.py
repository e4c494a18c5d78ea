"""The laws of a file backend's paths and listings; part of `FileBackendLaws`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from unittest import SkipTest

from treenail.contracts.files import SplitsUris
from treenail.contracts.laws._file_model import BAD_PATHS, NAMES, by_bytes
from treenail.contracts.laws._support import accepted, refused
from treenail.kernel import FileBackend, FileError, FileMissingError


class PathLaws(ABC):
    """A path names one file, wherever it lies."""

    @abstractmethod
    def make(self) -> FileBackend:
        """Return a backend whose root is fresh and empty, every time."""

    def holding(self, *paths: str) -> FileBackend:
        """Return a backend where each path holds its own name."""
        backend = self.make()
        for path in paths:
            backend.write(path, path.encode())
        return backend

    def test_list_is_complete_and_sorted_by_bytes(self) -> None:
        """A list yields every file once, in order of the UTF-8 bytes of the whole path."""
        paths = ["a/b", "a.b", "a0", "Z", "a b", "é", "\U0001f600", "\uffe0", "a-/x", "a/-", "z/y/x", "z/y.x", "z/y0"]
        backend = self.holding(*paths)
        found = list(backend.list())
        assert sorted(found, key=by_bytes) == sorted(paths, key=by_bytes), (
            f"wrote {sorted(paths)}, listed {sorted(found)}"
        )
        assert found == sorted(paths, key=by_bytes), f"listed in the order {found}"
        assert list(backend.list("z")) == ["z/y.x", "z/y/x", "z/y0"], f"list('z') gives {list(backend.list('z'))}"

    def test_a_prefix_is_a_directory(self) -> None:
        """The prefix "a" lists what lies below "a/" at any depth: neither "ab/x" nor the file "a" itself."""
        backend = self.holding("a/x", "a/b/y", "a/b.c", "ab/x", "a.b", "b/a/x", "file")
        for prefix, expected in (
            ("a", ["a/b.c", "a/b/y", "a/x"]),
            ("a/b", ["a/b/y"]),
            ("b", ["b/a/x"]),
            ("", ["a.b", "a/b.c", "a/b/y", "a/x", "ab/x", "b/a/x", "file"]),
            ("file", []),
        ):
            found = list(backend.list(prefix))
            assert found == expected, f"list('{prefix}') gives {found}, below it lie {expected}"

    def test_a_prefix_without_files_lists_nothing(self) -> None:
        """A prefix with nothing below it lists nothing, and is no error."""
        for backend in (self.make(), self.holding("a/x")):
            for prefix in ("missing", "a/y", "missing/missing", "a/x/y"):
                with accepted(f"list('{prefix}') without files below it"):
                    found = list(backend.list(prefix))
                assert found == [], f"list('{prefix}') gives {found}"

    def test_delete_removes_one_file(self) -> None:
        """A deleted file is gone for every verb, its neighbours stay, and it can be written again."""
        paths = ["a", "ab", "d/e/x", "d/e/y", "d/ex", "d/f"]
        for path in paths:
            backend = self.holding(*paths)
            backend.delete(path)
            rest = [each for each in paths if each != path]
            assert list(backend.list()) == rest, f"after delete('{path}') of {paths}: {list(backend.list())}"
            assert all(backend.read(each) == each.encode() for each in rest), f"delete('{path}') changed a neighbour"
            for verb in (backend.read, backend.stat, backend.delete):
                with refused(f"{verb.__name__} of a deleted file", FileMissingError):
                    verb(path)
            with accepted(f"writing '{path}' again after it was deleted"):
                backend.write(path, b"again")
            assert backend.read(path) == b"again", "a deleted file could not be written again"

    def test_missing_files_are_named_so(self) -> None:
        """Reading, stat and deletion of what is no file (a directory, too) raise FileMissingError and change nothing."""
        backend = self.holding("d/file", "file")
        verbs: tuple[Callable[[str], object], ...] = (backend.read, backend.stat, backend.delete)
        for path in ("missing", "d", "d/missing", "missing/missing", "file/below", "fil", "d/file2"):
            for verb in verbs:
                with refused(f"{verb.__name__}('{path}'), which is no file,", FileMissingError):
                    verb(path)
        with refused("read of a range of a missing file", FileMissingError):
            backend.read("missing", 1, 0)
        assert list(backend.list()) == ["d/file", "file"], f"asking for missing files left {list(backend.list())}"

    def test_bad_paths_are_refused(self) -> None:
        """An empty, absolute, climbing or ambiguous path raises FileError from every verb, and nothing is made."""
        backend = self.holding("keep")
        verbs: dict[str, Callable[[str], object]] = {
            "read": backend.read,
            "write": lambda path: backend.write(path, b"bad"),
            "stat": backend.stat,
            "delete": backend.delete,
            "list": lambda path: list(backend.list(path)),
        }
        for name, verb in verbs.items():
            for path in BAD_PATHS if name == "list" else ("", *BAD_PATHS):
                with refused(f"{name}({path!r})", FileError, never=(FileMissingError,)):
                    verb(path)
        assert list(backend.list()) == ["keep"], f"refused paths made or removed files: {list(backend.list())}"
        assert backend.read("keep") == b"keep", "a refused path changed a file"

    def test_names_are_taken_literally(self) -> None:
        """Unicode, spaces, percent signs, leading dots and the like name files of their own, as they are."""
        with accepted("writing files with unusual names"):
            backend = self.holding(*NAMES)
        found = list(backend.list())
        assert found == sorted(NAMES, key=by_bytes), f"listed otherwise than written: {sorted({*found} ^ {*NAMES})}"
        for name in NAMES:
            with accepted(f"reading {name!r}"):
                content = backend.read(name)
            assert content == name.encode(), f"{name!r} holds the content of another name"
            assert backend.stat(name).size == len(name.encode()), f"stat of {name!r} is of another file"

    def test_names_may_be_long(self) -> None:
        """Names of 255 bytes and paths of 1,000 work as others do, or are refused when they are written."""
        deep = "/".join(["p" * 99] * 10)
        for path in ("n" * 255, f"d/{'é' * 127}", deep):
            backend = self.holding("keep")
            try:
                backend.write(path, b"content")
            except FileError:
                left = ["keep"]
            else:
                assert backend.read(path) == b"content", f"a file with a name of {len(path.encode())} bytes changed"
                left = sorted(("keep", path), key=by_bytes)
            assert list(backend.list()) == left, f"after a long name of {len(path.encode())} bytes: other files"

    def test_a_file_and_a_directory_of_one_name(self) -> None:
        """Writing below a file, or over a directory, raises FileError and changes nothing, or gives both files."""
        for first, second in (("a", "a/b"), ("a", "a/b/c"), ("a/b", "a")):
            backend = self.holding(first)
            try:
                backend.write(second, b"second")
            except FileError:
                expected = [first]
            else:
                expected = sorted((first, second), key=by_bytes)
                assert backend.read(second) == b"second", f"'{second}' beside '{first}' does not hold what was written"
            assert list(backend.list()) == expected, f"'{second}' after '{first}': {list(backend.list())}"
            assert backend.read(first) == first.encode(), f"writing '{second}' changed '{first}'"


def check_splitting(backend: FileBackend) -> None:
    """Assert that a backend's class splits the URIs of its files as `SplitsUris` says; skip where it splits none."""
    splitting: object = type(backend)
    if not isinstance(splitting, SplitsUris):
        raise SkipTest("the backend's class splits no URIs")
    with accepted("splitting the backend's own URI"):
        root, top = splitting.split_uri(backend.uri)
    assert splitting.split_uri(root) == (root, ""), f"the root '{root}' is split into {splitting.split_uri(root)}"
    for path in ("keep", "d/e f", "d.x/é/x"):
        uri = f"{backend.uri.rstrip('/')}/{path}"
        expected = (root, f"{top}/{path}" if top else path)
        for given_uri in (uri, f"{uri}/"):
            with accepted(f"splitting '{given_uri}'"):
                found = splitting.split_uri(given_uri)
            assert found == expected, f"'{given_uri}' is split into {found}, not {expected}"
