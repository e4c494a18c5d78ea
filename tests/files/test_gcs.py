"""Files in Google Cloud Storage: the laws, and what a bucket, its credentials and its errors do."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.files.gcs_server import TOKEN, gcs_running
from tests.laws.fewer import look_at_fewer
from treenail.adapters.files.objects import ObjectFiles
from treenail.contracts.laws._file_model import NAMES
from treenail.contracts.laws.files import FileBackendLaws
from treenail.kernel import FileError, FileMissingError

PART = 5 * 1024**2


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with gcs_running(tmp_path_factory.mktemp("gcs")) as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", TOKEN)


@pytest.fixture
def files(gcs: str) -> ObjectFiles:
    return ObjectFiles(f"gs://tests/{uuid4().hex}", endpoint=gcs, part_size=PART)


class TestGcs(FileBackendLaws):
    @pytest.fixture(autouse=True)
    def _server(self, gcs: str) -> None:
        self.endpoint = gcs

    @pytest.fixture(autouse=True)
    def _fewer(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        look_at_fewer(
            request.function, 4, monkeypatch
        )  # the same class is put to all of them over S3, without the gateway

    def make(self) -> ObjectFiles:
        return ObjectFiles(f"gs://tests/{uuid4().hex}", endpoint=self.endpoint)

    def test_signed_urls_work_without_credentials(self) -> None:
        pytest.skip("signing needs a key of Google's; see TestSigning for what is signed")


class TestVerbs:
    def test_many_bytes_are_parts(self, files: ObjectFiles) -> None:
        files.write("parts", (b"x" * 1_000_000 for _ in range(12)))
        assert files.read("parts") == b"x" * 12_000_000
        assert b"".join(files.stream("parts", 3, PART + 7)) == b"x" * (PART + 7)

    def test_a_list_goes_over_pages(self, files: ObjectFiles) -> None:
        names = [f"many/{number:04d}" for number in range(1_010)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(files.write, names, [b"x"] * len(names)))
        assert list(files.list("many")) == names

    def test_a_missing_bucket_is_no_missing_file(self, gcs: str) -> None:
        store = ObjectFiles("gs://no-such-bucket/d", endpoint=gcs)
        for verb in (
            lambda: store.read("x"),
            lambda: store.write("x", b""),
            lambda: store.stat("x"),
            lambda: store.create("x", b""),
            lambda: list(store.list()),
        ):
            with pytest.raises(FileError, match="no such bucket") as raised:
                verb()
            assert not isinstance(raised.value, FileMissingError)

    def test_a_wrong_token_is_refused_and_never_shown(self, gcs: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_TOKEN", "another-token-of-the-loopback")
        store = ObjectFiles("gs://tests/d", endpoint=gcs, token_variable="MY_TOKEN")
        for verb in (lambda: store.read("x"), lambda: store.write("x", b""), lambda: list(store.list())):
            with pytest.raises(FileError, match="does not accept the credentials") as raised:
                verb()
            assert "another-token" not in f"{raised.value}{raised.value.__cause__!r}"


class TestSigning:
    @pytest.mark.parametrize("method", ["GET", "PUT"])
    def test_a_url_names_the_file_and_its_signature_fits(self, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        """Source: "V4 signing process", Cloud Storage."""
        key = rsa.generate_private_key(65537, 2048)
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        account = {"private_key": key.private_bytes(*form).decode(), "private_key_id": "1", "client_email": "me@x.iam"}
        monkeypatch.delenv("GOOGLE_BEARER_TOKEN")
        monkeypatch.setenv("MY_ACCOUNT", json.dumps({**account, "type": "service_account", "token_uri": "https://x"}))
        store = ObjectFiles("gs://tests/run", secret_key_variable="MY_ACCOUNT")
        for name in NAMES:
            url = urlsplit(store.sign(name, method="GET" if method == "GET" else "PUT", expires=60))
            assert unquote(url.path) == f"/tests/run/{name}"
            assert url.path == quote(unquote(url.path)), "Google signs names that are escaped so"
            query = dict(parse_qsl(url.query))
            signature = bytes.fromhex(query.pop("X-Goog-Signature"))
            asked = urlencode(sorted(query.items()), quote_via=quote, safe="")
            request = f"{method}\n{url.path}\n{asked}\nhost:{url.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
            scope = query["X-Goog-Credential"].partition("/")[2]
            digest = hashlib.sha256(request.encode()).hexdigest()
            text = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{digest}"
            key.public_key().verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())
            assert re.fullmatch(r"[0-9]{8}/auto/storage/goog4_request", scope)
