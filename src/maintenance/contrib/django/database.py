"""The database that the settings name, as a URL. Nothing here connects."""

import os
from typing import Any, Final
from urllib.parse import quote, urlencode

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.connection import ConnectionDoesNotExist

from maintenance.base.quoting import quote as quote_value
from maintenance.contrib.options import read_options as read_mapping
from maintenance.errors import ConfigurationError
from maintenance.process.api import open_named
from maintenance.process.state import MaintenanceState

_PARAMETERS: Final = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
"""The parameters of libpq, by the key of `settings.DATABASES`."""

_NOT_LIBPQ: Final = frozenset(
    {"assume_role", "isolation_level", "pool", "server_side_binding"}
    | {"autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory"}
)
"""The `OPTIONS` that Django and psycopg handle themselves."""


def read_options() -> tuple[str, dict[str, Any]]:
    """Return the alias of the database, and the options of the state.

    Raises:
        ConfigurationError: The setting `MAINTENANCE` is wrong.
    """
    options = read_mapping("MAINTENANCE", getattr(settings, "MAINTENANCE", {}), "DATABASE")
    return options.pop("DATABASE", DEFAULT_DB_ALIAS), options


def find_database() -> tuple[str, str]:
    """Return the setting that names the database, and its URL.

    Raises:
        ConfigurationError: The settings name none that can hold the flag.
    """
    alias, _ = read_options()
    try:
        connection: Any = connections[alias]
    except (ConnectionDoesNotExist, TypeError):
        known = ", ".join(map(repr, connections))
        raise ConfigurationError(
            f"MAINTENANCE['DATABASE'] is {quote_value(alias)}: use an alias of DATABASES: {known}"
        ) from None
    except ImproperlyConfigured as exc:
        raise ConfigurationError(f"DATABASES[{alias!r}] cannot be loaded: {exc}") from exc
    # Not by its engine: many packages bring an engine of their own for PostgreSQL.
    build = _URLS.get(connection.vendor)
    if build is None:
        raise ConfigurationError(
            f"DATABASES[{alias!r}] is neither PostgreSQL nor SQLite: "
            "add one that is, and name its alias in MAINTENANCE['DATABASE']"
        )
    return f"DATABASES[{alias!r}]", build(connection)


def build_state() -> MaintenanceState:
    """Build the default state. Nothing is connected.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    return MaintenanceState(open_named(*find_database()), **read_options()[1])


def _build_postgres_url(connection: Any) -> str:
    """Name everything after the ``?``: a host may be a path or a list, and any value may hold any character."""
    given = connection.settings_dict
    options = given.get("OPTIONS", {}).items()
    parameters = {key: value for key, value in options if key not in _NOT_LIBPQ}
    parameters |= {name: given[key] for key, name in _PARAMETERS.items() if given.get(key)}
    return f"postgresql://?{urlencode(parameters, quote_via=quote)}"


def _build_sqlite_url(connection: Any) -> str:
    if connection.is_in_memory_db():  # as in a test of the app: only this process sees it
        return "memory://"
    return f"sqlite:///{quote(os.fsencode(connection.settings_dict['NAME']))}"


_URLS: Final = {"postgresql": _build_postgres_url, "sqlite": _build_sqlite_url}
