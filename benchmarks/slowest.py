"""The slowest requests during refreshes, flips, a database that is away for 30 s, and its return.

A bare app is asked at the same time, so that a reader sees what the machine itself adds.
"""

import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks import results
from maintenance import MaintenanceState
from maintenance.base.runtime import REAL
from tests.support import servers
from tests.support.postgres import DURABLE, server
from tests.support.relay import Relay
from tests.support.sql import change_port

CLIENTS: Final = 8
EACH: Final = 0.05
"""Seconds from one request of a client to the next."""

TTL: Final = 10.0
OUTAGE: Final = 30.0
WAITED: Final = 0.15
"""Seconds from which a request counts as one that waited. The others that come meanwhile are held for 0.1 s at most."""


@dataclass
class Clients:
    """Clients with kept connections, and what they met.

    Attributes:
        seen: When (clock) each request began, how long it took in seconds, and its status.
    """

    port: int
    seen: list[tuple[float, float, int]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask during the block."""
        threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            while not self.over.wait(EACH):
                began = REAL.clock()
                connection.request("GET", "/x")
                response = connection.getresponse()
                response.read()
                self.seen.append((began, REAL.clock() - began, response.status))

    def summarize(self, since: float, until: float) -> dict[str, float]:
        """Return the figures of the requests that began within a time."""
        took = [seconds for began, seconds, _ in self.seen if since <= began < until]
        hundredths = statistics.quantiles(took, n=100)
        figures = {
            "median_ms": statistics.median(took) * 1e3,
            "p99_ms": hundredths[-1] * 1e3,
            "max_ms": max(took) * 1e3,
        }
        waited = sum(seconds > WAITED for seconds in took)
        return {name: round(value, 2) for name, value in figures.items()} | {"requests": len(took), "waited": waited}


def run() -> None:
    """Measure both adapters, and keep the result."""
    data = {interface: _measure(interface) for interface in ("wsgi", "asgi")}
    note = f"{CLIENTS} clients; TTL {TTL:g} s; the database is silent for {OUTAGE:g} s. "
    note += f"`waited` counts the requests that took over {WAITED * 1e3:g} ms."
    print(f"  kept in {results.save('slowest', data, versions=('uvicorn', 'gunicorn'), note=note).name}")


def _measure(interface: str) -> dict[str, Any]:
    with ExitStack() as stack:
        database = stack.enter_context(server(**DURABLE))
        relay = stack.enter_context(Relay(database.port))
        boss = stack.enter_context(closing(MaintenanceState(database.url(), register=False)))
        boss.store.migrate()
        crowds = {}
        for name in ("bare", "serve", "block"):
            environment = {
                "MAINTENANCE_DATABASE_URL": change_port(database.url(), relay.port),
                "BENCHMARK_OPTIONS": json.dumps({"ttl": TTL, "when_stale": "serve" if name == "bare" else name}),
            }
            app = f"benchmarks.served:{'bare_' if name == 'bare' else ''}{interface}"
            crowds[name] = Clients(stack.enter_context(_serve(interface, app, environment)).port)
        for crowd in crowds.values():
            stack.enter_context(crowd.running())
        time.sleep(2)
        spans = dict(_phases(boss, relay))
    figures = {name: {phase: crowd.summarize(*span) for phase, span in spans.items()} for name, crowd in crowds.items()}
    for name, phases in figures.items():
        for phase, figure in phases.items():
            print(f"  {interface} {name:6} {phase:10} {figure}", flush=True)
    return figures


def _serve(interface: str, app: str, environment: dict[str, str]) -> Any:
    if interface == "asgi":
        return servers.uvicorn(app, env=environment)
    return servers.gunicorn(app, worker_class="gthread", workers=1, threads=CLIENTS + 2, env=environment)


def _phases(boss: MaintenanceState, relay: Relay) -> Iterator[tuple[str, tuple[float, float]]]:
    def during(work: Any) -> tuple[float, float]:
        began = REAL.clock()
        work()
        return began, REAL.clock()

    def flips() -> None:
        for number in range(10):
            boss.set(number % 2 == 0)
            time.sleep(1.0)

    def outage() -> None:
        relay.cut()
        time.sleep(OUTAGE)

    def back() -> None:
        relay.pass_()
        time.sleep(10.0)

    yield "refreshes", during(lambda: time.sleep(2 * TTL))
    yield "flips", during(flips)
    yield "outage", during(outage)
    yield "return", during(back)
