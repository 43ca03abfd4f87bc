"""The body of a refused request is read within bounds, over both adapters."""

import io
import socket
import ssl
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from maintenance import ConfigurationError, MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.http import wsgi_io
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.http.adapters import Adapter
from tests.support.clients import http_scope

ENVIRON = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "SCRIPT_NAME": ""}


@pytest.fixture
def on() -> Iterator[MaintenanceState]:
    with closing(MaintenanceState("memory://")) as state:
        state.set(True)
        yield state


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"discard_bytes": -1}, "discard_bytes is -1: use a number of bytes, or 0"),
        ({"discard_bytes": True}, "discard_bytes is True"),
        ({"discard_bytes": 1.5}, "discard_bytes is 1.5"),
        ({"discard_seconds": 0}, "discard_seconds is 0"),
        ({"close_streams": 1}, "close_streams is 1: use True or False"),
    ],
)
def test_a_wrong_bound_is_refused(adapter: Adapter, wrong: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        adapter.middleware(print, **wrong)


# WSGI


class Body(io.BytesIO):
    """The body of a request, which counts what was read."""

    def __init__(self, content: bytes, *, error: bool = False) -> None:
        super().__init__(content)
        self.size, self.error = 0, error

    def read(self, size: int | None = -1) -> bytes:
        if self.error:
            raise OSError("the client has gone")
        part = super().read(size)
        self.size += len(part)
        return part


def refuse(state: MaintenanceState, body: Body, options: dict[str, Any] | None = None, **environ: Any) -> list[bytes]:
    app = WSGIMiddleware(lambda *_: [], state, **(options or {}))
    return list(app({**ENVIRON, "wsgi.input": body, **environ}, lambda *_: None))


@pytest.mark.parametrize(
    ("environ", "read"),
    [
        ({"CONTENT_LENGTH": "150000"}, 150_000),
        ({"CONTENT_LENGTH": "200000"}, 150_000),  # the client has gone
        ({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, 150_000),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 0),  # nobody knows where it ends
        ({"CONTENT_LENGTH": "150000", "REQUEST_METHOD": "GET"}, 0),
        ({"CONTENT_LENGTH": "150000", "HTTP_EXPECT": "100-continue"}, 0),
        ({"CONTENT_LENGTH": ""}, 0),
        ({"CONTENT_LENGTH": "x"}, 0),
    ],
)
def test_wsgi_reads_what_the_client_sends(on: MaintenanceState, environ: dict[str, Any], read: int) -> None:
    body = Body(bytes(150_000))
    assert len(refuse(on, body, **environ)) == 1
    assert body.size == read


def test_wsgi_reads_up_to_a_bound_then_answers_and_reads_some_more(on: MaintenanceState) -> None:
    body = Body(bytes(300_000))
    app = WSGIMiddleware(lambda *_: [], on, discard_bytes=65_000)
    pieces = iter(app({**ENVIRON, "wsgi.input": body, "CONTENT_LENGTH": "300000"}, lambda *_: None))
    assert b"maintenance" in next(pieces)
    assert body.size == 65_536
    assert list(pieces) == []
    assert body.size > 65_536


@pytest.mark.parametrize("options", [{"discard_bytes": 0}, {}])
def test_wsgi_reads_nothing_on_request_and_survives_a_client_that_has_gone(
    on: MaintenanceState, options: dict[str, Any]
) -> None:
    assert len(refuse(on, Body(b"x", error=True), options, CONTENT_LENGTH="1")) == 1


@pytest.mark.parametrize("server", ["gunicorn", "uwsgi"])
def test_wsgi_ends_a_read_that_takes_too_long(
    on: MaintenanceState, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    environ: dict[str, Any] = {"CONTENT_LENGTH": "10", "wsgi.input": theirs.makefile("rb")}
    if server == "gunicorn":
        environ["gunicorn.socket"] = theirs
    else:
        monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(connection_fd=theirs.fileno))  # type: ignore[arg-type]
    with ours, theirs:
        ours.sendall(b"12345")
        app, began = WSGIMiddleware(lambda *_: [], on, discard_seconds=0.1), time.monotonic()
        assert len(list(app({**ENVIRON, **environ}, lambda *_: None))) == 1
        assert time.monotonic() - began < 5


def test_the_end_of_a_read_leaves_a_tls_connection_encrypted() -> None:
    """After `SSLSocket.shutdown`, what the server sends would go out in plain text."""
    ours, theirs = socket.socketpair()
    contexts = [ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)]
    for context in contexts:  # without a certificate
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aNULL:@SECLEVEL=0")
    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(contexts[0].wrap_socket, ours, server_side=True)
        client, server = contexts[1].wrap_socket(theirs), accepting.result(10)
    with client, server:
        wsgi_io._shut(server)
        server.sendall(b"refused")
        assert client.recv(100) == b"refused"


def test_a_connection_that_has_gone_is_no_error() -> None:
    one, other = socket.socketpair()
    for end in (one, other):
        end.close()
    wsgi_io._shut(one)


# ASGI


async def ask(app: Any, pieces: list[bytes], *, hangs: bool = False, **scope: Any) -> tuple[list[Any], int]:
    """Send a request in pieces; return what was sent back, and how many pieces were read."""
    sent: list[Any] = []
    left = list(pieces)

    async def receive() -> Any:
        if hangs:
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    with anyio.fail_after(5):
        await app({**http_scope(method="POST"), **scope}, receive, send)
    return sent, len(pieces) - len(left)


LENGTH = (b"content-length", b"3")
CHUNKED = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("headers", "scope", "read"),
    [
        ([LENGTH], {}, 3),
        ([CHUNKED], {}, 3),
        ([LENGTH], {"method": "GET"}, 0),
        ([LENGTH, (b"expect", b"100-continue")], {}, 0),
        ([(b"content-length", b"0")], {}, 0),
        ([], {}, 0),
    ],
)
def test_asgi_reads_what_the_client_sends(
    on: MaintenanceState, headers: list[Any], scope: dict[str, Any], read: int, backend: str
) -> None:
    app = ASGIMiddleware(print, on)  # type: ignore[arg-type]
    pieces = [b"a", b"b", b"c"]
    sent, count = anyio.run(lambda: ask(app, pieces, headers=headers, **scope), backend=backend)
    assert (len(sent), sent[0]["status"], count) == (2, 503, read)


def test_asgi_reads_up_to_a_bound_then_answers_and_reads_some_more(on: MaintenanceState) -> None:
    app = ASGIMiddleware(print, on, discard_bytes=10)  # type: ignore[arg-type]
    sent, count = anyio.run(lambda: ask(app, [b"x" * 6] * 5, headers=[LENGTH]))
    assert [message.get("more_body") for message in sent] == [None, True, None]
    assert count == 4


@pytest.mark.parametrize(("options", "parts"), [({"discard_seconds": 0.05}, 3), ({"discard_bytes": 0}, 2)])
def test_asgi_waits_for_a_while_only(
    on: MaintenanceState, options: dict[str, Any], parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintenance.http.asgi_io.LINGER", 0.05)
    app = ASGIMiddleware(print, on, **options)  # type: ignore[arg-type]
    sent, _ = anyio.run(lambda: ask(app, [b"x"], hangs=True, headers=[LENGTH]))
    assert len(sent) == parts
