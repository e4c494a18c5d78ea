"""Each law of file backends fails on a backend that breaks it."""

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import pytest

from treenail.contracts.laws import FileBackendLaws
from treenail.kernel import FileBackend

from . import file_mutants as mutants
from .mutation import Law, assert_all_proved, assert_kills
from .test_file_ability_mutants import MUTANTS as ABILITY_MUTANTS

MUTANTS: list[tuple[Callable[[str], FileBackend], Law]] = [
    (mutants.ListsADirectoryOfItsOwn, FileBackendLaws.test_a_new_backend_says_what_it_is),
    (mutants.HasNoUri, FileBackendLaws.test_a_new_backend_says_what_it_is),
    (mutants.DeclaresNoCreation, FileBackendLaws.test_a_new_backend_says_what_it_is),
    (mutants.SaysItIsReadOnly, FileBackendLaws.test_a_new_backend_says_what_it_is),
    (mutants.ReadsText, FileBackendLaws.test_read_gives_what_was_written),
    (mutants.ReturnsByteArrays, FileBackendLaws.test_read_gives_what_was_written),
    (mutants.SkipsEmptyWrites, FileBackendLaws.test_a_file_can_be_empty),
    (mutants.ReadsOneMegabyte, FileBackendLaws.test_a_file_can_be_large),
    (mutants.TakesTheLengthForTheEnd, FileBackendLaws.test_ranges_are_slices),
    (mutants.TakesNoLengthForAll, FileBackendLaws.test_ranges_are_slices),
    (mutants.RefusesToReadBeyondTheEnd, FileBackendLaws.test_reading_beyond_the_end_gives_what_is_there),
    (mutants.SlicesLikePython, FileBackendLaws.test_negative_ranges_are_refused),
    (mutants.KeepsALongerTail, FileBackendLaws.test_write_replaces_the_whole_file),
    (mutants.CountsTheChunksFirst, FileBackendLaws.test_chunks_are_joined),
    (mutants.WritesInPlace, FileBackendLaws.test_a_failed_write_keeps_the_old_content),
    (mutants.DeletesBeforeItWrites, FileBackendLaws.test_a_failed_write_keeps_the_old_content),
    (mutants.SwallowsFailures, FileBackendLaws.test_a_failed_write_keeps_the_old_content),
    (mutants.WritesWhatItGot, FileBackendLaws.test_a_failed_write_makes_no_file),
    (mutants.ShowsItsTemporaryFile, FileBackendLaws.test_an_unfinished_write_is_invisible),
    (mutants.WritesInPlace, FileBackendLaws.test_readers_see_the_old_or_the_new_content),
    (mutants.DeletesBeforeItWrites, FileBackendLaws.test_readers_see_the_old_or_the_new_content),
    (mutants.CountsBlocks, FileBackendLaws.test_stat_gives_size_and_time),
    (mutants.CountsMilliseconds, FileBackendLaws.test_stat_gives_size_and_time),
    (mutants.ReadsMissingFilesAsEmpty, FileBackendLaws.test_missing_files_are_named_so),
    (mutants.DeletesWhatIsMissing, FileBackendLaws.test_missing_files_are_named_so),
    (mutants.TakesDirectoriesForFiles, FileBackendLaws.test_missing_files_are_named_so),
    (mutants.SortsByParts, FileBackendLaws.test_list_is_complete_and_sorted_by_bytes),
    (mutants.SortsByUtf16, FileBackendLaws.test_list_is_complete_and_sorted_by_bytes),
    (mutants.ListsOneLevel, FileBackendLaws.test_list_is_complete_and_sorted_by_bytes),
    (mutants.MatchesBeginnings, FileBackendLaws.test_a_prefix_is_a_directory),
    (mutants.ListsTheFileItself, FileBackendLaws.test_a_prefix_is_a_directory),
    (mutants.MissesMissingPrefixes, FileBackendLaws.test_a_prefix_without_files_lists_nothing),
    (mutants.DeletesTheDirectory, FileBackendLaws.test_delete_removes_one_file),
    (mutants.Normalises, FileBackendLaws.test_bad_paths_are_refused),
    (mutants.ClimbsOut, FileBackendLaws.test_bad_paths_are_refused),
    (mutants.EndsAtNul, FileBackendLaws.test_bad_paths_are_refused),
    (mutants.TakesBadPathsForMissing, FileBackendLaws.test_bad_paths_are_refused),
    (mutants.ListsAnything, FileBackendLaws.test_bad_paths_are_refused),
    (mutants.DecodesPercents, FileBackendLaws.test_names_are_taken_literally),
    (mutants.TakesPlusForSpace, FileBackendLaws.test_names_are_taken_literally),
    (mutants.NormalisesUnicode, FileBackendLaws.test_names_are_taken_literally),
    (mutants.HidesDotFiles, FileBackendLaws.test_names_are_taken_literally),
    (mutants.PutsDirectoriesInPlaceOfFiles, FileBackendLaws.test_a_file_and_a_directory_of_one_name),
    (mutants.KeepsAListing, FileBackendLaws.test_it_behaves_as_a_dict),
]


@pytest.mark.parametrize(("mutant", "law"), [*MUTANTS, *ABILITY_MUTANTS])
def test_the_law_kills_the_mutant(
    mutant: Callable[[str], FileBackend], law: Law, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Suite(FileBackendLaws):
        def make(self) -> FileBackend:
            return mutant(mkdtemp(dir=tmp_path))

    assert_kills(Suite(), law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    signing = FileBackendLaws.test_signed_urls_work_without_credentials  # its mutant serves what it signs
    assert_all_proved(FileBackendLaws, [signing, *(law for _, law in [*MUTANTS, *ABILITY_MUTANTS])])
