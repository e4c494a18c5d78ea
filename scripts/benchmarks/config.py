"""Mistakes in configs: who catches them, when, and with which place; and what loading a config costs.

The corpus, `config_corpus/`: five right configs, single mistakes in them (`mistakes.yaml`), right variations of them
(`variations.yaml`). No case is drawn at random, and none asks whether a network's shapes fit.

Each system gets every config in its own idiom, with the same single mistake, and its best practice:

treenail      `load_run`, then `build` of every component.
jsonargparse  a function whose annotations type the whole run, as LightningCLI does (`class_path`, `init_args`, callables for
              what gets its first argument later); `parse_path`, then `instantiate_classes`.
hydra         `compose` with dataclasses as the schema of the fixed sections, `missing_keys` and `resolve` as its check;
              then `instantiate`. Components are `_target_`s: a dataclass for each of torch's classes nobody writes.
mmengine      `Config.fromfile` and `merge_from_dict`; then a `Registry` for each port.
easycore      `CfgNode.open`; then its registries.

All build the same components by the same code; nothing is trained. Numbers like 2e-3, which YAML 1.1 reads as text, are
written as the system reads them, save where they are what a variation tries. What has no counterpart in a system's idiom, or
means the right thing there (`yes` in YAML 1.1), is n/a: not counted for it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from scripts.benchmarks import _report
from scripts.benchmarks._config_corpus import Case, mistakes, variations
from scripts.benchmarks._config_speed import CHECKS, SLOW_ROUNDS, time_check, time_loading
from scripts.benchmarks._config_systems import Outcome
from scripts.benchmarks._config_worker import SYSTEMS

PACKAGES = ("torch", "jsonargparse", "hydra-core", "omegaconf", "mmengine", "easycore", "PyYAML", "ruamel.yaml")
Outcomes = Mapping[str, Mapping[str, Outcome]]


def main() -> None:
    """Judge, measure and print."""
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    names = arguments.system or list(SYSTEMS)
    if arguments.list:
        _print_corpus()
        return
    if arguments.case:
        _print_case(arguments.case, names)
        return
    results: dict[str, object] = {}
    facts = _report.environment(PACKAGES) | {"rounds": str(arguments.rounds)}
    if not arguments.speed_only:
        outcomes = {name: _judge(name) for name in names}
        _print_mistakes(outcomes)
        results["outcomes"] = {
            name: {each: dict(outcome._asdict()) for each, outcome in found.items()} for name, found in outcomes.items()
        }
    if not arguments.mistakes_only:
        loading = time_loading(names, arguments.rounds)
        check = time_check() if "treenail" in names else {}
        _print_speed(loading, check, arguments.rounds)
        results |= {"loading": loading, "check": check}
    print(_report.describe(facts))
    _report.write_json(arguments.json, "config", facts, results)


def _parser() -> ArgumentParser:
    parser = _report.options((__doc__ or "").splitlines()[0], rounds=15)
    parser.add_argument("--list", action="store_true", help="print the corpus")
    parser.add_argument("--case", metavar="ID", help="show one case, and what each system says to it")
    parser.add_argument("--system", action="append", choices=list(SYSTEMS), help="only this one; may be repeated")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--mistakes-only", action="store_true", help="measure no times")
    parts.add_argument("--speed-only", action="store_true", help="judge no mistakes")
    return parser


def _judge(name: str, *cases: str) -> dict[str, Outcome]:
    command = [sys.executable, "-P", "-m", "scripts.benchmarks._config_worker", name, *cases]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(finished.stdout.splitlines()[-1])
    return {case_id: Outcome(**outcome) for case_id, outcome in found.items()}


def _print_corpus() -> None:
    for case in [*mistakes(), *variations()]:
        places = " or ".join(f"{line}:{column}" for line, column in case.places)
        place = places or (f"line {' or '.join(map(str, case.lines))}" if case.lines else "")
        print(f"{case.id}  ({case.kind})  {case.edit}" + (f"  → {place}" if place else ""))


def _print_case(case_id: str, names: Sequence[str]) -> None:
    case = next((each for each in [*mistakes(), *variations()] if each.id == case_id), None)
    if case is None:
        raise SystemExit(f"scripts/bench config: there is no case '{case_id}'; --list prints them")
    print(f"{case.id} ({case.kind}, {case.category}): {case.edit}")
    for name in names:
        outcome = _judge(name, case.id)[case.id]
        when = {"before": "refused before building", "building": "refused while building", "never": "not refused"}
        print(f"\n{name}: {when.get(outcome.stage, 'n/a')}\n{outcome.message}".rstrip())


def _print_mistakes(outcomes: Outcomes) -> None:
    wrong, right = mistakes(), variations()
    names = list(outcomes)
    print(
        f"## Mistakes caught\n\n{len(wrong)} single mistakes in {len({case.base for case in wrong})} right configs.\n"
    )
    rows = [_totals(name, wrong, right, outcomes[name]) for name in names]
    header = ("", "before building", "while building", "never", "n/a", "line and column", "false alarms")
    print(_markdown(header, rows))
    print(
        "\nline and column: of the mistakes caught, those whose message names them (for an override: its key)."
        f"\nfalse alarms: of {len(right)} right variations, those refused.\n"
    )
    print("Caught before building + while building, of the mistakes that can be made in the system:\n")
    categories = list(dict.fromkeys(case.category for case in wrong))
    rows = [
        (category, *(_caught([each for each in wrong if each.category == category], outcomes[name]) for name in names))
        for category in categories
    ]
    print(_markdown(("category", *names), rows))
    for name in names:
        _print_details(name, wrong, right, outcomes[name])
    print()


def _totals(name: str, wrong: Sequence[Case], right: Sequence[Case], found: Mapping[str, Outcome]) -> tuple[str, ...]:
    stages = [found[case.id].stage for case in wrong]
    counted = len(stages) - stages.count("n/a")
    caught = [found[case.id] for case in wrong if found[case.id].stage in ("before", "building")]
    tried = [found[case.id].stage for case in right if found[case.id].stage != "n/a"]
    return (
        name,
        *(_share(stages.count(stage), counted) for stage in ("before", "building", "never")),
        str(stages.count("n/a")),
        _share(sum(outcome.placed for outcome in caught), len(caught)),
        f"{len(tried) - tried.count('never')} of {len(tried)}",
    )


def _share(number: int, of: int) -> str:
    return f"{number} ({number / of:.1%})" if of else "–"


def _caught(cases: Sequence[Case], found: Mapping[str, Outcome]) -> str:
    stages = [found[case.id].stage for case in cases]
    counted = len(stages) - stages.count("n/a")
    return f"{stages.count('before')} + {stages.count('building')} of {counted}" if counted else "n/a"


def _print_details(name: str, wrong: Sequence[Case], right: Sequence[Case], found: Mapping[str, Outcome]) -> None:
    lines = []
    reasons = Counter(found[case.id].message for case in [*wrong, *right] if found[case.id].stage == "n/a")
    lines += [f"{number} n/a: {reason}" for reason, number in reasons.items()]
    for case in right:
        if found[case.id].stage in ("before", "building"):
            lines.append(f"false alarm {case.id}: {case.edit}: {_first_line(found[case.id].message)}")
    if name == "treenail":  # the others read another text: their places are not compared
        early = [case for case in wrong if found[case.id].stage == "before"]
        exact = [case for case in early if found[case.id].right]
        lines.append(f"{len(exact)} of {len(early)} mistakes caught before building are told at the right place")
        for case in wrong:
            if not found[case.id].right:
                expected = " or ".join(f"{line}:{column}" for line, column in case.places) or f"line {case.lines}"
                stage, message = found[case.id].stage, _first_line(found[case.id].message)
                lines.append(f"{case.id} ({stage}, not at {expected}): {case.edit}: {message}")
    print("".join(f"\n- {name}: {line}" for line in lines))


def _first_line(message: str) -> str:
    return message.splitlines()[0] if message else "not refused"


def _print_speed(loading: Mapping[str, Mapping[str, float]], check: Mapping[str, float], rounds: int) -> None:
    print("## Loading a run of 200 components\n")
    rows = [
        (name, f"{row['median_ms']:.1f}", f"{row['minimum_ms']:.1f}", f"{row['ratio']:.2f}×")
        for name, row in loading.items()
    ]
    print(_markdown(("", "ms", "min", "of mmengine's"), rows))
    print(
        f"\nMedian of {rounds} rounds in one process (jsonargparse: {SLOW_ROUNDS}), in turns, each between two loads by mmengine;"
        "\nthe ratio is to those. A load is all that the system does before building. Reading only is without the schema:\n"
        "treenail's parse_yaml, OmegaConf.load.\n"
    )
    if check:
        print(
            f"`treenail check` of it from the shell: first {check['first']:.2f} s (empty cache), then median"
            f" {check['median']:.2f} s, min {check['minimum']:.2f} s of {CHECKS}.\n"
        )


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
