"""Files in Azure Blob Storage: the laws, and what a container, its credentials and its errors do, against Azurite."""

import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import islice
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.files.azure_server import ACCOUNT, KEY, AzureServer, azure_running, demand_azurite
from treenail.adapters.files import download
from treenail.adapters.files.objects import ObjectFiles
from treenail.contracts.laws._file_model import BAD_PATHS, NAMES
from treenail.contracts.laws.files import FileBackendLaws
from treenail.kernel import FileError, FileMissingError

demand_azurite()
PART = 5 * 1024**2


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    with azure_running(tmp_path_factory.mktemp("azure")) as server:
        yield server


@pytest.fixture(autouse=True)
def _credentials(azure: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)


def _upload(url: str, data: bytes) -> int:
    headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
    with urlopen(Request(url, data=data, method="PUT", headers=headers), timeout=60) as answer:
        return int(answer.status)


class TestAzure(FileBackendLaws):
    @pytest.fixture(autouse=True)
    def _server(self, azure: AzureServer) -> None:
        self.server = azure

    def make(self) -> ObjectFiles:
        return ObjectFiles(self.server.fresh_root(), endpoint=self.server.endpoint)

    def test_signed_urls_work_without_credentials(self) -> None:
        """The law's, with the header that Azure asks for."""
        files = self.make()
        for name in NAMES:
            assert _upload(files.sign(name, method="PUT", expires=60), name.encode()) == 201
            with urlopen(files.sign(name), timeout=60) as answer:
                assert answer.read() == name.encode()
        assert list(files.list()) == sorted(NAMES, key=str.encode)
        for path in ("", *BAD_PATHS):
            with pytest.raises(FileError):
                files.sign(path)


@pytest.fixture
def root(azure: AzureServer) -> str:
    return azure.fresh_root()


@pytest.fixture
def files(azure: AzureServer, root: str) -> ObjectFiles:
    return ObjectFiles(root, endpoint=azure.endpoint, part_size=PART)


def _key(root: str, name: str) -> str:
    return f"{root.rpartition('/')[2]}/{name}"


class TestKeys:
    def test_names_are_listed_in_the_order_of_their_bytes(self, files: ObjectFiles) -> None:
        found = (
            "\ue000",
            "\U0001f600",
            "a\ue000",
            "a\U0001f600",
            "a\U0001f600\ue000",
            "a\ue000\U0001f600",
            "ab",
            "\ufffd",
        )
        for name in (*found, "d/\U0001f600", "d/\ue000/\U0001f600", "d/\ue000/\ue000", "dd"):
            files.write(name, b"x")
        names = list(files.list())
        assert names == sorted(names, key=str.encode)
        assert set(found) < set(names)
        assert list(files.list("d")) == ["d/\ue000/\ue000", "d/\ue000/\U0001f600", "d/\U0001f600"]

    def test_a_list_and_stat_tell_the_same_version(self, files: ObjectFiles) -> None:
        files.write("file", b"content")
        assert dict(files.scan())["file"] == files.stat("file")

    def test_markers_of_directories_are_no_files(self, azure: AzureServer, root: str, files: ObjectFiles) -> None:
        for name in ("d/", "d/e/", "empty", "g", "g/", "g/h"):
            azure.put(_key(root, name))
        azure.put(_key(root, "d/f"), b"f")
        assert list(files.list()) == ["d/f", "empty", "g", "g/h"]
        assert list(files.list("d/e")) == []

    @pytest.mark.parametrize("key", ["d//x", "d/../x", "d/./x"])
    def test_a_key_that_names_no_file_is_told(
        self, azure: AzureServer, root: str, files: ObjectFiles, key: str
    ) -> None:
        azure.put(_key(root, key))
        azure.put(_key(root, "beside/it"))
        with pytest.raises(FileError, match="names no file"):
            list(files.list())
        assert list(files.list("beside")) == ["beside/it"]

    def test_a_list_goes_over_pages(self, files: ObjectFiles) -> None:
        names = [f"many/{number:05d}" for number in range(5_100)]  # a page has at most 5,000
        with ThreadPoolExecutor(16) as pool:
            assert len(list(pool.map(files.write, names, [b"x"] * len(names)))) == len(names)
        assert list(files.list("many")) == names
        assert list(islice(files.list(), 3)) == names[:3]


