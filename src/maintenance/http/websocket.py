"""The open WebSockets of an ASGI middleware, closed when a flip arrives."""

import contextlib
from typing import Final

import anyio
import anyio.from_thread
import anyio.lowlevel

from maintenance.base.runtime import REAL
from maintenance.base.values import WEBSOCKET, Snapshot
from maintenance.http.admission import Admission, Asked
from maintenance.http.asgi_io import App, Message, Receive, Scope, Send, refuse_websocket

SERVICE_RESTART: Final = 1012
"""The close code of an open WebSocket that a flip ends (IANA WebSocket Close Code Number Registry)."""

_LAST: Final = ("websocket.close", "websocket.http.response.start")
"""The messages after which an app has said how a WebSocket ends."""


class Closer:
    """An app whose open WebSockets are closed when a flag that refuses them arrives; the rest passes untouched."""

    def __init__(self, app: App, gate: Admission) -> None:
        """Start with none open."""
        self._app, self._gate = app, gate
        self._open: dict[int, _Open] = {}
        gate.flipped = self._flipped

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for one connection that was let in."""
        app, gate, asked = self._app, self._gate, None
        if scope["type"] == "websocket":
            kept = scope if gate.keep is None else gate.keep(scope)  # as it came: a bypass is asked about it later
            asked = gate.ask(WEBSOCKET, scope["path"], scope.get("root_path", ""), kept)
        if asked is None:
            await app(scope, receive, send)
            return
        socket = _Open(asked, receive, send)
        self._open[id(socket)] = socket
        try:
            # A flip may have arrived since this one was let in, and before it stood in the table.
            refusal = gate.refusal(asked, gate.lease.current)
            if refusal is None:
                await app(scope, socket.receive, socket.send)
            else:
                await refuse_websocket(refusal, scope, receive, send)
        finally:
            del self._open[id(socket)]

    def _flipped(self, snapshot: Snapshot) -> None:
        refused = [socket for socket in list(self._open.values()) if self._gate.refuses(socket.asked, snapshot)]
        if refused:
            # In a thread of its own: a busy event loop must not hold up the one that keeps the lease.
            REAL.start(lambda: _end_all(refused))


def _end_all(sockets: "list[_Open]") -> None:
    for socket in sockets:
        with contextlib.suppress(RuntimeError):  # its event loop has ended, and so has it
            anyio.from_thread.run_sync(socket.end, token=socket.token)


class _Open:
    """One WebSocket between the server and the app."""

    def __init__(self, asked: Asked, receive: Receive, send: Send) -> None:
        self.asked = asked
        self.token = anyio.lowlevel.current_token()
        self._receive, self._send = receive, send
        self._ending = self._closed = False
        self._waiting: anyio.CancelScope | None = None

    def end(self) -> None:
        """Close it at the app's next receive or send; at once where it waits in receive, as most do."""
        if self._closed:
            return  # what comes now is between the server and the app
        self._ending = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def receive(self) -> Message:
        """The server's next message, or the disconnect that the flip brings."""
        if not self._ending:
            with anyio.CancelScope() as self._waiting:
                message = await self._receive()
                self._closed = self._closed or message["type"] == "websocket.disconnect"
                return message
        self._waiting = None
        await self._close()
        return {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": "maintenance"}

    async def send(self, message: Message) -> None:
        """Pass a message on; after the flip, as with any client that has gone, an OSError (ASGI 2.4)."""
        if self._ending and message["type"] != "websocket.accept":
            await self._close()
            raise ConnectionAbortedError("the WebSocket was closed for maintenance")
        # Also one that is being refused with a response has begun to end.
        self._closed = self._closed or message["type"] in _LAST
        await self._send(message)

    async def _close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):  # the client has gone meanwhile (ASGI 2.4)
                await self._send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "maintenance"})
