"""What starts the new processes of a file's tests."""

from collections.abc import Iterator

import pytest

from tests.processes import Starter


@pytest.fixture(scope="module")
def starter(request: pytest.FixtureRequest) -> Iterator[Starter]:
    """Starts processes that have imported the test's file, and what it names in IMPORTED_IN_NEW_PROCESSES."""
    imported = getattr(request.module, "IMPORTED_IN_NEW_PROCESSES", ())
    with Starter(request.module.__name__, *imported) as starter:
        yield starter
