"""What runs in the processes: servers, their clients, and operators.

A server is the library's state and WSGI middleware over a handler that takes time; its clients call it as a WSGI
server would, and some close the response late. Some requests belong to a scope. Some are exempt, some bypass, some
fail. An admin's request is exempt and flips a flag, or reads it anew, in the process that serves it.

An operator has a process of its own, whose clock is as bad as any. He flips, plans, asks for proof, and notes what he
is told.
"""

import copy
import copyreg
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from maintenance.base.flags import StoreClock
from maintenance.base.values import Mode, Snapshot
from maintenance.errors import StoreError
from maintenance.http.refusal import Response
from maintenance.http.request import Request
from maintenance.process.state import MaintenanceState
from maintenance.proof.judge import Proof
from maintenance.stores.rows import is_in_force
from maintenance.wsgi import MaintenanceMiddleware
from tests.simulation.database import INSTANT, SCOPES, Database
from tests.simulation.history import Handled, Refused, Success
from tests.simulation.world import SCHEDULE_RATE, Process, World

copyreg.pickle(itertools.count, lambda counter: (itertools.count, (next(counter),)))  # a fork copies it, too


DRIFT = ((1 + SCHEDULE_RATE) / (1 - SCHEDULE_RATE)) ** 2 - 1
"""How far two clocks may be apart per second, and by how much the library may think that they are, together."""

PATHS = {"/work": None, **{f"/{scope}/work": scope for scope in SCOPES}}
"""What clients ask for, and the scope that it belongs to."""


@dataclass(frozen=True)
class Options:
    """How a server is made."""

    ttl: float
    when_stale: Any
    tracks: bool = True
    primes: bool = False
    handling: float = 0.5  # seconds that a handler takes, at most
    gap: float = 0.2  # seconds between two requests of a client, at most
    clients: int = 2
    admin: float = 0.0  # probability that a request in the storm is an admin's
    scopes: bool = True  # whether there are any


