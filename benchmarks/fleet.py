"""How long the proof of a whole fleet takes, and what one flip costs the database."""

import random
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import psycopg

from benchmarks import results
from benchmarks.report import line, spread
from maintenance import MaintenanceState
from maintenance.base.runtime import REAL
from tests.torture.fleet import Fleet, fleet

PROCESSES: Final = 100
PACE: Final = 0.25
FLIPS: Final = 30
TTL: Final = 600.0
"""Long, so that no usual refresh is counted among what a flip costs."""

FAULTED_TTL: Final = 2.0
FAULTED_FLIPS: Final = 10
RELAYS: Final = 5


@contextmanager
def _serving(ttl: float, relays: int = 0) -> Iterator[tuple[Fleet, list, MaintenanceState]]:
    with fleet(slots=PROCESSES, pace=PACE, relays=relays) as (started, ways):
        for number in range(PROCESSES):
            way = ways[number] if number < relays else None
            started.spawn(when_stale="block" if relays or number % 2 else "serve", ttl=ttl, relay=way)
        started.await_pids(started.members)
        started.await_service(started.members, 60.0)
        with closing(MaintenanceState(started.url, register=False)) as operator:
            yield started, ways, operator


def _counts(fleet: Fleet) -> tuple[int, int]:
    """Since the server's start: rows of instances written, and scans of the flag's table, one for each read."""
    time.sleep(11.0)  # an idle backend tells of what it did after 10 s (PGSTAT_IDLE_INTERVAL)
    with psycopg.connect(fleet.url) as connection:
        row = connection.execute(
            "SELECT (SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'maintenance_instances'), "
            "(SELECT seq_scan + idx_scan FROM pg_stat_user_tables WHERE relname = 'platform_settings')"
        ).fetchone()
    assert row is not None
    return row


def _proven(fleet: Fleet, operator: MaintenanceState) -> list[float]:
    """Seconds from the commit's return to the proof: one flip on, and one off."""
    took = []
    for enabled in (True, False):
        snapshot = operator.set(enabled)
        began = REAL.clock()
        proof = operator.prove(snapshot, timeout=60.0, expect=PROCESSES)
        took.append(REAL.clock() - began)
        if not proof:
            raise RuntimeError(f"not proven: {proof}")
        time.sleep(0.3)
    return took


def run() -> None:
    """A healthy fleet."""
    with _serving(TTL) as (started, _, operator):
        _proven(started, operator)
        took = [_proven(started, operator) for _ in range(FLIPS)]
        data: dict[str, Any] = {"processes": PROCESSES}
        for name, seconds in zip(("on", "off"), zip(*took, strict=True), strict=True):
            median = statistics.median(seconds) * 1e3
            data[name] = {"median": round(median, 1), "p90": round(statistics.quantiles(seconds, n=10)[8] * 1e3, 1)}
            line(
                f"{PROCESSES} processes, {name}: commit to proof, median", median, "ms", limit=100, more=spread(seconds)
            )
        data |= _measure_cost(started, operator)
    results.save("fleet", data, versions=("psycopg",), note=f"{FLIPS} flips of each kind.")


def _measure_cost(fleet: Fleet, operator: MaintenanceState) -> dict[str, float]:
    """What one flip costs each process: flips without anybody who waits, so that nothing else is counted."""
    flips = 10
    before = _counts(fleet)
    for number in range(flips):
        operator.set(number % 2 == 0)
        time.sleep(1.0)
    writes, reads = (now - then for now, then in zip(_counts(fleet), before, strict=True))
    each = PROCESSES * flips
    line("writes for each process and flip", writes / each, "", limit=1)
    # The operator's own write scans the table too.
    line("reads for each process and flip", (reads - flips) / each, "", limit=2)
    return {"writes": writes / each, "reads": (reads - flips) / each}


def run_faulted() -> None:
    """A fleet under ``block`` of which some are frozen and some cut off."""
    took: list[float] = []
    with _serving(FAULTED_TTL, RELAYS) as (started, relays, operator):
        direct = started.members[RELAYS:]
        for _ in range(FAULTED_FLIPS):
            frozen = random.sample(direct, 10)
            for process in frozen:
                process.signal(signal.SIGSTOP)
            for relay in relays:
                relay.cut()
            snapshot = operator.set(True)
            began = REAL.clock()
            proof = operator.prove(snapshot, timeout=60.0)
            took.append(REAL.clock() - began)
            for process in frozen:
                process.signal(signal.SIGCONT)
            for relay in relays:
                relay.pass_()
            if not proof or len(proof.fenced) != len(frozen) + RELAYS:
                raise RuntimeError(f"not proven as it should be: {proof}")
            operator.prove(operator.set(False), timeout=60.0)
            started.await_service(started.members, 60.0)
    median = statistics.median(took)
    line(
        f"{PROCESSES} processes, {10 + RELAYS} silent, TTL {FAULTED_TTL:g} s: to the proof, median",
        median / FAULTED_TTL * 100,
        "%",
        limit=103,
        more=f"of the TTL; {spread(took)}",
    )
