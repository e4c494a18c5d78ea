"""What every process makes for itself."""

import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from treenail.adapters.files.processes import PerProcess


def test_threads_that_ask_at_once_get_the_same_one() -> None:
    begin, made = threading.Barrier(8), list[object]()

    def make() -> object:
        time.sleep(0.01)
        made.append(object())
        return made[-1]

    def ask(_: int) -> object:
        begin.wait(20)
        return own.get()

    own = PerProcess(make)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert found == made * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_makes_its_own_even_where_a_thread_was_making_one() -> None:
    discarded = list[int]()
    own = PerProcess(os.getpid, discarded.append)
    assert own.get() == own.held == os.getpid()
    with own._locks[os.getpid()]:
        if (child := os.fork()) == 0:
            good = own.held == os.getppid() and own.get() == os.getpid() and discarded == [os.getppid()]
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert own.get() == os.getpid()
    assert discarded == []


def test_what_was_taken_is_made_again_and_what_fails_is_tried_again() -> None:
    answers = iter([ValueError("not yet"), "first", "second"])

    def make() -> object:
        answer = next(answers)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    own = PerProcess(make)
    with pytest.raises(ValueError, match="not yet"):
        own.get()
    assert (own.get(), own.get(), own.take(), own.take(), own.get()) == ("first", "first", "first", None, "second")


def test_it_is_pickled_empty() -> None:
    own = PerProcess(os.getpid)
    own.get()
    copy = pickle.loads(pickle.dumps(own))
    assert copy.held is None
    assert copy.get() == os.getpid()
