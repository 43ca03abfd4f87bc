"""Thousands of background threads in one process: each is a greenlet, which gives way while it waits.

The library takes its clock, threads and wakers from a `Runtime`. This module makes one whose threads are greenlets of
one native thread. psycopg waits through two functions, which `take_over` replaces. All the rest is the real code.
"""

import heapq
import itertools
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import greenlet
from psycopg import waiting
from psycopg.abc import PQGen, PQGenConn

from maintenance.base.runtime import REAL, Runtime

_READ: Final = int(waiting.Wait.R)
_WRITE: Final = int(waiting.Wait.W)


class Hub:
    """Switches to the greenlet whose time or descriptor is next."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._main = greenlet.getcurrent()
        self._epoll = select.epoll()
        self._waiting: dict[int, Turn] = {}
        self._timers: list[tuple[float, int, Turn]] = []
        self._numbers = itertools.count()
        self._ready: list[Turn] = []
        self.ended = False

    def spawn(self, function: Callable[[], object], after: float = 0.0) -> None:
        """Run a function in a greenlet of its own, so many seconds later."""
        self._at(monotonic() + after, Turn(greenlet.greenlet(function, self._main)))

    def wait(self, timeout: float, *, fd: int | None = None, events: int = _READ, turn: "Turn | None" = None) -> int:
        """Give way until a descriptor is ready, the turn is taken or the time is over; return what is ready."""
        turn = turn or Turn(greenlet.getcurrent())
        self._at(monotonic() + timeout, turn)
        if fd is not None:
            self._watch(fd, events, turn)
        found: int = self._main.switch()
        if fd is not None:
            self._unwatch(fd, turn)
        return found

    def _watch(self, fd: int, events: int, turn: "Turn") -> None:
        mask = (select.EPOLLIN if events & _READ else 0) | (select.EPOLLOUT if events & _WRITE else 0)
        if fd in self._waiting:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._waiting[fd] = turn

    def _unwatch(self, fd: int, turn: "Turn") -> None:
        if self._waiting.get(fd) is turn:
            del self._waiting[fd]
            with suppress(OSError):  # it is closed
                self._epoll.unregister(fd)

    def _at(self, when: float, turn: "Turn") -> None:
        heapq.heappush(self._timers, (when, next(self._numbers), turn))

    def take(self, turn: "Turn") -> None:
        """Let a greenlet go on at once."""
        self._ready.append(turn)

    def run(self) -> None:
        """Switch until `ended` is set."""
        while not self.ended:
            turns, self._ready = self._ready, []
            for turn in turns:
                turn.switch(0)
            self._run_timers()
            self._run_descriptors()

    def _run_timers(self) -> None:
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].switch(0)

    def _run_descriptors(self) -> None:
        left = 0.0 if self._ready else max(self._timers[0][0] - monotonic(), 0.0) if self._timers else 0.1
        for fd, mask in self._epoll.poll(left, 256):
            turn = self._waiting.get(fd)
            if turn is not None:
                failed = mask & (select.EPOLLERR | select.EPOLLHUP)
                can_read, can_write = mask & select.EPOLLIN or failed, mask & select.EPOLLOUT or failed
                turn.switch((_READ if can_read else 0) | (_WRITE if can_write else 0))


class Turn:
    """One wait of one greenlet, which ends once."""

    __slots__ = ("_greenlet",)

    def __init__(self, waiter: greenlet.greenlet) -> None:
        """Wait for `switch`."""
        self._greenlet: greenlet.greenlet | None = waiter

    def switch(self, found: int) -> None:
        """Go on with the greenlet, unless this wait has ended."""
        waiter, self._greenlet = self._greenlet, None
        if waiter is not None:
            waiter.switch(found) if waiter else waiter.switch()


class _Waker:
    """See `maintenance.base.runtime.Waker`."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._woken, self._turn = hub, False, None

    def wake(self) -> None:
        self._woken = True
        if self._turn is not None:
            self._hub.take(self._turn)

    def wait(self, timeout: float, *, fd: int | None = None) -> bool:
        if not self._woken and timeout > 0:
            self._turn = Turn(greenlet.getcurrent())
            self._hub.wait(timeout, fd=fd, turn=self._turn)
            self._turn = None
        woken, self._woken = self._woken, False
        return woken

    def close(self) -> None: ...


class _Event(threading.Event):
    """An event whose wait gives way. Only greenlets of one native thread share it."""

    hub: Hub

    def wait(self, timeout: float | None = None) -> bool:
        end = monotonic() + (60.0 if timeout is None else timeout)
        while not self.is_set() and (left := end - monotonic()) > 0:
            self.hub.wait(min(left, 0.05))
        return self.is_set()


def make_runtime(hub: Hub) -> Runtime:
    """Return a runtime whose threads are greenlets of this native thread."""
    kind = type("_Event", (_Event,), {"hub": hub})
    return Runtime(
        clock=REAL.clock, start=hub.spawn, event=kind, waker=lambda: _Waker(hub), sleep=lambda it: hub.wait(it) and None
    )


def take_over(hub: Hub) -> None:
    """Have each wait of psycopg give way."""

    def wait(gen: PQGen[Any], fileno: int, interval: float = 0.0, timeout: float | None = None) -> Any:
        try:
            events = next(gen)
            while True:
                events = gen.send(hub.wait(interval, fd=fileno, events=events))
        except StopIteration as ended:
            return ended.value

    def wait_conn(gen: PQGenConn[Any], interval: float = 0.0, timeout: float | None = None) -> Any:
        try:
            fileno, events = next(gen)
            while True:
                fileno, events = gen.send(hub.wait(interval, fd=fileno, events=events))
        except StopIteration as ended:
            return ended.value

    waiting.wait, waiting.wait_conn = wait, wait_conn
