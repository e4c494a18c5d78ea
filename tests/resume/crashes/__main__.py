"""The campaign: scripts/crash-test [--count 300] [--seed N] [--jobs N] [--only KIND …]."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from random import Random

from tests.files.s3_server import s3_running
from tests.resume.crashes.disturbances import KINDS, run_trial
from tests.resume.crashes.machine import CannotDisturbError
from tests.resume.crashes.trials import MissedError, Result, Trial
from tests.resume.outcomes import Outcome, outcome


def undisturbed_outcome(directory: Path) -> Outcome:
    """Train without a disturbance."""
    trial = Trial(directory, Random(0))
    with trial.attempt() as attempt:
        assert attempt.wait() == 0, attempt.said
    return outcome(trial.work_dir)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/crash-test", description="Disturbs trainings, resumes them, and compares."
    )
    parser.add_argument("--count", type=int, default=300, help="trials in all, of each kind in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial; the next have those after it")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=", ".join(KINDS))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the campaign; 1 where a trial failed, or could not be made."""
    options = _parsed(arguments)
    began = time.monotonic()
    results: dict[str, list[Result]] = {kind: [] for kind in options.only}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="crash-test-") as folder, s3_running(Path(folder)) as s3:
        os.environ.update(s3.environment)
        undisturbed = undisturbed_outcome(Path(folder) / "undisturbed")
        with ThreadPoolExecutor(options.jobs) as pool:
            trials: dict[Future[Result], tuple[str, int]] = {}
            for number in range(options.count):
                kind, seed = options.only[number % len(options.only)], options.seed + number // len(options.only)
                trials[pool.submit(run_trial, kind, seed, undisturbed, s3)] = kind, seed
            for done in as_completed(trials):
                kind, seed = trials[done]
                try:
                    results[kind].append(done.result())
                except (AssertionError, CannotDisturbError, MissedError, TimeoutError) as error:
                    failures.append(f"{kind} {seed}")
                    print(f"FAILED: {kind}, seed {seed}: {error}", flush=True)
    print(f"{'disturbance':<26}{'trials':>7}{'attempts':>10}{'steps lost, mean':>18}{'most':>6}")
    for kind, its in results.items():
        if its:
            lost = [each.lost for each in its]
            attempts = sum(each.attempts for each in its)
            print(f"{kind:<26}{len(its):>7}{attempts:>10}{sum(lost) / len(lost):>18.1f}{max(lost):>6}")
    went_well = sum(map(len, results.values()))
    print(f"{went_well} of {options.count} went on bit for bit, in {time.monotonic() - began:.0f} s", flush=True)
    if failures:
        print(f"failed: {', '.join(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
