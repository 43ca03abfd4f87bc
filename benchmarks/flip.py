"""From a flip to another process that has seen it, over each store that several processes share."""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from benchmarks.report import line, spread
from maintenance import MaintenanceState, Snapshot
from maintenance.base.runtime import REAL
from tests.support.postgres import DURABLE, server

FLIPS: Final = 100


def _follow(url: str, told: Connection) -> None:
    """In the other process: say when each snapshot was installed."""
    with closing(MaintenanceState(url)) as state:
        state.on_change(lambda snapshot: told.send((snapshot.revision, REAL.clock())))
        state.snapshot()
        told.send((0, 0.0))
        told.recv()


@contextmanager
def _another_process(url: str) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_follow, args=(url, there), daemon=True)
    process.start()
    _heard(here, 0)
    yield here
    here.send(None)
    process.join(10)


def _heard(told: Connection, revision: int) -> float:
    while told.poll(30):
        number, at = told.recv()
        if number == revision:
            return float(at)
    raise RuntimeError(f"revision {revision} was not seen within 30 s")


def _delays(url: str) -> tuple[list[float], list[float]]:
    """Seconds from the write's return, and from its call, until another process has installed it."""
    committed, called = [], []
    with closing(MaintenanceState(url, register=False)) as state:
        state.store.migrate()
        with _another_process(url) as told:
            for number in range(FLIPS + 5):
                began = REAL.clock()
                snapshot: Snapshot = state.set(number % 2 == 0)
                returned = REAL.clock()
                seen = _heard(told, snapshot.revision)
                committed.append(max(seen - returned, 0.0))
                called.append(seen - began)
                time.sleep(0.02)
    return committed[5:], called[5:]


def _show(store: str, url: str, limit: float | None) -> None:
    committed, called = _delays(url)
    line(
        f"{store}: commit to seen, median",
        statistics.median(committed) * 1e3,
        "ms",
        limit=limit,
        more=spread(committed),
    )
    line(
        f"{store}: set() called to seen, median",
        statistics.median(called) * 1e3,
        "ms",
        limit=limit,
        more=spread(called),
    )


def run() -> None:
    with server(**DURABLE) as database:
        _show("PostgreSQL", database.url(), 10)
    with tempfile.TemporaryDirectory(prefix="maintenance-bench-") as folder:
        _show("SQLite", f"sqlite:///{Path(folder) / 'maintenance.db'}", None)
