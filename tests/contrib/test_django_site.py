"""A Django project with the app: its pages announce what is planned, and its processes leave the fleet."""

import datetime as dt
import json
from typing import Any

import anyio
import pytest
from django.core.asgi import get_asgi_application
from django.template import Context, Engine
from django.utils import translation

from maintenance import set_maintenance
from maintenance.asgi import MaintenanceMiddleware
from maintenance.process import api
from tests.contrib.conftest import APP, Project, describe
from tests.support.clients import ask
from tests.support.servers import uvicorn
from tests.support.sql import find_instances
from tests.support.waiting import eventually

STARTS = dt.datetime(2131, 5, 1, 0, 30, tzinfo=dt.UTC)


def render() -> str:
    libraries = {"maintenance": f"{APP}.templatetags.maintenance"}
    engine = Engine(app_dirs=True, libraries=libraries)
    return engine.from_string("{% load maintenance %}{% maintenance_banner %}").render(Context()).strip()


def test_the_banner_shows_what_is_planned(project: Project) -> None:
    project({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}, TIME_ZONE="Asia/Tokyo")
    assert render() == ""
    set_maintenance(True)
    assert render() == ""
    set_maintenance(True, starts=STARTS)
    assert render() == (
        '<p class="maintenance-banner" role="status">'
        '<time datetime="2131-05-01T00:30:00+00:00">May 1, 2131, 9:30 a.m.</time></p>'
    )
    set_maintenance(True, starts=STARTS, until=STARTS + dt.timedelta(hours=1), message="<b> &")
    assert "&lt;b&gt; &amp; <time" in render()
    assert "10:30 a.m.</time></p>" in render()


def test_the_banner_is_in_the_language_of_the_page(project: Project) -> None:
    project({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
    set_maintenance(True, starts=STARTS, message={"en": "Soon.", "de": "Bald.", "pt-BR": "Em breve."})
    for language, message in (("de-at", "Bald."), ("pt", "Em breve."), ("fr", "Soon.")):
        with translation.override(language):
            assert message in render()
    with translation.override(None):
        assert "Soon." in render()


def test_under_uvicorn_a_process_leaves_the_fleet_when_it_ends(migrated_url: str) -> None:
    environment = {
        "DJANGO_DATABASES": json.dumps({"default": describe(migrated_url)}),
        "DJANGO_SETTINGS_MODULE": "tests.apps.django_site_settings",
    }
    with uvicorn("tests.apps.django_site:asgi", env=environment) as running:
        # It joins before its first request, as each process with a lifespan does.
        eventually(lambda: find_instances(migrated_url))
        assert ask(running.port, "/").status == 200
        assert "Django can only handle" not in running.log
    assert find_instances(migrated_url) == {}


def test_without_the_app_django_refuses_the_lifespan_as_before(project: Project) -> None:
    async def nothing(*_: Any) -> Any: ...

    application = MaintenanceMiddleware(get_asgi_application())
    with pytest.raises(ValueError, match="lifespan"):
        anyio.run(application, {"type": "lifespan"}, nothing, nothing)
    assert api.current_state() is None


def test_an_app_that_fails_in_its_startup_still_raises(project: Project) -> None:
    project({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise OSError("no cache")

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    with pytest.raises(OSError, match="no cache"):
        anyio.run(MaintenanceMiddleware(fail), {"type": "lifespan"}, receive, lambda _: None)
