"""The stores that keep the flag: one small protocol, and one store for each kind of URL.

Importing this package does not load a driver; building a store does.
"""

import re
from collections.abc import Callable
from typing import Final

from maintenance.base.runtime import Waker
from maintenance.errors import ConfigurationError
from maintenance.stores.memory import MemoryStore
from maintenance.stores.postgres import PostgresStore
from maintenance.stores.protocol import Session, Store
from maintenance.stores.sqlite import SQLiteStore

__all__ = ["MemoryStore", "PostgresStore", "SQLiteStore", "Session", "Store", "Waker", "open_store"]


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
