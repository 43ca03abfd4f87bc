"""One session with a store after another, opened when it is needed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maintenance.errors import StoreError
from maintenance.stores.protocol import Session, Store


class Conversation:
    """Keeps one session for several calls, and opens another one after an error. Used by one thread at a time."""

    def __init__(self, store: Store, *, clock: Callable[[], float]) -> None:
        """Connect to nothing yet."""
        self._store, self._clock = store, clock
        self._session: Session | None = None

    @contextmanager
    def within(self, seconds: float) -> Iterator[Session]:
        """The session, for a block that fails if it takes longer than so many seconds, the connect included.

        Raises:
            StoreError: The store cannot be reached.
        """
        try:
            end = self._clock() + seconds
            self._session = self._session or self._store.connect(limit=seconds)
            with self._session.within(max(end - self._clock(), 0.0)):
                yield self._session
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """End the session; the next call opens another one."""
        session, self._session = self._session, None
        if session is not None:
            session.close()
