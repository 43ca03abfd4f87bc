"""One psycopg connection: how it is opened, how long it may take, and what a fork does to it."""

import contextlib
import os
import re
import socket
import time
import weakref
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.postgres import register_default_adapters

from maintenance.errors import ConfigurationError

Result = TypeVar("Result")

# Measured: with these, a listener on a dead network is freed in 3 s and a query in 3.4 s. Parameters in the URL win.
# There are no `options`, because PgBouncer refuses them.
_DEFAULTS: Final = {
    "application_name": "maintenance",
    "client_encoding": "utf8",
    "connect_timeout": "2",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "5000",
}
_NUMBERS: Final = {*_DEFAULTS, "port", "keepalives"} - {"application_name", "client_encoding"}
"""The parameters that are whole numbers."""

_PIECES: Final = ":.*@|="
_MISPLACED: Final = {"user": "[:=]", "host": _PIECES, "hostaddr": _PIECES, "dbname": _PIECES}
"""The parameters that names and errors show, and what they hold if a password was written into them."""

# psycopg's own, whatever the application registered in `psycopg.adapters` for its connections.
_ADAPTERS: Final = AdaptersMap(types=psycopg.adapters.types)
register_default_adapters(_ADAPTERS)

_inherited: list[object] = []
_connections: "weakref.WeakSet[Connection]" = weakref.WeakSet()


def parse_url(url: str) -> dict[str, str]:
    """The connection parameters that a URL names, over the defaults.

    Raises:
        ConfigurationError: libpq cannot parse the URL, or a number in it is wrong.
    """
    found = None
    with contextlib.suppress(psycopg.Error, UnicodeError):
        found = conninfo_to_dict(url)
    # Raised outside of the block: the message, even as this error's context, may quote a piece of a password. From here
    # on, libpq gets each value under its name, and quotes no password.
    if found is None:
        raise ConfigurationError(
            "the database URL cannot be parsed: use postgresql://user@host:port/database, after a ? libpq's own "
            "parameters only, such as sslmode=require, and %-encode special characters, such as %26 for each &"
        )
    given = {name: str(value) for name, value in found.items() if value is not None}
    for name, signs in _MISPLACED.items():
        if re.search(signs, given.get(name, ""), re.DOTALL):
            raise ConfigurationError(
                f"the database URL has signs of a password in its {name}: use "
                "postgresql://user:password@host:port/database, and %-encode neither the : nor the @ between these"
            )
    for name in _NUMBERS & given.keys():
        # libpq refuses a number that is out of range, at each connect. psycopg reads connect_timeout, and takes 2.5.
        if not re.fullmatch(r"[0-9\s,.+-]*", given[name]):
            raise ConfigurationError(f"the database URL holds a wrong {name}: use a whole number")
    return _DEFAULTS | _primary(given) | given


def _primary(given: dict[str, str]) -> dict[str, str]:
    """The parameter that has libpq choose the primary, if the URL or the environment names several servers."""
    options = psycopg.pq.Conninfo.get_defaults()
    usual = {option.keyword.decode(): (option.val or b"").decode(errors="replace") for option in options}
    named = usual | given
    several = "," in named["host"] or "," in named["hostaddr"]
    # libpq's own default is "any". Another default comes from the environment, and stays.
    return {"target_session_attrs": "read-write"} if several and usual["target_session_attrs"] in ("", "any") else {}


class GivenUpError(psycopg.OperationalError):
    """This process ended a wait for the server, because it took too long."""


class Connection(psycopg.Connection[Any]):
    """A connection whose waits have a deadline, which the waiting thread checks: a second thread would cost more."""

    limit = deadline = float("inf")
    given_up = False

    def __init__(self, *args: Any, **options: Any) -> None:
        """Remember the connection, for a fork."""
        super().__init__(*args, **options)
        _connections.add(self)

    @classmethod
    def open(cls, parameters: dict[str, Any]) -> "Connection":
        """Connect as `parse_url` says, in autocommit, with psycopg's own adapters, preparing nothing yet."""
        connection = cls.connect(
            "",
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.ClientCursor,
            context=_ADAPTERS,
            **parameters,
        )
        # Under a role's own stricter level, flips at the same time would fail.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return connection

    def abandon(self) -> None:
        """In the child of a fork: close the descriptor, once, and send nothing, because the parent is the client.

        A descriptor that stays open would keep the server's end alive after the parent has ended.
        """
        if self in _connections:
            _connections.discard(self)
            _inherited.append(self)
            with contextlib.suppress(OSError, psycopg.Error):
                os.close(self.fileno())

    def wait(self, gen: PQGen[Result], *args: Any, **options: Any) -> Result:
        """Wait as psycopg does, until the deadline at most."""
        return super().wait(self._until_deadline(gen), *args, **options)

    def _until_deadline(self, gen: PQGen[Result]) -> PQGen[Result]:
        ready: Any = None
        try:
            while True:
                # Checked at the start, and whenever nothing is ready, which psycopg reports every 0.1 s.
                if not ready and time.monotonic() >= self.deadline:
                    self._give_up()
                wants = gen.send(ready)
                ready = yield wants
        except StopIteration as ended:
            result: Result = ended.value
            return result
        except psycopg.OperationalError as exc:
            if not self.given_up:
                raise
            raise GivenUpError(
                f"no answer within {self.limit:.3g} s: the server may hang, or wait for a synchronous standby"
            ) from exc

    def _give_up(self) -> None:
        # Made as sockets are, because os.dup takes none on Windows.
        with socket.socket(fileno=socket.dup(self.fileno())) as handle, contextlib.suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)
        self.given_up = True


def _abandon_all() -> None:
    """In the child of a fork, even if another thread of the parent was about to connect."""
    for connection in list(_connections):
        connection.abandon()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(after_in_child=_abandon_all)
