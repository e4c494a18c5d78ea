"""mmengine's backends, clients and handlers over our stores, and the user's own of either kind."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import lmdb
import pytest

from tests.files.servers import find_server, free_port, running
from treenail.adapters.files import LocalFiles, MemoryFiles, Mounts, use_mounts
from treenail.adapters.files.compat import mmengine as fileio
from treenail.kernel import FileBackend, FileError, FileMissingError, TreenailError


class OnlyGet(fileio.BaseStorageBackend):
    """As in mmengine's documentation: a backend of two methods."""

    files: ClassVar = {
        "own://a/x.json": b'{"a": 1}',
        "own://a/list.txt": b"1 cat\n2 dog cow\n",
        "own://a/v.pkl": pickle.dumps(3),
    }

    def get(self, filepath: str | os.PathLike[str]) -> bytes:
        return self.files[str(filepath)]

    def get_text(self, filepath: str | os.PathLike[str]) -> str:
        return self.get(filepath).decode()


@pytest.fixture(autouse=True)
def own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a test registers be forgotten after it."""
    from treenail.adapters.files.compat import choosing, handlers

    for name in ("_BACKENDS", "_CLIENT_BACKENDS"):
        table: choosing.BackendTable = getattr(choosing, name)
        monkeypatch.setattr(choosing, name, choosing.BackendTable(table.names, table.prefixes))
    monkeypatch.setattr(handlers, "_HANDLERS", dict(handlers._HANDLERS))


@pytest.fixture
def bucket() -> Iterator[MemoryFiles]:
    """Let s3:// mean this process's memory."""
    files = MemoryFiles("s3://bucket")
    mounts = Mounts()
    mounts.mount("s3://bucket", files)
    with use_mounts(mounts):
        yield files


def test_a_backend_of_get_and_get_text_works_through_all_functions(tmp_path: Path) -> None:
    fileio.register_backend("own", OnlyGet, prefixes="own")
    x = "own://a/x.json"
    assert fileio.get(x) == b'{"a": 1}'
    assert fileio.get_text(x) == fileio.get_text(x, encoding="latin-1") == '{"a": 1}'
    assert fileio.load(x) == fileio.load("own://a/x.json", file_format="json") == {"a": 1}
    assert fileio.load("own://a/v.pkl", allow_pickle=True) == 3
    assert fileio.dict_from_file("own://a/list.txt") == {"1": "cat", "2": ["dog", "cow"]}
    assert fileio.list_from_file("own://a/list.txt", offset=1) == ["2 dog cow"]
    assert (fileio.exists(x), fileio.isfile(x), fileio.isdir(x), fileio.exists("own://a")) == (True, True, False, False)
    assert fileio.join_path("own://a", "b", "/c") == "own://a/b/c"
    with fileio.get_local_path(x) as local:
        assert Path(local).read_bytes() == b'{"a": 1}'
        assert Path(local).name == "x.json"
    assert not Path(local).exists()
    with pytest.raises(ZeroDivisionError), fileio.get_local_path(x) as local:
        raise ZeroDivisionError
    assert not Path(local).exists()
    assert fileio.copyfile_to_local(x, tmp_path) == str(tmp_path / "x.json")
    assert (tmp_path / "x.json").read_bytes() == b'{"a": 1}'
    for refused in (
        lambda: fileio.put(b"", x),
        lambda: fileio.put_text("", x),
        lambda: fileio.remove(x),
        lambda: fileio.rmtree("own://a"),
        lambda: fileio.copyfile(x, "own://b"),
        lambda: fileio.copyfile_from_local(tmp_path / "x.json", "own://b"),
        lambda: fileio.copytree("own://a", "own://b"),
        lambda: fileio.copytree_to_local("own://a", tmp_path / "b"),
        lambda: fileio.list_dir_or_file("own://a"),
        lambda: fileio.generate_presigned_url(x),
        lambda: fileio.dump(1, x),
    ):
        with pytest.raises(NotImplementedError, match="OnlyGet cannot") as raised:
            refused()
        assert isinstance(raised.value, FileError)


