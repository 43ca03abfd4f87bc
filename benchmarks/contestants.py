"""What the benchmark beside the peers serves: each variant is built in a process of its own."""

import asyncio
import io
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from benchmarks.hot_path import ACCEPT, AsyncNothing, Nothing

Calls = Callable[[int], int]
"""Serves as many requests as it is asked to, and returns the nanoseconds that they took."""

OPEN: Final = {"bare", "does nothing"}
"""The variants that are measured only while maintenance is off."""


def build(family: str, variant: str, *, on: bool) -> Calls:
    """Build one variant. Call this once in a process: Django has one set of settings.

    Args:
        family: A key of `FAMILIES`.
        variant: One of its variants.
        on: Whether maintenance is on.
    """
    app = FAMILIES[family][variant](on)
    calls = _of_wsgi(app) if family in {"WSGI", "Django"} else _of_asgi(app)
    calls(200)
    return calls


def _of_wsgi(app: Any) -> Calls:
    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/x", "QUERY_STRING": "", "HTTP_ACCEPT": ACCEPT,
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(), "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost",
    }  # fmt: skip

    def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
        pass

    def calls(count: int) -> int:
        began = time.perf_counter_ns()
        for _ in range(count):
            result = app(environ.copy(), start_response)
            for _chunk in result:
                pass
            close = getattr(result, "close", None)
            if close:
                close()
        return time.perf_counter_ns() - began

    return calls


def _of_asgi(app: Callable[..., Awaitable[None]]) -> Calls:
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/x", "raw_path": b"/x", "root_path": "", "query_string": b"", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "headers": [(b"host", b"localhost"), (b"accept", ACCEPT.encode())],
    }  # fmt: skip
    loop = asyncio.new_event_loop()

    async def send(message: Any) -> None:
        pass

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def calls(count: int) -> int:
        began = time.perf_counter_ns()
        for _ in range(count):
            await app(scope.copy(), receive, send)
        return time.perf_counter_ns() - began

    return lambda count: loop.run_until_complete(calls(count))


def _state(on: bool) -> Any:
    from maintenance import MaintenanceState

    state = MaintenanceState("memory://", ttl=3600)
    if on:
        state.set(True, message="Back soon.")
    return state


def _wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"open"]


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"open"})


def _wsgi(app: Any, on: bool, **options: Any) -> Any:
    from maintenance.wsgi import MaintenanceMiddleware

    return MaintenanceMiddleware(app, _state(on), **options)


def _asgi(app: Any, on: bool, **options: Any) -> Any:
    from maintenance.asgi import MaintenanceMiddleware

    return MaintenanceMiddleware(app, _state(on), **options)


def _base_http_middleware(on: bool) -> Any:
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import PlainTextResponse

    async def dispatch(request: Any, call_next: Any) -> Any:
        return PlainTextResponse("Back soon.", 503) if on else await call_next(request)

    return BaseHTTPMiddleware(_asgi_app, dispatch)


def _alcazaba(on: bool) -> Any:
    from fastapi_alcazaba import FastAPICache
    from fastapi_alcazaba.backends.inmemory import InMemoryBackend
    from fastapi_alcazaba.maintenance import FastAPIMaintenance, MaintenanceMiddleware

    FastAPICache.init(InMemoryBackend())
    maintenance = FastAPIMaintenance()
    if on:
        asyncio.run(maintenance.enable(message="Back soon."))
    return MaintenanceMiddleware(_asgi_app, maintenance=maintenance)


def _fastapi_app() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()
    app.add_api_route("/x", lambda: PlainTextResponse("open"))
    return app


def _fastapi_maintenance(on: bool) -> Any:
    from fastapi_maintenance import MaintenanceModeMiddleware

    os.environ["FASTAPI_MAINTENANCE_MODE"] = "1" if on else "0"
    app = _fastapi_app()
    app.add_middleware(MaintenanceModeMiddleware)
    return app


