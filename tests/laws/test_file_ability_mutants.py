"""The backends that break each law of abilities, versions and threads, which `test_file_mutants` runs; and laws that hold."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from treenail.contracts.laws import FileBackendLaws
from treenail.kernel import FileBackend

from . import file_ability_mutants as mutants
from .mutation import Law

LAWS = FileBackendLaws
MUTANTS: list[tuple[Callable[[str], FileBackend], Law]] = [
    (mutants.StreamsItsFirstChunk, LAWS.test_a_stream_gives_what_read_gives),
    (mutants.StreamsViews, LAWS.test_a_stream_gives_what_read_gives),
    (mutants.StreamsNothingOfWhatIsMissing, LAWS.test_a_stream_refuses_what_read_refuses),
    (mutants.StreamsNegativeRanges, LAWS.test_a_stream_refuses_what_read_refuses),
    (mutants.ScansUnsorted, LAWS.test_a_scan_is_a_list_with_stats),
    (mutants.ScansOtherVersions, LAWS.test_a_scan_is_a_list_with_stats),
    (mutants.SplitsAtTheLastSlash, LAWS.test_a_uri_is_split_into_root_and_path),
    (mutants.EntersDirectories, LAWS.test_entries_are_one_level),
    (mutants.OverlooksEmptyDirectories, LAWS.test_entries_are_one_level),
    (mutants.LinksCopies, LAWS.test_a_copy_is_a_file_of_its_own),
    (mutants.MovesCopies, LAWS.test_a_copy_is_a_file_of_its_own),
    (mutants.CopiesNothingAsEmpty, LAWS.test_a_copy_of_nothing_changes_nothing),
    (mutants.CreatesOver, LAWS.test_create_writes_only_what_is_new),
    (mutants.NeverSaysItCreated, LAWS.test_create_writes_only_what_is_new),
    (mutants.CreatesAPlaceFirst, LAWS.test_a_failed_create_makes_nothing),
    (mutants.LooksThenWrites, LAWS.test_one_of_many_creators_succeeds),
    (mutants.GivesRelativePaths, LAWS.test_local_paths_hold_the_files),
    (mutants.MakesWhatItIsAskedFor, LAWS.test_local_paths_hold_the_files),
    (mutants.TakesFilesForDirectories, LAWS.test_directories_can_be_empty),
    (mutants.MarksDirectoriesByFiles, LAWS.test_directories_can_be_empty),
    (mutants.DeletesByBeginning, LAWS.test_a_deleted_directory_goes_with_all_below),
    (mutants.DeletesMissingDirectories, LAWS.test_a_deleted_directory_goes_with_all_below),
    (mutants.ReadsManyInAnyOrder, LAWS.test_reading_many_keeps_order_and_errors_apart),
    (mutants.LosesTheRestOfMany, LAWS.test_reading_many_keeps_order_and_errors_apart),
    (mutants.VersionsByMinute, LAWS.test_versions_tell_contents_apart),
    (mutants.VersionsAnew, LAWS.test_versions_tell_contents_apart),
    (mutants.SharesATemporaryFile, LAWS.test_the_last_of_many_writers_wins_whole),
    (mutants.TrustsTheDirectory, LAWS.test_neighbours_do_not_disturb_each_other),
    (mutants.LimitsNames, LAWS.test_names_may_be_long),
    (mutants.CopiesNothingAsEmpty, LAWS.test_it_behaves_as_a_dict),
]


class _Suite(FileBackendLaws):
    def __init__(self, backend: FileBackend) -> None:
        self.backend = backend

    def make(self) -> FileBackend:
        return self.backend


@pytest.fixture(params=[True, False])
def signing(request: pytest.FixtureRequest) -> Iterator[mutants.SignedMemoryFiles]:
    files = mutants.SignedMemoryFiles(keeps=request.param)
    yield files
    files.close()


def test_the_law_of_signed_urls_tells_right_from_wrong(signing: mutants.SignedMemoryFiles) -> None:
    if signing.keeps:
        _Suite(signing).test_signed_urls_work_without_credentials()
    else:
        with pytest.raises(AssertionError, match="did not arrive"):
            _Suite(signing).test_signed_urls_work_without_credentials()


def test_the_law_of_reading_many_holds_where_it_should(tmp_path: Path) -> None:
    _Suite(mutants.ReadsManyTimes(tmp_path)).test_reading_many_keeps_order_and_errors_apart()
