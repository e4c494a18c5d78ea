"""The file backends of Treenail obey the laws of file backends."""

from pathlib import Path
from tempfile import mkdtemp

import pytest

from treenail.adapters.files import FilesBelow, LocalFiles, MemoryFiles
from treenail.contracts.laws import FileBackendLaws
from treenail.kernel import FileBackend


class TestLocalFiles(FileBackendLaws):
    @pytest.fixture(autouse=True)
    def _own_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self) -> FileBackend:
        return LocalFiles(mkdtemp(dir=self.directory))


class TestLocalFilesThatKeepDirectories(TestLocalFiles):
    def make(self) -> FileBackend:
        return LocalFiles(mkdtemp(dir=self.directory), prune=False)


class TestLocalFilesBehindALink(TestLocalFiles):
    """Where the way to the root is a symbolic link, every file's place is compared with the root's."""

    def make(self) -> FileBackend:
        link = Path(mkdtemp(dir=self.directory)) / "link"
        link.symlink_to(mkdtemp(dir=self.directory))
        return LocalFiles(link)


class TestMemoryFiles(FileBackendLaws):
    def make(self) -> FileBackend:
        return MemoryFiles()


class TestFilesBelowADirectory(FileBackendLaws):
    """Of a store that holds other files, too, some of which begin with the directory's name."""

    def make(self) -> FileBackend:
        return self.below(MemoryFiles())

    def below(self, store: FileBackend) -> FileBackend:
        for neighbour in ("other", "d/ee", "d/e.x", "d/other/x", "dd/e/x"):
            store.write(neighbour, b"not below")
        return FilesBelow(store, "d/e")


class TestFilesBelowADirectoryOfADisk(TestFilesBelowADirectory):
    @pytest.fixture(autouse=True)
    def _own_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self) -> FileBackend:
        return self.below(LocalFiles(mkdtemp(dir=self.directory)))
