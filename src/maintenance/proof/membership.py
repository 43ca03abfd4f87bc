"""What a process says of itself: its row among the instances, and when it is written."""

import logging
import socket
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Final

from maintenance._version import __version__
from maintenance.base.log import log
from maintenance.base.runtime import Runtime, boot_id
from maintenance.base.values import Instance, Load, Snapshot, WhenStale
from maintenance.errors import LateError, RegistrationError, StoreError
from maintenance.stores import Session

HEARTBEAT: Final = 60.0
"""Seconds between two reports of an instance that has nothing new to say. Each costs 251 bytes of WAL (measured)."""

DRAIN_REPORT: Final = 1.0
"""Seconds between two reports of a drain that goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a process follows; fixed when its state is made.

    Attributes:
        ttl: The lease, in seconds.
        when_stale: What happens when it has run out.
        register: Whether this process counts as one that serves.
    """

    ttl: float
    when_stale: WhenStale
    register: bool

    @property
    def limit(self) -> float:
        """Seconds for one try, and for the pause after it: together at most min(TTL, 5 s), and never absurdly short."""
        return max(min(self.ttl, 5.0) / 2, 0.2)


class Membership:
    """The row of one process; the child of a fork makes another one."""

    def __init__(self, settings: Settings, *, runtime: Runtime, measure: Callable[[Snapshot], Load | None]) -> None:
        """Remember; nothing is written yet.

        Args:
            settings: What the row says of how this process follows.
            runtime: The clock and the pid.
            measure: What is in flight under a flag; None where requests are not tracked.
        """
        self._settings, self._runtime, self.measure = settings, runtime, measure
        # Asked once: the whole fleet acknowledges a flip at the same time, and what it needs for that adds up.
        self.instance = Instance(
            id=uuid.uuid4().hex,
            host=hostname(),
            boot=boot_id(),
            pid=runtime.pid(),
            program=_program(),
            version=__version__,
            when_stale=settings.when_stale,
            ttl=settings.ttl,
        )
        self.there = False
        self.error: str | None = None
        self.late = False
        self.unheard = False
        self.draining = False
        self._suppressed = False
        self._said: Instance | None = None
        self._said_at = float("-inf")

    @property
    def due(self) -> bool:
        """Whether this process must be registered, and is not."""
        return self._settings.register and not self.there

    def register(self, session: Session) -> None:
        """Write the row, before the read that a lease rests on."""
        self.there, self.unheard = False, True
        self._say(session, self.instance)
        self.unheard = False

    def check(self, *, registered: bool) -> None:
        """Believe a read that was sent after the registration, not the answer to the registration itself."""
        if not self.there:
            return
        if not registered:
            self.there = False
            self._complain("its row was written, and is not there: look for a trigger or a policy that suppresses it")
        elif self._suppressed:
            self.error = None
        self._suppressed = not registered

    def acknowledge(self, session: Session, known: Snapshot, *, asked: bool) -> None:
        """Say what is installed: only ever after it is.

        Args:
            session: Where.
            known: What is installed.
            asked: Whether somebody waits for what is in flight.
        """
        load, before = self.measure(known), self._said
        self.draining = asked and load is not None and load.in_flight > 0
        if not self.there or before is None:
            return
        beat = self._runtime.clock() - self._said_at >= HEARTBEAT
        drained = asked and load is not None and load.in_flight != before.in_flight
        if beat or drained or known.revision != before.revision:
            self._say(session, self._described(known.revision, load))
            if before.revision is None and load is not None and load.in_flight:
                self.say_again()  # it counts the request that started all this, which has ended by the next read

    def follow_drain(self, session: Session, known: Snapshot) -> None:
        """Say what is in flight while somebody waits for it, once it has ended or now and then."""
        load, before = self.measure(known), self._said
        if load is None or before is None or load.in_flight == before.in_flight:
            return
        if load.in_flight == 0 or self._runtime.clock() - self._said_at >= DRAIN_REPORT:
            with session.within(self._settings.limit):
                self._say(session, self._described(known.revision, load))
            self.draining = load.in_flight > 0

    def say_again(self) -> None:
        """Have the next acknowledgement written even if it says nothing new: a failover may have lost the last one."""
        self._said_at = float("-inf")

    @property
    def may_be_there(self) -> bool:
        """Whether the store may hold the row."""
        return self._said is not None or self.unheard

    def remove(self, session: Session) -> None:
        """Remove the row.

        Raises:
            StoreError: It stays behind.
        """
        with session.within(self._settings.limit):
            session.remove(self.instance.id)

    def _say(self, session: Session, instance: Instance) -> None:
        """Write the row. A later report that fails takes none away, and is only repeated."""
        try:
            session.report(instance)
        except RegistrationError as exc:
            self.late = isinstance(exc, LateError)
            self._complain(str(exc))
            return
        except StoreError as exc:
            self.error = str(exc)
            raise
        self.there, self.late = True, False
        if not self._suppressed:
            self.error = None
        self._said, self._said_at = instance, self._runtime.clock()

    def _complain(self, error: str) -> None:
        before, self.error = self.error, error
        if before != error:
            which = "what this process has followed" if self.there else "this process"
            log(logging.WARNING, "no wait for the fleet can see %s: %s", which, error)

    def _described(self, revision: int, load: Load | None) -> Instance:
        return replace(self.instance, revision=revision, **(load._asdict() if load else {}))


def hostname() -> str:
    """The machine's name, in a form that every store can keep."""
    return _storable(socket.gethostname())


def _program() -> str:
    """What runs, for people: ``uvicorn`` for ``python -m uvicorn`` too."""
    # An interpreter that is embedded has no arguments, or none at all.
    path = PurePath(next(iter(getattr(sys, "argv", ())), "") or "python")
    return _storable(path.parent.name if path.name == "__main__.py" else path.name)


def _storable(text: str) -> str:
    # Whatever the encoding of the database, and of the bytes that are no text in the locale's.
    return text.encode("ascii", "backslashreplace").decode("ascii").replace("\0", "?")
