"""Tells people how a run ended."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Sequence
from math import inf
from threading import Thread
from time import monotonic, perf_counter
from typing import Annotated, Final, get_args

from msgspec import Meta
from structlog.typing import FilteringBoundLogger

from treenail.adapters.hooks.messages import Email, Event, Notice, NotSentError, Webhook
from treenail.adapters.hooks.nonfinite import RollbackError
from treenail.adapters.logging import terminal_logger
from treenail.kernel import Communicator, Engine, Hook, Record

_FRAMES: Final = 8
"""Innermost calls of a traceback that a message has."""


class NotifyHook(Hook):
    """Sends an e-mail, and posts to a webhook, when a run ends, is stopped or fails; where asked, at each validation, too.

    Nothing here hurts a run: what cannot be sent is a warning on the terminal. Messages are sent in threads of their
    own; the end of the run waits for them, `timeout` seconds at most. Only rank 0 sends. Of a process that is killed, or of
    a config that is wrong, nobody hears.

    Args:
        email: By which server and to whom.
        webhook: Where to post.
        events: end: it went through. stop: a signal or a hook stopped it. failure: it ended by an error. validation: with its
            results, once they are committed.
        run: What the run is called; its work directory, when it has one.
        timeout: Seconds.
        communicator: The ranks of the run.
        terminal: A structlog logger for people; one that writes to standard error when None.

    Raises:
        ValueError: There is neither e-mail nor webhook, no event, or an argument is out of its range.
    """

    priority = 98  # when all other hooks have done theirs

    def __init__(
        self,
        email: Email | None = None,
        webhook: Webhook | None = None,
        events: Sequence[Event] = ("end", "stop", "failure"),
        run: str = "the run",
        timeout: Annotated[float, Meta(gt=0)] = 10.0,
        communicator: Communicator | None = None,
        terminal: FilteringBoundLogger | None = None,
    ) -> None:
        if email is None and webhook is None:
            raise ValueError("there is neither email nor webhook: nobody would hear")
        if not events or not set(events) <= set(get_args(Event)) or not 0 < timeout < inf:
            raise ValueError(
                f"{events=} must be some of {', '.join(get_args(Event))}, and {timeout=} above 0 and finite"
            )
        self.events = tuple(events)
        self.run = run
        self.timeout = timeout
        self._channels = [channel for channel in (email, webhook) if channel is not None]
        self._speaks = communicator is None or communicator.rank == 0
        self._terminal = terminal or terminal_logger()
        self._metrics: dict[str, float] = {}
        self._sending: list[Thread] = []
        self._began = perf_counter()
        self._subscribed = False

    def before_run(self, engine: Engine) -> None:
        """Listen to what is committed."""
        self._began = perf_counter()
        if not self._subscribed and self._speaks:
            engine.subscribe(self._hear)
            self._subscribed = True

    def _hear(self, record: Record) -> None:
        results = {name: value for name, value in record.values.items() if name.startswith(("val/", "test/"))}
        self._metrics.update(results)
        if any(name.startswith("val/") for name in results):
            self._tell("validation", "validated", step=record.step, epoch=record.epoch)

    def after_run(self, engine: Engine) -> None:
        """Tell the end, or the stop."""
        if engine.stop_reason is None:
            self._tell("end", "finished", step=engine.step, epoch=engine.epoch)
        else:
            reason = engine.stop_reason
            self._tell("stop", f"stopped by {reason}", step=engine.step, epoch=engine.epoch)
        self._wait()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Tell the failure; a run that goes back to its last checkpoint is none."""
        if isinstance(error, RollbackError):
            return
        event: Event = "stop" if isinstance(error, KeyboardInterrupt) else "failure"
        first = " ".join(str(error).partition("\n")[0].split())
        frames = "".join(traceback.format_exception(error, limit=-_FRAMES))  # with its message, causes and notes
        self._tell(
            event,
            f"failed: {type(error).__name__}: {first}"[:150],
            step=engine.step,
            epoch=engine.epoch,
            more=frames.rstrip(),
        )
        self._wait()

    def _tell(self, event: Event, what: str, *, step: int, epoch: int, more: str = "") -> None:
        if not self._speaks or event not in self.events:
            return
        lines = [
            f"run: {self.run}",
            f"host: {socket.gethostname()}",
            f"steps: {step} ({epoch} epochs)",
            f"time: {perf_counter() - self._began:.1f} s",
            *(f"{name}: {value:.6g}" for name, value in self._metrics.items()),
            *([more] if more else []),
        ]
        title = f"{self.run} {what}"
        text = "\n".join(lines)
        notice = Notice(event, title, self.run, socket.gethostname(), step, epoch, dict(self._metrics), text)
        self._sending = [thread for thread in self._sending if thread.is_alive()]
        for channel in self._channels:
            thread = Thread(target=self._send, args=(channel, notice), daemon=True, name="treenail-notify")
            thread.start()
            self._sending.append(thread)

    def _send(self, channel: Email | Webhook, notice: Notice) -> None:
        try:
            channel.send(notice, self.timeout)
        except NotSentError as error:
            self._terminal.warning("notification not sent", event_told=notice.event, because=str(error))

    def _wait(self) -> None:
        end = monotonic() + self.timeout
        for thread in self._sending:
            thread.join(max(0.0, end - monotonic()))
            if thread.is_alive():
                self._terminal.warning("notification not sent", because=f"no answer within {self.timeout:g} s")
        self._sending.clear()
