"""Host names become addresses within a time limit. A resolver that hangs holds a thread of its own, and no caller."""

import os
import threading
import time
from typing import Final

from maintenance.base.runtime import REAL, find_addresses

_under_way: Final[dict[tuple[int, str, str], "Lookup"]] = {}
"""By process too, because a fork does not copy the thread that would end a lookup."""

if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    # The child may have its parent's pid, in a pid namespace of its own.
    os.register_at_fork(after_in_child=_under_way.clear)


class Lookup:
    """One question to the resolver, in a native thread, however many callers wait for its answer.

    It holds no lock, because a fork would copy a held one.

    Attributes:
        addresses: In the resolver's order.
        error: Why there is none; None if there is one.
        answered: Whether the resolver has answered.
    """

    def __init__(self, host: str, port: str) -> None:
        """Ask nothing yet."""
        self._key = os.getpid(), host, port
        self._waiters: list[threading.Event] = []
        self.addresses: list[str] = []
        self.error: str | None = None
        self.answered = False

    @classmethod
    def join(cls, host: str, port: str) -> "Lookup":
        """Begin a lookup, or join the one that is under way, so that threads which hang do not pile up."""
        new = cls(host, port)
        lookup = _under_way.setdefault(new._key, new)
        if lookup is new:
            try:
                REAL.start(new._run)
            except RuntimeError:
                new._run()  # no thread can be started, as during shutdown
        return lookup

    def _run(self) -> None:
        _, host, port = self._key
        try:
            self.addresses = find_addresses(host, port)
        except (OSError, UnicodeError) as exc:
            self.error = str(exc)
        finally:
            _under_way.pop(self._key, None)
            self.answered = True
            for waiter in list(self._waiters):  # a copy, because callers give up meanwhile
                waiter.set()

    def wait(self, end: float) -> bool:
        """Wait for the answer until `end` (time.monotonic); False if it has not come."""
        event = REAL.event()
        self._waiters.append(event)
        if not self.answered:  # checked after the append: an answer that comes later sets the event
            event.wait(max(end - time.monotonic(), 0.0))
        self._waiters.remove(event)
        return self.answered
