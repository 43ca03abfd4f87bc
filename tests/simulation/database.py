"""The database, and what lies between it and a process.

A statement is sent, arrives, takes effect at one instant, and is answered; each way takes time, other connections
overtake, and the process may be frozen meanwhile without the database noticing. A connection may break before that
instant or after it, so that a caller who sees an error knows nothing. A process that is cut off notices nothing: its
packets wait, as TCP's do, until the cut ends or its watchdog gives up; what was sent may still take effect later.

A notification reaches each listening connection late, or not at all. Some connections end at a standby, which lags,
refuses writes, and says that it is one. Nothing that was committed is lost, whatever fails over or restarts, until an
operator restores a dump.
"""

import datetime as dt
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from maintenance.base.flags import Flags, Reading
from maintenance.base.instances import SENTINEL, Fleet, Instance
from maintenance.base.values import Change, Row, Snapshot, Written
from maintenance.errors import RegistrationError, StoreError
from maintenance.stores.rows import check_revision, describe_caller, is_in_force
from tests.simulation.history import LOST, History, Warned, Write
from tests.simulation.world import Process, Queue, Thread, Waker, World

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""What the database's clock shows at the beginning."""

SCOPES = ("shop", "blog")

INSTANT = 2e-6
"""Seconds that a time is rounded by, at most: the database's clock shows microseconds."""

CONNECT_TIMEOUT = 2.0
"""Seconds after which a connection that cannot be made is given up, as the real one."""


@dataclass
class Network:
    """How bad it is. Seconds, and probabilities per statement."""

    delay: float = 0.002  # the longest usual way
    slow: float = 0.0  # that a way takes up to 100 times as long
    lost: float = 0.0  # that the connection breaks before or after the statement
    unheard: float = 0.0  # that a notification is lost
    late: float = 0.0  # seconds that a notification may take
    astray: float = 0.0  # that a new connection ends at the standby
    lag: float = 0.0  # seconds by which the standby lags