def test_a_backend_of_the_users_is_one_of_our_file_backends() -> None:
    files: FileBackend = fileio.StorageFiles("own://a", backend=OnlyGet())
    assert files.read("x.json", 1, 3) == b'"a"'
    assert files.stat("x.json").size == 8
    for wrong in (lambda: files.read("none"), lambda: files.stat("none")):
        with pytest.raises(FileMissingError, match="own://a/none"):
            wrong()
    for refused in (lambda: files.write("x", b""), lambda: files.delete("x.json")):
        with pytest.raises(FileError, match="read only"):
            refused()  # type: ignore[no-untyped-call]  # lambdas of several types
    with use_mounts(Mounts()) as mounts:
        mounts.mount("data/", files)
        assert fileio.load("data/x.json") == {"a": 1}


def test_our_file_backends_are_backends_of_theirs(tmp_path: Path) -> None:
    backend = fileio.FilesBackend(LocalFiles(tmp_path))
    backend.put_text("é", "sub/text.txt")
    assert (tmp_path / "sub" / "text.txt").read_text(encoding="utf-8") == backend.get_text("sub/text.txt") == "é"
    assert sorted(backend.list_dir_or_file("", recursive=True)) == ["sub", "sub/text.txt"]
    again = fileio.StorageFiles("", backend=pickle.loads(pickle.dumps(backend)))
    assert (again.read("sub/text.txt"), list(again.list())) == ("é".encode(), ["sub/text.txt"])
    with pytest.raises(FileError):
        backend.get("../outside")


def test_every_function_over_s3(bucket: MemoryFiles, tmp_path: Path) -> None:
    (tmp_path / "dir" / "in").mkdir(parents=True)
    (tmp_path / "dir" / "in" / "a.txt").write_text("a")
    (tmp_path / "dir" / ".b").write_text("b")
    assert fileio.copytree_from_local(tmp_path / "dir", "s3://bucket/d") == "s3://bucket/d"
    assert list(bucket.list()) == ["d/.b", "d/in/a.txt"]
    assert fileio.copyfile_from_local(tmp_path / "dir" / ".b", "petrel://bucket/d") == "petrel://bucket/d/.b"
    assert fileio.copyfile("s3://bucket/d/in/a.txt", "s3://bucket/c") == "s3://bucket/c"
    assert fileio.copyfile_to_local("s3://bucket/c", str(tmp_path)) == str(tmp_path / "c")
    assert fileio.copytree("s3://bucket/d", "s3://bucket/e") == "s3://bucket/e"
    assert fileio.copytree_to_local("s3://bucket/e", tmp_path / "e") == tmp_path / "e"
    assert (tmp_path / "e" / "in" / "a.txt").read_text() == "a"
    assert fileio.copy_if_symlink_fails("s3://bucket/c", "s3://bucket/f") is False
    assert fileio.copy_if_symlink_fails("s3://bucket/d", "s3://bucket/g") is False
    assert sorted(fileio.list_dir_or_file("s3://bucket", recursive=True))[:4] == ["c", "d", "d/in", "d/in/a.txt"]
    assert list(fileio.list_dir_or_file("s3://bucket/d/in", suffix=".txt")) == ["a.txt"]
    assert fileio.join_path("petrel://path/of/file", "another/path") == "petrel://path/of/file/another/path"
    assert fileio.join_path("petrel://path/of/file", "/another/path") == "petrel://path/of/file/another/path"
    fileio.dump({"x": [1]}, "s3://bucket/out.yaml")
    assert fileio.load("petrel://bucket/out.yaml") == {"x": [1]}
    with fileio.get_local_path("s3://bucket/c") as local:
        assert Path(local).read_text() == "a"
    assert not Path(local).exists()
    for error, wrong in (
        (FileExistsError, lambda: fileio.copytree("s3://bucket/d", "s3://bucket/e")),
        (FileExistsError, lambda: fileio.copytree_from_local(tmp_path / "dir", "s3://bucket/e")),
        (shutil.SameFileError, lambda: fileio.copyfile("s3://bucket/c", "s3://bucket/c")),
        (FileNotFoundError, lambda: fileio.remove("s3://bucket/none")),
        (IsADirectoryError, lambda: fileio.remove("s3://bucket/d")),
        (FileNotFoundError, lambda: fileio.get("s3://bucket/none")),
        (ValueError, lambda: fileio.generate_presigned_url("s3://bucket/c", "head_object")),
        (FileError, lambda: fileio.generate_presigned_url("s3://bucket/c")),
    ):
        with pytest.raises(error) as raised:
            wrong()
        assert isinstance(raised.value, TreenailError)
    fileio.remove("s3://bucket/c")
    fileio.rmtree("s3://bucket/d")
    assert not fileio.exists("s3://bucket/c")
    assert not fileio.isdir("s3://bucket/d")


