"""Browser apps of other origins: which preflights are answered, and what of a refusal they may read."""

from typing import Any

import pytest

from maintenance import ConfigurationError, MaintenanceState, Response
from tests.http.adapters import Adapter

APP = "https://app.example"
CORS = {"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"}


def preflight(method: str = "POST", *, origin: str = APP, **more: str) -> dict[str, Any]:
    headers = {"Origin": origin, "Access-Control-Request-Method": method}
    return {"method": "OPTIONS", "headers": headers | {name.replace("_", "-"): it for name, it in more.items()}}


@pytest.mark.parametrize(
    ("cors", "message"),
    [
        (APP, r"cors is a str: use a tuple"),
        (None, "cors is None: use a tuple"),
        ((5,), "cors holds 5: use an origin"),
        (("*", APP), r"use \('\*',\), or leave '\*' out"),
        *(((wrong,), "use an origin as browsers send it") for wrong in (
            f"{APP}/", f"{APP}/x", "app.example", "HTTPS://app.example", f"{APP}:443", "http://a:80", "null", "", "https://*.a",
        )),
    ],
)  # fmt: skip
def test_a_wrong_origin_is_refused_when_constructed(adapter: Adapter, cors: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        adapter.middleware(print, cors=cors)


def test_a_refusal_can_be_read_by_the_origins_that_are_named(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, cors=(APP, "http://localhost:3000"))
    state.set(True)
    answer = adapter.ask(app, headers={"Origin": APP})
    assert answer.status == 503
    assert {name: answer.headers[name] for name in CORS} == {
        "access-control-allow-origin": APP,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "Retry-After, Maintenance-Mode",
    }
    for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        other = adapter.ask(app, headers=headers)
        assert (other.status, other.headers["vary"]) == (503, "Accept, Accept-Language, Origin")
        assert not CORS & set(other.headers)


def test_a_star_is_for_all_and_never_with_cookies(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, cors=("*",))
    state.set(True)
    for answer in (adapter.ask(app, headers={"Origin": APP}), adapter.ask(app, **preflight())):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
    plain = adapter.ask(app)
    assert (plain.headers["vary"], CORS & set(plain.headers)) == ("Accept, Accept-Language", set())


def test_without_it_nothing_is_added(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state)
    state.set(True)
    answer = adapter.ask(app, **preflight())
    assert (answer.status, answer.headers["vary"]) == (503, "Accept, Accept-Language")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_preflight_is_answered_while_the_real_request_is_refused(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, cors=(APP,))
    assert adapter.ask(app, **preflight()).body == b"the app"
    state.set(True)
    answer = adapter.ask(app, **preflight(Access_Control_Request_Headers="x-a, content-type"))
    assert (answer.status, answer.body) == (204, b"")
    assert dict(answer.headers) == {
        "access-control-allow-origin": APP,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "x-a, content-type",
        "access-control-max-age": "0",
        "cache-control": "no-store",
        "vary": "Origin",
    }
    odd = adapter.ask(app, **preflight(Access_Control_Request_Headers="x\x01y"))
    assert "access-control-allow-headers" not in odd.headers
    refused = [preflight(origin="https://evil.example"), preflight("B AD"), {"method": "OPTIONS"}]
    assert [adapter.ask(app, **one).status for one in refused] == [503] * 3
    # A request that only looks like a preflight is refused like any other.
    assert adapter.ask(app, **{**preflight(), "method": "POST"}).status == 503


def test_a_preflight_is_judged_by_the_request_that_it_asks_for(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, cors=(APP,), exempt=["PUT /open"], reads=["POST /search"])
    state.set(True)
    asked = [("/open", "PUT"), ("/open", "POST"), ("/x", "GET")]
    assert [adapter.ask(app, path, **preflight(method)).status for path, method in asked] == [200, 204, 204]
    state.set(True, mode="read_only")
    asked = [("/x", "GET"), ("/x", "POST"), ("/search", "POST")]
    assert [adapter.ask(app, path, **preflight(method)).status for path, method in asked] == [200, 204, 200]


@pytest.mark.parametrize("own", [(("vary", "Cookie"),), (("Access-Control-Allow-Origin", "https://mine.example"),)])
def test_a_response_of_the_app_s_own_is_completed(
    adapter: Adapter, state: MaintenanceState, own: tuple[tuple[str, str], ...]
) -> None:
    app = adapter.wrap(state, cors=(APP,), respond=lambda *_: Response(503, own, b""))
    state.set(True)
    answer = adapter.ask(app, headers={"Origin": APP})
    kept = dict(own)
    assert answer.headers["vary"] == ("Cookie, Origin" if "vary" in kept else "Origin")
    assert answer.headers["access-control-allow-origin"] == kept.get("Access-Control-Allow-Origin", APP)
