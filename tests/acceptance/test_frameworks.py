"""Each framework as its users wrap it, with its own routing, streaming and lifespan."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import anyio
import django
import httpx
import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import override_settings
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import acall_asgi, call_wsgi
from tests.support.sql import find_instances
from tests.support.waiting import eventually

each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def state() -> Iterator[MaintenanceState]:
    with closing(MaintenanceState("memory://", ttl=1000.0)) as state:
        yield state


def get_asgi(app: Any, *paths: str, backend: str = "asyncio") -> dict[str, tuple[int, bytes]]:
    """Return the status and body of each path, through httpx's own transport."""

    async def ask() -> dict[str, tuple[int, bytes]]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return {path: ((answer := await client.get(path)).status_code, answer.content) for path in paths}

    return anyio.run(ask, backend=backend)


def get_wsgi(app: Any, *paths: str) -> dict[str, tuple[int, bytes]]:
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as client:
        return {path: ((answer := client.get(path)).status_code, answer.content) for path in paths}


def statuses(answers: dict[str, tuple[int, bytes]]) -> dict[str, int]:
    return {path: status for path, (status, _) in answers.items()}


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.url.path)


@each_backend
def test_fastapi(backend: str, state: MaintenanceState) -> None:
    app = FastAPI()

    @app.get("/{path:path}")
    async def index(path: str) -> dict[str, str]:
        return {"path": path}

    app.add_middleware(ASGIMiddleware, state=state, exempt=("/open",))
    assert get_asgi(app, "/open/x", backend=backend) == {"/open/x": (200, b'{"path":"open/x"}')}
    state.set(True)
    expected = {"/": 503, "/open/x": 200, "/health": 200, "/nowhere": 503}
    assert statuses(get_asgi(app, *expected, backend=backend)) == expected


def test_starlette_with_a_mounted_app_of_which_only_that_part_is_under_maintenance(state: MaintenanceState) -> None:
    part = Starlette(routes=[Route("/{path:path}", page)])
    part.add_middleware(ASGIMiddleware, state=state)
    app = Starlette(routes=[Mount("/part", part), Route("/{path:path}", page)])
    state.set(True)
    expected = {
        "/": 200,
        "/health": 200,
        "/part/": 503,
        "/part/x": 503,
        "/part/health": 200,
        "/part/admin/x": 200,
    }
    assert statuses(get_asgi(app, *expected)) == expected


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
def test_a_mount_point_that_fastapi_adds_itself_opens_nothing(state: MaintenanceState) -> None:
    def make() -> FastAPI:
        app = FastAPI(root_path="/admin")
        app.add_route("/{path:path}", page)
        return app

    inside = make()
    inside.add_middleware(ASGIMiddleware, state=state)
    state.set(True)
    expected = {"/orders": 503, "/health": 200, "/admin/orders": 503, "/admin/health": 200, "/admin/admin": 200}
    for app in (inside, ASGIMiddleware(make(), state), ASGIMiddleware(CORSMiddleware(make()), state)):
        assert statuses(get_asgi(app, *expected)) == expected


@each_backend
def test_a_streaming_response_is_in_flight_until_its_end(backend: str, state: MaintenanceState) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one,", b"two"):
            assert state.status().in_flight == 1
            yield part

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(parts())

    app = Starlette(routes=[Route("/", stream)])
    app.add_middleware(ASGIMiddleware, state=state)
    assert get_asgi(app, "/", backend=backend) == {"/": (200, b"one,two")}
    assert state.status().in_flight == 0


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
        assert [client.get(path, buffered=True).status_code for path in ("/", "/health")] == [503, 200]
    assert state.status().in_flight == 0


@pytest.fixture
def django_project(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.support.django_settings")
    django.setup()
    with override_settings(ROOT_URLCONF="tests.apps.django_urls"):
        yield


DJANGO = {
    "wsgi": (WSGIMiddleware, get_wsgi_application, get_wsgi),
    "asgi": (ASGIMiddleware, get_asgi_application, get_asgi),
}


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators:Warning")
@pytest.mark.parametrize(("middleware", "make", "get"), DJANGO.values(), ids=DJANGO)
def test_django(middleware: Any, make: Any, get: Any, django_project: None, state: MaintenanceState) -> None:
    application = middleware(make(), state)
    assert get(application, "/", "/stream") == {"/": (200, b"the app"), "/stream": (200, b"one,two")}
    assert state.status().in_flight == 0
    state.set(True)
    expected = {"/": 503, "/health": 200, "/stream": 503}
    assert statuses(get(application, *expected)) == expected


def test_django_below_a_mount_point_gets_its_script_name(django_project: None, state: MaintenanceState) -> None:
    application = WSGIMiddleware(get_wsgi_application(), state)
    assert call_wsgi(application, "/", root="/site").headers["x-script"] == "/site"


def test_a_mount_point_that_django_is_told_opens_nothing_once_the_middleware_is_told_too(
    django_project: None, state: MaintenanceState
) -> None:
    state.set(True)
    with override_settings(FORCE_SCRIPT_NAME="/admin"):
        assert call_wsgi(WSGIMiddleware(get_wsgi_application(), state), "/stream").status == 503
        application: Any = get_asgi_application()
        application.root_path = "/admin"
        expected = {"/stream": 503, "/admin/stream": 503, "/admin/health": 200}
        assert statuses(get_asgi(ASGIMiddleware(application, state), *expected)) == expected


def test_django_refuses_lifespan_as_it_does_without_the_middleware(
    django_project: None, state: MaintenanceState
) -> None:
    async def nothing(*_: Any) -> Any: ...

    with pytest.raises(ValueError, match="lifespan"):
        asyncio.run(ASGIMiddleware(get_asgi_application(), state)({"type": "lifespan"}, nothing, nothing))


@each_backend
def test_lifespan_registers_before_the_first_request_and_removes_the_row_before_it_returns(
    backend: str, migrated_url: str
) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        seen.append("startup")
        yield {"of": "the app"}
        seen.append("shutdown")

    inner = Starlette(routes=[Route("/", page)], lifespan=lifespan)
    scope: dict[str, Any] = {"type": "lifespan", "state": {}}

    async def main(app: Any, state: MaintenanceState) -> None:
        to_app, inbox = anyio.create_memory_object_stream[Any](2)

        async def send(message: Any) -> None:
            seen.append(message["type"])

        async def serve() -> None:
            await app(scope, inbox.receive, send)
            assert await anyio.to_thread.run_sync(find_instances, migrated_url) == {}

        async with to_app, inbox, anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await to_app.send({"type": "lifespan.startup"})
            await anyio.to_thread.run_sync(lambda: eventually(lambda: state.status().registered))
            assert scope["state"] == {"of": "the app"}
            assert (await acall_asgi(app)).status == 200
            await to_app.send({"type": "lifespan.shutdown"})

    with closing(MaintenanceState(migrated_url)) as state:
        anyio.run(main, ASGIMiddleware(inner, state), state, backend=backend)
    assert seen == ["startup", "lifespan.startup.complete", "shutdown", "lifespan.shutdown.complete"]
