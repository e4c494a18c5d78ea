"""Our backends as a filesystem of fsspec: its own abstract tests, and what its users do with it."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import fsspec
import fsspec.tests.abstract as abstract
import pytest

from treenail.adapters.files import LocalFiles, MemoryFiles, Mounts, use_mounts
from treenail.adapters.files.fsspec_bridge import TreenailFileSystem


class OverMemory(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    @pytest.fixture
    def fs(self) -> TreenailFileSystem:
        return TreenailFileSystem(MemoryFiles())

    @pytest.fixture
    def fs_path(self) -> str:
        return "top"

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class OverLocal(OverMemory):
    @pytest.fixture
    def fs(self, tmp_path: Path) -> TreenailFileSystem:
        return TreenailFileSystem(LocalFiles(tmp_path / "root", prune=False))

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return True


class OverMounts(OverLocal):
    """Paths with a scheme, found by mounts."""

    @pytest.fixture
    def fs(self, tmp_path: Path) -> TreenailFileSystem:
        mounts = Mounts()
        mounts.mount("mem://", LocalFiles(tmp_path / "root", prune=False))
        return TreenailFileSystem(mounts=mounts)

    @pytest.fixture
    def fs_path(self) -> str:
        return "mem://top"


for _suite in ("Copy", "Get", "Put", "Open", "Pipe"):
    for _over in (OverMemory, OverLocal, OverMounts):
        if _over is OverMounts and _suite not in {"Open", "Pipe"}:  # what they have more is on the backends' side
            continue
        _name = f"Test{_suite}{_over.__name__}"
        globals()[_name] = type(_name, (getattr(abstract, f"Abstract{_suite}Tests"), _over), {"__module__": __name__})


@pytest.fixture(params=["memory", "local"])
def fs(request: pytest.FixtureRequest, tmp_path: Path) -> TreenailFileSystem:
    return TreenailFileSystem(MemoryFiles() if request.param == "memory" else LocalFiles(tmp_path / "root"))


@pytest.fixture
def registered() -> None:
    """The protocol as the entry point registers it."""
    fsspec.register_implementation("treenail", TreenailFileSystem, clobber=True)


def test_an_exception_publishes_nothing(fs: TreenailFileSystem) -> None:
    fs.pipe_file("d/a", b"old")

    def write_and_fail() -> None:
        with fs.open("d/a", "wb") as file:
            file.write(bytes(20_000_000))
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        write_and_fail()
    assert fs.cat_file("d/a") == b"old"
    assert fs.find("") == ["d/a"]


def test_what_is_open_is_not_there_yet(fs: TreenailFileSystem) -> None:
    with fs.open("new", "wb") as file:
        file.write(bytes(10_000_000))
        assert not fs.exists("new")
    assert fs.size("new") == 10_000_000


def test_appending(fs: TreenailFileSystem) -> None:
    for part in (b"one ", b"two"):
        with fs.open("log", "ab") as file:
            before = file.tell()
            file.write(part)
            assert file.tell() == before + len(part)
    assert fs.cat_file("log") == b"one two"


def test_a_transaction_publishes_all_or_nothing(fs: TreenailFileSystem) -> None:
    with fs.transaction:
        fs.pipe_file("kept", b"1")
        with fs.open("a", "wb") as file:
            file.write(b"a")
        assert not fs.exists("a")
    assert fs.cat_file("a") == b"a"

    def write_and_fail() -> None:
        with fs.transaction:
            with fs.open("b", "wb") as file:
                file.write(b"b")
            raise ValueError("it broke")

    with pytest.raises(ValueError, match="broke"):
        write_and_fail()
    assert not fs.exists("b")


def test_of_two_that_create_one_succeeds(fs: TreenailFileSystem) -> None:
    first, second = fs.open("x", "xb"), fs.open("x", "xb")
    first.write(b"first")
    second.write(b"second")
    first.close()
    with pytest.raises(FileExistsError):
        second.close()
    assert fs.cat_file("x") == b"first"


def test_slices_may_be_counted_from_the_end(fs: TreenailFileSystem) -> None:
    fs.pipe_file("a", b"0123456789")
    for start, end in ((None, None), (2, 5), (-3, None), (None, -3), (-5, -2), (5, 2), (20, 30), (-20, 4)):
        assert fs.cat_file("a", start, end) == b"0123456789"[start:end], (start, end)


def test_listings(fs: TreenailFileSystem) -> None:
    for path in ("a", "d/b", "d/e/c", "dd"):
        fs.pipe_file(path, path.encode())
    assert fs.ls("", detail=False) == ["a", "d", "dd"]
    assert fs.ls("d") == [fs.info("d/b"), fs.info("d/e")]
    assert fs.ls("a") == [fs.info("a")]
    with pytest.raises(FileNotFoundError):
        fs.ls("missing")
    assert fs.find("d") == ["d/b", "d/e/c"]
    assert fs.find("d", maxdepth=1, withdirs=True) == ["d", "d/b", "d/e"]
    assert fs.find("a") == ["a"]
    assert fs.find("missing") == []
    assert fs.glob("**/c") == ["d/e/c"]
    assert fs.du("") == 1 + 3 + 5 + 2
    assert next(iter(fs.walk(""))) == ("", ["d"], ["a", "dd"])
    fs.rm("d", recursive=True)
    assert fs.find("") == ["a", "dd"]
    with pytest.raises(FileNotFoundError):
        fs.rm("missing")


def test_errors_are_those_of_fsspec_with_ours_behind_them(fs: TreenailFileSystem) -> None:
    with pytest.raises(FileNotFoundError):
        fs.open("missing")
    with pytest.raises(OSError, match="not a path below the root"):
        fs.pipe_file("a/../../b", b"")
    fs.pipe_file("d/a", b"")
    with pytest.raises(IsADirectoryError):
        fs.open("d")
    with pytest.raises(IsADirectoryError):
        fs.rm("d")
    with pytest.raises(NotImplementedError):
        fs.sign("d/a")


def test_empty_directories_of_a_store_that_has_them(tmp_path: Path) -> None:
    fs = TreenailFileSystem(LocalFiles(tmp_path))
    fs.mkdir("empty/inner")
    assert fs.ls("", detail=False) == ["empty"]
    assert fs.ls("empty", detail=False) == ["empty/inner"]
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir("empty")
    fs.rm("empty", recursive=True)
    assert not fs.exists("empty")


def test_it_can_be_pickled(tmp_path: Path) -> None:
    fs = TreenailFileSystem(LocalFiles(tmp_path))
    fs.pipe_file("a", b"abc")
    assert pickle.loads(pickle.dumps(fs)).cat_file("a") == b"abc"


@pytest.mark.usefixtures("registered")
def test_urls_of_any_of_our_stores(tmp_path: Path) -> None:
    with fsspec.open(f"treenail://{tmp_path}/a.txt", "w") as file:
        file.write("häß")
    assert (tmp_path / "a.txt").read_text() == "häß"
    with use_mounts(Mounts({"data/": str(tmp_path)})), fsspec.open("treenail://data/a.txt", "r") as file:
        assert file.read() == "häß"
    with use_mounts(Mounts({"s3://bucket": f"memory://{tmp_path.name}"})):
        fs, path = fsspec.url_to_fs("treenail://s3://bucket/d/x")
        fs.pipe(path, b"x")
        assert path == "s3://bucket/d/x"
        assert fs.find("s3://bucket") == ["s3://bucket/d/x"]
        assert fs.ls("treenail://s3://bucket/", detail=False) == ["s3://bucket/d"]
        fs.get("s3://bucket", str(tmp_path / "copy"), recursive=True)
        fs.cp("s3://bucket/d/x", f"{tmp_path}/over")
    assert (tmp_path / "copy" / "d" / "x").read_bytes() == b"x"
    assert (tmp_path / "over").read_bytes() == b"x"
    with pytest.raises(ValueError, match="does not chain"):
        fsspec.open("treenail::memory://a")


@pytest.mark.usefixtures("registered")
def test_torch_saves_distributed_checkpoints_through_it(tmp_path: Path) -> None:
    import torch
    from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter  # where torch has them
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save

    mounts = Mounts({"ckpt/": f"memory://{tmp_path.name}"})
    weight = torch.arange(6.0).reshape(2, 3)
    with use_mounts(mounts):
        save({"weight": weight, "step": 7}, storage_writer=FsspecWriter("treenail://ckpt/run"), no_dist=True)
        loaded = torch.zeros(2, 3)
        found: dict[str, object] = {"weight": loaded, "step": 0}
        load(found, storage_reader=FsspecReader("treenail://ckpt/run"), no_dist=True)
        names = [os.path.basename(each) for each in TreenailFileSystem().find("ckpt/run")]
    assert torch.equal(loaded, weight)
    assert found["step"] == 7
    assert ".metadata" in names