class TestParts:
    def test_few_bytes_are_one_request_and_many_are_blocks(
        self, azure: AzureServer, root: str, files: ObjectFiles
    ) -> None:
        files.write("small", (b"x" * 1000 for _ in range(3)))
        files.write("parts", (b"x" * 1_000_000 for _ in range(12)))
        files.write("whole", b"y" * (2 * PART + 1))
        assert [files.stat(name).size for name in ("small", "parts", "whole")] == [3000, 12_000_000, 2 * PART + 1]
        assert [azure.blocks(_key(root, name)).count("<Block>") for name in ("small", "parts", "whole")] == [0, 3, 3]
        assert files.read("parts") == b"x" * 12_000_000

    @pytest.mark.parametrize("error", [ValueError, FileNotFoundError, KeyboardInterrupt])
    def test_an_upload_whose_source_fails_leaves_nothing(self, files: ObjectFiles, error: type[BaseException]) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(3):
                yield b"x" * 4_000_000
            raise error("the source broke")

        with pytest.raises(error, match="the source broke") as raised:
            files.write("file", chunks())
        assert type(raised.value) is error
        assert list(files.list()) == []
        with pytest.raises(FileMissingError):
            files.read("file")

    def test_a_large_file_arrives_whole(self, files: ObjectFiles, tmp_path: Path) -> None:
        content = bytes(range(251)) * 60_000
        files.write("large", content)
        download(files, "large", tmp_path / "large")
        assert (tmp_path / "large").read_bytes() == content
        size = len(content)
        for start, length in (
            (0, PART),
            (1, PART),
            (PART, PART + 1),
            (3, None),
            (size - 1, 9),
            (size, 9),
            (size + 1, 9),
        ):
            end = None if length is None else start + length
            assert b"".join(files.stream("large", start, length)) == content[start:end]

    @pytest.mark.parametrize("change", ["write", "delete"])
    def test_a_file_that_changes_while_it_is_streamed_is_told(self, files: ObjectFiles, change: str) -> None:
        files.write("file", b"a" * (PART + 1))
        chunks = files.stream("file")
        next(chunks)
        if change == "write":
            files.write("file", b"b" * (PART + 1))
        else:
            files.delete("file")
        with pytest.raises(FileError, match="changed meanwhile") as raised:
            list(chunks)
        assert not isinstance(raised.value, FileMissingError)


class TestVerbs:
    def test_a_file_is_created_once(self, files: ObjectFiles) -> None:
        assert files.create("file", b"first")
        assert not files.create("file", b"second")
        assert files.read("file") == b"first"

    def test_a_copy_is_made_in_the_store(self, files: ObjectFiles) -> None:
        files.write("a ü%20#", b"content" * 1_000_000)
        files.copy("a ü%20#", "b/ü+?&")
        files.copy("b/ü+?&", "b/ü+?&")
        assert files.read("b/ü+?&") == b"content" * 1_000_000
        with pytest.raises(FileMissingError):
            files.copy("none", "c")

    def test_what_is_deleted_is_gone(self, files: ObjectFiles) -> None:
        files.write("file", b"content")
        files.delete("file")
        verbs: tuple[Callable[[], object], ...] = (
            lambda: files.delete("file"),
            lambda: files.read("file"),
            lambda: files.read("file", 1, 2),
            lambda: files.stat("file"),
            lambda: list(files.stream("file")),
        )
        for verb in verbs:
            with pytest.raises(FileMissingError):
                verb()

    def test_it_is_pickled_without_credentials(self, files: ObjectFiles) -> None:
        files.write("file", b"content")
        pickled = pickle.dumps(files)
        assert KEY.encode() not in pickled
        assert pickle.loads(pickled).read("file") == b"content"


