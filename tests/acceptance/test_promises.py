"""The five tests of the system that this library replaces, by their names, through both adapters, over PostgreSQL."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.stores import PostgresStore
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import Answer, call_asgi, call_wsgi
from tests.support.waiting import eventually

TTL = 1.0

Get = Callable[[str], Answer]


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the app"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"the app"})


@pytest.fixture
def state(migrated_url: str) -> Iterator[MaintenanceState]:
    # Polling, so that the TTL is what brings the change.
    state = MaintenanceState(PostgresStore(migrated_url, listen=False), ttl=TTL)
    yield state
    state.close()


@pytest.fixture(params=["wsgi", "asgi"])
def get(request: pytest.FixtureRequest, state: MaintenanceState) -> Get:
    if request.param == "wsgi":
        wrapped = WSGIMiddleware(wsgi_app, state)
        return lambda path: call_wsgi(wrapped, path)
    served = ASGIMiddleware(asgi_app, state)
    return lambda path: call_asgi(served, path)


def flip(url: str, value: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(f"UPDATE platform_settings SET value_bool = {value} WHERE key = 'maintenance_mode'")


def test_disabled(get: Get) -> None:
    assert (get("/").status, get("/").body) == (200, b"the app")


def test_enabled_returns_503(get: Get, migrated_url: str) -> None:
    flip(migrated_url, "true")
    answer = get("/")
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert b"the app" not in answer.body


def test_health_exempt(get: Get, state: MaintenanceState) -> None:
    state.set(True)
    assert get("/").status == 503
    assert (get("/health").status, get("/health").body) == (200, b"the app")


def test_admin_exempt(get: Get, state: MaintenanceState) -> None:
    state.set(True)
    assert get("/").status == 503
    assert [get(path).status for path in ("/admin", "/admin/", "/admin/x", "/administrator")] == [200, 200, 200, 503]


def test_database_backed(get: Get, migrated_url: str) -> None:
    assert get("/").status == 200
    flip(migrated_url, "true")
    eventually(lambda: get("/").status == 503, TTL + 1.0, what="the flip, within one TTL")
    flip(migrated_url, "false")
    eventually(lambda: get("/").status == 200, TTL + 1.0, what="the flip back, within one TTL")
