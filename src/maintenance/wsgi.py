"""The adapter for WSGI (PEP 3333)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from maintenance.http.middleware import Middleware
from maintenance.http.refusal import Response
from maintenance.http.wsgi_body import Complete, closing, record
from maintenance.http.wsgi_io import WIRE, method_of, sent

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class MaintenanceMiddleware(Middleware):
    """Wraps a WSGI app: while maintenance is on, what is neither exempt nor bypassed gets 503."""

    _app: "WSGIApplication"
    _wire = WIRE
    _known_wrapper: object = None

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        gate = self._gate
        # Looked up before they are called: an attribute that is called at once takes Python 3.11 twice as long.
        clock, which = gate.clock_call
        flight, app = gate.in_flight, self._app
        # The clock first: what is held a moment later may be newer, never older, than the reading.
        now = clock(*which)
        if flight is None:
            if now < gate.lease.current.open_until or (refusal := self._refusal(environ, now)) is None:
                return app(environ, start_response)
            return sent(refusal, environ, start_response)
        raw = environ if gate.keep is None else gate.keep(environ)
        method = environ["REQUEST_METHOD"] if "HTTP_UPGRADE" not in environ else method_of(environ)
        try:
            entry = [method, environ["PATH_INFO"], environ["SCRIPT_NAME"], now, raw]
        except KeyError:  # PEP 3333 lets a server leave out what is empty
            entry = [method, environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", ""), now, raw]
        try:
            table = flight.table
            table.append(entry)
            if len(table) > flight.room:
                flight.sweep()
            if now < gate.lease.current.open_until or (refusal := self._refusal(environ, now)) is None:
                if environ.get("wsgi.file_wrapper") is not self._known_wrapper:
                    self._known_wrapper = record(environ)
                body = app(environ, start_response)
                if type(body) is not list:
                    return closing(body, environ, entry.clear)
                complete = Complete(body)
                complete.close = entry.clear
                return complete
        except BaseException:
            entry.clear()
            raise
        entry.clear()
        return sent(refusal, environ, start_response)

    def _refusal(self, environ: "WSGIEnvironment", now: float) -> Response | None:
        gate = self._gate
        asked = gate.ask(method_of(environ), environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", ""), environ)
        if asked is None:
            gate.begin()
            return None
        return gate.refusal(asked, gate.peek(now) or gate.wait_for_answer())
