"""When a process ends, it leaves the fleet: at its normal exit, as a child of `multiprocessing`, and on SIGTERM."""

import atexit
import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final, Protocol

from maintenance.base.runtime import run_beside
from maintenance.process.life import Event

TERM_LIMIT: Final = 2.0
"""Seconds for which SIGTERM waits until the process has left the fleet. The main thread may hold one of the locks that
this takes."""


_EMBEDDING: Final = frozenset({"uwsgi", "mod_wsgi"})
"""The modules of servers that handle signals without Python, and run `atexit`."""


class Leaver(Protocol):
    """What leaves the fleet."""

    def leave(self, event: Event) -> None:
        """Leave. It takes no longer than `LEAVE_LIMIT`."""


_finders: Final[list[Callable[[], Iterable[Leaver]]]] = []


def leave_at_exit(find: Callable[[], Iterable[Leaver]]) -> None:
    """Have what a function returns leave when this process, or a child of it, ends."""
    _finders.append(find)


def _leave_all(event: Event) -> None:
    for find in _finders:
        for leaver in find():
            leaver.leave(event)


def leave_after_multiprocessing() -> None:
    """Leave at the end of a child of `multiprocessing`, which ends without `atexit`. Call it once in each child."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _leave_all, args=(Event.LEAVE,), exitpriority=0)


def leave_on_sigterm() -> None:
    """Leave before SIGTERM ends this process, if nothing else handles it. Only the main thread can install this.

    A server that handles SIGTERM itself has come first, or replaces this handler. The kernel ignores SIGTERM for the
    first process of a container, unless there is a handler. This one would end a process that goes on without it.
    """
    is_default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and _EMBEDDING.isdisjoint(sys.modules)
    if is_default and os.getpid() != 1:
        with contextlib.suppress(ValueError):  # another thread, or another interpreter than the main one
            signal.signal(signal.SIGTERM, leave_and_end)


def leave_and_end(number: int, _: FrameType | None) -> None:
    """Handle SIGTERM: leave the fleet, then end as without this handler."""
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    try:
        # In another thread, because this one may hold a lock. For good: a request must not register the process again.
        run_beside(functools.partial(_leave_all, Event.CLOSE), TERM_LIMIT)
    finally:
        os.kill(os.getpid(), number)


atexit.register(_leave_all, Event.LEAVE)
