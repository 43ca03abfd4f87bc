"""The adapter for ASGI 3, under asyncio and trio."""

from typing import Any, Final

from maintenance.asgi_io import App, Receive, Scope, Send, accept_of, beginning, headers_of, messages, refuse_websocket
from maintenance.event_loop import of_request
from maintenance.gate import Wire
from maintenance.middleware import Middleware
from maintenance.model import check_bool
from maintenance.policy import WEBSOCKET, relative
from maintenance.state import MaintenanceState
from maintenance.websocket import Closer

_WIRE: Final = Wire(
    paths=lambda path, root: (relative(path, root) if root else path, path),
    accept=accept_of,
    headers=headers_of,
    client=lambda scope: scope["client"][0] if scope.get("client") else None,
    copy=lambda scope: {**scope, "headers": list(scope["headers"])},
)


class MaintenanceMiddleware(Middleware):
    """Wraps an ASGI app: while maintenance is on, what is neither exempt nor bypassed gets 503."""

    _wire = _WIRE

    def __init__(
        self, app: App, state: MaintenanceState | None = None, *, close_websockets: bool = False, **options: Any
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
        clock, which = gate.clock_call
        flight, app = gate.in_flight, self._app
        if kind != "http" and kind != "websocket":  # noqa: PLR1714 - twice as fast as a look into a tuple
            await self._pass_other(scope, receive, send)
            return
        # The clock first: what is held a moment later may be newer, never older, than the reading.
        now = clock(*which)
        if flight is None and now < gate.lease.held.open_until:
            await app(scope, receive, send)
            return
        method = scope["method"] if kind == "http" else WEBSOCKET
        key = None if flight is None else flight.enter(method, scope["path"], scope.get("root_path", ""), scope, now)
        try:
            refusal, held = None, gate.lease.held
            if now >= held.open_until:
                asked = gate.ask(method, scope["path"], scope.get("root_path", ""), scope)
                if asked is None:
                    gate.begin()
                else:
                    if now >= held.deadline:
                        # A default state that is not there yet is built in the thread too: that loads a driver.
                        settled = gate.held(now) if gate.state else None
                        held = await of_request(gate.settle) if settled is None else settled
                    refusal = gate.answer(asked, held)
            if refusal is None:
                await app(scope, receive, send)
                return
        finally:
            if flight is not None:
                flight.leave(key)
        if kind == "websocket":
            await refuse_websocket(refusal, scope, receive, send)
            return
        for message in messages(refusal, scope):
            await send(message)

    async def _pass_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        gate = self._gate
        gate.begin()
        await self._app(scope, receive, send if gate.ready else beginning(gate, send))
        if (state := gate.ready) is not None:
            # Not awaited: in this very step the server heard that the app is done, and at the next it ends the loop.
            state.leave()
