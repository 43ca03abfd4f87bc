"""The answer at `status_path`, over both adapters."""

import datetime as dt
import json
from typing import Any

import anyio
import pytest

from maintenance import MaintenanceState
from maintenance.errors import ConfigurationError
from tests.http.adapters import Adapter

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


def test_before_there_is_a_state_it_shows_a_flag_that_is_off(adapter: Adapter) -> None:
    assert json.loads(adapter.ask(adapter.wrap(status_path=PATH), PATH).body)["enabled"] is False


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
