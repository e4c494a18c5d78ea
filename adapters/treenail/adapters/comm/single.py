"""The communicator of one process: every collective with its mathematical meaning for a world of one rank."""

from __future__ import annotations

from treenail.adapters.comm.collectives import Collectives
from treenail.adapters.comm.threads import ThreadTransport


class SingleProcess(Collectives):
    """A world of one rank; the same code as for many."""

    def __init__(self) -> None:
        super().__init__(ThreadTransport.alone())
