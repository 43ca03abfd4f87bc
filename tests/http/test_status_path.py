"""The answer at `status_path`, over both adapters."""

import datetime as dt
import json
import re
from typing import Any

import anyio
import pytest

from maintenance import MaintenanceState
from maintenance.errors import ConfigurationError
from maintenance.process import api
from tests.http.adapters import Adapter
from tests.support.clock import Clock, refuse, runtime
from tests.support.command import operator
from tests.support.faulty import FaultyStore
from tests.support.waiting import eventually

PATH = "/maintenance.json"


def test_it_shows_what_is_on_and_what_is_planned(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, status_path=PATH)
    off = adapter.ask(app, PATH)
    assert (off.status, off.headers["content-type"], off.headers["access-control-allow-origin"]) == (
        200,
        "application/json",
        "*",
    )
    assert json.loads(off.body) == {
        "enabled": False,
        "mode": "full",
        "message": None,
        "starts": None,
        "until": None,
        "scopes": {},
    }
    starts = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    state.set(True, scope="shop", starts=starts, reason="secret")
    state.set(True, message="soon", actor="Ann")
    shown: Any = json.loads(adapter.ask(app, PATH).body)
    assert (shown["enabled"], shown["message"]) == (True, "soon")
    assert shown["scopes"]["shop"]["starts"] == starts.isoformat()
    assert not {"actor", "reason"} & {*shown, *shown["scopes"]["shop"]}


def test_nothing_but_its_path_is_answered(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, status_path=PATH)
    assert adapter.ask(app, "/").body == b"the app"
    state.set(True)
    expected = {"/": 503, PATH: 200, f"{PATH}/": 200, f"{PATH}x": 503, f"/x{PATH}": 503}
    assert {path: adapter.ask(app, path).status for path in expected} == expected
    assert b"the app" not in adapter.ask(app, f"{PATH}/x").body
    assert adapter.ask(app, PATH, method="POST").status == 503
    assert adapter.ask(app, PATH, method="HEAD").body == b""


def test_it_builds_the_default_state_although_it_never_waits(
    adapter: Adapter, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may get no other request. Until the first read, its flag is off."""
    api.replace_default(None)
    operator(sqlite_url).set(True)
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", sqlite_url)
    app = adapter.wrap(status_path=PATH)
    assert json.loads(adapter.ask(app, PATH).body)["enabled"] is False
    eventually(lambda: json.loads(adapter.ask(app, PATH).body)["enabled"])
    api.replace_default(None)


def test_it_shows_that_a_process_refuses_on_its_own(adapter: Adapter, store: FaultyStore, clock: Clock) -> None:
    state = MaintenanceState(store, runtime=runtime(clock, start=refuse), when_stale="block")
    app = adapter.wrap(state, status_path=PATH)
    assert adapter.ask(app, "/").status == 200
    assert json.loads(adapter.ask(app, PATH).body)["enabled"] is False
    store.away()
    clock.now += 11.0
    assert adapter.ask(app, "/").status == 503
    assert json.loads(adapter.ask(app, PATH).body)["enabled"] is True


def test_neither_it_nor_a_refusal_asks_the_database(
    adapter: Adapter, state: MaintenanceState, store: FaultyStore
) -> None:
    app = adapter.wrap(state, status_path=PATH)
    state.set(True)
    before = store.connects, store.reads
    assert [adapter.ask(app, path).status for path in (PATH, "/") * 20] == [200, 503] * 20
    assert (store.connects, store.reads) == before


def test_a_message_acts_on_no_terminal(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, status_path=PATH)
    state.set(True, message="\x1b[2J \x9b31m \u202e", scope="shop")
    assert re.fullmatch(rb"[ -~]+", adapter.ask(app, PATH).body)


@pytest.mark.parametrize("path", ["", "/", "status", 7, "/a//b"])
def test_a_wrong_path_is_refused(adapter: Adapter, path: Any) -> None:
    with pytest.raises(ConfigurationError, match="status_path"):
        adapter.middleware(print, status_path=path)


def test_a_websocket_is_not_answered(state: MaintenanceState) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    wrapped = Adapter("asgi").middleware(app, state, status_path=PATH)
    scope = {"type": "websocket", "path": PATH, "root_path": "", "headers": [], "query_string": b""}
    anyio.run(wrapped, scope, None, None)
    assert seen == ["websocket"]
