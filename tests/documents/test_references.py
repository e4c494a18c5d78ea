"""References in texts: the environment, the bases, the file itself; and what is none."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treenail.adapters.documents import InvalidConfigError, Map, Mark, Seq, dump_document, load_document, parse_yaml
from treenail.adapters.documents.references import References, Spent, escape
from treenail.kernel import ConfigError

BASE = """\
number: 3
text: words
flag: true
nothing: null
host: ${env:HOST:local}
port: ${env:PORT:0x10}
model: {type: mlp, widths: [1, {a: 2}]}
"""


def load(tmp_path: Path, text: str, environment: Mapping[str, str] | None = None, base: str = BASE) -> object:
    (tmp_path / "base.yaml").write_text(base, encoding="utf-8")
    path = tmp_path / "run.yaml"
    path.write_text(f"_base_: base.yaml\n{text}\n", encoding="utf-8")
    data = load_document(path, environment=environment or {}).data
    assert isinstance(data, Map)
    return data["it"]


def mistake(tmp_path: Path, text: str, base: str = BASE) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        load(tmp_path, text, base=base)
    (found,) = caught.value.mistakes
    assert found.where == f"{tmp_path}/run.yaml:2:5"
    assert found.path == "it"
    return found.message


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${env:WORKERS:4}", 4),
        ("${env:WORKERS:1e-3}", 1e-3),
        ("${env:WORKERS:true}", True),
        ("${env:WORKERS:null}", None),
        ("${env:WORKERS:}", ""),
        ("${env:WORKERS:s3://a:b/c}", "s3://a:b/c"),
        ("${env:WORKERS:'4'}", "4"),
        ('${env:WORKERS:"a\\tb"}', "a\tb"),
        ("${env:SET}", 7),
        ("${env:SET:8}", 7),
        ("${env:EMPTY}", ""),
        ("${env:EMPTY:8}", ""),
        ("${env:NESTED}", "${env:SET} ${base:text} {{fileBasename}} $${"),
        ("${env:LIST}", "[1, 2]"),
        ("a${env:SET}b${env:WORKERS:1.50}", "a7b1.50"),
        ("a${env:NESTED}", "a${env:SET} ${base:text} {{fileBasename}} $${"),
        ("$${env:SET}", "${env:SET}"),
        ("$$${env:SET}", "$${env:SET}"),
        ("$5 and {x} and $ {y}", "$5 and {x} and $ {y}"),
        ("{{ messages }} {% if x %} {{file}} {{ base }}", "{{ messages }} {% if x %} {{file}} {{ base }}"),
        ("{{ '{{' }}fileBasename}}", "{{fileBasename}}"),
        ("${base:number}", 3),
        ("${base:flag}", True),
        ("${base:nothing}", None),
        ("{{_base_.number}}", 3),
        ("{{ _base_.model.widths.1.a }}", 2),
        ("${base:model}", {"type": "mlp", "widths": [1, {"a": 2}]}),
        ("${base:model.widths}", [1, {"a": 2}]),
        ("${base:port}", 16),
        ("${base:number}/${base:text}/${base:flag}/${base:nothing}", "3/words/true/null"),
        ("${base:host}:${base:port}", "local:0x10"),
        ("${file:basename} ${file:stem} ${file:extension}", "run.yaml run .yaml"),
        ("{{fileBasename}} {{ fileBasenameNoExtension }} {{fileExtname}}", "run.yaml run .yaml"),
    ],
)
def test_what_a_reference_stands_for(tmp_path: Path, written: str, value: object) -> None:
    environment = {"SET": "7", "EMPTY": "", "LIST": "[1, 2]", "NESTED": "${env:SET} ${base:text} {{fileBasename}} $${"}
    found = load(tmp_path, f"it: '{written.replace(chr(39), 2 * chr(39))}'", environment)
    assert found == value
    assert type(found) is type(value) or isinstance(found, Map | Seq)


def test_the_directory_is_that_of_the_file_in_which_the_reference_stands(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/base.yaml").write_text("it: ${file:dirname}\nstem: ${file:stem}\n")
    (tmp_path / "run.yaml").write_text("_base_: sub/base.yaml\nmine: '{{fileDirname}}/x'\n")
    data = load_document(tmp_path / "run.yaml", environment={}).data
    assert data == {"it": str(tmp_path / "sub"), "stem": "base", "mine": f"{tmp_path}/x"}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${env:HOEM}", "HOEM is not set; set it, or give a default: ${env:HOEM:default}"),
        ("${env:}", "no name of a variable"),
        ("${env:A-B:1}", "'A-B' is no name of a variable"),
        ("${env:A:${env:B}}", "not closed"),
        ("${HOME}", "write ${env:HOME}"),
        ("${evn:HOME}", "did you mean 'env'?"),
        ("${oc.env:HOME}", "did you mean 'env'?"),
        ("${model:HOME}", "references begin with"),
        ("a ${ b", "not closed by a }; write $${"),
        ("${}", "references begin with"),
        ("${base:modle.type}", "there is no 'modle' in the bases; did you mean 'model'?"),
        ("${base:model.tpye}", "there is no 'tpye' in 'model' of the bases; did you mean 'type'?"),
        ("${base:model.widths.2}", "'model.widths' of the bases is a list of 2; '2' is not one of its numbers"),
        ("${base:number.x}", "neither a mapping nor a list"),
        ("${base:}", "there is no ''"),
        ("x ${base:model}", "is a mapping, which cannot stand inside a longer text"),
        ("x ${base:model.widths}", "is a list"),
        ("{{_base_.modle}}", "did you mean 'model'?"),
        ("{{ _base_ }}", "write ${base:a.b}"),
        ("{{fileBaseName}}", "did you mean 'fileBasename'?"),
        ("{{ $HOME:x }}", "write ${env:NAME}"),
        ("${file:size}", "known are dirname"),
        ("${file:bsename}", "did you mean 'basename'?"),
        ("${env:BIG:1e999}", "too large for a float"),
    ],
)
def test_what_is_no_reference_is_a_mistake_at_its_place(tmp_path: Path, written: str, message: str) -> None:
    assert message in mistake(tmp_path, f"it: '{written}'")


def test_a_near_name_in_the_environment_is_suggested(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: ${env:DATA_ROTO}\n")
    with pytest.raises(InvalidConfigError, match="did you mean 'DATA_ROOT'"):
        load_document(path, environment={"DATA_ROOT": "x"})


def test_a_base_reference_without_bases_and_all_mistakes_of_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: ${base:x}\nb: [1, '${nothing}']\n")
    with pytest.raises(InvalidConfigError) as caught:
        load_document(path, environment={})
    assert [mistake.where for mistake in caught.value.mistakes] == [f"{path}:1:4", f"{path}:2:8"]
    assert "this file has no bases" in caught.value.mistakes[0].message


def test_an_overlay_sees_the_config_it_is_laid_over(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("lr: 0.1\nmodel: {_delete_: true, width: 8}\n")
    (tmp_path / "other.yaml").write_text("decay: 2\n")
    (tmp_path / "over.yaml").write_text(
        "_base_: other.yaml\nboth: ['${base:lr}', '${base:decay}']\ncopy: ${base:model}\n"
    )
    document = load_document(tmp_path / "run.yaml", overlays=[tmp_path / "over.yaml"], environment={})
    assert document.data == {"lr": 0.1, "model": {"width": 8}, "decay": 2, "both": [0.1, 2], "copy": {"width": 8}}


def test_a_copy_is_a_copy(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: {widths: [1]}\n")
    (tmp_path / "run.yaml").write_text("_base_: base.yaml\na: ${base:model}\nb: ${base:model}\n")
    data = load_document(tmp_path / "run.yaml", environment={}).data
    assert isinstance(data, Map)
    data["a"]["widths"].append(2)  # type: ignore[index]  # a mapping with a list
    assert data == {"model": {"widths": [1]}, "a": {"widths": [1, 2]}, "b": {"widths": [1]}}


def test_keys_are_left_alone(tmp_path: Path) -> None:
    assert load(tmp_path, "it: {'${env:X}': '${file:stem}'}") == {"${env:X}": "run"}


def test_only_references_to_the_environment_are_recorded_as_written(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    path = tmp_path / "run.yaml"
    path.write_text(
        "_base_: base.yaml\na: ${env:X:1}\nb: ${base:host}\nc: '${base:port}-${file:stem}-$${'\nd: ${base:text}\n"
        "e: '${env:X:1}/${base:text}'\nf: $${x}\ng: ${base:model}\n"
    )
    data = load_document(path, environment={}).data
    assert isinstance(data, Map)
    written = {key: mark.written for key, mark in data.marks.items() if mark.written is not None}
    assert written == {
        "host": "${env:HOST:local}",
        "port": "${env:PORT:0x10}",
        "a": "${env:X:1}",
        "b": "${env:HOST:local}",
        "c": "${env:PORT:0x10}-run-$${",
        "e": "${env:X:1}/words",
    }
    assert data.marks["b"].line == 3


def test_what_came_from_outside_the_text_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("a: ${env:X}\n")
    with pytest.raises(InvalidConfigError, match="surrogate"):
        load_document(tmp_path / "run.yaml", environment={"X": "\udcff"})


@pytest.mark.parametrize(
    ("links", "line", "message"),
    [
        (90, "a: ['${base:a}', '${base:a}']", "copy more than 100,000 values"),
        (90, "a: '${base:a}${base:a}'", "longer than 1,000,000 characters"),
        (90, "a: {x: {y: '${base:a}'}}", "nested too deeply"),
        (2, "a: ${base:a}\nb: [" + "'x${base:a}', " * 20_000 + "]", "write more than 10,000,000 characters"),
    ],
)
def test_references_cannot_fill_the_memory(tmp_path: Path, links: int, line: str, message: str) -> None:
    (tmp_path / "0.yaml").write_text(f"a: {'x' * 1000}\n")
    for link in range(1, links):
        (tmp_path / f"{link}.yaml").write_text(f"_base_: {link - 1}.yaml\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        load_document(tmp_path / f"{links - 1}.yaml", environment={})


NASTY = st.one_of(
    st.text(max_size=20),
    st.lists(
        st.sampled_from(
            [
                "$",
                "{",
                "}",
                "${",
                "$${",
                "{{",
                "}}",
                "env:X",
                "base:",
                "_base_.x",
                "fileBasename",
                "file",
                " ",
                "'{{'",
                "$X",
            ]
        )
    ).map("".join),
)


@given(NASTY)
@example("{{ '{{' }}")
@example("${{_base_.x}}")
def test_an_escaped_text_is_itself_again(text: str) -> None:
    references = References(Path("run.yaml"), {"X": "1"}, Map(), "", Spent())
    assert references.resolve(escape(text), Mark("run.yaml"))[0] == text
    assert not references.mistakes


@given(NASTY)
def test_any_text_is_resolved_or_a_mistake(text: str) -> None:
    references = References(Path("run.yaml"), {"X": "1"}, None, "no bases", Spent())
    found, mark = references.resolve(text, Mark("run.yaml"))
    if "${" not in text and "{{" not in text:
        assert (found, references.mistakes) == (text, [])
    if mark.written is not None:
        assert "${env:X" in text


def test_hostile_texts_take_linear_time() -> None:
    references = References(Path("run.yaml"), {}, None, "no bases", Spent())
    for piece in ("${", "{{", "{{ _base_ ", "$${", "${env:X:", "{{ $ ", "}", "{{ '{{'"):
        references.resolve(piece * (900_000 // len(piece)), Mark("run.yaml"))
    for start in ("{{ ", "{{ _base_", "${", "{{ $"):
        references.resolve(start + " " * 900_000, Mark("run.yaml"))


def test_tuples_hold_references_too(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a:\n  (1, ${env:X:2})\n")
    document = load_document(path, environment={}, tuples=True)
    assert document.data == {"a": [1, 2]}
    again = parse_yaml(dump_document(document), "again")
    assert again.data == {"a": [1, "${env:X:2}"]}
