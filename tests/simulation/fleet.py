"""What runs in the processes: servers, their clients, and operators.

A server is the library's state and WSGI middleware over a handler that takes time; its clients call it as a WSGI
server would, and some close the response late. Some requests are exempt, some bypass, some fail. An admin's request is
exempt and flips the flag, or reads it anew, in the process that serves it.

An operator has a process of its own, whose clock is as bad as any. He flips, asks for proof, and notes what he is told.
"""

import copy
import copyreg
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from maintenance.base.values import Mode, Snapshot
from maintenance.errors import StoreError
from maintenance.process.state import MaintenanceState
from maintenance.proof.judge import Proof
from maintenance.wsgi import MaintenanceMiddleware
from tests.simulation.database import Database
from tests.simulation.history import Handled, Success
from tests.simulation.world import Process, World

copyreg.pickle(itertools.count, lambda counter: (itertools.count, (next(counter),)))  # a fork copies it, too


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
        bypass = lambda request: "x-bypass" in request.headers  # noqa: E731
        self.app = MaintenanceMiddleware(self._handler, self.state, bypass=bypass, in_flight=options.tracks)
        self.serve()

    def serve(self) -> None:
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
    def follows(self) -> bool:
        known = self.state.lease.known if self.state else None
        return known is not None and known.revision == self.database.row.revision

    # Requests.

    def _client(self) -> None:
        random = self.world.random.random
        while not self.asked_to_stop:
            kind, method = random(), "GET" if random() < 0.5 else "POST"
            environ = {"REQUEST_METHOD": method, "PATH_INFO": "/work", "SCRIPT_NAME": ""}
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

    def _handler(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Any:
        world, path = self.world, environ["PATH_INFO"]
        if path.startswith("/admin"):
            self._administer()
        thread = world.thread
        assert thread is not None
        one = Handled(
            process=self.process.name,
            instance=self.instance,
            method=environ["REQUEST_METHOD"],
            admitted=thread.read,
            started=world.stamp(),
            blocks=self.options.when_stale == "block",
            tracked=self.options.tracks,
        )
        if path == "/work" and "HTTP_X_BYPASS" not in environ:
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
                own = self.state.set(random.random() < 0.5, reason=str(random.random()))
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

    def flip(self, enabled: bool, mode: Mode = "full") -> Snapshot | None:
        """Flip; None where that failed, as far as the operator knows."""
        try:
            # A reason of its own makes each flip a change.
            snapshot = self.state.set(enabled, mode=mode, reason=str(self.world.random.random()))
        except StoreError as exc:
            self.world.log("flip failed", self.process.name, str(exc))
            return None
        self.world.log("flipped", self.process.name, (snapshot.revision, enabled, mode))
        return snapshot

    def prove(self, snapshot: Snapshot, *, drain: bool = False, **options: Any) -> Proof:
        history = self.database.history
        proof = self.state.prove(snapshot, drain=drain, **options)
        why = proof.problem or [why for _, why in proof.laggards]
        self.world.log("proven" if proof else "not proven", self.process.name, (snapshot.revision, drain, str(why)))
        kind = "drain" if drain else "on" if snapshot.enabled else "off"
        history.count(f"{kind} {'proven' if proof else 'not proven'}")
        if not proof:
            return proof
        if snapshot.enabled:
            asked, told = self.world.thread.asked, self.world.stamps
            history.successes.append(Success(asked, snapshot.revision, drain, told))
        self._check(proof, snapshot, drain=drain)
        return proof

    def _check(self, proof: Proof, snapshot: Snapshot, *, drain: bool) -> None:
        """What must be true of a success at the moment at which the operator is told."""
        history = self.database.history
        if proof.fenced:
            history.count("fenced")
        for one in proof.fenced:
            if one.when_stale != "block" or drain or not snapshot.enabled:
                history.wrong.append(f"a lease was taken for a proof: {one}")
        by_instance = {server.instance: server for server in self.servers}
        for one in proof.gone + proof.presumed:
            if one.id in by_instance and by_instance[one.id].process.alive:
                history.wrong.append(f"a living process was taken for dead: {one}")
        if not snapshot.enabled and self.database.row.revision == snapshot.revision:
            for one in proof.confirmed:
                if one.id in by_instance and not by_instance[one.id].follows:
                    history.wrong.append(f"off was proven, and has not arrived: {one}")


def alive(servers: list[Server]) -> list[Server]:
    return [server for server in servers if server.process.alive and not server.leaving]
