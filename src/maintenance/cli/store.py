"""Which store a command speaks to."""

import argparse
import os
import sys

from maintenance.errors import ConfigurationError, StoreError
from maintenance.process.api import database_variable, open_named
from maintenance.process.state import MaintenanceState
from maintenance.stores import SQLiteStore, Store


def named(args: argparse.Namespace) -> Store:
    """The store that the arguments or the environment name; nothing is connected yet.

    Raises:
        ConfigurationError: They name none, or one that no other process can see.
    """
    source, url = ("--database", args.database) if args.database is not None else _from_environment()
    url = url.strip()
    if not url:
        raise ConfigurationError(f"{source} is empty: write postgresql://user@host/database or sqlite:///path")
    store = open_named(source, url)
    if store.name == "memory://":
        raise ConfigurationError(
            f"{source} is memory://, the memory of this very command, which no server sees: "
            "write --database postgresql://user@host/database or sqlite:///path"
        )
    return store


def _from_environment() -> tuple[str, str]:
    try:
        return database_variable()
    except ConfigurationError:
        raise ConfigurationError(
            "no database is named: write --database URL, or set MAINTENANCE_DATABASE_URL or DATABASE_URL"
        ) from None


def watching(args: argparse.Namespace, *, create: bool = False) -> MaintenanceState:
    """A state that asks and flips, and never counts as one that serves.

    Args:
        args: As parsed.
        create: Whether an SQLite file may be made where there is none.

    Raises:
        ConfigurationError: No store is named.
        StoreError: There is no such SQLite file.
    """
    store = named(args)
    if not isinstance(store, SQLiteStore):
        return MaintenanceState(store, register=False)
    missing = not os.path.exists(store.path)
    if missing and not create:
        raise StoreError(
            f"{store.name}: there is no such file: check the path, or make it with "
            f"`maintenance migrate --database {store.name}`"
        )
    if missing:
        warn(f"{store.name} did not exist and is made now: no server can have been using it")
    # Nothing is made in a file that is there: it may be another one than was meant.
    return MaintenanceState(SQLiteStore(store.name, create=missing), register=False)


def warn(text: str) -> None:
    """Say what the person should know, and no machine has to read."""
    sys.stdout.flush()
    print(f"warning: {text}", file=sys.stderr, flush=True)
