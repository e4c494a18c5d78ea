"""Which backend serves a URI."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from treenail.adapters.files import LocalFiles, MemoryFiles, Mounts, get, get_local_path, put, use_mounts
from treenail.kernel import FileBackend, FileError, late, spec


def test_the_longest_prefix_of_whole_parts_counts_then_the_scheme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mounts = Mounts({"data/": "memory://m1/d", "data/sub": "memory://m2", "s3://b/x": spec(MemoryFiles)("x://")})
    for given, expected in (
        ("data/a", "memory://m1/d/a"),
        ("data", "memory://m1/d"),
        (str(tmp_path / "data" / "a"), "memory://m1/d/a"),
        ("other/../data/sub/a/", "memory://m2/a"),
        ("database/a", f"file://{tmp_path}/database/a"),
        ("s3://b/x/y", "x://y"),
        ("memory://m3/a?b#c%20", "memory://m3/a?b#c%20"),
        (f"file://{tmp_path}/a%20b", f"file://{tmp_path}/a b"),
    ):
        assert mounts.resolve(given).uri == expected, given
    put(b"1", "data/a", mounts=mounts)
    assert get("memory://m1/d/a") == b"1"


def test_names_below_a_mount_are_names_whatever_they_lead_to(tmp_path: Path) -> None:
    mounts = Mounts({"d/": "https://h.example/base", "f/": tmp_path.as_uri()})
    for name in ("a b", "a%20b", "what?.txt", "a#b"):
        assert mounts.resolve(f"d/{name}").path == f"base/{name}"
        assert mounts.resolve(f"f/{name}").local == tmp_path / name


@pytest.mark.parametrize("climbing", ["../x", "../../etc/passwd", "a/../../x", ".", "a//b", "a/./b"])
@pytest.mark.parametrize("target", ["local", "memory://m4/inner", "https://h.example/inner"])
def test_no_path_climbs_out_of_a_mount(tmp_path: Path, target: str, climbing: str) -> None:
    (tmp_path / "x").write_bytes(b"secret")
    (tmp_path / "inner").mkdir()
    put(b"secret", "memory://m4/x")
    mounts = Mounts({"s3://safe": str(tmp_path / "inner") if target == "local" else target})
    with pytest.raises(FileError, match="is not a path below the root"):
        get(f"s3://safe/{climbing}", mounts=mounts)
    with pytest.raises(FileError, match="is not a path below the root"):
        put(b"", f"s3://safe/{climbing}", mounts=mounts)


def test_no_link_leads_out_of_a_mounted_directory(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(FileError, match="leads out of the root"):
        get("d/link", mounts=Mounts({"d/": str(tmp_path / "inner")}))
    assert get(tmp_path / "inner" / "link") == b"secret", "a local path means what it means"


def test_mounts_in_a_circle_and_what_cannot_be_mounted_are_said() -> None:
    mounts = Mounts({"a/": "b/", "b/": "c/", "c/": "a/x"})
    with pytest.raises(FileError, match="mounts lead to each other"):
        get("a/1", mounts=mounts)
    wrong: list[tuple[dict[str, str], str]] = [
        ({"": "x"}, "a mount needs a prefix"),
        ({"a/": ""}, "an empty text cannot be mounted"),
        ({"a/": None}, "a NoneType cannot be mounted"),  # type: ignore[dict-item]  # what a program may do
    ]
    for given, message in wrong:
        with pytest.raises(FileError, match=message):
            Mounts(given)
    with pytest.raises(FileError, match=r"nothing serves the scheme 's4'; did you mean 's3'"):
        get("s4://b/x")
    with pytest.raises(FileError, match="is no scheme"):
        Mounts(schemes={"S 3": late(MemoryFiles)()})
    with pytest.raises(FileError, match="nothing is mounted there"):
        mounts.unmount("d/")
    with pytest.raises(FileError, match="a mirror needs a local directory"):
        Mounts(mirrors={"a/": ""})


def test_schemes_are_made_as_the_config_says_once_for_each_root() -> None:
    made: list[str] = []

    def make(root: str, *, tag: str) -> FileBackend:
        made.append(f"{root} {tag}")
        return MemoryFiles(root)

    mounts = Mounts(schemes={"s3": late(make)(tag="x")})
    put(b"1", "s3://b/x", mounts=mounts)
    assert get("s3://b/x", mounts=mounts) == b"1"
    mounts.resolve("s3://c/x")
    assert made == ["s3://b x", "s3://c x"]


def test_mounts_can_be_sent_to_another_process_and_changed(tmp_path: Path) -> None:
    mounts = Mounts({"d/": str(tmp_path)}, schemes={"s3": late(MemoryFiles)()}, mirrors={"s3://b": str(tmp_path / "m")})
    again = pickle.loads(pickle.dumps(mounts))
    put(b"1", "d/x", mounts=again)
    assert (tmp_path / "x").read_bytes() == b"1"
    store = LocalFiles(tmp_path)
    again.mount("e/", store)
    assert again.resolve("e/x").backend is store
    again.unmount("e/")
    assert again.resolve("e/x").backend is not store
    assert again.prefixes() == {str(Path("d").absolute()): str(tmp_path)}


def test_mirrors_serve_what_is_reached_by_any_name(tmp_path: Path) -> None:
    put(b"1", "memory://m5/data/x")
    mounts = Mounts({"data/": "memory://m5/data"}, mirrors={"memory://m5/data": str(tmp_path / "near")})
    with use_mounts(mounts):
        for name in ("data/x", "memory://m5/data/x"):
            with get_local_path(name) as path:
                assert path == tmp_path / "near" / "x"
