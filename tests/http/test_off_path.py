"""What a request pays while maintenance is off, counted and not timed: no lock, few calls, little memory."""

import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.base.runtime import REAL
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware

Serve = Callable[[], None]

BODY = [b"open"]
ENVIRON = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/x"}
SCOPE = {"type": "http", "method": "GET", "path": "/x", "root_path": "", "headers": [], "client": None}


class Lock:
    """A lock that counts how often the thread of the test takes one."""

    taken = 0

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        Lock.taken += threading.current_thread() is threading.main_thread()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    return BODY


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    pass


def serve_wsgi(app: Any) -> Serve:
    def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
        pass

    def serve() -> None:
        body = app(ENVIRON, start_response)
        for _ in body:
            pass
        if body is not BODY:
            body.close()

    return serve


def serve_asgi(app: Any) -> Serve:
    def serve() -> None:
        request = app(SCOPE, None, None)
        try:
            request.send(None)
        except StopIteration:
            return
        raise AssertionError("it waits")

    return serve


KINDS = {
    ("wsgi", False): lambda state: serve_wsgi(WSGIMiddleware(wsgi_app, state, in_flight=False)),
    ("wsgi", True): lambda state: serve_wsgi(WSGIMiddleware(wsgi_app, state)),
    ("asgi", False): lambda state: serve_asgi(ASGIMiddleware(asgi_app, state, in_flight=False)),
    ("asgi", True): lambda state: serve_asgi(ASGIMiddleware(asgi_app, state)),
}


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{'tracked' if kind[1] else 'untracked'}")
def kind(request: pytest.FixtureRequest) -> tuple[str, bool]:
    found: tuple[str, bool] = request.param
    return found


@pytest.fixture
def serve(kind: tuple[str, bool], monkeypatch: pytest.MonkeyPatch) -> Serve:
    monkeypatch.setattr(Lock, "taken", 0)
    state = MaintenanceState("memory://", ttl=3600.0, runtime=replace(REAL, lock=Lock))
    state.refresh()
    wrapped = KINDS[kind](state)
    wrapped()
    return wrapped


def count_bytes(serve: Serve) -> int:
    """Return how many bytes a request holds at most, while it is served."""
    serve()
    tracing = sys.gettrace()
    sys.settrace(None)  # the measurement of coverage takes memory too
    tracemalloc.start()
    try:
        serve()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        serve()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
        sys.settrace(tracing)


def list_calls(serve: Serve) -> list[str]:
    """Return the functions that a request calls, by their names."""
    called: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            called.append(argument.__name__ if event == "c_call" else frame.f_code.co_name)

    sys.setprofile(note)
    try:
        serve()
    finally:
        sys.setprofile(None)
    return called


@pytest.mark.usefixtures("kind")
def test_it_takes_no_lock(serve: Serve) -> None:
    Lock.taken = 0
    for _ in range(1000):
        serve()
    assert Lock.taken == 0


CALLS = {
    ("wsgi", False): ["__call__", "clock_gettime", "wsgi_app"],
    ("wsgi", True): ["__call__", "clock_gettime", "append", "len", "get", "wsgi_app", "clear"],
    ("asgi", False): ["__call__", "clock_gettime", "asgi_app"],
    ("asgi", True): ["__call__", "clock_gettime", "append", "len", "asgi_app", "clear"],
}


def test_it_calls_nothing_more(kind: tuple[str, bool], serve: Serve) -> None:
    assert [name for name in list_calls(serve) if name not in ("serve", "send", "setprofile")] == CALLS[kind]


BYTES = {("wsgi", False): 100, ("wsgi", True): 450, ("asgi", False): 1000, ("asgi", True): 1100}
"""A third above what Python 3.11 takes. Most of it, over ASGI, is the two coroutines."""


def test_it_allocates_little(kind: tuple[str, bool], serve: Serve) -> None:
    assert count_bytes(serve) <= BYTES[kind]
