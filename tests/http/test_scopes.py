"""To which scopes a request belongs, and what closes it, over both adapters."""

import itertools
from typing import Any

import pytest

from maintenance import MaintenanceState
from maintenance.errors import ConfigurationError
from maintenance.http.scopes import Scopes
from tests.http.adapters import Adapter, hold
from tests.support.clock import Clock

PATHS = {"/shop": "shop", "/shop/pay": "pay", "/": "rest"}


def by_host(request: Any) -> Any:
    return request.headers.get("host")


@pytest.mark.parametrize(
    ("scope", "path", "names"),
    [
        ("shop", "/any", {"shop"}),
        (PATHS, "/shop", {"shop"}),
        (PATHS, "/shop/", {"shop"}),
        (PATHS, "/shop/list", {"shop"}),
        (PATHS, "/shop/pay/now", {"pay"}),  # the longest wins
        (PATHS, "/shopping", {"rest"}),  # whole segments
        (PATHS, "/", {"rest"}),
        ({"/shop": "shop"}, "/blog", set()),
        (PATHS, "/shop/../blog", {"shop", "pay", "rest"}),  # wherever it may lead
        (PATHS, "/x/%2e%2e/shop", {"shop", "pay", "rest"}),
        ({}, "/", set()),
        (None, "/", set()),
    ],
)
def test_the_path_names_the_scope(scope: Any, path: str, names: set[str]) -> None:
    assert Scopes(scope).find(path, path) == names
    assert bool(Scopes(scope)) is bool(scope)


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        (7, "scope is 7: use a function"),
        ("a b", "scope is 'a b': use 1 to 100 letters"),
        ("", "scope is '': use 1 to 100 letters"),
        ({"shop": "shop"}, "scope holds 'shop': use a decoded path"),
        ({"/a//b": "shop"}, "use a decoded path"),
        ({7: "shop"}, "scope holds 7: use a decoded path"),
        ({"/shop": None}, "scope holds None: use the name of a scope"),
        ({"/shop": 7}, "scope is a int: use a str"),
        ({"/shop": "x" * 101}, "use 1 to 100 letters"),
    ],
)
def test_a_wrong_scope_is_refused_when_constructed(adapter: Adapter, scope: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        adapter.middleware(print, scope=scope)


@pytest.mark.parametrize("scope", ["shop", {"/shop": "shop"}, lambda request: request.path[1:5]])
def test_a_flip_closes_the_requests_of_its_scope_alone(adapter: Adapter, state: MaintenanceState, scope: Any) -> None:
    app, other = adapter.wrap(state, scope=scope), adapter.wrap(state, scope={"/blog": "blog"})
    state.set(True, scope="shop", message="stocktaking")
    refused = adapter.ask(app, "/shop/1")
    assert (refused.status, b"stocktaking" in refused.body) == (503, True)
    assert [adapter.ask(app, "/admin/x").status, adapter.ask(other, "/shop/1").status] == [200, 200]
    if scope != "shop":
        assert adapter.ask(app, "/blog").status == 200
    state.set(True, scope="shop", mode="read_only")
    assert [adapter.ask(app, "/shop/1", method=method).status for method in ("GET", "POST")] == [200, 503]
    state.set(False, scope="shop")
    assert adapter.ask(app, "/shop/1").status == 200


def test_the_site_s_flag_wins(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, scope="shop")
    state.set(True, message="all of it")
    state.set(True, scope="shop", message="the shop")
    assert b"all of it" in adapter.ask(app, "/").body
    state.set(True, mode="read_only", message="all of it")
    assert b"the shop" in adapter.ask(app, "/").body
    assert b"all of it" in adapter.ask(app, "/", method="POST").body


def test_a_function_may_name_several_scopes(adapter: Adapter, state: MaintenanceState) -> None:
    returned: list[Any] = [["a", "b"]]
    app = adapter.wrap(state, scope=lambda _: returned[0])
    state.set(True, scope="b")
    assert adapter.ask(app).status == 503
    for names in (None, (), "a", {"c"}):
        returned[0] = names
        assert adapter.ask(app).status == 200


@pytest.mark.parametrize("returned", [7, ["shop", 7], "a b", b"shop", lambda: None, ValueError("broken")])
def test_if_a_function_fails_the_site_s_flag_decides_and_the_log_names_it_once_a_minute(
    adapter: Adapter, state: MaintenanceState, clock: Clock, caplog: pytest.LogCaptureFixture, returned: Any
) -> None:
    def name_scope(_: Any) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    app = adapter.wrap(state, scope=name_scope)
    state.set(True, scope="shop")
    assert [adapter.ask(app).status for _ in range(3)] == [200] * 3
    assert [record.getMessage()[:44] for record in caplog.records] == ["maintenance: a scope function failed, so the"]
    state.set(True)
    assert adapter.ask(app).status == 503


def test_a_bypass_is_asked_for_a_scope_too(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, scope=by_host, bypass=lambda request: request.headers.get("x-ops") == "1")
    state.set(True, scope="shop.example")
    ask = [{"host": "shop.example"}, {"host": "shop.example", "x-ops": "1"}, {"host": "blog.example"}]
    assert [adapter.ask(app, headers=headers).status for headers in ask] == [503, 200, 200]


def test_a_drain_counts_what_belongs_to_its_scope(adapter: Adapter, state: MaintenanceState, clock: Clock) -> None:
    app, other = adapter.wrap(state, scope="shop"), adapter.wrap(state, scope="blog")
    state.set(True, scope="shop", drain=True)
    state.set(True, scope="blog", drain=True)
    state.refresh()
    leave = [hold(one, clock()) for one in (app, app, other)]
    load = state._sources.measure(state.lease.flags)
    assert load is not None
    assert (load.in_flight, load.drains) == (3, {"shop": 2, "blog": 1})
    state.set(True, scope="shop", mode="read_only", drain=True)
    state.set(True)
    state.refresh()
    for one in leave[:2]:
        one()
    load = state._sources.measure(state.lease.flags)
    assert load is not None
    assert (load.in_flight, load.drains) == (1, {"shop": 0, "blog": 1})


def test_a_thousand_scopes_keep_few_refusals(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, scope=by_host)
    for number in range(300):
        state.set(True, scope=f"t{number}")
        assert adapter.ask(app, headers={"host": f"t{number}"}).status == 503
    assert len(app._admission._refusals) <= 256


PARTS = ["", "shop", "Shop", "pay", "shopping", "%73hop", "..", "a;b", "é", "*"]


def test_a_request_that_needs_no_further_look_belongs_to_no_scope_that_is_on() -> None:
    scopes = Scopes({"/shop": "shop", "/shop/pay": "payments", "/": "rest"})
    paths = ["/" + "/".join(parts) for count in range(1, 5) for parts in itertools.product(PARTS, repeat=count)]
    looked = 0
    for on in ({"shop"}, {"payments"}, {"rest"}, set[str]()):
        for path in paths:
            if scopes.may_touch(path, dict.fromkeys(on)):
                looked += 1
            else:
                assert not scopes.find(path, path) & on, (path, on)
    assert looked < len(paths) * 4, "it spares some requests the look"
    assert Scopes(lambda _: None).may_touch("/", {}), "only the function knows"
    assert not Scopes("shop").may_touch("/%", {"payments": None})
    assert not Scopes(None).may_touch("/%", {"payments": None})
