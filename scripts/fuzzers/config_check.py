"""Whole configs with overrides: checking ends in nothing or in mistakes with places, and converting says the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from scripts.fuzzers._target import Target, as_text

from treenail.adapters.config import Catalog, InvalidConfigError, Mistake, apply_overrides, convert, parse_yaml
from treenail.adapters.config.load import check_document
from treenail.adapters.config.rules import DEFAULTS, rules_of_run
from treenail.contracts import Run
from treenail.kernel import ConfigError

_CONFIGS = Path(__file__).parents[2] / "configs"
_MARK = "\n%%\n"  # what follows are overrides, one a line
_OVERRIDES = ("optimizer.lr=1", "+hooks.x={type: timer}", "~val", "model.args.Dropout.p=0.5", "schedules.0.every=epoch")


@cache
def _catalog() -> Catalog:
    return Catalog()


def _run(data: bytes) -> None:
    text, _, overrides = as_text(data).partition(_MARK)
    try:
        document = parse_yaml(text, "fuzz.yaml")
        rules = rules_of_run(document.data)
        apply_overrides(document, overrides.splitlines(), DEFAULTS)
    except ConfigError as error:
        if "fuzz.yaml" in str(error) or "override" in str(error):
            return
        raise AssertionError("an error without a place") from error
    if isinstance(document.data, dict):
        for name in ("imports", "custom_imports"):  # what is imported is code, and not ours
            document.data.pop(name, None)
    checked = _mistakes(lambda: check_document(document, rules, _catalog()))
    converted = _mistakes(lambda: convert(document, Run, _catalog(), rules))
    assert all(each.where and each.message for each in checked), checked
    assert checked == converted, f"checked: {checked}\nconverted: {converted}"


def _mistakes(work: Callable[[], object]) -> tuple[Mistake, ...]:
    try:
        work()
    except InvalidConfigError as error:
        return error.mistakes
    return ()


TARGET = Target(
    run=_run,
    seeds=[
        (path.read_text(encoding="utf-8") + _MARK + "\n".join(_OVERRIDES)).encode()
        for path in sorted(_CONFIGS.glob("*.yaml"))
    ],
    dictionary=(
        *("type: ", "{type: ", "args:", "null", "true", "1e-3", "[]", "{}", "\n  - ", "\n%%\n", "+", "~", ".0.", "="),
        *("Linear", "SGD", "StepLR", "SequentialLR", "schedulers", "hooks", "vis", "metrics", "_scope_", "treenail:"),
    ),
)
