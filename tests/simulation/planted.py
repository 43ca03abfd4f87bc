"""Bugs that would break the proof, each one a small change of the real code, and the weather in which it shows.

Each is a function over the real classes that a context manager puts in place; `PLANTED` says in which scenario to look.
The same scenario with the true code is clean: that is tested, too.
"""

import contextlib
import functools
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any, Final
from unittest.mock import patch

from maintenance.http.wsgi_body import close_with
from maintenance.http.wsgi_io import send_response
from maintenance.process.lease import Lease
from maintenance.process.life import Event
from maintenance.process.lifecycle import Lifecycle
from maintenance.process.reader import Reader, _Read
from maintenance.proof import judge, prover
from maintenance.proof.membership import Row
from maintenance.wsgi import MaintenanceMiddleware
from tests.simulation.scenario import run
from tests.simulation.world import Weather


@dataclass(frozen=True)
class Plant:
    """A bug.

    Attributes:
        targets: What is replaced: (owner, name, by what).
        faults: Those of the scenario.
        options: What else is decided there.
        runs: Within how many it must be caught.
    """

    targets: tuple[tuple[Any, str, Any], ...]
    faults: str
    options: dict[str, Any] = field(default_factory=dict)
    runs: int = 80


@contextlib.contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Put a bug in place."""
    with contextlib.ExitStack() as stack:
        for owner, name, bug in plant.targets:
            stack.enter_context(patch.object(owner, name, bug))
        yield


def _acknowledges_before_installing(self: Any, session: Any) -> Iterator[None]:
    if self.membership.row is Row.ABSENT:
        self.membership.register(session)
    read = self._ask(session)
    known = read.reading.snapshot(read_at=read.sent)
    self.membership.confirm(registered=read.reading.registered)
    self.membership.acknowledge(session, known.revision, self._sources.measure(known), drain=read.reading.drain)
    self._install(read)
    yield from ()


def _reads_the_clock_after_the_answer(self: Any, session: Any) -> Any:
    ticket = self._lease.ticket()
    reading = session.read(self.membership.instance.id)
    return _Read(self._lease.runtime.clock(), ticket, reading)


def _registers_after_admitting(self: Any, session: Any) -> Iterator[None]:
    now, until = self._lease.runtime.clock(), self._lease.until
    if self.membership.row is Row.ABSENT and until - self._settings.ttl * 0.7 < now < until:
        self.membership.register(session)
    read = self._ask(session)
    self.membership.confirm(registered=read.reading.registered)
    self._lease.install(read.reading.snapshot(read_at=read.sent), ticket=read.ticket, epoch=self.epoch)
    self.answered = True
    known = self._lease.known
    self.membership.acknowledge(session, known.revision, self._sources.measure(known), drain=read.reading.drain)
    yield from ()


def _enters_after_asking(self: Any, environ: Any, start_response: Any) -> Any:
    admission = self._admission
    now, answer = _read_clock(admission), admission.lease.current
    refusal = None if now < answer.open_until else self._find_refusal(environ, now)
    if refusal is not None:
        return send_response(refusal, environ, start_response)
    entry = [environ["REQUEST_METHOD"], environ["PATH_INFO"], "", now, environ]
    admission.in_flight.table.append(entry)
    try:
        body = self._app(environ, start_response)
    except BaseException:
        entry.clear()
        raise
    return close_with(body, environ, entry.clear)


def _reads_the_clock_after_the_flag(self: Any, environ: Any, start_response: Any) -> Any:
    answer = self._admission.lease.current
    now = _read_clock(self._admission)
    refusal = None if now < answer.open_until else self._find_refusal(environ, now)
    return self._app(environ, start_response) if refusal is None else send_response(refusal, environ, start_response)


def _read_clock(admission: Any) -> float:
    clock, arguments = admission.clock_call
    now: float = clock(*arguments)
    return now


_true_account, _true_judge = judge._account, judge.judge


def _trusts_the_silent(instance: Any, question: Any, elapsed: float) -> Any:
    return _true_account(replace(instance, when_stale="block"), question, elapsed)


def _takes_emptied_for_empty(fleet: Any, question: Any, *, elapsed: float) -> Any:
    return _true_judge(replace(fleet, intact=True), replace(question, expect=None), elapsed=elapsed)


_true_ask = Reader._ask


def _takes_a_standby_for_the_primary(self: Any, session: Any) -> Any:
    read = _true_ask(self, session)
    return read._replace(reading=replace(read.reading, primary=True))


def _renews_unregistered(_: Any) -> None:
    return None


def _forks_with_the_lease(self: Any) -> None:
    self._lock = self.runtime.lock()
    self.life.fork()


_true_install = Lease.install


def _orders_by_arrival(self: Any, snapshot: Any, *, ticket: int, **options: Any) -> bool:
    return _true_install(self, snapshot, **options | {"ticket": self.ticket(), "asked": None})


def _ignores_overlaps(self: Any, snapshot: Any, *, asked: int | None = None, **options: Any) -> bool:
    self._taken = 0
    return _true_install(self, snapshot, **options)


def _leaves_before_the_lease_has_ended(self: Any, event: Event = Event.LEAVE) -> None:
    if self.watcher is not None:
        self._lease.life.epoch += 1
        self.watcher.wake()
        self._runtime.sleep(self._lease.settings.ttl / 4)  # a busy machine
    _true_leave(self, event)


_true_leave = Lifecycle.leave

BUSY: Final = {"ttl": 2.0, "gap": 0.1}

PLANTED: Final = {
    "acknowledging before installing": Plant(
        ((Reader, "_cycle", _acknowledges_before_installing),), "unrest", {"when_stale": "serve", **BUSY}
    ),
    "read_at taken after the answer": Plant(
        ((Reader, "_ask", _reads_the_clock_after_the_answer),),
        "freeze",
        {"when_stale": "block", "handling": 0.02, "delay": 0.01, **BUSY},
    ),
    "registering after admitting": Plant(
        ((Reader, "_cycle", _registers_after_admitting),),
        "join leave unheard",
        {"when_stale": "block", "handling": 0.02, "strikes": 2.0, **BUSY},
    ),
    "entering the request after asking the flag": Plant(
        ((MaintenanceMiddleware, "__call__", _enters_after_asking),),
        "unrest",
        {"when_stale": "serve", "ttl": 2.0, "gap": 0.05, "handling": 0.5, "weather": Weather(unrest=0.2, longest=2.0)},
    ),
    "reading the clock after the flag": Plant(
        ((MaintenanceMiddleware, "__call__", _reads_the_clock_after_the_flag),), "unrest", {"when_stale": "serve"}
    ),
    "trusting a silent serving instance": Plant(
        ((judge, "_account", _trusts_the_silent),), "cut sever", {"when_stale": "serve"}
    ),
    "forgetting the clock's rate": Plant(
        ((judge, "lease_end", lambda ttl: ttl), (prover, "lease_end", lambda ttl: ttl)),
        "sever",
        {"when_stale": "block", "ttl": 4.0, "delay": 0.001, "gap": 0.01, "handling": 0.01, "skewed": True},
    ),
    "an emptied table of instances taken for an empty fleet": Plant(
        ((prover, "judge", _takes_emptied_for_empty),), "empty cut sever", {"when_stale": "block"}
    ),
    "a standby that renews the lease": Plant(
        ((Reader, "_ask", _takes_a_standby_for_the_primary),), "standby drop lost", {"when_stale": "block"}
    ),
    "an unregistered process that renews its lease": Plant(
        ((Reader, "_obstacle", _renews_unregistered),), "denied", {"when_stale": "block", **BUSY}
    ),
    "leaving the fleet before the lease has ended": Plant(
        ((Lifecycle, "leave", _leaves_before_the_lease_has_ended),),
        "lull",
        {"when_stale": "block", "handling": 0.02, "strikes": 2.0, **BUSY},
    ),
    "a fork that inherits the lease": Plant(((Lease, "fork", _forks_with_the_lease),), "fork", {"when_stale": "block"}),
    "an old read that replaces an own write": Plant(
        ((Lease, "install", _orders_by_arrival),), "slow", {"when_stale": "serve", "admin": 0.1, **BUSY}
    ),
    "an answer that was overtaken by the one that is held": Plant(
        ((Lease, "install", _ignores_overlaps),),
        "slow",
        {"when_stale": "serve", "admin": 0.2, "delay": 0.05, **BUSY},
    ),
}


def caught(bug: str, pool: Executor) -> int | None:
    """The first seed that catches a bug, counted from 0; None where none of its runs does."""
    found = pool.map(functools.partial(_found, bug), range(PLANTED[bug].runs))
    try:
        return next((seed for seed, violations in enumerate(found) if violations), None)
    finally:
        found.close()  # and nobody runs the rest


def _found(bug: str, seed: int) -> list[str]:
    with planted(PLANTED[bug]):
        return violated(bug, seed)


def violated(bug: str, seed: int) -> list[str]:
    """What a seed finds in a bug's scenario, with whatever code is in place."""
    plant = PLANTED[bug]
    return run(seed, size=6, faults=frozenset(plant.faults.split()), **plant.options).unsafe
