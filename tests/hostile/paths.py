"""Both adapters over hostile targets: a request that they let through reaches no view that is closed."""

import collections
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.hostile import frameworks, servers
from tests.hostile.targets import Asked, generate

SHARE = 10_000
"""How many targets one seed stands for, unless a test asks for fewer."""

RULES = ("GET /status", "=/exact", "/é")
SCOPES = {"/orders": "orders"}
PROBES = {"health", "healthz", "livez", "readyz"}


def is_exempt(path: str, method: str) -> bool:
    """The rules in other words."""
    first = path.split("/")[1]
    if first in PROBES:
        return method in ("GET", "HEAD")
    return first in ("admin", "é") or (first == "status" and method == "GET") or path == "/exact"


def is_open(path: str, method: str) -> bool:
    """What is open while only the scope is closed."""
    return path.split("/")[1] != "orders"


@dataclass
class Tally:
    """What has come of the requests.

    Attributes:
        failures: Each as text.
        counts: How often each question had each answer.
    """

    failures: list[str] = field(default_factory=list)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)


class Door:
    """A middleware around an app that only notes what it gets.

    Attributes:
        may_pass: Takes the path of a view and a method. Returns whether the view is open.
    """

    def __init__(self, state: MaintenanceState, may_pass: Callable[[str, str], bool], **options: Any) -> None:
        self.may_pass, self._got = may_pass, list[Any]()
        self._wsgi = WSGIMiddleware(self._note, state, **options)
        self._asgi = ASGIMiddleware(self._note_soon, state, **options)

    def _note(self, environ: Any, start_response: Any) -> list[bytes]:
        self._got.append(environ)
        return []

    async def _note_soon(self, scope: Any, receive: Any, send: Any) -> None:
        self._got.append(scope)

    def try_wsgi(self, environ: dict[str, Any]) -> Any:
        """Return what the app gets; None if the request is refused."""
        self._wsgi(environ, lambda *_: lambda _: None)
        return self._got.pop() if self._got else None

    def try_asgi(self, scope: dict[str, Any]) -> Any:
        """The same. Nothing has to be waited for, so there is no event loop."""

        async def receive() -> Any:
            raise AssertionError("the request has no body")

        async def send(message: Any) -> None:
            pass

        try:
            self._asgi(scope, receive, send).send(None)
        except StopIteration:
            return self._got.pop() if self._got else None
        raise AssertionError("it waits")


@contextmanager
def doors() -> Iterator[list[Door]]:
    """The site closed except for rules, and one scope closed."""
    with ExitStack() as stack:
        site, part = (stack.enter_context(closing(MaintenanceState("memory://", ttl=86_400.0))) for _ in range(2))
        site.set(True)
        part.set(True, scope="orders")
        part.refresh()
        yield [Door(site, is_exempt, exempt=RULES), Door(part, is_open, scope=SCOPES)]


def look(doors: list[Door], asked: Asked, tally: Tally) -> None:
    """Send one request through each server, each door and each framework."""
    for name, environ in _hand_over(servers.WSGI, asked):
        for door in doors:
            _judge(door, asked, name, door.try_wsgi(environ.copy()), frameworks.WSGI, tally)
    for name, scope in _hand_over(servers.ASGI, asked):
        for door in doors:
            _judge(door, asked, name, door.try_asgi(scope.copy()), frameworks.ASGI, tally)


def _hand_over(kind: list[Any], asked: Asked) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what each server hands over, unless another one does alike."""
    seen: list[Any] = []
    for server in kind:
        raw = server(asked)
        if raw is not None and raw not in seen:
            seen.append(raw)
            yield server.__name__, raw


def _judge(  # noqa: PLR0917 - it is called twice
    door: Door, asked: Asked, server: str, got: Any, readers: list[Any], tally: Tally
) -> None:
    question = door.may_pass.__name__
    if got is None:
        tally.counts[f"{question}: refused"] += 1
        return
    tally.counts[f"{question}: let through"] += 1
    for framework in readers:
        path = framework(got)
        if path is None:
            continue
        tally.counts[f"{question}: reached a view"] += 1
        if not all(door.may_pass(it, asked.method) for it in (path, frameworks.read_again(path))):
            tally.failures.append(f"{asked} over {server} reaches {path!r} in {framework.__name__}")


def run(seed: int, count: int = SHARE) -> Tally:
    """Try as many targets."""
    chance, tally = random.Random(seed), Tally()
    with doors() as opened:
        for _ in range(count):
            look(opened, generate(chance), tally)
    return tally
