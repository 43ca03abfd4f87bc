"""``python -m maintenance.cli.demo.server PORT``: serve the app, one thread for each request, until stdin ends."""

import os
import sys
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from maintenance.cli.demo.app import application


class Server(ThreadingMixIn, WSGIServer):
    """The standard library's server, with a thread for each request. The threads end with the process."""

    daemon_threads = True


class Handler(WSGIRequestHandler):
    """Prints no request lines, which would mix with the output of the demo."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Print nothing."""


def main() -> None:
    """Serve. The first line on stdout is the port."""
    with make_server("127.0.0.1", int(sys.argv[1]), application, Server, Handler) as server:
        print(server.server_port, flush=True)
        # When the demo ends, even by SIGKILL, its end of the pipe is closed, so no server outlives it.
        threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
        server.serve_forever(poll_interval=0.05)


def _end_with_stdin(server: Server) -> None:
    os.read(sys.stdin.fileno(), 1)
    server.shutdown()


if __name__ == "__main__":
    main()
