"""The process that forks a fleet, before any thread exists. The fleet ends with it, and it ends with its stdin.

Each line of its input is a JSON object, the options of `serve` for one more process.
"""

import ctypes
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

from maintenance import MaintenanceState
from maintenance.base.runtime import REAL
from maintenance.base.values import WhenStale
from maintenance.wsgi import MaintenanceMiddleware
from tests.torture.slots import Sight, Slots

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _end_with(parent: int) -> None:
    """Be killed when the parent ends, stopped or not."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Clock:
    """The machine's clock, which remembers what the thread that serves has read last.

    When the app is called, that is the reading on which its admission rests.
    """

    def __init__(self) -> None:
        self.last = 0.0
        self._thread = threading.get_ident()

    def __call__(self) -> float:
        now = REAL.clock()
        if threading.get_ident() == self._thread:
            self.last = now
        return now


class Member:
    """A process that asks itself for one page after the other."""

    def __init__(self, slots: Slots, slot: int, *, url: str, ttl: float, when_stale: WhenStale, pace: float) -> None:
        self._slots, self._slot, self._pace = slots, slot, pace
        self._clock = Clock()
        state = MaintenanceState(url, ttl=ttl, when_stale=when_stale, runtime=replace(REAL, clock=self._clock))
        self._app = MaintenanceMiddleware(self._handle, state)

    def serve(self) -> NoReturn:
        self._slots.set_pid(self._slot, os.getpid())
        while True:
            self._fork_if_asked()
            self._request()
            time.sleep(random.uniform(0, 2 * self._pace))

    def _fork_if_asked(self) -> None:
        child, parent = self._slots.take_fork(self._slot), os.getpid()
        if child is not None and os.fork() == 0:
            _end_with(parent)
            random.seed()
            self._slot = child
            self._slots.set_pid(child, os.getpid())

    def _request(self) -> None:
        told: list[str] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/page", "SCRIPT_NAME": "", "HTTP_ACCEPT": "*/*"}
        body: Any = self._app(environ, lambda status, headers, exc_info=None: told.append(status))
        for _ in body:
            pass
        if close := getattr(body, "close", None):
            close()
        self._slots.count(self._slot, admitted=told == ["200 OK"])

    def _handle(self, environ: Any, start_response: Callable[..., object]) -> list[bytes]:
        admitted = self._clock.last
        until = REAL.clock() + self._slots.take_linger(self._slot)
        self._slots.record(self._slot, Sight(admitted, REAL.clock()))
        while REAL.clock() < until:
            time.sleep(0.02)
            self._slots.record(self._slot, Sight(admitted, REAL.clock()))
        start_response("200 OK", [])
        return [b"page"]


def _fork(slots: Slots, options: dict[str, Any]) -> None:
    parent = os.getpid()
    if os.fork():
        return
    try:
        _end_with(parent)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        random.seed()
        Member(slots, **options).serve()
    except BaseException:  # noqa: BLE001 - it is shown, and the process ends
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def main() -> None:
    _end_with(os.getppid())
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead leave at once, also those of a stopped parent
    logging.getLogger("maintenance").setLevel(logging.ERROR)  # the faults of the trial make answers stale
    import_module("maintenance.stores.postgres.session")
    slots = Slots(Path(sys.argv[1]))
    for line in iter(sys.stdin.readline, ""):
        _fork(slots, json.loads(line))


if __name__ == "__main__":
    main()
