"""``python -m tests.support.wsgiref_server MODULE:APP PORT``: the standard library's server, with threads."""

import sys
from importlib import import_module
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    app = getattr(import_module(module), name)
    with make_server(
        "127.0.0.1", int(sys.argv[2]), app, server_class=ThreadingServer, handler_class=QuietHandler
    ) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
