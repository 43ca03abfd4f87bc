"""The protocol that every store keeps. Its implementations document only their own particulars."""

from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from maintenance.base.flags import Flags, Reading
from maintenance.base.history import Entry
from maintenance.base.instances import Fleet, Instance
from maintenance.base.runtime import Waker
from maintenance.base.values import Change, Written


class Session(Protocol):
    """A conversation with a store, used by one thread at a time.

    Every method but `within` and `abandon` raises `StoreError`, without a password, and a `LateError` if the store does
    not answer in time. No session may be shared across a fork.
    """

    @property
    def listening(self) -> bool:
        """Whether a change ends a `wait` immediately; if not, only the next read finds it."""

    def read(self, instance: str | None = None, *, known: Flags | None = None) -> Reading:
        """Read every flag that is on or scheduled, in one statement.

        Args:
            instance: Whose registration to look up too.
            known: What the caller knows. The scopes are left out if nothing has changed since.
        """

    def write(self, change: Change) -> Written:
        """Write a flag, its details and a request to drain in one durable step.

        Raises:
            ConflictError: The flag is not at `Change.if_revision`; nothing was written.
            ValueError: The schedule has passed by the store's clock; nothing was written.
        """

    def carry_out(self, scope: str | None, revision: int, *, enabled: bool) -> bool:
        """Write the value that a schedule gives to a flag; False if it is not allowed, or at another revision."""

    def history(self, scope: str | None, *, limit: int) -> tuple[Entry, ...]:
        """Read the last changes of a flag, the newest first. All flags' if the scope is ``"*"``."""

    def report(self, instance: Instance) -> None:
        """Write an instance's row: its registration, acknowledgement and heartbeat alike.

        Raises:
            RegistrationError: The table is missing, or the role may not write there.
        """

    def remove(self, *instances: str) -> int:
        """Remove the rows of instances in one step; return how many there were.

        Raises:
            RegistrationError: The role may not remove one of them, and none was removed.
        """

    def fleet(self, scope: str | None = None) -> Fleet:
        """Read the flags, that of `scope` even if it is off, and every instance in one statement."""

    def find(self, beginning: str) -> tuple[Instance, ...]:
        """Read the instances whose id begins with a text, and nothing else."""

    def ask_drain(self, revision: int, scope: str | None = None) -> None:
        """Ask each instance to report again once nothing that this flag refuses is in flight."""

    def wait(self, timeout: float, waker: Waker) -> bool:
        """Wait for a change or for `waker`, for `timeout` seconds at most; True if the flag may have changed."""

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """Make the calls in a block fail once the block has taken so many seconds."""

    def abandon(self) -> None:
        """In the child of a fork: release the conversation without sending anything, because it is the parent's."""

    def close(self) -> None:
        """End the conversation; may be called twice."""


@runtime_checkable
class Store(Protocol):
    """A place for the flag. Threads may share a store, but not a session.

    If a store has the attribute `keep_connection` and it is false, a process closes its session between two reads.

    Attributes:
        name: For people, without a password.
    """

    name: str

    def connect(self, *, listen: bool = False, limit: float | None = None) -> Session:
        """Open a session of its own, bounded in time.

        Args:
            listen: Whether a change shall end `Session.wait` immediately, if the store supports that.
            limit: Seconds that it may take; None for the store's own limit.

        Raises:
            StoreError: The store cannot be reached.
        """

    def migrate(self) -> None:
        """Create or upgrade the tables; safe to run again.

        Raises:
            StoreError: The store cannot be reached, or refuses.
        """
