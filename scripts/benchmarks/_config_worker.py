"""A process of the benchmark `config` for one system: `python -m scripts.benchmarks._config_worker SYSTEM [CASE …]`.

It judges the cases, all of them by default, and prints the outcomes as JSON. A process for each system, so that what one
imports or registers does not reach the others; a fresh parser, file and folder for each case.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

import torch
from scripts.benchmarks._config_corpus import FOLDER, mistakes, variations
from scripts.benchmarks._config_systems import System, judge, read_right, summary

SYSTEMS = {
    "treenail": "_config_systems:Treenail",
    "jsonargparse": "_config_jsonargparse:JsonArgParse",
    "hydra": "_config_hydra:Hydra",
    "mmengine": "_config_mmengine:MMEngine",
    "easycore": "_config_easycore:EasyCore",
}
"""The contestants, by name."""


def make_system(name: str) -> System:
    """Import a contestant and make it; the corpus' own package can be imported from then on."""
    sys.path.append(str(FOLDER))
    module, _, attribute = SYSTEMS[name].partition(":")
    system: System = getattr(import_module(f"scripts.benchmarks.{module}"), attribute)()
    return system


def main() -> None:
    """Judge and print."""
    name, *wanted = sys.argv[1:]
    torch.set_num_threads(1)
    system = make_system(name)
    cases = [case for case in [*mistakes(), *variations()] if not wanted or case.id in wanted]
    meant = read_right(system)
    outcomes = {}
    for number, case in enumerate(cases, start=1):
        outcomes[case.id] = judge(system, case, meant[case.base])
        if sys.stderr.isatty():
            end = "" if number < len(cases) else "\n"
            print(f"\r{name}: case {number} of {len(cases)} ", end=end, file=sys.stderr, flush=True)
    print(json.dumps(summary(outcomes)))


if __name__ == "__main__":
    main()