def test_petrels_paths_are_mapped_and_clusters_are_profiles(
    bucket: MemoryFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("data/x", b"1")
    mapped = {"backend": "petrel", "path_mapping": {"./data/": "s3://bucket/data/"}}
    assert fileio.get("./data/x", backend_args=mapped) == b"1"
    assert fileio.get(".\\data\\x".replace("\\", "/"), mapped) == fileio.get("s3://bucket\\data\\x", mapped) == b"1"
    assert pickle.loads(pickle.dumps(fileio.PetrelBackend({"a": "s3://bucket/data"}))).get("a/x") == b"1"
    with pytest.raises(FileError, match="no path of Petrel's"):
        fileio.PetrelBackend().get("/local/file")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(FileError, match="team"):
        fileio.get("team:s3://bucket/data/x")
    for wrong in ({"conf_path": "~/petreloss.conf"}, {"path_mapping": 3}, {"endpiont": "x"}):
        with pytest.raises(TreenailError):
            fileio.get_file_backend("s3://bucket", backend_args=wrong)


def test_the_scheme_and_the_name_choose_the_backend(bucket: MemoryFiles) -> None:  # its mounts are used
    chosen = fileio.get_file_backend
    assert type(chosen("s3://bucket/x")) is type(chosen(backend_args={"backend": "petrel"})) is fileio.PetrelBackend
    assert type(chosen("/x", backend_args={"backend": "petrel"})) is fileio.PetrelBackend
    assert type(chosen("team:s3://bucket/x")) is fileio.PetrelBackend
    assert type(chosen("x")) is type(chosen(Path("x"))) is fileio.LocalBackend
    assert type(chosen("memory://x/y")) is fileio.MountedBackend
    arguments = {"backend": "petrel", "path_mapping": {"a": "b"}}
    one = chosen(backend_args=arguments, enable_singleton=True)
    assert one is chosen(backend_args=dict(arguments), enable_singleton=True)
    assert one is not chosen(backend_args=arguments)
    assert arguments == {"backend": "petrel", "path_mapping": {"a": "b"}}
    with pytest.raises(KeyError, match=r"nothing serves the scheme 's4'; did you mean 's3'"):
        fileio.get("s4://bucket/x")
    with pytest.raises(KeyError, match="neither a URI nor a local path"):
        fileio.put(b"", "1s3://bucket/x")


def test_clients_are_single_and_forgotten_when_their_backend_is_replaced() -> None:
    client = fileio.FileClient(backend="petrel")
    assert client is fileio.FileClient(backend="petrel")
    assert client is pickle.loads(pickle.dumps(client))
    assert client is not fileio.FileClient(backend="petrel", path_mapping={"a": "b"})
    assert type(fileio.FileClient(backend="disk", prefix="s3").client) is fileio.HardDiskBackend
    assert fileio.FileClient() is fileio.FileClient("disk")
    assert type(fileio.FileClient.infer_client(uri="s3://x/y").client) is fileio.PetrelBackend
    assert type(fileio.FileClient.infer_client(uri="x/y").client) is fileio.HardDiskBackend
    assert fileio.FileClient.infer_client({"backend": "petrel"}) is client
    assert fileio.FileClient.parse_uri_prefix("s3://path/of/your/file") == "s3"
    assert fileio.FileClient.parse_uri_prefix("team:s3://path") == "s3"
    assert fileio.FileClient.parse_uri_prefix("path/of/your/file") is None
    with pytest.raises(KeyError, match="registered already"):
        fileio.FileClient.register_backend("petrel", OnlyGet)
    fileio.FileClient.register_backend("petrel", OnlyGet, force=True, prefixes=["s3"])
    assert type(fileio.FileClient(backend="petrel").client) is OnlyGet is type(fileio.FileClient(prefix="s3").client)

    decorate = fileio.FileClient.register_backend("mine", prefixes=("mine",))
    assert decorate is not None

    @decorate
    class Mine(OnlyGet):
        pass

    assert fileio.FileClient("mine").name == "Mine"
    with pytest.raises(FileError):
        fileio.get("mine://a/b")  # the io functions have their own names


def test_a_client_does_what_its_backend_does(tmp_path: Path) -> None:
    client = fileio.FileClient("disk")
    client.put(b"x", tmp_path / "new" / "a")
    client.put_text("é", tmp_path / "b", encoding="latin-1")
    assert client.get(tmp_path / "new" / "a") == b"x"
    assert client.get_text(tmp_path / "b", "latin-1") == "é"
    assert [client.exists(tmp_path), client.isdir(tmp_path), client.isfile(tmp_path / "b")] == [True] * 3
    assert client.join_path("a", "b") == "a/b"
    assert client.allow_symlink
    assert sorted(client.list_dir_or_file(tmp_path, recursive=True)) == ["b", "new", "new/a"]
    with client.get_local_path(tmp_path / "b") as local:
        assert Path(local) == tmp_path / "b"
    client.remove(tmp_path / "b")
    assert not client.exists(tmp_path / "b")
    with pytest.warns(DeprecationWarning, match="backend_args"):
        assert fileio.list_from_file(tmp_path / "new" / "a", file_client_args={"backend": "disk"}) == ["x"]


def test_pickles_are_read_only_when_asked(tmp_path: Path) -> None:
    fileio.dump({"a": 1}, tmp_path / "x.pkl")
    for wrong in (
        lambda: fileio.load(tmp_path / "x.pkl"),
        lambda: fileio.PickleHandler().load_from_path(tmp_path / "x.pkl"),
    ):
        with pytest.raises(ValueError, match="allow_pickle=True") as raised:
            wrong()  # type: ignore[no-untyped-call]  # lambdas of several types
        assert isinstance(raised.value, FileError)
    assert fileio.load(tmp_path / "x.pkl", allow_pickle=True) == {"a": 1}
    fileio.register_handler(["pkl", "pickle"], allow_pickle=True)(fileio.PickleHandler)
    assert fileio.load(tmp_path / "x.pkl") == {"a": 1}
    assert fileio.load(tmp_path / "x.pkl", allow_pickle=True) == {"a": 1}


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("!!python/object/apply:os.mkdir ['made']\n")
    with pytest.raises(Exception, match="could not determine a constructor"):
        fileio.load(tmp_path / "x.yaml")
    assert not Path("made").exists()


def test_handlers_without_options_and_of_bytes_without_a_flag(tmp_path: Path, bucket: MemoryFiles) -> None:
    @fileio.register_handler(["txt", "log"])
    class Text(fileio.BaseFileHandler):  # as in the guide
        def load_from_fileobj(self, file):  # type: ignore[no-untyped-def]
            return file.read()

        def dump_to_fileobj(self, obj, file):  # type: ignore[no-untyped-def]
            file.write(str(obj))

        def dump_to_str(self, obj, **kwargs):  # type: ignore[no-untyped-def]
            return str(obj)

    @fileio.register_handler("bin")
    class Binary(Text):  # as the guide prints its PickleHandler: no flag, but modes
        def load_from_path(self, filepath, **kwargs):  # type: ignore[no-untyped-def, override]  # as it is printed
            return super().load_from_path(filepath, mode="rb", **kwargs)

        def dump_to_path(self, obj, filepath, **kwargs):  # type: ignore[no-untyped-def, override]  # as it is printed
            super().dump_to_path(obj, filepath, mode="wb", **kwargs)

        def dump_to_fileobj(self, obj, file):  # type: ignore[no-untyped-def]
            file.write(obj)

    for path in (str(tmp_path / "a"), "s3://bucket/a"):
        fileio.dump("é", f"{path}.log")
        assert fileio.load(f"{path}.log") == fileio.load(f"{path}.log", file_format="txt") == "é"
        fileio.dump(b"\xff\n\r", f"{path}.bin")
        assert fileio.load(f"{path}.bin") == b"\xff\n\r"
    assert bucket.read("a.bin") == (tmp_path / "a.bin").read_bytes()
    assert fileio.dump(3, file_format="txt") == "3"
    with pytest.raises(TypeError):
        fileio.load(tmp_path / "a.log", unknown=1)


def test_the_mounts_in_use_serve_local_paths_too(tmp_path: Path, bucket: MemoryFiles) -> None:
    mounts = Mounts({"data/": "memory://shop/x"})
    with use_mounts(mounts):
        fileio.put(b"1", "data/new/a")
        assert fileio.get("data/new/a") == fileio.get("memory://shop/x/new/a") == b"1"
        assert fileio.copyfile_to_local("data/new/a", tmp_path / "a") == tmp_path / "a"
    assert list(bucket.list()) == []


def test_http(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"é": 1}', encoding="utf-8")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]  # of a partial
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.json"
        backend = fileio.HTTPBackend(retries=0)
        assert backend.get_text(url) == '{"é": 1}'
        assert (backend.exists(url), backend.isfile(f"{url}x"), backend.isdir(url)) == (True, False, False)
        with backend.get_local_path(url) as local:
            assert Path(local).read_bytes() == (tmp_path / "a.json").read_bytes()
        assert not Path(local).exists()
        with pytest.raises(FileNotFoundError):
            backend.get(f"{url}x")
        with pytest.raises(OSError, match="read only"):
            backend.put(b"", url)
        assert pickle.loads(pickle.dumps(backend)).get(url) == (tmp_path / "a.json").read_bytes()
        server.shutdown()


def test_lmdb_before_and_after_a_fork(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "db")) as database, database.begin(write=True) as transaction:
        transaction.put("ä/1".encode(), b"one")
    backend = fileio.LmdbBackend(tmp_path / "db")
    assert backend.get("ä/1") == b"one"
    assert backend.get_text("ä/1") == "one"
    with pytest.raises(FileNotFoundError, match="no such key"):
        backend.get("none")  # mmengine returns None
    assert fileio.get("ä/1", {"backend": "lmdb", "db_path": str(tmp_path / "db")}) == b"one"  # open twice
    with pytest.raises(FileNotFoundError, match="no such database"):
        fileio.LmdbBackend(tmp_path / "no").get("x")
    sent = pickle.dumps(backend)
    if (child := os.fork()) == 0:
        right = False
        try:  # whatever happens, the child must not go on with the tests
            right = backend.get("ä/1") == pickle.loads(sent).get("ä/1") == b"one"
        finally:
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_memcached(tmp_path: Path) -> None:
    memcached, port = find_server("memcached"), free_port()
    command: list[str | Path] = [memcached, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "nobody"]
    (tmp_path / "servers").write_text(f"# ours\n127.0.0.1:{port}\n")
    with running(command, port, log=tmp_path / "log"):
        from pymemcache.client.base import Client

        Client(("127.0.0.1", port)).set("a/b", b"value", noreply=False)
        arguments = {"backend": "memcached", "server_list_cfg": tmp_path / "servers", "client_cfg": tmp_path / "x"}
        assert fileio.get("a/b", arguments) == b"value"
        assert fileio.get_text("a/b", backend_args=arguments) == "value"
        assert pickle.loads(pickle.dumps(fileio.MemcachedBackend(tmp_path / "servers"))).get("a/b") == b"value"
        with pytest.raises(FileNotFoundError):
            fileio.get("none", arguments)
    with pytest.raises(OSError, match="cannot read"):
        fileio.get("a/b", arguments)
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ValueError, match="names no server"):
        fileio.MemcachedBackend(tmp_path / "empty")


def test_importing_it_loads_no_client_and_no_torch() -> None:
    heavy = ["torch", "numpy", "yaml", "obstore", "urllib3", "lmdb", "pymemcache", "mmengine", "fsspec"]
    names = ", ".join(f"treenail.adapters.files.compat.{name}" for name in ("mmengine", "scepter", "easycore"))
    code = f"import sys, {names}; print([each for each in {heavy} if each in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
