"""After each read: the log, the middlewares and the functions of the app learn of a change."""

import logging
import operator
from collections.abc import Callable
from dataclasses import fields
from typing import Final

from maintenance.base.flags import Flags
from maintenance.base.log import log
from maintenance.base.quoting import quote
from maintenance.base.values import Details, Snapshot
from maintenance.process.in_flight import Sources
from maintenance.process.lease import Lease
from maintenance.process.status import StatusLog

_facts: Final = operator.attrgetter("enabled", *(it.name for it in fields(Details)), "revision", "source")
"""What of a flag counts as a change."""


class Listeners:
    """Notifies middlewares at once. Callbacks run in one thread at a time; the last calls are about what is known."""

    def __init__(self, lease: Lease, sources: Sources, status: StatusLog) -> None:
        """Start with what is known, which is not news."""
        self._lease, self._sources, self._status = lease, sources, status
        self._notified = self._called = lease.flags
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
        if not self._callbacks or not _list_changes(self._lease.flags, self._called):
            return
        try:
            self._lease.runtime.start(self._call)
        except (RuntimeError, OSError):  # no thread can be started
            self._call()

    def _note(self) -> None:
        self._status.note()
        flags, before = self._lease.flags, self._notified
        if _list_changes(flags, before) and not self._lease.life.closed:
            self._notified = flags
            self._sources.notify(flags)

    def _call(self) -> None:
        """Call them until nothing is new, unless another thread does that, which then goes on."""
        # No lock is held across a call: a callback may flip the flag, and under gevent it may switch.
        while (news := self._take_news()) is not None:
            try:
                for flag in news:
                    for callback in self._callbacks:
                        _call_one(callback, flag)
            finally:
                self._calling = False

    def _take_news(self) -> list[Snapshot] | None:
        """What the caller alone has to report; None if nothing is new, or another thread reports it."""
        with self._lock:
            flags = self._lease.flags
            news = _list_changes(flags, self._called)
            if self._calling or not news:
                return None
            self._called, self._calling = flags, True
            return news


def _list_changes(flags: Flags, before: Flags) -> list[Snapshot]:
    """The flags that differ from those before."""
    if flags is before:
        return []
    changed = [flag for flag in flags if _facts(flag) != _facts(before.get(flag.scope))]
    return changed + [flags.get(scope) for scope in before.scopes if scope not in flags.scopes]


def _call_one(callback: Callable[[Snapshot], object], known: Snapshot) -> None:
    try:
        callback(known)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - the next one is called all the same
        log(logging.ERROR, "an on_change callback failed: %s", quote(callback), exc=exc)