class Database:
    """The tables of the flags and of the instances; also the `Store` of every process."""

    name = "simulated"

    def __init__(self, world: World, history: History, *, listens: bool, keeps: bool = True, rate: float = 1.0) -> None:
        self.world, self.history, self.listens, self.keep_connection = world, history, listens, keeps
        self.rate = rate  # of its clock
        self.network = Network()
        self.calm = False
        self.bell = Queue()  # rings for clients when a flag has changed
        self.flipped: Callable[[Write], object] = lambda _: None
        self.started: Callable[[Write], object] = lambda _: None
        self.down_until = 0.0
        self.rows: dict[str | None, Row] = {}
        self.last = self.token = 0
        self.instances: dict[str, tuple[Instance, float]] = {}
        self.intact = True
        self.sessions: list[Session] = []
        self._past: list[tuple[float, dict[str | None, Row], int, int]] = []
        self._dump: tuple[dict[str | None, Row], int] | None = None
        for scope in (None, *SCOPES):
            self._change(Row(False, {}, 0, self.clock, scope=scope))
        del self._past[:-1]  # the standby has them all

    def __deepcopy__(self, _: object) -> "Database":
        return self

    # What the library calls.

    def connect(self, *, listen: bool = False, limit: float | None = None) -> "Session":
        world, process = self.world, self.world.process
        world.step()
        way, patience = 2 * self.way(), min(CONNECT_TIMEOUT, limit or CONNECT_TIMEOUT) / process.rate
        world.sleep(min(way, patience))
        if way > patience or process.cut_until > world.now:
            world.sleep(max(patience - way, 0.0))
            raise StoreError("simulated: connecting timed out")
        if self.down_until > world.now or world.random.random() < self.network.lost:
            raise StoreError("simulated: connection refused")
        primary = world.random.random() >= self.network.astray
        session = Session(self, process, listening=listen and self.listens and primary, primary=primary)
        self.sessions.append(session)
        return session

    def migrate(self) -> None:
        """Nothing to do."""

    # What happens to it.

    def way(self) -> float:
        random, network = self.world.random.random, self.network
        return random() * network.delay * (100 if random() < network.slow else 1)

    def restart(self, seconds: float, *, promote: bool) -> None:
        """Drop every connection; a fail-over instead makes those to the standby ones to the primary."""
        self.down_until = self.world.now + seconds
        self.world.log("promoted" if promote else "restarted", "database", seconds)
        for session in list(self.sessions):
            if promote and not session.primary:
                session.primary = True
            else:
                session.drop()

    def empty(self) -> None:
        """TRUNCATE."""
        self.world.log("emptied", "database")
        self.instances.clear()
        self.intact = False

    def dump(self) -> None:
        """Keep what is restored later. Many flags that no process here has are flipped between the two."""
        self.world.log("dumped", "database", self.last)
        self._dump, self.history.dumped = (self.rows, self.last), self.last
        self.last += LOST
        self._put(self.rows)

    def restore(self) -> None:
        """Take the flags back to the dump, and leave the instances as they are."""
        assert self._dump is not None
        self.history.restored = self.world.stamp()
        (rows, self.last), self._dump = self._dump, None
        self._past.clear()  # the standby is restored, too
        self._put(rows)
        self.world.log("restored", "database", self.last)

    @property
    def dumped(self) -> bool:
        """Whether there is a dump that has not been restored."""
        return self._dump is not None

    def changed(self) -> None:
        random, network = self.world.random.random, self.network
        for session in self.sessions:
            if session.listening and random() >= network.unheard:
                self.world.after(self.way() + random() * network.late, session.notify)

    # Statements: each one instant.

    @property
    def clock(self) -> dt.datetime:
        return EPOCH + dt.timedelta(seconds=self.world.now * self.rate)

    def true_time(self, when: dt.datetime) -> float:
        """When its clock shows a time."""
        return (when - EPOCH).total_seconds() / self.rate

    def read(self, session: "Session", instance: str | None, known: Flags | None, scope: str | None = None) -> Reading:
        rows, last, token = (self.rows, self.last, self.token) if session.primary else self._lagging()
        caller = describe_caller(known)
        shown = [one for one in rows.values() if one.scope is not None and (is_in_force(one) or one.scope == scope)]
        shown += [rows[key] for key in SCOPES if f"maintenance_mode:{key}" in caller["keys"] and rows[key] not in shown]
        ahead = caller["doubtful"] and self._is_behind()
        if known is not None:
            self._warn(session.process.name, known, ahead=ahead)
        return Reading(
            rows[None],
            None if caller["token"] == str(token) else tuple(shown),
            last=last,
            token=str(token),
            now=self.clock,
            primary=session.primary,
            registered=instance in self.instances,
            ahead=ahead,
        )

    def _is_behind(self) -> bool:
        """Whether an instance has acknowledged what this database does not have, after the site's flag was written."""
        flipped = self.true_time(self.rows[None].updated_at)  # type: ignore[arg-type]
        return any((one.revision or 0) > self.last and seen > flipped for one, seen in self.instances.values())

    def _warn(self, process: str, known: Flags, *, ahead: bool) -> None:
        present = [one for one in self.history.warned if one.process == process and one.until > self.world.stamps]
        is_new = process not in self.history.acknowledged and known.revision <= self.last  # no child of one that knows
        if ahead and is_new and not present:
            self.history.warned.append(Warned(process, self.world.stamp()))
        for one in () if ahead else present:
            one.until = self.world.stamp()

    def _lagging(self) -> tuple[dict[str | None, Row], int, int]:
        then = self.world.now - self.network.lag
        found = next((past for past in reversed(self._past) if past[0] <= then), self._past[0])
        return found[1:]

    def write(self, change: Change) -> Written:
        details, before = change.details.to_json(), self.rows[change.scope]
        check_revision(change, before, store=self.name)
        change.check_times(self.clock)
        if (before.value_bool, before.details) != (change.value, details):
            self._change(Row(change.value, details, 0, self.clock, scope=change.scope, drain=change.drain))
        elif change.drain and not before.drain:
            self._put(self.rows | {change.scope: replace(before, drain=True)})
        return Written(self.rows[change.scope], before, self.last, self.clock)

    def carry_out(self, process: Process, scope: str | None, revision: int, enabled: bool) -> bool:
        row = self.rows[scope]
        over = not enabled and is_in_force(row)
        if not process.may_flip or row.revision != revision or (row.value_bool is enabled and not over):
            return False
        write, now = self.history.find(row.revision), self.world.now
        due = write.starts if enabled else write.until
        if due is None or now < due - (process.leeway(due) if enabled else INSTANT):
            self.history.broken.append(f"a schedule was carried out that does not say so: {write} at {now}")
        self.history.count("carried out")
        self._change(replace(row, value_bool=enabled, details=row.details if enabled else {}, updated_at=self.clock))
        return True

    def _put(self, rows: dict[str | None, Row]) -> None:
        self.rows, self.token = rows, self.token + 1
        self._past.append((self.world.now, rows, self.last, self.token))
        self.changed()

    def _change(self, row: Row) -> None:
        self.last += 1
        row = replace(row, revision=self.last)
        self._put(self.rows | {row.scope: row})
        write = self._describe(row.snapshot(read_at=0.0))
        self.history.add(write)
        if row.scope is None:
            for one in self.history.warned:
                one.until = min(one.until, write.at)
        self.world.wake(self.bell)
        self.flipped(write)

    def _describe(self, flag: Snapshot) -> Write:
        world = self.world
        write = Write(
            at=world.stamp(),
            scope=flag.scope,
            revision=flag.revision,
            enabled=flag.enabled,
            mode=flag.mode,
            starts=None if flag.starts is None else self.true_time(flag.starts),
            until=self.true_time(flag.until) if flag.auto_off and flag.until else None,
            restored=world.stamps > self.history.restored,
        )
        if write.enabled:
            write.begun = write.at
        elif write.starts is not None:
            world.after(max(write.starts - world.now, 0.0) + INSTANT, partial(self._start, write))
        if write.until is not None:
            world.after(max(write.until - world.now - INSTANT, 0.0), partial(self._end, write))
        return write

    def _start(self, write: Write) -> None:
        write.begun = self.world.stamp()
        if self.rows[write.scope].revision == write.revision:
            self.world.log("starts", "database", write.revision)
            self.world.wake(self.bell)
            self.started(write)

    def _end(self, write: Write) -> None:
        write.ended = self.world.stamp()

    def report(self, process: Process, instance: Instance) -> None:
        if not process.may_register:
            raise RegistrationError("simulated: permission denied")
        if instance is SENTINEL:
            self.intact = True
            return
        before = self.instances.get(instance.id)
        self.instances[instance.id] = replace(instance), self.world.now
        if before is None:
            self.history.registered.setdefault(instance.id, self.world.stamp())
        if instance.revision is not None:
            at = self.world.stamp()
            self.history.acknowledged.setdefault(process.name, []).append((at, instance.revision))
            for one in self.history.warned:
                if one.process == process.name:
                    one.acknowledged = min(one.acknowledged, at)

    def fleet(self, session: "Session", thread: Thread, scope: str | None) -> Fleet:
        thread.asked = self.world.stamp()
        for one, seen in self.instances.values():
            silent_for = (self.world.now - seen) * self.rate
            object.__setattr__(one, "silent_for", silent_for)  # a copy of its own; replace() takes too long
        return Fleet(
            self.read(session, None, None, scope), tuple(one for one, _ in self.instances.values()), self.intact
        )

    def ask_drain(self, revision: int, scope: str | None) -> None:
        row = self.rows[scope]
        if row.revision == revision and not row.drain:
            self._put(self.rows | {scope: replace(row, drain=True)})

    def remove(self, instances: tuple[str, ...]) -> int:
        return sum(self.instances.pop(one, None) is not None for one in instances)


