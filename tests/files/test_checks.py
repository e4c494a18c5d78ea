"""What `treenail check` finds wrong in a config's section `files`, without asking any store."""

import socket
from pathlib import Path
from typing import NoReturn

import pytest

from treenail.adapters.config import Catalog, InvalidConfigError, load_run, recorded
from treenail.adapters.config.load import Source, load
from treenail.adapters.config.maker import Visit
from treenail.adapters.config.rules import rules_of_run
from treenail.adapters.config.schema import ComponentSchema
from treenail.adapters.documents import dump_document, parse_yaml
from treenail.adapters.files import Mounts, mistakes_in_files
from treenail.kernel import FileError

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a check asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def found(files: dict[str | int, object]) -> dict[str, str]:
    return {".".join(path): message for path, message in mistakes_in_files(files)}


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    ("files", "place", "message"),
    [
        ({"mounts": {"data/": "s4://bucket/x"}}, "mounts.data/", "nothing serves the scheme 's4'; did you mean 's3'?"),
        ({"mounts": {"a/": "b/x", "b/": "a/y"}}, "mounts.a/ mounts.b/", "mounts lead to each other; mounted are"),
        ({"mounts": {"a/": "a/x"}}, "mounts.a/", "mounts lead to each other"),
        ({"mounts": {"data/": ""}}, "mounts.data/", "an empty text cannot be mounted"),
        ({"mounts": {"": "s3://bucket"}}, "mounts.", "a mount needs a prefix"),
        ({"mounts": {"data": "s3://a", "data/": "s3://b"}}, "mounts.data/", "two mounts have this prefix"),
        ({"mounts": {"data/": "hf://name"}}, "mounts.data/", "this is no repository; write hf://org/name"),
        ({"mounts": {"data/": "https://host/../x"}}, "mounts.data/", "the path has '.' or '..' parts"),
        ({"mirrors": {"s4://bucket": "near"}}, "mirrors.s4://bucket", "nothing serves the scheme 's4'"),
        ({"mirrors": {"s3://bucket": ""}}, "mirrors.s3://bucket", "a mirror needs a local directory"),
        ({"mirrors": {"s3://bucket": "s3://near"}}, "mirrors.s3://bucket", "a mirror needs a local directory"),
        ({"mirrors": {"s3://a": "near", "s3://b": "./near/"}}, "mirrors.s3://b", "two mirrors have this prefix or"),
        (
            {"mounts": {"s3://b": "t5://c"}, "mirrors": {"s3://b/d": "near"}},
            "mounts.s3://b mirrors.s3://b/d",
            "nothing serves the scheme 't5'",
        ),
        ({"checkpoints": "s4://bucket/run"}, "checkpoints", "nothing serves the scheme 's4'"),
        ({"checkpoints": "c/run", "mounts": {"c/": "s4://b"}}, "mounts.c/ checkpoints", "nothing serves the scheme"),
        ({"schemes": {"S 3": {"type": "memory"}}}, "schemes.S 3", "is no scheme"),
        ({"cache": {"folder": "s3://bucket/cache", "max_bytes": 1}}, "cache.folder", "a cache needs a local directory"),
    ],
)
def test_what_a_run_could_not_find_its_files_by_is_a_mistake(
    files: dict[str | int, object], place: str, message: str
) -> None:
    mistakes = found(files)
    assert " ".join(mistakes) == place
    for each in mistakes.values():
        assert message in each


@pytest.mark.usefixtures("_no_network")
def test_what_is_right_is_no_mistake(tmp_path: Path) -> None:
    assert not found(
        {
            "mounts": {
                "data/": "s3://bucket/x",
                "data/old": {"type": "local", "root": str(tmp_path)},
                "near/": "data/old",
                "team://": "https://host/d",
                "own/": "mine://bucket/x",
            },
            "schemes": {"mine": {"type": "s3", "endpoint": "http://127.0.0.1:1"}},
            "mirrors": {"s3://bucket/x": str(tmp_path / "a"), "mine://bucket": str(tmp_path / "b")},
            "checkpoints": "own/run",
            "cache": {"folder": str(tmp_path / "cache"), "max_bytes": 1},
        }
    )
    assert not found({"mounts": None, "mirrors": {"s3://b": 3}, "checkpoints": 4}), "types are the schema's"


def test_a_run_says_the_same_where_no_config_was_checked(tmp_path: Path) -> None:
    for arguments, message in (
        ({"mirrors": {"s3://b": "s3://c"}}, "a mirror needs a local directory"),
        ({"mirrors": {"s3://a": "near", "s3://b": "near/"}}, "two mirrors have this prefix or directory"),
        ({"mirrors": {"s3://a": "near", "s3://a/": "far"}}, "two mirrors have this prefix or directory"),
        ({"mounts": {"a": "s3://b", "a/": "s3://c"}}, "two mounts have this prefix"),
    ):
        with pytest.raises(FileError, match=message):
            Mounts(**arguments)  # type: ignore[arg-type]  # mounts or mirrors, both of texts


