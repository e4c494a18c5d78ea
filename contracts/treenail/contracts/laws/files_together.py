"""The laws of threads that use one file backend together; part of `FileBackendLaws`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Barrier, BrokenBarrierError
from typing import TypeVar
from unittest import SkipTest

from treenail.contracts.files import CreatesFiles
from treenail.contracts.laws._support import accepted
from treenail.contracts.laws.files_abilities import AbilityLaws

T = TypeVar("T")
THREADS = 4
ROUNDS = 12
TIMEOUT = 60.0


class ConcurrentFileLaws(AbilityLaws):
    """What one thread does is whole for every other."""

    def test_the_last_of_many_writers_wins_whole(self) -> None:
        """Threads that overwrite one file leave the last content of one of them, not parts of several."""
        backend, together = self.make(), Barrier(THREADS)

        def write(writer: int) -> None:
            for number in range(ROUNDS):
                together.wait(TIMEOUT)
                backend.write("d/file", _chunks(writer, number))
                together.wait(TIMEOUT)
                if writer == number % THREADS:
                    contents = [b"".join(_chunks(each, number)) for each in range(THREADS)]
                    found = backend.read("d/file")
                    assert found in contents, f"{len(found)} bytes are left, which no writer wrote last"

        with accepted("overwriting a file from several threads"):
            _run(write, together)
        assert list(backend.list()) == ["d/file"], f"writers left {list(backend.list())}"

    def test_neighbours_do_not_disturb_each_other(self) -> None:
        """Threads that write, read and delete files of their own in one directory see what they would see alone."""
        backend, begin = self.make(), Barrier(THREADS)

        def use(writer: int) -> None:
            path = f"d/e/{writer}"
            begin.wait(TIMEOUT)
            for number in range(ROUNDS):
                content = b"%d of %d" % (number, writer)
                backend.write(path, content)
                assert backend.read(path) == content, f"'{path}' holds what another thread wrote"
                assert path in list(backend.list("d")), f"'{path}' is not listed while others write and delete"
                backend.delete(path)

        with accepted("writing and deleting files of one directory from several threads"):
            _run(use, begin)
        assert list(backend.list()) == [], f"all files were deleted, {list(backend.list())} are left"

    def test_one_of_many_creators_succeeds(self) -> None:
        """Of threads that create one file, one is told that it did, and the file holds what that one gave, whole."""
        files = backend = self.make()
        if not isinstance(backend, CreatesFiles):
            raise SkipTest("the backend has no ability CreatesFiles")
        begin = Barrier(THREADS)

        def create(writer: int) -> list[bool]:
            made = []
            for number in range(ROUNDS):
                begin.wait(TIMEOUT)
                made.append(backend.create(f"d/{number}", _chunks(writer, number)))
            return made

        with accepted("creating files from several threads"):
            said = _run(create, begin)
        for number in range(ROUNDS):
            winners = [writer for writer in range(THREADS) if said[writer][number]]
            assert len(winners) == 1, f"{len(winners)} of {THREADS} threads were told that they created one file"
            content = b"".join(_chunks(winners[0], number))
            assert files.read(f"d/{number}") == content, "a created file does not hold what its creator gave"


def _chunks(writer: int, number: int) -> Iterator[bytes]:
    for _ in range(4):
        yield (b"%d/%d " % (writer, number)) * (1000 + 100 * writer)
        time.sleep(0.0005)  # the others come in between


def _run(task: Callable[[int], T], barrier: Barrier) -> list[T]:
    def attempt(writer: int) -> T:
        try:
            return task(writer)
        except BaseException:
            barrier.abort()  # nobody waits for one that failed
            raise

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(attempt, writer) for writer in range(THREADS)]
        wait(running)
    failed = [error for each in running if (error := each.exception()) is not None]
    causes = [error for error in failed if not isinstance(error, BrokenBarrierError)]
    for error in causes or failed:
        raise error
    return [each.result() for each in running]
