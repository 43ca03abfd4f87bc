"""The edge: clocks, native threads and their wakers. A simulation replaces all of it."""

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
    """Seconds on a clock that also runs while the machine is suspended. CLOCK_MONOTONIC stops then on Linux."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None and sys.platform == "darwin":
        clock = time.CLOCK_MONOTONIC  # it counts the sleep there
    return time.monotonic if clock is None else functools.partial(time.clock_gettime, clock)


def _native(module: str, name: str) -> Any:
    """A function of the standard library, without gevent's patch.

    The background thread must be a real one: a green thread that waits for PostgreSQL freezes the worker (measured).
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
    # A native lock, because it is held for a few instructions and never across a switch of green threads.
    lock: contextlib.AbstractContextManager[Any] = _native("_thread", "allocate_lock")()
    return lock


def has_frozen_threads() -> bool:
    """Whether a server runs threads only while a request runs, as uWSGI before 2.0.27 does without `enable-threads`.

    A thread that reads there is frozen in the middle of a read, and takes the time for one that the store needs.
    """
    uwsgi = sys.modules.get("uwsgi")
    version: tuple[Any, ...] = getattr(uwsgi, "version_info", (3,))
    return version < (2, 0, 27) and getattr(uwsgi, "opt", {}).keys().isdisjoint(("enable-threads", "threads"))


def run_beside(function: Callable[[], None], limit: float) -> None:
    """Run a function in a native thread, and wait for its end for `limit` seconds at most, in gevent's hub too.

    Raises:
        RuntimeError: No thread can be started.
    """
    running = _native("_thread", "allocate_lock")()
    running.acquire()

    def run() -> None:
        try:
            function()
        finally:
            running.release()

    _start(run)
    running.acquire(timeout=limit)


def find_addresses(host: str, port: str) -> list[str]:
    """The addresses of a host name, in the resolver's order. It blocks this thread for as long as the resolver takes.

    Raises:
        OSError, UnicodeError: There is none.
    """
    found = _native("socket", "getaddrinfo")(host, port, proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(address for *_, (address, *_) in found))


class Waker(Protocol):
    """Ends the wait of the background thread, from any thread, green ones included."""

    def wake(self) -> None:
        """End the present wait, or the next one."""

    def wait(self, timeout: float, *, fd: int | None = None) -> bool:
        """Wait until `wake` is called or `fd` can be read, for `timeout` seconds at most; True if `wake` was called."""

    def close(self) -> None:
        """Release the resources. From now on, `wake` does nothing."""


class SocketWaker:
    """See `Waker`."""

    def __init__(self) -> None:
        """Open a pair of sockets: every platform can wait for them together with a connection."""
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def wake(self) -> None:
        """See `Waker.wake`."""
        # Full means woken already; closed means that no thread waits any more.
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
    # poll, because select refuses descriptors above 1023, and a busy server has those.
    try:
        poller = _native("select", "poll")()
    except AttributeError:  # Windows
        _native("select", "select")(descriptors, [], [], timeout)
        return
    for descriptor in descriptors:
        poller.register(descriptor, 1)  # POLLIN; poll always reports hang-ups and errors
    poller.poll(timeout * 1000)


class _Nobody:
    """A waker until the thread starts. A real one takes two descriptors, and there may be none left."""

    def wake(self) -> None: ...

    def wait(self, timeout: float, *, fd: int | None = None) -> bool:  # noqa: ARG002 - the protocol's
        return False

    def close(self) -> None: ...


NOBODY: Final[Waker] = _Nobody()


def is_importing() -> bool:
    """Whether an import calls the caller. A server may fork after it."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - CPython and PyPy have no public name for it
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def is_ending() -> bool:
    """Whether the interpreter waits for its last threads to end. A thread that waits for something must not go on."""
    # The first is set before the threads of an executor are joined, and has no public name.
    return getattr(threading, "_SHUTTING_DOWN", False) or not threading.main_thread().is_alive()


def is_gone(pid: int) -> bool:
    """Whether no process of this namespace has that pid."""
    try:
        os.kill(pid, 0)
    except OSError as exc:
        return isinstance(exc, ProcessLookupError)
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The parts of the machine that a state uses.

    Attributes:
        clock: Seconds, of this machine only, also while it is suspended.
        start: Runs a function in a daemon thread; raises RuntimeError if none can be started.
        lock: Makes a lock.
        event: Makes an event that a request waits for; cooperative under gevent.
        waker: Makes the waker of the background thread.
        sleep: Waits in the caller's thread.
        pid: The process id, which a fork changes.
        is_gone: Whether no process of this namespace has a pid.
        uniform: A random float between two others.
    """

    clock: Callable[[], float] = _boot_clock()
    start: Callable[[Callable[[], None]], None] = _start
    lock: Callable[[], contextlib.AbstractContextManager[Any]] = _lock
    event: Callable[[], threading.Event] = lambda: threading.Event()  # looked up late: gevent may patch it
    waker: Callable[[], Waker] = SocketWaker
    sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds)
    pid: Callable[[], int] = os.getpid
    is_gone: Callable[[int], bool] = is_gone
    # Not the generator that the app may have seeded, and one that no fork repeats.
    uniform: Callable[[float, float], float] = random.SystemRandom().uniform


REAL: Final = Runtime()


def boot_id() -> str:
    """The id of this boot and process namespace. A pid has a meaning only inside both.

    Returns:
        Empty if the system has none (other than Linux). Then no process ever counts as gone.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
