"""What a local disk is asked for beyond the laws: links, full disks, permissions, long names, leftovers, and speed's tricks."""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tracemalloc import get_traced_memory, start, stop

import pytest

from treenail.adapters.files import LocalFiles
from treenail.adapters.files.local import durable, reading
from treenail.adapters.files.local.durable import ABANDONED_AFTER, UNFINISHED, Folder, claim
from treenail.adapters.files.local.opening import LinklessOpener
from treenail.adapters.files.local.write_back import begin_write_back
from treenail.kernel import FileError, FileMissingError

OLD = time.time() - ABANDONED_AFTER - 60


def refusals(files: LocalFiles, path: str) -> Iterator[str]:
    """Try every verb; yield what each says."""
    for verb in (
        lambda: files.read(path),
        lambda: list(files.stream(path)),
        lambda: files.stat(path),
        lambda: files.copy(path, "copied"),
        lambda: files.local_path(path),
        lambda: list(files.list(path)),
        lambda: list(files.scan(path)),
        lambda: list(files.entries(path)),
        lambda: files.is_directory(path),
    ):
        with pytest.raises(FileError) as caught:
            verb()
        assert not isinstance(caught.value, FileMissingError)
        yield str(caught.value)


@pytest.fixture(params=["plain", "behind a link"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give a directory, or a link to one: two ways to find out where files really lie."""
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    if request.param == "plain":
        return tmp_path / "root"
    (tmp_path / "link").symlink_to("root")
    return tmp_path / "link"


def test_no_link_leads_out_of_the_root(root: Path) -> None:
    files = LocalFiles(root)
    files.write("d/inside", b"inside")
    (root / "file").symlink_to("../outside/secret")
    (root / "directory").symlink_to("../outside")
    (root / "d/absolute").symlink_to(root.parent / "outside")
    for path in ("file", "directory", "directory/secret", "d/absolute/secret"):
        for text in refusals(files, path):
            assert "leads out of the root through a symbolic link" in text
    for path in ("directory/new", "d/absolute/secret"):
        for verb in (
            lambda: files.write(path, b"bad"),  # noqa: B023 - called here
            lambda: files.create(path, b"bad"),  # noqa: B023
            lambda: files.copy("d/inside", path),  # noqa: B023
            lambda: files.delete(path),  # noqa: B023
            lambda: files.make_directory(path),  # noqa: B023
            lambda: files.delete_directory(path),  # noqa: B023
        ):
            with pytest.raises(
                FileError, match=r"leads out of the root|Not a directory"
            ):  # a file is no directory first
                verb()
    with pytest.raises(FileError, match="leads out of the root"):
        files.write("directory/deep/new", b"bad")
    assert [each.name for each in (root.parent / "outside").iterdir()] == ["secret"]
    assert (root.parent / "outside/secret").read_bytes() == b"secret"


def test_links_inside_the_root_are_followed(root: Path) -> None:
    files = LocalFiles(root)
    files.write("d/file", b"content")
    (root / "file").symlink_to("d/file")
    (root / "directory").symlink_to(root / "d")
    assert files.read("file") == files.read("directory/file") == b"content"
    assert files.stat("directory/file") == files.stat("d/file")
    assert list(files.list()) == ["d/file", "file"], "a link to a directory is not entered"
    assert list(files.list("directory")) == ["directory/file"]
    files.write("directory/new", b"new")
    assert files.read("d/new") == b"new"


def test_a_write_replaces_a_link_and_a_deletion_removes_it(root: Path) -> None:
    """What the link leads to stays, wherever that is."""
    files, secret = LocalFiles(root), root.parent / "outside/secret"
    for name in ("written", "deleted"):
        (root / name).symlink_to(secret)
    files.write("written", b"mine")
    files.delete("deleted")
    assert (files.read("written"), secret.read_bytes()) == (b"mine", b"secret")
    assert list(files.list()) == ["written"]


def test_links_that_lead_nowhere_are_no_files(root: Path) -> None:
    files = LocalFiles(root)
    (root / "nowhere").symlink_to("missing")
    (root / "loop").symlink_to("loop")
    assert list(files.list()) == []
    assert list(files.scan()) == []
    with pytest.raises(FileMissingError):
        files.read("nowhere")
    with pytest.raises(FileError, match="symbolic links lead to each other"):
        files.read("loop")


def test_a_root_that_is_moved_is_found_again(tmp_path: Path) -> None:
    """A link such as `current` may be turned to another directory at any time."""
    for name in ("one", "two"):
        LocalFiles(tmp_path / name).write("d/f", name.encode())
    link = tmp_path / "current"
    link.symlink_to("one")
    files = LocalFiles(link)
    assert files.read("d/f") == b"one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)
    assert files.read("d/f") == b"two"
    files.write("d/f", b"changed")
    assert LocalFiles(tmp_path / "two").read("d/f") == b"changed"


def test_what_is_no_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    files = LocalFiles(tmp_path)
    assert list(files.list()) == []
    for verb in (files.read, files.stat, lambda path: list(files.stream(path))):
        with pytest.raises(FileMissingError):
            verb("pipe")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_files_without_a_size_are_read() -> None:
    files = LocalFiles("/proc")
    expected = Path("/proc/self/cmdline").read_bytes()
    path = f"{os.getpid()}/cmdline"
    assert files.read(path) == b"".join(files.stream(path)) == expected
    assert files.read(path, 2, 5) == expected[2:7]


def test_files_of_more_than_one_read_come_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system reads 2 GB at a time at most; here 1,000 bytes stand for them."""
    monkeypatch.setattr(reading, "_MOST", 1000)
    files, data = LocalFiles(tmp_path), bytes(range(256)) * 20
    files.write("f", data)
    assert files.read("f") == data
    assert files.read("f", 7, 3000) == data[7:3007]


@pytest.mark.skipif(sys.platform != "linux", reason="openat2 is Linux's")
def test_the_cheap_check_of_links_is_in_use_here(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    opener = LinklessOpener(os.O_RDONLY)
    descriptor = opener.open(f"{tmp_path.resolve()}/file")
    assert descriptor is not None, "this kernel has openat2"
    os.close(descriptor)
    assert opener.open(f"{tmp_path.resolve()}/link") is None
    with pytest.raises(FileNotFoundError):
        opener.open(f"{tmp_path.resolve()}/missing")


def test_a_failed_write_leaves_no_directory(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise FileNotFoundError("of the source, not of the target")

    with pytest.raises(FileNotFoundError, match="of the source"):
        LocalFiles(tmp_path).write("new/deep/file", broken())
    assert list(tmp_path.iterdir()) == []


def test_errors_name_path_operation_cause_and_mend(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.write("file", b"1")
    files.write("d/file", b"1")
    cases = [
        ("n" * 256, "cannot write: File name too long", "255 bytes"),
        ("/".join(["d" * 250] * 17), "cannot write: File name too long", "4,095"),
        ("d", "cannot write: Is a directory", "choose another"),
        ("file/below", "cannot write: Not a directory", "a file has the name of one of its directories"),
    ]
    for path, message, mend in cases:
        with pytest.raises(FileError) as caught:
            files.write(path, b"2")
        assert message in str(caught.value)
        assert mend in str(caught.value)
        assert str(tmp_path) in (caught.value.where or "")
        assert isinstance(caught.value.__cause__, OSError)
    assert list(files.list()) == ["d/file", "file"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["d", "file"]
    for path in ("n" * 256, "d/missing"):
        with pytest.raises(FileMissingError, match="cannot read: there is no such file"):
            files.read(path)


FULL = """
import sys
from treenail.adapters.files import LocalFiles
from treenail.kernel import FileError
files = LocalFiles(sys.argv[1])
files.write("keep", b"old")
for verb in (files.write, files.create):
    for data in (bytes(1 << 20), iter([bytes(1000)] * 1000)):
        try:
            verb("keep" if verb == files.write else "new", data)
        except FileError as error:
            print(error.message, "|", error.mend, "|", type(error.__cause__).__name__)
print(files.read("keep"), list(files.list()))
"""


def run_full(directory: Path, **options: object) -> str:
    done = subprocess.run(  # type: ignore[call-overload]  # options of several types
        [sys.executable, "-c", FULL, str(directory)], capture_output=True, text=True, check=True, timeout=60, **options
    )
    return str(done.stdout)


def test_a_limit_of_file_sizes_is_an_error_that_harms_nothing(tmp_path: Path) -> None:
    said = run_full(tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)))
    assert said.count("File too large | raise the limit of file sizes (ulimit -f), or write elsewhere | OSError") == 4
    assert said.count("cannot write") == said.count("cannot create") == 2
    assert said.endswith("b'old' ['keep']\n")
    assert [each.name for each in tmp_path.iterdir()] == ["keep"]


def mount_small(directory: Path) -> str | None:
    """Mount a disk of 300 KB; return why it could not be."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, b"size=300k") == 0:
        return None
    return os.strerror(ctypes.get_errno())


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs of Linux")
def test_a_full_disk_is_an_error_that_harms_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if reason := mount_small(small):
        pytest.skip(f"cannot mount a small disk ({reason}); run as root to test a full one")
    try:
        said = run_full(small)
        left = [each.name for each in small.iterdir()]
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(small), 2)
    assert said.count("No space left on device | free some space on this disk, or write elsewhere | OSError") == 4
    assert said.endswith("b'old' ['keep']\n")
    assert left == ["keep"]


AS_NOBODY = """
import os, sys
from treenail.adapters.files import LocalFiles
from treenail.kernel import FileError
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
files = LocalFiles(sys.argv[1])
for verb in (lambda: files.write("closed/new", b""), lambda: files.read("closed/file"), lambda: files.stat("closed/file"),
             lambda: list(files.list()), lambda: files.delete("closed/file"), lambda: files.is_directory("closed/d")):
    try:
        verb()
    except FileError as error:
        print(type(error).__name__, error.message, "|", error.mend, "|", type(error.__cause__).__name__)
"""


def test_a_closed_directory_is_an_error_and_never_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/file").write_bytes(b"")
    (tmp_path / "closed").chmod(0)
    opened = [each for each in (tmp_path, *tmp_path.parents) if each.stat().st_uid == os.getuid()][:3]
    modes = {each: each.stat().st_mode for each in opened}
    try:
        for each in opened:
            each.chmod(modes[each] | 0o555)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
        )
    finally:
        for each, mode in modes.items():
            each.chmod(mode)
        (tmp_path / "closed").chmod(0o700)
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert all("Permission denied | let this user in" in line and line.endswith("PermissionError") for line in lines)


def leave(folder: Path, name: str, age: float) -> Path:
    path = folder / f".{name}{UNFINISHED}"
    if name.startswith("folder"):
        path.mkdir(parents=True)
        (path / "model.bin").write_bytes(b"half")
    else:
        path.write_bytes(b"half")
    os.utime(path, (age, age))
    return path


def test_old_leftovers_of_dead_processes_go_with_the_first_write(tmp_path: Path) -> None:
    old = [leave(tmp_path, name, OLD) for name in ("a", "folder")]
    young = [leave(tmp_path, name, time.time() - 60) for name in ("b", "folder-b")]
    alive = [leave(tmp_path, name, OLD) for name in ("c", "folder-c")]
    (tmp_path / "mine.bin").write_bytes(b"kept")
    os.utime(tmp_path / "mine.bin", (OLD, OLD))
    locked = [os.open(path, os.O_RDONLY) for path in alive]
    assert all(claim(descriptor) for descriptor in locked)
    files = LocalFiles(tmp_path)
    assert list(files.list()) == list(dict(files.scan())) == [name for name, _ in files.entries()] == ["mine.bin"]
    files.write("new", b"")
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in [*young, *alive])
    for descriptor in locked:
        os.close(descriptor)
    LocalFiles(tmp_path).write("new", b"")
    assert not any(path.exists() for path in alive)
    assert list(files.list()) == ["mine.bin", "new"]


def test_a_file_under_way_is_locked(tmp_path: Path) -> None:
    with durable.Unfinished(Folder(str(tmp_path)), "file") as file:
        file.write(b"x")
        [path] = tmp_path.iterdir()
        other = os.open(path, os.O_RDONLY)
        assert not claim(other)
        os.close(other)
        os.utime(path, (OLD, OLD))
        LocalFiles(tmp_path).write("other", b"")
        assert path.exists(), "what a living process writes was taken for a leftover"
        file.publish()
        with pytest.raises(FileError, match="published already"):
            file.publish()
    assert (tmp_path / "file").read_bytes() == b"x"


def test_names_of_unfinished_files_cannot_be_used(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    for path in (f"x{UNFINISHED}", f"x{UNFINISHED}/file"):
        with pytest.raises(FileError, match="ending of unfinished writes"):
            files.write(path, b"")


def test_directories_that_a_deletion_empties_go_along(tmp_path: Path) -> None:
    for prune, left in ((True, []), (False, ["d", "d/e"])):
        root = tmp_path / str(prune)
        files = LocalFiles(root, prune=prune)
        files.write("d/e/f", b"")
        files.delete("d/e/f")
        assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == left
        assert root.is_dir(), "the root stays"


def test_a_root_may_be_a_file_uri_and_no_other(tmp_path: Path) -> None:
    odd = tmp_path / "a b%20#?c"
    LocalFiles(odd.as_uri()).write("f", b"1")
    assert LocalFiles(odd).read("f") == b"1"
    assert LocalFiles(odd).uri == odd.as_uri()
    for uri, message in (("s3://bucket", "no local path"), ("file://host/x", "no host"), ("", "is no path")):
        with pytest.raises(FileError, match=message):
            LocalFiles(uri)


def test_a_large_file_is_on_its_way_to_the_disk_while_the_rest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []

    def begin(descriptor: int, start: int, length: int) -> None:
        assert os.fstat(descriptor).st_size == start + length, "nothing but what is written can be sent"
        sent.append((start, length))
        begin_write_back(descriptor, start, length)

    monkeypatch.setattr(durable, "begin_write_back", begin)
    files = LocalFiles(tmp_path)
    chunks = [bytes([number]) * 3_000_001 for number in range(8)]
    files.write("large", iter(chunks))
    files.write("small", b"abc")
    assert [start for start, _ in sent] == [0, *(start + length for start, length in sent[:-1])]
    assert 16_000_000 < sum(length for _, length in sent) <= 24_000_008
    assert files.read("large") == b"".join(chunks)


def test_what_cannot_be_sent_early_is_no_error() -> None:
    reading_end, writing_end = os.pipe()
    begin_write_back(writing_end, 0, 10)
    os.close(reading_end)
    os.close(writing_end)
    begin_write_back(writing_end, 0, 10)


def test_a_pickled_backend_is_the_same(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path, prune=False)
    files.write("d/f", b"1")
    again = pickle.loads(pickle.dumps(files))
    assert again.read("d/f") == b"1"
    assert (again.uri, again.prune) == (files.uri, False)


def test_a_copy_is_not_made_of_a_file_that_vanishes(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.write("target", b"old")
    with pytest.raises(FileMissingError):
        files.copy("missing", "new/target")
    assert [each.name for each in tmp_path.iterdir()] == ["target"]


def test_a_stream_of_a_file_that_grows_is_an_error(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.write("f", bytes(3_000_000))
    chunks = files.stream("f")
    next(chunks)
    with (tmp_path / "f").open("ab") as file:
        file.write(b"more")
    with pytest.raises(FileError, match="changed while it was read"):
        list(chunks)
    chunks = files.stream("f")
    first = next(chunks)
    files.write("f", b"another")
    assert len(first + b"".join(chunks)) == 3_000_004, "a file that is replaced is read to its end"


def test_a_list_keeps_one_directory_in_memory(tmp_path: Path) -> None:
    for number in range(30):
        directory = tmp_path / f"d{number}"
        directory.mkdir()
        for name in range(50):
            (directory / f"a-name-of-some-length-{name:04}").touch()
    files = LocalFiles(tmp_path)
    for walk in (files.list, files.scan):
        start()
        count = sum(1 for _ in walk())
        peak = get_traced_memory()[1]
        stop()
        assert count == 1500
        assert peak < 40_000, f"{peak} bytes for directories of 50 names each: more than one is kept"


def test_directories_are_made_and_emptied_by_many_threads(tmp_path: Path) -> None:
    files, failed = LocalFiles(tmp_path), list[Exception]()

    def churn(number: int) -> None:
        try:
            for _ in range(60):
                files.write(f"a/b/c/{number}", b"x")
                files.delete(f"a/b/c/{number}")
        except Exception as error:  # told below
            failed.append(error)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert list(tmp_path.iterdir()) == []
