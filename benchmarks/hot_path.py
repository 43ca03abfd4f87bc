"""What a request pays: the bare app, a middleware that does nothing, and this one, off and on.

The variants take turns in many short rounds and each counts with its fastest one, so that what else the machine does
hits all alike or is left out.
"""

import asyncio
import gc
import time
import types
from collections.abc import Awaitable, Callable
from typing import Any, Final

from benchmarks import results
from benchmarks.report import line
from maintenance import MaintenanceState, asgi, wsgi
from maintenance.base.secret import hash_token
from maintenance.bypass import addresses
from maintenance.http.secret_link import name_cookie

ROUNDS: Final = 400
CALLS: Final = 500
ACCEPT: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
TRACKED: Final = {"WSGI": 600 / 100, "ASGI": 600 / 207}
"""The limit of 600 ns in do-nothing middlewares, of the machine that it was set on: there they add 100 and 207 ns."""

VARIANTS: Final = ("bare", "nothing", "off", "off, in flight", "on", "on, in flight", "on, all options", "by cookie")

Times = dict[str, float]


class Nothing:
    """A WSGI middleware that does nothing."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self._app(environ, start_response)


class AsyncNothing:
    """An ASGI middleware that does nothing."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


def _states() -> tuple[MaintenanceState, MaintenanceState]:
    off, on = MaintenanceState("memory://", ttl=3600), MaintenanceState("memory://", ttl=3600)
    on.set(True, message="Back soon.")
    return off, on


TOKEN: Final = "benchmark-token-with-enough-characters"
ALL_OPTIONS: Final[dict[str, Any]] = {
    "exempt": ["/metrics", "GET =/"],
    "bypass": addresses("10.0.0.0/8"),
    "scope": {"/shop": "shop"},
    "cors": ["https://app.example"],
    "reads": ["POST /search"],
    "mark_read_only": True,
}


def _cookie() -> str:
    return f"sid=1; {name_cookie(hash_token(TOKEN))}={TOKEN}"


def _variants(app: Any, nothing: Any, ours: Callable[..., Any], show_cookie: Callable[[Any], Any]) -> list[Any]:
    off, on = _states()
    secret = MaintenanceState("memory://", ttl=3600)
    secret.set(True, message="Back soon.", secret=TOKEN)
    full = ours(app, secret, **ALL_OPTIONS)
    return [
        app,
        nothing(app),
        ours(app, off, in_flight=False),
        ours(app, off, in_flight=True),
        ours(app, on, in_flight=False),
        ours(app, on, in_flight=True),
        full,
        show_cookie(full),
    ]


def _a_loop_of_its_own(once: Any) -> Any:
    """The same function, with its own code: code adapts to what it calls, and a server calls one app."""
    return types.FunctionType(once.__code__.replace(), once.__globals__, closure=once.__closure__)


def of_wsgi() -> Times:
    """Nanoseconds for one request, its body read and closed as a server does."""
    body = [b"page"]
    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/x/y", "HTTP_ACCEPT": ACCEPT,
        "wsgi.file_wrapper": type("FileWrapper", (), {}),
    }  # fmt: skip

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return body

    def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
        pass

    def once(wrapped: Any) -> int:
        began = time.perf_counter_ns()
        for _ in range(CALLS):
            result = wrapped(environ, start_response)
            for _chunk in result:
                pass
            close = getattr(result, "close", None)
            if close:
                close()
        return time.perf_counter_ns() - began

    known = environ | {"HTTP_COOKIE": _cookie()}
    variants = _variants(app, Nothing, wsgi.MaintenanceMiddleware, lambda it: lambda _, start: it(known, start))
    servers = [(_a_loop_of_its_own(once), it) for it in variants]
    best = [serve(wrapped) for serve, wrapped in servers]
    for _ in range(ROUNDS):
        best = [min(fastest, serve(wrapped)) for fastest, (serve, wrapped) in zip(best, servers, strict=True)]
    return {name: fastest / CALLS for name, fastest in zip(VARIANTS, best, strict=True)}


async def of_asgi() -> Times:
    """Nanoseconds for one request whose server awaits nothing."""
    start = {"type": "http.response.start", "status": 200, "headers": []}
    body = {"type": "http.response.body", "body": b"page"}
    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": "/x/y", "root_path": "", "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"example.org"), (b"accept", ACCEPT.encode())],
    }  # fmt: skip

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send(body)

    async def send(message: Any) -> None:
        pass

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def once(wrapped: Callable[..., Awaitable[None]]) -> int:
        began = time.perf_counter_ns()
        for _ in range(CALLS):
            await wrapped(scope, receive, send)
        return time.perf_counter_ns() - began

    known = scope | {"headers": [*scope["headers"], (b"cookie", _cookie().encode())]}
    variants = _variants(app, AsyncNothing, asgi.MaintenanceMiddleware, lambda it: lambda _, *rest: it(known, *rest))
    servers = [(_a_loop_of_its_own(once), it) for it in variants]
    best = [await serve(wrapped) for serve, wrapped in servers]
    for _ in range(ROUNDS):
        best = [min(fastest, await serve(wrapped)) for fastest, (serve, wrapped) in zip(best, servers, strict=True)]
    return {name: fastest / CALLS for name, fastest in zip(VARIANTS, best, strict=True)}


def _show(protocol: str, times: Times) -> None:
    bare = times["bare"]
    told = ", ".join(f"{name} {ns:.0f}" for name, ns in times.items())
    print(f"  {protocol}, ns: {told}")
    nothing = times["nothing"] - bare
    line(f"{protocol}: off adds, in do-nothing middlewares", (times["off"] - bare) / nothing, "x", limit=2)
    tracked = times["off, in flight"] - bare
    line(f"{protocol}: the same, in flight tracked", tracked / nothing, "x", limit=TRACKED[protocol])
    line(f"{protocol}: the same in this machine's time", tracked, "ns", limit=600)
    line(f"{protocol}: a 503", times["on"] / 1000, "us", limit=3)
    line(f"{protocol}: a 503, in flight tracked", times["on, in flight"] / 1000, "us", limit=3)
    line(f"{protocol}: a 503, all options in use", times["on, all options"] / 1000, "us", limit=10)
    line(f"{protocol}: a request let in by a cookie", times["by cookie"] / 1000, "us", limit=10)


def run() -> None:
    gc.collect()
    gc.disable()
    try:
        data = {"WSGI": of_wsgi(), "ASGI": asyncio.run(of_asgi())}
    finally:
        gc.enable()
    for protocol, times in data.items():
        _show(protocol, times)
    rounded = {protocol: {name: round(ns, 1) for name, ns in times.items()} for protocol, times in data.items()}
    results.save("hot_path", rounded, note=f"Nanoseconds, the fastest of {ROUNDS} rounds.")
