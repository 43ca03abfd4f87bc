"""Functions that are called with each change of the flag."""

import logging
import operator
from collections.abc import Callable
from typing import Final

from maintenance.base.log import log
from maintenance.base.runtime import Runtime
from maintenance.base.values import Snapshot
from maintenance.process.lease import Lease

_said: Final = operator.attrgetter(
    "enabled", "mode", "message", "until", "retry_after", "actor", "reason", "revision", "source"
)
"""What of a snapshot counts as a change."""


class Listeners:
    """Called in one thread at a time, and the last call is about what is known: whatever comes meanwhile waits."""

    def __init__(self, lease: Lease, *, runtime: Runtime) -> None:
        """Start with none.

        Args:
            lease: What is known; at this moment it is no news.
            runtime: The locks and the threads.
        """
        self._lease, self._runtime = lease, runtime
        self._told = lease.known
        self._functions: tuple[Callable[[Snapshot], object], ...] = ()
        self.forked()

    def forked(self) -> None:
        """In the child of a fork: the thread that was telling is the parent's."""
        self._lock, self._telling = self._runtime.lock(), False

    def add(self, function: Callable[[Snapshot], object]) -> None:
        """Have one more called, from the next change on."""
        self._functions = (*self._functions, function)

    def tell(self) -> None:
        """Call them where something has changed, unless another thread is at it, which then goes on."""
        # No lock is held across a call: a callback may flip the flag, and under gevent it may switch.
        while (news := self._news()) is not None:
            try:
                for function in self._functions:
                    _call(function, news)
            finally:
                self._telling = False

    def tell_apart(self) -> None:
        """The same in a thread of its own: a slow one must not hold up whoever keeps the flag fresh."""
        if not self._functions:
            self.tell()
        elif self._is_news(self._lease.known):
            try:
                self._runtime.start(self.tell)
            except (RuntimeError, OSError):  # where no thread can be started
                self.tell()

    def _news(self) -> Snapshot | None:
        """What the caller alone has to tell; None where nothing is new, or another thread tells."""
        with self._lock:
            known = self._lease.known
            if self._telling or not self._is_news(known):
                return None
            self._told, self._telling = known, True
            return known

    def _is_news(self, known: Snapshot) -> bool:
        return _said(known) != _said(self._told)


def _call(function: Callable[[Snapshot], object], known: Snapshot) -> None:
    try:
        function(known)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - the next one is called all the same
        log(logging.ERROR, "an on_change callback failed: %r", function, exc=exc)
