"""Where requests wait for a read, never for long."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from maintenance.base.runtime import Runtime

PATIENCE: Final = 1.0
"""Seconds for which one request waits when the answer is older than the TTL."""

SHORT_PATIENCE: Final = 0.1
"""Seconds, counted from when the read was sent, for which the other requests wait. That is hundreds of times a read
(0.3 ms, measured), and too short for visitors to notice while the store is down."""


class WaitingRoom:
    """The requests of one life that wait for the outcome of a try.

    Attributes:
        outcomes: How many tries have ended.
        boot_until: Until when (clock) the first requests wait for the first read.
    """

    def __init__(self, *, boot_timeout: float, runtime: Runtime) -> None:
        """Begin empty; the time for the first read runs from now on."""
        self._runtime = runtime
        self._lock = runtime.lock()
        self.outcomes = 0
        self.boot_until = runtime.clock() + boot_timeout
        self._waiters: list[threading.Event] = []
        self._has_patient = False

    def enter(self) -> threading.Event:
        """Wait for what this returns; the next outcome sets it."""
        event = self._runtime.event()
        with self._lock:
            self._waiters.append(event)
        return event

    def release(self) -> None:
        """Let all go on."""
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set()

    def conclude(self, *, late: bool) -> None:
        """End a try, and the wait for it.

        Args:
            late: Whether it failed because the store was slow.
        """
        with self._lock:
            self.outcomes += 1
            if not late:
                # A store that is just starting gets a moment, and one that is down costs no more. A slow one is waited
                # for, or the first requests would slip through.
                self.boot_until = min(self.boot_until, self._runtime.clock() + PATIENCE)
        self.release()

    @contextlib.contextmanager
    def patience(self, *, sent: float | None) -> Iterator[tuple[float, bool]]:
        """Choose how long a request waits once the process has booted.

        Args:
            sent: When (clock) the read under way was sent; None if none is.

        Yields:
            (seconds, whether this request is the one that waits for long)
        """
        with self._lock:
            first, self._has_patient = not self._has_patient, True
        now = self._runtime.clock()
        try:
            yield (PATIENCE if first else (now if sent is None else sent) + SHORT_PATIENCE - now), first
        finally:
            if first:
                self._has_patient = False
