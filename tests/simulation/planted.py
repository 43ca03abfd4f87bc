"""Bugs that would break the proof, each one a small change of the real code, and the weather in which it shows.

Each is a function over the real classes that a context manager puts in place; `PLANTED` says in which scenario to look.
The same scenario with the true code is clean: that is tested, too.
"""

import contextlib
import datetime as dt
import functools
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any, Final
from unittest.mock import patch

from maintenance.base import flags
from maintenance.base.flags import NEVER, SCHEDULE_RATE, Flags, Reading, StoreClock
from maintenance.base.values import Snapshot, Written
from maintenance.http.wsgi_body import close_with
from maintenance.http.wsgi_io import send_response
from maintenance.process.lease import Answer, Lease
from maintenance.process.life import Event
from maintenance.process.lifecycle import Lifecycle
from maintenance.process.reader import Reader, _Read
from maintenance.proof import judge, prover
from maintenance.proof.membership import Row, make_report
from maintenance.wsgi import MaintenanceMiddleware
from tests.simulation.database import Session
from tests.simulation.scenario import run
from tests.simulation.world import Weather, World


@dataclass(frozen=True)
class Plant:
    """A bug.

    Attributes:
        targets: What is replaced: (owner, name, by what).
        faults: Those of the scenario.
        options: What else is decided there.
        runs: Within how many it must be caught.
        stops: Whether it keeps something from coming to pass, and breaks no promise for every moment.
    """

    targets: tuple[tuple[Any, str, Any], ...]
    faults: str
    options: dict[str, Any] = field(default_factory=dict)
    runs: int = 80
    stops: bool = False


