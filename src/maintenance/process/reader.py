"""One try of a process: connect, register, read, install, acknowledge."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Final, NamedTuple

from maintenance.base.log import log
from maintenance.base.values import Reading
from maintenance.errors import StoreError
from maintenance.process.in_flight import Sources
from maintenance.process.lease import LAGGING, Lease
from maintenance.proof.membership import Membership, Row
from maintenance.stores import Session, Store

NOT_REGISTERED: Final = "this process is not registered"


class _Read(NamedTuple):
    """A reading, when it was asked for, and its place in the order of answers."""

    sent: float
    ticket: int
    reading: Reading


class Reader:
    """The conversation of one life with the store. One thread uses it at a time.

    Attributes:
        membership: The row of this process.
        epoch: The epoch of this life.
        answered: Whether a read has brought an answer.
        incomplete: Whether an own write overtook the last read, so that another one must follow.
    """

    def __init__(self, store: Store, lease: Lease, sources: Sources) -> None:
        """Take what a try needs; nothing is connected yet."""
        self._store, self._lease, self._sources = store, lease, sources
        self._settings = lease.settings
        self.membership = Membership(lease.settings, runtime=lease.runtime)
        self.epoch = lease.life.epoch
        self.answered = self.incomplete = False
        self._took = 0.0
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
        self.membership.report_again()
        return session

    @property
    def _limit(self) -> float:
        """Seconds for calls over the kept connection: twice those of the last read, because the store may be slow."""
        return min(max(2 * self._took, self._settings.quick_limit), self._settings.limit)

    def _cycle(self, session: Session) -> Iterator[None]:
        membership, row = self.membership, self.membership.row
        read = None if row is Row.ABSENT else self._ask(session)
        if self._settings.register and not (read and read.reading.registered):
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
            known = self._lease.known
            membership.acknowledge(session, known.revision, self._sources.measure(known), drain=read.reading.drain)
        else:
            self.hang_up()  # the address may lead to a primary next time

    def _ask(self, session: Session) -> _Read:
        clock, ticket = self._lease.runtime.clock, self._lease.ticket()
        # The clock before the question: the answer may lack what is committed after this moment.
        read = _Read(clock(), ticket, session.read(self.membership.instance.id))
        self._took = clock() - read.sent
        return read

    def _install(self, read: _Read) -> None:
        lagging = not read.reading.primary
        obstacle = LAGGING if lagging else self._obstacle()
        taken = self._lease.install(
            read.reading.snapshot(read_at=read.sent),
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
        if self._lease.blocks and self.membership.row is not Row.PRESENT:
            return self.membership.error or NOT_REGISTERED
        return None

    def follow_up(self) -> None:
        """Report, between two reads, an own flip and the end of requests.

        Raises:
            StoreError: The store cannot be reached.
        """
        if self.session is None or self.membership.row is not Row.PRESENT:
            return
        known = self._lease.known
        load = self._sources.measure(known)
        if self.membership.owes(known.revision, load):
            with self.session.within(self._limit):
                self.membership.follow_up(self.session, known.revision, load)

    def hang_up(self) -> None:
        """End the conversation, whether it works or not."""
        session, self.session = self.session, None
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
