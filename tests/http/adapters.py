"""The two adapters behind one interface, for tests of what they share."""

from collections.abc import Callable
from typing import Any

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.base.flags import Flags
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import Answer, call_asgi, call_wsgi
from tests.support.entering import enter

Inside = Callable[[Any], object]


class Adapter:
    """One adapter, around an app that answers 200.

    Attributes:
        middleware: The public class.
        path_key, root_key: Where the raw request holds its path and its mount point.
    """

    def __init__(self, name: str) -> None:
        wsgi = name == "wsgi"
        self.name = name
        self.middleware: Any = WSGIMiddleware if wsgi else ASGIMiddleware
        self.path_key, self.root_key = ("PATH_INFO", "SCRIPT_NAME") if wsgi else ("path", "root_path")
        self._call: Callable[..., Answer] = call_wsgi if wsgi else call_asgi
        self._make_app = _wsgi_app if wsgi else _asgi_app

    def wrap(self, state: Any = None, *, inside: Inside = lambda _: None, **options: Any) -> Any:
        """Wrap an app that calls `inside` with each raw request before it answers."""
        return self.middleware(self._make_app(inside), state, **options)

    def ask(self, app: Any, path: str = "/", **options: Any) -> Answer:
        return self._call(app, path, **options)

    def add_header(self, raw: Any, name: str, value: str) -> None:
        """Change the raw request, as an app or a middleware may."""
        if self.name == "wsgi":
            raw[f"HTTP_{name.upper().replace('-', '_')}"] = value
        else:
            raw["headers"].append((name.lower().encode(), value.encode()))


def flip(state: MaintenanceState) -> Flags:
    """Switch the site on, and return the flags that hold then."""
    state.set(True)
    return state.lease.flags


def hold(app: Any, now: float) -> Callable[[], None]:
    """Admit one request, as an adapter does. Call the result to end the request."""
    entry = enter(app._admission.in_flight, "GET", "/", "", {"headers": []}, now)
    app._admission.wait_for_answer()
    return entry.clear


def _wsgi_app(inside: Inside) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        inside(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"the app"]

    return app


def _asgi_app(inside: Inside) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the app"})

    return app
