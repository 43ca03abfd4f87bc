"""Sessions of a store of each kind."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from maintenance.base.runtime import SocketWaker
from maintenance.stores import Session, Store


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    with closing(store.connect(listen=True)) as opened:
        yield opened


@pytest.fixture
def other(store: Store) -> Iterator[Session]:
    """Another session of the same store, as another process has."""
    with closing(store.connect()) as opened:
        yield opened


@pytest.fixture
def waker() -> Iterator[SocketWaker]:
    with closing(SocketWaker()) as opened:
        yield opened
