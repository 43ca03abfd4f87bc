"""The flag in an SQLite file. Importing this package does not load sqlite3; building a store does."""

from maintenance.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