@contextlib.contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Put a bug in place."""
    with contextlib.ExitStack() as stack:
        for owner, name, bug in plant.targets:
            stack.enter_context(patch.object(owner, name, bug))
        yield


def _flags(read: _Read) -> Flags:
    return read.reading.flags(read.before, sent=read.sent, received=read.received)


def _acknowledges_before_installing(self: Any, session: Any) -> Iterator[None]:
    if self.membership.row is Row.ABSENT:
        self.membership.register(session)
    read = self._ask(session)
    known = _flags(read)
    self.membership.confirm(registered=read.reading.registered)
    self.membership.acknowledge(session, make_report(known, known, self._sources.measure(known)))
    self._install(read)
    yield from ()


def _reads_the_clock_after_the_answer(self: Any, session: Any) -> Any:
    ticket, before = self._lease.ticket(), self._lease.known
    reading = session.read(self.membership.instance.id)
    now = self._lease.runtime.clock()
    return _Read(now, now, ticket, before, reading)


def _registers_after_admitting(self: Any, session: Any) -> Iterator[None]:
    now, until = self._lease.runtime.clock(), self._lease.until
    if self.membership.row is Row.ABSENT and until - self._settings.ttl * 0.7 < now < until:
        self.membership.register(session)
    read = self._ask(session)
    self.membership.confirm(registered=read.reading.registered)
    self._lease.install(_flags(read), ticket=read.ticket, epoch=self.epoch)
    self.answered = True
    self.membership.acknowledge(session, self._report())
    yield from ()


def _enters_after_asking(self: Any, environ: Any, start_response: Any) -> Any:
    admission = self._admission
    now, answer = _read_clock(admission), admission.lease.current
    refusal = None if now < answer.open_until else self._judge(environ, start_response, now)[0]
    if refusal is not None:
        return send_response(refusal, environ, start_response)
    admission.lease.runtime.sleep(admission.lease.settings.ttl / 20)  # a busy machine
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
    refusal = None if now < answer.open_until else self._judge(environ, start_response, now)[0]
    return self._app(environ, start_response) if refusal is None else send_response(refusal, environ, start_response)


def _read_clock(admission: Any) -> float:
    clock, arguments = admission.clock_call
    now: float = clock(*arguments)
    return now


_true_account, _true_judge, _true_find_lag = judge._account, judge.judge, judge._find_lag


def _trusts_the_silent(instance: Any, reading: Reading, question: Any, elapsed: float) -> Any:
    return _true_account(replace(instance, when_stale="block"), reading, question, elapsed)


def _takes_emptied_for_empty(fleet: Any, question: Any, *, elapsed: float) -> Any:
    return _true_judge(replace(fleet, intact=True), replace(question, expect={}), elapsed=elapsed)


def _ignores_the_revision_of_a_scope(instance: Any, reading: Reading, question: Any) -> str:
    if question.scope is not None:
        question = replace(question, revision=min(question.revision, reading.row.revision))  # type: ignore[union-attr]
    return _true_find_lag(instance, reading, question)


def _wants_this_very_revision(instance: Any, reading: Reading, question: Any) -> str:
    return "" if instance.revision == question.revision else "no reply"


def _trusts_a_report_from_before_the_start(instance: Any, reading: Reading, question: Any) -> str:
    return _true_find_lag(instance, reading, replace(question, starts=None))


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


def _orders_by_arrival(self: Any, flags: Flags, **options: Any) -> bool:
    return _true_install(self, flags, **options | {"ticket": self.ticket()})


def _ignores_overlaps(self: Any, written: Written, flag: Snapshot, *, clock: Any, asked: int) -> bool:
    known = self.known.put(flag)
    return _true_install(self, replace(known, revision=written.last), ticket=self.ticket())


def _claims_to_be_complete(self: Any, written: Written, flag: Snapshot, *, clock: Any, asked: int) -> bool:
    _true_put(self, written, flag, clock=clock, asked=asked)
    self.known = replace(self.known, revision=max(self.known.revision, written.last))
    return True


_true_put = Lease.put


def _begins_after_the_read(self: StoreClock, when: dt.datetime) -> float:
    return self.received + (when - self.at).total_seconds() / ((1 + SCHEDULE_RATE) / (1 - SCHEDULE_RATE))


def _ends_before_the_read(self: StoreClock, when: dt.datetime) -> float:
    return self.sent + (when - self.at).total_seconds() * (1 + SCHEDULE_RATE) / (1 - SCHEDULE_RATE)


def _begins_without_drift(self: StoreClock, when: dt.datetime) -> float:
    return self.sent + (when - self.at).total_seconds()


def _begins_by_the_wall_clock(self: StoreClock, when: dt.datetime) -> float:
    assert World.current is not None
    return self.sent + (when - self.at).total_seconds() - (World.current.wall - World.current.now)


def _carries_out_whatever_is_there(self: Any, scope: str | None, revision: int, *, enabled: bool) -> bool:
    return _true_carry_out(self, scope, self.database.rows[scope].revision, enabled=enabled)


_true_carry_out = Session.carry_out


def _keeps_what_has_a_higher_revision(read: Flags, known: Snapshot) -> bool:
    return known.source == "store" and read.get(known.scope).revision < known.revision


def _heeds_no_warning(self: Reading, before: Flags, **times: float) -> Flags:
    return _true_flags(replace(self, ahead=False), before, **times)


_true_flags = Reading.flags


def _begins_with_the_next_read(self: Any, known: Flags, until: float) -> None:
    flags, _ = known.at(self.runtime.clock())
    on = {scope: flag for scope, flag in flags.scopes.items() if flag.enabled}
    self.current, self.holds_until = Answer(flags.site, until, on), NEVER


def _passes_the_start_before_the_answer(self: Any, known: Flags, until: float) -> None:
    flags, self.holds_until = known.at(self.runtime.clock())
    on = {scope: flag for scope, flag in flags.scopes.items() if flag.enabled}
    self.current = self._blocked if self.life.closed else Answer(flags.site, min(until, self.holds_until), on)


def _looks_at_the_start_alone(self: Lease, _: object) -> Answer | None:
    self.advance()
    return self.current if self.running else None


def _takes_any_maintenance_for_the_planned_one(self: Any, session: Any, fleet: Any, elapsed: float) -> None:
    question, flag = self._question, judge.read_flag(fleet.reading, self._question.scope)
    if question.starts is not None and flag is not None and flag.enabled:
        self._question = replace(question, revision=flag.revision)
    _true_follow_schedule(self, session, fleet, elapsed)


_true_follow_schedule = prover.Prover._follow_schedule


def _leaves_before_the_lease_has_ended(self: Any, event: Event = Event.LEAVE) -> None:
    if self.watcher is not None:
        self._lease.life.epoch += 1
        self.watcher.wake()
        self._runtime.sleep(self._lease.settings.ttl / 4)  # a busy machine
    _true_leave(self, event)


_true_leave = Lifecycle.leave

BUSY: Final = {"ttl": 2.0, "gap": 0.1}
SCOPED: Final = BUSY | {"scopes": True}
PLANNED: Final = {"when_stale": "serve", "ttl": 2.0, "gap": 0.3, "scopes": True}

PLANTED: Final = {
    "acknowledging before installing": Plant(
        ((Reader, "_cycle", _acknowledges_before_installing),), "unrest", {"when_stale": "serve", **BUSY}
    ),
    "read_at taken after the answer": Plant(
        ((Reader, "_ask", _reads_the_clock_after_the_answer),),
        "freeze",
        {"when_stale": "block", "handling": 0.02, "delay": 0.01, "scopes": False, **BUSY},
    ),
    "registering after admitting": Plant(
        ((Reader, "_cycle", _registers_after_admitting),),
        "join leave unheard",
        {"when_stale": "block", "handling": 0.02, "strikes": 2.0, **BUSY},
    ),
    "entering the request after asking the flag": Plant(
        ((MaintenanceMiddleware, "__call__", _enters_after_asking),),
        "unrest",
        {"when_stale": "serve", "handling": 0.5, **BUSY},
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
        {
            "when_stale": "block",
            "ttl": 4.0,
            "delay": 0.001,
            "gap": 0.01,
            "handling": 0.01,
            "skewed": True,
            "scopes": False,
        },
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
        ((Lease, "put", _ignores_overlaps),),
        "slow",
        {"when_stale": "serve", "admin": 0.2, "delay": 0.05, **BUSY},
    ),
    "a scope proven by the revision of the site": Plant(
        ((judge, "_find_lag", _ignores_the_revision_of_a_scope),), "cut sever", {"when_stale": "serve", **SCOPED}
    ),
    "two operators who wait for their very revisions": Plant(
        ((judge, "_find_lag", _wants_this_very_revision),), "", {"when_stale": "serve", **SCOPED}, stops=True
    ),
    "an own write acknowledged although another one came in between": Plant(
        ((Lease, "put", _claims_to_be_complete),), "unheard", {"when_stale": "serve", "admin": 0.2, **SCOPED}
    ),
    "a start counted from after the read": Plant(
        ((StoreClock, "begin", _begins_after_the_read),), "plan slow", {"delay": 0.05, **PLANNED}
    ),
    "an end counted from before the read": Plant(
        ((StoreClock, "end", _ends_before_the_read),), "plan slow", {"delay": 0.05, **PLANNED}
    ),
    "a start that trusts the rates of the clocks": Plant(
        ((StoreClock, "begin", _begins_without_drift),), "plan sever", PLANNED
    ),
    "a start by the wall clock": Plant(((StoreClock, "begin", _begins_by_the_wall_clock),), "plan jump", PLANNED),
    "a start that waits for the next read": Plant(
        ((Lease, "_use", _begins_with_the_next_read),), "plan sever", PLANNED
    ),
    "an answer that is older than the start that was noticed": Plant(
        (
            (Lease, "_use", _passes_the_start_before_the_answer),
            (Lease, "find_answer", _looks_at_the_start_alone),
        ),
        "plan sever unrest",
        {"when_stale": "block", "handling": 0.02, "weather": Weather(unrest=0.2, longest=0.3), **SCOPED, "gap": 0.05},
    ),
    "a drain proven by a report from before the start": Plant(
        ((judge, "_find_lag", _trusts_a_report_from_before_the_start),),
        "plan mute",
        {"when_stale": "serve", "delay": 0.05, "handling": 0.3, "size": 2, **SCOPED, "gap": 0.5},
    ),
    "any maintenance taken for the planned one": Plant(
        ((prover.Prover, "_follow_schedule", _takes_any_maintenance_for_the_planned_one),),
        "plan freeze cut",
        {"when_stale": "serve", "delay": 0.05, "strikes": 3.0, **SCOPED, "ttl": 1.0, "size": 3},
    ),
    "a schedule carried out whatever the revision is": Plant(
        ((Session, "carry_out", _carries_out_whatever_is_there),), "plan unheard", PLANNED
    ),
    "an older value that is followed": Plant(
        ((flags, "_is_older", lambda *_: False),), "take-back", {"when_stale": "serve", "strikes": 2.0, **SCOPED}
    ),
    "an older value recognized by its revision alone": Plant(
        ((flags, "_is_older", _keeps_what_has_a_higher_revision),),
        "take-back",
        {"when_stale": "serve", "strikes": 2.0, **SCOPED},
        stops=True,
    ),
    "a new process that heeds no warning": Plant(
        ((Reading, "flags", _heeds_no_warning),), "take-back join", {"when_stale": "serve", "strikes": 2.0, **SCOPED}
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
    outcome = run(seed, faults=frozenset(plant.faults.split()), **{"size": 6} | plant.options)
    return outcome.wrong if plant.stops else outcome.unsafe
