"""File backends whose process is killed keep whole files; each law of this fails on a backend that breaks it."""

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import pytest

from treenail.adapters.files import LocalFiles
from treenail.adapters.files.sync import RECORD
from treenail.contracts.laws.files_crash import FileCrashLaws
from treenail.kernel import FileBackend

from . import file_crash_mutants as mutants
from .mutation import Law, assert_all_proved, laws_of


class TestLocalFilesThatAreKilled(FileCrashLaws):
    @pytest.fixture(autouse=True)
    def _own_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make_in(self) -> tuple[Callable[..., FileBackend], tuple[object, ...]]:
        return LocalFiles, (mkdtemp(dir=self.directory),)

    def copy_tree(self) -> Callable[[FileBackend, str, str], object]:
        return mutants.copy_over


class TestSyncThatIsKilled(TestLocalFilesThatAreKilled):
    def copy_tree(self) -> Callable[[FileBackend, str, str], object]:
        return mutants.synchronise

    def is_own(self, path: str) -> bool:
        return RECORD in path

    test_a_killed_write_leaves_whole_files = None  # type: ignore[assignment]  # the same as above
    test_a_killed_copy_leaves_whole_files = None  # type: ignore[assignment]


MUTANTS: list[tuple[Callable[[str], FileBackend], Law]] = [
    (mutants.WritesInPlace, FileCrashLaws.test_a_killed_write_leaves_whole_files),
    (mutants.ListsWhatIsUnfinished, FileCrashLaws.test_a_killed_write_leaves_whole_files),
    (mutants.DeletesFirst, FileCrashLaws.test_a_killed_write_leaves_whole_files),
    (mutants.WritesLater, FileCrashLaws.test_a_killed_write_leaves_whole_files),
    (mutants.CopiesInPlace, FileCrashLaws.test_a_killed_copy_leaves_whole_files),
    (mutants.CopiesLater, FileCrashLaws.test_a_killed_copy_leaves_whole_files),
]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(
    mutant: Callable[[str], FileBackend], law: Law, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Suite(FileCrashLaws):
        def make_in(self) -> tuple[Callable[..., FileBackend], tuple[object, ...]]:
            return mutant, (mkdtemp(dir=tmp_path),)

    monkeypatch.setenv("TREENAIL_KILL_EXAMPLES", "40")  # at the first that tells
    with pytest.raises(AssertionError, match=r"kill|took"):
        getattr(Suite(), law.__name__)()


@pytest.mark.parametrize("copy_tree", [mutants.copy_in_place, mutants.copy_later])
def test_the_law_of_trees_kills_the_mutant(
    copy_tree: Callable[[FileBackend, str, str], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Suite(FileCrashLaws):
        def make_in(self) -> tuple[Callable[..., FileBackend], tuple[object, ...]]:
            return LocalFiles, (mkdtemp(dir=tmp_path),)

        def copy_tree(self) -> Callable[[FileBackend, str, str], object]:
            return copy_tree

    monkeypatch.setenv("TREENAIL_KILL_EXAMPLES", "40")
    with pytest.raises(AssertionError, match=r"kill|copy of a tree was done"):
        Suite().test_a_killed_copy_of_a_tree_leaves_whole_files()


def test_every_law_has_a_mutant() -> None:
    proved = [law for _, law in MUTANTS]
    assert_all_proved(FileCrashLaws, [*proved, FileCrashLaws.test_a_killed_copy_of_a_tree_leaves_whole_files])
    assert len(laws_of(FileCrashLaws)) == 3
