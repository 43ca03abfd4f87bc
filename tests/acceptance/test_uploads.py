"""A refused upload reaches its client as a 503, through a real nginx too."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final

import pytest

from tests.support.clients import ask
from tests.support.nginx import nginx
from tests.support.servers import Running, gunicorn, uvicorn, uwsgi
from tests.support.sql import flip

ASGI = "tests.apps.fleet:asgi"
WSGI = "tests.apps.fleet:wsgi"
SERVERS: dict[str, Callable[..., AbstractContextManager[Running]]] = {
    "uvicorn": partial(uvicorn, ASGI),
    "gunicorn-sync": partial(gunicorn, WSGI),
    "gunicorn-gthread": partial(gunicorn, WSGI, worker_class="gthread", threads=4),
    "gunicorn-gevent": partial(gunicorn, WSGI, worker_class="gevent"),
    "uwsgi": partial(uwsgi, WSGI),
}
MEGABYTE: Final = 2**20
SLACK = 2.0


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest, migrated_url: str) -> Callable[..., AbstractContextManager[Running]]:
    """Start a server whose site is in maintenance, with options of the middleware."""
    flip(migrated_url, on=True)
    start = SERVERS[request.param]

    @contextmanager
    def running(**options: object) -> Iterator[Running]:
        env = {"MAINTENANCE_DATABASE_URL": migrated_url, "APP_MIDDLEWARE": json.dumps(options)}
        with start(env=env) as server:
            yield server

    return running


def open_upload(port: int, length: int, *more: str) -> socket.socket:
    """Send the headers of an upload."""
    client = socket.create_connection(("127.0.0.1", port), timeout=15)
    head = ["POST /upload HTTP/1.1", "Host: shop", f"Content-Length: {length}", *more]
    client.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
    return client


def upload(port: int, length: int) -> int:
    """Send a whole body, whatever comes back meanwhile, and return the status."""
    with open_upload(port, length) as client:
        sender = threading.Thread(target=_send, args=(client, length), daemon=True)
        sender.start()
        status = read_status(client)
        sender.join(15)
        return status


def _send(client: socket.socket, length: int) -> None:
    piece = bytes(65_536)
    try:
        for begin in range(0, length, len(piece)):
            client.sendall(piece[: length - begin])
    except OSError:
        return  # the server needs no more


def read_status(client: socket.socket) -> int:
    return int(client.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_behind_nginx_each_refused_upload_is_a_503(
    serve: Callable[..., AbstractContextManager[Running]], buffering: str
) -> None:
    with serve() as server, nginx(server.port, buffering=buffering) as port:
        for length in (200_000, 3 * MEGABYTE):
            assert [upload(port, length) for _ in range(8)] == [503] * 8, length


def test_past_the_bound_the_503_is_sent_first(serve: Callable[..., AbstractContextManager[Running]]) -> None:
    with serve(discard_bytes=MEGABYTE) as server, nginx(server.port) as port:
        for way in (server.port, port):
            assert [upload(way, 3 * MEGABYTE // 2) for _ in range(4)] == [503] * 4
        assert upload(server.port, 40 * MEGABYTE) == 503


def test_a_slow_upload_is_answered_in_time(serve: Callable[..., AbstractContextManager[Running]]) -> None:
    with serve(discard_seconds=1.0) as server, open_upload(server.port, MEGABYTE) as client:
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    client.sendall(b"x")
                except OSError:
                    return

        threading.Thread(target=drip, daemon=True).start()
        began = time.monotonic()
        assert ask(server.port).status == 503, "another request does not wait"
        assert time.monotonic() < began + 1.0 + SLACK
        assert read_status(client) == 503
        took = time.monotonic() - began
        stop.set()
        assert took < 1.0 + 1.0 + SLACK


def test_a_client_that_waits_for_permission_is_refused_without_it(migrated_url: str) -> None:
    flip(migrated_url, on=True)
    env = {"MAINTENANCE_DATABASE_URL": migrated_url}
    with uvicorn(ASGI, env=env) as server:
        client = open_upload(server.port, 40 * MEGABYTE, "Expect: 100-continue")
        with client:
            assert read_status(client) == 503
