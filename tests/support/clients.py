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


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def pid(self) -> int:
        """The process that answered, if the app sends it."""
        return int(self.headers["x-pid"])


def call_wsgi(
    app: Any,
    path: str = "/",
    *,
    method: str = "GET",
    root: str = "",
    query: str = "",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask a WSGI app in this process, as a server does: PATH_INFO is the UTF-8 of `path` read as Latin-1."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": _as_latin(root),
        "PATH_INFO": _as_latin(path),
        "QUERY_STRING": query,
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


def http_scope(path: str = "/", *, method: str = "GET", root: str = "", query: str = "", **more: Any) -> dict[str, Any]:
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
        "query_string": query.encode(),
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
    answer: Answer

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def took(self) -> float:
        return self.done - self.sent


@dataclass(slots=True)
class Crowd:
    """Clients that ask for the same again and again, what they saw, and what failed.

    Attributes:
        get: One request.
        seen: Every answer so far.
        failures: Every request without an answer.
    """

    get: Callable[[], Answer]
    seen: deque[Seen] = field(default_factory=deque)
    failures: deque[str] = field(default_factory=deque)

    def ask(self) -> int:
        """Ask once, and return the status."""
        sent = time.monotonic()
        answer = self.get()
        self.seen.append(Seen(sent, time.monotonic(), answer))
        return answer.status

    def since(self, moment: float, until: float = float("inf")) -> list[Seen]:
        """Return what was sent since a moment, and answered before another."""
        return [one for one in list(self.seen) if one.sent >= moment and one.done < until]

    def last(self, status: int) -> float:
        """When the last request with this status was sent; -inf if there was none."""
        return max((one.sent for one in list(self.seen) if one.status == status), default=float("-inf"))


@contextmanager
def keep_asking(crowd: Crowd, *, clients: int = 4, pause: float = 0.01) -> Iterator[Crowd]:
    """Have each client ask in a thread of its own until the block ends."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(pause):
            try:
                crowd.ask()
            except (OSError, http.client.HTTPException) as exc:
                crowd.failures.append(repr(exc))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield crowd
    finally:
        over.set()
        for thread in threads:
            thread.join(15)