@pytest.mark.usefixtures("_no_network")
def test_they_are_said_with_their_place_in_the_config(tmp_path: Path, catalog: Catalog) -> None:
    overlay = tmp_path / "server.yaml"
    overlay.write_text("files:\n  mounts:\n    data/: s4://bucket\n  mirrors: {s3://b: s3://c}\n")
    with pytest.raises(InvalidConfigError) as caught:
        load_run(DIGITS, ["seed=-1"], catalog, overlays=[overlay])
    assert [str(each).split("; ")[0] for each in caught.value.mistakes][1:] == [
        f"{overlay}:4:21: files.mirrors.s3://b: a mirror needs a local directory",
        f"{overlay}:3:12: files.mounts.data/: nothing serves the scheme 's4'",
    ]


WITH_SECRETS = """
files:
  mounts:
    a/: {type: hf, root: "hf://org/a", token: "TOKEN"}
    b/: {type: http, root: "https://host/b", headers: {Accept: "*/*", X-Own: "TOKEN", Cookie: "id=${env:HUNTER}"}}
    c/: {type: fsspec, root: "sftp://host/c", options: {port: 22, key: "TOKEN", client: {password: "TOKEN"}}}
    d/: {type: http, root: "https://user:TOKEN@host/d"}
    e/: {type: http, root: "https://host/e", headers: {Authorization: "Bearer TOKEN"}}
    f/: sftp://somebody@host/f
    g/: https://host/g?X-Amz-Signature=TOKEN
  schemes:
    ms: {type: ms, token: "TOKEN"}
"""


def test_credentials_are_taken_from_the_environment_alone(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run keeps (its config, the record in its checkpoints) holds the names of variables, never what is in them."""
    monkeypatch.setenv("HUNTER", "hunter2")
    overlay = tmp_path / "stores.yaml"
    overlay.write_text(WITH_SECRETS.replace("TOKEN", "hunter2"))
    with pytest.raises(InvalidConfigError) as caught:
        load_run(DIGITS, (), catalog, overlays=[overlay])
    assert [each.path for each in caught.value.mistakes] == [
        "files.mounts.a/.token",
        "files.mounts.b/.headers.X-Own",
        "files.mounts.c/.options.key",
        "files.mounts.c/.options.client.password",
        "files.mounts.d/.root",
        "files.mounts.e/.headers.Authorization",
        "files.mounts.g/",
        "files.schemes.ms.token",
    ]
    assert "take it from the environment: ${env:NAME}" in str(caught.value)
    assert "hunter2" not in str(caught.value)

    overlay.write_text(WITH_SECRETS.replace("TOKEN", "${env:NOT_SET:hunter2}"))
    with pytest.raises(InvalidConfigError) as defaults:
        load_run(DIGITS, (), catalog, overlays=[overlay])
    assert [each.path for each in defaults.value.mistakes] == [each.path for each in caught.value.mistakes]

    overlay.write_text(WITH_SECRETS.replace("TOKEN", "${env:HUNTER}"))
    run, document = load(Source(DIGITS, overlays=[overlay]), catalog)
    assert run.files.schemes["ms"].kwargs["token"] == "hunter2"
    kept = [dump_document(document), dump_document(document, mask_secrets=True), str(recorded(run, document))]
    for text in kept:
        assert "hunter2" not in text
    assert 'token: "${env:HUNTER}"' in kept[0]
    assert "hunter2" not in str(recorded(run)), "of a Python config, where nothing says what came from the environment"


def test_backends_outside_of_files_are_looked_at_too() -> None:
    """A dataset, say, that takes a backend; what is no backend may say `token` as it likes."""
    data = parse_yaml(
        "train: {dataset: {type: x, token: cls, files: {type: hf, root: hf://org/a, token: hunter2}}}\n", "run.yaml"
    ).data
    backend = ComponentSchema(target="treenail.adapters.files:HuggingFaceFiles", fields=())
    dataset = ComponentSchema(target="somebody:Dataset", fields=())
    visits = [Visit(("train", "dataset"), dataset, {}), Visit(("train", "dataset", "files"), backend, {})]
    assert [path for path, _ in rules_of_run(data)(data, visits)] == [("train", "dataset", "files", "token")]


def test_a_message_about_a_secret_does_not_show_it(tmp_path: Path, catalog: Catalog) -> None:
    overlay = tmp_path / "stores.yaml"
    overlay.write_text("files: {schemes: {hf: {type: hf, token: 7391, timeout: soon}}}\n")
    with pytest.raises(InvalidConfigError) as caught:
        load_run(DIGITS, (), catalog, overlays=[overlay])
    assert "7391" not in str(caught.value)
    assert "got 'str' ('soon')" in str(caught.value), "other values are shown"
