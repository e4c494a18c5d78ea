"""The functions of everyday code give the same over every store, whatever it is mounted as."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treenail.adapters import files
from treenail.adapters.files import LocalFiles, MemoryFiles, Mounts, use_mounts
from treenail.contracts.laws._support import examples
from treenail.kernel import Capabilities, FileError, FileMissingError

ROOTS = "local", "store://mem", "kept://disk", "disk"
TREE = {"a.txt": b"a", "b.bin": b"", "d/c.txt": b"c", "d/d/c.txt": b"cc", "d.x": b"."}
TREE |= {"dd/f": b"1", "dd/dd/f": b"2", ".h/x": b"h"}
NAMES = st.sampled_from(["a", "a.b", "a b", "ü", "dd", "x" * 60, "%20", ".hidden"])
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=9), max_size=8
).filter(lambda tree: not any(f"{path}/" in f"{other}/" for path in tree for other in tree if path != other))


class World:
    """One directory under four names, each another kind of store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "plain").mkdir()
        (directory / "kept").mkdir()
        self.mounts = Mounts()
        self.mounts.mount("store://mem", MemoryFiles())
        self.mounts.mount("kept://disk", LocalFiles(directory / "kept"))
        self.mounts.mount(str(directory / "mounted"), MemoryFiles("memory://mounted"))

    def root(self, kind: str) -> str:
        places = {"local": str(self.directory / "plain"), "disk": str(self.directory / "mounted")}
        return places.get(kind, kind)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with use_mounts(made.mounts):
        yield made


def grow(root: str, tree: dict[str, bytes]) -> str:
    for path, data in tree.items():
        files.put(data, files.join_path(root, path))
    return root


def contents(root: str) -> dict[str, bytes]:
    place = files.current_mounts().resolve(root)
    skipped = len(place.path) + 1 if place.path else 0
    return {path[skipped:]: place.backend.read(path) for path in place.backend.list(place.path)}


@pytest.mark.parametrize("kind", ROOTS)
def test_what_is_put_is_there(world: World, kind: str) -> None:
    path = files.join_path(world.root(kind), "new/deep", "file ü.txt")
    assert not files.exists(path)
    files.put_text("grüße", path)
    assert (files.get_text(path), files.get(path, 2), files.get(path, 0, 3)) == ("grüße", "üße".encode(), b"gr\xc3")
    assert (files.exists(path), files.isfile(path), files.isdir(path)) == (True, True, False)
    assert files.stat(path).size == 7
    directory = files.join_path(world.root(kind), "new")
    assert (files.exists(directory), files.isfile(directory), files.isdir(directory)) == (True, False, True)
    with pytest.raises(FileError, match="not text in ascii"):
        files.get_text(path, "ascii")
    with pytest.raises(FileError, match="no text in latin-1"):
        files.put_text("文", path, "latin-1")
    assert files.get_text(path) == "grüße"


@pytest.mark.parametrize("kind", ROOTS)
def test_what_is_missing_is_an_error_and_never_a_number_or_nothing(world: World, kind: str) -> None:
    """Seeds say size -1, b"" and True here."""
    missing = files.join_path(world.root(kind), "missing")
    for function in (files.stat, files.get, files.get_text, files.remove, files.rmtree):
        with pytest.raises(FileMissingError):
            function(missing)
    with pytest.raises(FileMissingError):
        list(files.list_dir_or_file(missing))
    with pytest.raises(FileMissingError), files.get_local_path(missing):
        pytest.fail("a missing file has no local path")


@pytest.mark.parametrize("kind", ROOTS)
def test_remove_takes_files_and_rmtree_directories(world: World, kind: str) -> None:
    root = grow(files.join_path(world.root(kind), "t"), TREE)
    directory = files.join_path(root, "dd")
    with pytest.raises(FileError, match="remove it with rmtree") as caught:
        files.remove(directory)
    assert not isinstance(caught.value, FileMissingError)
    with pytest.raises(FileMissingError):
        files.rmtree(files.join_path(root, "a.txt"))
    files.remove(files.join_path(root, "a.txt"))
    files.rmtree(directory)
    assert contents(root) == {
        path: data for path, data in TREE.items() if path != "a.txt" and not path.startswith("dd/")
    }
    with pytest.raises(FileError, match="whole root"):
        files.rmtree("store://mem")


