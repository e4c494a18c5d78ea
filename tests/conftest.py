"""What all tests have in common."""

import signal
from collections.abc import Iterator

import pytest

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
    with Starter("torch.distributed.fsdp", "torch.distributed.optim", "treenail.adapters.runtime") as started:
        yield started
