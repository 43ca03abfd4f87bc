"""What a seed means, and what must come of it.

A run has a fleet (processes on a few hosts, each with its own lease, policy and clock), one to three operators, and a
choice of faults, each in or out for the whole run: so that rare combinations come up as often as common ones, and
nothing hides behind a fault that is always there.

The storm lasts some leases. In it operators flip the site and its scopes in quick succession, plan, edit and cancel at
the last moment, and ask for proof; clients call, and every few moments a fault strikes. Then the calm: no fault any
more, but the dead stay dead, clocks stay wrong, and who may not write flags still may not. Every process must follow
last flips within its lease. They must be proven: two scopes at the same time, a start that was planned, and the whole
site, which is drained, forgotten, switched off, and proven again.
"""

import contextlib
import datetime as dt
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

from greenlet import GreenletExit

from maintenance import wsgi
from maintenance.base.values import Mode, Snapshot
from maintenance.http import admission
from maintenance.process import lease, life, lifecycle, reader, state, status, watcher
from maintenance.proof import membership, prover
from tests.simulation.database import EPOCH, SCOPES, Database, Network
from tests.simulation.fleet import Operator, Options, Server, alive
from tests.simulation.history import History, Write
from tests.simulation.stepping import stepped
from tests.simulation.world import CLOCK_RATE, SCHEDULE_RATE, Lock, Process, Weather, World

FAULTS: Final = (
    "slow", "lost", "unheard", "late", "polled", "standby", "cut", "drop", "freeze", "crash", "restart", "fork", "join",
    "leave", "lull", "fail-over", "empty", "sever", "denied", "threadless", "untracked", "unrest", "plan", "mute",
    "take-back", "jump", "brief",
)  # fmt: skip
STRIKES: Final = (
    "cut", "drop", "freeze", "crash", "restart", "fork", "join", "leave", "lull", "fail-over", "empty", "take-back",
    "jump",
)  # fmt: skip

STEPPED: Final = {
    wsgi.MaintenanceMiddleware: ("__call__", "_judge"),
    admission.Admission: ("wait_for_answer", "_find_state"),
    lease.Lease: ("install", "put", "_use", "advance", "find_answer", "stale_answer", "end", "fork"),
    life.Life: ("apply",),
    reader.Reader: ("_cycle", "_ask", "_install", "follow_up", "_carry_out"),
    watcher.Watcher: ("_try", "_conclude", "_has_news"),
    membership.Membership: ("register", "confirm", "acknowledge", "owes", "follow_up", "_write"),
    lifecycle.Lifecycle: ("peek", "wait_for_answer", "_wait", "_conclude", "begin", "leave", "fork"),
    state.MaintenanceState: ("set", "refresh", "fork", "close"),
    prover.Prover: ("_judge",),
}
"""Where a switch between two statements could matter."""


@dataclass
class Outcome:
    """What came of a run."""

    seed: int
    unsafe: list[str]  # the violations of what is promised for every moment
    wrong: list[str]  # those of what should come to pass
    digest: str
    counts: dict[str, int]
    trace: list[tuple[float, int, str, str, object]]
    faults: frozenset[str]

    @property
    def violations(self) -> list[str]:
        """All of them."""
        return self.unsafe + self.wrong


class _Errors(logging.Handler):
    """The library logs what should never happen; in a run it is a violation."""

    def __init__(self, history: History) -> None:
        super().__init__(logging.ERROR)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], GreenletExit):
            return  # how a process is killed here
        self._history.wrong.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")


