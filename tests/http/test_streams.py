"""Event streams: named while they run, and ended by a flip if that is asked for, over both adapters."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.base.runtime import REAL
from maintenance.http.open import OpenTable
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import http_scope
from tests.support.clock import refuse
from tests.support.waiting import eventually

ENVIRON = {"REQUEST_METHOD": "GET", "PATH_INFO": "/events", "SCRIPT_NAME": "", "HTTP_ACCEPT": "text/event-stream"}
SCOPE = http_scope("/events", headers=[(b"accept", b"text/event-stream")])
ENDING = "ends streams"
TYPES = ["text/event-stream; charset=utf-8", "Text/Event-Stream"]


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are ended in a thread that a tracer can follow."""
    beside = replace(REAL, start=lambda run: threading.Thread(target=run, name=ENDING).start())
    monkeypatch.setattr("maintenance.http.open.REAL", beside)


@pytest.fixture
def state() -> Iterator[MaintenanceState]:
    with closing(MaintenanceState("memory://")) as opened:
        opened.refresh()
        yield opened


def count(state: MaintenanceState) -> int:
    load = state._sources.measure(state.lease.flags)
    assert load is not None
    return load.in_flight


class Stream:
    """A WSGI app that streams until it is told to stop, and its body."""

    def __init__(self, content_type: str, *, lazy: bool = False) -> None:
        self.content_type, self.lazy = content_type, lazy
        self.closed = 0

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        headers = [("Content-Type", self.content_type)]
        if not self.lazy:
            start_response("200 OK", headers)
        self._start: Callable[[], object] = lambda: start_response("200 OK", headers)
        return self

    def __iter__(self) -> Iterator[bytes]:
        if self.lazy:
            self._start()
        while True:
            yield b"data: 1\n\n"

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("content_type", TYPES)
def test_under_wsgi_a_stream_ends_at_its_next_piece(state: MaintenanceState, content_type: str, *, lazy: bool) -> None:
    stream = Stream(content_type, lazy=lazy)
    body: Any = WSGIMiddleware(stream, state, close_streams=True)(ENVIRON, lambda *_: None)
    pieces = iter(body)
    assert [next(pieces), next(pieces)] == [b"data: 1\n\n"] * 2
    state.set(True, scope="shop")
    assert next(pieces) == b"data: 1\n\n", "another part of the site was closed"
    state.set(True)
    eventually(lambda: next(pieces, None) is None)
    assert (count(state), stream.closed) == (1, 0)
    body.close()
    assert (count(state), stream.closed) == (0, 1)


