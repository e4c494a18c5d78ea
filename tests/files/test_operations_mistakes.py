"""What goes wrong by a user's own doing is an error of ours, without secrets, before any harm is done."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from treenail.adapters import files
from treenail.adapters.cli import main
from treenail.adapters.files import HttpFiles, LocalFiles, MemoryFiles, Mounts, use_mounts
from treenail.kernel import FileError, TreenailError, late

Verb = Callable[[str], object]
SECRETS = "SECRETPW", "RETPW", "AKIA"


def entered(function: Callable[[str], AbstractContextManager[Path]]) -> Verb:
    def enter(uri: str) -> None:
        with function(uri):
            pass

    return enter


def first_error(results: Iterator[object]) -> None:
    for each in results:
        error = each.error if isinstance(each, files.Written) else each
        if isinstance(error, FileError):
            raise error


VERBS: dict[str, Verb] = {
    "get": files.get,
    "get a negative range": lambda uri: files.get(uri, -1),
    "get_text": files.get_text,
    "get_text of no encoding": lambda uri: files.get_text(uri, "none"),
    "put": lambda uri: files.put("text", uri),  # type: ignore[arg-type]  # that is the mistake
    "put_text": lambda uri: files.put_text("文", uri, "ascii"),
    "stat": files.stat,
    "exists": files.exists,
    "isfile": files.isfile,
    "isdir": files.isdir,
    "make_directory": files.make_directory,
    "remove": files.remove,
    "rmtree": files.rmtree,
    "list_dir_or_file": lambda uri: list(files.list_dir_or_file(uri)),
    "list_dir_or_file by a wrong suffix": lambda uri: files.list_dir_or_file(uri, suffix=3),  # type: ignore[arg-type]
    "copyfile": lambda uri: files.copyfile(uri, uri),
    "copyfile from": lambda uri: files.copyfile(uri, "memory://other/x"),
    "copyfile to": lambda uri: files.copyfile("memory://other/none", uri),
    "copytree": lambda uri: files.copytree(uri, "memory://other/d"),
    "copytree to": lambda uri: files.copytree("memory://other/none", uri),
    "copy_if_symlink_fails": lambda uri: files.copy_if_symlink_fails(uri, "memory://other/d"),
    "get_local_path": entered(files.get_local_path),
    "put_to": entered(files.put_to),
    "generate_presigned_url": files.generate_presigned_url,
    "load": lambda uri: files.load(uri, "json"),
    "load without a format": files.load,
    "dump": lambda uri: files.dump(object(), uri, "json"),
    "dump without a format": lambda uri: files.dump(1, uri),
    "list_from_file": files.list_from_file,
    "list_from_file by a wrong offset": lambda uri: files.list_from_file(uri, offset=-1),
    "dict_from_file": files.dict_from_file,
    "record_spans": lambda uri: files.record_spans(uri, parts=2),
    "record_spans of no parts": lambda uri: files.record_spans(uri, parts=0),
    "read_records": files.read_records,
    "read_records of no size": lambda uri: files.read_records(uri, 0, 0),
    "iterate_records": lambda uri: list(files.iterate_records(uri)),
    "iterate_records without a delimiter": lambda uri: files.iterate_records(uri, b""),
    "sync from": lambda uri: files.sync(uri, "memory://other/d"),
    "sync to": lambda uri: files.sync("memory://other/none", uri),
    "get_many": lambda uri: first_error(files.get_many([uri])),
    "put_many": lambda uri: first_error(files.put_many([("text", uri)])),  # type: ignore[list-item]  # that is the mistake
    "LocalFiles": LocalFiles,
    "treenail copy": lambda uri: main(["copy", uri, "/proc/none/x"]),
}
URIS = (
    "http://u:SECRETPW@127.0.0.1:9/bin",
    "http://127.0.0.1:9/x?sig=SECRETPW",
    "http://127.0.0.1:9/x#SECRETPW",
    "http://u:?SECRETPW@127.0.0.1:9/x",
    "s3://AKIA:SEC/RETPW@b/x",
    "s3://AKIA:SECRETPW@b/x",
    "nothing://u:SECRETPW@h/x",
    "zip://http://u:SECRETPW@127.0.0.1:9/a.zip!/x",
    "memory://u:SECRETPW@h/x",
)


@pytest.mark.parametrize("verb", VERBS)
def test_no_error_and_no_cause_of_one_shows_a_secret(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    failed = 0
    with use_mounts(Mounts(schemes={"http": late(HttpFiles)(retries=0)})):
        for uri in URIS:
            try:
                VERBS[verb](uri)
            except TreenailError as error:
                failed += 1
                chain: BaseException | None = error
                while chain is not None:  # without the lines of the traceback, which quote this file
                    text = f"{chain} {chain!r} {''.join(traceback.format_exception_only(chain))}"
                    assert not any(secret in text for secret in SECRETS), (verb, uri, text)
                    chain = chain.__cause__ or chain.__context__
    printed = "".join(capfd.readouterr())
    assert not any(secret in printed for secret in SECRETS), printed
    assert failed or printed, "this verb never failed, so nothing was tested"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://AKIA:SEC/RETPW@b/x", "s3://***@b/x"),
        ("s3://AKIA:SEC", "s3://***"),
        ("http://u:pass?word@h/x", "http://***"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("s3://b/x:y", "s3://b/x:y"),
    ],
)
def test_what_looks_like_a_password_is_not_shown(uri: str, shown: str) -> None:
    assert files.redacted(uri) == shown


@pytest.mark.parametrize("root", ["local", "memory://mistakes"])
def test_what_is_no_content_is_refused_and_the_file_stays(root: str, tmp_path: Path) -> None:
    path = str(tmp_path / "f") if root == "local" else f"{root}/f"
    files.put(b"old", path)
    place = files.current_mounts().resolve(path)
    wrong: list[tuple[Any, str]] = [  # Any: no type fits what is wrong on purpose
        ("text", "cannot write a str; encode it"),
        (None, "cannot write a NoneType"),
        (3, "cannot write a int"),
    ]
    for value, message in wrong:
        with pytest.raises(FileError, match=message):
            files.put(value, path)
        with pytest.raises(FileError, match=message):
            place.backend.write(place.path, value)
    (written,) = files.put_many([("text", path)])  # type: ignore[list-item]  # that is the mistake
    assert written.error is not None
    assert "cannot write a str" in written.error.message
    assert files.get(path) == b"old"


@pytest.mark.parametrize("root", ["local", "memory://ranges"])
def test_a_range_beyond_every_file_is_an_error_and_one_beyond_this_file_is_empty(root: str, tmp_path: Path) -> None:
    path = str(tmp_path / "f") if root == "local" else f"{root}/f"
    files.put(b"content", path)
    with pytest.raises(FileError, match=r"no file has 2\*\*63 bytes"):
        files.get(path, 10**20)
    assert files.get(path, 2**62) == b""
    assert files.get(path, 3, 2**62) == b"tent"
    place = files.current_mounts().resolve(path)
    assert b"".join(files.stream(place.backend, place.path, 2**62)) == b""


@pytest.mark.parametrize("name", ["a" * 300 + ".json", "ü" * 250, "x." + "y" * 300])
def test_a_name_too_long_for_a_local_disk_has_a_short_one_for_the_block(name: str) -> None:
    with files.put_to(f"memory://long/{name}") as local:
        local.write_bytes(b"[1]")
    with files.get_local_path(f"memory://long/{name}") as local:
        assert local.read_bytes() == b"[1]"
        assert not name.endswith(".json") or local.suffix == ".json"
    assert files.get(f"memory://long/{name}") == b"[1]"


def test_a_name_too_long_is_told_before_work_is_done_for_it(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="File name too long"), files.put_to(tmp_path / ("a" * 300)):
        pytest.fail("the work of the block would be lost")
    assert list(tmp_path.iterdir()) == []


AS_NOBODY = """
import os, sys
from treenail.adapters import files
from treenail.kernel import FileError
closed = sys.argv[1]
files.put(b"1", "memory://s/f")  # and imports what the user nobody may not read here
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
def put_to():
    with files.put_to(f"{closed}/x"):
        pass
