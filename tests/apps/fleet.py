"""An app as WSGI and as ASGI, for real servers: each answer names its process, and an admin endpoint flips.

The environment says what to build: `APP_OPTIONS` (JSON, those of `MaintenanceState`), `APP_LISTEN=0` (polling alone),
`APP_MIDDLEWARE` (JSON, those of the ASGI middleware) and `APP_LOG` (where slow requests write their begin and end).
"""

import json
import os
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

import anyio

from maintenance import aset_maintenance, init_maintenance, set_maintenance
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.stores import PostgresStore
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware

_store = PostgresStore(os.environ["MAINTENANCE_DATABASE_URL"], listen=os.environ.get("APP_LISTEN") != "0")
state = init_maintenance(_store, **json.loads(os.environ.get("APP_OPTIONS", "{}")))
_options = json.loads(os.environ.get("APP_MIDDLEWARE", "{}"))
_shared = {name: value for name, value in _options.items() if name != "close_websockets"}


def _log(word: str) -> None:
    descriptor = os.open(os.environ["APP_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{word} {os.getpid()} {time.monotonic()}\n".encode())
    os.close(descriptor)


def _status() -> bytes:
    told = state.status()
    return json.dumps(
        {
            "condition": told.condition,
            "revision": told.snapshot.revision,
            "listening": told.listening,
            "registered": told.registered,
            "in_flight": told.in_flight,
            "error": told.last_error,
        }
    ).encode()


def _plain_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path, query = environ["PATH_INFO"], parse_qs(environ.get("QUERY_STRING", ""))
    body = b"open"
    if path == "/admin/flip":
        body = str(set_maintenance(query["on"] == ["1"]).revision).encode()
    elif path == "/admin/status":
        body = _status()
    elif path == "/slow":
        _log("begin")
        time.sleep(float(query["seconds"][0]))
        _log("end")
    elif path == "/file":
        start_response("200 OK", [("Content-Type", "text/plain")])
        file: Iterable[bytes] = environ["wsgi.file_wrapper"](open(__file__, "rb"))  # noqa: SIM115 - the server closes it
        return file
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def _plain_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _echo(receive, send)
    elif scope["type"] == "http":
        await _respond(scope, send)


async def _respond(scope: Any, send: Any) -> None:
    path, query = scope["path"].removeprefix(scope["root_path"]), parse_qs(scope["query_string"].decode())
    body = b"open"
    if path == "/admin/flip":
        body = str((await aset_maintenance(query["on"] == ["1"])).revision).encode()
    elif path == "/admin/status":
        body = _status()
    elif path == "/slow":
        _log("begin")
        await anyio.sleep(float(query["seconds"][0]))
        _log("end")
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _lifespan(receive: Any, send: Any) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _echo(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
    if "APP_LOG" in os.environ:
        _log(message["type"].removeprefix("websocket."))


class _NamedWSGI:
    """The outermost layer, so that a 503 names its process too."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def named(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Pid", str(os.getpid()))], exc_info)

        body: Iterable[bytes] = self._app(environ, named)
        return body


class _NamedASGI:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def named(message: Any) -> None:
            if message["type"].endswith("response.start"):
                message = {**message, "headers": [*message["headers"], (b"x-pid", str(os.getpid()).encode())]}
            await send(message)

        await self._app(scope, receive, named)


wsgi = _NamedWSGI(WSGIMiddleware(_plain_wsgi, **_shared))
asgi = _NamedASGI(ASGIMiddleware(_plain_asgi, **_options))
