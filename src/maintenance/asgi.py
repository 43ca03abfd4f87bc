"""The adapter for ASGI 3, under asyncio and trio."""

from typing import Unpack

from maintenance.base.options import check_bool
from maintenance.base.values import WEBSOCKET
from maintenance.http.asgi_io import (
    WIRE,
    App,
    Receive,
    Scope,
    Send,
    lifespan,
    messages,
    refuse_websocket,
    wait_in_thread,
)
from maintenance.http.middleware import Middleware, Options
from maintenance.http.websocket import Closer
from maintenance.process.state import MaintenanceState


class MaintenanceMiddleware(Middleware):
    """Wraps an ASGI app: while maintenance is on, what is neither exempt nor bypassed gets 503."""

    _wire = WIRE

    def __init__(
        self,
        app: App,
        state: MaintenanceState | None = None,
        *,
        close_websockets: bool = False,
        **options: Unpack[Options],
    ) -> None:
        """Wrap an app.

        Args:
            app: The app.
            state: What to ask; None for the process's default state, looked up when the first request comes.
            close_websockets: Whether open WebSockets that the flag refuses are closed (code 1012) when it arrives.
            **options: Those of `Middleware`.

        Raises:
            ConfigurationError: An option is wrong; the message says what to write.
        """
        super().__init__(app, state, **options)
        check_bool("close_websockets", close_websockets)
        if close_websockets:
            self._app = Closer(app, self._gate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection; what is neither HTTP nor a WebSocket passes untouched."""
        gate, kind = self._gate, scope["type"]
        if kind != "http" and kind != "websocket":  # noqa: PLR1714 - twice as fast as a look into a tuple
            await self._pass_other(scope, receive, send)
            return
        # Looked up before they are called: an attribute that is called at once takes Python 3.11 twice as long.
        clock, which = gate.clock_call
        flight, app = gate.in_flight, self._app
        # The clock first: what is held a moment later may be newer, never older, than the reading.
        now = clock(*which)
        if flight is None and now < gate.lease.current.open_until:
            await app(scope, receive, send)
            return
        method, path = scope["method"] if kind == "http" else WEBSOCKET, scope["path"]
        try:
            root = scope["root_path"]
        except KeyError:  # which a server may leave out, and none of the usual ones does
            root = ""
        entry = [method, path, root, now, scope if gate.keep is None else gate.keep(scope)]
        try:
            if flight is not None:
                table = flight.table
                table.append(entry)
                if len(table) > flight.room:
                    flight.sweep()
            held = gate.lease.current
            if now < held.open_until:
                await app(scope, receive, send)
                return
            refusal, asked = None, gate.ask(method, path, root, scope)
            if asked is None:
                gate.begin()
            else:
                refusal = gate.refusal(asked, held if now < held.deadline else await wait_in_thread(gate, now))
            if refusal is None:
                await app(scope, receive, send)
                return
        finally:
            entry.clear()
        if kind == "websocket":
            await refuse_websocket(refusal, scope, receive, send)
            return
        start, body = messages(refusal, method == "HEAD")
        await send(start)
        await send(body)

    async def _pass_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(self._app, self._gate, scope, receive, send)
        else:
            await self._app(scope, receive, send)
