"""From a flip to every other process that follows it: fleets of 1, 10 and 100, over each store, and polling alone."""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from benchmarks import results
from maintenance import MaintenanceState
from maintenance.base.runtime import REAL
from maintenance.stores import PostgresStore, Store, open_store
from tests.support.postgres import DURABLE, server

FLEETS: Final = (1, 10, 100)
SQLITE_FLEETS: Final = (1, 10)
"""A hundred processes that start at once keep the file locked for longer than a flip waits: `database is locked`."""

FLIPS: Final = 20
FLIPS_BY_POLLING: Final = 5
TTL: Final = 10.0


def run() -> None:
    """Measure each store with each size of fleet, and keep the result."""
    with ExitStack() as stack:
        database = stack.enter_context(server(max_connections="250", **DURABLE))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maintenance-bench-")))
        sqlite = f"sqlite:///{folder / 'maintenance.db'}"
        kinds = {
            "PostgreSQL, LISTEN": (database.url(), True, FLIPS),
            "PostgreSQL, polling alone": (database.url(), False, FLIPS_BY_POLLING),
            "SQLite": (sqlite, True, FLIPS),
        }
        data: dict[str, Any] = {
            name: {str(size): _measure(name, url, size, listen=listen, flips=flips) for size in _sizes(name)}
            for name, (url, listen, flips) in kinds.items()
        }
    versions = ("psycopg",)
    print(f"  kept in {results.save('propagation', data, versions=versions).name}")


def _sizes(name: str) -> tuple[int, ...]:
    return SQLITE_FLEETS if name == "SQLite" else FLEETS


def _open(url: str, *, listen: bool) -> Store:
    return open_store(url) if listen else PostgresStore(url, listen=False)


def _measure(name: str, url: str, size: int, *, listen: bool, flips: int) -> dict[str, dict[str, float]]:
    from_commit: list[float] = []
    from_call: list[float] = []
    with ExitStack() as stack:
        boss = stack.enter_context(closing(MaintenanceState(url, register=False)))
        boss.store.migrate()
        boss.set(False)  # what the fleet before has left; only a change is reported
        tellers = stack.enter_context(_processes(url, size, listen=listen))
        for number in range(flips + 1):
            called = REAL.clock()
            revision = boss.set(number % 2 == 0).revision
            committed = REAL.clock()
            last = max(hear(teller, revision) for teller in tellers)
            from_commit.append(max(last - committed, 0.0))
            from_call.append(last - called)
            time.sleep(0.05)
    figure = {"from_commit": summarize(from_commit[1:]), "from_call": summarize(from_call[1:])}
    print(f"  {name}, {size} processes, until the last one follows, ms: {figure}", flush=True)
    return figure


def summarize(seconds: list[float]) -> dict[str, float]:
    """Return what a reader needs, in milliseconds."""
    figures = {"median": statistics.median(seconds), "max": max(seconds)}
    return {name: round(value * 1e3, 2) for name, value in figures.items()} | {"flips": len(seconds)}


@contextmanager
def _processes(url: str, size: int, *, listen: bool) -> Iterator[list[Connection]]:
    with start_processes(_follow, [(url, listen)] * size) as tellers:
        yield tellers


@contextmanager
def start_processes(target: Callable[..., None], arguments: list[tuple[Any, ...]]) -> Iterator[list[Connection]]:
    """Start processes that report the moment of each change; wait until each one has reported that it is ready."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([target.__module__])  # or a hundred processes import everything a hundred times
    tellers, processes = [], []
    for given in arguments:
        here, there = context.Pipe()
        process = context.Process(target=target, args=(there, *given), daemon=True)
        process.start()
        tellers.append(here)
        processes.append(process)
    for teller in tellers:
        hear(teller, 0, limit=120)
    yield tellers
    for teller in tellers:
        teller.send(None)
    for process in processes:
        process.join(20)


def hear(teller: Connection, revision: int, *, limit: float = 30) -> float:
    """Return when (clock) a process has seen a change.

    Raises:
        RuntimeError: It has not within `limit` seconds.
    """
    while teller.poll(limit):
        number, at = teller.recv()
        if number == revision:
            return float(at)
    raise RuntimeError(f"revision {revision} was not seen within {limit:g} s")


def _follow(there: Connection, url: str, listen: bool) -> None:
    with closing(MaintenanceState(_open(url, listen=listen), ttl=TTL)) as state:
        state.on_change(lambda snapshot: there.send((snapshot.revision, REAL.clock())))
        state.start()
        while state.status().condition != "fresh":  # 100 processes register in one SQLite file: not all at once
            time.sleep(0.02)
        there.send((0, 0.0))
        there.recv()
