"""Whatever a request says, it reaches no view of Flask, Django, Starlette or FastAPI that maintenance closes."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import unquote

import django
import pytest
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import re_path
from fastapi import FastAPI
from flask import Flask, request
from hypothesis import event, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.http.rules import PROBES, READS
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.hostile.frameworks import read_again
from tests.support.clients import call_asgi, call_wsgi

METHODS = ["GET", "HEAD", "OPTIONS", "POST", "DELETE"]
OVERRIDE = "X-HTTP-Method-Override"

reached: list[tuple[str, str]] = []
"""The method and path of each request that reached a view, as its framework reads them."""


def django_view(request: HttpRequest) -> HttpResponse:
    reached.append((request.method or "", request.path_info))
    return HttpResponse()


urlpatterns = [re_path("", django_view)]


def make_flask() -> Any:
    app = Flask("example")

    @app.route("/", defaults={"path": ""}, methods=METHODS)
    @app.route("/<path:path>", methods=METHODS)
    def view(path: str) -> str:
        reached.append((request.method, request.path))
        return ""

    return app.wsgi_app


def make_starlette(kind: Any = Starlette) -> Any:
    async def view(request: Request) -> Response:
        reached.append((request.method, f"/{request.path_params['path']}"))
        return Response()

    return kind(routes=[Route("/{path:path}", view, methods=METHODS)])


def reread(path: str, method: str, override: str | None, query: str) -> dict[str, str]:
    """What a gateway between the middleware and the app may make of a request."""
    named = [override] if override else re.findall("_method=(.+)", unquote(query))
    return {"method": (named or [method])[0], "path": read_again(path)}


def wsgi_gateway(app: Any) -> Any:
    def gateway(environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"].encode("latin-1").decode()
        key = f"HTTP_{OVERRIDE.upper().replace('-', '_')}"
        read = reread(path, environ["REQUEST_METHOD"], environ.get(key), environ["QUERY_STRING"])
        environ |= {"PATH_INFO": read["path"].encode().decode("latin-1"), "REQUEST_METHOD": read["method"]}
        return app(environ, start_response)

    return gateway


class ASGIGateway:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        override = dict(scope["headers"]).get(OVERRIDE.lower().encode(), b"").decode()
        read = reread(scope["path"], scope["method"], override, scope["query_string"].decode())
        await self.app({**scope, **read}, receive, send)


def make_fastapi() -> Any:
    """It sets its root path after the middleware has decided."""
    app = make_starlette(FastAPI)
    app.root_path = "/admin"  # as the constructor does, which warns
    return app


WSGI = {"flask": make_flask, "django": get_wsgi_application}
ASGI = {"starlette": make_starlette, "fastapi": make_fastapi}


@pytest.fixture(params=[*WSGI, *ASGI], scope="module")
def ask(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Ask an app behind the middleware, with a gateway between them or without."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("DJANGO_SETTINGS_MODULE", "tests.support.django_settings")
        django.setup()
        wsgi = request.param in WSGI
        app = {**WSGI, **ASGI}[request.param]()
        gateway: Any = wsgi_gateway if wsgi else ASGIGateway
        wrap: Any = WSGIMiddleware if wsgi else ASGIMiddleware
        apps: dict[str, list[Any]] = {}
        for mode in ("full", "read_only"):
            state = stack.enter_context(closing(MaintenanceState("memory://", ttl=1000.0)))
            state.set(True, mode=mode)  # type: ignore[arg-type]
            apps[mode] = [wrap(app, state), wrap(gateway(app), state)]

        def ask_one(mode: str, *, gateway: bool, **asked: Any) -> int:
            return (call_wsgi if wsgi else call_asgi)(apps[mode][gateway], **asked).status

        with override_settings(ROOT_URLCONF=__name__):
            yield ask_one


words = st.sampled_from(["admin", "health", "healthz", "orders", "", ".", "..", "%2e%2e", "．．", "‥", "a b"])
marks = st.sampled_from([*[""] * 6, *" \t\0;?#\\\x7f%", "%2f", "／", "⁄", "∕", "％", "＼", "\N{NO-BREAK SPACE}"])
methods = st.sampled_from(METHODS)
queries = st.builds("{}={}".format, st.sampled_from(["a", "_method", "%5Fmethod"]), methods)


@settings(max_examples=int(os.environ.get("ROUTER_EXAMPLES", "300")), deadline=None)
@given(
    mode=st.sampled_from(["full", "read_only"]),
    gateway=st.booleans(),
    path=st.lists(st.tuples(marks, words, marks).map("".join), max_size=4).map(lambda parts: f"/{'/'.join(parts)}"),
    method=methods,
    headers=st.dictionaries(st.just(OVERRIDE), methods),
    query=queries,
)
def test_only_what_is_exempt_reaches_a_view(ask: Any, mode: str, **asked: Any) -> None:
    reached.clear()
    event(str(ask(mode, **asked)))
    for method, path in reached:
        first = f"/{path.split('/')[1]}"
        exempt = first == "/admin" or (first in PROBES and method in ("GET", "HEAD"))
        assert exempt or (mode == "read_only" and method in READS)