for verb in (put_to, lambda: files.sync("memory://s", closed), lambda: files.sync("memory://s", f"{closed}/new")):
    try:
        verb()
    except FileError as error:
        print(error.where, error.message, "|", error.mend)
"""


def test_a_directory_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    opened = [each for each in (tmp_path, *tmp_path.parents) if each.stat().st_uid == os.getuid()][:3]
    modes = {each: each.stat().st_mode for each in opened}
    try:
        for each in opened:
            each.chmod(modes[each] | 0o555)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(closed)], capture_output=True, text=True, check=True, timeout=60
        )
    finally:
        for each, mode in modes.items():
            each.chmod(mode)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stdout
    assert all(line.startswith(str(closed)) and "Permission denied | let this user in" in line for line in lines)


def test_generators_check_their_arguments_and_find_their_mounts_when_called(tmp_path: Path) -> None:
    store = MemoryFiles("m://")
    store.write("d/f", b"a\nb\n")
    mounts = Mounts()
    mounts.mount("m://", store)
    with use_mounts(mounts):
        listed, records = files.list_dir_or_file("m://d"), files.iterate_records("m://d/f")
        read, written = files.get_many(["m://d/f"]), files.put_many([(b"new", "m://n")])
    assert list(listed) == ["f"]
    assert list(records) == [b"a", b"b"]
    assert list(read) == [b"a\nb\n"]
    assert [each.error for each in written] == [None]
    assert store.read("n") == b"new"
    wrong: list[Callable[[], object]] = [
        lambda: files.list_dir_or_file(tmp_path, suffix=1),  # type: ignore[arg-type]  # that is the mistake
        lambda: files.list_dir_or_file("nothing://x"),
        lambda: files.iterate_records(tmp_path, b""),
        lambda: files.get_many([], concurrency=0),
        lambda: files.put_many([], concurrency=0),
    ]
    for call in wrong:
        with pytest.raises(FileError):
            call()


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.put(b"1", path)
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    for mode in (0o600, 0o755):
        path.chmod(mode)
        files.put(b"2", path)
        assert path.stat().st_mode & 0o777 == mode
        with files.put_to(path) as local:
            local.write_bytes(b"3")
        assert path.stat().st_mode & 0o777 == mode


def test_a_copy_between_local_files_keeps_permissions(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    mounts = Mounts()
    mounts.mount("other://", LocalFiles(tmp_path / "other"))
    with use_mounts(mounts):
        files.put(b"#!/bin/sh", tmp_path / "tree/run")
        (tmp_path / "tree/run").chmod(0o700)
        files.copyfile(tmp_path / "tree/run", tmp_path / "again")
        files.copyfile(tmp_path / "tree/run", "other://run")
        files.copytree(tmp_path / "tree", tmp_path / "copied")
        files.sync(tmp_path / "tree", tmp_path / "synced")
    for copy in ("again", "other/run", "copied/run", "synced/run"):
        assert (tmp_path / copy).stat().st_mode & 0o777 == 0o700, copy
        assert (tmp_path / copy).read_bytes() == b"#!/bin/sh"


def current_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("root", ["local", "memory://slash"])
def test_a_target_with_a_slash_at_its_end_is_a_directory(root: str, tmp_path: Path) -> None:
    root = str(tmp_path) if root == "local" else root
    files.put(b"1", f"{root}/a.txt")
    assert files.copyfile(f"{root}/a.txt", f"{root}/new/") == f"{root}/new/a.txt"
    assert main(["copy", f"{root}/a.txt", f"{root}/by/command/"]) == 0
    assert files.get(f"{root}/new/a.txt") == files.get(f"{root}/by/command/a.txt") == b"1"


def test_the_command_refuses_no_jobs_for_files_and_directories(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.put(b"1", tmp_path / "d/f")
    for source in ("d", "d/f"):
        assert main(["copy", str(tmp_path / source), str(tmp_path / "new"), "--jobs", "0"]) != 0
        assert "--jobs is 0; it is at least 1" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf8_is_told_with_its_directory(tmp_path: Path) -> None:
    directory = tmp_path / "d/deep"
    directory.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(directory) + b"/caf\xe9.txt")).write_bytes(b"1")
    copies: list[Callable[[], object]] = [
        lambda: files.sync(tmp_path / "d", tmp_path / "synced"),
        lambda: files.copytree(tmp_path / "d", tmp_path / "copied"),
        lambda: files.get(os.fsdecode(os.fsencode(directory) + b"/caf\xe9.txt")),
    ]
    for copy in copies:
        with pytest.raises(FileError, match="its name is not UTF-8; rename it") as caught:
            copy()
        assert caught.value.where == str(directory)
        assert b"caf" in str(caught.value).encode(), "every terminal can print it"


def test_a_current_directory_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    script = """
import os, sys
from treenail.adapters import files
from treenail.kernel import FileError
os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])
try:
    files.LocalFiles("x")
except FileError as error:
    print(error)
"""
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "gone")], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("x: the current directory is gone; change to one")
