"""SQLiteStore: it checks the URL, opens sessions and migrates. Building one loads sqlite3."""

import os
import re
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from maintenance.base.options import check_bool
from maintenance.errors import ConfigurationError
from maintenance.stores.protocol import Store

if TYPE_CHECKING:
    from maintenance.stores.sqlite.session import SQLiteSession


class SQLiteStore(Store):
    """The flag in a file of its own, for the processes of one host, on a local disk.

    Network file systems are unsupported, because their locks are not reliable enough for SQLite. WAL mode is
    unsupported because of forks: SQLite keeps locks per process and file, and a forked child takes its parent's locks
    for its own. In WAL mode, once the parent closes its connection, the child reads and writes a log that no other
    process sees (measured). In a rollback journal, nothing is locked between two calls.

    Attributes:
        name: The URL of the absolute path.
        path: The absolute path.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Check the URL and make its path absolute; nothing is opened yet.

        Args:
            url: ``sqlite:///relative/path`` or ``sqlite:////absolute/path``; special characters %-encoded.
            create: Whether the first connection creates the file and its tables if they are missing.

        Raises:
            ConfigurationError: The URL does not name a file that can exist, or an option is wrong.
        """
        check_bool("create", create)
        self.path = os.path.abspath(_path(url))
        _check(self.path)
        self._prepared = not create
        self._session_type: type[SQLiteSession] = import_module(f"{__package__}.session").SQLiteSession
        self.name = f"sqlite:///{quote(os.fsencode(self.path))}"

    def connect(self, *, listen: bool = False, limit: float | None = None) -> "SQLiteSession":  # noqa: ARG002
        """Open a session; see `Store.connect`. `BUSY_TIMEOUT` bounds it.

        With `create`, the first connection creates the file and its tables if they are missing. A later one does not:
        a file that is missing by then is a fault, and a new file in its place would silently switch the flag off.
        """
        session = self._session_type(self.name, self.path, listen=listen, prepare=not self._prepared)
        self._prepared = True
        return session

    def migrate(self) -> None:
        """Create the file and the tables that are missing, in one transaction."""
        with closing(self._session_type(self.name, self.path, prepare=True)) as session:
            session.migrate()
        self._prepared = True


def _path(url: str) -> str:
    """Return the path that a URL names, decoded."""
    scheme, separator, rest = str(url).partition("://")
    if scheme != "sqlite" or not separator:
        raise ConfigurationError("the database URL is not SQLite's: use sqlite:///path")
    if rest in ("", "/", "/:memory:"):
        raise ConfigurationError(
            "the database URL does not name a file: use sqlite:///path, or memory:// for one process"
        )
    if not rest.startswith("/"):
        raise ConfigurationError("the database URL names a host: use sqlite:///path, with three slashes")
    if re.search(r":.*@", rest, re.DOTALL):  # the path is in the store's name, which errors show
        raise ConfigurationError(
            "the database URL has a user and password, and SQLite has neither: use sqlite:///path, with %40 for each @"
        )
    if found := re.search(r"[?#\x00]|%00", rest):
        held = found[0].replace("\0", "a NUL character")
        raise ConfigurationError(
            f"the database URL has {held}: use sqlite:///path alone, with %3F for ? and %23 for # in the path"
        )
    return os.fsdecode(unquote_to_bytes(rest[1:]))


def _check(path: str) -> None:
    """Refuse a path that cannot be a file."""
    if os.path.isdir(path):
        raise ConfigurationError(f"{path} is a folder: use sqlite:///path of a file in it")
    if not os.path.isdir(os.path.dirname(path)):
        raise ConfigurationError(
            f"the folder {os.path.dirname(path)} does not exist, or this user may not enter it: create it, let this "
            "user in, or use another path"
        )
