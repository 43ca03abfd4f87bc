"""An admitted request passes through the middleware untouched, and both adapters refuse alike."""

import io
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from wsgiref.util import setup_testing_defaults

import anyio
import anyio.lowlevel
import pytest

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import call_asgi, call_wsgi, http_scope
from tests.support.plain_apps import asgi, wsgi

each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def state() -> Iterator[MaintenanceState]:
    with closing(MaintenanceState("memory://", ttl=1000.0)) as state:
        yield state


@pytest.fixture(params=["off", "on"])
def either(request: pytest.FixtureRequest, state: MaintenanceState) -> MaintenanceState:
    """A state whose flag is off or on: an exempt request passes alike."""
    state.set(request.param == "on")
    return state


def in_flight(state: MaintenanceState) -> int | None:
    return state.status().in_flight


def make_environ(path: str) -> dict[str, Any]:
    environ: dict[str, Any] = {"PATH_INFO": path, "SCRIPT_NAME": "", "wsgi.input": io.BytesIO(b"input")}
    setup_testing_defaults(environ)
    return environ


def test_wsgi_passes_the_very_objects_and_each_chunk_as_it_comes(either: MaintenanceState) -> None:
    given: list[Any] = []
    calls: list[Any] = []
    pulled: list[int] = []
    headers = [("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("X-Odd", "\xe9")]
    exc_info = (None, None, None)

    def start_response(*args: Any) -> Callable[[bytes], None]:
        calls.append(args)
        return calls.append

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        given.extend([environ, start_response])
        start_response("299 Odd", headers, exc_info)(b"written")
        return chunks()

    def chunks() -> Iterator[bytes]:
        for number in range(3):
            pulled.append(number)
            yield b"" if number == 1 else b"%d" % number

    environ = make_environ("/health")
    before = dict(environ)
    body = WSGIMiddleware(app, either)(environ, start_response)
    assert given[0] is environ
    assert given[1] is start_response
    assert environ == before
    assert calls == [("299 Odd", headers, exc_info), b"written"]
    assert calls[0][1] is headers
    assert pulled == [], "nothing is pulled ahead"
    stream = iter(body)
    assert (next(stream), pulled) == (b"0", [0])
    assert list(stream) == [b"", b"2"]
    assert in_flight(either) == 1, "a stream is in flight until it is closed"
    body.close()  # type: ignore[attr-defined]
    assert in_flight(either) == 0


def test_wsgi_passes_an_exception_in_the_middle_of_a_body(state: MaintenanceState) -> None:
    error = LookupError("the app's")

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        raise error

    body = WSGIMiddleware(app, state)(make_environ("/x"), lambda *_: lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(LookupError) as raised:
        list(body)
    assert raised.value is error
    assert in_flight(state) == 1
    body.close()  # type: ignore[attr-defined]
    assert in_flight(state) == 0


@each_backend
def test_asgi_passes_the_very_objects_and_each_message_as_it_comes(backend: str, either: MaintenanceState) -> None:
    messages = [
        {"type": "http.response.start", "status": 299, "headers": [(b"A", b"1"), (b"a", b"2")], "trailers": True},
        {"type": "http.response.body", "body": b"one", "more_body": True},
        {"type": "http.response.pathsend", "path": "/x"},
        {"type": "http.response.trailers", "headers": [], "more_trailers": False},
    ]
    given: list[Any] = []
    sent: list[Any] = []
    counts: list[int | None] = []

    async def app(*args: Any) -> None:
        given.extend(args)
        for message in messages:
            await args[2](message)
            await anyio.lowlevel.checkpoint()
            counts.append(in_flight(either))

    async def receive() -> Any:
        raise AssertionError("the middleware received a message of the app")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = http_scope("/health", extensions={"http.response.pathsend": {}})
    before = dict(scope)

    async def main() -> None:
        await ASGIMiddleware(app, either)(scope, receive, send)

    anyio.run(main, backend=backend)
    assert [given[0] is scope, given[1] is receive, given[2] is send] == [True] * 3
    assert scope == before
    assert [ours is theirs for ours, theirs in zip(sent, messages, strict=True)] == [True] * 4
    assert counts == [1] * 4
    assert in_flight(either) == 0


@each_backend
@pytest.mark.parametrize("kind", ["websocket", "lifespan", "unknown"])
def test_asgi_passes_an_exception_of_every_scope(kind: str, backend: str, either: MaintenanceState) -> None:
    error = LookupError("the app's")

    async def app(*_: Any) -> None:
        raise error

    async def main() -> None:
        middleware = ASGIMiddleware(app, either, exempt=("/ws",), close_websockets=True)
        await middleware(http_scope("/ws", type=kind), None, None)  # type: ignore[arg-type]

    with pytest.raises(LookupError) as raised:
        anyio.run(main, backend=backend)
    assert raised.value is error
    assert in_flight(either) == 0


@each_backend
def test_an_unknown_scope_passes_untouched(backend: str, either: MaintenanceState) -> None:
    given: list[Any] = []

    async def app(*args: Any) -> None:
        given.extend(args)

    arguments = ({"type": "unknown"}, object(), object())

    async def main() -> None:
        await ASGIMiddleware(app, either)(*arguments)  # type: ignore[arg-type]

    anyio.run(main, backend=backend)
    assert [ours is theirs for ours, theirs in zip(given, arguments, strict=True)] == [True] * 3


@pytest.mark.parametrize("accept", [None, "text/html", "application/json", "text/plain", "*/*;q=0.1, text/html;q=0"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_both_adapters_send_the_same_refusal(accept: str | None, method: str, state: MaintenanceState) -> None:
    state.set(True, message="Zurück um 5", retry_after=30)
    options: dict[str, Any] = {"method": method, "headers": {"Accept": accept} if accept else None}
    refusal = call_wsgi(WSGIMiddleware(wsgi, state), **options)
    assert refusal == call_asgi(ASGIMiddleware(asgi, state), **options)
    assert (refusal.status, refusal.headers["vary"]) == (503, "Accept, Accept-Language")
    assert (refusal.body == b"") is (method == "HEAD")