class _LockOfEach:
    """A lock of a module's, of which each process has its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._locks: dict[str, Lock] = {}

    def __enter__(self) -> None:
        self._mine().__enter__()

    def __exit__(self, *_: object) -> None:
        self._mine().__exit__()

    def _mine(self) -> Lock:
        return self._locks.setdefault(self._world.process.name, Lock(self._world))


@contextlib.contextmanager
def _in(world: World, history: History) -> Iterator[None]:
    """Let the library live in a world: what it asks the machine directly is asked of the world, too."""
    logger, errors = logging.getLogger("maintenance"), _Errors(history)
    ids = SimpleNamespace(uuid4=lambda: uuid.UUID(int=world.random.getrandbits(128)))
    network = SimpleNamespace(gethostname=lambda: world.process.host)
    walls = SimpleNamespace(now=lambda _: EPOCH + dt.timedelta(seconds=world.wall))
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(membership, "socket", network))
        for module in (lease, status):
            stack.enter_context(patch.object(module, "dt", SimpleNamespace(UTC=dt.UTC, datetime=walls)))
        for module in (membership, prover):
            stack.enter_context(patch.object(module, "boot_id", lambda: "boot"))
        stack.enter_context(patch.object(membership, "uuid", ids))
        stack.enter_context(patch.object(lifecycle, "_noticing", _LockOfEach(world)))
        stack.enter_context(patch.object(World, "current", world))
        logger.addHandler(errors)
        propagate, logger.propagate = logger.propagate, False
        try:
            yield
        finally:
            world.end()
            logger.removeHandler(errors)
            logger.propagate = propagate


@contextlib.contextmanager
def _stepping() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for owner, names in STEPPED.items():
            for name in names:
                stack.enter_context(patch.object(owner, name, stepped(vars(owner)[name])))
        yield


def run(seed: int, *, size: int | None = None, faults: frozenset[str] | None = None, **options: Any) -> Outcome:
    """One story.

    Args:
        seed: Which.
        size: Processes; None for 3 to 20.
        faults: None for a choice of the seed's.
        options: What else a test wants to decide; see `Scenario`.
    """
    world, history = World(seed), History()
    scenario = Scenario(world, history, size=size, faults=faults, **options)
    with contextlib.ExitStack() as stack:
        if "unrest" in scenario.faults:
            stack.enter_context(_stepping())
        stack.enter_context(_in(world, history))
        try:
            scenario.play()
        except AssertionError as exc:
            history.wrong.append(str(exc))
        digest = world.digest()
    return Outcome(seed, history.unsafe(), history.wrong, digest, history.counts, world.trace, scenario.faults)


def summary(seed: int, **options: Any) -> tuple[list[str], dict[str, int], str]:
    """What a run found, what it counted, and its digest: what passes from one process to another."""
    outcome = run(seed, **options)
    return outcome.violations, outcome.counts, outcome.digest


class Scenario:
    """One run, from the first process to the last proof."""

    def __init__(
        self,
        world: World,
        history: History,
        *,
        size: int | None,
        faults: frozenset[str] | None,
        ttl: float | None = None,
        when_stale: str | None = None,
        admin: float | None = None,
        scopes: bool | None = None,
        delay: float | None = None,
        gap: float | None = None,
        handling: float | None = None,
        strikes: float = 1.0,
        skewed: bool = False,
        weather: Weather | None = None,
    ) -> None:
        random = world.random
        self.world, self.history, self.random = world, history, random
        self.size = size or random.randint(3, 20)
        drawn = frozenset(fault for fault in FAULTS if random.random() < 0.3)
        self.faults = drawn if faults is None else faults
        self.ttl = ttl or random.choice((1.0, 2.0, 4.0))
        policies = (("block",), ("block",), ("serve",), ("block", "serve"))
        self.policies = (when_stale,) if when_stale else random.choice(policies)
        self.handling, self.strikes, self.weather = handling, strikes, weather
        self.mute = random.choice((0.5, 1.0))
        self.skewed = skewed  # servers as slow and operators as fast as can be
        self.admin = random.choice((0.0, 0.0, 0.002, 0.02)) if admin is None else admin
        self.delay, self.gap = delay or random.choice((0.003, 0.01, 0.05)), gap
        self.scopes: tuple[str | None, ...] = (None,)
        if random.random() < 0.7 if scopes is None else scopes:
            self.scopes += SCOPES
        self.mixed = ttl is None and random.random() < 0.3
        self.storm = random.uniform(5, 12) * self.ttl
        keeps = "brief" not in self.faults
        # A schedule needs clocks that run more evenly than a lease does.
        world.clock_rate = SCHEDULE_RATE if "plan" in self.faults else CLOCK_RATE
        rate = 1 + world.clock_rate * random.choice((-1.0, 0.0, 1.0))
        self.database = Database(
            world, history, listens=keeps and "polled" not in self.faults, keeps=keeps, rate=1.0 if skewed else rate
        )
        self.database.flipped, self.database.started = self._flipped, self._started
        self.hosts = [f"host{number}" for number in range(random.randint(1, 4))]
        self.servers: list[Server] = []
        self.operators: list[Operator] = []
        self.emptied = False

    # The story.

    def play(self) -> None:
        world = self.world
        for number in range(self.size):
            self._boot(f"p{number}", after=self.random.random() * self.ttl if "join" in self.faults else 0.0)
        for number in range(self.random.choice((1, 1, 1, 2, 3))):
            operator = self._operator(f"operator{number}")
            world.spawn(operator.process, partial(self._operate, operator), after=self.random.random() * self.ttl)
        self._roughen()
        strikes = [fault for fault in STRIKES if fault in self.faults]
        if strikes:
            self._strike_later(strikes)
        if "take-back" in self.faults:
            world.after(self.random.random() * self.storm / 2, self.database.dump)
        world.after(self.storm, self._calm)
        last = self._operator("last")
        world.spawn(last.process, partial(self._finish, last), after=self.storm)
        world.run(lambda: last.done, limit=self.storm + 40 * self.ttl * 2 + 200)

    def _boot(self, name: str, *, host: str | None = None, after: float = 0.0) -> Server:
        random, faults = self.random, self.faults
        process = self.world.boot(name, host or random.choice(self.hosts), like=self._neighbour(host))
        process.rate = 1 - self.world.clock_rate if self.skewed else process.rate
        process.threads = not ("threadless" in faults and random.random() < 0.2)
        process.may_register = not ("denied" in faults and random.random() < 0.2)
        process.may_flip = not ("mute" in faults and random.random() < self.mute)
        options = Options(
            ttl=self.ttl * random.choice((0.5, 1.0, 2.0)) if self.mixed else self.ttl,
            when_stale=random.choice(self.policies),
            tracks=not ("untracked" in faults and random.random() < 0.3),
            primes=random.random() < 0.3,
            handling=self.handling or random.choice((0.01, 0.3, self.ttl)),
            gap=self.ttl * (self.gap or random.choice((0.3, 1.5))),
            clients=random.randint(1, 3),
            admin=self.admin,
            scopes=len(self.scopes) > 1,
        )
        server = Server(process, self.database, options)
        self.servers.append(server)
        if "freeze" in faults and random.random() < 0.5:
            self._stun(process, after + options.gap + 6 * self.delay)
        self.world.spawn(process, server.boot, after=after)
        return server

    def _neighbour(self, host: str | None) -> Process | None:
        """Processes of one host share its clock, in most runs."""
        return next((one for one in self.world.processes if one.host == host), None)

    def _operator(self, name: str) -> Operator:
        operator = Operator(self.world.boot(name, self.random.choice(self.hosts)), self.database)
        operator.servers = self.servers
        operator.process.rate = 1 + self.world.clock_rate if self.skewed else operator.process.rate
        self.operators.append(operator)
        return operator

    # The storm.

    def _roughen(self) -> None:
        random, faults, network = self.random, self.faults, self.database.network
        network.delay = self.delay
        network.slow = 0.02 if "slow" in faults else 0.0
        network.lost = random.choice((0.01, 0.1)) if "lost" in faults else 0.0
        network.unheard = random.choice((0.1, 1.0)) if "unheard" in faults else 0.0
        network.late = random.random() * 2 * self.ttl if "late" in faults else 0.0
        network.astray = 0.2 if "standby" in faults else 0.0
        network.lag = random.random() * 3 * self.ttl
        self.world.oversleep = min(20 * self.delay, 0.2)
        rough = "unrest" in faults
        self.world.weather = self.weather or Weather(
            unrest=random.choice((0.05, 0.2)) if rough else 0.01,
            longest=random.choice((0.05, self.ttl)) if rough else 0.0,
            freeze=0.003 if "freeze" in faults else 0.0,
            frozen=2.5 * self.ttl,
        )

    def _operate(self, operator: Operator) -> None:
        random, world = self.random, self.world
        operator.prepare()
        while world.now < self.storm:
            for _ in range(random.choice((0, 1, 1, 2))):  # in quick succession
                scope = random.choice(self.scopes)
                if "plan" in self.faults and random.random() < 0.3:
                    operator.edit(mode=random.choice(("full", "read_only")), scope=scope)  # whoever has planned it
                else:
                    operator.flip(random.random() < 0.3, scope=scope)
                world.sleep(random.choice((0.0, 0.03)) * random.random())
            if "plan" in self.faults and random.random() < 0.5:
                self._plan(operator)
            else:
                self._flip(operator)
            world.sleep(random.choice((0.0, 0.5, 2.0)) * random.random() * self.ttl)
        operator.done = True

    def _flip(self, operator: Operator) -> None:
        random = self.random
        kind, scope = random.random(), random.choice(self.scopes)
        until = self._clock(random.uniform(0.1, 2.0) * self.ttl) if "plan" in self.faults and kind < 0.3 else None
        mode: Mode = "read_only" if kind < 0.2 else "full"
        snapshot = operator.flip(kind < 0.7, mode, scope=scope, until=until, auto_off=until is not None)
        if snapshot is not None and random.random() < 0.8:
            self._prove(operator, snapshot)

    def _prove(self, operator: Operator, snapshot: Snapshot) -> None:
        closes = snapshot.enabled or snapshot.starts is not None
        drain = closes and self.random.random() < 0.4
        timeout = self.random.choice((None, 3 * self.ttl)) if not drain else 4 * self.ttl
        operator.prove(snapshot, drain=drain, timeout=timeout, expect=self._expected())

    def _clock(self, seconds: float) -> dt.datetime:
        """What the database's clock shows in a while."""
        return self.database.clock + dt.timedelta(seconds=seconds)

    def _plan(self, operator: Operator) -> None:
        """Plan, and then wait for it, or change the plan at the last moment, or leave it."""
        random, scope = self.random, self.random.choice(self.scopes)
        ahead = random.uniform(0.05, 1.5) * self.ttl
        until = self._clock(ahead + random.uniform(0.1, 1.5) * self.ttl) if random.random() < 0.6 else None
        more = {"until": until, "auto_off": until is not None, "drain": random.random() < 0.3}
        mode: Mode = "read_only" if random.random() < 0.2 else "full"
        snapshot = operator.flip(True, mode, scope=scope, starts=self._clock(ahead), **more)
        kind = random.random()
        if snapshot is None or kind > 0.9:
            return
        if kind < 0.5:
            if kind < 0.1:
                self._meddle(snapshot, ahead)
            self._prove(operator, snapshot)
            return
        moment = ahead - random.choice((0.0, 0.02, 0.3)) * random.random() * self.ttl
        self.world.sleep(max(moment - random.random() * 4 * self.delay, 0.0))
        changed = self._replan(operator, snapshot)
        if changed is not None and random.random() < 0.7:
            self._prove(operator, changed)

    def _meddle(self, snapshot: Snapshot, ahead: float) -> None:
        """Let a colleague edit what somebody waits for, just before it begins."""
        colleague = self._operator(f"colleague{len(self.operators)}")
        colleague.done = True  # nobody waits for him

        def edit() -> None:
            colleague.prepare()
            colleague.edit(mode="read_only" if snapshot.mode == "full" else "full", scope=snapshot.scope)

        before = self.random.random() * 8 * self.delay
        self.world.spawn(colleague.process, edit, after=max(ahead - before, 0.0))

    def _replan(self, operator: Operator, snapshot: Snapshot) -> Snapshot | None:
        """Cancel, move, or edit."""
        kind, which = self.random.random(), {"scope": snapshot.scope, "if_revision": snapshot.revision}
        if kind < 0.4:
            return operator.flip(False, **which)
        if kind < 0.7:
            starts = self._clock(self.random.uniform(0.1, 1.5) * self.ttl)
            return operator.edit(starts=starts, until=None, auto_off=False, **which)
        return operator.edit(mode="read_only" if snapshot.mode == "full" else "full", **which)

    def _expected(self) -> int | None:
        """How many processes serve: an operator knows, and has to say once the table was emptied.

        Then it is the operator's word that counts, and a number that is outgrown during the wait is wrong: who comes
        meanwhile would stand in for one that is missing. So nobody says one where a table is emptied and others come.
        """
        if "empty" in self.faults and self.faults & {"fork", "join", "restart"}:
            return None
        return len(alive(self.servers)) if self.emptied or self.random.random() < 0.1 else None

    def _strike_later(self, strikes: list[str]) -> None:
        self.world.after(self.random.expovariate(1.0) * self.storm / (8 * self.strikes), partial(self._strike, strikes))

    def _strike(self, strikes: list[str]) -> None:
        if self.world.now < self.storm:
            getattr(self, "_" + self.random.choice(strikes).replace("-", "_"))()
            self._strike_later(strikes)

    def _victim(self) -> Server | None:
        living = alive(self.servers)
        return self.random.choice(living) if len(living) > 1 else None

    def _span(self) -> float:
        return self.random.choice((0.3, 1.0, 3.0)) * self.random.random() * self.ttl

    def _cut(self) -> None:
        for process in self.random.sample(self.world.processes, self.random.randint(1, 3)):
            process.cut(self._span())

    def _flipped(self, write: Write) -> None:
        """Some processes never hear of this one in time, and some only learn of its start ahead."""
        severed = "sever" in self.faults and not self.database.calm and self.random.random() < 0.7
        stunned = "freeze" in self.faults and not self.database.calm and self.random.random() < 0.7
        for server in alive(self.servers):
            if severed and self.random.random() < 0.4:
                ahead = 0.0 if write.starts is None else max(write.starts - self.world.now, 0.0)
                cut = partial(self._sever, server.process, self.random.uniform(0.5, 2.5) * self.ttl)
                self.world.after(ahead * self.random.choice((0.0, self.random.random())), cut)
            if stunned and self.random.random() < 0.3:
                self._stun(server.process, 4 * self.delay)

    def _sever(self, process: Process, seconds: float) -> None:
        if not self.database.calm:
            process.cut(seconds)

    def _started(self, _: Write) -> None:
        """At the start of a plan, some processes end, and others begin."""
        for server in alive(self.servers)[1:] if "crash" in self.faults and not self.database.calm else ():
            if self.random.random() < 0.3:
                server.die()
                if "restart" in self.faults:
                    self._boot(f"p{len(self.servers)}", host=server.process.host, after=self._span())

    def _stun(self, process: Process, within: float) -> None:
        """Freeze it at about this moment: while it reads, or registers."""
        seconds = self.random.uniform(0.2, 2.5) * self.ttl
        freeze = partial(process.freeze, seconds)
        self.world.after(within * self.random.random(), lambda: None if self.database.calm else freeze())

    def _drop(self) -> None:
        for session in list(self.database.sessions):
            if self.random.random() < 0.3:
                session.drop()

    def _freeze(self) -> None:
        for process in self.random.sample(self.world.processes, self.random.randint(1, 3)):
            process.freeze(self._span())

    def _crash(self) -> None:
        if victim := self._victim():
            victim.die()

    def _restart(self) -> None:
        if victim := self._victim():
            victim.die()
            self._boot(f"p{len(self.servers)}", host=victim.process.host, after=self._span())
        if self.random.random() < 0.3:
            self.database.restart(self._span(), promote=False)

    def _fork(self) -> None:
        parent = self._victim()
        if parent is None or parent.app is None or parent.process.frozen_until > self.world.now:
            return
        # Who forks without hooks does so before it serves, or lives with what proof.md says that cannot be done.
        hooks = parent.instance is not None or parent.has_entered or self.random.random() < 0.5
        name = f"p{len(self.servers)} of {parent.process.name}"
        process = self.world.boot(name, parent.process.host, like=parent.process)
        process.may_register = parent.process.may_register
        self.world.log("forked", process.name, hooks)
        self.servers.append(parent.fork(process, hooks=hooks))

    def _join(self) -> None:
        self._boot(f"p{len(self.servers)}")

    def _leave(self) -> None:
        victim = self._victim()
        if victim and victim.app:
            self.world.log("leaves", victim.process.name)
            victim.leaving = True
            self.world.spawn(victim.process, victim.leave)

    def _lull(self) -> None:
        victim = self._victim()
        if victim and victim.app:
            self.world.log("goes, and may come back", victim.process.name)
            self.world.spawn(victim.process, victim.lull)

    def _fail_over(self) -> None:
        self.database.restart(self._span(), promote=True)

    def _empty(self) -> None:
        if not self.emptied:
            self.emptied = True
            self.database.empty()

    def _take_back(self) -> None:
        if not self.database.dumped or not any(row.value_bool for row in self.database.rows.values()):
            return
        self.database.restore()
        # What the documentation asks for. Nobody can say how many there are where others come: see `_expected`.
        if not self.faults & {"fork", "join", "restart"} and self.random.random() < 0.5:
            self._empty()

    def _jump(self) -> None:
        for process in self.world.processes:
            process.wall = self.random.uniform(-3600, 3600)

    # The calm.

    def _calm(self) -> None:
        world = self.world
        world.log("calm", "world")
        world.weather, world.oversleep, self.database.network = Weather(unrest=0.01), 0.0, Network()
        self.database.calm, self.database.down_until = True, 0.0
        for process in world.processes:
            process.cut_until = process.frozen_until = 0.0
        for session in list(self.database.sessions):
            if not session.primary:
                session.drop()

    def _finish(self, last: Operator) -> None:
        world = self.world
        last.prepare()
        longest = max(server.options.ttl for server in self.servers)
        while not all(operator.done or operator is last for operator in self.operators):
            world.sleep(longest)
        world.sleep(longest + 6)  # the longest time-outs of what hung when the calm came
        self._forget_the_dead(last)
        for scope in self.scopes:
            self._settle(last, scope)
        if len(self.scopes) > 1 and self.random.random() < 0.5:
            self._flip_both(last, longest)
        if "plan" in self.faults:
            self._last_plan(last, longest)
        self._last_flip(last, True, longest)
        self._last_flip(last, False, longest)
        last.done = True

    def _settle(self, last: Operator, scope: str | None) -> None:
        if last.flip(False, scope=scope) is None:
            self.history.wrong.append("a flip failed in the calm")

    def _flip_both(self, last: Operator, longest: float) -> None:
        """Two operators flip two scopes at the same time, and each gets a proof."""
        other = self._operator("other")
        proofs: list[bool] = []

        def flip(operator: Operator, scope: str) -> None:
            snapshot = operator.flip(True, scope=scope)
            proofs.append(bool(snapshot and operator.prove(snapshot, timeout=6 * longest + 20, expect=self._present())))

        def both() -> None:
            other.prepare()
            flip(other, SCOPES[0])

        self.world.spawn(other.process, both)
        flip(last, SCOPES[1])
        while len(proofs) < 2:
            self.world.sleep(0.1)
        if not all(proofs):
            self.history.wrong.append("two operators flipped two scopes, and did not both get a proof")
        self._settle(last, SCOPES[0])
        self._settle(last, SCOPES[1])

    def _last_plan(self, last: Operator, longest: float) -> None:
        """A plan begins and ends by itself, whoever may write."""
        world, scope, wrong = self.world, self.random.choice(self.scopes), self.history.wrong
        present = [one for one in alive(self.servers) if one.process.may_register]
        # Who has no thread reads only with a request.
        lasts = 3 * longest + 3 if all(one.process.threads for one in present) else 6 * longest + 20
        ahead = self.random.uniform(0.1, 1.5) * longest
        starts, until = self._clock(ahead), self._clock(ahead + lasts)
        snapshot = last.flip(True, scope=scope, starts=starts, until=until, auto_off=True)
        drain = all(one.options.tracks and one.process.threads for one in present) and self.random.random() < 0.5
        if snapshot is None or not last.prove(snapshot, drain=drain, timeout=lasts, expect=len(present)):
            wrong.append("a start was not proven in the calm")
        self.history.count("last plans")
        world.sleep(max(self.database.true_time(until) - world.now, 0.0) + 0.1 * longest + 0.5)
        closed = [one for one in present if one.process.threads and one.closes]
        wrong.extend(f"a plan has not ended in {one.process.name}" for one in closed)

    def _present(self) -> int:
        return sum(one.process.may_register for one in alive(self.servers))

    def _forget_the_dead(self, last: Operator) -> None:
        living = {server.instance for server in alive(self.servers)}
        for one in last.state.fleet().instances:
            if one.id not in living:
                last.state.forget(one.id)

    def _last_flip(self, last: Operator, enabled: bool, longest: float) -> None:
        world, wrong = self.world, self.history.wrong
        began, intact = world.now, self.database.intact
        snapshot = last.flip(enabled)
        if snapshot is None:
            wrong.append("a flip failed in the calm")
            return
        present = [one for one in alive(self.servers) if one.process.may_register]
        drain = enabled and all(one.options.tracks and one.process.threads for one in present)
        proof = last.prove(snapshot, drain=drain, timeout=6 * longest + 20, expect=len(present))
        self.history.count("last flips")
        if not proof:
            wrong.append(f"not proven in the calm: {proof.problem} {proof.laggards}")
        if not intact:
            longest *= 1.05  # until when nobody who is unknown can still admit
        followers = [one.state.lifecycle.watcher for one in present if one.process.threads]
        heard = intact and all(one and one.reader.listening for one in followers)
        quick = 0.5 if heard else longest
        if len(followers) == len(present) and world.now - began > quick + 0.5 + drain * 2.5 * longest:
            wrong.append(f"proven only after {world.now - began:.2f} s")
        world.sleep(max(began + longest * 1.02 + 0.5 - world.now, 0.0))
        behind = [one.process.name for one in present if one.process.threads and not self._follows(one)]
        wrong.extend(f"{name} does not follow" for name in behind)

    def _follows(self, server: Server) -> bool:
        followed = all(server.follows(scope) for scope in (None, *SCOPES))
        return followed and not server.state.lease.known.taken_back


def story(task: tuple[int, int | None]) -> tuple[int, int | None, list[str], dict[str, int]]:
    """Run one (seed, size); the same and its violations, and what it counted."""
    seed, size = task
    try:
        violations, counts, _ = summary(seed, size=size)
    except Exception as exc:  # noqa: BLE001 - whatever it was, its seed must be known
        return seed, size, [f"the run itself failed: {exc!r}"], {}
    return seed, size, violations, counts
