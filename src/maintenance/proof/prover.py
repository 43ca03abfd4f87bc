"""The loop that reads the fleet again and again until a flip is proven or the time is over."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from maintenance.base.instances import SENTINEL, Fleet, Instance
from maintenance.base.quoting import quote
from maintenance.base.runtime import Runtime, boot_id
from maintenance.base.values import Snapshot
from maintenance.errors import RegistrationError, StoreError
from maintenance.proof.judge import (
    Progress,
    Proof,
    Question,
    check_number,
    find_row,
    hold,
    judge,
    lease_end,
    read_expect,
    read_flag,
)
from maintenance.proof.membership import hostname
from maintenance.stores import Session
from maintenance.stores.conversation import Conversation

MARGIN: Final = 5.0
"""Seconds of the default time-out above the longest lease."""

LONGEST_WAIT: Final = 600.0
"""The default time-out in seconds, without that for requests, however long a lease is that a row claims."""

DRAIN_MARGIN: Final = 30.0
"""Seconds of the default time-out for requests to end: as long as gunicorn lets one run."""

PAUSE: Final = 0.0004
"""Seconds between two looks, for each laggard. While a whole fleet is busy following, looks only slow it down."""

PAUSE_GROWTH: Final = 0.01
"""Seconds between two looks, for each second of the wait: a long one costs little, and ends at most 1 % late."""

LATE: Final = 0.001
"""Seconds by which a look follows the end of a lease, so that it never comes a moment too early."""

_HANG: Final = 5.0
"""Seconds after which a look that hangs is given up."""

_LEAST: Final = 1.0
"""Seconds that even the last look has, so that a time-out of 0 allows one honest look."""


def prove(
    conversation: Conversation,
    snapshot: Snapshot,
    *,
    drain: bool,
    timeout: float | None,
    expect: int | Mapping[str, int] | None,
    presume_dead: float | None,
    progress: Progress,
    runtime: Runtime,
) -> Proof:
    """Wait until every instance has provably followed a flip; see `MaintenanceState.prove`."""
    if not isinstance(snapshot, Snapshot):
        raise TypeError(f"snapshot is {quote(snapshot)}: use prove(state.set(...)) or prove(state.refresh())")
    if not callable(progress):
        raise TypeError(f"progress is {quote(progress)}: use a function of one Proof")
    if snapshot.source != "store":
        raise ValueError("the snapshot was never in a store: use prove(state.set(...)) or prove(state.refresh())")
    host, boot = hostname(), boot_id()
    question = Question(
        revision=snapshot.revision,
        enabled=snapshot.in_force,
        scope=snapshot.scope,
        starts=snapshot.starts,
        mode=snapshot.mode,
        drain=drain,
        expect=read_expect(expect),
        presume_dead=presume_dead,
        is_gone=lambda it: bool(boot) and (it.host, it.boot) == (host, boot) and runtime.is_gone(it.pid),
    )
    return Prover(conversation, question, runtime=runtime).run(timeout=timeout, progress=progress)


class Prover:
    """Asks again and again until a flip is proven or the time is over."""

    def __init__(self, conversation: Conversation, question: Question, *, runtime: Runtime) -> None:
        """Start counting: call this after the commit has returned."""
        self._conversation, self._question, self._runtime = conversation, question, runtime
        self._started = runtime.clock()
        self._proof = Proof(proven=False, revision=question.revision)
        self._gone: dict[str, Instance] = {}
        self._longest = self._begins = 0.0

    def run(self, *, timeout: float | None, progress: Progress) -> Proof:
        """Wait.

        Args:
            timeout: Seconds, from the start if that is ahead; None for a time above the longest lease, but for at most
                `LONGEST_WAIT`.
            progress: Called with each new judgement.

        Returns:
            The last judgement.

        Raises:
            TypeError, ValueError: `timeout` is wrong.
        """
        check_number("timeout", timeout, least=0)
        while True:
            self._look(self._limit(timeout) - self._elapsed())
            self._proof = replace(self._proof, limit=self._limit(timeout))
            progress(self._proof)
            elapsed = self._elapsed()
            if self._proof.proven or self._proof.final or elapsed >= self._limit(timeout):
                return replace(self._proof, elapsed=elapsed)
            self._runtime.sleep(self._pause(elapsed))

    def _elapsed(self) -> float:
        return self._runtime.clock() - self._started

    def _pause(self, elapsed: float) -> float:
        """Seconds until the next look; it does not miss the end of a lease."""
        laggards = [instance for instance, _ in self._proof.laggards]
        pause = min(max(PAUSE * len(laggards), PAUSE_GROWTH * elapsed, 0.01), 0.5)
        ends = (lease_end(instance.ttl) + LATE - elapsed for instance in laggards)
        return min([pause, *(end for end in ends if end > LATE)])

    def _limit(self, timeout: float | None) -> float:
        if timeout is not None:
            return self._begins + timeout
        longest = min(lease_end(self._longest) + MARGIN, LONGEST_WAIT)
        return self._begins + longest + (DRAIN_MARGIN if self._question.drain else 0.0)

    def _look(self, left: float) -> None:
        try:
            with self._conversation.within(min(_HANG, max(left, _LEAST))) as session:
                self._proof = self._judge(session)
        except StoreError as exc:
            self._proof = replace(self._proof, problem=str(exc), elapsed=self._elapsed())

    def _judge(self, session: Session) -> Proof:
        # The clock before the question: a lease must have run out by the time that the flag is read again.
        elapsed = self._elapsed()
        fleet = session.fleet(self._question.scope)
        self._follow_schedule(session, fleet, elapsed)
        row = find_row(fleet.reading, self._question.scope)
        if self._question.drain and not (row and row.drain):
            session.ask_drain(self._question.revision, self._question.scope)  # the flip did not ask for it
        self._longest = max((instance.ttl for instance in fleet.instances), default=self._longest)
        proof = judge(fleet, self._question, elapsed=elapsed)
        present = {instance.id for instance in fleet.instances}
        # The next look does not find the rows that are removed here. A row that it finds again has come back.
        self._gone = {key: it for key, it in self._gone.items() if key not in present}
        self._gone |= {it.id: it for it in proof.gone}
        if proof.gone:
            # A row that this role may not remove stays, and its process is gone all the same.
            with contextlib.suppress(RegistrationError):
                session.remove(*(it.id for it in proof.gone))
        if proof.proven and not fleet.intact:
            _mark_whole(session)
        return replace(proof, gone=tuple(self._gone.values()))

    def _follow_schedule(self, session: Session, fleet: Fleet, elapsed: float) -> None:
        """Note when the flag begins. Its value is written then: the same maintenance, at a new revision."""
        question, flag = self._question, read_flag(fleet.reading, self._question.scope)
        if question.starts is None or flag is None or (flag.starts, flag.mode) != (question.starts, question.mode):
            return
        on, left = hold(flag, fleet.reading.now)
        if left is not None:
            self._begins = elapsed + left
        elif flag.enabled and flag.revision > question.revision:
            self._question = replace(question, revision=flag.revision)
        elif on and question.drain:
            # No process may be allowed to, and a drain is proven only after it.
            session.carry_out(question.scope, question.revision, enabled=True)


def _mark_whole(session: Session) -> None:
    """Trust the table of instances again, because the operator said how many there are."""
    try:
        session.report(SENTINEL)
    except RegistrationError as exc:
        raise StoreError(f"the table of instances cannot be marked as complete again: {exc}") from exc