class Session:
    """See `maintenance.stores.Session`."""

    def __init__(self, database: Database, process: Process, *, listening: bool, primary: bool) -> None:
        self.database, self.world, self.process = database, database.world, process
        self.listening, self.primary = listening, primary
        self._broken = ""
        self._dropped = False  # the server's side is gone, whether this side knows it or not
        self._notified = False
        self._answers: list[Any] = []
        self._queue = Queue()

    def __deepcopy__(self, _: object) -> "Session":
        return self  # a fork inherits the conversation

    # The way of a statement.

    def _ask(self, kind: str, statement: Callable[[], Any]) -> Any:
        world, network = self.world, self.database.network
        world.step()
        if self._broken:
            raise StoreError(f"simulated: {self._broken}")
        self._answers.clear()
        lost = world.random.random() if world.random.random() < network.lost else 1.0
        if lost < 0.5:
            self._break("lost before the statement")
        else:
            world.after(self.database.way(), partial(self._arrive, kind, statement, lost < 1.0))
        while not self._answers and not self._broken:
            world.wait(self._queue)
        world.step()
        if not self._answers:
            raise StoreError(f"simulated: {self._broken}")
        answer = self._answers.pop()
        if isinstance(answer, StoreError | ValueError):
            raise answer
        return answer

    def _arrive(self, kind: str, statement: Callable[[], Any], lost: bool) -> None:
        world = self.world
        if self.process.cut_until > world.now:
            later = self.process.cut_until - world.now + self.database.way()
            world.after(later, partial(self._arrive, kind, statement, lost))
            return
        if self._dropped or (self._broken and world.random.random() < 0.5):
            return
        try:
            answer = statement()
        except (StoreError, ValueError) as exc:
            answer = exc
        world.log(kind, self.process.name, getattr(answer, "last", ""))
        if lost:
            self._break("lost after the statement")
        else:
            world.after(self.database.way(), partial(self._answer, answer))

    def _answer(self, answer: Any) -> None:
        if self.process.cut_until > self.world.now:
            self.world.after(self.process.cut_until - self.world.now, partial(self._answer, answer))
        elif not self._dropped:
            self._answers.append(answer)
            self.world.wake(self._queue)

    def _break(self, why: str) -> None:
        self._broken = self._broken or why
        self.world.wake(self._queue)
        if self in self.database.sessions:
            self.database.sessions.remove(self)

    def drop(self) -> None:
        """The server hangs up; the process learns of it when a packet gets through."""
        self._dropped = True
        cut = max(self.process.cut_until - self.world.now, 0.0)
        self.world.after(cut + self.database.way(), partial(self._break, "the server hung up"))

    def notify(self) -> None:
        if self.process.cut_until <= self.world.now and not self._dropped:
            self._notified = True
            self.world.wake(self._queue)

    # What the library calls.

    def read(self, instance: str | None = None, *, known: Flags | None = None) -> Reading:
        return self._ask("read", lambda: self.database.read(self, instance, known))

    def write(self, change: Change) -> Written:
        def statement() -> Written:
            if not self.process.may_flip:
                raise StoreError("simulated: permission denied")
            return self.database.write(change)

        return self._ask("write", self._writing(statement))

    def carry_out(self, scope: str | None, revision: int, *, enabled: bool) -> bool:
        statement = partial(self.database.carry_out, self.process, scope, revision, enabled)
        return self._ask("carry out", lambda: self.primary and statement())

    def report(self, instance: Instance) -> None:
        def statement() -> None:
            if not self.primary:
                raise RegistrationError("simulated: a standby is read-only")
            self.database.report(self.process, instance)

        self._ask(f"report {instance.revision} {instance.in_flight}", statement)

    def remove(self, *instances: str) -> int:
        return self._ask("remove", self._writing(lambda: self.database.remove(instances)))

    def fleet(self, scope: str | None = None) -> Fleet:
        thread = self.world.thread
        return self._ask("fleet", lambda: self.database.fleet(self, thread, scope))

    def ask_drain(self, revision: int, scope: str | None = None) -> None:
        self._ask("ask_drain", self._writing(lambda: self.database.ask_drain(revision, scope)))

    def _writing(self, statement: Callable[[], Any]) -> Callable[[], Any]:
        def checked() -> Any:
            if not self.primary:
                raise StoreError("simulated: a standby is read-only")
            return statement()

        return checked

    def wait(self, timeout: float, waker: Waker) -> bool:
        world = self.world
        end = world.now + timeout / self.process.rate
        while True:
            if self.listening and self._broken:
                raise StoreError(f"simulated: {self._broken}")
            if self._notified:
                self._notified = False
                return True
            if waker.woken or world.now >= end:
                waker.woken = False
                return False
            world.wait(self._queue, waker.queue, timeout=end - world.now)

    def within(self, seconds: float) -> AbstractContextManager[None]:
        return self.world.watchdog(seconds, partial(self._break, "interrupted"))

    def abandon(self) -> None:
        """The conversation is the parent's."""

    def close(self) -> None:
        self._break("closed")
