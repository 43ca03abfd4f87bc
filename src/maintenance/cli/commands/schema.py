"""``maintenance migrate`` and ``sql``: the tables."""

import argparse

from maintenance.cli import text
from maintenance.cli.store import choose_store
from maintenance.stores import PostgresStore
from maintenance.stores.migrations import migrations


def migrate(args: argparse.Namespace) -> int:
    """Create or upgrade the tables."""
    store = choose_store(args)
    store.migrate()
    files = [file for file, _ in migrations()] if isinstance(store, PostgresStore) else []
    if args.json:
        text.print_json({"migrated": True, "files": files, "store": store.name})
    else:
        print(f"{store.name} is up to date{': ' if files else ''}{', '.join(files)}")
    return 0


def sql(args: argparse.Namespace) -> int:
    """Print what `migrate` runs on PostgreSQL, without a connection."""
    if args.json:
        text.print_json({"files": [{"name": file, "sql": text} for file, text in migrations()]})
    else:
        print("\n".join(f"-- {file}\n{text.rstrip()}\n" for file, text in migrations()), end="")
    return 0
