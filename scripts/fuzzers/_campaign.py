"""Runs the targets of a campaign, one after the other, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path
from time import monotonic, perf_counter
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what is imported here is not instrumented for coverage
    from scripts.fuzzers._target import Target

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HANG = 30  # seconds after which an input counts as a hang; what the limits allow takes less
INSTRUMENTED = ["treenail", "ruamel.yaml", "tomllib", "json"]


def main() -> int:
    """Run a campaign, or, in a process of its own, one target of it."""
    arguments = _parser().parse_args()
    targets = sorted(path.stem for path in HERE.glob(f"{arguments.campaign}_*.py"))
    if arguments.only is not None:
        targets = [name for name in targets if name == f"{arguments.campaign}_{arguments.only}"]
    if not targets:
        print(f"there is no target '{arguments.only}' in '{arguments.campaign}'", file=sys.stderr)
        return 2
    if arguments.child is not None:
        return _Child(targets[0], arguments).run()
    arguments.findings.mkdir(parents=True, exist_ok=True)
    print(f"{'target':<16}{'engine':<12}{'executions':>12}{'per second':>12}{'crashes':>9}   slowest input", flush=True)
    crashes = [_fuzz(name, arguments) for name in targets]
    return 1 if any(crashes) else 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("campaign", help="config: the readers of config files")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--engine", choices=["atheris", "hypothesis"], default="atheris")
    parser.add_argument("--only", metavar="TARGET", help="one target, for example yaml")
    parser.add_argument("--findings", type=Path, default=ROOT / "work_dirs" / "fuzz", help="where inputs that crash go")
    parser.add_argument("--child", type=Path, help="for the script itself: the directory of the one target to run here")
    return parser


def _fuzz(name: str, arguments: Namespace) -> int:
    """Run one target; print its figures and return the number of crashes."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        command = [sys.executable, "-m", __spec__.name, arguments.campaign, "--only", name.partition("_")[2]]
        command += ["--seconds", str(arguments.seconds), "--engine", arguments.engine]
        command += ["--findings", str(arguments.findings), "--child", directory]
        before = set(arguments.findings.iterdir())
        begin = monotonic()
        with (work / "log").open("wb") as log:
            limit = arguments.seconds + 3 * HANG
            try:
                code = subprocess.run(command, stdout=log, stderr=log, timeout=limit, check=False).returncode
            except subprocess.TimeoutExpired:
                code = -1
        took = monotonic() - begin
        stats = work / "statistics.json"
        figures = json.loads(stats.read_text()) if stats.is_file() else {"executions": 0, "slowest": 0.0, "size": 0}
        found = sorted(set(arguments.findings.iterdir()) - before)
        slowest = f"{figures['slowest'] * 1e3:.0f} ms ({figures['size']:,} bytes)"
        rate = figures["executions"] / took
        print(
            f"{name.partition('_')[2]:<16}{arguments.engine:<12}{figures['executions']:>12,}{rate:>12,.0f}"
            f"{len(found):>9}   {slowest}",
            flush=True,
        )
        if code or found or not figures["executions"]:
            print((work / "log").read_text(errors="replace")[-4000:])
            print(
                f"the process ended with {code}; inputs: {', '.join(map(str, found)) or 'none was written'}", flush=True
            )
            return max(len(found), 1)
    return 0


class _Child:
    """Runs one target in this process and keeps account.

    Args:
        name: Module of the target.
        arguments: Those of the command line.
    """

    def __init__(self, name: str, arguments: Namespace) -> None:
        self._name = name
        self._arguments = arguments
        self._target: Target | None = None
        self._executions = 0
        self._slowest = 0.0
        self._size = 0
        self._written = 0.0

    def run(self) -> int:
        """Fuzz until the time is over or an input crashes."""
        if self._arguments.engine == "atheris":
            return self._run_atheris()
        self._target = import_module(f"scripts.fuzzers.{self._name}").TARGET
        return self._run_hypothesis(self._target)

    def _one(self, data: bytes) -> None:
        assert self._target is not None
        begin = perf_counter()
        try:
            self._target.run(data)
        except BaseException:
            if self._arguments.engine == "hypothesis":  # libFuzzer writes the input itself
                path = self._arguments.findings / f"{self._name}-{os.getpid()}-{self._executions}"
                path.write_bytes(data)
            self._write_statistics()
            raise
        seconds = perf_counter() - begin
        self._executions += 1
        if seconds > self._slowest:
            self._slowest, self._size = seconds, len(data)
        if begin - self._written > 1:
            self._written = begin
            self._write_statistics()

    def _write_statistics(self) -> None:
        figures = {"executions": self._executions, "slowest": self._slowest, "size": self._size}
        (self._arguments.child / "statistics.json").write_text(json.dumps(figures))

    def _run_atheris(self) -> int:
        import atheris

        with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
            self._target = import_module(f"scripts.fuzzers.{self._name}").TARGET
        assert self._target is not None
        corpus = self._arguments.child / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(self._target.seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        dictionary = self._arguments.child / "dictionary"
        entries = ("".join(f"\\x{byte:02x}" for byte in piece.encode()) for piece in self._target.dictionary)
        dictionary.write_text("".join(f'"{entry}"\n' for entry in entries))
        options = [
            f"-max_total_time={self._arguments.seconds}",
            f"-timeout={HANG}",
            "-rss_limit_mb=4096",
            "-max_len=8192",
        ]
        options += [f"-dict={dictionary}", f"-artifact_prefix={self._arguments.findings}/{self._name}-libfuzzer-"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], self._one)
        atheris.Fuzz()
        return 0

    def _run_hypothesis(self, target: Target) -> int:
        from hypothesis import HealthCheck, Phase, given, settings
        from hypothesis import strategies as st

        signal.signal(signal.SIGALRM, _hang)
        pieces = [piece.encode() for piece in target.dictionary]
        mutations = st.lists(
            st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(pieces) | st.binary(max_size=4)), max_size=8
        )

        def mutated(seed: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
            for where, length, new in changes:
                begin = int(where * len(seed))
                seed = seed[:begin] + new + seed[begin + length :]
            return seed

        inputs = st.one_of(
            st.binary(max_size=200),
            st.lists(st.sampled_from(pieces) | st.binary(max_size=3), max_size=40).map(b"".join),
            st.builds(mutated, st.sampled_from(list(target.seeds)), mutations),
        )

        @settings(
            max_examples=500,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def some(data: bytes) -> None:
            signal.alarm(HANG)
            self._one(data)
            signal.alarm(0)

        end = monotonic() + self._arguments.seconds
        while monotonic() < end:
            some()
        self._write_statistics()
        return 0


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"this input takes more than {HANG} seconds")


if __name__ == "__main__":
    sys.exit(main())
