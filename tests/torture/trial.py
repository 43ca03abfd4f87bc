"""Flips of a fleet that is being broken, and whether what was proven of it was true.

After a proof at time T, no process may admit a request whose check read the clock later than T, until
the flag is off again; with a drain, none may be seen in a handler later than T either.
"""

import random
import signal
import threading
import time
from bisect import bisect
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Final

from maintenance import MaintenanceState, Snapshot
from maintenance.base.instances import Instance
from maintenance.base.runtime import REAL
from maintenance.proof.judge import Proof, lease_end
from tests.support.relay import Relay
from tests.torture.fleet import Fleet, Process, fleet
from tests.torture.slots import Sight

TTLS: Final = (1.0, 1.5, 2.0)
PACE: Final = 0.02
RELAYED: Final = 3
"""Processes behind each relay."""

LINGER: Final = 1.5
"""Seconds of a handler that a drain has to wait for."""

GENEROUS: Final = 30.0
"""Seconds for whatever has nothing in its way; a machine may be busy."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens to the fleet in one flip.

    Attributes:
        when: ``before`` the flip, when the outcome is known in advance, or ``during`` the proof.
        frozen: Stopped by SIGSTOP, thawed after the proof.
        cut: Relays that silently forward nothing, until after the proof.
        killed: Killed, and replaced.
        forked: Made to fork.
        lingering: Have one handler that takes `LINGER`, begun before the flip.
        drain: Whether the proof waits for requests in flight.
    """

    when: str
    frozen: list[Process]
    cut: list[Relay]
    killed: list[Process]
    forked: list[Process]
    lingering: list[Process]
    drain: bool


@dataclass
class Tally:
    """The results so far.

    Attributes:
        flips: Flips on.
        outcomes: How many were proven, in which way, or were not, and why.
        instances: How instances were accounted for, over all proofs.
        faults: How many processes had which fault.
        admitted: Requests let in.
        refused: Requests answered 503.
        violations: What must never be.
    """

    flips: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    instances: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    admitted: int = 0
    refused: int = 0
    violations: list[str] = field(default_factory=list)

    def count(self, proof: Proof) -> None:
        for verdict in ("confirmed", "fenced", "gone"):
            self.instances[verdict] += len(getattr(proof, verdict))
        self.instances["laggards"] += len(proof.laggards)
        if proof:
            self.outcomes["proven, some fenced" if proof.fenced else "proven by acknowledgement"] += 1
        for why in sorted({_why(instance, why) for instance, why in proof.laggards}):
            self.outcomes[f"not proven: {why}"] += 1
        if proof.problem:
            self.outcomes[f"not proven: {proof.problem}"] += 1


def _why(instance: Instance, why: str) -> str:
    return f"{instance.when_stale} instance {'is silent' if 'no reply' in why else 'has requests in flight'}"


class Judge:
    """Compares each sight with the proofs."""

    def __init__(self) -> None:
        self._proven: dict[bool, list[tuple[float, float]]] = {False: [], True: []}

    def proven(self, since: float, until: float, *, drain: bool) -> None:
        self._proven[False].append((since, until))
        if drain:
            self._proven[True].append((since, until))

    def wrong(self, sight: Sight) -> Iterator[str]:
        """Describe what contradicts a proof."""
        for what, at, drain in (("admitted", sight.admitted, False), ("ran a handler", sight.running, True)):
            proven = self._proven[drain]
            place = bisect(proven, (at, float("inf"))) - 1
            if place >= 0 and proven[place][0] < at < proven[place][1]:
                yield f"{what} {at - proven[place][0]:.6f} s after the proof"


