"""One try of a process: connect, register, read, install, acknowledge."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Final, NamedTuple

from maintenance.base.flags import NEVER, Flags, Reading
from maintenance.base.log import log
from maintenance.errors import StoreError
from maintenance.process.in_flight import Sources
from maintenance.process.lease import LAGGING, Lease
from maintenance.proof.membership import Membership, Report, Row, make_report
from maintenance.stores import Session, Store

CARRY_OUT_SPREAD: Final = 0.5
"""Seconds within which the processes of a fleet try to write the value that a schedule has reached, one by one."""

CARRY_OUT_PAUSE: Final = 10.0
"""Seconds until this process tries again, because it may not write."""

NOT_REGISTERED: Final = "this process is not registered"


class _Read(NamedTuple):
    """A reading, when it was asked for, and its place in the order of answers."""

    sent: float
    received: float
    ticket: int
    before: Flags
    reading: Reading


class Reader:
    """The conversation of one life with the store. One thread uses it at a time.

    Attributes:
        membership: The row of this process.
        registers: Whether this life writes that row.
        epoch: The epoch of this life.
        answered: Whether a read has brought an answer.
        incomplete: Whether an own write overtook the last read, so that another one must follow.
        carry_out_at: When (clock) this process writes the value that a schedule has reached.
    """

    def __init__(self, store: Store, lease: Lease, sources: Sources, *, registers: bool) -> None:
        """Take what a try needs; nothing is connected yet."""
        self.registers = registers
        self._store, self._lease, self._sources = store, lease, sources
        self._settings = lease.settings
        self.membership = Membership(lease.settings, runtime=lease.runtime)
        self.epoch = lease.life.epoch
        self.answered = self.incomplete = False
        self.carry_out_at = NEVER
        self._took = 0.0
        self._keeps = getattr(store, "keep_connection", True)
        self._lost = True
        self.session: Session | None = None

    @property
    def listening(self) -> bool:
        """Whether a change is reported at once."""
        session = self.session
        return session is not None and session.listening

    def read(self) -> Iterator[None]:
        """Try once, within a limit of `Settings`.

        Yields:
            After an answer that came ahead of the end, so that requests which wait for it can go on.

        Raises:
            FlagError: The store answers, and the flag's row is wrong.
            StoreError: The store cannot be reached.
        """
        limit = self._limit if self.session else self._settings.limit
        if self.session is None:
            self.session = self._connect()
        with self.session.within(limit):
            yield from self._cycle(self.session)

    def _connect(self) -> Session:
        # The addresses of the server share what is left of the lease, because one of them may not answer.
        left = self._lease.until - self._lease.runtime.clock()
        session = self._store.connect(listen=True, limit=left if left > self._settings.quick_limit / 2 else None)
        if self._lost:
            self.membership.report_again()
        return session

    @property
    def _limit(self) -> float:
        """Seconds for calls over the kept connection: twice those of the last read, because the store may be slow."""
        return min(max(2 * self._took, self._settings.quick_limit), self._settings.limit)

    def _cycle(self, session: Session) -> Iterator[None]:
        membership, row = self.membership, self.membership.row
        read = None if row is Row.ABSENT else self._ask(session)
        if self.registers and not (read and read.reading.registered):
            if read and row is Row.UNCERTAIN:
                # The last registration took the connection with it. Each one does while a commit waits for a standby
                # that is down. So the flag is installed first, or a new process would never follow it. Under `block`
                # this renews no lease. Under `serve` it does, but nothing is acknowledged before the read below.
                self._install(read)
                yield
            membership.register(session)
            read = self._ask(session)
        read = read or self._ask(session)
        membership.confirm(registered=read.reading.registered)
        self._install(read)
        if read.reading.primary:
            membership.acknowledge(session, self._report())
            self._carry_out(session)
        else:
            self.hang_up()  # the address may lead to a primary next time

    def _ask(self, session: Session) -> _Read:
        clock, ticket = self._lease.runtime.clock, self._lease.ticket()
        # The clock before the question: the answer may lack what is committed after this moment.
        before, sent = self._lease.known, clock()
        reading = session.read(self.membership.instance.id, known=before)
        read = _Read(sent, clock(), ticket, before, reading)
        self._took = read.received - read.sent
        return read

    def _install(self, read: _Read) -> None:
        lagging = not read.reading.primary
        obstacle = LAGGING if lagging else self._obstacle()
        taken = self._lease.install(
            read.reading.flags(read.before, sent=read.sent, received=read.received),
            ticket=read.ticket,
            epoch=None if obstacle else self.epoch,
            lagging=lagging,
        )
        self.answered = True
        # An own write returned in between. The read may have shown more than the flag, such as a drain.
        self.incomplete = not taken and not obstacle
        if obstacle:
            self._lease.fail(obstacle)

    def _obstacle(self) -> str | None:
        """Why an answer of the primary renews no lease."""
        if self._lease.blocks and self.registers and self.membership.row is not Row.PRESENT:
            return self.membership.error or NOT_REGISTERED
        return None

    def follow_up(self) -> None:
        """Report, between two reads, an own flip and the end of requests.

        Raises:
            StoreError: The store cannot be reached.
        """
        if self.session is None:
            return
        if self.membership.row is Row.PRESENT and self.membership.owes(report := self._report()):
            with self.session.within(self._limit):
                self.membership.follow_up(self.session, report)
        self._carry_out(self.session)

    def _report(self) -> Report:
        # The revision first: a flip may come in between, and its number must not stand beside an older count.
        known = self._lease.known
        flags = self._lease.flags
        return make_report(known, flags, self._sources.measure(flags))

    def _carry_out(self, session: Session) -> None:
        """Write the value that a schedule has reached, also if it has passed unseen, unless another process is faster.

        The value in force does not depend on it: each process computes it. It is for readers that only look at the
        value, and for the history.
        """
        lease, now = self._lease, self._lease.runtime.clock()
        known, flags = lease.known, lease.flags
        # If nothing is scheduled, the two are the same object.
        overdue = [] if flags is known else [it for it in flags if it is not known.get(it.scope)]
        if not overdue or known.taken_back:
            self.carry_out_at = NEVER
        elif self.carry_out_at == NEVER:
            # Not all at once: one write is enough.
            self.carry_out_at = now + lease.runtime.uniform(0.0, CARRY_OUT_SPREAD)
        elif now >= self.carry_out_at:
            self.carry_out_at = now + CARRY_OUT_PAUSE
            with session.within(self._limit):
                for flag in overdue:
                    session.carry_out(flag.scope, flag.revision, enabled=flag.enabled)

    def pause(self) -> bool:
        """Hang up until the next read, if the store keeps no connection and no operator waits for this process."""
        waits = self.membership.draining or self.carry_out_at < NEVER
        if self.session is None or self._keeps or waits:
            return False
        self.hang_up(lost=False)
        return True

    def hang_up(self, *, lost: bool = True) -> None:
        """End the conversation, whether it works or not.

        Args:
            lost: Whether it did not work, so that the store may have changed into another one.
        """
        session, self.session = self.session, None
        self._lost = lost
        if session is not None:
            with contextlib.suppress(Exception):  # a connection that has failed may fail to close, too
                session.close()

    def leave(self) -> None:
        """Remove the row. If the connection was lost, noticed or not, another one is opened for that."""
        for _ in range(1 if self.session is None else 2):
            try:
                if self.membership.may_exist:
                    self.session = self.session or self._store.connect(limit=self._settings.limit)
                    self.membership.remove(self.session)
                break
            except StoreError as exc:
                log(logging.INFO, "the row of instance %s is not removed: %s", self.membership.instance.id, exc)
                self.hang_up()
        self.hang_up()
