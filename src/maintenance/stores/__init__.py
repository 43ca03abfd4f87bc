"""The stores that keep the flag: one small protocol, and one store for each kind of URL.

Importing this package does not load a driver; building a store does.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol, runtime_checkable

from maintenance.base.runtime import Waker
from maintenance.base.values import Change, Fleet, Instance, Reading, Row
from maintenance.errors import ConfigurationError
from maintenance.stores.memory import MemoryStore
from maintenance.stores.postgres import PostgresStore
from maintenance.stores.sqlite import SQLiteStore

__all__ = ["MemoryStore", "PostgresStore", "SQLiteStore", "Session", "Store", "Waker", "open_store"]


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

    def remove(self, instance: str) -> bool:
        """Remove an instance's row; False if there is none."""

    def fleet(self) -> Fleet:
        """Read the flag and every instance in one statement."""

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

    def connect(self, *, listen: bool = False) -> Session:
        """Open a session of its own, bounded in time.

        Args:
            listen: Whether a change shall end `Session.wait` immediately, if the store supports that.

        Raises:
            StoreError: The store cannot be reached.
        """

    def migrate(self) -> None:
        """Create or upgrade the tables; safe to run again.

        Raises:
            StoreError: The store cannot be reached, or refuses.
        """


_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
"""RFC 3986, section 3.1."""

_STORES: Final[dict[str, Callable[[str], Store]]] = {
    "postgresql": PostgresStore,
    "postgres": PostgresStore,
    "sqlite": SQLiteStore,
    "memory": MemoryStore,
}


def open_store(url: str) -> Store:
    """Build the store that a URL names.

    Args:
        url: ``postgresql://...``, ``postgres://...``, ``sqlite:///path`` or ``memory://``.

    Raises:
        ConfigurationError: The URL does not name a store; the message shows what to use.
    """
    scheme, separator, _ = url.partition("://")
    dialect, plus, _ = scheme.partition("+")
    if separator and plus and dialect in _STORES:
        raise ConfigurationError(f"the database URL begins with {scheme}://: use {dialect}:// instead")
    if not separator or scheme not in _STORES:
        # Unless it is a valid scheme, it may be the beginning of a password.
        separator = separator if _SCHEME.fullmatch(scheme) else ""
        begins = f"begins with {scheme}://" if separator else "has no scheme"
        raise ConfigurationError(
            f"the database URL {begins}: use postgresql://user@host/database, sqlite:///path or memory://"
        )
    return _STORES[scheme](url)
