"""Django projects in this process. What they leave behind is undone."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import django
import pytest
from django.core.checks import registry
from django.db.utils import ConnectionHandler
from django.test import override_settings
from psycopg.conninfo import conninfo_to_dict

from maintenance.contrib.django import database
from maintenance.http import lifespan
from maintenance.process import api

Project = Callable[..., None]

APP = "maintenance.contrib.django"


def describe(url: str) -> dict[str, Any]:
    """The entry of `DATABASES` for a URL."""
    if url.startswith("sqlite"):
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": url.removeprefix("sqlite:///")}
    parts = conninfo_to_dict(url)
    named = {key: str(parts[name]) for key, name in database._PARAMETERS.items() if name in parts}
    return {"ENGINE": "django.db.backends.postgresql", **named}


@pytest.fixture(autouse=True)
def _no_default_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(api, "_state", None)
    monkeypatch.setattr(api, "_build", api._build)
    monkeypatch.setattr(lifespan, "stands_in", False)
    yield
    if (state := api.current_state()) is not None:
        state.close()


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Sets up a Django project with the app; a second call changes settings. `databases` are those of DATABASES."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.support.django_settings")
    django.setup()
    monkeypatch.setattr(registry.registry, "registered_checks", set())
    with ExitStack() as stack:

        def configure(databases: dict[str, Any] | None = None, **settings: Any) -> None:
            if databases is not None:
                monkeypatch.setattr(database, "connections", ConnectionHandler({"default": {}, **databases}))
                settings["INSTALLED_APPS"] = [*settings.get("INSTALLED_APPS", ()), APP]
            stack.enter_context(override_settings(**settings))

        yield configure
