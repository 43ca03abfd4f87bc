"""The database, and what lies between it and a process.

A statement is sent, arrives, takes effect at one instant, and is answered; each way takes time, other connections
overtake, and the process may be frozen meanwhile without the database noticing. A connection may break before that
instant or after it, so that a caller who sees an error knows nothing. A process that is cut off notices nothing: its
packets wait, as TCP's do, until the cut ends or its watchdog gives up; what was sent may still take effect later.

A notification reaches each listening connection late, or not at all. Some connections end at a standby, which lags,
refuses writes, and says that it is one. Nothing that was committed is lost, whatever fails over or restarts.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from maintenance.base.values import SENTINEL, Change, Fleet, Instance, Reading, Row
from maintenance.errors import RegistrationError, StoreError
from tests.simulation.history import History, Write
from tests.simulation.world import Process, Queue, Thread, Waker, World

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
    """The one table of the flag and the one of the instances; also the `Store` of every process."""

    name = "simulated"

    def __init__(self, world: World, history: History, *, listens: bool) -> None:
        self.world, self.history, self.listens = world, history, listens
        self.network = Network()
        self.calm = False
        self.bell = Queue()  # rings for clients when the flag has changed
        self.flipped: Callable[[], object] = lambda: None
        self.down_until = 0.0
        self.row = Row(False, {}, 1)
        self.drain: int | None = None
        self.instances: dict[str, tuple[Instance, float]] = {}
        self.intact = True
        self.sessions: list[Session] = []
        self._past: list[tuple[float, Row]] = [(0.0, self.row)]

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

    def changed(self) -> None:
        random, network = self.world.random.random, self.network
        for session in self.sessions:
            if session.listening and random() >= network.unheard:
                self.world.after(self.way() + random() * network.late, session.notify)

    # Statements: each one instant.

    def read(self, session: "Session", instance: str | None) -> Reading:
        row = self.row if session.primary else self._lagging()
        return Reading(row, session.primary, instance in self.instances, self.drain == row.revision)

    def _lagging(self) -> Row:
        then = self.world.now - self.network.lag
        return [row for time, row in self._past if time <= max(then, 0.0)][-1]

    def write(self, change: Change) -> Row:
        details = change.details.to_json()
        if (self.row.value_bool, self.row.details) != (change.enabled, details):
            # From a sequence, which may have gaps.
            revision = int(str(self.row.revision)) + self.world.random.randint(1, 3)
            self.row = Row(change.enabled, details, revision)
            self.drain = revision if change.drain else self.drain
            self._past.append((self.world.now, self.row))
            self.history.writes.append(Write(self.world.stamp(), revision, change.enabled, change.details.mode))
            self.changed()
            self.world.wake(self.bell)
            self.flipped()
        return self.row

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

    def fleet(self, session: "Session", thread: Thread) -> Fleet:
        thread.asked = self.world.stamp()
        for one, seen in self.instances.values():
            object.__setattr__(one, "silent_for", self.world.now - seen)  # a copy of its own; replace() takes too long
        return Fleet(self.read(session, None), tuple(one for one, _ in self.instances.values()), self.intact)

    def ask_drain(self, revision: int) -> None:
        if self.row.revision == revision != self.drain:
            self.drain = revision
            self.changed()

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
        if isinstance(answer, StoreError):
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
        except StoreError as exc:
            answer = exc
        world.log(kind, self.process.name, getattr(answer, "revision", ""))
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

    def read(self, instance: str | None = None) -> Reading:
        return self._ask("read", lambda: self.database.read(self, instance))

    def write(self, change: Change) -> Row:
        return self._ask("write", self._writing(lambda: self.database.write(change)))

    def report(self, instance: Instance) -> None:
        def statement() -> None:
            if not self.primary:
                raise RegistrationError("simulated: a standby is read-only")
            self.database.report(self.process, instance)

        self._ask(f"report {instance.revision} {instance.in_flight}", statement)

    def remove(self, *instances: str) -> int:
        return self._ask("remove", self._writing(lambda: self.database.remove(instances)))

    def fleet(self) -> Fleet:
        thread = self.world.thread
        return self._ask("fleet", lambda: self.database.fleet(self, thread))

    def ask_drain(self, revision: int) -> None:
        self._ask("ask_drain", self._writing(lambda: self.database.ask_drain(revision)))

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
