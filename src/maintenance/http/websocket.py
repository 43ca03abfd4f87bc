"""The WebSockets of an ASGI middleware: refused when they come, and closed when a flip refuses them."""

import logging
from typing import Final

import anyio
import anyio.from_thread
import anyio.lowlevel

from maintenance.base.log import log
from maintenance.base.values import WEBSOCKET
from maintenance.http.admission import Admission
from maintenance.http.asgi_io import App, Message, Receive, Scope, Send, build_messages
from maintenance.http.open import OpenTable
from maintenance.http.refusal import Response
from maintenance.http.request import Target

SERVICE_RESTART: Final = 1012
"""The close code of an open WebSocket that a flip ends (IANA WebSocket Close Code Number Registry)."""

PRIVATE_RESTART: Final = 4012
"""The same for a server that refuses to send 1012, as daphne does. Clients take 1000 for an end for good."""

TRY_AGAIN_LATER: Final = 1013
"""The close code of a refusal (IANA WebSocket Close Code Number Registry)."""

_LAST: Final = ("websocket.close", "websocket.http.response.start")
"""The messages with which an app ends a WebSocket."""


async def refuse_websocket(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket before it is accepted: with the response if the server can, else with a close code."""
    await receive()  # websocket.connect
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": "maintenance"})
        return
    for message in build_messages(response, False):
        await send({**message, "type": f"websocket.{message['type']}"})
    # Uvicorn logs an error if the app ends before the connection, which it closes at the event loop's next step.
    await anyio.lowlevel.checkpoint()


class Closer:
    """An app whose open WebSockets are closed when a flag that refuses them arrives. Other scopes pass untouched."""

    def __init__(self, app: App, admission: Admission) -> None:
        """Start with no open WebSocket."""
        self._app, self._admission, self._table = app, admission, OpenTable(admission)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for one connection that was admitted."""
        app, admission, target = self._app, self._admission, None
        if scope["type"] == "websocket":
            kept = scope if admission.keep is None else admission.keep(scope)
            target = admission.read_target(WEBSOCKET, scope["path"], scope.get("root_path", ""), kept)
        if target is None:
            await app(scope, receive, send)
            return
        socket = _Open(target, receive, send)
        with self._table.hold(socket):
            refusal = self._table.add(socket)
            if refusal is None:
                await app(scope, socket.receive, socket.send)
            else:
                await refuse_websocket(refusal, scope, receive, send)


class _Open:
    """One WebSocket between the server and the app."""

    def __init__(self, target: Target, receive: Receive, send: Send) -> None:
        self.target = target
        self._token = anyio.lowlevel.current_token()
        self._receive, self._send = receive, send
        self._ending = self._closed = False
        self._waiting: anyio.CancelScope | None = None

    def end(self) -> None:
        """Close it at the app's next receive or send. Most apps wait in receive, which this call interrupts."""
        anyio.from_thread.run_sync(self._end, token=self._token)

    def _end(self) -> None:
        if self._closed:
            return  # the app or the client has ended it already
        self._ending = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def receive(self) -> Message:
        """Return the server's next message, or a disconnect after the flip."""
        if not self._ending:
            with anyio.CancelScope() as self._waiting:
                message = await self._receive()
                self._closed = self._closed or message["type"] == "websocket.disconnect"
                return message
        self._waiting = None
        await self._close()
        return {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": "maintenance"}

    async def send(self, message: Message) -> None:
        """Pass a message on. After the flip, raise an OSError, as ASGI 2.4 asks for a client that has gone."""
        if self._ending and message["type"] != "websocket.accept":
            await self._close()
            raise ConnectionAbortedError("the WebSocket was closed for maintenance")
        self._closed = self._closed or message["type"] in _LAST
        await self._send(message)

    async def _close(self) -> None:
        """Close it for the client. Whatever the server says to that, the app is disconnected."""
        if self._closed:
            return
        self._closed = True
        try:
            try:
                await self._send_close(SERVICE_RESTART)
            except OSError:
                raise
            except Exception:  # noqa: BLE001 - a server raises whatever it likes for a code that it does not send
                await self._send_close(PRIVATE_RESTART)
        except OSError:
            pass  # the client has gone (ASGI 2.4)
        except Exception as exc:  # noqa: BLE001 - it is logged
            log(logging.WARNING, "the server does not close a WebSocket for maintenance", exc=exc)

    async def _send_close(self, code: int) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": "maintenance"})
