"""Time that stands still until a test moves it, and threads that a test lets run, hang or fail."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

from maintenance.base.runtime import REAL, Runtime


@dataclass(slots=True)
class Clock:
    """A clock that a test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Waits:
    """Makes events whose waits take no real time. Each wait moves the clock by all that it was allowed.

    Attributes:
        waited: The seconds that each wait was allowed.
        meanwhile: Called during each wait.
        once: Called during one wait each, in order, before `meanwhile` is.
    """

    clock: Clock
    waited: list[float] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None
    once: list[Callable[[], object]] = field(default_factory=list)

    def event(self) -> "_Event":
        return _Event(self)


class _Event:
    def __init__(self, waits: Waits) -> None:
        self._waits, self._set = waits, False

    def set(self) -> None:
        self._set = True

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None, "a request waits without an end"
        self._waits.waited.append(timeout)
        action = self._waits.once.pop(0) if self._waits.once else self._waits.meanwhile
        action()
        if not self._set:
            self._waits.clock.now += timeout
        return self._set


class Bell:
    """A waker without sockets, for a watcher whose thread does not run."""

    def __init__(self) -> None:
        self.rings = 0

    def wake(self) -> None:
        self.rings += 1

    def wait(self, timeout: float, *, fd: int | None = None) -> bool:
        raise AssertionError("no thread runs that could wait")

    def close(self) -> None:
        pass


@dataclass(slots=True)
class Sleeper:
    """A waker whose waits take no real time. Each moves the clock by all of it, unless it was woken before."""

    clock: Clock
    slept: list[float] = field(default_factory=list)
    woken: bool = False
    closed: bool = False
    meanwhile: Callable[[], object] = lambda: None

    def wake(self) -> None:
        self.woken = True

    def wait(self, timeout: float, *, fd: int | None = None) -> bool:
        self.slept.append(timeout)
        self.meanwhile()
        woken, self.woken = self.woken, False
        if not woken:
            self.clock.now += max(timeout, 0.0)
        return woken

    def close(self) -> None:
        self.closed = True


class Queue:
    """A lock that another thread has first."""

    def __init__(self) -> None:
        self.first: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        first, self.first = self.first, lambda: None
        first()
        return self

    def __exit__(self, *_: object) -> None:
        pass


def refuse(_: Callable[[], None]) -> None:
    """Starts no thread, as during shutdown."""
    raise RuntimeError("can't start new thread")


def hang(_: Callable[[], None]) -> None:
    """Starts a thread that never runs."""


def runtime(clock: Clock, **changed: Any) -> Runtime:
    """The real machine with the test's clock and other parts of the test's. Without a thread, it has no real waker."""
    waker = {"waker": Bell} if changed.get("start") in (refuse, hang) else {}
    return replace(REAL, **{"clock": clock, **waker, **changed})
