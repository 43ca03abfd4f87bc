"""Test clients that meet the middleware, as visitors do. Those of Django call the views without it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpResponse
from django.test import client
from django.utils.module_loading import import_string

from maintenance.errors import ConfigurationError

_HANDLER: Final = "maintenance.test.handler"
"""The key of the environ or scope that holds what runs in place of Django's own handler."""


class Client(client.Client):
    """`django.test.Client`, through the application that `WSGI_APPLICATION` names.

    Use it as the `client_class` of a test case. A view that is admitted runs as with Django's client: with its
    context, its templates and its exceptions.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take the arguments of `django.test.Client`.

        Raises:
            ConfigurationError: The setting names no application.
        """
        super().__init__(*args, **options)
        self.handler: Any = _WSGI(self.handler)


class AsyncClient(client.AsyncClient):
    """`django.test.AsyncClient`, through the application that `ASGI_APPLICATION` names."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take the arguments of `django.test.AsyncClient`.

        Raises:
            ConfigurationError: The setting names no application.
        """
        super().__init__(*args, **options)
        self.handler: Any = _ASGI(self.handler)


class _WSGI:
    def __init__(self, views: Callable[..., Any]) -> None:
        self._views, self._application = views, _import("WSGI_APPLICATION")

    def __call__(self, environ: dict[str, Any]) -> Any:
        admitted, started = [], []

        def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
            response = self._views(environ)
            admitted.append(response)
            start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
            return []

        with _replaced(WSGIHandler):
            chunks = self._application(
                {**environ, _HANDLER: serve}, lambda status, headers, *_: started.append((int(status[:3]), headers))
            )
            body = b"".join(chunks)
            getattr(chunks, "close", lambda: None)()
        response = _build(admitted, *started[-1], body)
        if not admitted:
            response.wsgi_request = WSGIRequest(environ)
        return response


class _ASGI:
    def __init__(self, views: Callable[..., Any]) -> None:
        self._views, self._application = views, _import("ASGI_APPLICATION")

    async def __call__(self, scope: dict[str, Any]) -> Any:
        admitted, sent = [], []

        async def serve(scope: dict[str, Any], _: Any, send: Callable[..., Any]) -> None:
            response = await self._views(scope)
            admitted.append(response)
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        query: Any = scope.get("query_string", b"")  # the factory makes a text, which no server sends
        sent_query = query.encode("latin-1") if isinstance(query, str) else query
        with _replaced(ASGIHandler):
            await self._application({**scope, "query_string": sent_query, _HANDLER: serve}, receive, send)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]
        response = _build(admitted, sent[0]["status"], headers, b"".join(it.get("body", b"") for it in sent[1:]))
        if not admitted:
            response.asgi_request = ASGIRequest(scope, client.FakePayload(b""))
        return response


def _import(setting: str) -> Any:
    path = getattr(settings, setting, None)
    if path is None:
        raise ConfigurationError(
            f"{setting} is not set: name the wrapped application, such as 'mysite.wsgi.application'"
        )
    return import_string(path)


@contextlib.contextmanager
def _replaced(handler: Any) -> Iterator[None]:
    """Have the requests of a test client, and no other ones, answered by what they bring along."""
    own = handler.__call__

    def call(self: Any, request: dict[str, Any], *args: Any) -> Any:
        serve = request.get(_HANDLER)
        return own(self, request, *args) if serve is None else serve(request, *args)

    handler.__call__ = call
    try:
        yield
    finally:
        handler.__call__ = own


def _build(admitted: list[Any], status: int, headers: list[tuple[str, str]], body: bytes) -> Any:
    """Return the response of the view with the headers that were added outside, or the refusal."""
    response = admitted[0] if admitted else HttpResponse(body, status=status)
    for name, value in headers:
        if name.lower() == "set-cookie":
            response.cookies.load(value)
        else:
            response[name] = value
    return response
