"""The protocol that every store keeps. Its implementations document only their own particulars."""

from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from maintenance.base.runtime import Waker
from maintenance.base.values import Change, Fleet, Instance, Reading, Row


class Session(Protocol):
    """A conversation with a store, used by one thread at a time.

    Every method but `within` and `abandon` raises `StoreError`, without a password, and a `LateError` if the store does
    not answer in time. No session may be shared across a fork.
    """

    @property
    def listening(self) -> bool:
        """Whether a change ends a `wait` immediately; if not, only the next read finds it."""

    def read(self, instance: str | None = None) -> Reading:
        """Read the flag and, in the same statement, whether `instance` is registered."""

    def write(self, change: Change) -> Row:
        """Write the flag, its details and a request to drain in one durable step; return the row as written."""

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

    def fleet(self) -> Fleet:
        """Read the flag and every instance in one statement."""

    def find(self, beginning: str) -> tuple[Instance, ...]:
        """Read the instances whose id begins with a text, and nothing else."""

    def ask_drain(self, revision: int) -> None:
        """Ask each instance to report again once nothing that `revision` refuses is in flight."""

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
