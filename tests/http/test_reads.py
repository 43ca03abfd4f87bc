"""Requests that `read_only` admits although their method could write, and the mark on admitted responses."""

from typing import Any

import pytest

from maintenance import ConfigurationError, MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.http.adapters import Adapter
from tests.support.clients import call_asgi, call_wsgi

READS = ("POST /search", "POST =/graphql", "PROPFIND /", "WEBSOCKET /ticker")


@pytest.mark.parametrize(
    ("method", "path", "query", "admitted"),
    [
        ("POST", "/search", "", True),
        ("POST", "/search/deep", "", True),
        ("POST", "/searching", "", False),
        ("POST", "/search/../x", "", False),
        ("POST", "/search", "_method=DELETE", False),
        ("POST", "/search", "_method=GET", True),
        ("POST", "/graphql", "", True),
        ("POST", "/graphql/x", "", False),
        ("PUT", "/search", "", False),
        ("PROPFIND", "/any/where", "", True),
        ("REPORT", "/any", "", False),
        ("WEBSOCKET", "/ticker", "", False),  # only called so
    ],
)
def test_read_only_admits_what_only_reads(
    adapter: Adapter, state: MaintenanceState, method: str, path: str, query: str, *, admitted: bool
) -> None:
    app = adapter.wrap(state, reads=READS)
    state.set(True, mode="read_only")
    assert adapter.ask(app, path, method=method, query=query).status == (200 if admitted else 503)
    state.set(True)
    assert adapter.ask(app, path, method=method, query=query).status == 503


@pytest.mark.parametrize("mode", ["full", "read_only"])
def test_an_admitted_response_is_marked_if_asked_for(adapter: Adapter, state: MaintenanceState, mode: Any) -> None:
    marked = adapter.wrap(state, mark_read_only=True, bypass=lambda _: True, scope={"/shop": "shop"})
    assert "maintenance-mode" not in adapter.ask(marked).headers
    state.set(True, mode=mode)
    expected = "read_only" if mode == "read_only" else None
    assert adapter.ask(marked).headers.get("maintenance-mode") == expected
    assert "maintenance-mode" not in adapter.ask(adapter.wrap(state, bypass=lambda _: True)).headers
    state.set(False)
    state.set(True, mode=mode, scope="shop")
    answers = [adapter.ask(marked, path) for path in ("/shop", "/blog")]
    assert [it.headers.get("maintenance-mode") for it in answers] == [expected, None]
    assert [it.body for it in answers] == [b"the app"] * 2


@pytest.mark.parametrize(("status", "marked"), [("200 OK", True), ("304 Not Modified", False)])
def test_no_cache_keeps_the_mark(state: MaintenanceState, status: str, *, marked: bool) -> None:
    headers = [("Cache-Control", "max-age=600"), ("ETag", '"1"')]

    def wsgi(_: Any, start_response: Any) -> list[bytes]:
        start_response(status, headers)
        return [b""]

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        raw = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": raw})
        await send({"type": "http.response.body", "body": b""})

    state.set(True, mode="read_only")
    expected = ("read_only", "no-store") if marked else (None, "max-age=600")
    for answer in (
        call_wsgi(WSGIMiddleware(wsgi, state, mark_read_only=True)),
        call_asgi(ASGIMiddleware(asgi, state, mark_read_only=True)),
    ):
        assert (answer.headers.get("maintenance-mode"), answer.headers["cache-control"]) == expected
        assert answer.headers["etag"] == '"1"'


def test_a_wrong_option_is_refused(adapter: Adapter) -> None:
    with pytest.raises(ConfigurationError, match="mark_read_only is 1: use True or False"):
        adapter.middleware(print, mark_read_only=1)
