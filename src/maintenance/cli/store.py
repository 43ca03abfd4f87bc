"""The database that a command works on."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

from maintenance.base.values import Snapshot
from maintenance.errors import ConfigurationError, StoreError
from maintenance.process.api import database_variable, open_named
from maintenance.process.state import MaintenanceState
from maintenance.proof.judge import find_row
from maintenance.stores import SQLiteStore, Store


def choose_store(args: argparse.Namespace) -> Store:
    """Return the store that the arguments name, or else the environment or the framework. It is not connected yet.

    Raises:
        ConfigurationError: They name none, or one that no other process can use.
    """
    source, url = ("--database", args.database) if args.database is not None else args.find_database()
    url = url.strip()
    if not url:
        raise ConfigurationError(f"{source} is empty: use postgresql://user@host/database or sqlite:///path")
    store = open_named(source, url)
    if store.name == "memory://":
        raise ConfigurationError(
            f"{source} is memory://, which exists only inside this command, so no server sees it: "
            "use --database postgresql://user@host/database or sqlite:///path"
        )
    return store


def read_environment() -> tuple[str, str]:
    """Return the variable that names the database, and its URL.

    Raises:
        ConfigurationError: No variable names one.
    """
    try:
        return database_variable()
    except ConfigurationError:
        raise ConfigurationError(
            "no database is configured: use --database URL, or set MAINTENANCE_DATABASE_URL or DATABASE_URL"
        ) from None


def is_missing(store: Store) -> bool:
    """Return whether a store is an SQLite file that does not exist."""
    return isinstance(store, SQLiteStore) and not os.path.exists(store.path)


def open_state(args: argparse.Namespace, *, create: bool = False, register: bool = False) -> MaintenanceState:
    """Return a state that reads and flips the flag.

    Args:
        args: As parsed.
        create: Whether a missing SQLite file may be created.
        register: Whether this process joins the fleet while a job runs.

    Raises:
        ConfigurationError: No store is named.
        StoreError: The SQLite file does not exist.
    """
    store = choose_store(args)
    missing = is_missing(store)
    if missing and not create:
        create_it = f"maintenance migrate --database {store.name}"
        raise StoreError(f"{store.name}: no such file: check the path, or create it with `{create_it}`")
    if isinstance(store, SQLiteStore):
        # A file that exists may be the wrong one, so no tables are added to it.
        store = SQLiteStore(store.name, create=missing)
    return MaintenanceState(store, register=register)


@contextlib.contextmanager
def connect_state(args: argparse.Namespace, *, create: bool = False) -> Iterator[MaintenanceState]:
    """Yield a state whose calls share one connection; see `open_state`."""
    state = open_state(args, create=create)
    with state.keep_connection():
        yield state


def read_flag(state: MaintenanceState, scope: str | None) -> Snapshot:
    """Return a flag as it holds now; one that has no row is off at revision 0."""
    state.refresh()
    flags = state.lease.flags
    if scope is None or scope in flags.scopes:
        return flags.get(scope)
    # A read leaves out each scope that is off.
    row = find_row(state.fleet(scope=scope).reading, scope)
    return replace(flags.get(scope), revision=0) if row is None else row.snapshot(read_at=state.clock())
