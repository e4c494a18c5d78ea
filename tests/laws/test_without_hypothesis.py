"""Without Hypothesis the laws say which extra brings it."""

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["hypothesis"] = None  # as if it were not installed
import treenail.contracts
from treenail.kernel import MissingDependencyError
try:
    import treenail.contracts.laws
except MissingDependencyError as error:
    print(error)
"""


def test_the_extra_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert "hypothesis" in done.stdout
    assert "treenail[laws]" in done.stdout
