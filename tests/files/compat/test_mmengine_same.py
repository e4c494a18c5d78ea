"""mmengine.fileio and ours give the same results for the same calls on local files; what differs, a test names."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mmengine.fileio as theirs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treenail.adapters.files.compat import mmengine as ours
from treenail.kernel import TreenailError

NAMES = st.sampled_from(["a", "b.txt", "c.json", "ü ß", "d", ".hidden", "e.log"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
COMMON = settings(max_examples=int(os.environ.get("TREENAIL_LAW_EXAMPLES", "60")), deadline=None)


@contextmanager
def two_folders(files: dict[str, str], folders: set[str] = frozenset()) -> Iterator[tuple[Path, Path]]:  # type: ignore[assignment]  # only read
    """Give two directories with the same files."""
    with tempfile.TemporaryDirectory() as top:
        for side in ("theirs", "ours"):
            root = Path(top) / side
            root.mkdir()
            for path, text in files.items():
                target = root / path
                if any(parent.is_file() for parent in target.parents) or target.is_dir():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8", newline="")
            for folder in folders:
                if not any(each.is_file() for each in [root / folder, *(root / folder).parents]):
                    (root / folder).mkdir(parents=True, exist_ok=True)
        yield Path(top) / "theirs", Path(top) / "ours"


def outcome(call: Callable[[], object], root: Path) -> object:
    """Return what a call gives or raises, without the directory's name; of errors, what existing code catches."""
    try:
        found = call()
    except (AssertionError, OSError, TypeError, ValueError, KeyError) as error:
        for kind in (FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError, shutil.SameFileError):
            if isinstance(error, kind):
                return kind
        return next(
            kind
            for kind in (AssertionError, UnicodeError, TypeError, KeyError, ValueError, OSError)
            if isinstance(error, kind)
        )
    if isinstance(found, str | Path):
        return type(found), str(found).replace(str(root), "")
    return found


