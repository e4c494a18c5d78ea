"""What all tests have in common."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.commands import commands_served
from tests.docs.snippets import environment
from tests.processes import Starter


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let processes that a test starts be interrupted, though the tests themselves may run where Ctrl-C is ignored (``&``)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    """Start new processes; all tests of a test process share what starts them."""
    with Starter() as started:
        yield started


@pytest.fixture(scope="session")
def scripts() -> Iterator[Path]:
    """Serve the command `treenail`, which lies in this directory; its processes are forked where torch has been imported."""
    with commands_served(environment()) as directory:
        yield directory