@pytest.mark.parametrize("kind", ROOTS)
def test_listings_are_those_of_mmengine(world: World, kind: str) -> None:
    root = grow(files.join_path(world.root(kind), "t"), TREE)

    def found(**options: object) -> set[str]:
        listed = list(files.list_dir_or_file(root, **options))  # type: ignore[arg-type]  # options of several types
        assert len(listed) == len(set(listed))
        return set(listed)

    assert found() == {"a.txt", "b.bin", "d", "dd", "d.x"}
    assert found(list_dir=False) == {"a.txt", "b.bin", "d.x"}
    assert found(list_file=False) == {"d", "dd"}
    assert found(suffix=".txt") == {"a.txt"}
    assert found(suffix=(".txt", ".bin")) == {"a.txt", "b.bin"}
    assert found(suffix=".txt", recursive=True) == {"a.txt", "d/c.txt", "d/d/c.txt"}
    everything = {"a.txt", "b.bin", "d", "d/c.txt", "d/d", "d/d/c.txt", "dd", "dd/f", "dd/dd", "dd/dd/f", "d.x"}
    assert found(recursive=True) == everything
    assert found(list_file=False, recursive=True) == {"d", "d/d", "dd", "dd/dd"}
    with pytest.raises(FileError, match="a suffix is a string"):
        found(suffix=[".txt"])


def test_empty_directories_are_listed_where_there_are_such(world: World) -> None:
    root = world.root("local")
    files.make_directory(files.join_path(root, "empty/deep"))
    assert list(files.list_dir_or_file(root)) == ["empty"]
    assert list(files.list_dir_or_file(root, recursive=True)) == ["empty", "empty/deep"]
    assert list(files.list_dir_or_file(files.join_path(root, "empty/deep"))) == []


def test_links_to_directories_are_listed_and_not_entered(world: World) -> None:
    root = Path(grow(world.root("local"), {"d/f": b"1"}))
    (root / "d/loop").symlink_to(root)
    assert set(files.list_dir_or_file(root, recursive=True)) == {"d", "d/f", "d/loop"}
    assert set(files.list_dir_or_file(root / "d/loop")) == {"d"}


