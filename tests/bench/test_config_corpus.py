"""The corpus of the benchmark `config` is what it says: single edits of right configs, each with its place."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from scripts.benchmarks._config_corpus import CONFIGS, FOLDER, PLACE, Case, mistakes, variations
from scripts.benchmarks._config_speed import large_config

from treenail.adapters.config import Catalog, InvalidConfigError, Mistake, load_run

MISTAKES, VARIATIONS = mistakes(), variations()
EVERY = [*MISTAKES, *VARIATIONS]
BASES = {name: path.read_text(encoding="utf-8") for name, path in CONFIGS.items()}


def read(text: str) -> str:
    """Return what a text says, as JSON: there 1 is not true."""
    return json.dumps(YAML(typ="safe", pure=True).load(text), sort_keys=True, default=str)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


def load(case: Case, folder: Path, catalog: Catalog) -> None:
    shutil.copy(FOLDER / "tides.py", folder)
    path = folder / f"{case.base}.yaml"
    path.write_text(case.text, encoding="utf-8")
    load_run(path, [case.override] if case.override is not None else [], catalog)


def test_there_are_enough_cases_of_every_config() -> None:
    assert len(MISTAKES) >= 200
    assert len(VARIATIONS) >= 50
    assert len({case.category for case in MISTAKES}) >= 30
    assert set(Counter(case.base for case in MISTAKES)) == set(BASES)


def test_no_case_is_there_twice() -> None:
    assert len({case.id for case in EVERY}) == len(EVERY)
    assert len({(case.base, case.text, case.override) for case in EVERY}) == len(EVERY)


def test_every_case_is_one_edit_or_one_override() -> None:
    for case in EVERY:
        base = BASES[case.base]
        assert PLACE not in case.text, case.id
        if case.override is not None or case.category == "unchanged":
            assert case.text == base, case.id
            continue
        removed, added = difference(base, case.text)
        assert removed or added, case.id
        assert max(removed.count("\n"), added.count("\n")) <= 8, case.id  # not two edits with right text between them


def difference(one: str, other: str) -> tuple[str, str]:
    """Return what is left of two texts without the beginning and the end that they share."""
    shorter = min(len(one), len(other))
    before = next((index for index in range(shorter) if one[index] != other[index]), shorter)
    rest = range(1, shorter - before + 1)
    after = next((index - 1 for index in rest if one[-index] != other[-index]), shorter - before)
    return one[before : len(one) - after], other[before : len(other) - after]


def test_every_mistake_changes_what_the_config_says_at_a_place_that_exists() -> None:
    right = {name: read(text) for name, text in BASES.items()}
    for case in MISTAKES:
        if case.override is not None:
            continue
        lines = case.text.split("\n")
        assert case.lines, case.id
        assert all(1 <= line <= len(lines) for line in case.lines), case.id
        assert all(1 <= column <= len(lines[line - 1]) for line, column in case.places), case.id
        try:
            said = read(case.text)
        except YAMLError:
            continue
        assert said != right[case.base], case.id


@pytest.mark.parametrize("case", VARIATIONS, ids=lambda case: case.id)
def test_a_variation_is_right(case: Case, tmp_path: Path, catalog: Catalog) -> None:
    read(case.text)
    load(case, tmp_path, catalog)


def test_the_large_config_has_200_components_and_is_right(tmp_path: Path, catalog: Catalog) -> None:
    text = large_config()
    assert text.count("type: ") == 200
    load(Case("large", "variation", "large", "digits", text), tmp_path, catalog)


def place_is_right(case: Case, mistake: Mistake, folder: Path) -> bool:
    if case.override is not None:
        return case.override in mistake.where
    source, line, column = mistake.where.rsplit(":", 2)
    if source != str(folder / f"{case.base}.yaml"):
        return False
    return (int(line), int(column)) in case.places if case.places else int(line) in case.lines


def test_all_but_undeclared_mistakes_are_caught_before_building_at_their_places(
    tmp_path: Path, catalog: Catalog
) -> None:
    """What is left over are values that no signature declares to be wrong."""
    missed = []
    for case in MISTAKES:
        folder = tmp_path / case.id.replace("/", "-")
        folder.mkdir()
        try:
            load(case, folder, catalog)
        except InvalidConfigError as error:
            if not any(place_is_right(case, mistake, folder) for mistake in error.mistakes):
                missed.append((case.id, str(error)))
        else:
            missed.append((case.id, "not refused"))
    assert {name.partition("/")[0] for name, _ in missed} == {"value-that-no-signature-declares-wrong"}, missed
    assert len(missed) / len(MISTAKES) <= 0.02