def test_without_a_thread_the_flip_counts_all_the_same(
    state: MaintenanceState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pieces = iter(WSGIMiddleware(Stream(TYPES[0]), state, close_streams=True)(ENVIRON, lambda *_: None))
    next(pieces)
    monkeypatch.setattr("maintenance.http.open.REAL", replace(REAL, start=refuse))
    assert state.set(True).enabled
    assert "open WebSockets and streams stay open, because no thread can be started" in caplog.text
    assert next(pieces)


@contextmanager
def ended_by_a_flip(state: MaintenanceState) -> Iterator[None]:
    """Flip, and go on once another stream, which is entered later, has been ended."""
    other: Any = WSGIMiddleware(Stream(TYPES[0]), state, close_streams=True)(ENVIRON, lambda *_: None)
    pieces = iter(other)
    next(pieces)
    state.set(True)
    eventually(lambda: next(pieces, None) is None)
    yield
    other.close()


@pytest.mark.parametrize("options", [{}, {"close_streams": True, "exempt": ["/events"]}])
def test_under_wsgi_other_streams_go_on(state: MaintenanceState, options: dict[str, Any]) -> None:
    pieces = iter(WSGIMiddleware(Stream(TYPES[0]), state, **options)(ENVIRON, lambda *_: None))
    next(pieces)
    with ended_by_a_flip(state):
        assert next(pieces)


@pytest.mark.parametrize("lazy", [False, True])
def test_under_wsgi_only_event_streams_are_ended(state: MaintenanceState, *, lazy: bool) -> None:
    app = WSGIMiddleware(Stream("text/csv", lazy=lazy), state, close_streams=True)
    pieces = iter(app(ENVIRON, lambda *_: None))
    next(pieces)
    with ended_by_a_flip(state):
        assert next(pieces)


def test_under_wsgi_a_stream_that_was_overtaken_by_a_flip_sends_nothing(state: MaintenanceState) -> None:
    body: Any = WSGIMiddleware(Stream(TYPES[0]), state, close_streams=True)(ENVIRON, lambda *_: None)
    state.set(True)
    assert list(body) == []


def test_under_wsgi_a_flip_at_the_first_piece_is_not_lost(
    state: MaintenanceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenTable, "add", lambda _, opened: opened.end())
    body: Any = WSGIMiddleware(Stream(TYPES[0]), state, close_streams=True)(ENVIRON, lambda *_: None)
    assert list(body) == []


def test_under_wsgi_a_stream_without_a_close_is_closed(state: MaintenanceState) -> None:
    def app(_: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", TYPES[0])])
        return iter([b"one"])

    body: Any = WSGIMiddleware(app, state, close_streams=True)(ENVIRON, lambda *_: None)
    assert list(body) == [b"one"]
    body.close()
    assert count(state) == 0


def stream_asgi(content_type: str, *, ended: list[str]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", content_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
                await anyio.sleep(0.005)
        finally:
            ended.append(scope["path"])

    return app


async def run(app: Any, state: MaintenanceState, scope: Any, *, flip: Callable[[], object]) -> list[Any]:
    """Serve one stream; flip after its third message."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 3:
            flip()
        await anyio.lowlevel.checkpoint()

    with anyio.move_on_after(0.5):
        await app(scope, anyio.sleep_forever, send)
    assert count(state) == 0
    return sent


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("content_type", TYPES)
def test_under_asgi_a_stream_is_cancelled_and_completed(
    state: MaintenanceState, content_type: str, backend: str
) -> None:
    ended: list[str] = []
    app = ASGIMiddleware(stream_asgi(content_type, ended=ended), state, close_streams=True)
    flip = lambda: state.set(True)  # noqa: E731
    sent = anyio.run(lambda: run(app, state, SCOPE, flip=flip), backend=backend)
    assert ended == ["/events"]
    assert sent[-1] == {"type": "http.response.body", "body": b""}


def test_under_asgi_the_work_after_a_complete_stream_is_not_cancelled(state: MaintenanceState) -> None:
    saved: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", TYPES[0].encode())]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n"})
        await send({"type": "http.response.trailers", "headers": []})
        state.set(True)
        await anyio.to_thread.run_sync(lambda: eventually(_nothing_ends))
        await anyio.lowlevel.checkpoint()  # where a cancelled task would end
        saved.append("the transcript")  # as a background task does

    wrapped = ASGIMiddleware(app, state, close_streams=True)
    sent = anyio.run(lambda: run(wrapped, state, SCOPE, flip=lambda: None))
    assert [message.get("body") for message in sent] == [None, b"data: 1\n\n", None]
    assert saved == ["the transcript"]


def _nothing_ends() -> bool:
    return not any(thread.name == ENDING for thread in threading.enumerate())


def test_under_asgi_a_secret_link_admits_to_streams_with_every_option(state: MaintenanceState) -> None:
    token = state.set(True, secret=True).token
    scope = http_scope("/events", headers=[*SCOPE["headers"], (b"maintenance-bypass", str(token).encode())])
    for more in ({}, {"close_websockets": True}):
        app = ASGIMiddleware(stream_asgi(TYPES[0], ended=[]), state, close_streams=True, **more)
        sent = anyio.run(lambda app=app: run(app, state, scope, flip=lambda: None))
        assert sent[-1].get("body") == b"data: 1\n\n"


@pytest.mark.parametrize(
    ("content_type", "options"),
    [
        (TYPES[0], {}),
        ("text/csv", {"close_streams": True}),
        (TYPES[0], {"close_streams": True, "exempt": ["/events"]}),
    ],
)
def test_under_asgi_others_go_on(state: MaintenanceState, content_type: str, options: dict[str, Any]) -> None:
    app = ASGIMiddleware(stream_asgi(content_type, ended=[]), state, **options)
    sent = anyio.run(lambda: run(app, state, SCOPE, flip=lambda: state.set(True)))
    assert sent[-1]["body"] == b"data: 1\n\n"


def test_under_asgi_a_stream_that_was_overtaken_by_a_flip_is_ended(state: MaintenanceState) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        state.set(True)
        await stream_asgi(TYPES[0], ended=[])(scope, receive, send)

    wrapped = ASGIMiddleware(app, state, close_streams=True)
    sent = anyio.run(lambda: run(wrapped, state, SCOPE, flip=lambda: None))
    assert sent[-1] == {"type": "http.response.body", "body": b""}
    assert len(sent) <= 3, "it ends at its first pause"


def test_other_scopes_pass(state: MaintenanceState) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    wrapped = ASGIMiddleware(app, state, close_streams=True)
    for kind in ("websocket", "unknown"):
        anyio.run(wrapped, {**SCOPE, "type": kind}, None, None)
    assert seen == ["websocket", "unknown"]


@pytest.mark.parametrize("accept", ["text/event-stream", "text/html"])
def test_a_drain_names_what_is_a_stream(state: MaintenanceState, accept: str) -> None:
    app = WSGIMiddleware(Stream(TYPES[0]), state)
    body = app({**ENVIRON, "HTTP_ACCEPT": accept}, lambda *_: None)
    load = state._sources.measure(state.lease.flags)
    assert load is not None
    assert load.oldest == ("GET /events (event stream)" if accept == "text/event-stream" else "GET /events")
    del body