@given(tree=TREES, one=st.sampled_from(ROOTS), other=st.sampled_from(ROOTS))
@examples(40)
def test_a_tree_is_copied_between_any_two_stores(
    tree: dict[str, bytes], one: str, other: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = World(Path(mkdtemp(dir=tmp_path_factory.getbasetemp())))
    with use_mounts(world.mounts):
        source, target = files.join_path(world.root(one), "from"), files.join_path(world.root(other), "x/to")
        grow(source, tree)
        if not tree:
            with pytest.raises(FileMissingError):
                files.copytree(source, target)
            return
        assert files.copytree(source, target) == target
        assert contents(target) == contents(source) == tree
        with pytest.raises(FileError, match="the target exists"):
            files.copytree(source, target)


def test_repeated_folder_names_do_not_mix(world: World) -> None:
    """dd/f and dd/dd/f: a seed writes one over the other."""
    tree = {"f": b"top", "dd/f": b"middle", "dd/dd/f": b"deep"}
    source = grow(files.join_path(world.root("local"), "dd"), tree)
    assert contents(files.copytree(source, "store://mem/dd")) == tree
    assert contents(files.copytree("store://mem/dd", files.join_path(world.root("local"), "again/dd"))) == tree


def test_a_copied_tree_has_its_empty_directories_and_hidden_files(world: World) -> None:
    root = world.root("local")
    grow(files.join_path(root, "from"), {".hidden/f": b"1"})
    files.make_directory(files.join_path(root, "from/empty"))
    files.copytree(files.join_path(root, "from"), files.join_path(root, "to"))
    assert files.isdir(files.join_path(root, "to/empty"))
    assert contents(files.join_path(root, "to")) == {".hidden/f": b"1"}


def test_a_tree_is_not_copied_into_itself(world: World) -> None:
    root = grow(world.root("local"), {"d/f": b"1"})
    grow("kept://disk", {"d/f": b"1"})
    grow("store://mem", {"d/f": b"1"})
    (Path(root) / "link").symlink_to(Path(root) / "d")
    cases = [
        (f"{root}/d", f"{root}/d/below"),
        ("store://mem/d", "store://mem/d/d/below"),
        ("store://mem", "store://mem/below"),
        ("kept://disk/d", str(world.directory / "kept/d/below")),
        (f"{root}/d", f"{root}/link/below"),
    ]
    for source, target in cases:
        with pytest.raises(FileError, match="within the source"):
            files.copytree(source, target)
        assert len(contents(source)) == 1
    assert files.copytree("store://mem/d", "store://mem/dd") == "store://mem/dd"


@pytest.mark.parametrize("one", ROOTS)
@pytest.mark.parametrize("other", ROOTS)
def test_a_file_is_copied_over_any_two_stores(world: World, one: str, other: str) -> None:
    source = files.join_path(world.root(one), "from/f.txt")
    files.put(b"content", source)
    target = files.join_path(world.root(other), "to")
    assert files.copyfile(source, files.join_path(target, "g")) == files.join_path(target, "g")
    assert files.copyfile(source, target) == files.join_path(target, "f.txt"), "a directory takes the file in"
    files.put(b"old", files.join_path(target, "f.txt"))
    files.copyfile(source, target)
    assert contents(target) == {"g": b"content", "f.txt": b"content"}
    with pytest.raises(FileMissingError):
        files.copyfile(files.join_path(target, "missing"), files.join_path(target, "g"))
    assert files.get(files.join_path(target, "g")) == b"content"


def test_a_file_is_not_copied_onto_itself(world: World) -> None:
    root = Path(grow(world.root("local"), {"f": b"1", "d/x": b"2"}))
    (root / "link").symlink_to("f")
    files.put(b"3", "kept://disk/f")
    files.put(b"4", "store://mem/f")
    cases: list[tuple[str | Path, str | Path]] = [
        (root / "f", root / "f"),
        (root / "f", root / "link"),
        (root / "f", root),
        ("kept://disk/f", world.directory / "kept/f"),
        ("store://mem/f", "store://mem/f"),
        ("store://mem/f", "store://mem"),
    ]
    for source, target in cases:
        with pytest.raises(FileError, match="the same file"):
            files.copyfile(source, target)
    assert (root / "f").read_bytes() == b"1"
    assert (root / "link").is_symlink()


class At(MemoryFiles):
    """A bucket of the same name at some endpoint."""

    def __init__(self, endpoint: str) -> None:
        super().__init__("bucket://b")
        self.identity = f"{endpoint} {self.uri}"


def test_stores_of_the_same_name_at_two_endpoints_are_two_stores(world: World) -> None:
    world.mounts.mount("one://b", At("https://one"))
    world.mounts.mount("two://b", At("https://two"))
    files.put(b"1", "one://b/d/f")
    files.copyfile("one://b/d/f", "two://b/d/f")
    assert files.copytree("two://b/d", "one://b/d/back") == "one://b/d/back"
    assert contents("one://b") == {"d/f": b"1", "d/back/f": b"1"}
    world.mounts.mount("also://b", At("https://two"))
    with pytest.raises(FileError, match="the same file"):
        files.copyfile("two://b/d/f", "also://b/d/f")


def test_a_link_is_made_where_one_can_be(world: World) -> None:
    root = Path(grow(world.root("local"), {"d/f": b"1"}))
    assert files.copy_if_symlink_fails(root / "d/f", root / "new/link") is True
    assert (root / "new/link").is_symlink()
    assert files.get(root / "new/link") == b"1"
    assert files.copy_if_symlink_fails(root / "d", root / "directory") is True
    assert files.isdir(root / "directory")
    assert files.copy_if_symlink_fails(root / "d/f", "store://mem/f") is False
    assert files.copy_if_symlink_fails("store://mem/f", root / "copy") is False
    assert files.copy_if_symlink_fails(root / "d", "store://mem/d") is False
    assert contents("store://mem") == {"f": b"1", "d/f": b"1"}
    assert not (root / "copy").is_symlink()
    with pytest.raises(FileMissingError):
        files.copy_if_symlink_fails(root / "missing", root / "never")
    assert not os.path.lexists(root / "never")


def test_a_link_that_its_store_would_not_follow_is_a_copy(world: World) -> None:
    """A store of a directory follows no link out of it."""
    files.put(b"1", f"{world.root('local')}/f")
    assert files.copy_if_symlink_fails(f"{world.root('local')}/f", "kept://disk/f") is False
    assert files.get("kept://disk/f") == b"1"


def test_a_file_that_is_there_is_replaced_by_a_copy_and_not_by_a_link(world: World) -> None:
    root = Path(grow(world.root("local"), {"f": b"new", "g": b"old"}))
    assert files.copy_if_symlink_fails(root / "f", root / "g") is False
    assert (root / "g").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("base", "parts", "joined"),
    [
        ("s3://b/k", ["x", "y"], "s3://b/k/x/y"),
        ("s3://b/k/", ["/x/", "y/"], "s3://b/k/x/y"),
        ("petrel://path/of/file", ["/another/path"], "petrel://path/of/file/another/path"),
        ("s3://b", [""], "s3://b"),
        ("s3://b/k", ["100%25"], "s3://b/k/100%25"),
        ("file:///d", ["100%25 #?.txt"], "file:///d/100%2525%20%23%3F.txt"),
        ("d/e", ["x", "y"], "d/e/x/y"),
        ("d/e", ["/x"], "/x"),
    ],
)
def test_join_path_joins_uris_and_local_paths(base: str, parts: list[str], joined: str) -> None:
    assert files.join_path(base, *parts) == joined


