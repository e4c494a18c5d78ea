"""Configs that lie in a store: read, put together, and refused with a sentence; over memory, S3, a web server and an archive."""

import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from tests.files.s3_server import S3Server, s3_running
from treenail.adapters.documents import InvalidConfigError, Location, Uri, load_document, location, read_document
from treenail.adapters.files import HttpFiles, Mounts, ObjectFiles, put, use_mounts
from treenail.kernel import ConfigError, late


@pytest.fixture
def store() -> str:
    """Return the URI of an empty store."""
    return f"memory://{uuid4().hex}"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_running(tmp_path_factory.mktemp("s3")) as server:
        yield server


class _Quiet(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is http.server's)
        """Say nothing."""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Give a web server's URL, the folder that it serves, and what it is asked for."""

    class Handler(_Quiet):
        asked: list[str] = []  # noqa: RUF012  (of this server)

    folder = tmp_path / "web"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder, Handler.asked
        server.shutdown()
        thread.join()


def write(uri: str, text: str) -> Location:
    put(text.encode(), uri)
    return location(uri)


def mistake(path: Location) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        load_document(path)
    (found,) = caught.value.mistakes
    return str(found)


def test_a_config_and_its_bases_lie_in_a_store(store: str) -> None:
    write(f"{store}/bases/b.yaml", "_base_: ../c.json\nb: {x: 1, y: 1}\n")
    write(f"{store}/c.json", '{"c": 1, "b": {"x": 0}}')
    run = write(f"{store}/runs/run.yaml", "_base_: ../bases/b.yaml\nb: {y: 2}\nname: ${file:stem} in ${file:dirname}\n")
    document = load_document(run)
    assert document.data == {"c": 1, "b": {"x": 1, "y": 2}, "name": f"run in {store}/runs"}
    assert document.source == f"{store}/runs/run.yaml"
    assert document.locate(("b", "x")) == f"{store}/bases/b.yaml:2:8"
    assert document.locate(("c",)) == f"{store}/c.json:1:7"


def test_local_configs_have_bases_and_overlays_in_stores(store: str, tmp_path: Path) -> None:
    write(f"{store}/base.yaml", "a: 1\nb: 1\n")
    overlay = write(f"{store}/deploy/server.yaml", "b: 3\nc: 3\n")
    run = tmp_path / "run.yaml"
    run.write_text(f"_base_: [{store}/base.yaml]\nc: 1\n")
    assert load_document(run).data == {"a": 1, "b": 1, "c": 1}
    assert load_document(run, overlays=[overlay]).data == {"a": 1, "b": 3, "c": 3}


def test_the_mounts_in_use_find_it(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("a: 1\n")
    with use_mounts(Mounts({"team://configs": str(tmp_path)})):
        assert read_document(Uri("team://configs/run.yaml")).data == {"a": 1}


def test_a_file_uri_is_a_path(tmp_path: Path) -> None:
    assert location(f"file://{tmp_path}/a%20b.yaml") == tmp_path / "a b.yaml"
    assert location("runs/a.yaml") == Path("runs/a.yaml")
    with pytest.raises(ConfigError, match="a file URI has no host"):
        location("file://host/run.yaml")
    (tmp_path / "b.yaml").write_text("b: 1\n")
    run = tmp_path / "run.yaml"
    run.write_text(f"_base_: file://{tmp_path}/b.yaml\n")
    assert load_document(run).data == {"b": 1}


@pytest.mark.parametrize(
    "base",
    ["../../secret.yaml", "a/../../../secret.yaml", "/etc/secret.yaml", "..\\secret.yaml", "file:///etc/secret.yaml"],
)
def test_a_config_in_a_store_has_no_base_outside_of_it(store: str, base: str) -> None:
    run = write(f"{store}/x/run.yaml", f"_base_: '{base}'\n")
    found = mistake(run)
    assert found.startswith(f"{store}/x/run.yaml:1:9: _base_: ")
    assert "bases below the root of that store; copy it, or lay it over with --with" in found


def test_a_base_by_uri_lies_in_the_same_store(store: str) -> None:
    write(f"{store}/b.yaml", "b: 1\n")
    assert load_document(write(f"{store}/x/run.yaml", f"_base_: {store}/b.yaml\n")).data == {"b": 1}
    other = f"memory://{uuid4().hex}"
    write(f"{other}/b.yaml", "b: 1\n")
    run = write(f"{store}/run.yaml", f"_base_: {other}/b.yaml\n")
    assert f"{other}/b.yaml does not lie below {store};" in mistake(run)


def test_a_store_learns_nothing_of_the_environment(
    web: tuple[str, Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base's name is told to the store; with a variable in it, the store would learn what that holds."""
    url, folder, asked = web
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    for base in ('"${env:SECRET_TOKEN}.yaml"', '["b/${env:SECRET_TOKEN}.yaml"]', '"${env:SECRET_TOKEN:x}"'):
        (folder / "run.yaml").write_text(f"_base_: {base}\n")
        found = mistake(location(f"{url}/run.yaml"))
        assert "names its bases without variables of the environment" in found
        assert "hunter2" not in found
    assert {*asked} == {"/run.yaml"}


def test_python_in_a_store_is_no_base(store: str) -> None:
    found = mistake(write(f"{store}/run.yaml", "_base_: base.py\n"))
    assert f"{store}/base.py is Python, and reading a base runs no code" in found


def test_circles_and_missing_bases_are_mistakes_of_who_names_them(store: str) -> None:
    write(f"{store}/a.yaml", "_base_: b.yaml\n")
    run = write(f"{store}/b.yaml", "_base_: a.yaml\n")
    assert f"the bases go in a circle: {store}/b.yaml → {store}/a.yaml → {store}/b.yaml" in mistake(run)
    run = write(f"{store}/c.yaml", "x: 1\n_base_: none.yaml\n")
    assert mistake(run) == (
        f"{store}/c.yaml:2:9: _base_: {store}/none.yaml: there is no such file; check its name; "
        "`treenail copy` brings a file there"
    )
    run = write(f"{store}/d.yaml", "_base_: s4://bucket/b.yaml\n")
    assert "s4://bucket/b.yaml: nothing serves the scheme 's4'; did you mean 's3'?" in mistake(run)


def test_what_is_wrong_in_it_is_said_with_its_place(store: str) -> None:
    assert mistake(write(f"{store}/run.yaml", "a: 1\na: 2\n")).startswith(f"{store}/run.yaml:2:1: a: ")
    for name, text, message in (
        ("empty.yaml", "", "the file is empty"),
        ("run.txt", "a: 1", "a config file ends in .yaml"),
        ("large.yaml", f"a: {'x' * 2_000_000}", "the file is larger than 2,000,000 bytes"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            load_document(write(f"{store}/{name}", text))
        assert caught.value.where == f"{store}/{name}"


def test_a_large_file_of_a_store_without_ranges_is_not_fetched(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large.yaml", b"#" * 3_000_000)
        archive.writestr("d/run.yaml", b"_base_: base.yaml\na: 1\n")
        archive.writestr("d/base.yaml", b"b: 1\n")
    assert load_document(location(f"zip://{tmp_path}/a.zip!/d/run.yaml")).data == {"b": 1, "a": 1}
    with pytest.raises(ConfigError, match="the file is larger than 2,000,000 bytes"):
        load_document(location(f"zip://{tmp_path}/a.zip!/large.yaml"))


def test_over_http(web: tuple[str, Path, list[str]]) -> None:
    url, folder, asked = web
    (folder / "d").mkdir()
    (folder / "d" / "my base.yaml").write_text("b: 1\n")
    (folder / "d" / "run.yaml").write_text("_base_: my base.yaml\na: 1\n")
    run = location(f"{url}/d/run.yaml?token=hunter2")
    assert load_document(run).data == {"b": 1, "a": 1}
    assert [each.partition("?")[0] for each in asked] == ["/d/run.yaml", "/d/my%20base.yaml"]
    assert isinstance(run, Uri)
    assert (run.name, run.stem, run.suffix) == ("run.yaml", "run", ".yaml")
    pinned = location(f"{url}/d/run.yaml#sha256={'0' * 64}")
    with pytest.raises(ConfigError, match="sha256"):
        load_document(pinned)


def test_a_hash_of_a_config_vouches_for_no_base(web: tuple[str, Path, list[str]]) -> None:
    from hashlib import sha256

    url, folder, asked = web
    text = "_base_: b.yaml\n"
    (folder / "run.yaml").write_text(text)
    found = mistake(location(f"{url}/run.yaml#sha256={sha256(text.encode()).hexdigest()}"))
    assert f"the hash of {url}/run.yaml says nothing of 'b.yaml'; name it by its whole URL" in found
    assert "/b.yaml" not in asked


def test_over_s3(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    mounts = Mounts(schemes={"s3": late(ObjectFiles)(endpoint=s3.endpoint)})
    root = s3.fresh_root()
    with use_mounts(mounts):
        write(f"{root}/bases/b.yaml", "b: 1\n")
        run = write(f"{root}/runs/run.yaml", "_base_: ../bases/b.yaml\na: 1\n")
        assert load_document(run).data == {"b": 1, "a": 1}
        with pytest.raises(ConfigError, match="there is no such file"):
            load_document(location(f"{root}/none.yaml"))
        with pytest.raises(ConfigError, match="bucket") as caught:
            load_document(location("s3://there-is-no-such-bucket/run.yaml"))
        assert caught.value.where == "s3://there-is-no-such-bucket/run.yaml"
        assert caught.value.mend


def test_refused_access_no_network_and_unknown_schemes_are_sentences_without_credentials(
    web: tuple[str, Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _, _ = web

    def refuse(handler: _Quiet) -> None:
        handler.send_error(403)

    monkeypatch.setattr(_Quiet, "do_GET", refuse)
    host = url.removeprefix("http://")
    quick = Mounts(schemes={"http": late(HttpFiles)(retries=0)})
    with use_mounts(quick):
        for uri, message in (
            (f"http://user:hunter2@{host}/run.yaml?sig=hunter2", "403"),
            ("http://user:hunter2@127.0.0.1:1/run.yaml?sig=hunter2", "Connection refused"),
            ("s4://user:hunter2@bucket/run.yaml", "nothing serves the scheme 's4'"),
        ):
            run = location(uri)
            with pytest.raises(ConfigError, match=message) as caught:
                load_document(run)
            assert caught.value.where is not None
            assert caught.value.mend is not None
            error: BaseException | None = caught.value
            while error is not None:
                assert "hunter2" not in f"{error} {error!r} {run} {run!r}"
                error = error.__cause__ or error.__context__


def test_a_local_config_loads_neither_the_files_nor_their_libraries(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("_base_: b.yaml\n")
    (tmp_path / "b.yaml").write_text("b: 1\n")
    code = f"""
import sys
from pathlib import Path
from treenail.adapters.documents import load_document, location
assert load_document(location('{tmp_path}/run.yaml')).data == {{'b': 1}}
print([name for name in ('torch', 'obstore', 'fsspec', 'urllib3', 'treenail.adapters.files') if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
