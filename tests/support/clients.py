"""Clients: of an app in this process, through WSGI or ASGI alike, and of a server over a socket, one or many."""

import http.client
import io
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from wsgiref.util import setup_testing_defaults

import anyio

from tests.support.servers import Running
from tests.support.waiting import eventually


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def pid(self) -> int:
        """The process that answered, where the app says so."""
        return int(self.headers["x-pid"])


def call_wsgi(
    app: Any, path: str = "/", *, method: str = "GET", root: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    """Ask a WSGI app in this process, as a server does: PATH_INFO is the UTF-8 of `path` read as Latin-1."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": _as_latin(root),
        "PATH_INFO": _as_latin(path),
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.input": io.BytesIO(),
        **{_key(name): value for name, value in (headers or {}).items()},
    }
    setup_testing_defaults(environ)
    started: list[Any] = []

    def start_response(status: str, given: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        started[:] = [int(status.split(maxsplit=1)[0]), {name.lower(): value for name, value in given}]
        return lambda _: None

    body = app(environ, start_response)
    try:
        whole = b"".join(body)
    finally:
        getattr(body, "close", lambda: None)()
    return Answer(*started, whole)


def _key(name: str) -> str:
    """Two headers stand in the environ without a prefix (RFC 3875, sections 4.1.2 and 4.1.3)."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _as_latin(path: str) -> str:
    return path.encode("utf-8", "surrogatepass").decode("latin-1")


def http_scope(path: str = "/", *, method: str = "GET", root: str = "", **more: Any) -> dict[str, Any]:
    """An ASGI scope as uvicorn makes it: its path is whole, the mount point in front."""
    whole = f"{root.rstrip('/')}{path}"
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": whole,
        "raw_path": whole.encode("utf-8", "surrogatepass"),
        "query_string": b"",
        "root_path": root,
        "headers": [],
        "client": ("192.0.2.1", 50_000),
        "server": ("127.0.0.1", 80),
        **more,
    }


async def acall_asgi(app: Any, path: str = "/", *, headers: Mapping[str, str] | None = None, **options: Any) -> Answer:
    """Ask an ASGI app in this process; `options` are those of `http_scope`."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    sent: list[Any] = []
    requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(requests, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    await app(http_scope(path, headers=raw, **options), receive, send)
    named = {name.decode().lower(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], named, b"".join(message.get("body", b"") for message in sent[1:]))


def call_asgi(app: Any, path: str = "/", *, backend: str = "asyncio", **options: Any) -> Answer:
    """`acall_asgi` in an event loop of its own."""

    async def run() -> Answer:
        return await acall_asgi(app, path, **options)

    return anyio.run(run, backend=backend)


def ask(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
) -> Answer:
    """One request over a connection of its own.

    Raises:
        OSError, http.client.HTTPException: No answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, headers={"Connection": "close", **(headers or {})})
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer that a crowd got; `sent` and `done` are `time.monotonic()`, one clock for every process here."""

    sent: float
    done: float
    pid: int
    status: int


@dataclass(slots=True)
class Crowd:
    """Several clients that ask the same again and again; all of what they saw, and what failed."""

    seen: deque[Seen] = field(default_factory=deque)
    failures: deque[str] = field(default_factory=deque)

    def statuses(self, since: float) -> dict[int, set[int]]:
        """The statuses of each process, for requests sent since a moment."""
        found: dict[int, set[int]] = {}
        for one in list(self.seen):
            if one.sent >= since:
                found.setdefault(one.pid, set()).add(one.status)
        return found

    def last(self, status: int) -> float:
        """When the last request with this status was sent; -inf where none was."""
        return max((one.sent for one in list(self.seen) if one.status == status), default=float("-inf"))


@contextmanager
def crowd(running: Running, path: str = "/", *, clients: int = 4, pause: float = 0.01) -> Iterator[Crowd]:
    """Clients in threads, until the block ends."""
    found, over = Crowd(), threading.Event()

    def client() -> None:
        while not over.wait(pause):
            sent = time.monotonic()
            try:
                answer = ask(running.port, path)
            except (OSError, http.client.HTTPException) as exc:
                found.failures.append(repr(exc))
                continue
            found.seen.append(Seen(sent, time.monotonic(), answer.pid, answer.status))

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join(15)


def all_answer(
    running: Running, found: Crowd, status: int, timeout: float = 15.0, *, since: float, processes: int = 2
) -> None:
    """Wait until each of so many processes that serve has answered with this status, sent since a moment."""

    def everybody() -> bool:
        told, serving = found.statuses(since), running.workers()
        return len(serving) == processes and all(status in told.get(pid, ()) for pid in serving)

    eventually(everybody, timeout, what=f"{status} from every process")