class Trial:
    """Flips on and off, with faults in between."""

    def __init__(self, fleet: Fleet, relays: list[Relay], operator: MaintenanceState, chance: random.Random) -> None:
        self.tally = Tally()
        self.fleet, self._relays, self._operator, self._chance = fleet, relays, operator, chance
        self._judge = Judge()
        self._dead: list[Process] = []

    def flip(self, plan: Plan) -> None:
        """One flip on, its proof, and one flip off, with everybody back in service."""
        self.tally.flips += 1
        self._linger(plan.lingering)
        try:
            if plan.when == "before":
                self._break(plan)
                proof = self._prove(self._operator.set(True), plan)
                self._hold_against(proof, plan)
            else:
                with self._in_background(plan):
                    proof = self._prove(self._operator.set(True), plan)
            since = REAL.clock()
            if proof:
                self._pause(0.1)
        finally:
            self._mend(plan)
        if not proof:
            self._look()
            proof = self._operator.prove(self._operator.refresh(), drain=plan.drain, timeout=GENEROUS)
            since = REAL.clock()
            self.tally.count(proof)
            self._expect(bool(proof), f"mended, and not proven: {proof}")
        self._pause(0.2)
        if proof:
            # Closed before anything else can end it, so that nothing legitimate lies in it.
            self._judge.proven(since, REAL.clock(), drain=plan.drain)
        self._reopen()

    def _linger(self, processes: list[Process]) -> None:
        for process in processes:
            self.fleet.slots.ask_linger(process.slot, self._chance.uniform(0.8, 1.0) * LINGER)
        if processes:
            time.sleep(5 * PACE)

    def _prove(self, snapshot: Snapshot, plan: Plan) -> Proof:
        # Longer than every lease, so that what can be fenced is; a fault that can be fenced by nothing waits for it.
        timeout = lease_end(max(one.ttl for one in self.fleet.members)) + 0.5 if self._hopeless(plan) else GENEROUS
        proof = self._operator.prove(snapshot, drain=plan.drain, timeout=timeout)
        self.tally.count(proof)
        return proof

    def _silent(self, plan: Plan) -> list[Process]:
        return [one for one in self.fleet.members if one in plan.frozen or one.relay in plan.cut]

    def _unfenceable(self, plan: Plan) -> list[Process]:
        return [one for one in self._silent(plan) if plan.drain or one.when_stale == "serve"]

    def _hopeless(self, plan: Plan) -> bool:
        return bool(self._unfenceable(plan))

    def _hold_against(self, proof: Proof, plan: Plan) -> None:
        """Faults before the flip decide the outcome."""
        unfenceable = {one.pid for one in self._unfenceable(plan)}
        named = {instance.pid for instance, _ in proof.laggards}
        self._expect(bool(proof) is not bool(unfenceable), f"proven is {bool(proof)} with {unfenceable}: {proof}")
        self._expect(unfenceable <= named, f"not named: {unfenceable - named}")
        silent = {one.pid for one in self._silent(plan)}
        confirmed = {instance.pid for instance in proof.confirmed}
        self._expect(not silent & confirmed, f"confirmed, and silent since before the flip: {silent & confirmed}")

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.tally.violations.append(f"flip {self.tally.flips}: {otherwise}")

    def _break(self, plan: Plan, *, within: float = 0.0) -> None:
        steps = [
            *((self._freeze, one) for one in plan.frozen),
            *((self._cut, relay) for relay in plan.cut),
            *((self._replace, one) for one in plan.killed),
            *((self._fork, one) for one in plan.forked),
        ]
        self._chance.shuffle(steps)
        for step, target in steps:
            time.sleep(self._chance.uniform(0, within / len(steps)))
            step(target)

    @contextmanager
    def _in_background(self, plan: Plan) -> Iterator[None]:
        thread = threading.Thread(target=self._break, args=(plan,), kwargs={"within": 0.2})
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _freeze(self, process: Process) -> None:
        if process in self.fleet.members:
            self.tally.faults["frozen"] += 1
            process.signal(signal.SIGSTOP)

    def _cut(self, relay: Relay) -> None:
        self.tally.faults["cut off"] += sum(one.relay is relay for one in self.fleet.members)
        relay.cut()

    def _replace(self, process: Process) -> None:
        if process not in self.fleet.members:
            return  # killed together with its parent
        ended = self.fleet.kill(process)
        self.tally.faults["killed"] += len(ended)
        self._dead += ended
        if process.parent is None:
            self.fleet.spawn(when_stale=process.when_stale, ttl=process.ttl)

    def _fork(self, process: Process) -> None:
        if process in self.fleet.members:  # and was not killed together with its parent
            self.tally.faults["forked"] += 1
            self.fleet.fork(process)

    def _mend(self, plan: Plan) -> None:
        self._chance.shuffle(plan.frozen)
        for process in plan.frozen:
            if process in self.fleet.members:
                process.signal(signal.SIGCONT)
        for relay in plan.cut:
            relay.pass_()

    def _reopen(self) -> None:
        off = self._operator.prove(self._operator.set(False), timeout=GENEROUS)
        self._expect(bool(off), f"off, and not proven: {off}")
        self.fleet.await_pids(self.fleet.members)
        self.fleet.await_service(self.fleet.members, GENEROUS)
        self._look()

    def _look(self) -> None:
        for process in [*self.fleet.members, *self._dead]:
            for sight in self.fleet.new(process):
                for wrong in self._judge.wrong(sight):
                    self._expect(False, f"{process.when_stale} process {process.pid} {wrong}")
            admitted, refused = self.fleet.count_answers(process)
            self.tally.admitted += admitted
            self.tally.refused += refused
        self.fleet.bury(self._dead)
        self._dead = []

    def _pause(self, longest: float) -> None:
        time.sleep(self._chance.uniform(0.01, longest))

    def plan(self) -> Plan:
        """Choose the faults of the next flip. In four of ten flips, processes only come and go."""
        chance, direct = self._chance, [one for one in self.fleet.members if one.relay is None]
        chance.shuffle(direct)
        kind = chance.choices(["healthy", "fenceable", "anything"], [4, 4, 2])[0]
        exposed = [one for one in direct[5:] if kind == "anything" or one.when_stale == "block"]
        serving = {one.relay for one in self.fleet.members if one.when_stale == "serve"}
        ways = [way for way in self._relays if kind == "anything" or way not in serving]
        faulty = kind != "healthy"
        return Plan(
            when=chance.choice(["before", "during"]),
            frozen=exposed[: chance.randint(0, 8)] if faulty else [],
            cut=chance.sample(ways, chance.randint(0, min(2, len(ways)))) if faulty else [],
            killed=[one for one in direct[:3] if one.parent] or direct[: chance.randint(0, 2)],
            forked=direct[3 : 3 + chance.randint(0, 1)],
            lingering=chance.sample(self.fleet.members, chance.randint(0, 4)),
            drain=chance.random() < 0.3 and kind != "fenceable",
        )


@contextmanager
def trial(*, processes: int, seed: int, ttls: tuple[float, ...] = TTLS) -> Iterator[Trial]:
    """A fleet in service, half of it under each policy, a quarter of it behind relays."""
    relays = max(2, processes // 4 // RELAYED)
    with fleet(slots=4 * processes, pace=PACE, relays=relays) as (started, ways):
        for number in range(processes):
            way = ways[number // RELAYED] if number < RELAYED * relays else None
            parity = number // RELAYED if way else number
            started.spawn(when_stale="block" if parity % 2 else "serve", ttl=ttls[number % len(ttls)], relay=way)
        started.await_pids(started.members)
        started.await_service(started.members, 60.0)
        with closing(MaintenanceState(started.url, register=False)) as operator:
            yield Trial(started, ways, operator, random.Random(seed))
