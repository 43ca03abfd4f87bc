"""The test clients for Django: what an override refuses, and what Django's own client would return."""

import asyncio
import sys
import types
import unittest
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.template import Context, Engine
from django.test import client as plain
from django.test.utils import setup_test_environment, teardown_test_environment
from django.urls import path

from maintenance import ConfigurationError
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.contrib.django import test
from maintenance.testing import override_maintenance
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.contrib.conftest import Project
from tests.docs.pages import blocks

MEMORY = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
ENGINE = Engine(debug=True)


def page(request: HttpRequest) -> HttpResponse:
    if "fail" in request.GET:
        raise LookupError("as a view may")
    response = HttpResponse(ENGINE.from_string("{{ word }}").render(Context({"word": "open"})))
    response.set_cookie("basket", "1")
    return response


urlpatterns = [path("", page), path("healthz", page)]


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    return WSGIMiddleware(WSGIHandler(), mark_read_only=True)(environ, start_response)  # type: ignore[arg-type]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    await ASGIMiddleware(ASGIHandler(), mark_read_only=True)(scope, receive, send)


Ask = Callable[..., Any]


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest, project: Project) -> Iterator[Ask]:
    """Sends one request; the client keeps its cookies."""
    setup_test_environment()
    project(
        MEMORY, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"],
        WSGI_APPLICATION=f"{__name__}.wsgi", ASGI_APPLICATION=f"{__name__}.asgi",
    )  # fmt: skip
    if request.param == "wsgi":
        client = test.Client()
        yield lambda method, path, *args: getattr(client, method)(path, *args)
    else:
        async_client = test.AsyncClient()
        yield lambda method, path, *args: asyncio.run(getattr(async_client, method)(path, *args))
    teardown_test_environment()


def test_a_view_that_is_admitted_runs_as_with_djangos_client(ask: Ask) -> None:
    response = ask("get", "/")
    assert (response.status_code, response.content) == (200, b"open")
    assert response.context["word"] == "open"
    assert response.resolver_match.func is page
    assert response.cookies["basket"].value == "1"
    with pytest.raises(LookupError):
        ask("get", "/?fail")


def test_an_override_refuses(ask: Ask) -> None:
    with override_maintenance(True, message="Back at noon."):
        response = ask("get", "/")
        assert response.status_code == 503
        assert response.json()["detail"] == "Back at noon."
        assert response["Maintenance-Mode"] == "full"
        assert ask("post", "/", {"a": "b"}).status_code == 503
        assert ask("get", "/healthz").status_code == 200
    assert ask("get", "/").status_code == 200


def test_what_the_middleware_adds_to_a_response_is_seen(ask: Ask) -> None:
    with override_maintenance(True, mode="read_only"):
        assert ask("get", "/")["Maintenance-Mode"] == "read_only"


def test_the_secret_link_admits_the_client(ask: Ask) -> None:
    with override_maintenance(True, secret=True) as flag:
        link = ask("get", f"/?maintenance-bypass={flag.token}")
        assert link.status_code in (302, 303, 307), link.content
        assert ask("get", "/").status_code == 200
    assert ask("get", "/").status_code == 200


@pytest.mark.parametrize("kind", [test.Client, test.AsyncClient])
def test_without_an_application_it_says_what_to_set(project: Project, kind: Callable[[], object]) -> None:
    project(MEMORY, WSGI_APPLICATION=None, ASGI_APPLICATION=None)
    with pytest.raises(ConfigurationError, match="_APPLICATION is not set: name the wrapped application"):
        kind()


@pytest.mark.usefixtures("ask")
def test_the_sample_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = [code for code in blocks("docs/how-to/testing-your-app.md", "py") if "SimpleTestCase" in code]
    monkeypatch.setitem(sys.modules, "sample", module := types.ModuleType("sample"))
    exec(code, vars(module))
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
    assert (result.testsRun, result.failures, result.errors) == (2, [], [])


def test_other_requests_meet_djangos_own_handler(ask: Ask) -> None:
    seen: list[object] = []

    def nested(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        request = plain.RequestFactory()._base_environ(PATH_INFO="/healthz")
        seen.append(b"".join(WSGIHandler()(request, lambda *_: None)))
        return wsgi(environ, start_response)  # type: ignore[return-value]

    client = test.Client()
    client.handler._application = nested
    assert client.get("/").status_code == 200
    assert seen == [b"open"]
