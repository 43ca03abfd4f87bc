"""A second PostgreSQL server, which these tests break."""

from collections.abc import Iterator

import pytest

from maintenance.stores import PostgresStore
from tests.support.postgres import Server, database, server


@pytest.fixture(scope="session")
def shaky() -> Iterator[Server]:
    """The server of `shaky_url`."""
    with server() as own:
        yield own


@pytest.fixture
def shaky_url(shaky: Server) -> Iterator[str]:
    """The URL of a migrated database on a server that the test may kill, freeze and stop."""
    with database(shaky) as url:
        PostgresStore(url).migrate()
        yield url
        shaky.thaw()
        if not shaky.running:
            shaky.start()
