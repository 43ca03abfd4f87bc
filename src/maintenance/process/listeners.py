"""After each read: the log, the middlewares and the functions of the app learn of a change."""

import logging
import operator
from collections.abc import Callable
from typing import Final

from maintenance.base.log import log
from maintenance.base.quoting import quote
from maintenance.base.values import Snapshot
from maintenance.process.in_flight import Sources
from maintenance.process.lease import Lease
from maintenance.process.status import StatusLog

_facts: Final = operator.attrgetter(
    "enabled", "mode", "message", "until", "retry_after", "actor", "reason", "revision", "source"
)
"""What of a snapshot counts as a change."""


class Listeners:
    """Notifies middlewares at once. Callbacks run in one thread at a time; the last call is about what is known."""

    def __init__(self, lease: Lease, sources: Sources, status: StatusLog) -> None:
        """Start with what is known, which is not news."""
        self._lease, self._sources, self._status = lease, sources, status
        self._notified = self._called = lease.known
        self._callbacks: tuple[Callable[[Snapshot], object], ...] = ()
        self.fork()

    def fork(self) -> None:
        """In the child of a fork, a call that was under way is the parent's."""
        self._lock, self._calling = self._lease.runtime.lock(), False

    def add(self, callback: Callable[[Snapshot], object]) -> None:
        """Call one more, from the next change on."""
        self._callbacks = (*self._callbacks, callback)

    def notify(self) -> None:
        """Report a change in the caller's thread."""
        self._note()
        self._call()

    def notify_in_thread(self) -> None:
        """Report a change, and call the callbacks in a thread: a slow one must not delay the next read."""
        self._note()
        if not self._callbacks or not _differ(self._lease.known, self._called):
            return
        try:
            self._lease.runtime.start(self._call)
        except (RuntimeError, OSError):  # no thread can be started
            self._call()

    def _note(self) -> None:
        self._status.note()
        known, before = self._lease.known, self._notified
        if _differ(known, before) and not self._lease.life.closed:
            self._notified = known
            self._sources.notify(known)

    def _call(self) -> None:
        """Call them until nothing is new, unless another thread does that, which then goes on."""
        # No lock is held across a call: a callback may flip the flag, and under gevent it may switch.
        while (news := self._take_news()) is not None:
            try:
                for callback in self._callbacks:
                    _call_one(callback, news)
            finally:
                self._calling = False

    def _take_news(self) -> Snapshot | None:
        """What the caller alone has to report; None if nothing is new, or another thread reports it."""
        with self._lock:
            known = self._lease.known
            if self._calling or not _differ(known, self._called):
                return None
            self._called, self._calling = known, True
            return known


def _differ(one: Snapshot, other: Snapshot) -> bool:
    return bool(_facts(one) != _facts(other))


def _call_one(callback: Callable[[Snapshot], object], known: Snapshot) -> None:
    try:
        callback(known)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - the next one is called all the same
        log(logging.ERROR, "an on_change callback failed: %s", quote(callback), exc=exc)
