"""The skeletons of `treenail template`: refused until they are filled in, right when they are, whatever the component."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from treenail.adapters.config import Catalog, Document, InvalidConfigError, parse_yaml
from treenail.adapters.config.candidates import Candidates, Match
from treenail.adapters.config.check import Checker
from treenail.adapters.config.form import Form
from treenail.adapters.config.load import RUN
from treenail.adapters.config.schema import (
    Choice,
    Field,
    Kind,
    ListOf,
    MapOf,
    Nested,
    OneOf,
    RecordOf,
    Scalar,
    TupleOf,
    Word,
)
from treenail.adapters.config.template import REQUIRED, template
from treenail.contracts import Run
from treenail.kernel import Adapter, MissingDependencyError, Registry, RegistryError

# What makes anything: its result has no declared type, so it fits every slot.
ANY = "{type: tests.config.test_template:anything, of: 1}"
PREFIXES = ("tests", "torch")


def anything(*given, of):  # type: ignore[no-untyped-def]  # the point: nothing is declared
    return given or of


@dataclass
class Awkward:
    """Takes what is hard to write in YAML: colons and #s, quotes.

    Args:
        text: Looks like a comment: # no, it is not.
        number: A number in words.
        nothing: Not "null", but null.
        infinite: Without end.
        pairs: A mapping.
        marker: No data.
        wrong: Its default is not of its type.
        second_line: Has a
            second line.
    """

    text: str
    number: str = "1e3"
    nothing: str = "null"
    spaced: str = " a: b # c\n'd' \"e\" \\ ü"
    empty: str = ""
    infinite: float = float("-inf")
    small: float = 1e-30
    pairs: dict[str, int] | None = None
    marker: object = len
    wrong: int = None  # type: ignore[assignment]  # many signatures say so
    second_line: bool = True


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    catalog = Catalog(described=True)
    catalog.derivation.record(Run)
    return catalog


@pytest.fixture(scope="module")
def candidates(catalog: Catalog) -> Candidates:
    return Candidates(catalog)


def every_component(candidates: Candidates) -> Iterator[Match]:
    """Yield every component of every port that a run, or a command, can hold."""
    for port in candidates.names.registries:
        seen = set()
        for name, schema in candidates.fitting(candidates.slot_of(port)).items():
            if schema.target not in seen and ":" not in name:
                seen.add(schema.target)
                yield Match(name, port, schema)


def sample(kind: Kind) -> str:
    """Return a right value of a kind, as YAML."""
    match kind:
        case Scalar(type=name, limits=limits):
            number = str(limits.get("ge", 1))
            return {"int": number, "float": "0.5", "bool": "true", "str": "word", "bytes": "YQ==", "none": "null"}[name]
        case Choice(values=values) | Word(values=values) if values:
            return str(values[0])
        case Word():
            return "some/path"
        case ListOf(item=item):
            return f"[{sample(item)}]"
        case TupleOf(items=items):
            return f"[{', '.join(map(sample, items))}]"
        case MapOf():
            return "{}"
        case OneOf(members=members):
            return sample(members[0])
        case RecordOf():
            raise AssertionError("records are written out, field by field")
        case Nested():
            return ANY
        case _:
            return "1"


def filled(text: str, fields: Sequence[Field]) -> str:
    """Return a skeleton with a value for each required one."""
    kinds = {field.name: field.kind for field in fields}
    lines = text.splitlines()
    for index, line in enumerate(lines):
        key, _, value = line.partition(": ")
        if value == REQUIRED and key.strip() == "type":  # of a nested component, below the key that takes it
            lines[index - 1] += f" {ANY}"
            lines[index] = ""
        elif value == REQUIRED:
            lines[index] = f"{key}: {sample(kinds[key])}"
    return "\n".join(lines) + "\n"


def mistakes(catalog: Catalog, kind: Kind, text: str) -> list[str]:
    document = parse_yaml(text, "template.yaml")
    checker = Checker(Document("template.yaml", document.data, document.mark), catalog, PREFIXES)
    checker.convert(document.data, kind, ())
    return [str(each) for each in checker.mistakes]


def commented_out(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"\s*#[^ #]", line)]


def required(form: Form) -> list[str]:
    return [name for name in form.required if name not in ("type", "_scope_")]


def test_every_registered_component_s_skeleton_is_right_once_filled_in_and_each_default_may_be_taken(
    catalog: Catalog, candidates: Candidates
) -> None:
    count = 0
    for match in every_component(candidates):
        slot, form = candidates.form(match)
        text = template(catalog, str(match), PREFIXES)
        body = filled(text, match.schema.fields)
        assert mistakes(catalog, slot, body) == [], f"{match}\n{text}"
        for line in commented_out(text):
            assert mistakes(catalog, slot, body.replace(line, line.replace("#", "", 1))) == [], f"{match}: {line}"
        assert mistakes(catalog, slot, re.sub(r"(?m)^#(?! )", "", body)) == [], f"{match}\n{text}"
        for name in required(form):
            assert re.search(rf"(?m)^{name}:( {REQUIRED}|\n  type: {REQUIRED})$", text), f"{match}: {name}"
        count += 1
    assert count > 200


def test_no_unfilled_skeleton_loads_and_each_open_place_is_named_with_its_line(
    catalog: Catalog, candidates: Candidates
) -> None:
    for match in every_component(candidates):
        _, form = candidates.form(match)
        text = template(catalog, str(match))
        if not required(form):
            parse_yaml(text, "t.yaml")
            continue
        with pytest.raises(InvalidConfigError) as caught:
            parse_yaml(text, "t.yaml")
        lines = [number for number, line in enumerate(text.splitlines(), 1) if REQUIRED in line and "#" not in line]
        assert [int(each.where.split(":")[1]) for each in caught.value.mistakes] == lines


def test_uncommented_defaults_are_the_defaults(catalog: Catalog) -> None:
    text = template(catalog, "adamw")
    body = parse_yaml("\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")), "t")
    assert body.data == {
        "type": "AdamW",
        "lr": 0.001,
        "betas": [0.9, 0.999],
        "eps": 1e-08,
        "weight_decay": 0.01,
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": None,
    }


def test_awkward_texts_and_defaults(catalog: Catalog) -> None:
    text = template(catalog, "tests.config.test_template:Awkward", ["tests"])
    assert "# Takes what is hard to write in YAML: colons and #s, quotes.\n" in text
    assert "by default len, which no config can write" in text
    assert "by default None, which no config can write" in text
    assert "# Has a second line.\n" in text
    uncommented = re.sub(r"(?m)^#(?! )", "", text).replace(f"text: {REQUIRED}", "text: x")
    assert parse_yaml(uncommented, "t").data == {
        "type": "tests.config.test_template:Awkward",
        "text": "x",
        "number": "1e3",
        "nothing": "null",
        "spaced": " a: b # c\n'd' \"e\" \\ ü",
        "empty": "",
        "infinite": float("-inf"),
        "small": 1e-30,
        "pairs": None,
        "second_line": True,
    }


def test_no_line_of_prose_is_over_the_width_or_looks_like_a_default(catalog: Catalog, candidates: Candidates) -> None:
    for match in every_component(candidates):
        for line in template(catalog, str(match)).splitlines():
            longest = max(map(len, line.split())) if line.split() else 0
            assert len(line) <= 100 or longest > 90 or not line.startswith("# "), line
            assert not line.startswith("#") or line.startswith("# ") or re.match(r"#\w+: ", line), line


def test_the_skeleton_of_a_run_shows_every_section_and_is_right_once_filled_in(catalog: Catalog) -> None:
    text = template(catalog, "run")
    for field in catalog.record(RUN).fields:
        assert re.search(rf"(?m)^#?{field.name}:", text), field.name
    names = iter(["Linear", "digits", "epochs", "SGD"])
    arguments = iter(["in_features: 1, out_features: 1", "split: train", "max_epochs: 1", ""])
    body = re.sub(r"\n +type: !required", lambda _: f" {{type: {next(names)}, {next(arguments)}}}", text)
    body = body.replace(f"batch_size: {REQUIRED}", "batch_size: 8")
    assert REQUIRED not in re.sub(r"(?m)^#.*", "", body)
    assert mistakes(catalog, RecordOf(RUN), body) == []
    assert mistakes(catalog, RecordOf(RUN), re.sub(r"(?m)^( *)#(?! )", r"\1", body)) == []


def test_a_name_is_found_in_any_case_by_its_alias_and_by_its_port(catalog: Catalog) -> None:
    for name in ("AdamW", "adamw", "ADAMW", "optimizer:adamw"):
        assert "\ntype: AdamW\n" in template(catalog, name)
    for name in ("subset", "SubsetSampler", "subsetrandomsampler", "sampler:SubsetRandomSampler"):
        assert "\ntype: subset\n" in template(catalog, name)
    assert "\ntype: treenail:random\n" in template(catalog, "treenail:RandomSampler")


def test_the_header_says_what_comes_from_the_run_and_which_aliases_there_are(catalog: Catalog) -> None:
    assert "# An optimizer; the run gives it params.\n" in template(catalog, "adamw")
    assert "# A loss; the run gives it input and target.\n" in template(catalog, "cross_entropy")
    text = template(catalog, "subset").replace("\n# ", " ")
    assert "also called SubsetRandomSampler, SubsetSampler." in text


def test_several_matches_are_listed_and_an_exact_one_mentions_the_others(catalog: Catalog) -> None:
    with pytest.raises(RegistryError, match=r"several components are called 'SEQUENTIAL'; write one of 'module:Seq"):
        template(catalog, "SEQUENTIAL")
    assert "Not meant, though of the same name: sampler:sequential." in template(catalog, "Sequential")
    assert "\ntype: sequential\n" in template(catalog, "sampler:sequential")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamx", r"unknown component 'adamx'; did you mean 'Adamax'\?"),
        ("optimizer:conv2d", r"unknown optimizer 'conv2d'"),
        ("parts:Mlp", r"'parts:Mlp' would import the module 'parts', which is not allowed here"),
    ],
)
def test_an_unknown_name_says_what_may_be_meant(catalog: Catalog, name: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        template(catalog, name)


def test_what_is_not_installed_says_what_to_install() -> None:
    needy = Adapter("metric", "needy", "nowhere:Needy", requires=("no_such_module",), install="treenail[needy]")
    catalog = Catalog([("treenail", needy)])
    catalog.derivation.record(Run)
    with pytest.raises(MissingDependencyError, match=r"pip install 'treenail\[needy\]'"):
        template(catalog, "Needy")


def test_what_this_process_registered_has_a_skeleton() -> None:
    catalog = Catalog([])
    catalog.derivation.record(Run)
    registry: Registry[object] = Registry("metric")
    registry.register(Awkward, "awkward")
    catalog.add(registry)
    assert "\ntype: awkward\n" in template(catalog, "awkward")


def test_a_parameter_without_annotation_says_that_it_is_not_checked(catalog: Catalog) -> None:
    text = template(catalog, "tests.config.test_template:anything", ["tests"])
    assert "# Takes anything, for it has no annotation; required.\n" in text


def test_nested_components_are_shown_with_the_names_that_fit(catalog: Catalog) -> None:
    text = template(catalog, "transformerencoder").replace("\n# ", " ")
    assert "is written {type: …} with one of TransformerEncoderLayer; required." in text
    assert f"encoder_layer:\n  type: {REQUIRED}\n" in text