def tree(root: Path) -> dict[str, object]:
    """Return what lies below a directory: contents and permissions of files, None for directories, where links lead."""
    return {
        str(path.relative_to(root)): str(path.readlink()).replace(str(root), "")
        if path.is_symlink()
        else (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        if path.is_file()
        else None
        for path in sorted(root.rglob("*"))
    }


def same(files: dict[str, str], folders: set[str], call: Callable[[object, Path], object]) -> object:
    """Make a call of both modules on equal directories; results and directories must be equal after it."""
    with two_folders(files, folders) as (left, right):
        expected = outcome(lambda: call(theirs, left), left)
        assert outcome(lambda: call(ours, right), right) == expected
        assert tree(right) == tree(left)
        return expected


FILES = st.dictionaries(PATHS, TEXTS, max_size=5)
FOLDERS = st.sets(PATHS, max_size=2)


@COMMON
@given(FILES, FOLDERS, st.booleans(), st.booleans(), st.sampled_from([None, ".txt", (".txt", ".log")]), st.booleans())
def test_listings_are_the_same(
    files: dict[str, str],
    folders: set[str],
    list_dir: bool,
    list_file: bool,
    suffix: str | tuple[str, ...] | None,
    recursive: bool,
) -> None:
    # Named differences: hidden directories are left out as hidden files are (next test), and a suffix with list_dir is
    # no error but asks for files (the test after it).
    def visible(paths: set[str]) -> set[str]:
        return {path for path in paths if not any(part.startswith(".") for part in path.split("/"))}

    files = {path: text for path, text in files.items() if path in visible(set(files))}
    list_dir = list_dir and suffix is None
    same(
        files,
        visible(folders),
        lambda module, root: sorted(module.list_dir_or_file(root, list_dir, list_file, suffix, recursive)),  # type: ignore[attr-defined]  # a module
    )


def test_hidden_directories_are_left_out_as_hidden_files_are() -> None:
    with two_folders({".git/config": "", "seen": ""}) as (left, right):
        assert sorted(theirs.list_dir_or_file(left, recursive=True)) == [".git", ".git/config", "seen"]
        assert sorted(ours.list_dir_or_file(right, recursive=True)) == ["seen"]


def test_a_suffix_asks_for_files_also_with_list_dir() -> None:
    with two_folders({"a.txt": "", "b/c.txt": "", "d.log": ""}) as (left, right):
        with pytest.raises(TypeError):
            list(theirs.list_dir_or_file(left, suffix=".txt"))
        assert list(ours.list_dir_or_file(right, suffix=".txt")) == ["a.txt"]
        assert sorted(ours.list_dir_or_file(right, suffix=".txt", recursive=True)) == ["a.txt", "b/c.txt"]
        with pytest.raises(TypeError):
            ours.list_dir_or_file(right, suffix=[".txt"])  # type: ignore[arg-type]  # wrong on purpose


OPERATIONS = (
    "copyfile",
    "copyfile_from_local",
    "copyfile_to_local",
    "copytree",
    "copytree_from_local",
    "copytree_to_local",
)


@COMMON
@given(FILES, FOLDERS, PATHS, PATHS, st.sampled_from([*OPERATIONS, "copy_if_symlink_fails"]), st.booleans())
def test_copies_are_the_same(
    files: dict[str, str], folders: set[str], source: str, target: str, operation: str, as_path: bool
) -> None:
    # Named difference: missing parents of a target are made (test below), so the target's exist here.
    def call(module: object, root: Path) -> object:
        parent = (root / target).parent
        if not any(each.is_file() for each in (parent, *parent.parents)):
            parent.mkdir(parents=True, exist_ok=True)
        first, second = (root / source, root / target)
        if str(second).startswith(f"{first}/"):  # shutil copies a directory into itself until names are too long
            return None
        made = getattr(module, operation)(*((first, second) if as_path else (str(first), str(second))))
        return made if not isinstance(made, Path) else str(made)

    same(files, folders, call)


def test_a_copy_makes_the_missing_directories_of_its_target_as_put_does() -> None:
    with two_folders({"a": "text"}) as (left, right):
        with pytest.raises(FileNotFoundError):
            theirs.copyfile(left / "a", left / "new" / "b")
        ours.copyfile(right / "a", right / "new" / "b")
        assert (right / "new" / "b").read_text() == "text"


def test_a_copied_file_has_the_permissions_of_its_source(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o750)
    assert ours.copyfile(script, str(tmp_path / "copy")) == str(tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o750


@COMMON
@given(FILES, FOLDERS, PATHS, st.sampled_from(["exists", "isdir", "isfile", "get", "get_text", "remove", "rmtree"]))
def test_what_is_asked_and_removed_is_the_same(
    files: dict[str, str], folders: set[str], path: str, operation: str
) -> None:
    same(files, folders, lambda module, root: getattr(module, operation)(root / path))


@COMMON
@given(FILES, PATHS, TEXTS, st.sampled_from(["utf-8", "utf-16", "latin-1"]))
def test_what_is_written_is_the_same(files: dict[str, str], path: str, text: str, encoding: str) -> None:
    def call(module: object, root: Path) -> object:
        backend = module.LocalBackend()  # type: ignore[attr-defined]  # a module
        backend.put(text.encode(), root / path)
        backend.put_text(text, root / "sub" / "text")
        return backend.get_text(root / path, encoding=encoding)

    # Where a file stands in the way, both raise; how far each had come before is no promise.
    if not any(name == path or path.startswith(f"{name}/") or name.startswith(f"{path}/") for name in files):
        same(files, set(), call)


@COMMON
@given(st.lists(st.sampled_from(["a", "b/c", "/abs", "", "d/", "x.txt"]), min_size=1, max_size=3))
def test_joined_paths_are_the_same(parts: list[str]) -> None:
    assert ours.join_path("base", *parts) == theirs.join_path("base", *parts)
    assert ours.join_path(Path("base"), *parts) == theirs.join_path(Path("base"), *parts)


@COMMON
@given(VALUES, st.sampled_from(["json", "yaml", "yml", "pkl", "pickle"]))
def test_dumped_and_loaded_values_are_the_same(value: object, suffix: str) -> None:
    trust = suffix in {"pkl", "pickle"}
    assert ours.dump(value, file_format=suffix) == theirs.dump(value, file_format=suffix)
    with two_folders({}) as (left, right):
        theirs.dump(value, left / f"value.{suffix}")
        ours.dump(value, right / f"value.{suffix}")
        assert tree(right) == tree(left)
        assert ours.load(left / f"value.{suffix}", allow_pickle=trust) == theirs.load(right / f"value.{suffix}")
        mode = "b" if trust else ""
        for module in (theirs, ours):
            with open(right / "open", f"w{mode}") as file:
                module.dump(value, file, file_format=suffix)
        with open(right / "open", f"r{mode}") as file:
            assert ours.load(file, file_format=suffix, allow_pickle=trust) == theirs.load(right / f"value.{suffix}")


def test_options_go_to_the_handlers_and_numpy_is_plain_data() -> None:
    value = {"b": {1, 2}, "a": np.arange(3), "c": np.float32(0.5), "d": range(2)}
    assert ours.dump(value, file_format="json", indent=2, sort_keys=True) == theirs.dump(
        value, file_format="json", indent=2, sort_keys=True
    )
    plain = {"b": [1, 2], "a": (1, "x")}
    assert ours.dump(plain, file_format="yaml", sort_keys=False) == theirs.dump(
        plain, file_format="yaml", sort_keys=False
    )
    assert ours.load(io.StringIO(theirs.dump(plain, file_format="yaml")), file_format="yaml") == plain  # with its tuple
    assert pickle.loads(ours.dump(plain, file_format="pkl", protocol=4)) == plain  # type: ignore[arg-type]  # bytes here
    for module in (theirs, ours):
        with pytest.raises(TypeError):
            module.dump(object(), file_format="json")


LINES = st.lists(st.text(st.sampled_from("ab \t\r\x85é1"), max_size=6), max_size=6).map("\n".join)


@COMMON
@given(LINES, st.sampled_from(["", "/mnt/"]), st.integers(0, 4), st.integers(-1, 4))
def test_lists_of_files_are_the_same(text: str, prefix: str, offset: int, max_num: int) -> None:
    same({"f": text}, set(), lambda module, root: module.list_from_file(root / "f", prefix, offset, max_num))  # type: ignore[attr-defined]  # a module


@COMMON
@given(LINES, st.sampled_from([str, int]))
def test_dicts_of_files_are_the_same(text: str, key_type: type) -> None:
    same({"f": text}, set(), lambda module, root: module.dict_from_file(root / "f", key_type=key_type))  # type: ignore[attr-defined]  # a module


@pytest.mark.parametrize("module", [theirs, ours], ids=["theirs", "ours"])
def test_the_examples_of_the_guide(module: object, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\nb\nc\nd\ne\n")
    (tmp_path / "b.txt").write_text("1 cat\n2 dog cow\n3 panda\n")
    listed, mapped = module.list_from_file, module.dict_from_file  # type: ignore[attr-defined]  # a module
    assert listed(tmp_path / "a.txt") == ["a", "b", "c", "d", "e"]
    assert listed(tmp_path / "a.txt", offset=2) == ["c", "d", "e"]
    assert listed(tmp_path / "a.txt", max_num=2) == ["a", "b"]
    assert listed(tmp_path / "a.txt", prefix="/mnt/") == ["/mnt/a", "/mnt/b", "/mnt/c", "/mnt/d", "/mnt/e"]
    assert mapped(tmp_path / "b.txt") == {"1": "cat", "2": ["dog", "cow"], "3": "panda"}
    assert mapped(tmp_path / "b.txt", key_type=int) == {1: "cat", 2: ["dog", "cow"], 3: "panda"}


CALLS: dict[str, Callable[[object, Path], object]] = {
    "an unknown format": lambda module, root: module.load(root / "x.unknown"),  # type: ignore[attr-defined]  # modules, all below
    "a file object without a format": lambda module, root: module.load(io.StringIO("{}")),  # type: ignore[attr-defined]
    "no file and no format": lambda module, root: module.dump(1),  # type: ignore[attr-defined]
    "no file at all": lambda module, root: module.load(3, file_format="json"),  # type: ignore[attr-defined]
    "a missing file": lambda module, root: module.load(root / "none.json"),  # type: ignore[attr-defined]
    "a broken file": lambda module, root: module.load(root / "broken.json"),  # type: ignore[attr-defined]
    "no text": lambda module, root: module.get_text(root / "binary"),  # type: ignore[attr-defined]
    "a listing of nothing": lambda module, root: list(module.list_dir_or_file(root / "none")),  # type: ignore[attr-defined]
    "an unknown scheme": lambda module, root: module.get("nowhere://x/y"),  # type: ignore[attr-defined]
    "an unknown backend": lambda module, root: module.get_file_backend(backend_args={"backend": "no"}),  # type: ignore[attr-defined]
    "neither uri nor name": lambda module, root: module.get_file_backend(),  # type: ignore[attr-defined]
    "an unknown client": lambda module, root: module.FileClient("no"),  # type: ignore[attr-defined]
    "an unknown prefix": lambda module, root: module.FileClient(prefix="nowhere"),  # type: ignore[attr-defined]
    "a client of nothing": lambda module, root: module.FileClient.infer_client(),  # type: ignore[attr-defined]
    "wrong arguments": lambda module, root: module.get_file_backend(root, backend_args={"x": 1}),  # type: ignore[attr-defined]
    "no backend class": lambda module, root: module.register_backend("x", int),  # type: ignore[attr-defined]
    "no backend name": lambda module, root: module.register_backend(3, module.LocalBackend),  # type: ignore[attr-defined]
    "a name twice": lambda module, root: module.register_backend("local", module.LocalBackend),  # type: ignore[attr-defined]
    "no handler": lambda module, root: module.register_handler("x")(dict),  # type: ignore[attr-defined]
    "no formats": lambda module, root: module.register_handler(3)(module.JsonHandler),  # type: ignore[attr-defined]
    "both forms of arguments": lambda module, root: module.list_from_file(  # type: ignore[attr-defined]
        root / "binary", file_client_args={"backend": "disk"}, backend_args={"backend": "local"}
    ),
}


@pytest.mark.filterwarnings("ignore:.*file_client_args:DeprecationWarning")
@pytest.mark.parametrize("name", CALLS)
def test_mistakes_are_the_same_errors_and_ours(name: str) -> None:
    files = {"broken.json": "{"}
    with two_folders(files) as (left, right):
        for root in (left, right):
            (root / "binary").write_bytes(b"\xff\xfe\xff")
        expected = outcome(lambda: CALLS[name](theirs, left), left)
        assert isinstance(expected, type)
        with pytest.raises(expected) as raised:
            CALLS[name](ours, right)
        if name not in {"a broken file", "no text"}:  # what handlers and codecs raise passes as it is
            assert isinstance(raised.value, TreenailError)


def test_what_a_handler_raises_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(json.JSONDecodeError) as raised:
        ours.load(tmp_path / "broken.json")
    assert raised.value.__notes__ == [f"the file is {tmp_path}/broken.json"]


def test_every_public_name_of_theirs_is_ours() -> None:
    assert set(theirs.__all__) <= set(ours.__all__)
    assert all(hasattr(ours, name) for name in ours.__all__)


def test_local_paths_are_given_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    for module in (theirs, ours):
        with module.get_local_path("file") as local:
            assert local == "file"
        assert os.path.exists("file")
