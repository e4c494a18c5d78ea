"""Overrides: set, add, remove; an override that names nothing is a mistake."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treenail.adapters.config import Catalog, Document, InvalidConfigError, apply_overrides, load_run, parse_yaml
from treenail.kernel import Late

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


def document() -> Document:
    return parse_yaml("a: 1\nb: {c: 2, d: {e: 3}}\nl: [{type: x, n: 1}, {type: y, name: why}, {type: y}]\n", "x.yaml")


@pytest.mark.parametrize(
    ("overrides", "path", "expected"),
    [
        (["a=5"], ("a",), 5),
        (["b.d.e=[1, 2]"], ("b", "d", "e"), [1, 2]),
        (["b.c=null"], ("b", "c"), None),
        (["b.c="], ("b", "c"), ""),
        (["+b.f=1"], ("b",), {"c": 2, "d": {"e": 3}, "f": 1}),
        (["+f.g.h=1"], ("f",), {"g": {"h": 1}}),
        (["~b.d"], ("b",), {"c": 2}),
        (["~b"], (), {"a": 1, "l": [{"type": "x", "n": 1}, {"type": "y", "name": "why"}, {"type": "y"}]}),
        (["l.0.n=7"], ("l", 0, "n"), 7),
        (["l[0].n=7"], ("l", 0, "n"), 7),
        (["l.x.n=7"], ("l", 0, "n"), 7),
        (["l.why.type=z"], ("l", 1, "type"), "z"),
        (["~l.why", "~l.0"], ("l",), [{"type": "y"}]),
        (["+l={type: new}"], ("l", 3), {"type": "new"}),
        (["+l.3={type: new}", "l.new.n=1"], ("l", 3), {"type": "new", "n": 1}),
        (["a=1", "a=2", " a = 3"], ("a",), 3),
        (["a=x=y"], ("a",), "x=y"),
    ],
)
def test_an_override_changes_one_place(overrides: list[str], path: tuple[str | int, ...], expected: object) -> None:
    found = document()
    apply_overrides(found, overrides)
    value = found.data
    for part in path:
        value = value[part]  # type: ignore[index]  # a mapping or list, known here
    assert value == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a", "write key=value"),
        ("=1", "write key=value"),
        ("a..b=1", "write key=value"),
        ("~a=1", "~ removes and takes no value; write ~a"),
        ("~x", "there is no 'x' to remove"),
        ("~b.dd", "there is no 'b.dd' to remove; did you mean 'd'?"),
        ("~x.y", "there is no 'x' to remove"),
        ("+a=2", "'a' exists already; write a=2 to change it"),
        ("+b.c=2", "'b.c' exists already"),
        ("a.b=1", "'a' is neither a mapping nor a list, it has no 'b'"),
        ("l.9.n=1", "'l' is a list of 3; '9' is not one of its numbers"),
        ("l.²=1", "'²' is not one of its numbers or names"),
        ("l.y.n=1", "'l' has several 'y'; say which by number: l[1], l[2]"),
        ("l.wy.n=1", "not one of its numbers or names; did you mean 'why'?"),
        ("+l.7=1", "'l' is a list of 3; '7' is not one of its numbers"),
        ("a=[1", "YAML syntax"),
    ],
)
def test_an_override_that_leads_nowhere_is_a_mistake(override: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        apply_overrides(document(), [override])
    (mistake,) = caught.value.mistakes
    assert mistake.where == f"override '{override}'"
    assert message in mistake.message


def test_all_wrong_overrides_are_reported_at_once() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        apply_overrides(document(), ["a", "~x", "b.c=1", "l.9=1"])
    assert len(caught.value.mistakes) == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hooks.ema={type: timer}", "'hooks' has no 'ema'; write '+hooks.ema={type: timer}' to add it"),
        ("hooks.loger={type: logger}", "'hooks' has no 'loger'; did you mean 'logger'?; write '+hooks.loger="),
        ("hooks.ema.interval=1", "'hooks' has no 'ema'"),
        ("+optimizer.lrr=1", "AdamW takes no 'lrr'; did you mean 'lr'?"),
        ("~optimizer", "Run needs 'optimizer', which is missing"),
        ("train.batch_size='64'", "expected 'int', got 'str' ('64'); write it without quotes"),
        ("train.drop_last=yes", "expected 'bool', got 'str' ('yes'); write true"),
    ],
)
def test_an_override_is_checked_by_the_schema(catalog: Catalog, override: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load_run(DIGITS, [override], catalog)
    assert any(message in each.message and override in each.where for each in caught.value.mistakes) or (
        "which is missing" in str(caught.value)
    )


def test_overrides_are_typed_by_the_schema(catalog: Catalog) -> None:
    run = load_run(
        DIGITS,
        [
            "optimizer.weight_decay=1",
            "schedules.0.metric=12",
            "schedules.0.every=null",
            "schedules.0.scheduler={type: ReduceLROnPlateau}",
        ],
        catalog,
    )
    assert isinstance(run.optimizer, Late)
    assert run.optimizer.kwargs["weight_decay"] == 1.0
    assert run.schedules[0].metric == "12"


def test_default_hooks_are_there_to_be_changed_and_removed(catalog: Catalog) -> None:
    run = load_run(
        DIGITS,
        ["hooks.logger={type: logger, interval: 7}", "~hooks.timer", "~hooks.best", "~hooks.checkpoint"],
        catalog,
    )
    assert run.hooks["timer"] is None
    assert run.hooks["checkpoint"] is None
    assert "best" not in run.hooks
    logger = run.hooks["logger"]
    assert logger is not None
    assert logger.kwargs == {"interval": 7}


def test_options_of_a_default_hook_need_no_type(catalog: Catalog, tmp_path: Path) -> None:
    run = load_run(DIGITS, ["hooks.logger.interval=3", "+hooks.progress={}"], catalog)
    (tmp_path / "run.yaml").write_text(
        f"_base_: {Path(DIGITS).absolute()}\nhooks: {{timer: {{}}, logger: {{interval: 3}}}}\n"
    )
    written = load_run(str(tmp_path / "run.yaml"), [], catalog)
    for hook, target, kwargs in (
        (run.hooks["logger"], "LoggerHook", {"interval": 3}),
        (run.hooks["progress"], "ProgressHook", {}),
        (written.hooks["logger"], "LoggerHook", {"interval": 3}),
        (written.hooks["timer"], "TimerHook", {}),
    ):
        assert hook is not None
        assert getattr(hook.target, "__name__", None) == target
        assert hook.kwargs == kwargs
    with pytest.raises(InvalidConfigError, match=r"hooks\.logger\.intervall"):
        load_run(DIGITS, ["hooks.logger.intervall=3"], catalog)
    with pytest.raises(InvalidConfigError, match="'type' is missing"):
        load_run(DIGITS, ["+hooks.mine={interval: 3}"], catalog)


def test_a_part_of_the_model_is_named_by_its_type(catalog: Catalog) -> None:
    run = load_run(DIGITS, ["model.args.Dropout.p=0.5"], catalog)
    assert run.model.args[8].kwargs == {"p": 0.5}  # type: ignore[attr-defined]  # a Spec, known here


KEYS = st.text(alphabet="ablx.0+~=[]", max_size=8)


@given(st.lists(st.tuples(KEYS, st.sampled_from(["1", "[", "{a: 1}", "null", "", "~"])), max_size=4))
def test_no_override_raises_anything_but_mistakes(parts: list[tuple[str, str]]) -> None:
    found = document()
    try:
        apply_overrides(found, [f"{key}={value}" for key, value in parts])
    except InvalidConfigError as error:
        found = document() if error.mistakes else found
    assert isinstance(found.data, dict)
