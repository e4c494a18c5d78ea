"""The file backends of Treenail obey the laws of file backends."""

from pathlib import Path
from tempfile import mkdtemp

import pytest

from treenail.adapters.files import LocalFiles
from treenail.contracts.laws import FileBackendLaws
from treenail.kernel import FileBackend


class TestLocalFiles(FileBackendLaws):
    @pytest.fixture(autouse=True)
    def _own_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self) -> FileBackend:
        return LocalFiles(mkdtemp(dir=self.directory))
