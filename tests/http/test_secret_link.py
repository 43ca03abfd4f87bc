"""The secret link over both adapters: whom it admits, for how long, and that the app never sees its token."""

import copy
import dataclasses
import hmac
import pickle
import tracemalloc
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.base.secret import hash_token
from maintenance.http.secret_link import COOKIE_LIFE, name_cookie
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.http.adapters import Adapter
from tests.support.clients import acall_asgi, call_wsgi, http_scope
from tests.support.clock import Clock, refuse, runtime
from tests.support.faulty import FaultyStore

WRONG = "x" * 43


def switch_on(state: MaintenanceState, **options: Any) -> str:
    token = state.set(True, secret=True, **options).token
    assert token is not None
    return token


def read_cookie(headers: Mapping[str, str]) -> str:
    return headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("mode", ["full", "read_only"])
def test_a_link_sets_a_cookie_that_admits(adapter: Adapter, state: MaintenanceState, mode: Any, method: str) -> None:
    app, token = adapter.wrap(state), switch_on(state, mode=mode)
    answer = adapter.ask(app, "/a;b", method=method, query=f"q=%C3%A9+x&maintenance-bypass={token}&&r=a%2fb;c")
    assert (answer.status, answer.body) == (303, b"")
    assert answer.headers["location"] == "/a;b?q=%C3%A9+x&&r=a%2fb;c"
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")
    pair, *attributes = answer.headers["set-cookie"].split("; ")
    assert attributes == [f"Max-Age={COOKIE_LIFE}", "Path=/", "HttpOnly", "SameSite=Lax"]
    assert COOKIE_LIFE <= 12 * 3600
    assert adapter.ask(app, "/x", method="POST", headers={"Cookie": f"a=b; {pair}"}).status == 200
    assert adapter.ask(app, "/x", method="POST").status == 503


@pytest.mark.parametrize(
    ("asked", "location", "cookie_path"),
    [
        (("", "/"), "/", "/"),
        (("/shop", "/x"), "/shop/x", "/shop"),
        (("/shop/", ""), "/shop", "/shop"),
        (("/a;b", "/é x"), "/a;b/%C3%A9%20x", "/a%3Bb"),
        (("", "//evil.example/x"), "/.//evil.example/x", "/"),
        (("", "/\\evil.example"), "/%5Cevil.example", "/"),
        (("", "/\t/evil.example"), "/%09/evil.example", "/"),
        (("//evil.example", "/x"), "/.//evil.example/x", "/.//evil.example"),
    ],
)
def test_it_leads_to_the_same_address_and_never_to_another_host(
    adapter: Adapter, state: MaintenanceState, asked: tuple[str, str], location: str, cookie_path: str
) -> None:
    app, token = adapter.wrap(state), switch_on(state)
    root, path = asked
    answer = adapter.ask(app, path, root=root, query=f"maintenance-bypass={token}")
    assert answer.headers["location"] == location
    assert f"; Path={cookie_path};" in answer.headers["set-cookie"]
    assert urlsplit(urljoin("https://site.example/", location)).hostname == "site.example"


def test_it_works_if_a_proxy_has_stripped_the_mount_point(state: MaintenanceState) -> None:
    token, sent = switch_on(state), list[Any]()

    async def run() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        scope = http_scope("/x", query=f"maintenance-bypass={token}") | {"root_path": "/shop"}
        await ASGIMiddleware(print, state)(scope, anyio.sleep_forever, send)

    anyio.run(run)
    assert dict(sent[0]["headers"])[b"location"] == b"/shop/x"


@pytest.mark.parametrize(("headers", "secure"), [({}, False), ({"X-Forwarded-Proto": "https"}, True)])
def test_over_tls_the_cookie_is_secure(
    adapter: Adapter, state: MaintenanceState, headers: dict[str, str], *, secure: bool
) -> None:
    app, token = adapter.wrap(state), switch_on(state)
    answer = adapter.ask(app, query=f"maintenance-bypass={token}", headers=headers)
    assert answer.headers["set-cookie"].endswith("; Secure") is secure
    assert app._admission._wire.is_secure({"scheme": "https", "wsgi.url_scheme": "https"})