class Server:
    """One process that serves."""

    def __init__(self, process: Process, database: Database, options: Options) -> None:
        self.process, self.database, self.options = process, database, options
        self.world: World = process.world
        self.leaving = self.asked_to_stop = False
        self.handling: list[Handled] = []
        self.state: Any = None
        self.app: Any = None

    def boot(self) -> None:
        """What its main thread does."""
        options = self.options
        self.state = MaintenanceState(
            self.database,
            ttl=options.ttl,
            when_stale=options.when_stale,
            boot_timeout=options.ttl,
            runtime=self.world.runtime,
        )
        if options.primes:
            self.state.prime()
        self.app = MaintenanceMiddleware(
            self._handler,
            self.state,
            bypass=lambda request: "x-bypass" in request.headers,
            respond=self._refuse,
            in_flight=options.tracks,
            scope={f"/{scope}": scope for scope in SCOPES} if options.scopes else None,
        )
        self.serve()

    def serve(self) -> None:
        self.process.leeway = self.leeway
        for _ in range(self.options.clients):
            self.world.spawn(self.process, self._client, after=self.world.random.random() * self.options.gap)

    def fork(self, process: Process, *, hooks: bool) -> "Server":
        """A child with a copy of this one's memory, locked locks and all, taken at one instant."""
        child = Server(process, self.database, self.options)
        memory = {id(self): child}
        child.app = copy.deepcopy(self.app, memory)
        child.state = copy.deepcopy(self.state, memory)

        def begin() -> None:
            if hooks:
                child.state.fork()
            child.serve()

        self.world.spawn(process, begin)
        return child

    @property
    def instance(self) -> str | None:
        """Its id, from its first request on."""
        watcher = self.state.lifecycle.watcher if self.state else None
        return watcher.reader.membership.instance.id if watcher else None

    @property
    def has_entered(self) -> bool:
        """Whether a request has come that has not ended."""
        flight = self.app._admission.in_flight if self.app else None
        return flight is not None and bool(flight.entries())

    def die(self) -> None:
        self.process.alive = False
        self.world.log("crashed", self.process.name)
        for one in self.handling:
            one.ended, one.crashed = min(one.ended, self.world.stamp()), True

    def leave(self) -> None:
        """Shut down in good order."""
        self.leaving = True
        self.database.history.left.add(self.process.name)
        if self.state is not None:
            self.state.close()

    def lull(self) -> None:
        """Leave the fleet while requests come, as when an app returns from its lifespan; the next brings it back."""
        self.database.history.left.add(self.process.name)
        self.state.leave()

    @property
    def closes(self) -> bool:
        """Whether any flag is on here."""
        current = self.state.lease.current
        return bool(current.snapshot.enabled or current.scopes)

    def follows(self, scope: str | None) -> bool:
        """Whether it knows a flag as it is."""
        known, row = self.state.lease.known, self.database.rows[scope]
        if scope is None or is_in_force(row):
            return bool(known.get(scope).revision == row.revision)
        return scope not in known.scopes and known.revision >= row.revision

    def leeway(self, due: float) -> float:
        """Seconds by which it may begin too early, or end too late: the time of a read, and what clocks may drift."""
        return self._leeway(self.state.lease.known.clock, due)

    def _leeway(self, clock: StoreClock | None, due: float) -> float:
        if clock is None:
            return 0.0
        age = max(due - self.database.true_time(clock.at), 0.0)
        return (clock.received - clock.sent) / self.process.rate + DRIFT * age + 10 * INSTANT

    # Requests.

    def _client(self) -> None:
        random = self.world.random.random
        while not self.asked_to_stop:
            kind, method = random(), "GET" if random() < 0.5 else "POST"
            path = self.world.random.choice(list(PATHS)) if self.options.scopes else "/work"
            environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": ""}
            if kind < self.options.admin and not self.database.calm:
                environ["PATH_INFO"] = "/admin/maintenance"
            elif kind > 0.95:
                environ["PATH_INFO"] = "/health"
            elif kind > 0.9:
                environ["HTTP_X_BYPASS"] = "yes"
            self._call(environ)
            # Many come just when the flag has changed, where the races are; otherwise few suffice.
            gap = self.options.gap * (3 if self.database.calm else 1)
            self.world.wait(self.database.bell, timeout=random() * gap)
            if random() < 0.7:
                self.world.sleep(random() ** 3 * self.options.ttl * 0.1)

    def _call(self, environ: dict[str, Any]) -> None:
        status: list[str] = []
        self.world.thread.clock = self.state.lease.known.clock
        try:
            body = self.app(environ, lambda line, headers: status.append(line))
            for _ in body:
                self.world.step()
        except ZeroDivisionError:
            return
        close = getattr(body, "close", None)
        if close is not None:
            close()
        self.database.history.count(status[0])

    def _refuse(self, flag: Snapshot, _: Request) -> Response:
        """Note what is refused by a flag, and not because the lease is over or because others know more."""
        thread, history = self.world.thread, self.database.history
        if flag.source == "store" and not self.state.lease.known.taken_back:
            write = history.find(flag.revision)
            history.refused.append(Refused(self.process.name, thread.read, flag.scope, flag.revision))
            clocks = (thread.clock, self.state.lease.known.clock)
            leeway = max(self._leeway(clock, thread.read_at) for clock in clocks)
            begin = write.at if write.enabled else write.starts
            now = self.world.now  # the answer may be newer than the reading
            if not write.enabled and (begin is None or now < begin - leeway):
                history.broken.append(f"{self.process.name} refused too early, at {now}: {write}")
            if write.until is not None and thread.read_at > write.until + leeway:
                history.broken.append(f"{self.process.name} refused too late, at {thread.read_at}: {write}")
        return Response(503, (), b"")

    def _handler(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Any:
        world, path = self.world, environ["PATH_INFO"]
        if path.startswith("/admin"):
            self._administer()
        thread = world.thread
        assert thread is not None
        one = Handled(
            process=self.process.name,
            instance=self.instance,
            scope=PATHS.get(path),
            method=environ["REQUEST_METHOD"],
            admitted=thread.read,
            started=world.stamp(),
            blocks=self.options.when_stale == "block",
            tracked=self.options.tracks,
        )
        if path in PATHS and "HTTP_X_BYPASS" not in environ:
            self.database.history.handled.append(one)
        self.handling.append(one)
        start_response("200 OK", [])
        kind = world.random.random()
        if kind < 0.1:
            self._take_time()
            self._end(one)
            raise ZeroDivisionError  # the app fails
        if kind < 0.5:
            self._take_time()
            self._end(one)
            return [b"done"]
        return _Body(self, one)

    def _take_time(self) -> None:
        self.world.sleep(self.world.random.random() ** 2 * self.options.handling)

    def _end(self, one: Handled) -> None:
        one.ended = self.world.stamp()
        self.handling.remove(one)

    def _administer(self) -> None:
        random = self.world.random
        try:
            if random.random() < 0.5:
                self.state.refresh()
            else:
                scope = random.choice((None, *SCOPES)) if self.options.scopes else None
                own = self.state.set(random.random() < 0.5, scope=scope, reason=str(random.random()))
                now = self.world.stamp()
                success = Success(now, own.revision, drain=False, told=now, process=self.process.name)
                self.database.history.successes.append(success)
        except StoreError as exc:
            self.world.log("admin failed", self.process.name, str(exc))


class _Body:
    """A response that comes in pieces; the work ends when it is closed."""

    def __init__(self, server: Server, one: Handled) -> None:
        self._server, self._one = server, one

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(2):
            self._server._take_time()
            yield b"piece"

    def close(self) -> None:
        self._server.world.step()
        self._server._end(self._one)


class Operator:
    """Somebody who flips and asks for proof."""

    def __init__(self, process: Process, database: Database) -> None:
        self.world, self.process, self.database = process.world, process, database
        self.servers: list[Server] = []
        self.state = None
        self.done = False

    def prepare(self) -> None:
        self.state = MaintenanceState(self.database, register=False, runtime=self.world.runtime)

    def flip(self, enabled: bool, mode: Mode = "full", **details: Any) -> Snapshot | None:
        """Flip; None where that failed, as far as the operator knows."""
        # A reason of its own makes each flip a change.
        return self._write(self.state.set, enabled, mode=mode, reason=str(self.world.random.random()), **details)

    def edit(self, **details: Any) -> Snapshot | None:
        """Change some details; None where that failed, as far as the operator knows."""
        return self._write(self.state.update, reason=str(self.world.random.random()), **details)

    def _write(self, write: Callable[..., Snapshot], *args: Any, **details: Any) -> Snapshot | None:
        try:
            flag = write(*args, **details)
        except (StoreError, ValueError) as exc:  # its start may have passed meanwhile
            self.world.log("flip failed", self.process.name, str(exc))
            return None
        self.world.log("flipped", self.process.name, (flag.revision, flag.scope, flag.enabled, flag.mode))
        return flag

    def prove(self, snapshot: Snapshot, *, drain: bool = False, **options: Any) -> Proof:
        history = self.database.history
        proof = self.state.prove(snapshot, drain=drain, **options)
        why = proof.problem or [why for _, why in proof.laggards]
        asked_for = (proof.revision, snapshot.scope, drain, str(why))
        self.world.log("proven" if proof else "not proven", self.process.name, asked_for)
        kind = "drain" if drain else "on" if snapshot.enabled else "off" if snapshot.starts is None else "start"
        history.count(f"{kind} {'proven' if proof else 'not proven'}")
        if not proof:
            return proof
        closes = snapshot.enabled or snapshot.starts is not None
        if closes:
            asked, told = self.world.thread.asked, self.world.stamps
            history.successes.append(Success(asked, proof.revision, drain, told))
            write = history.find(proof.revision)
            if write.begun > told:
                history.broken.append(f"a flag was proven before its start: {write}")
            if (write.scope, write.mode) != (snapshot.scope, snapshot.mode):
                history.broken.append(f"another flag was proven: {write} instead of {snapshot}")
        self._check(proof, snapshot.scope, closes=closes, drain=drain)
        return proof

    def _check(self, proof: Proof, scope: str | None, *, closes: bool, drain: bool) -> None:
        """What must be true of a success at the moment at which the operator is told."""
        history = self.database.history
        if proof.fenced:
            history.count("fenced")
        for one in proof.fenced:
            if one.when_stale != "block" or drain or not closes:
                history.broken.append(f"a lease was taken for a proof: {one}")
        # A child that has just been forked still has its parent's.
        by_instance = {server.instance: server for server in reversed(self.servers)}
        for one in proof.gone + proof.presumed:
            if one.id in by_instance and by_instance[one.id].process.alive:
                history.wrong.append(f"a living process was taken for dead: {one}")
        if not closes and self.database.rows[scope].revision == proof.revision:
            for one in proof.confirmed:
                if one.id in by_instance and not by_instance[one.id].follows(scope):
                    history.wrong.append(f"off was proven, and has not arrived: {one}")


def alive(servers: list[Server]) -> list[Server]:
    return [server for server in servers if server.process.alive and not server.leaving]
