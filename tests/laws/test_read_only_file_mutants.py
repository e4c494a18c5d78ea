"""Each law of read-only file backends fails on a backend that breaks it, and holds for one that does not."""

from collections.abc import Callable, Mapping

import pytest

from treenail.contracts.laws.files_read_only import ReadOnlyFileLaws
from treenail.kernel import FileBackend

from . import read_only_file_mutants as mutants
from .mutation import Law, assert_all_proved, assert_kills

MUTANTS: list[tuple[Callable[[Mapping[str, bytes]], FileBackend], Law]] = [
    (mutants.SaysItIsWritable, ReadOnlyFileLaws.test_a_read_only_backend_says_so),
    (mutants.KeepsTheLastSlash, ReadOnlyFileLaws.test_a_uri_is_split_into_root_and_path),
    (mutants.TranslatesNewlines, ReadOnlyFileLaws.test_reading_gives_the_content),
    (mutants.GivesViews, ReadOnlyFileLaws.test_reading_gives_the_content),
    (mutants.TakesTheLastByteForTheEnd, ReadOnlyFileLaws.test_ranges_are_slices),
    (mutants.IgnoresTheStart, ReadOnlyFileLaws.test_ranges_are_slices),
    (mutants.RefusesRangesOfNothing, ReadOnlyFileLaws.test_ranges_of_an_empty_file_are_empty),
    (mutants.ReadsBackwards, ReadOnlyFileLaws.test_negative_ranges_are_refused),
    (mutants.StreamsOneChunk, ReadOnlyFileLaws.test_streams_are_what_reads_give),
    (mutants.StreamsNothingOfMissingFiles, ReadOnlyFileLaws.test_streams_are_what_reads_give),
    (mutants.CountsCharacters, ReadOnlyFileLaws.test_stat_gives_size_and_time),
    (mutants.MakesVersionsUp, ReadOnlyFileLaws.test_stat_gives_size_and_time),
    (mutants.TakesDirectoriesForEmptyFiles, ReadOnlyFileLaws.test_missing_files_are_named_so),
    (mutants.FindsNothingInMissingFiles, ReadOnlyFileLaws.test_missing_files_are_named_so),
    (mutants.TakesBadPathsForMissing, ReadOnlyFileLaws.test_bad_paths_are_refused),
    (mutants.ListsBadPaths, ReadOnlyFileLaws.test_bad_paths_are_refused),
    (mutants.DecodesPercents, ReadOnlyFileLaws.test_names_are_taken_literally),
    (mutants.CutsAtTheQuery, ReadOnlyFileLaws.test_names_are_taken_literally),
    (mutants.WritesAfterAll, ReadOnlyFileLaws.test_nothing_can_be_written),
    (mutants.SwallowsWrites, ReadOnlyFileLaws.test_nothing_can_be_written),
    (mutants.MissesWhatItCannotDelete, ReadOnlyFileLaws.test_nothing_can_be_written),
    (mutants.ListsTheFirstLevel, ReadOnlyFileLaws.test_lists_are_complete_and_sorted),
    (mutants.ListsInTheOrderOfWords, ReadOnlyFileLaws.test_lists_are_complete_and_sorted),
    (mutants.ScansSizesAlone, ReadOnlyFileLaws.test_a_scan_is_a_list_with_stats),
    (mutants.ScansByBeginning, ReadOnlyFileLaws.test_a_scan_is_a_list_with_stats),
    (mutants.SharesOneConnection, ReadOnlyFileLaws.test_threads_read_at_once),
]


class TestFrozen(ReadOnlyFileLaws):
    def make(self, files: Mapping[str, bytes]) -> FileBackend:
        return mutants.Frozen(files)


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(
    mutant: Callable[[Mapping[str, bytes]], FileBackend], law: Law, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Suite(ReadOnlyFileLaws):
        def make(self, files: Mapping[str, bytes]) -> FileBackend:
            return mutant(files)

    assert_kills(Suite(), law, monkeypatch)


def test_a_store_without_listings_must_not_pretend_to_have_some(monkeypatch: pytest.MonkeyPatch) -> None:
    class Suite(ReadOnlyFileLaws):
        lists = False

        def make(self, files: Mapping[str, bytes]) -> FileBackend:
            return mutants.Frozen(files)

    assert_kills(Suite(), ReadOnlyFileLaws.test_lists_are_complete_and_sorted, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(ReadOnlyFileLaws, [law for _, law in MUTANTS])
