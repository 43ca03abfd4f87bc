"""Each framework's idiom, and what a middleware must not touch: off, it is as if it were not there."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import anyio
import anyio.lowlevel
import django
import httpx
import psycopg
import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import override_settings
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from maintenance import MaintenanceState, Request
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import Answer, acall_asgi, call_wsgi, http_scope
from tests.support.waiting import eventually

each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def state() -> Iterator[MaintenanceState]:
    with closing(MaintenanceState("memory://", ttl=1000.0)) as state:
        state.set(False)
        yield state


def in_flight(state: MaintenanceState) -> int | None:
    return state.status().in_flight


def get_all(app: Any, *paths: str, backend: str = "asyncio") -> dict[str, tuple[int, bytes]]:
    """Ask an app through httpx's own transport for it."""

    async def ask() -> dict[str, tuple[int, bytes]]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            answers = [await client.get(path) for path in paths]
            return {path: (answer.status_code, answer.content) for path, answer in zip(paths, answers, strict=True)}

    return anyio.run(ask, backend=backend)


def get_wsgi(app: Any, *paths: str) -> dict[str, tuple[int, bytes]]:
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as client:
        return {path: ((answer := client.get(path)).status_code, answer.content) for path in paths}


@each_backend
def test_fastapi(backend: str, state: MaintenanceState) -> None:
    app = FastAPI()

    @app.get("/{path:path}")
    async def index(path: str) -> dict[str, str]:
        return {"path": path}

    app.add_middleware(ASGIMiddleware, state=state, exempt=("/open",))
    assert get_all(app, "/", "/open/x", backend=backend) == {
        "/": (200, b'{"path":""}'),
        "/open/x": (200, b'{"path":"open/x"}'),
    }
    state.set(True)
    told = get_all(app, "/", "/open/x", "/health", "/nowhere", backend=backend)
    assert {path: status for path, (status, _) in told.items()} == {
        "/": 503,
        "/open/x": 200,
        "/health": 200,
        "/nowhere": 503,
    }


