"""The adapter for WSGI (PEP 3333)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from maintenance.http.admission import Middleware
from maintenance.http.refusal import Response
from maintenance.http.wsgi_body import Complete, close_with, record_files
from maintenance.http.wsgi_io import WIRE, read_method, send_response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class MaintenanceMiddleware(Middleware):
    """Wraps a WSGI app. While maintenance is on, requests that are neither exempt nor bypassed get a 503."""

    _app: "WSGIApplication"
    _wire = WIRE
    _known_wrapper: object = None

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        admission = self._admission
        # Looked up before the call: Python 3.11 takes twice as long for an attribute that is called directly.
        clock, arguments = admission.clock_call
        flight, app = admission.in_flight, self._app
        # The clock before the answer: an answer that is newer than the reading is safe, an older one is not.
        now = clock(*arguments)
        if flight is None:
            if now < admission.lease.current.open_until or (refusal := self._find_refusal(environ, now)) is None:
                return app(environ, start_response)
            return send_response(refusal, environ, start_response)
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
            if now < admission.lease.current.open_until or (refusal := self._find_refusal(environ, now)) is None:
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
        return send_response(refusal, environ, start_response)

    def _find_refusal(self, environ: "WSGIEnvironment", now: float) -> Response | None:
        admission, answer = self._admission, self._admission.lease.current
        path, root = environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", "")
        if admission.admits_all(path, root, answer, now):
            return None
        target = admission.read_target(read_method(environ), path, root, environ)
        if target is None:
            admission.start()
            return None
        answer = admission.lease.current
        return admission.find_refusal(target, answer if now < answer.deadline else admission.wait_for_answer())