def _waygate(on: bool) -> Any:
    from waygate.core.engine import WaygateEngine
    from waygate.fastapi.middleware import WaygateMiddleware

    engine, app = WaygateEngine(), _fastapi_app()
    if on:
        asyncio.run(engine.enable_global_maintenance(reason="Back soon."))
    app.add_middleware(WaygateMiddleware, engine=engine)
    return app


def _django(**settings: Any) -> Any:
    import django
    from django.conf import settings as configured
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    configured.configure(
        SECRET_KEY="of the benchmark", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _temporary("cache.db")}}, **settings,
    )  # fmt: skip
    globals()["urlpatterns"] = [path("x", lambda _: HttpResponse("open"))]
    django.setup()
    return get_wsgi_application()


def _temporary(name: str) -> str:
    return os.path.join(tempfile.mkdtemp(), name)


def django_does_nothing(get_response: Any) -> Any:
    """A middleware of Django's kind."""

    def call(request: Any) -> Any:
        return get_response(request)

    return call


def _django_maintenance_mode(on: bool, backend: str, caches: Any = None) -> Any:
    os.environ["DJANGO_SETTINGS_MODULE"] = __name__  # it looks there for the folder of its file
    app = _django(
        INSTALLED_APPS=["maintenance_mode"],
        MIDDLEWARE=["maintenance_mode.middleware.MaintenanceModeMiddleware"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        MAINTENANCE_MODE_STATE_BACKEND=f"maintenance_mode.backends.{backend}",
        MAINTENANCE_MODE_STATE_FILE_PATH=_temporary("state.txt"),
        **({"CACHES": {"default": caches}} if caches else {}),
    )
    if caches and "Database" in caches["BACKEND"]:
        from django.core.management import call_command

        call_command("createcachetable", verbosity=0)
    from maintenance_mode.core import set_maintenance_mode

    set_maintenance_mode(on)
    return app


_LOCAL_MEMORY: Final = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
_DATABASE: Final = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"}

FAMILIES: Final[dict[str, dict[str, Callable[[bool], Any]]]] = {
    "WSGI": {
        "bare": lambda _: _wsgi_app,
        "does nothing": lambda _: Nothing(_wsgi_app),
        "maintenance": lambda on: _wsgi(_wsgi_app, on),
        "maintenance, in_flight=False": lambda on: _wsgi(_wsgi_app, on, in_flight=False),
    },
    "ASGI": {
        "bare": lambda _: _asgi_app,
        "does nothing": lambda _: AsyncNothing(_asgi_app),
        "maintenance": lambda on: _asgi(_asgi_app, on),
        "maintenance, in_flight=False": lambda on: _asgi(_asgi_app, on, in_flight=False),
        "fastapi-alcazaba, memory": _alcazaba,
        "BaseHTTPMiddleware": _base_http_middleware,
    },
    "FastAPI": {
        "bare": lambda _: _fastapi_app(),
        "does nothing": lambda _: AsyncNothing(_fastapi_app()),
        "maintenance": lambda on: _asgi(_fastapi_app(), on),
        "fastapi-maintenance, environment": _fastapi_maintenance,
        "waygate, memory": _waygate,
    },
    "Django": {
        "bare": lambda _: _django(MIDDLEWARE=[]),
        "does nothing": lambda _: _django(MIDDLEWARE=[f"{__name__}.django_does_nothing"]),
        "maintenance": lambda on: _wsgi(_django(MIDDLEWARE=[]), on),
        "django-maintenance-mode, file": lambda on: _django_maintenance_mode(on, "LocalFileBackend"),
        "django-maintenance-mode, local memory": lambda on: _django_maintenance_mode(on, "CacheBackend", _LOCAL_MEMORY),
        "django-maintenance-mode, database": lambda on: _django_maintenance_mode(on, "CacheBackend", _DATABASE),
    },
}  # fmt: skip
"""How each variant is built, by the family of apps that it wraps. Each family has its own bare app."""
