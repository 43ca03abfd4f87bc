"""`override_maintenance` and its fixture, with the test client of each framework, and without a database."""

import json
import subprocess
import sys
import types
import unittest
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from maintenance import ConfigurationError, MaintenanceActive, MaintenanceState, job, maintenance_enabled
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.process import api
from maintenance.testing import override_maintenance
from maintenance.testing.plugin import Override, maintenance_override
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_wsgi
from tests.support.faulty import FaultyStore
from tests.support.plain_apps import wsgi

__all__ = ["maintenance_override"]


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAINTENANCE_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(api, "_state", None)


def test_every_state_and_middleware_follows_and_no_store_is_asked() -> None:
    store = FaultyStore()
    state = MaintenanceState(store)
    own, default = MaintenanceMiddleware(wsgi, state), MaintenanceMiddleware(wsgi)
    changes: list[bool] = []
    state.on_change(lambda flag: changes.append(flag.enabled))
    with override_maintenance(True, message="Back at noon.", mode="full"):
        later = MaintenanceMiddleware(wsgi, MaintenanceState(store))
        for app in (own, default, later):
            answer = call_wsgi(app)
            assert answer.status == 503
            assert b"Back at noon." in answer.body
        assert call_wsgi(own, "/health").status == 200
        assert state.enabled
        assert maintenance_enabled()
        with pytest.raises(MaintenanceActive), job("report", wait=False, state=state):
            pass
        with override_maintenance(False):
            assert call_wsgi(own).status == 200
            with job("report"):
                pass
        assert maintenance_enabled()
    assert changes == [True, False, True, False]
    assert store.connects == 0
    assert api.current_state() is None
    assert call_wsgi(own).status == 200


def test_a_scope_closes_alone_and_a_read_only_site_admits_reads() -> None:
    app = MaintenanceMiddleware(wsgi, MaintenanceState("memory://"), scope={"/shop": "shop"})
    with override_maintenance(True, "shop"):
        assert [call_wsgi(app, path).status for path in ("/shop", "/")] == [503, 200]
        assert maintenance_enabled("shop")
        assert not maintenance_enabled()
    with override_maintenance(True, mode="read_only"):
        assert call_wsgi(app, "/").status == 200


def test_a_secret_link_works() -> None:
    app = MaintenanceMiddleware(wsgi, MaintenanceState("memory://"))
    with override_maintenance(True, secret=True) as flag:
        assert call_wsgi(app, "/", headers={"Maintenance-Bypass": flag.token}).status == 200


def test_a_closed_state_follows_and_is_closed_after_it() -> None:
    state = MaintenanceState("memory://")
    app = MaintenanceMiddleware(wsgi, state)
    state.close()
    with override_maintenance(False):
        assert call_wsgi(app).status == 200
    assert call_wsgi(app).status == 503


def test_a_default_state_that_is_made_in_the_block_stays() -> None:
    with override_maintenance(True):
        made = api.init_maintenance("memory://")
        assert maintenance_enabled()
    assert api.current_state() is made
    assert not maintenance_enabled()
    made.close()


@override_maintenance(True)
def test_a_decorated_test() -> None:
    assert maintenance_enabled()


def test_an_async_function_is_decorated_too() -> None:
    @override_maintenance(True)
    async def ask() -> bool:
        await anyio.lowlevel.checkpoint()
        return maintenance_enabled()

    assert anyio.run(ask)


def test_a_coroutine_that_would_run_after_the_override_is_refused() -> None:
    async def ask() -> bool:
        return maintenance_enabled()

    def wrap() -> Any:
        return ask()

    with pytest.raises(ConfigurationError, match="override_maintenance encloses .* decorate the async function itself"):
        override_maintenance(True)(wrap)()


def test_the_fixture(maintenance_override: Override) -> None:
    maintenance_override(scope="shop")
    assert not maintenance_enabled()
    assert maintenance_override(message="Soon.").message == "Soon."
    assert maintenance_enabled()


def test_pytest_finds_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from maintenance import maintenance_enabled\n"
        "def test_on(maintenance_override):\n    maintenance_override(True)\n    assert maintenance_enabled()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_unittest() -> None:
    class Case(unittest.TestCase):
        def setUp(self) -> None:
            self.enterContext(override_maintenance(True))

        def test_on(self) -> None:
            assert maintenance_enabled()

        @override_maintenance(False)
        def test_off(self) -> None:
            assert not maintenance_enabled()

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert (result.testsRun, result.failures, result.errors) == (2, [], [])


def test_flask() -> None:
    from flask import Flask

    app = Flask(__name__)
    app.wsgi_app = MaintenanceMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    with override_maintenance(True, message="Back at noon."):
        answer = app.test_client().get("/")
    assert (answer.status_code, json.loads(answer.data)["detail"]) == (503, "Back at noon.")


@pytest.mark.filterwarnings("ignore:Using `httpx`")
def test_starlette() -> None:
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    app = Starlette()
    app.add_middleware(ASGIMiddleware)
    with override_maintenance(True), TestClient(app) as client:
        assert client.get("/").status_code == 503


def test_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django's client calls the views without the WSGI app. They see the flag, and the app itself refuses."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.support.django_settings")
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.test import Client, override_settings
    from django.urls import path

    app = MaintenanceMiddleware(get_wsgi_application())
    urls = types.ModuleType("urls")
    urls.urlpatterns = [path("", lambda _: HttpResponse(str(maintenance_enabled())))]  # type: ignore[attr-defined]
    with override_settings(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"]), override_maintenance(True):
        assert Client().get("/").content == b"True"
        with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as client:
            assert client.get("/").status_code == 503


@pytest.mark.parametrize(
    ("arguments", "details", "error"),
    [
        ((1,), {}, "enabled is 1"),
        ((True, "?"), {}, "scope is '\\?'"),
        ((True,), {"mode": "half"}, "mode"),
        ((True,), {"colour": "red"}, "colour"),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, details: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        override_maintenance(*arguments, **details)


def test_a_flip_inside_goes_to_the_store() -> None:
    state = MaintenanceState("memory://")
    with override_maintenance(False):
        state.set(True)
        assert not state.enabled
    assert state.enabled
