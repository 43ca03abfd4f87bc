"""PostgresStore: it checks the URL, opens sessions and migrates. Building one loads psycopg."""

import re
from contextlib import closing
from importlib import import_module
from itertools import cycle
from math import inf
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from maintenance.base.options import check_bool, check_seconds
from maintenance.errors import ConfigurationError
from maintenance.stores.migrations import migrations
from maintenance.stores.protocol import Store

if TYPE_CHECKING:
    from maintenance.stores.postgres.session import PostgresSession

STATEMENT_TIMEOUT: Final = 3.0
"""Seconds for a statement, a wait for a lock included; far above a read (0.3 ms, measured on a kept connection)."""

# One or several of: nothing, an IPv6 address, a name; each with or without a port. More digits than a port has may be a
# password, which libpq would quote.
_HOST: Final = r"(\[[^][/?#]*\]|[^][:,/?#]*)(:\d{,5})?"
_HOSTS: Final = re.compile(f"{_HOST}(,{_HOST})*([/?]|$)")


class PostgresStore(Store):
    """The flag in ``public.platform_settings`` of a PostgreSQL database.

    Each session is a connection of its own: autocommit, never the application's, never shared across a fork.
    """

    def __init__(
        self,
        url: str,
        *,
        listen: bool = True,
        keep_connection: bool = True,
        statement_timeout: float = STATEMENT_TIMEOUT,
    ) -> None:
        """Check the URL; nothing is connected yet.

        Args:
            url: ``postgresql://user:password@host:port/database``; libpq's parameters may follow a ``?``.
            listen: Whether to LISTEN if the server supports it. If false, changes are found by polling alone.
            keep_connection: Whether each process keeps its connection between two reads. If false, it holds none for
                most of the time, and does not LISTEN: a change is found within one TTL.
            statement_timeout: Seconds that one statement may take.

        Raises:
            ConfigurationError: The URL or an option is wrong, or libpq cannot be loaded.
        """
        check_bool("listen", listen)
        check_bool("keep_connection", keep_connection)
        check_seconds("statement_timeout", statement_timeout)
        _check(url)
        try:
            self._session_type: type[PostgresSession] = import_module(f"{__package__}.session").PostgresSession
        except ImportError as exc:
            raise ConfigurationError(
                f"psycopg cannot be loaded ({exc}): install libpq, or run pip install 'maintenance[standard]'"
            ) from exc
        self._parameters: dict[str, str] = import_module(f"{__package__}.connection").parse_url(url)
        self._listen = listen and keep_connection
        self.keep_connection = keep_connection
        self._timeout = statement_timeout
        self.name = _without_password(self._parameters)

    def connect(self, *, listen: bool = False, limit: float | None = None) -> "PostgresSession":
        return self._session_type(
            self.name,
            self._parameters,
            listen=listen and self._listen,
            statement_timeout=self._timeout,
            limit=inf if limit is None else limit,
        )

    def migrate(self) -> None:
        with closing(self.connect()) as session:
            session.migrate(migrations())


def _check(url: str) -> None:
    """Refuse a URL that libpq would misread: an error or the store's name would then show a piece of the password."""
    scheme, _, rest = str(url).partition("://")
    user, at, place = rest.rpartition("@")
    problem = ""
    if scheme not in ("postgresql", "postgres"):
        problem = "is not PostgreSQL's: use postgresql://user@host/database"
    elif "@" in user:
        problem = "has more than one @: use %40 for each @ in user and password"
    elif at and (found := re.search("[/?#]", user)):
        problem = (
            f"has {found[0]} before its @: use %{ord(found[0]):X} for each {found[0]} in user and password, "
            "and %40 for each @ after the host"
        )
    elif "\0" in rest:
        problem = "has a NUL character: remove it"
    elif "#" in place:
        problem = "has a #: use %23 for each #"
    elif not _HOSTS.match(place):
        problem = (
            "cannot be parsed: use user:password@host:port/database, with a number as the port, "
            "and with [ and ] around an IPv6 address only"
        )
    if problem:
        raise ConfigurationError(f"the database URL {problem}")


def _without_password(parameters: dict[str, str]) -> str:
    """A URL that names the same database."""
    user = f"{quote(parameters['user'], safe='')}@" if parameters.get("user") else ""
    given = parameters.get("host") or parameters.get("hostaddr", "")
    hosts, ports = given.split(","), parameters.get("port", "").split(",")
    names = [f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe="") for host in hosts]
    places = [f"{name}:{port}" if port else name for name, port in zip(names, cycle(ports), strict=False)]
    return f"postgresql://{user}{','.join(places)}/{quote(parameters.get('dbname', ''), safe='')}"