def test_a_name_below_a_file_uri_is_the_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "100%25 #1.txt").write_bytes(b"1")
    assert files.get(files.join_path(tmp_path.as_uri(), "100%25 #1.txt")) == b"1"


def test_parts_that_climb_out_of_a_store_are_refused(world: World) -> None:
    files.put(b"1", "store://mem/f")
    with pytest.raises(FileError, match="not a path below the root"):
        files.get(files.join_path("store://mem/d", "../f"))


@pytest.mark.parametrize("kind", ROOTS)
def test_put_to_publishes_when_the_block_ends_well(world: World, kind: str) -> None:
    target = files.join_path(world.root(kind), "new/model.ü.bin")
    for content in (b"first", b"second"):
        with files.put_to(target) as local:
            assert local.name == "model.ü.bin", "what is written may go by its ending"
            assert not local.exists()
            local.write_bytes(content)
            (local.parent / "scratch").write_bytes(b"beside")
        assert files.get(target) == content
        assert not local.parent.exists()
        assert contents(files.join_path(world.root(kind), "new")) == {"model.ü.bin": content}


def write_half_and_fail(local: Path, root: str) -> None:
    local.write_bytes(b"half")
    assert contents(root) == {"file": b"old"}, "what is unfinished is listed"
    raise ZeroDivisionError


@pytest.mark.parametrize("kind", ROOTS)
def test_put_to_publishes_nothing_of_a_block_that_fails(world: World, kind: str) -> None:
    """Seeds leave the half-written target, or the temporary file."""
    target = files.join_path(world.root(kind), "file")
    files.put(b"old", target)
    with pytest.raises(ZeroDivisionError), files.put_to(target) as local:
        write_half_and_fail(local, world.root(kind))
    assert contents(world.root(kind)) == {"file": b"old"}
    assert not local.parent.exists()
    with pytest.raises(FileError, match="nothing was written"), files.put_to(target):
        pass
    with pytest.raises(FileError, match="nothing was written"), files.put_to(target) as local:
        local.mkdir()
    assert files.get(target) == b"old"


def test_put_to_a_local_disk_copies_nothing(world: World) -> None:
    target = Path(world.root("local")) / "file"
    with files.put_to(target) as local:
        local.write_bytes(b"content")
        inode = local.stat().st_ino
    assert target.stat().st_ino == inode


