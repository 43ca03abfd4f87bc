"""The flag in PostgreSQL. Importing this package does not load psycopg; building a store does."""

from maintenance.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
