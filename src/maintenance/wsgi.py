"""The adapter for WSGI (PEP 3333)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from maintenance.http.admission import Middleware
from maintenance.http.refusal import Response
from maintenance.http.wsgi_body import Complete, close_with, record_files
from maintenance.http.wsgi_io import WIRE, mark_read_only, read_method, refuse
from maintenance.http.wsgi_streams import end_streams

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class MaintenanceMiddleware(Middleware):
    """Wraps a WSGI app. While maintenance is on, requests that are neither exempt nor bypassed get a 503."""

    _app: "WSGIApplication"
    _wire = WIRE
    _known_wrapper: object = None

    def _end_streams(self, app: "WSGIApplication") -> "WSGIApplication":
        # It asks about a request again, so it takes the tokens away itself.
        self._strip = lambda environ: environ
        return end_streams(app, self._admission)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        admission = self._admission
        # Looked up before the call: Python 3.11 takes twice as long for an attribute that is called directly.
        clock, arguments = admission.clock_call
        flight, app = admission.in_flight, self._app
        # The clock before the answer: an answer that is newer than the reading is safe, an older one is not.
        now = clock(*arguments)
        if flight is None:
            if now < admission.lease.current.open_until:
                return app(environ, start_response)
            return self._answer_untracked(environ, start_response, now)
        raw = environ if admission.keep is None else admission.keep(environ)
        method = environ["REQUEST_METHOD"] if "HTTP_UPGRADE" not in environ else read_method(environ)
        try:
            entry = [method, environ["PATH_INFO"], environ["SCRIPT_NAME"], now, raw]
        except KeyError:  # PEP 3333 lets a server leave out an empty value
            entry = [method, environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", ""), now, raw]
        try:
            table = flight.table
            table.append(entry)
            if len(table) > flight.room:
                flight.sweep()
            refusal = None
            if now >= admission.lease.current.open_until:
                refusal, environ, start_response = self._judge(environ, start_response, now)
            if refusal is None:
                if environ.get("wsgi.file_wrapper") is not self._known_wrapper:
                    self._known_wrapper = record_files(environ)
                body = app(environ, start_response)
                if type(body) is not list:
                    return close_with(body, environ, entry.clear)
                complete = Complete(body)
                complete.close = entry.clear
                return complete
        except BaseException:
            entry.clear()
            raise
        entry.clear()
        return refuse(refusal, environ, start_response, self._discard)

    def _answer_untracked(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", now: float
    ) -> Iterable[bytes]:
        refusal, environ, start_response = self._judge(environ, start_response, now)
        if refusal is None:
            return self._app(environ, start_response)
        return refuse(refusal, environ, start_response, self._discard)

    def _judge(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", now: float
    ) -> "tuple[Response | None, WSGIEnvironment, StartResponse]":
        """Return the refusal, or None and what the app gets."""
        admission, answer = self._admission, self._admission.lease.current
        path, root = environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", "")
        if admission.admits_all(path, root, answer, now):
            return None, self._strip(environ), start_response
        method = read_method(environ)
        target = admission.read_target(method, path, root, environ)
        if target is None:
            refusal = admission.pass_exempt(method, path, root, environ)
        else:
            answer = answer if now < answer.deadline else admission.wait_for_answer()
            refusal = admission.find_refusal(target, answer)
            if refusal is None and admission.marks(target, answer):
                start_response = mark_read_only(start_response)
        return refusal, environ if refusal is not None else self._strip(environ), start_response