class ReadOnly(MemoryFiles):
    @property
    def capabilities(self) -> Capabilities:
        return super().capabilities._replace(writable=False)


def test_put_to_a_store_that_takes_nothing_fails_before_the_block(world: World) -> None:
    world.mounts.mount("ro://x", ReadOnly())
    with pytest.raises(FileError, match="read only"), files.put_to("ro://x/f"):
        pytest.fail("the work of the block would be lost")


@pytest.mark.parametrize("kind", ROOTS)
def test_a_local_path_is_the_file_or_a_copy_for_the_block(world: World, kind: str) -> None:
    path = files.join_path(world.root(kind), "d/f.txt")
    files.put(b"content", path)
    local_store = kind in {"local", "kept://disk"}
    with files.get_local_path(path) as local:
        assert local.read_bytes() == b"content"
        assert local.name == "f.txt"
    assert local.exists() is local_store
    with pytest.raises(ZeroDivisionError), files.get_local_path(path) as local:
        raise ZeroDivisionError
    assert local.exists() is local_store
    assert files.get(path) == b"content"


def test_directories_are_made_where_a_store_has_such(world: World) -> None:
    root = grow(world.root("local"), {"f": b"1"})
    files.make_directory(files.join_path(root, "new/deep"))
    assert files.isdir(files.join_path(root, "new/deep"))
    files.make_directory("store://mem/new")
    assert contents("store://mem") == {}
    files.put(b"1", "store://mem/f")
    for taken in (files.join_path(root, "f"), "store://mem/f"):
        with pytest.raises(FileError):
            files.make_directory(taken)


def test_a_store_without_signed_urls_says_so(world: World) -> None:
    with pytest.raises(FileError, match="no signed URLs"):
        files.generate_presigned_url("store://mem/f")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:secret@host/a?sig=secret#x", "https://***@host/a"),
        ("zip://https://user:secret@host/a.zip?sig=secret!/b", "zip://https://***@host/a.zip"),
        ("ftp://user:secret@host/a", "ftp://***@host/a"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("/a/b@c", "/a/b@c"),
    ],
)
def test_what_is_shown_of_a_uri_has_no_secrets(uri: str, shown: str) -> None:
    assert files.redacted(uri) == shown


def test_errors_show_no_credentials_of_the_path(world: World, tmp_path: Path) -> None:
    root = "ftp://user:secret@host"
    world.mounts.mount(root, MemoryFiles("ftp://host"))
    files.put(b"\xff\n", f"{root}/f.json")
    files.put(b"key\n", f"{root}/keys")
    failing: list[Callable[[], object]] = [
        lambda: files.get_text(f"{root}/f.json"),
        lambda: files.put_text("文", f"{root}/f.json", "ascii"),
        lambda: list(files.list_dir_or_file(root, suffix=[])),  # type: ignore[arg-type]  # that is the mistake
        lambda: files.load(f"{root}/f.json"),
        lambda: files.dump(object(), f"{root}/f.json"),
        lambda: files.load(f"{root}/keys"),
        lambda: files.list_from_file(f"{root}/keys", offset=-1),
        lambda: files.dict_from_file(f"{root}/keys"),
        lambda: files.get(f"{root}/missing"),
        lambda: files.copyfile(f"{root}/keys", f"{root}/keys"),
    ]
    for fail in failing:
        with pytest.raises(FileError) as caught:
            fail()
        assert "secret" not in str(caught.value)
        assert "host" in str(caught.value)


def test_nothing_is_made_in_a_store_that_is_read_only(world: World) -> None:
    world.mounts.mount("ro://x", ReadOnly())
    with pytest.raises(FileError, match="read only"):
        files.make_directory("ro://x/new")


def test_a_root_is_no_file(world: World) -> None:
    for function in (files.get, files.stat, files.remove):
        with pytest.raises(FileError, match="root, not a file"):
            function("store://mem")
    with pytest.raises(FileError, match="root, not a file"):
        files.put(b"", "store://mem")
