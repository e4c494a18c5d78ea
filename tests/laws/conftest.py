"""What tests of laws share."""

from collections.abc import Iterator

import pytest

from tests.comm.pool import ProcessPool


@pytest.fixture(scope="session")
def process_pool() -> Iterator[ProcessPool]:
    """Give a world of gloo processes, which starts when a program is first run on it."""
    pool = ProcessPool()
    yield pool
    pool.close()
