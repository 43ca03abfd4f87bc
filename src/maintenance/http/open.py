"""What stays open for long, and is ended when a flip refuses it: WebSockets and event streams."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Protocol

from maintenance.base.flags import Flags
from maintenance.base.log import log
from maintenance.base.runtime import REAL
from maintenance.http.admission import Admission
from maintenance.http.refusal import Response
from maintenance.http.request import Target


class Open(Protocol):
    """A WebSocket, or a response that is a stream.

    Attributes:
        target: What the request asked for.
    """

    target: Target

    def end(self) -> None:
        """End it soon. Called in any thread; raises RuntimeError if its event loop has ended."""


class OpenTable:
    """Those that are open in one middleware.

    Attributes:
        open: By their identity.
    """

    def __init__(self, admission: Admission) -> None:
        """Start empty, and listen for flips."""
        self._admission = admission
        self.open: dict[int, Open] = {}
        admission.on_flips.append(self._end_refused)

    def add(self, opened: Open) -> Response | None:
        """Enter one. If a flip has come since its request was admitted, return the refusal."""
        self.open[id(opened)] = opened
        return self._admission.find_refusal(opened.target, self._admission.lease.current)

    def remove(self, opened: Open) -> None:
        """Forget one; a second call changes nothing."""
        self.open.pop(id(opened), None)

    @contextlib.contextmanager
    def hold(self, opened: Open) -> Iterator[None]:
        """Remove one at the end of a block."""
        try:
            yield
        finally:
            self.remove(opened)

    def _end_refused(self, flags: Flags) -> None:
        refused = [it for it in list(self.open.values()) if self._admission.refuses(it.target, flags)]
        if refused:
            # In a thread of its own: a busy event loop must not hold up the thread that renews the lease.
            try:
                REAL.start(lambda: _end_all(refused))
            except (RuntimeError, OSError) as exc:  # the flip counts all the same
                log(
                    logging.ERROR,
                    "open WebSockets and streams stay open, because no thread can be started: %s",
                    exc,
                )


def _end_all(refused: list[Open]) -> None:
    for it in refused:
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and with it whatever was open there
            it.end()