class TestSigning:
    def test_a_url_ends(self, files: ObjectFiles) -> None:
        files.write("file", b"content")
        url = files.sign("file", expires=60)
        for wrong in (url.replace("sp=r", "sp=cw"), url.replace("sig=", "sig=x"), url.replace("/file?", "/other?")):
            with pytest.raises(HTTPError, match="403"):
                urlopen(wrong, timeout=60)
        with pytest.raises(HTTPError, match="403"):
            _upload(url, b"other")

    def test_a_token_signs_nothing(self, azure: AzureServer, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_TOKEN", azure.token())
        with pytest.raises(FileError, match="cannot sign"):
            ObjectFiles(root, endpoint=azure.endpoint, token_variable="MY_TOKEN").sign("file")


def _texts(error: BaseException) -> str:
    found: list[str] = []
    at: BaseException | None = error
    while at is not None:
        found += [str(at), repr(at)]
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(found)


def _verbs(files: ObjectFiles) -> tuple[Callable[[], object], ...]:
    return (
        lambda: files.read("x"),
        lambda: files.read("x", 1, 2),
        lambda: files.write("x", b""),
        lambda: files.write("x", iter([b"x" * 9_000_000])),
        lambda: files.stat("x"),
        lambda: files.delete("x"),
        lambda: files.copy("x", "y"),
        lambda: files.create("x", b""),
        lambda: list(files.list()),
        lambda: list(files.stream("x")),
    )


class TestMistakes:
    def test_a_missing_container_is_no_missing_file(self, azure: AzureServer) -> None:
        for verb in _verbs(ObjectFiles("az://no-such-container/d", endpoint=azure.endpoint)):
            with pytest.raises(FileError, match="no such bucket") as raised:
                verb()
            assert not isinstance(raised.value, FileMissingError)
            assert "az://no-such-container/d" in str(raised.value)
            assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("name", ["AZURE_STORAGE_ACCOUNT_KEY", "MY_KEY"])
    def test_a_wrong_key_is_refused_and_never_shown(
        self, azure: AzureServer, root: str, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        wrong = KEY[::-1].replace("=", "A")
        monkeypatch.setenv(name, wrong)
        option = {"secret_key_variable": name} if name == "MY_KEY" else {}
        for verb in _verbs(ObjectFiles(root, endpoint=azure.endpoint, **option)):  # type: ignore[arg-type]  # of a test
            with pytest.raises(FileError, match=r"denied|accept") as raised:
                verb()
            assert not isinstance(raised.value, FileMissingError)
            assert raised.value.mend
            assert wrong not in _texts(raised.value)

    def test_a_key_that_is_none_is_told(self, azure: AzureServer, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a key that is none")
        with pytest.raises(FileError, match="not base64") as raised:
            ObjectFiles(root, endpoint=azure.endpoint).read("x")
        assert "a key that is none" not in _texts(raised.value)

    @pytest.mark.parametrize("form", ["expired", "changed", "garbage"])
    def test_a_wrong_token_is_refused_and_never_shown(
        self, azure: AzureServer, root: str, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        token = {
            "expired": azure.token(lasting=timedelta(hours=-1)),
            "changed": azure.token(permissions="r").replace("sp=r", "sp=racwdl"),
            "garbage": "a-token-that-is-none",
        }[form]
        monkeypatch.setenv("MY_TOKEN", token)
        for verb in _verbs(ObjectFiles(root, endpoint=azure.endpoint, token_variable="MY_TOKEN", retries=1)):
            with pytest.raises(FileError) as raised:
                verb()
            assert not isinstance(raised.value, FileMissingError)
            assert token not in _texts(raised.value)
            assert token.rpartition("sig=")[2] not in _texts(raised.value)

    def test_what_a_token_does_not_allow_is_denied(
        self, azure: AzureServer, root: str, files: ObjectFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files.write("file", b"content")
        monkeypatch.setenv("MY_TOKEN", azure.token(permissions="r"))
        reader = ObjectFiles(root, endpoint=azure.endpoint, token_variable="MY_TOKEN")
        assert reader.read("file") == b"content"
        with pytest.raises(FileMissingError):
            reader.stat("none")
        refused: tuple[Callable[[], object], ...] = (
            lambda: reader.write("file", b"other"),
            lambda: reader.create("new", b"new"),
            lambda: list(reader.list()),
        )
        for verb in refused:
            with pytest.raises(FileError, match="denied"):
                verb()
        with pytest.raises(FileError):  # Azurite does not say why
            reader.delete("file")
        assert files.read("file") == b"content"

    def test_without_credentials_nothing_is_read(self, azure: AzureServer, root: str, files: ObjectFiles) -> None:
        files.write("file", b"content")
        with pytest.raises(FileError, match="denied"):
            ObjectFiles(root, endpoint=azure.endpoint, anonymous=True).read("file")

    def test_an_unknown_account_is_no_missing_file(self, azure: AzureServer, root: str) -> None:
        endpoint = azure.endpoint.replace(ACCOUNT, "nobody")
        for verb in _verbs(ObjectFiles(root, endpoint=endpoint, account="nobody")):
            with pytest.raises(FileError, match="no such bucket that these credentials may see") as raised:
                verb()
            assert not isinstance(raised.value, FileMissingError)
            assert KEY not in _texts(raised.value)


class TestCredentials:
    @pytest.fixture(autouse=True)
    def _none(self, azure: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in azure.environment:
            monkeypatch.delenv(name)

    def test_a_named_token_is_used_whatever_the_environment_has(
        self, azure: AzureServer, root: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
        monkeypatch.setenv("MY_TOKEN", f"?{azure.token()}")  # as the portal shows it
        monkeypatch.setenv("MY_KEY", KEY)
        named = {"token_variable": "MY_TOKEN"}, {"secret_key_variable": "MY_KEY"}
        for number, option in enumerate(named):
            files = ObjectFiles(root, endpoint=azure.endpoint, account=ACCOUNT, **option)  # type: ignore[arg-type]
            files.write(f"{number}", b"content")
            assert files.read(f"{number}") == b"content"

    @pytest.mark.parametrize(
        "names",
        [
            ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"),
            ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCESS_KEY"),
            ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY"),  # of Azure's command line
        ],
    )
    def test_the_environment_names_account_and_key(
        self, azure: AzureServer, root: str, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
    ) -> None:
        for name, value in zip(names, (ACCOUNT, KEY), strict=True):
            monkeypatch.setenv(name, value)
        files = ObjectFiles(root, endpoint=azure.endpoint)
        files.write("a b", b"content")
        with urlopen(files.sign("a b"), timeout=60) as answer:
            assert answer.read() == b"content"

    @pytest.mark.parametrize("name", ["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"])
    def test_the_environment_has_a_token(
        self, azure: AzureServer, root: str, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, azure.token())
        files = ObjectFiles(root, endpoint=azure.endpoint, account=ACCOUNT)
        files.write("file", b"content")
        assert files.read("file") == b"content"

    @pytest.mark.parametrize("form", ["key", "token"])
    def test_a_connection_string_says_all(
        self, azure: AzureServer, root: str, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        secret = f"AccountKey={KEY}" if form == "key" else f"SharedAccessSignature={azure.token()}"
        text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};{secret};BlobEndpoint={azure.endpoint}/;"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
        files = ObjectFiles(root)
        files.write("file", b"content")
        assert files.read("file") == b"content"

    def test_a_connection_string_of_another_account_counts_for_nothing(
        self, azure: AzureServer, root: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = "AccountName=another;AccountKey=d3Jvbmc=;BlobEndpoint=https://another.invalid"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
        files = ObjectFiles(root, endpoint=azure.endpoint, account=ACCOUNT)
        files.write("file", b"content")
        assert files.read("file") == b"content"
