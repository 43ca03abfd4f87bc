"""Where each framework leads a request that it is handed: the path that the view stands for; None if no view is."""

import io
import os
import posixpath
import re
import unicodedata
from typing import Any
from urllib.parse import unquote

import django
from asgiref.wsgi import WsgiToAsgiInstance
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.urls import Resolver404, re_path, resolve
from starlette.routing import Match, Route
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect, Rule
from werkzeug.wrappers import Request

PREFIXES = ["/admin/", "/orders/", "/exact/", "/é/"]
"""Each has a view of all below it."""

EXACT = ["/", "/admin", "/health", "/healthz", "/status", "/exact", "/in", "/ers", "/administrator", "/orders"]
"""Each has a view of its own. Another view takes every other path."""


def _no_view(*_: Any, **__: Any) -> None:
    """Never called: only the route to it is looked at."""


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.support.django_settings")
django.setup()
urlpatterns = [
    *(re_path(f"^{re.escape(path[1:])}$", _no_view, {"front": path}) for path in EXACT),
    *(re_path(f"^{re.escape(path[1:])}(?P<rest>.*)", _no_view, {"front": path}) for path in PREFIXES),
    re_path("(?s)^(?P<rest>.*)", _no_view, {"front": "/"}),
]
_MAP = Map([
    *(Rule(path, endpoint=path) for path in EXACT),
    *(Rule(f"{path}<path:rest>", endpoint=path) for path in [*PREFIXES, "/"]),
]).bind("localhost")  # fmt: skip
_ROUTES = [
    *(Route(path, _no_view, name=path, methods=None) for path in EXACT),
    *(Route(f"{path}{{rest:path}}", _no_view, name=path, methods=None) for path in [*PREFIXES, "/"]),
]


def flask(environ: dict[str, Any]) -> str | None:
    try:
        front, found = _MAP.match(Request(environ).path, environ["REQUEST_METHOD"])
    except (HTTPException, RequestRedirect):
        return None
    return f"{front}{found.get('rest', '')}"


def django_wsgi(environ: dict[str, Any]) -> str | None:
    return _resolve(WSGIRequest({**environ, "wsgi.input": io.BytesIO()}))


def django_asgi(scope: dict[str, Any]) -> str | None:
    return _resolve(ASGIRequest(scope, io.BytesIO()))


def _resolve(request: HttpRequest) -> str | None:
    try:
        found = resolve(request.path_info, __name__).kwargs
    except Resolver404:
        return None
    return f"{found['front']}{found.get('rest', '')}"


def starlette(scope: dict[str, Any]) -> str | None:
    for route in _ROUTES:
        match, found = route.matches(scope)
        if match is Match.FULL:
            return f"{route.name}{found['path_params'].get('rest', '')}"
    return None


def flask_inside_asgi(scope: dict[str, Any]) -> str | None:
    bridge = WsgiToAsgiInstance(None)
    bridge.scope = scope
    return flask(bridge.build_environ(scope, io.BytesIO()))


WSGI = [flask, django_wsgi]
ASGI = [starlette, django_asgi, flask_inside_asgi]


def read_again(path: str) -> str:
    """What a gateway between the middleware and the app, or the view itself, may make of a path."""
    path = unquote("".join(map(_normalize, unquote(path)))).translate(str.maketrans("\\⁄∕", "///"))
    path = re.sub(r"[\0-\x1f\x7f]|;[^/]*", "", re.split("[?#]", path)[0])
    path = "/".join(segment.strip() for segment in path.split("/")).lstrip("/")
    return posixpath.normpath(f"/{path}")


def _normalize(sign: str) -> str:
    """Read what looks like the syntax of a path as that. Another letter is another name, in every framework."""
    normal = unicodedata.normalize("NFKC", sign)
    return normal if set(normal) & set("./\\%;?#") else sign