def test_starlette_with_a_mounted_app_of_which_only_that_part_is_under_maintenance(state: MaintenanceState) -> None:
    async def page(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    part = Starlette(routes=[Route("/{path:path}", page)])
    part.add_middleware(ASGIMiddleware, state=state)
    app = Starlette(routes=[Mount("/part", part), Route("/{path:path}", page)])
    state.set(True)
    told = get_all(app, "/", "/part/", "/part/x", "/part/health", "/part/admin/x", "/health")
    assert {path: status for path, (status, _) in told.items()} == {
        "/": 200,
        "/part/": 503,
        "/part/x": 503,
        "/part/health": 200,
        "/part/admin/x": 200,
        "/health": 200,
    }


def test_flask(state: MaintenanceState) -> None:
    app = Flask("example")

    @app.get("/")
    @app.get("/health")
    def index() -> str:
        return "the app"

    app.wsgi_app = WSGIMiddleware(app.wsgi_app, state)  # type: ignore[method-assign]
    with app.test_client() as client:
        assert client.get("/", buffered=True).data == b"the app"
        state.set(True)
        told = [client.get(path, buffered=True).status_code for path in ("/", "/health")]
        assert told == [503, 200]
    assert in_flight(state) == 0


@pytest.fixture
def django_project(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.support.django_settings")
    django.setup()
    with override_settings(ROOT_URLCONF="tests.apps.django_urls"):
        yield


def test_django_wsgi(django_project: None, state: MaintenanceState) -> None:
    application = WSGIMiddleware(get_wsgi_application(), state)
    assert get_wsgi(application, "/", "/stream") == {"/": (200, b"the app"), "/stream": (200, b"one,two")}
    assert call_wsgi(application, "/", root="/site").headers["x-script"] == "/site"
    assert in_flight(state) == 0
    state.set(True)
    told = get_wsgi(application, "/", "/health", "/stream")
    assert {path: status for path, (status, _) in told.items()} == {"/": 503, "/health": 200, "/stream": 503}


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators:Warning")
def test_django_asgi(django_project: None, state: MaintenanceState) -> None:
    application = ASGIMiddleware(get_asgi_application(), state)
    assert get_all(application, "/", "/stream") == {"/": (200, b"the app"), "/stream": (200, b"one,two")}
    state.set(True)
    told = get_all(application, "/", "/health", "/stream")
    assert {path: status for path, (status, _) in told.items()} == {"/": 503, "/health": 200, "/stream": 503}
    assert in_flight(state) == 0


def test_django_refuses_lifespan_as_it_does_without_the_middleware(
    django_project: None, state: MaintenanceState
) -> None:
    async def nothing(*_: Any) -> Any: ...

    with pytest.raises(ValueError, match="lifespan"):
        asyncio.run(ASGIMiddleware(get_asgi_application(), state)({"type": "lifespan"}, nothing, nothing))


# What is off is not there.


def wsgi_args(**more: Any) -> tuple[dict[str, Any], list[Any], Callable[..., Any]]:
    environ: dict[str, Any] = {"PATH_INFO": "/x", "SCRIPT_NAME": "", "wsgi.input": io.BytesIO(b"input"), **more}
    setup_testing_defaults(environ)
    calls: list[Any] = []

    def start_response(*args: Any) -> Callable[[bytes], None]:
        calls.append(args)
        return calls.append

    return environ, calls, start_response


@pytest.mark.parametrize("on", [False, True])
def test_wsgi_hands_everything_through_untouched(on: bool, state: MaintenanceState) -> None:
    """The very objects: status, headers, exc_info, the write callable, the environ, and each chunk as it comes."""
    state.set(on)
    given: list[Any] = []
    headers = [("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("X-Odd", "\xe9")]
    exc_info = (None, None, None)
    pulled: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        given.extend([environ, start_response])
        start_response("299 Odd", headers, exc_info)(b"written")
        return chunks()

    def chunks() -> Iterator[bytes]:
        for number in range(3):
            pulled.append(number)
            yield b"" if number == 1 else b"%d" % number

    environ, calls, start_response = wsgi_args(PATH_INFO="/health")
    before = dict(environ)
    body = WSGIMiddleware(app, state)(environ, start_response)
    assert given == [environ, start_response]
    assert given[0] is environ
    assert environ == before
    assert calls[0] == ("299 Odd", headers, exc_info)
    assert calls[0][1] is headers
    assert calls[1] == b"written"
    assert pulled == [], "nothing is pulled ahead"
    stream = iter(body)
    assert (next(stream), pulled) == (b"0", [0])
    assert in_flight(state) == 1, "a stream is in flight until it is closed"
    assert list(stream) == [b"", b"2"]
    assert in_flight(state) == 1
    body.close()  # type: ignore[attr-defined]
    assert in_flight(state) == 0


@each_backend
@pytest.mark.parametrize("on", [False, True])
def test_asgi_hands_everything_through_untouched(backend: str, on: bool, state: MaintenanceState) -> None:
    state.set(on)
    start = {"type": "http.response.start", "status": 299, "headers": [(b"A", b"1"), (b"a", b"2")], "trailers": True}
    messages = [
        start,
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
            counts.append(in_flight(state))

    async def receive() -> Any:
        raise AssertionError("the middleware has asked for what is the app's")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = http_scope("/health", extensions={"http.response.pathsend": {}})
    before = dict(scope)

    async def main() -> None:
        await ASGIMiddleware(app, state)(scope, receive, send)

    anyio.run(main, backend=backend)
    assert [given[0] is scope, given[1] is receive, given[2] is send] == [True] * 3
    assert scope == before
    assert [ours is theirs for ours, theirs in zip(sent, messages, strict=True)] == [True] * 4
    assert counts == [1] * 4
    assert in_flight(state) == 0


def test_lists_and_tuples_stay_of_the_length_that_servers_look_at(state: MaintenanceState) -> None:
    """A server makes a Content-Length out of a body of one chunk (PEP 3333)."""
    for whole in ([b"one"], (b"one",), [], [b"one", b"two"]):
        environ, _, start_response = wsgi_args()
        body = WSGIMiddleware(lambda e, s, whole=whole: (s("200 OK", []), whole)[1], state)(environ, start_response)
        assert len(body) == len(whole)  # type: ignore[arg-type]
        assert list(body) == list(whole)
        assert in_flight(state) == 1
        body.close()  # type: ignore[attr-defined]
        assert in_flight(state) == 0


def test_a_file_stays_what_the_server_has_made_of_it(state: MaintenanceState) -> None:
    closed: list[str] = []

    class File(io.BytesIO):
        def close(self) -> None:
            closed.append("file")
            super().close()

    made: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        made.append(environ["wsgi.file_wrapper"](File(b"content"), 3))
        return made[-1]

    environ, _, start_response = wsgi_args(**{"wsgi.file_wrapper": FileWrapper})
    body = WSGIMiddleware(app, state)(environ, start_response)
    assert body is made[0]
    assert type(body) is FileWrapper
    assert in_flight(state) == 1
    assert b"".join(body) == b"content"
    body.close()  # type: ignore[attr-defined]
    assert (in_flight(state), closed) == (0, ["file"])


def test_a_file_wrapper_that_cannot_be_hooked_is_not_wrapped_either(state: MaintenanceState) -> None:
    class Sealed:
        __slots__ = ("file",)

        def __init__(self, file: Any, size: int = 8192) -> None:
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.file)

        def close(self) -> None:
            self.file.close()

    file = io.BytesIO(b"content")
    environ, _, start_response = wsgi_args(**{"wsgi.file_wrapper": Sealed})
    app = WSGIMiddleware(lambda e, s: (s("200 OK", []), e["wsgi.file_wrapper"](file))[1], state)
    body = app(environ, start_response)
    assert type(body) is Sealed
    assert in_flight(state) == 0
    body.close()
    assert file.closed


class AppError(Exception):
    pass


def test_an_exception_of_a_wsgi_app_is_the_servers_to_see(state: MaintenanceState) -> None:
    error = AppError("mine")

    def at_once(environ: Any, start_response: Any) -> Any:
        raise error

    def later(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        raise error

    environ, _, start_response = wsgi_args()
    with pytest.raises(AppError) as raised:
        WSGIMiddleware(at_once, state)(environ, start_response)
    assert raised.value is error
    assert in_flight(state) == 0
    body = WSGIMiddleware(later, state)(environ, start_response)
    with pytest.raises(AppError) as raised:
        list(body)
    assert raised.value is error
    assert in_flight(state) == 1
    body.close()  # type: ignore[attr-defined]
    assert in_flight(state) == 0


def test_a_body_whose_own_close_fails_has_left_nevertheless(state: MaintenanceState) -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"one"])

        def close(self) -> None:
            raise AppError

    environ, _, start_response = wsgi_args()
    body = WSGIMiddleware(lambda e, s: (s("200 OK", []), Body())[1], state)(environ, start_response)
    with pytest.raises(AppError):
        body.close()  # type: ignore[attr-defined]
    assert in_flight(state) == 0


@each_backend
@pytest.mark.parametrize("kind", ["http", "websocket", "lifespan", "unheard-of"])
def test_an_exception_of_an_asgi_app_is_the_servers_to_see(kind: str, backend: str, state: MaintenanceState) -> None:
    error = AppError("mine")

    async def app(*_: Any) -> None:
        raise error

    async def main() -> None:
        await ASGIMiddleware(app, state, close_websockets=True)(http_scope(type=kind), None, None)  # type: ignore[arg-type]

    with pytest.raises(AppError) as raised:
        anyio.run(main, backend=backend)
    assert raised.value is error
    assert in_flight(state) == 0


@each_backend
def test_cancelling_a_request_ends_it(backend: str, state: MaintenanceState) -> None:
    async def app(*_: Any) -> None:
        await anyio.sleep_forever()

    async def main() -> None:
        with anyio.move_on_after(0.05) as scope:
            await ASGIMiddleware(app, state)(http_scope(), None, None)  # type: ignore[arg-type]
        assert scope.cancelled_caught
        assert in_flight(state) == 0

    anyio.run(main, backend=backend)


@each_backend
def test_unknown_scopes_pass_whatever_the_flag_says(backend: str, state: MaintenanceState) -> None:
    state.set(True)
    given: list[Any] = []

    async def app(*args: Any) -> None:
        given.extend(args)

    arguments = ({"type": "unheard-of"}, object(), object())

    async def main() -> None:
        await ASGIMiddleware(app, state)(*arguments)  # type: ignore[arg-type]

    anyio.run(main, backend=backend)
    assert [ours is theirs for ours, theirs in zip(given, arguments, strict=True)] == [True] * 3


# Lifespan.


@each_backend
def test_lifespan_starts_and_ends_with_the_server(backend: str, migrated_url: str) -> None:
    """The thread reads ahead of the first request, and the row is gone by the time that the app's call returns."""
    seen: list[str] = []
    rows: list[int] = []

    def count() -> int:
        with psycopg.connect(migrated_url) as connection:
            [row] = connection.execute("SELECT count(*) FROM maintenance_instances WHERE pid <> 0").fetchall()
        return int(row[0])

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        seen.append("startup")
        yield {"of": "the app"}
        seen.append("shutdown")

    async def main(app: Any, state: MaintenanceState) -> None:
        to_app, inbox = anyio.create_memory_object_stream[Any](5)
        scope: dict[str, Any] = {"type": "lifespan", "state": {}}

        async def send(message: Any) -> None:
            seen.append(message["type"])

        async def serve() -> None:
            await app(scope, inbox.receive, send)
            rows.append(await anyio.to_thread.run_sync(count))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await to_app.send({"type": "lifespan.startup"})
            await anyio.to_thread.run_sync(lambda: eventually(lambda: state.status().registered))
            assert scope["state"] == {"of": "the app"}
            assert (await acall_asgi(app)).status == 200
            await to_app.send({"type": "lifespan.shutdown"})
        to_app.close()
        inbox.close()

    async def index(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse("the app")

    with closing(MaintenanceState(migrated_url)) as state:
        inner = Starlette(routes=[Route("/", index)], lifespan=lifespan)
        anyio.run(main, ASGIMiddleware(inner, state), state, backend=backend)
        assert seen == ["startup", "lifespan.startup.complete", "shutdown", "lifespan.shutdown.complete"]
        assert rows == [0]


def test_an_app_that_knows_no_lifespan_is_served_all_the_same(state: MaintenanceState) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

    async def main() -> list[int]:
        wrapped = ASGIMiddleware(app, state)
        await wrapped({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
        first = (await acall_asgi(wrapped)).status
        await anyio.to_thread.run_sync(state.set, True)
        return [first, (await acall_asgi(wrapped)).status]

    assert anyio.run(main) == [200, 503]


# What both adapters say and ask alike.


def ask_both(state: MaintenanceState, path: str = "/", *, method: str = "GET", **options: Any) -> list[Answer]:
    headers = options.pop("headers", None)

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the app"})

    wsgi = WSGIMiddleware(lambda e, s: (s("200 OK", []), [b"the app"])[1], state, **options)
    asgi = ASGIMiddleware(asgi_app, state, **options)
    return [
        call_wsgi(wsgi, path, method=method, headers=headers),
        asyncio.run(acall_asgi(asgi, path, method=method, headers=headers)),
    ]


@pytest.mark.parametrize("accept", [None, "text/html", "application/json", "text/plain", "*/*;q=0.1, text/html;q=0"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_both_adapters_send_the_same_refusal(accept: str | None, method: str, state: MaintenanceState) -> None:
    state.set(True, message="Zurück um 5", retry_after=30)
    wsgi, asgi = ask_both(state, method=method, headers={"Accept": accept} if accept else None)
    assert wsgi == asgi
    assert wsgi.status == 503
    assert (wsgi.body == b"") is (method == "HEAD")
    assert wsgi.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("HEAD", 200), ("OPTIONS", 200), ("POST", 503), ("DELETE", 503), ("get", 503)]
)
def test_read_only_lets_safe_methods_pass(method: str, status: int, state: MaintenanceState) -> None:
    state.set(True, mode="read_only")
    assert [answer.status for answer in ask_both(state, method=method)] == [status, status]


def test_a_bypass_is_asked_the_same_through_both_adapters(state: MaintenanceState) -> None:
    state.set(True)
    asked: list[Request] = []

    def bypass(request: Request) -> bool:
        asked.append(request)
        return request.headers.get("x-tester") == "yes"

    headers = {"X-Tester": "yes", "Host": "test"}
    assert [it.status for it in ask_both(state, "/a b/é", bypass=bypass, headers=headers)] == [200, 200]
    assert [it.status for it in ask_both(state, bypass=bypass, headers={"X-Tester": "no"})] == [503, 503]
    wsgi, asgi = asked[:2]
    assert (
        (wsgi.method, wsgi.path, wsgi.client) == (asgi.method, asgi.path, asgi.client) == ("GET", "/a b/é", "192.0.2.1")
    )
    assert wsgi.headers["x-tester"] == asgi.headers["x-tester"]


@each_backend
@pytest.mark.parametrize("mode", ["full", "read_only"])
@pytest.mark.parametrize("offered", [False, True])
def test_a_websocket_is_refused_before_it_is_accepted(
    offered: bool, mode: Any, backend: str, state: MaintenanceState
) -> None:
    state.set(True, mode=mode, retry_after=7)
    sent: list[Any] = []

    async def app(*_: Any) -> None:
        raise AssertionError("it got through")

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        scope = http_scope("/ws", type="websocket", extensions={"websocket.http.response": {}} if offered else {})
        del scope["method"]
        await ASGIMiddleware(app, state)(scope, receive, send)

    anyio.run(main, backend=backend)
    if not offered:
        assert [(it["type"], it["code"]) for it in sent] == [("websocket.close", 1013)]
        return
    assert [it["type"] for it in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"] == b"7"
    assert sent[1]["body"]


@each_backend
def test_streaming_responses_come_piece_by_piece(backend: str, state: MaintenanceState) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one,", b"two"):
            yield part
            assert in_flight(state) == 1

    async def stream(request: StarletteRequest) -> StreamingResponse:
        return StreamingResponse(parts())

    app = Starlette(routes=[Route("/", stream)])
    app.add_middleware(ASGIMiddleware, state=state)
    assert get_all(app, "/", backend=backend) == {"/": (200, b"one,two")}
    assert in_flight(state) == 0
