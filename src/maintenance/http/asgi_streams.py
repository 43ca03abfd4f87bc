"""Event streams that a flip ends, under ASGI."""

import anyio
import anyio.from_thread
import anyio.lowlevel

from maintenance.http.admission import Admission
from maintenance.http.asgi_io import App, Message, Receive, Scope, Send
from maintenance.http.open import OpenTable
from maintenance.http.request import Target, is_event_stream


class StreamEnder:
    """An app whose event streams end when a flag that refuses them arrives. Other scopes pass untouched."""

    def __init__(self, app: App, admission: Admission) -> None:
        """Start with no open stream."""
        self._app, self._admission, self._table = app, admission, OpenTable(admission)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for one request that was admitted."""
        admission, target = self._admission, None
        if scope["type"] == "http":
            kept = scope if admission.keep is None else admission.keep(scope)
            target = admission.read_target(scope["method"], scope["path"], scope.get("root_path", ""), kept)
        if target is None:
            await self._app(scope, receive, send)
            return
        response = _Response(target, send, self._table)
        with self._table.hold(response):
            await response.run(self._app, scope, receive)


class _Response:
    """One response, which may turn out to be a stream."""

    def __init__(self, target: Target, send: Send, table: OpenTable) -> None:
        self.target = target
        self._send, self._table = send, table
        self._token = anyio.lowlevel.current_token()
        self._running = anyio.CancelScope()
        self._complete = False

    async def run(self, app: App, scope: Scope, receive: Receive) -> None:
        """Run the app. If the stream is ended, the app is cancelled, as when the client goes away."""
        with self._running:
            await app(scope, receive, self.send)
        if self._running.cancelled_caught and not self._complete:
            await self._send({"type": "http.response.body", "body": b""})

    async def send(self, message: Message) -> None:
        """Pass a message on, and look at what the app sends."""
        if message["type"] == "http.response.body":
            self._complete = not message.get("more_body")
        await self._send(message)
        if message["type"] == "http.response.start" and _is_stream(message) and self._table.add(self) is not None:
            self._running.cancel()

    def end(self) -> None:
        """Cancel the app, in its event loop."""
        anyio.from_thread.run_sync(self._cancel, token=self._token)

    def _cancel(self) -> None:
        if not self._complete:  # or work that the app does after its response would be lost
            self._running.cancel()


def _is_stream(start: Message) -> bool:
    types = [value for name, value in start.get("headers", ()) if name.lower() == b"content-type"]
    return bool(types) and is_event_stream(types[0].decode("latin-1"))
