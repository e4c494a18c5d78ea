"""The reference says what the code says: commands, hook points, config fields, ports, errors, extras."""

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typing_extensions import get_protocol_members, is_protocol

import treenail.contracts.laws
import treenail.kernel
from tests.docs.snippets import ROOT, blocks, commands
from treenail.adapters.cli.parser import parser
from treenail.adapters.config import PORTS
from treenail.contracts import Checkpoints, CustomImports, Data, Distributed, Evaluation, Manifest, Run, Schedule
from treenail.kernel import HOOK_POINTS, Hook, TreenailError

REFERENCE = ROOT / "docs" / "pages" / "reference"


def rows(page: Path, heading: str | None = None) -> list[list[str]]:
    """Return the cells of the first table of a page, or of the section under a heading."""
    text = page.read_text(encoding="utf-8")
    if heading is not None:
        text = text.partition(f"\n## {heading}\n")[2]
        assert text, f"{page.name} has no section '{heading}'"
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| ---"))
    table = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return table


def words(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def test_every_command_shows_its_help() -> None:
    shown = [each.text for block in blocks(REFERENCE / "commands.md") for each in commands(block)]
    assert shown == ["treenail --help", *(f"treenail {name} --help" for name in listed(parser()))]


def listed(whole: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the commands that a parser's help lists, their subcommands after them."""
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield choice.dest
                yield from (f"{choice.dest} {inner}" for inner in listed(action.choices[choice.dest]))


def test_the_hook_points_stand_in_their_order_with_their_signatures() -> None:
    expected = []
    for number, point in enumerate(HOOK_POINTS, start=1):
        parameters = list(inspect.signature(getattr(Hook, point)).parameters)[1:]
        expected.append((str(number), f"{point}({', '.join(parameters)})"))
    found = [(cells[0], words(cells[1])[0]) for cells in rows(REFERENCE / "hook-points.md")]
    assert found == expected


@pytest.mark.parametrize("struct", [Run, CustomImports, Data, Distributed, Evaluation, Schedule, Checkpoints])
def test_the_fields_of_a_config_stand_in_their_order_with_their_defaults(struct: type[msgspec.Struct]) -> None:
    expected = []
    for field in msgspec.structs.fields(struct):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if field.required:
            text = "required"
        elif isinstance(default, msgspec.Struct):
            text = "their defaults"
        elif default is None or default in ((), {}):
            text = "none"
        else:
            text = str(default).lower()
        expected.append((field.name, text))
    found = [(words(cells[0])[0], cells[-1]) for cells in rows(REFERENCE / "config.md", struct.__name__)]
    assert found == expected


def test_the_ports_stand_with_their_members_and_laws() -> None:
    found = {words(cells[0])[0]: (set(words(cells[1])), words(cells[2])) for cells in rows(REFERENCE / "ports.md")}
    ports = vars(treenail.kernel.ports)
    expected = {
        name: set(get_protocol_members(port))
        for name, port in ports.items()
        if isinstance(port, type) and is_protocol(port) and port.__module__ == "treenail.kernel.ports"
    }
    assert {name: members for name, (members, _) in found.items()} == expected
    suites = {suite for _, laws in found.values() for suite in laws} | {"HookDispatchLaws"}
    assert suites <= set(treenail.contracts.laws.__all__)


def test_the_ports_of_a_config_are_all_there() -> None:
    found = [words(cells[0])[0] for cells in rows(REFERENCE / "ports.md", "In a config")]
    assert found == list(PORTS)
    published = (ROOT / "docs" / "pages" / "how-to" / "publish.md").read_text(encoding="utf-8")
    sentence = published.partition("The ports that a config knows are")[2].partition(".")[0]
    assert words(sentence) == list(PORTS)


def test_every_error_is_explained() -> None:
    def below(error: type[TreenailError]) -> list[type[TreenailError]]:
        return [each for child in error.__subclasses__() for each in (child, *below(child))]

    ours = [each.__name__ for each in below(TreenailError) if each.__module__.startswith("treenail.kernel")]
    assert sorted(words(cells[0])[0] for cells in rows(REFERENCE / "errors.md")) == sorted(ours)


def test_the_manifest_is_explained_field_by_field() -> None:
    found = [words(cells[0])[0] for cells in rows(REFERENCE / "checkpoint-format.md", "manifest.json")]
    assert found == [field.name for field in msgspec.structs.fields(Manifest)]


def test_the_readme_lists_the_ports() -> None:
    found = {words(cells[0])[0] for cells in rows(ROOT / "README.md", "The ports")}
    assert found == {words(cells[0])[0] for cells in rows(REFERENCE / "ports.md")} | {"Hook"}
