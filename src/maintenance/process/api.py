"""The process's default state, and the functions that speak to it."""

import datetime as dt
import functools
import os
import threading
from typing import Any, Final
from uuid import UUID

from maintenance.base.values import Fleet, Mode, Snapshot
from maintenance.errors import ConfigurationError
from maintenance.process.state import MaintenanceState
from maintenance.stores import Store, open_store

VARIABLES: Final = ("MAINTENANCE_DATABASE_URL", "DATABASE_URL")
"""Where the default state finds its store, in this order."""

_state: MaintenanceState | None = None
_locks: dict[int, threading.Lock] = {}
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows forks nothing
    # The child may have its parent's pid, in a pid namespace of its own.
    os.register_at_fork(after_in_child=_locks.clear)


def _lock() -> threading.Lock:
    """One for each process: in the child of a fork, the thread that held the parent's is not there to let go.

    Made when it is asked for, because gevent may have patched it by then: the one that builds a state loads a driver,
    meanwhile other green threads run, and those that wait must not stop the one that they wait for.
    """
    return _locks.setdefault(os.getpid(), threading.Lock())


def database_variable() -> tuple[str, str]:
    """The variable of the environment that names a database, and the URL in it.

    Raises:
        ConfigurationError: None names one.
    """
    for variable in VARIABLES:
        if url := os.environ.get(variable, "").strip():
            return variable, url
    raise ConfigurationError(
        "no database is named: set MAINTENANCE_DATABASE_URL or DATABASE_URL, "
        "or write init_maintenance('postgresql://user@host/database')"
    )


def open_named(source: str, url: str) -> Store:
    """The store that a URL names.

    Args:
        source: Where the URL stands, for the error.
        url: What stands there.

    Raises:
        ConfigurationError: It names no store.
    """
    try:
        return open_store(url)
    except ConfigurationError as exc:
        # One that an app's own ORM reads may have to stay as it is.
        beside = f"; or leave it to the app, and set {VARIABLES[0]}" if source == VARIABLES[1] else ""
        raise ConfigurationError(f"{source}: {exc}{beside}") from exc


def _chosen(state: MaintenanceState | None) -> MaintenanceState:
    """The state that is given, else the default one.

    Raises:
        ConfigurationError: It is something else, or there is no default state, and no database is named.
    """
    check_state(state)
    return default_state() if state is None else state


def check_state(given: object) -> None:
    """Refuse what is no state.

    Raises:
        ConfigurationError: It is neither a `MaintenanceState` nor None.
    """
    if given is not None and not isinstance(given, MaintenanceState):
        # Never its value: a URL has a password in it.
        wanted = "MaintenanceState(url)" if isinstance(given, str) else "a MaintenanceState"
        raise ConfigurationError(
            f"state is of type {type(given).__name__}: write {wanted}, or None for the default one"
        )


def init_maintenance(store: Store | str | None = None, **options: Any) -> MaintenanceState:
    """Build the process's default state and read the flag once. A second call closes the first state and replaces it.

    Args:
        store: A store, or the URL of one; None for the one that the environment names.
        **options: Those of `MaintenanceState`.

    Raises:
        ConfigurationError: An option or the URL is wrong, or no database is named.
    """
    global _state
    state = MaintenanceState(open_named(*database_variable()) if store is None else store, **options)
    state.prime()
    with _lock():
        previous, _state = _state, state
    if previous is not None:
        previous.close()
    return state


def default_state() -> MaintenanceState:
    """The process's default state, built from the environment where nobody has built it yet.

    Raises:
        ConfigurationError: No database is named.
    """
    global _state  # noqa: PLW0603
    # A closed one stays: what has stopped admitting must not begin again with whatever the environment names.
    if _state is None:
        with _lock():
            if _state is None:
                _state = MaintenanceState(open_named(*database_variable()))
    return _state


def current_state() -> MaintenanceState | None:
    """The process's default state where there is one."""
    return _state


def maintenance_enabled() -> bool:
    """Whether maintenance is on, by the default state.

    Raises:
        ConfigurationError: There is no default state, and no database is named.
    """
    return default_state().enabled


def set_maintenance(
    enabled: bool,
    *,
    message: str | None = None,
    until: dt.datetime | None = None,
    retry_after: int | None = None,
    mode: Mode = "full",
    actor: str | None = None,
    updated_by: UUID | str | None = None,
    reason: str | None = None,
    state: MaintenanceState | None = None,
) -> Snapshot:
    """Flip the flag for the whole fleet: the store first, this process's memory after.

    Args:
        enabled: On or off.
        message: What visitors are told.
        until: When it is expected to end; aware.
        retry_after: Seconds, sent as ``Retry-After``.
        mode: ``full``, or ``read_only`` to let GET, HEAD and OPTIONS pass.
        actor: Who flips, as text.
        updated_by: Who flips, as the platform's own key; a UUID or its text.
        reason: Why, for the record; never shown to visitors.
        state: Another state than the default one.

    Returns:
        The snapshot as written.

    Raises:
        TypeError, ValueError: An argument is wrong; nothing was written.
        StoreError: It was not written, or that could not be learned; memory is as before.
    """
    return _chosen(state).set(
        enabled,
        message=message,
        until=until,
        retry_after=retry_after,
        mode=mode,
        actor=actor,
        updated_by=updated_by,
        reason=reason,
    )


async def aset_maintenance(enabled: bool, **options: Any) -> Snapshot:
    """`set_maintenance` in a thread, for async code: the event loop is never blocked.

    The write is never half done. A task that is cancelled by anyio or trio meanwhile ends once it has ended; one that
    asyncio cancels, as `asyncio.timeout` does, ends at once, and the write goes on.

    Args:
        enabled: On or off.
        **options: Those of `set_maintenance`.
    """
    from maintenance.base.threads import run_for_call  # noqa: PLC0415 - WSGI processes never load it

    return await run_for_call(functools.partial(set_maintenance, enabled, **options), abandon=False)


def fleet(state: MaintenanceState | None = None) -> Fleet:
    """Every registered instance and the flag, as one statement saw them.

    Args:
        state: Another state than the default one.

    Raises:
        StoreError: The store cannot be reached.
    """
    return _chosen(state).fleet()
