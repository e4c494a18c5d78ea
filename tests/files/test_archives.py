"""Archives as read-only trees: the laws, where they may lie, and what malicious ones are refused for."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import stat
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from treenail.adapters.files import (
    LocalFiles,
    MemoryFiles,
    Mounts,
    archives,
    copy,
    get,
    get_local_path,
    isdir,
    list_dir_or_file,
    use_mounts,
)
from treenail.adapters.files.archives import ArchiveFiles
from treenail.contracts.files import ScansFiles, SplitsUris, StreamsFiles
from treenail.contracts.laws.files_read_only import ReadOnlyFileLaws
from treenail.kernel import FileBackend, FileError, FileMissingError, late

Pack = Callable[[Path, Mapping[str, bytes]], Path]


def zipped(method: int) -> Pack:
    def pack(target: Path, files: Mapping[str, bytes]) -> Path:
        with zipfile.ZipFile(target, "w", method) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return target

    return pack


def tarred(kind: int = tarfile.PAX_FORMAT, compress: Callable[[bytes], bytes] = bytes) -> Pack:
    def pack(target: Path, files: Mapping[str, bytes]) -> Path:
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w", format=kind) as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(data), 1_700_000_000
                archive.addfile(member, io.BytesIO(data))
        target.write_bytes(compress(plain.getvalue()))
        return target

    return pack


class ArchiveLaws(ReadOnlyFileLaws):
    pack: Pack

    @pytest.fixture(autouse=True)
    def _own_directory(self, tmp_path: Path) -> None:
        self.targets: Iterator[Path] = (tmp_path / f"{number}.archive" for number in count())

    def make(self, files: Mapping[str, bytes]) -> FileBackend:
        return ArchiveFiles(str(type(self).pack(next(self.targets), files)))


class TestStoredZip(ArchiveLaws):
    pack = staticmethod(zipped(zipfile.ZIP_STORED))


class TestDeflatedZip(ArchiveLaws):
    pack = staticmethod(zipped(zipfile.ZIP_DEFLATED))


class TestPaxTar(ArchiveLaws):
    pack = staticmethod(tarred())


class TestGnuTar(ArchiveLaws):
    pack = staticmethod(tarred(tarfile.GNU_FORMAT))


class TestTarGz(ArchiveLaws):
    pack = staticmethod(tarred(compress=gzip.compress))


def test_bzip2_in_a_zip(tmp_path: Path) -> None:
    data = os.urandom(1000) * 1000
    backend = ArchiveFiles(str(zipped(zipfile.ZIP_BZIP2)(tmp_path / "a", {"x": data, "empty": b""})))
    assert backend.read("x") == data
    assert backend.read("x", 999_000, 500) == data[999_000:999_500]
    assert backend.read("empty") == b""


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_other_compressed_tars(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    backend = ArchiveFiles(f"tar://{tarred(compress=compress)(tmp_path / 'a', {'d/x': b'abc'})}")
    assert backend.read("d/x", 1) == b"bc"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python reads Zstandard")
def test_zstandard_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "a.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(FileError, match=r"3\.14"):
        ArchiveFiles(str(tmp_path / "a.tar.zst")).read("x")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Zstandard came with Python 3.14")
def test_zstandard(tmp_path: Path) -> None:
    from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # of Python 3.14

    backend = ArchiveFiles(str(tarred(compress=zstd.compress)(tmp_path / "a", {"x": b"abc"})))
    assert backend.read("x") == b"abc"


def test_it_streams_scans_and_splits_uris(tmp_path: Path) -> None:
    target = zipped(zipfile.ZIP_DEFLATED)(tmp_path / "a.zip", {"d/x": bytes(20_000_000), "y": b"y"})
    backend = ArchiveFiles(f"zip://{target}")
    assert isinstance(backend, StreamsFiles)
    assert isinstance(backend, ScansFiles)
    assert isinstance(ArchiveFiles, SplitsUris)
    assert sum(map(len, backend.stream("d/x"))) == 20_000_000
    assert max(map(len, backend.stream("d/x"))) < 20_000_000
    assert [(path, found.size) for path, found in backend.scan()] == [("d/x", 20_000_000), ("y", 1)]
    assert ArchiveFiles.split_uri(f"{backend.uri}/d/x") == (f"zip://{target}", "d/x")
    assert ArchiveFiles.split_uri(backend.uri) == (f"zip://{target}", "")
    assert ArchiveFiles.split_uri("zip://s3://bucket/a.zip!/d/x") == ("zip://s3://bucket/a.zip", "d/x")


def test_the_archive_may_lie_in_any_store(tmp_path: Path) -> None:
    files = {"d/x": b"remote"}
    mounts = Mounts({"sets/": f"memory://{tmp_path.name}"})
    with use_mounts(mounts):
        place = mounts.resolve("sets/a.tar")
        place.backend.write(place.path, tarred()(tmp_path / "a", files).read_bytes())
        backend = ArchiveFiles("tar://sets/a.tar")
    assert backend.read("d/x") == b"remote"  # also where other mounts are in use
    assert list(backend.list()) == ["d/x"]


def test_it_can_be_mounted(tmp_path: Path) -> None:
    target = zipped(zipfile.ZIP_STORED)(tmp_path / "a.zip", {"d/x": b"mounted"})
    mounts = Mounts()
    mounts.mount("data/", ArchiveFiles(str(target)))
    place = mounts.resolve("data/d/x")
    assert place.backend.read(place.path) == b"mounted"


def test_uris_lead_to_members_and_back(tmp_path: Path) -> None:
    target = zipped(zipfile.ZIP_STORED)(tmp_path / "a.zip", {"d/x": b"found"})
    mounts = Mounts(schemes={"zip": late(ArchiveFiles)()})
    uri = f"zip://{target}!/d/x"
    assert get(uri, mounts=mounts) == b"found"
    assert mounts.resolve(uri).uri == uri
    assert isdir(f"zip://{target}!/d", mounts=mounts)
    assert list(list_dir_or_file(f"zip://{target}", recursive=True, mounts=mounts)) == ["d", "d/x"]
    with get_local_path(uri, mounts=mounts) as local:
        assert local.read_bytes() == b"found"


def test_reading_writes_no_files(tmp_path: Path) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    zipped(zipfile.ZIP_DEFLATED)(folder / "a.zip", {"d/x": b"abc"})
    before = {each: each.stat().st_mtime_ns for each in tmp_path.rglob("*")}
    assert ArchiveFiles(str(folder / "a.zip")).read("d/x") == b"abc"
    assert {each: each.stat().st_mtime_ns for each in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("pack", [zipped(zipfile.ZIP_STORED), tarred()])
def test_many_members(pack: Pack, tmp_path: Path) -> None:
    files = {f"{number % 100}/{number}": str(number).encode() for number in range(5_000)}
    backend = ArchiveFiles(str(pack(tmp_path / "many", files)))
    assert list(backend.list()) == sorted(files)
    assert sum(1 for _ in backend.list("17")) == 50
    assert backend.read("17/4017") == b"4017"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_processes_read_at_once(tmp_path: Path) -> None:
    files = {str(number): bytes([number]) * 100_000 for number in range(50)}
    backend = ArchiveFiles(str(zipped(zipfile.ZIP_DEFLATED)(tmp_path / "a", files)))
    assert backend.read("0") == files["0"]
    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            os._exit(0 if all(backend.read(name) == data for name, data in files.items()) else 1)
        children.append(child)
    assert all(backend.read(name) == data for name, data in files.items())
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_it_can_be_pickled(tmp_path: Path) -> None:
    backend = ArchiveFiles(str(tarred()(tmp_path / "a", {"x": b"abc"})), largest_member=3)
    assert backend.read("x") == b"abc"
    again = pickle.loads(pickle.dumps(backend))
    assert (again.read("x"), again.largest_member) == (b"abc", 3)


def test_a_replaced_archive_is_read_anew(tmp_path: Path) -> None:
    target = tarred()(tmp_path / "a", {"x": b"abc", "y": b"y"})
    backend = ArchiveFiles(str(target))
    assert backend.read("x") == b"abc"
    tarred()(target, {"w": b"other", "x": b"new"})
    assert backend.read("x") == b"new"
    assert list(backend.list()) == ["w", "x"]


def test_a_replaced_archive_of_another_store_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (tarred()(tmp_path / name, {"x": name.encode()}).read_bytes() for name in ("old", "new"))
    store = MemoryFiles()
    store.write("a.tar", old)
    with use_mounts(Mounts({"s3://bucket": "memory://replaced"})) as mounts:
        mounts.mount("s3://bucket", store)
        backend = ArchiveFiles("tar://s3://bucket/a.tar")
        assert backend.read("x") == b"old"
        store.write("a.tar", new)
        monkeypatch.setattr(archives, "_PAUSE", 0.0)
        assert backend.read("x") == b"new"


def test_a_missing_archive_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError):
        ArchiveFiles(str(tmp_path / "none.zip")).read("x")
    with pytest.raises(FileError, match="no archive"):
        ArchiveFiles("zip://")


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100, b"PK\3\4" + bytes(50), b"\x1f\x8bjunk" * 10])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(FileError, match="no sound archive"):
        list(ArchiveFiles(str(tmp_path / "a")).list())


@pytest.mark.parametrize("pack", [zipped(zipfile.ZIP_DEFLATED), tarred(), tarred(compress=gzip.compress)])
def test_cut_archives_are_refused(pack: Pack, tmp_path: Path) -> None:
    whole = pack(tmp_path / "a", {"x": os.urandom(3000), "y": os.urandom(3000)}).read_bytes()
    end = len(whole.rstrip(b"\0"))
    for length in range(1, end, 97):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(FileError):
            list(ArchiveFiles(str(tmp_path / "cut")).list())


@pytest.mark.parametrize("pack", [zipped(zipfile.ZIP_STORED), zipped(zipfile.ZIP_DEFLATED)])
def test_damage_is_noticed(pack: Pack, tmp_path: Path) -> None:
    """Whatever byte of a zip is turned, its members come back as they were, or an error does."""
    files = {"x": b"hello hello hello", "y": b"world"}
    whole = pack(tmp_path / "a", files).read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x41
        (tmp_path / "b").write_bytes(damaged)
        backend = ArchiveFiles(str(tmp_path / "b"))
        for name, data in files.items():
            with suppress(FileError):
                assert backend.read(name) == data


CLIMBING = ("../x", "a/../../x", "/etc/x", "//x", "a//x", "a/./x", "..", "C:/x", "C:\\x", "a\\..\\x", "\\x", "c:")


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("pack", [zipped(zipfile.ZIP_STORED), tarred(), tarred(tarfile.GNU_FORMAT)])
def test_members_that_climb_out_are_refused_by_name(pack: Pack, name: str, tmp_path: Path) -> None:
    backend = ArchiveFiles(str(pack(tmp_path / "a", {"good": b"1", name: b"2"})))
    with pytest.raises(FileError) as caught:
        backend.read("good")
    assert repr(name) in str(caught.value)


def test_a_nul_in_a_name_is_refused(tmp_path: Path) -> None:
    whole = zipped(zipfile.ZIP_STORED)(tmp_path / "a", {"good#evil": b"1"}).read_bytes()
    (tmp_path / "a").write_bytes(whole.replace(b"good#evil", b"good\0evil"))
    with pytest.raises(FileError, match=r"good\\x00evil"):
        list(ArchiveFiles(str(tmp_path / "a")).list())


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["x", "./x", "x/below"])
def test_duplicates_are_refused(second: str, tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped_twice,
        tarfile.open(tmp_path / "a.tar", "w") as tarred_twice,
    ):
        for name, data in (("x", b"first"), (second, b"second")):
            zipped_twice.writestr(name, data)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tarred_twice.addfile(member, io.BytesIO(data))
    for name in ("a.zip", "a.tar"):
        with pytest.raises(FileError, match=r"twice|below a member"):
            ArchiveFiles(str(tmp_path / name)).read("x")


def tar_of(target: Path, *members: tarfile.TarInfo) -> ArchiveFiles:
    with tarfile.open(target, "w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return ArchiveFiles(str(target))


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return member


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../outside"),
        (tarfile.SYMTYPE, "../d/../../outside"),
        (tarfile.SYMTYPE, "C:\\x"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "../outside"),
        (tarfile.LNKTYPE, "missing"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
    ],
)
def test_links_that_lead_out_and_devices_are_refused(kind: bytes, target: str, tmp_path: Path) -> None:
    name = "evil" if kind != tarfile.SYMTYPE or target != "../d/../../outside" else "d/evil"
    with pytest.raises(FileError, match=f"'{name}'"):
        tar_of(tmp_path / "a", entry("good"), entry(name, kind, target)).read("good")


def test_links_within_are_read_as_what_they_lead_to(tmp_path: Path) -> None:
    backend = tar_of(
        tmp_path / "a",
        entry("d/", tarfile.DIRTYPE),
        entry("d/real", size=5),
        entry("hard", tarfile.LNKTYPE, "d/real"),
        entry("e/soft", tarfile.SYMTYPE, "../d/real"),
        entry("chain", tarfile.SYMTYPE, "e/soft"),
        entry("directory", tarfile.SYMTYPE, "d"),
        entry("dangling", tarfile.SYMTYPE, "d/nothing"),
    )
    assert list(backend.list()) == ["chain", "d/real", "e/soft", "hard"]
    assert {backend.read(path) for path in backend.list()} == {bytes(5)}


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    backend = tar_of(tmp_path / "a", entry("a", tarfile.SYMTYPE, "b"), entry("b", tarfile.SYMTYPE, "a"))
    with pytest.raises(FileError, match="each other"):
        backend.read("a")


@pytest.mark.parametrize(
    ("mode", "why"), [(stat.S_IFLNK, "leads out"), (stat.S_IFCHR, "device"), (stat.S_IFIFO, "device")]
)
def test_links_and_devices_in_a_zip(mode: int, why: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        member = zipfile.ZipInfo("evil")
        member.external_attr = (mode | 0o777) << 16
        archive.writestr(member, "../../etc/passwd")
    with pytest.raises(FileError, match=f"'evil' .*{why}"):
        ArchiveFiles(str(tmp_path / "a")).read("evil")


def test_a_link_within_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("d/real", "abc")
        member = zipfile.ZipInfo("e/soft")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "../d/real")
    assert ArchiveFiles(str(tmp_path / "a")).read("e/soft") == b"abc"


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    whole = bytearray(zipped(zipfile.ZIP_STORED)(tmp_path / "a", {"secret": b"1"}).read_bytes())
    whole[whole.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a").write_bytes(whole)
    with pytest.raises(FileError, match="'secret' is encrypted"):
        ArchiveFiles(str(tmp_path / "a")).read("secret")


@pytest.mark.parametrize("declared", [10, 99_999, 100_001, 2**31])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_STORED])
def test_zip_members_hold_what_they_declare(method: int, declared: int, tmp_path: Path) -> None:
    """A bomb that declares 10 bytes is not unpacked further, and one that declares more than it has is an error."""
    whole = bytearray(zipped(method)(tmp_path / "a", {"bomb": bytes(100_000)}).read_bytes())
    struct.pack_into("<I", whole, whole.index(b"PK\1\2") + 24, declared)
    (tmp_path / "a").write_bytes(whole)
    with pytest.raises(FileError, match="'bomb' does not hold"):
        ArchiveFiles(str(tmp_path / "a")).read("bomb")


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """The bomb of overlapping members (Fifield, WOOT 2019): many entries of the directory, one content."""
    whole = bytearray(zipped(zipfile.ZIP_STORED)(tmp_path / "a", {"x": b"0" * 100, "y": b"0" * 100}).read_bytes())
    second = whole.rindex(b"PK\1\2")
    struct.pack_into("<I", whole, second + 42, 0)
    (tmp_path / "a").write_bytes(whole)
    with pytest.raises(FileError, match="shares bytes"):
        ArchiveFiles(str(tmp_path / "a")).read("x")


def test_another_name_at_the_place_is_refused(tmp_path: Path) -> None:
    whole = zipped(zipfile.ZIP_STORED)(tmp_path / "a", {"shown": b"1"}).read_bytes()
    (tmp_path / "a").write_bytes(whole.replace(b"shown", b"other", 1))
    with pytest.raises(FileError, match="'shown' has another name"):
        ArchiveFiles(str(tmp_path / "a")).read("shown")


def test_limits(tmp_path: Path) -> None:
    target = str(tarred()(tmp_path / "a", {"x": b"123", "y": b"1"}))
    with pytest.raises(FileError, match="'x' declares 3 bytes"):
        ArchiveFiles(target, largest_member=2).read("y")
    with pytest.raises(FileError, match="more than 1 members"):
        ArchiveFiles(target, most_members=1).read("y")


def test_a_tar_header_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    """A pax header of 7 GB of zeros, 7 MB compressed, would be read into memory at once."""
    header = entry("pax", tarfile.XHDTYPE, size=7 * 2**30).tobuf(tarfile.USTAR_FORMAT)
    (tmp_path / "a").write_bytes(gzip.compress(header + bytes(10_000)))
    with pytest.raises(FileError, match="a header of 7516192768 bytes"):
        list(ArchiveFiles(str(tmp_path / "a")).list())


def test_a_negative_size_ends(tmp_path: Path) -> None:
    header = bytearray(entry("evil").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a").write_bytes(bytes(header) + bytes(2048))
    with pytest.raises(FileError):
        list(ArchiveFiles(str(tmp_path / "a")).list())


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    """tarfile takes an unreadable header in the middle for the end, and what follows would be lost silently."""
    whole = bytearray(tarred(tarfile.GNU_FORMAT)(tmp_path / "a", {"x": b"1", "y": b"2"}).read_bytes())
    whole[1024 + 150] ^= 1
    (tmp_path / "a").write_bytes(whole)
    with pytest.raises(FileError, match="damaged"):
        list(ArchiveFiles(str(tmp_path / "a")).list())


def test_threads_open_it_once(tmp_path: Path) -> None:
    backend = ArchiveFiles(str(tarred()(tmp_path / "a", {"x": b"abc"})))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(backend.read, ["x"] * 50)) == {b"abc"}


def test_the_uri_holds_no_credentials() -> None:
    backend = ArchiveFiles("zip://https://reader:hunter2@example.org/a.zip?signature=hunter3")
    assert "hunter" not in backend.uri + repr(backend)


def test_members_can_be_copied_out(tmp_path: Path) -> None:
    """What is copied out of an archive is an ordinary file."""
    archive = ArchiveFiles(str(tarred()(tmp_path / "a", {"d/x": b"abc"})))
    copy(archive, "d/x", LocalFiles(tmp_path / "out"), "x")
    assert (tmp_path / "out" / "x").read_bytes() == b"abc"
