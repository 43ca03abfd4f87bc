"""The edge: clocks, native threads and what wakes them. Everything here can be replaced by a simulation."""

import contextlib
import functools
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol


def _boot_clock() -> Callable[[], float]:
    """Seconds on a clock that also runs while the machine is suspended: CLOCK_MONOTONIC stands still on Linux."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None and sys.platform == "darwin":
        clock = time.CLOCK_MONOTONIC  # which counts the sleep there
    return time.monotonic if clock is None else functools.partial(time.clock_gettime, clock)


def _native(module: str, name: str) -> Any:
    """A function of the standard library as it was before gevent patched it.

    The background thread must be a real one: in a green thread a wait for PostgreSQL freezes the worker (measured).
    """
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module, name) if monkey else getattr(import_module(module), name)


def _start(function: Callable[[], None]) -> None:
    """Run a function in a native daemon thread.

    Raises:
        RuntimeError: No thread can be started, as during shutdown.
    """
    _native("_thread", "start_new_thread")(function, ())


def _lock() -> contextlib.AbstractContextManager[Any]:
    # Native: it is held for a few instructions only, never across a switch of green threads.
    lock: contextlib.AbstractContextManager[Any] = _native("_thread", "allocate_lock")()
    return lock


class Waker(Protocol):
    """Ends the background thread's wait, from any thread, and from a green one."""

    def wake(self) -> None:
        """End the wait that is under way, or else the next one."""

    def wait(self, timeout: float, *, fd: int | None = None) -> bool:
        """Wait until `wake` is called or `fd` can be read, for `timeout` seconds at most; True where woken."""

    def close(self) -> None:
        """Let go; from now on, `wake` does nothing."""


class SocketWaker:
    """See `Waker`."""

    def __init__(self) -> None:
        """Open a pair of sockets, which every platform can wait for together with a connection."""
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def wake(self) -> None:
        """See `Waker.wake`."""
        # Full means woken already; closed means that nobody waits any more.
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def wait(self, timeout: float, *, fd: int | None = None) -> bool:
        """See `Waker.wait`."""
        _wait_readable([self._reader.fileno(), *([] if fd is None else [fd])], max(timeout, 0.0))
        try:
            return bool(self._reader.recv(4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """See `Waker.close`."""
        self._reader.close()
        self._writer.close()


def _wait_readable(descriptors: list[int], timeout: float) -> None:
    # poll, because select refuses descriptors above 1023, which a busy server has.
    try:
        poller = _native("select", "poll")()
    except AttributeError:  # Windows
        _native("select", "select")(descriptors, [], [], timeout)
        return
    for descriptor in descriptors:
        poller.register(descriptor, 1)  # POLLIN; hang-ups and errors are always told
    poller.poll(timeout * 1000)


class _Nobody:
    """Stands for a waker until the thread is started: a real one takes two descriptors, and there may be none left."""

    def wake(self) -> None: ...

    def wait(self, timeout: float, *, fd: int | None = None) -> bool:  # noqa: ARG002 - a waker's
        return False

    def close(self) -> None: ...


NOBODY: Final[Waker] = _Nobody()


def is_importing() -> bool:
    """Whether the caller is called by an import: a server may fork once that is done."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - CPython's and PyPy's own way to ask
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def is_gone(pid: int) -> bool:
    """Whether no process of this namespace has that pid."""
    try:
        os.kill(pid, 0)
    except OSError as exc:
        return isinstance(exc, ProcessLookupError)
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What a state takes from the machine that it runs on.

    Attributes:
        clock: Seconds, of this machine only, also while it is suspended.
        start: Runs a function in a daemon thread; raises RuntimeError where none can be started.
        lock: Makes a lock.
        event: Makes an event that a request waits for; cooperative under gevent.
        waker: Makes what ends the background thread's wait.
        sleep: Waits, in the caller's thread.
        pid: The process id, which a fork changes.
        is_gone: Whether no process of this namespace has a pid.
        uniform: A random float between two others.
    """

    clock: Callable[[], float] = _boot_clock()
    start: Callable[[Callable[[], None]], None] = _start
    lock: Callable[[], contextlib.AbstractContextManager[Any]] = _lock
    event: Callable[[], threading.Event] = lambda: threading.Event()  # when it is called: gevent may patch it
    waker: Callable[[], Waker] = SocketWaker
    sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds)
    pid: Callable[[], int] = os.getpid
    is_gone: Callable[[int], bool] = is_gone
    uniform: Callable[[float, float], float] = random.uniform


REAL: Final = Runtime()


def boot_id() -> str:
    """What tells one boot and one process namespace from another: a pid means something only inside both.

    Returns:
        Empty where the system does not tell (other than Linux); then no pid is ever taken for gone.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