def test_each_other_way_to_show_the_token_admits_without_a_redirect(adapter: Adapter, state: MaintenanceState) -> None:
    app, token = adapter.wrap(state), switch_on(state)
    query = f"maintenance%2Dbypass={token}"
    assert adapter.ask(app, method="POST", query=query).status == 200
    assert adapter.ask(app, headers={"Maintenance-Bypass": token}).status == 200
    assert adapter.ask(app, headers={"Maintenance-Bypass": f"{WRONG}, {token}"}).status == 200


def test_a_websocket_that_shows_the_token_is_admitted(state: MaintenanceState) -> None:
    token, ran = switch_on(state), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        ran.append(scope)

    for options in ({}, {"close_websockets": True}):
        for tokens in ({"query_string": f"maintenance-bypass={token}".encode()}, {"headers": []}):
            scope = {**http_scope(), "type": "websocket", "subprotocols": [], **tokens}

            async def receive() -> Any:
                return {"type": "websocket.connect"}

            async def send(_: Any) -> None:
                pass

            anyio.run(ASGIMiddleware(app, state, **options), scope, receive, send)
    assert [scope["query_string"] for scope in ran] == [b"", b""]


# Who gets in no longer, or never


def test_the_work_that_one_request_can_cause_is_bounded(
    adapter: Adapter, state: MaintenanceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, token = adapter.wrap(state), switch_on(state)
    hashed: list[str] = []
    monkeypatch.setattr("maintenance.http.secret_link.hash_token", lambda it: hashed.append(it) or hash_token(it))
    many = [*[WRONG] * 8, token]
    for asked in (
        {"headers": {"Maintenance-Bypass": ",".join(many)}},
        {"query": "&".join(f"maintenance-bypass={it}" for it in many), "method": "POST"},
        {"headers": {"Cookie": ";".join(f"{name_cookie(hash_token(token))}={it}" for it in many)}},
    ):
        assert adapter.ask(app, **asked).status == 503
        assert len(hashed) == 8
        hashed.clear()
    assert adapter.ask(app, headers={"Maintenance-Bypass": "x" * 257}).status == 503
    assert not hashed


def test_a_token_is_compared_in_constant_time(
    adapter: Adapter, state: MaintenanceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, token = adapter.wrap(state), switch_on(state)
    compared: list[str] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or compare(a, b))
    assert adapter.ask(app, headers={"Maintenance-Bypass": f"{token}, {WRONG}"}).status == 200
    assert compared == [hash_token(token), hash_token(WRONG)], "the right one must not end the comparison"


def test_a_process_that_refuses_on_its_own_admits_no_token(adapter: Adapter, store: FaultyStore, clock: Clock) -> None:
    state = MaintenanceState(store, runtime=runtime(clock, start=refuse), when_stale="block")
    app, token = adapter.wrap(state), switch_on(state)
    headers = {"Maintenance-Bypass": token}
    assert adapter.ask(app, headers=headers).status == 200
    store.away()
    clock.now += 11
    assert adapter.ask(app, headers=headers).status == 503


@pytest.mark.parametrize("end", ["off and on", "on again", "by hand", "closed"])
def test_it_ends_with_the_flag(adapter: Adapter, state: MaintenanceState, end: str) -> None:
    app, token = adapter.wrap(state), switch_on(state)
    cookie = read_cookie(adapter.ask(app, query=f"maintenance-bypass={token}").headers)
    if end == "off and on":
        state.set(False)
    if end == "closed":
        state.close()
    elif end == "by hand":
        state.set(True)
    else:
        switch_on(state)
    assert adapter.ask(app, headers={"Cookie": cookie}).status == 503
    assert adapter.ask(app, headers={"Maintenance-Bypass": token}).status == 503
    assert adapter.ask(app, query=f"maintenance-bypass={token}").status == 503


def test_an_edit_keeps_it_and_can_replace_or_remove_it(adapter: Adapter, state: MaintenanceState) -> None:
    app, token = adapter.wrap(state), switch_on(state)

    def admits(token: str | None) -> bool:
        return adapter.ask(app, headers={"Maintenance-Bypass": str(token)}).status == 200

    assert state.update(message="Later.").token is None
    assert admits(token)
    newer = state.update(secret=True).token
    assert (admits(token), admits(newer)) == (False, True)
    state.update(secret=None)
    assert not admits(newer)


def test_a_wrong_token_looks_exactly_like_none(adapter: Adapter, state: MaintenanceState) -> None:
    app, token = adapter.wrap(state), switch_on(state, retry_after=5)
    name = read_cookie(adapter.ask(app, query=f"maintenance-bypass={token}").headers).partition("=")[0]
    plain = adapter.ask(app, "/x")
    for wrong in (WRONG, token[:-1], f"{token}x", token.swapcase(), "", "é", "x" * 10_000, f"{token}\0", "%00" * 300):
        quoted = wrong.replace("\0", "%00").replace("é", "%C3%A9")
        shown = [{"query": f"maintenance-bypass={quoted}"}, {"headers": {"Maintenance-Bypass": wrong}}]
        shown += [{"headers": {"Cookie": f"{cookie}={wrong}"}} for cookie in (name, f"x{name}", "maintenance-bypass")]
        assert [adapter.ask(app, "/x", **one) for one in shown] == [plain] * 5
    assert adapter.ask(app, "/x", headers={"Cookie": f"x{name}={token}"}) == plain
    assert adapter.ask(app, "/health", query=f"maintenance-bypass={WRONG}").status == 200  # exempt with or without it


def test_many_wrong_tokens_take_no_memory(state: MaintenanceState) -> None:
    switch_on(state, retry_after=5)
    app = WSGIMiddleware(print, state)

    def guess(count: int) -> None:
        for number in range(count):
            environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_MAINTENANCE_BYPASS": f"{number:043}"}
            list(app(environ, lambda *_: print))

    guess(1000)
    tracemalloc.start()
    guess(100_000)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000  # the tokens alone would take ten times as much, and other threads take some


@given(cookie=st.binary(max_size=60), query=st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_bytes_raise_and_none_get_in(cookie: bytes, query: bytes) -> None:
    state = MaintenanceState("memory://", ttl=1000.0)
    switch_on(state)
    text, sent = (it.decode("latin-1").replace("\r", "").replace("\n", "") for it in (cookie, query))
    options: dict[str, Any] = {"headers": {"Cookie": f"{text}; maintenance-bypass-0={text}"}}
    seen = []
    bypass = lambda request: seen.append((request.cookies, request.query, request.host))  # noqa: E731
    asgi = ASGIMiddleware(print, state, bypass=bypass)
    wsgi = WSGIMiddleware(print, state, bypass=bypass)
    for extra in ("", "&maintenance-bypass=%ff"):
        assert call_wsgi(wsgi, query=sent + extra, **options).status == 503
        raw = {"query_string": (sent + extra).encode("latin-1")}
        assert anyio.run(lambda raw=raw: acall_asgi(asgi, **raw, **options)).status == 503
    assert seen[0][:2] == seen[1][:2]
    state.close()


# Scopes


def test_each_flag_has_a_link_of_its_own_and_they_work_together(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, scope={"/shop": "shop"})
    shop = switch_on(state, scope="shop")
    first = adapter.ask(app, "/shop", query=f"maintenance-bypass={shop}")
    assert first.status == 303
    assert adapter.ask(app, "/blog", query=f"maintenance-bypass={shop}").status == 200  # nothing is closed there
    site = switch_on(state)
    second = adapter.ask(app, "/blog", query=f"maintenance-bypass={site}")
    cookies = [read_cookie(first.headers), read_cookie(second.headers)]

    def ask(path: str, *cookies: str) -> int:
        return adapter.ask(app, path, headers={"Cookie": "; ".join(cookies)}).status

    assert [ask("/blog", cookie) for cookie in cookies] == [503, 200]
    assert [ask("/shop", cookie) for cookie in cookies] == [503, 503]
    assert ask("/shop", *cookies) == 200
    assert adapter.ask(app, "/shop", headers={"Maintenance-Bypass": f"{shop}, {site}"}).status == 200


# What the app sees


@pytest.mark.parametrize("path", ["/x", "/admin"])
def test_the_app_never_sees_a_token(adapter: Adapter, state: MaintenanceState, path: str) -> None:
    seen: list[Any] = []
    app, token = adapter.wrap(state, inside=seen.append), switch_on(state)
    pair = read_cookie(adapter.ask(app, path, query=f"maintenance-bypass={token}").headers)
    query = f"a=1&maintenance-bypass={token}&b"
    headers = {"Cookie": f"{pair}; sid=1; {pair}; x=y", "maintenance_bypass": token, "X-Other-Header-Long": "kept"}
    assert adapter.ask(app, path, method="POST", query=query, headers=headers).status == 200
    assert adapter.ask(app, path, headers={"Cookie": pair, "Maintenance-Bypass": token}).status == 200
    assert token not in repr(seen)
    wire = app._admission._wire
    assert (wire.read_query(seen[0]), wire.read_header(seen[0], "cookie")) == ("a=1&b", "sid=1; x=y")
    assert wire.read_header(seen[0], "x-other-header-long") == "kept"
    assert wire.read_header(seen[1], "cookie") is None


def test_no_other_part_of_the_site_sees_a_token(adapter: Adapter, state: MaintenanceState) -> None:
    seen: list[Any] = []
    app = adapter.wrap(state, inside=seen.append, scope={"/shop": "shop"})
    token = switch_on(state, scope="shop")
    adapter.ask(app, "/blog", query=f"a=b&maintenance-bypass={token}", headers={"Maintenance-Bypass": token})
    assert len(seen) == 1
    assert token not in repr(seen)


def test_the_addresses_that_a_wsgi_server_adds_are_stripped_too(state: MaintenanceState) -> None:
    seen: list[Any] = []
    token = switch_on(state)
    query = f"maintenance-bypass={token}"
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/x", "QUERY_STRING": query}
    for uri in (f"/x?{query}", f"/x?a=b&{query}"):
        app = WSGIMiddleware(lambda environ, _: seen.append(environ) or [b""], state)
        list(app({**environ, "RAW_URI": uri}, print))
    assert [it["RAW_URI"] for it in seen] == ["/x", "/x?a=b"]


def test_a_request_that_is_let_in_so_does_not_hold_up_a_drain(adapter: Adapter, state: MaintenanceState) -> None:
    loads: list[Any] = []
    token: str = ""

    def inside(_: Any) -> None:
        load = state._sources.measure(state.lease.flags)
        assert load is not None
        loads.append(load.in_flight)

    app = adapter.wrap(state, inside=inside)
    token = switch_on(state)
    assert adapter.ask(app, headers={"Maintenance-Bypass": token}).status == 200
    assert loads == [0]


def test_the_token_is_in_no_text_and_no_copy(state: MaintenanceState, caplog: pytest.LogCaptureFixture) -> None:
    flag = state.set(True, secret=True)
    token = str(flag.token)
    assert len(token) == 43
    copies = [copy.copy(flag), dataclasses.replace(flag), pickle.loads(pickle.dumps(flag)), state.snapshot()]
    assert [it.token for it in copies] == [None] * 4
    assert copies == [flag] * 4
    shown = f"{flag!r} {dataclasses.asdict(flag)} {state.status()!r} {caplog.text}"
    assert token not in shown
    assert str(flag.secret) not in repr(flag)


@pytest.mark.parametrize("secret", ["short", "x" * 31, "x" * 257, "é" * 40, "a b" * 20, 5, b"x" * 40])
def test_a_token_that_is_too_weak_is_refused_and_not_shown(state: MaintenanceState, secret: Any) -> None:
    for call in (state.set, lambda _, **options: state.update(**options)):
        with pytest.raises((TypeError, ValueError), match="secret is") as caught:
            call(True, secret=secret)
        assert str(secret) not in str(caught.value)
    assert not state.enabled


def test_an_app_may_choose_the_token(adapter: Adapter, state: MaintenanceState) -> None:
    app, token = adapter.wrap(state), "a-token.of_our~own-with-enough-signs"
    assert state.set(True, secret=token).token == token
    assert adapter.ask(app, headers={"Maintenance-Bypass": token}).status == 200
    assert state.set(True, secret=False).secret is None
    with pytest.raises(ValueError, match="leave secret out: a link ends with its flag"):
        state.set(False, secret=True)
