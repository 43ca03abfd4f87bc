"""The fixtures of every test: databases, stores, and a clean environment."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from maintenance.stores import PostgresStore, Store, open_store
from tests.support.postgres import Server, database, server

KINDS = ("postgresql", "sqlite", "memory")


def pytest_configure() -> None:
    """React to Ctrl-C, also in child processes, and also if a shell runs the tests in the background and ignores it.

    POSIX.1, Shell Command Language, section 2.11.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's shell must not decide a test."""
    for name in os.environ:
        if name.startswith("PG") or (name.startswith("MAINTENANCE_") and not name.startswith("MAINTENANCE_TEST_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("DATABASE_URL", raising=False)


@pytest.fixture
def failing_log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages of a log whose filter raises, as a filter of an app may."""
    told: list[str] = []

    def fail(record: logging.LogRecord) -> bool:
        told.append(record.getMessage())
        raise RuntimeError("a filter of the app's")

    monkeypatch.setattr(logging.getLogger("maintenance"), "filters", [fail])
    return told


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The one PostgreSQL server of the session; never stop, freeze or kill it (`own_server` is for that)."""
    with server() as shared:
        yield shared


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A PostgreSQL server that the test may freeze, thaw, kill, stop and restart."""
    with server() as own:
        yield own


def _migrate(*, host: str, port: int, user: str, dbname: str, password: str, autocommit: bool) -> None:
    PostgresStore(f"postgresql://{user}:{password}@{host}:{port}/{dbname}").migrate()


migrated_template = factories.postgresql_noproc(depends_on="postgres", dbname="migrated", load=[_migrate])


@pytest.fixture
def database_url(postgres: Server) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    with database(postgres) as url:
        yield url


@pytest.fixture
def migrated_url(postgres: Server, migrated_template: NoopExecutor) -> Iterator[str]:
    """The URL of a migrated database of the test's own, cloned from a template."""
    with database(postgres, migrated_template.template_dbname) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite store that does not exist yet."""
    return f"sqlite:///{tmp_path / 'maintenance.db'}"


@pytest.fixture(params=KINDS)
def store_url(request: pytest.FixtureRequest) -> str:
    """A URL of each kind, not migrated. ``memory://`` is another store each time it is opened."""
    if request.param == "memory":
        return "memory://"
    name = "database_url" if request.param == "postgresql" else "sqlite_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Store:
    """A migrated store of each kind."""
    urls = {"postgresql": "migrated_url", "sqlite": "sqlite_url"}
    url = request.getfixturevalue(urls[request.param]) if request.param in urls else "memory://"
    opened = open_store(url)
    opened.migrate()
    return opened


@pytest.fixture(params=["postgresql", "sqlite"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated store that several processes can open: memory is one process's."""
    url: str = request.getfixturevalue({"postgresql": "migrated_url", "sqlite": "sqlite_url"}[request.param])
    open_store(url).migrate()
    return url
