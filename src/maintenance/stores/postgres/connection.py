"""One psycopg connection: how it is opened, how long it may take, and what a fork does to it."""

import contextlib
import os
import re
import socket
import time
import weakref
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import cycle
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.abc import PQGen, PQGenConn
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.postgres import register_default_adapters

from maintenance.errors import ConfigurationError
from maintenance.stores.postgres.resolver import Lookup

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

RESOLVE_LIMIT: Final = 6.0
"""Seconds for the addresses of a host name. The system's resolver asks its second name server after 5 s."""

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
    usual = _usual()
    named = usual | given
    several = "," in named["host"] or "," in named["hostaddr"]
    # libpq's own default is "any". Another default comes from the environment, and stays.
    return {"target_session_attrs": "read-write"} if several and usual["target_session_attrs"] in ("", "any") else {}


def _usual() -> dict[str, str]:
    """The parameters of the environment and of libpq, for those that the URL does not name."""
    options = psycopg.pq.Conninfo.get_defaults()
    return {option.keyword.decode(): (option.val or b"").decode(errors="replace") for option in options}


class GivenUpError(psycopg.OperationalError):
    """This process ended a wait for the server, because it took too long."""


class UnresolvedError(psycopg.OperationalError):
    """The resolver did not answer in time."""


def _with_addresses(parameters: dict[str, str], deadline: float) -> dict[str, str]:
    """The parameters with the addresses of their host names, one attempt for each address, as psycopg does it.

    psycopg waits for the resolver without a limit. The names stay, for TLS and for the password file.
    """
    named = _usual() | parameters
    hosts, ports = named["host"].split(","), named["port"].split(",")
    # libpq alone reads a service file, and refuses a wrong number of ports.
    by_libpq = "service" in parameters or len(ports) not in (1, len(hosts))
    if by_libpq or named["hostaddr"] or not any(map(_is_name, hosts)):
        return parameters
    attempts = _resolve(list(zip(hosts, cycle(ports), strict=False)), deadline)
    host, port, address = (",".join(values) for values in zip(*attempts, strict=True))
    return parameters | {"host": host, "port": port, "hostaddr": address}


def _resolve(places: list[tuple[str, str]], deadline: float) -> list[tuple[str, str, str]]:
    """Find (host, port, address) for each attempt. The address is empty if no resolver is needed."""
    lookups = [Lookup.join(*place) if _is_name(place[0]) else None for place in places]
    now = time.monotonic()
    # If one of several names hangs, half of the time is left for the others.
    end = now + min(deadline - now, RESOLVE_LIMIT) / min(len(places), 2)
    attempts: list[tuple[str, str, str]] = []
    problems: list[psycopg.OperationalError] = []
    for (host, port), lookup in zip(places, lookups, strict=True):
        if lookup is not None and not lookup.wait(end):
            problems.append(UnresolvedError(f"the resolver has not found host {host!r} within {end - now:.1f} s"))
        elif lookup is not None and lookup.error is not None:
            problems.append(psycopg.OperationalError(f"failed to resolve host {host!r}: {lookup.error}"))
        else:
            attempts += [(host, port, address) for address in (lookup.addresses if lookup else [""])]
    if not attempts:
        raise problems[-1]
    return attempts


def _is_name(host: str) -> bool:
    """Whether the resolver must be asked: not for a socket's folder or an address."""
    if not host or host[0] in "/@" or host[1:2] == ":":
        return False
    with contextlib.suppress(ValueError):
        ip_address(host)
        return False
    return True


@dataclass(slots=True)
class _Attempts:
    """The attempts of one connect, which share the time until its deadline (time.monotonic)."""

    left: int
    deadline: float

    def next_end(self) -> float:
        """Until when the next attempt may last. One that fails early leaves its time to the others."""
        now = time.monotonic()
        share = (self.deadline - now) / max(self.left, 1)
        self.left -= 1
        return now + share


_attempts: ContextVar[_Attempts] = ContextVar("maintenance: attempts")
"""Of the connect under way. psycopg makes the attempts, and its own limit is 2 s or more for each."""


class Connection(psycopg.Connection[Any]):
    """A connection whose waits have a deadline, which the waiting thread checks: a second thread would cost more."""

    limit = deadline = float("inf")
    given_up = False

    def __init__(self, *args: Any, **options: Any) -> None:
        """Remember the connection, for a fork."""
        super().__init__(*args, **options)
        _connections.add(self)

    @classmethod
    def open(cls, parameters: dict[str, str], *, deadline: float) -> "Connection":
        """Connect as `parse_url` says, in autocommit, with psycopg's own adapters, preparing nothing yet."""
        named = _with_addresses(parameters, deadline)
        places = _usual() | named
        token = _attempts.set(_Attempts(max(places[name].count(",") for name in ("host", "hostaddr")) + 1, deadline))
        try:
            connection = cls.connect(
                "",
                autocommit=True,
                prepare_threshold=None,
                cursor_factory=psycopg.ClientCursor,
                context=_ADAPTERS,
                **named,  # type: ignore[arg-type]
            )
        finally:
            _attempts.reset(token)
        # Under a role's own stricter level, flips at the same time would fail.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return connection

    @classmethod
    def _connect_gen(cls, *args: Any, **options: Any) -> PQGenConn[Self]:
        """Make one attempt as psycopg does, until the end of its share at most."""
        gen, end = super()._connect_gen(*args, **options), _attempts.get().next_end()
        ready: Any = None
        try:
            while ready or time.monotonic() < end:
                ready = yield gen.send(ready)
        except StopIteration as ended:
            connection: Self = ended.value
            return connection
        raise psycopg.errors.ConnectionTimeout("connection timeout expired")

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
