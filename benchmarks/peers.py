"""What a request pays with this library, and with others of its kind, in one interleaved run.

Each variant lives in a process of its own. In each round, every variant serves the same number of requests, one variant
after the other in a random order. So what else the machine does hits all alike. A figure is the median of what a
variant adds to the bare app of the same round.
"""

import gc
import multiprocessing
import random
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Final

from benchmarks import contestants, results

ROUNDS: Final = 60
SECONDS: Final = 0.02
"""How long a variant serves in one round."""

VERSIONS: Final = (
    "django-maintenance-mode", "fastapi-alcazaba", "fastapi-maintenance", "waygate", "starlette", "fastapi", "Django",
)  # fmt: skip

Figure = dict[str, float]


def run() -> None:
    """Measure every family, off and on, and keep the result."""
    data = {family: _measure(family) for family in contestants.FAMILIES}
    path = results.save("peers", data, versions=VERSIONS)
    print(f"  kept in {path.name}")


def _measure(family: str) -> dict[str, dict[str, Figure]]:
    names = [(name, on) for name in contestants.FAMILIES[family] for on in (False, True)]
    names = [(name, on) for name, on in names if not (on and name in contestants.OPEN)]
    with _servers(family, names) as servers:
        counts = {key: _count(server) for key, server in servers.items()}
        rounds = [_round(servers, counts) for _ in range(ROUNDS)]
    figures: dict[str, dict[str, Figure]] = {}
    for name, on in names:
        figures.setdefault(name, {})["on" if on else "off"] = _figure(rounds, name, on=on)
    for name, found in figures.items():
        shown = ", ".join(f"{mode} {figure['added_us']:+.2f} us" for mode, figure in found.items())
        print(f"  {family:8} {name:40} {shown}", flush=True)
    return figures


@contextmanager
def _servers(family: str, names: list[tuple[str, bool]]) -> Iterator[dict[tuple[str, bool], Connection]]:
    context = multiprocessing.get_context("spawn")
    servers, processes = {}, []
    for name, on in names:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, family, name, on), daemon=True)
        process.start()
        servers[name, on] = here
        processes.append(process)
    yield servers
    for here in servers.values():
        here.send(0)
    for process in processes:
        process.join()


def _serve(there: Connection, family: str, name: str, on: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="maintenance-bench-") as tempfile.tempdir:
        calls = contestants.build(family, name, on=on)
        gc.collect()
        gc.freeze()
        while count := there.recv():
            there.send(calls(count))


def _ask(server: Connection, count: int) -> float:
    """Return the microseconds of one request."""
    server.send(count)
    took: int = server.recv()
    return took / count / 1000


def _count(server: Connection) -> int:
    """Return how many requests a variant serves in one round."""
    return max(int(SECONDS * 1e6 / _ask(server, 100)), 10)


def _round(
    servers: dict[tuple[str, bool], Connection], counts: dict[tuple[str, bool], int]
) -> dict[tuple[str, bool], float]:
    order = random.sample(list(servers), len(servers))
    return {key: _ask(servers[key], counts[key]) for key in order}


def _figure(rounds: list[dict[tuple[str, bool], float]], name: str, *, on: bool) -> Figure:
    """Return what a variant adds to the bare app, with its spread; and its ratio to one that does nothing."""
    bare = statistics.median(it["bare", False] for it in rounds)
    nothing = statistics.median(it["does nothing", False] - it["bare", False] for it in rounds)
    added = [it[name, on] - it["bare", False] for it in rounds]
    tenths = statistics.quantiles(added, n=10)
    median = statistics.median(added)
    figure = {"added_us": median, "p10": tenths[0], "p90": tenths[-1], "of_bare": (bare + median) / bare}
    if nothing > 0:
        figure["of_nothing"] = median / nothing
    return {key: round(value, 3) for key, value in figure.items()}
