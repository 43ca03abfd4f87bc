"""A request that asks for another method is judged by both."""

from typing import Any

import pytest

from maintenance import MaintenanceState, Request
from maintenance.base.values import WEBSOCKET
from maintenance.http.overrides import find_overrides
from tests.http.adapters import Adapter


@pytest.mark.parametrize(
    ("query", "methods"),
    [
        ("", []),
        ("a=_method", []),
        ("x_method=DELETE", []),
        ("_method=delete", ["DELETE"]),
        ("a=b&_METHOD=+PUT+", ["PUT"]),
        ("%5fmetho%64=%44ELETE", ["DELETE"]),
        ("+_method=PUT;_method=GET", ["PUT", "GET"]),
        ("_method", [""]),  # an app may take the empty word for a method
    ],
)
def test_the_methods_of_a_query_are_found(query: str, methods: list[str]) -> None:
    assert find_overrides((), query) == methods


def test_a_header_that_comes_twice_names_two_methods() -> None:
    assert find_overrides(["GET, put", "DELETE"], "") == ["GET", "PUT", "DELETE"]


ASKING = [
    *({"headers": {name: "DELETE"}} for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")),
    {"headers": {"x_http_method_override": "delete"}},
    {"query": "a=b&%5Fmethod=DELETE"},
]


@pytest.mark.parametrize("asking", ASKING, ids=str)
def test_it_is_admitted_only_if_both_methods_are(
    adapter: Adapter, state: MaintenanceState, asking: dict[str, Any]
) -> None:
    app = adapter.wrap(state, exempt=["GET /status", "GET /both", "DELETE /both"])
    paths = ("/status", "/both", "/health", "/admin")
    state.set(True)
    assert [adapter.ask(app, path).status for path in paths] == [200] * 4
    assert [adapter.ask(app, path, **asking).status for path in paths] == [503, 200, 503, 200]
    state.set(True, mode="read_only")
    assert [adapter.ask(app, path, **asking).status for path in ("/x", "/status", "/both")] == [503, 503, 200]
    assert adapter.ask(app, "/x", headers={"X-HTTP-Method-Override": "HEAD"}).status == 200


@pytest.mark.parametrize("asking", ASKING, ids=str)
def test_it_counts_as_in_flight_if_it_is_refused(
    adapter: Adapter, state: MaintenanceState, asking: dict[str, Any]
) -> None:
    loads: list[Any] = []

    def inside(_: Any) -> None:
        state.set(True, mode="read_only")
        loads.append(state._sources.measure(state.lease.flags))
        state.set(False)

    app = adapter.wrap(state, inside=inside, exempt=["GET /status"])
    for path in ("/x", "/status"):
        for options in ({}, asking):
            adapter.ask(app, path, **options)
    assert [load.in_flight for load in loads] == [0, 1, 0, 1]


def test_a_websocket_is_judged_by_both_too(state: MaintenanceState) -> None:
    admission = Adapter("asgi").wrap(state, exempt=["WEBSOCKET /live"])._admission
    scope = {"type": "websocket", "headers": [], "query_string": b""}
    assert admission.read_target(WEBSOCKET, "/live", "", scope) is None
    assert admission.read_target(WEBSOCKET, "/live", "", {**scope, "query_string": b"_method=PUT"}) is not None


def test_a_request_that_only_calls_its_method_websocket_is_none(adapter: Adapter, state: MaintenanceState) -> None:
    asked: list[Request] = []
    app = adapter.wrap(state, exempt=["WEBSOCKET /live"], bypass=asked.append)
    for mode in ("full", "read_only"):
        state.set(True, mode=mode)
        assert adapter.ask(app, "/live", method=WEBSOCKET).status == 503
    assert {request.method for request in asked} == {"websocket"}
