"""Simulated processes: each has a real state, watcher, reader, session and connection. Many share one real process."""

import gc
import logging
import multiprocessing
import os
import random
import resource
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from maintenance.base.flags import Flags, Reading
from maintenance.base.instances import Instance
from maintenance.stores import PostgresStore

BIN: Final = 0.1
"""Seconds of one entry of a count."""

WORKERS: Final = max(os.cpu_count() or 1, 2)

Counts = dict[str, list[int]]


def raise_limit() -> None:
    """Allow as many descriptors as this account may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Counter:
    """How often something happened, for each tenth of a second since the start."""

    def __init__(self, start: float) -> None:
        """Begin at `start` (time.monotonic), which all workers share."""
        self._start = start
        self.counts: dict[str, array[int]] = {}

    def add(self, name: str) -> None:
        """Count one."""
        counts = self.counts.setdefault(name, array("q"))
        number = int((time.monotonic() - self._start) / BIN)
        if number >= len(counts):
            counts.extend([0] * (number - len(counts) + 1))
        counts[number] += 1


def _count(store: PostgresStore, counter: Counter) -> None:
    """Count the connects, reads and writes of a store's sessions."""
    from maintenance.stores.postgres.session import PostgresSession

    class Counted(PostgresSession):
        def __init__(self, *args: Any, **options: Any) -> None:
            counter.add("connects tried")
            super().__init__(*args, **options)
            counter.add("connects")

        def read(self, instance: str | None = None, *, known: Flags | None = None) -> Reading:
            counter.add("reads sent")
            reading = super().read(instance, known=known)
            counter.add("reads")
            return reading

        def report(self, instance: Instance) -> None:
            super().report(instance)
            counter.add("writes")

        def remove(self, *instances: str) -> int:
            removed = super().remove(*instances)
            counter.add("removals")
            return removed

    store._session_type = Counted


class _Worker:
    """One real process with its share of the simulated ones."""

    def __init__(self, pipe: Connection, url: str, start: float, *, listen: bool, ttl: float) -> None:
        from benchmarks.hub import Hub, make_runtime, take_over

        self._ttl = ttl
        self._pipe, self._hub, self._counter = pipe, Hub(), Counter(start)
        self._store = PostgresStore(url, listen=listen)
        _count(self._store, self._counter)
        self._runtime = make_runtime(self._hub)
        self._states: list[Any] = []
        take_over(self._hub)

    def run(self) -> None:
        self._hub.spawn(self._obey)
        self._hub.run()

    def _obey(self) -> None:
        while True:
            self._hub.wait(3600.0, fd=self._pipe.fileno())
            if not self._pipe.poll():
                continue
            name, *values = self._pipe.recv()
            if name == "end":
                self._hub.ended = True
                return
            self._pipe.send(getattr(self, name)(*values))

    def start(self, count: int, seconds: float) -> None:
        """Start so many processes, spread over so many seconds."""
        for _ in range(count):
            self._hub.spawn(self._start_one, random.uniform(0.0, seconds))

    def _start_one(self) -> None:
        from maintenance import MaintenanceState

        state = MaintenanceState(self._store, ttl=self._ttl, service="simulated", runtime=self._runtime)
        self._states.append(state)
        state.peek()  # as the first request does

    def replace(self, seconds: float) -> None:
        """Let each process leave and another one register, spread over so many seconds."""
        states, self._states = self._states, []
        for state in states:
            self._hub.spawn(lambda it=state: self._replace_one(it), random.uniform(0.0, seconds))

    def _replace_one(self, state: Any) -> None:
        state.leave()
        self._start_one()

    def report(self) -> tuple[Counts, int, int]:
        """Return the counts, how many processes have a fresh answer, and how many scopes each one knows at least."""
        fresh = sum(state.lease.running and not state.lease.failing for state in self._states)
        scopes = min((len(state.lease.current.scopes) for state in self._states), default=0)
        return {name: counts.tolist() for name, counts in self._counter.counts.items()}, fresh, scopes


def _work(pipe: Connection, url: str, start: float, listen: bool, ttl: float) -> None:
    raise_limit()
    logging.getLogger("maintenance").setLevel(logging.CRITICAL)  # or each process logs that the database is down
    gc.disable()  # or it looks at the objects of all the simulated processes again and again
    _Worker(pipe, url, start, listen=listen, ttl=ttl).run()
    os._exit(0)  # without the removal of each row


class Fleet:
    """All workers, as one."""

    def __init__(self, url: str, *, listen: bool, ttl: float) -> None:
        """Start the workers, without any simulated process."""
        context = multiprocessing.get_context("spawn")
        self.began = time.monotonic()
        self._pipes, self.workers = [], []
        for _ in range(WORKERS):
            here, there = context.Pipe()
            worker = context.Process(target=_work, args=(there, url, self.began, listen, ttl), daemon=True)
            worker.start()
            self._pipes.append(here)
            self.workers.append(worker)

    def _ask(self, name: str, *values: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((name, *values))
        return [pipe.recv() for pipe in self._pipes]

    def start(self, count: int, seconds: float) -> None:
        """See `_Worker.start`."""
        for number, pipe in enumerate(self._pipes):
            pipe.send(("start", len(range(number, count, len(self._pipes))), seconds))
            pipe.recv()

    def replace(self, seconds: float) -> None:
        """See `_Worker.replace`."""
        self._ask("replace", seconds)

    def report(self) -> tuple[Counts, int, int]:
        """See `_Worker.report`."""
        answers = self._ask("report")
        total: Counts = {}
        for counts, _, _ in answers:
            for name, found in counts.items():
                known = total.setdefault(name, [])
                known.extend([0] * (len(found) - len(known)))
                for number, count in enumerate(found):
                    known[number] += count
        return total, sum(fresh for _, fresh, _ in answers), min(scopes for _, _, scopes in answers)

    def end(self) -> None:
        """End the workers at once."""
        for worker in self.workers:
            worker.kill()
            worker.join()


@contextmanager
def simulated(url: str, *, listen: bool, ttl: float) -> Iterator[Fleet]:
    """A fleet, without any simulated process yet."""
    fleet = Fleet(url, listen=listen, ttl=ttl)
    try:
        yield fleet
    finally:
        fleet.end()


def await_fresh(fleet: Fleet, count: int, limit: float) -> float:
    """Wait until so many processes have a fresh answer, and return the seconds that it took."""
    began = time.monotonic()
    while (fresh := fleet.report()[1]) < count:
        if time.monotonic() - began > limit:
            raise RuntimeError(f"{fresh} of {count} processes have a fresh answer after {limit:g} s")
        time.sleep(0.25)
    return time.monotonic() - began
