"""The adapter for ASGI 3, under asyncio and trio."""

from collections.abc import Iterable

from maintenance.base.options import check_bool
from maintenance.base.values import WEBSOCKET
from maintenance.http.admission import Bypass, Middleware, Respond
from maintenance.http.asgi_io import WIRE, App, Receive, Scope, Send, find_answer, refuse, run_lifespan, strip_tokens
from maintenance.http.asgi_io import mark_read_only as mark
from maintenance.http.asgi_streams import StreamEnder
from maintenance.http.discard import MAX_BYTES, MAX_SECONDS
from maintenance.http.refusal import Page
from maintenance.http.scopes import Scope as Scopes
from maintenance.http.websocket import Closer, refuse_websocket
from maintenance.process.state import MaintenanceState


class MaintenanceMiddleware(Middleware):
    """Wraps an ASGI app. While maintenance is on, requests that are neither exempt nor bypassed get a 503."""

    _app: App
    _wire = WIRE

    def __init__(
        self,
        app: App,
        state: MaintenanceState | None = None,
        *,
        exempt: Iterable[str] = (),
        default_exempt: bool = True,
        bypass: Bypass | Iterable[Bypass] | None = None,
        respond: Respond | None = None,
        in_flight: bool = True,
        scope: Scopes | None = None,
        status_path: str | None = None,
        discard_bytes: int = MAX_BYTES,
        discard_seconds: float = MAX_SECONDS,
        close_streams: bool = False,
        cors: Iterable[str] = (),
        reads: Iterable[str] = (),
        mark_read_only: bool = False,
        page: Page | None = None,
        close_websockets: bool = False,
    ) -> None:
        """Wrap an app.

        Args:
            app: The app.
            state: The state to ask, or None for the process's default state.
            exempt: Requests to admit by path, or by method and path.
            default_exempt: Whether the paths of probes and of /admin are exempt too.
            bypass: Requests to admit by who sends them.
            respond: Builds another response than the standard one.
            in_flight: Whether to count running requests.
            scope: The scope of the app, or a mapping from path prefix to scope, or a function of a `Request`.
            status_path: A path that the middleware answers itself, with what is on and what is planned, as JSON.
            discard_bytes: How much of the body of a refused request is read before it is answered; 0 for nothing.
            discard_seconds: How long that may take.
            close_streams: Whether a flip ends the ``text/event-stream`` responses that it refuses.
            cors: The origins whose browser apps may read a refusal.
            reads: Requests that `read_only` admits, by method and path: ``"POST /search"``.
            mark_read_only: Whether responses of the app carry ``Maintenance-Mode: read_only`` while that mode is on.
            page: How the page looks that visitors see.
            close_websockets: Whether a flip closes the open WebSockets that it refuses, with code 1012.

        Raises:
            ConfigurationError: An option is wrong. The message shows how to write it.
        """
        super().__init__(
            app,
            state,
            exempt=exempt,
            default_exempt=default_exempt,
            bypass=bypass,
            respond=respond,
            in_flight=in_flight,
            scope=scope,
            status_path=status_path,
            discard_bytes=discard_bytes,
            discard_seconds=discard_seconds,
            close_streams=close_streams,
            cors=cors,
            reads=reads,
            mark_read_only=mark_read_only,
            page=page,
        )
        check_bool("close_websockets", close_websockets)
        if close_websockets:
            # What ends the streams strips the tokens itself, once it has looked at them.
            self._app = Closer(self._app if close_streams else self._strip_inside(self._app), self._admission)

    def _end_streams(self, app: App) -> App:
        return StreamEnder(self._strip_inside(app), self._admission)

    def _strip_inside(self, app: App) -> App:
        """Leave the tokens in the scope for what asks about a request again, and take them away behind it."""
        self._strip = lambda scope: scope
        return strip_tokens(app, self._admission)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection. Everything except HTTP, WebSockets and the lifespan passes untouched."""
        admission, kind, app = self._admission, scope["type"], self._app
        if kind != "http" and kind != "websocket":  # noqa: PLR1714 - twice as fast as a look into a tuple
            await self._run_other(scope, receive, send)
            return
        # Looked up before the call: Python 3.11 takes twice as long for an attribute that is called directly.
        clock, arguments = admission.clock_call
        flight = admission.in_flight
        # The clock before the answer: an answer that is newer than the reading is safe, an older one is not.
        now = clock(*arguments)
        if flight is None and now < admission.lease.current.open_until:
            await app(scope, receive, send)
            return
        method, path = scope["method"] if kind == "http" else WEBSOCKET, scope["path"]
        try:
            root = scope["root_path"]
        except KeyError:  # a server may leave it out, but none of the usual ones does
            root = ""
        entry = [method, path, root, now, scope if admission.keep is None else admission.keep(scope)]
        try:
            if flight is not None:
                table = flight.table
                table.append(entry)
                if len(table) > flight.room:
                    flight.sweep()
            answer = admission.lease.current
            if now < answer.open_until or admission.admits_all(path, root, answer, now):
                # While any flag is on, its token is alive, in requests of other parts of the site too.
                await app(scope if now < answer.open_until else self._strip(scope), receive, send)
                return
            target = admission.read_target(method, path, root, scope)
            if target is None:
                refusal = admission.pass_exempt(method, path, root, scope)
            else:
                answer = answer if now < answer.deadline else await find_answer(admission)
                refusal = admission.find_refusal(target, answer)
            if refusal is None:
                await app(self._strip(scope), receive, mark(send) if admission.marks(target, answer) else send)
                return
        finally:
            entry.clear()
        if kind == "websocket":
            await refuse_websocket(refusal, scope, receive, send)
            return
        await refuse(refusal, scope, receive, send, self._discard)

    async def _run_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await run_lifespan(self._app, self._admission, scope, receive, send)
        else:
            await self._app(scope, receive, send)
