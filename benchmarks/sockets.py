"""Throughput and latency over real sockets, bare, wrapped and off, wrapped and on. The load comes from wrk."""

import random
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Final

from benchmarks import results
from maintenance import MaintenanceState
from tests.support import servers
from tests.support.postgres import DURABLE, server
from tests.support.servers import Running

ROUNDS: Final = 5
SECONDS: Final = 4
CONNECTIONS: Final = 16

_PERCENTILES: Final = """
done = function(summary, latency, requests)
  io.write(string.format("figures %d %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9), latency.max))
end
"""
"""For wrk. All times are in microseconds."""

Start = Callable[[str, dict[str, str]], AbstractContextManager[Running]]

SERVERS: Final[dict[str, tuple[str, Start]]] = {
    "uvicorn": ("asgi", lambda app, env: servers.uvicorn(app, env=env)),
    "granian": ("asgi", lambda app, env: servers.granian(app, interface="asgi", workers=1, env=env)),
    "gunicorn": (
        "wsgi",
        lambda app, env: servers.gunicorn(app, worker_class="gthread", workers=1, threads=4, env=env),
    ),
}

Figure = dict[str, float]


def run() -> None:
    """Measure each server, and keep the result.

    Raises:
        RuntimeError: wrk is not installed.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is not on the PATH: install it, for example with `apt install wrk`")
    data = {name: _measure(name, interface, start) for name, (interface, start) in SERVERS.items()}
    versions = ("uvicorn", "granian", "gunicorn")
    print(f"  kept in {results.save('sockets', data, versions=versions, note=_describe()).name}")


def _describe() -> str:
    return f"wrk with {CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS} s in turns, one process each."


def _measure(name: str, interface: str, start: Start) -> dict[str, Figure]:
    with _variants(interface, start) as urls:
        rounds: dict[str, list[Figure]] = {variant: [] for variant in urls}
        for _ in range(ROUNDS):
            for variant in random.sample(list(urls), len(urls)):
                rounds[variant].append(_load(urls[variant]))
    figures = {variant: _middle(found) for variant, found in rounds.items()}
    for variant, figure in figures.items():
        figure["of_bare"] = round(figure["requests_per_s"] / figures["bare"]["requests_per_s"], 3)
        print(f"  {name:9} {variant:5} {figure}", flush=True)
    return figures


@contextmanager
def _variants(interface: str, start: Start) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        database = stack.enter_context(server(**DURABLE))
        urls = {}
        for variant, enabled in (("bare", False), ("off", False), ("on", True)):
            url = database.url() if variant != "on" else _second(database.url())
            state = stack.enter_context(_closing(url))
            state.set(enabled, message="Back soon.")
            app = f"benchmarks.served:{'bare_' if variant == 'bare' else ''}{interface}"
            urls[variant] = stack.enter_context(start(app, {"MAINTENANCE_DATABASE_URL": url})).url
        yield urls


def _second(url: str) -> str:
    """Return the URL of another database of the same server."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE another")
    return re.sub(r"/[^/?]+(\?|$)", r"/another\1", url)


@contextmanager
def _closing(url: str) -> Iterator[MaintenanceState]:
    state = MaintenanceState(url, register=False)
    state.store.migrate()
    yield state
    state.close()


def _load(url: str) -> Figure:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_PERCENTILES)
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", script.name, f"{url}/x"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found = re.search(r"figures (.+)", printed)
    if found is None:
        raise RuntimeError(f"wrk printed no figures: {printed}")
    requests, microseconds, *percentiles = map(int, found[1].split())
    names = ("p50_ms", "p99_ms", "p99.9_ms", "max_ms")
    latencies = {name: value / 1e3 for name, value in zip(names, percentiles, strict=True)}
    return {"requests_per_s": requests / microseconds * 1e6, **latencies}


def _middle(found: list[Figure]) -> dict[str, Any]:
    """Return the median of each figure, and the spread of the throughput."""
    middle = {name: round(statistics.median(it[name] for it in found), 3) for name in found[0]}
    throughputs = [it["requests_per_s"] for it in found]
    return middle | {"least_per_s": round(min(throughputs), 1), "most_per_s": round(max(throughputs), 1)}
