"""Files by HTTP obey the laws of read-only file backends, against a real nginx."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.files.nginx import Nginx, nginx_serving
from treenail.adapters.files.http import HttpFiles
from treenail.contracts.laws.files_read_only import ReadOnlyFileLaws
from treenail.kernel import FileBackend


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx_serving(folder, tmp_path_factory.mktemp("nginx")) as started:
        yield started


class TestHttpFiles(ReadOnlyFileLaws):
    lists = False

    @pytest.fixture(autouse=True)
    def _served(self, folder: Path, server: Nginx) -> None:
        self.folder, self.url = folder, server.url

    def make(self, files: Mapping[str, bytes]) -> FileBackend:
        root = Path(mkdtemp(dir=self.folder))
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        return HttpFiles(f"{self.url}/{root.name}")
