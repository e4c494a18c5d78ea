"""Whatever happens to a training, it goes on bit for bit: the short form of `scripts/crash-test`."""

import os
from collections.abc import Iterator
from random import Random

import pytest
from tests.files.s3_server import S3Server, s3_running
from tests.parallel.worlds import once, shared_directory
from tests.resume.crashes.disturbances import run_trial
from tests.resume.crashes.machine import CannotDisturbError
from tests.resume.crashes.trials import Trial
from tests.resume.outcomes import Outcome, outcome


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_running(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Outcome:
    directory = shared_directory("undisturbed-crash-run", tmp_path_factory, request)

    def run() -> dict[str, str]:
        with Trial(directory, Random(0)).attempt() as attempt:
            return {"code": str(attempt.wait()), "said": attempt.said}

    assert once(directory, run)["code"] == "0"
    return outcome(directory / "run")


SHORT = (
    "kill",
    "kill-during-save",
    "kill-loader-worker",
    "terminate",
    "full-disk",
    "read-only-directory",
    "damaged-checkpoint",
    "damaged-manifest",
    "clock-set-back",
    "second-run",
    "failing-store",
)
"""The disturbances that a run of the tests makes; `scripts/crash-test` makes all."""


@pytest.mark.parametrize("kind", SHORT)
def test_a_disturbed_training_goes_on_bit_for_bit(kind: str, undisturbed: Outcome, s3: S3Server) -> None:
    try:
        result = run_trial(kind, int(os.environ.get("TREENAIL_CRASH_SEED", "0")), undisturbed, s3)
    except CannotDisturbError as error:
        pytest.skip(str(error))
    assert result.attempts >= 2
