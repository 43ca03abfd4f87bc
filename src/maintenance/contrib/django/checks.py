"""The system checks: mistakes that would otherwise show only once maintenance is on."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's names
from django.core.handlers.base import BaseHandler
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, Resolver404, resolve, reverse
from django.utils.module_loading import import_string

from maintenance.contrib.django.database import find_database, read_options
from maintenance.errors import ConfigurationError, StoreError
from maintenance.http.admission import Middleware
from maintenance.process.api import open_named
from maintenance.process.state import MaintenanceState
from maintenance.stores import SQLiteStore

_CLASSES: Final = ("maintenance.wsgi.MaintenanceMiddleware", "maintenance.asgi.MaintenanceMiddleware")

_KINDS: Final = {"WSGI_APPLICATION": "wsgi", "ASGI_APPLICATION": "asgi"}

_MAX_LOOKED_AT: Final = 1000
"""How many objects around Django are looked into."""


def check_settings(**_: Any) -> list[CheckMessage]:
    """Find settings from which no state can be built."""
    try:
        find_database()
        MaintenanceState("memory://", **read_options()[1])
    except ConfigurationError as exc:
        return [Error(str(exc), id="maintenance.E001")]
    return []


def check_middleware(**_: Any) -> list[CheckMessage]:
    """Find the class in the setting that takes middlewares of Django's own kind."""
    if not set(_CLASSES).intersection(settings.MIDDLEWARE):
        return []
    hint = "Remove it from MIDDLEWARE, and wrap the application in wsgi.py or asgi.py."
    return [
        Error("MIDDLEWARE holds MaintenanceMiddleware, which wraps an application.", hint=hint, id="maintenance.E002")
    ]


def check_tables(databases: Iterable[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Find a database without the tables. It may only lack them for now, so this is a warning."""
    try:
        if read_options()[0] not in (databases or ()):
            return []
        store = open_named(*find_database())
    except ConfigurationError:
        return []  # `check_settings` reports it
    if isinstance(store, SQLiteStore):
        store = SQLiteStore(store.name, create=False)
    try:
        MaintenanceState(store, register=False).refresh()
    except StoreError as exc:
        hint = "Run `manage.py maintenance migrate`."
        return [Warning(f"The flag cannot be read: {exc}", hint=hint, id="maintenance.W001")]
    return []


def check_applications(**_: Any) -> list[CheckMessage]:
    """Find an application that is not wrapped, or not as it should be."""
    return [
        message for setting in _KINDS if (path := getattr(settings, setting, None)) for message in _check(setting, path)
    ]


def _check(setting: str, path: str) -> Iterator[CheckMessage]:
    named = f"{setting} ({path})"
    try:
        application = import_string(path)
    except Exception as exc:  # noqa: BLE001 - such as a variable that only the server has; the other checks must run
        yield Warning(f"{named} cannot be imported: {type(exc).__name__}: {exc}", id="maintenance.W002")
        return
    middleware = _find_middleware(application)
    if middleware is None:
        kind = _KINDS[setting]
        hint = f"Use application = MaintenanceMiddleware(get_{kind}_application()), from maintenance.{kind}."
        yield Warning(f"{named} is not wrapped, so it stays open during maintenance.", hint=hint, id="maintenance.W003")
        return
    if middleware is not application:
        outer = type(application).__name__
        hint = "Make MaintenanceMiddleware the outermost, so that nothing else runs for a refused request."
        yield Warning(f"{named}: {outer} is outside of MaintenanceMiddleware.", hint=hint, id="maintenance.W004")
    yield from _check_admin(named, middleware)


def _find_middleware(application: Any) -> Middleware | None:
    """Return the middleware in an application, or in the applications that it wraps."""
    queue, seen = [application], {id(application)}
    for found in queue:
        if isinstance(found, Middleware):
            return found
        inside = [it for it in _list_inside(found) if id(it) not in seen][: _MAX_LOOKED_AT - len(queue)]
        seen |= {id(it) for it in inside}
        queue += inside
    return None


def _list_inside(application: Any) -> list[Any]:
    """Return what an application may pass requests on to: in its attributes, or in the variables of a function."""
    if isinstance(application, BaseHandler):
        return []
    values = [*getattr(application, "__dict__", {}).values(), *_list_variables(application)]
    nested = [it for value in values if isinstance(value, Mapping) for it in value.values()]
    return [it for it in (*values, *nested) if callable(it) and not isinstance(it, type)]


def _list_variables(function: Any) -> Iterator[Any]:
    """Yield what the variables of a closure hold."""
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # it is empty
            yield cell.cell_contents


def _check_admin(named: str, middleware: Middleware) -> Iterator[CheckMessage]:
    """Find an admin that stays open without its styles, or without its login."""
    admin = _find_url(lambda: reverse("admin:index")) if apps.is_installed("django.contrib.admin") else None
    if admin is None or not middleware.exempts("GET", admin):
        return
    static, login = _find_url(lambda: settings.STATIC_URL), _find_url(lambda: resolve_url(settings.LOGIN_URL))
    if static is not None and not middleware.exempts("GET", f"{static}x"):
        hint = (
            f"Add {static.rstrip('/')!r} to exempt. If a server in front serves the static files, silence this check."
        )
        yield _report(named, admin, "STATIC_URL", hint, "maintenance.W005")
    if login is not None and _is_served(login) and not _can_log_in(middleware, login):
        hint = f"Add {login.rstrip('/')!r} to exempt. If staff log in elsewhere, silence this check."
        yield _report(named, admin, "LOGIN_URL", hint, "maintenance.W006")


def _report(named: str, admin: str, setting: str, hint: str, id_: str) -> CheckMessage:
    return Warning(f"{named}: {admin} is exempt, and {setting} is not.", hint=hint, id=id_)


def _find_url(find: Callable[[], str | None]) -> str | None:
    """Return the path of a URL, or None if it is not one of this site."""
    try:
        url = urlsplit(find() or "")
    except NoReverseMatch:
        return None
    return url.path if url.path.startswith("/") and not url.netloc else None


def _is_served(path: str) -> bool:
    try:
        resolve(path)
    except Resolver404:
        return False
    return True


def _can_log_in(middleware: Middleware, path: str) -> bool:
    return middleware.exempts("GET", path) and middleware.exempts("POST", path)
