"""The default state of a process, and the functions that use it."""

import datetime as dt
import functools
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypedDict, Unpack
from uuid import UUID

from maintenance.base.instances import Fleet
from maintenance.base.values import Mode, Snapshot
from maintenance.errors import ConfigurationError
from maintenance.process.state import MaintenanceState
from maintenance.stores import Store, open_store

VARIABLES: Final = ("MAINTENANCE_DATABASE_URL", "DATABASE_URL")
"""The variables that name the store of the default state, in this order."""

_state: MaintenanceState | None = None
_locks: dict[int, threading.Lock] = {}
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows forks nothing
    # The child may have its parent's pid, in a pid namespace of its own.
    os.register_at_fork(after_in_child=_locks.clear)


def _lock() -> threading.Lock:
    """The lock of this process. In the child of a fork, the thread that held the parent's lock does not exist.

    It is made when it is needed, because gevent may have patched it by then. The green thread that builds a state loads
    a driver, and other green threads run during that. Those that wait must not stop the one that they wait for.
    """
    return _locks.setdefault(os.getpid(), threading.Lock())


def database_variable() -> tuple[str, str]:
    """The environment variable that names a database, and the URL in it.

    Raises:
        ConfigurationError: No variable names one.
    """
    for variable in VARIABLES:
        if url := os.environ.get(variable, "").strip():
            return variable, url
    raise ConfigurationError(
        "no database is named: set MAINTENANCE_DATABASE_URL or DATABASE_URL, "
        "or use init_maintenance('postgresql://user@host/database')"
    )


def open_named(source: str, url: str) -> Store:
    """The store that a URL names.

    Args:
        source: The variable or option that holds the URL, for the error.
        url: The URL.

    Raises:
        ConfigurationError: It names no store.
    """
    try:
        return open_store(url)
    except ConfigurationError as exc:
        # The app's own ORM may need DATABASE_URL in its present form.
        alternative = f"; or keep it for the app, and set {VARIABLES[0]}" if source == VARIABLES[1] else ""
        raise ConfigurationError(f"{source}: {exc}{alternative}") from exc


def _choose(state: MaintenanceState | None) -> MaintenanceState:
    """The given state, or the default one.

    Raises:
        ConfigurationError: It is something else; or no default state exists and no database is named.
    """
    check_state(state)
    return default_state() if state is None else state


def check_state(given: object) -> None:
    """Refuse anything but a state and None.

    Raises:
        ConfigurationError: It is neither a `MaintenanceState` nor None.
    """
    if given is not None and not isinstance(given, MaintenanceState):
        # Never its value: a URL has a password in it.
        wanted = "MaintenanceState(url)" if isinstance(given, str) else "a MaintenanceState"
        raise ConfigurationError(f"state is of type {type(given).__name__}: use {wanted}, or None for the default one")


def init_maintenance(store: Store | str | None = None, **options: Any) -> MaintenanceState:
    """Build the default state of this process and read the flag once. A second call replaces the first state.

    Args:
        store: A store, or the URL of one; None for the one that the environment names.
        **options: The options of `MaintenanceState`.

    Raises:
        ConfigurationError: An option or the URL is wrong, or no database is named.
    """
    state = MaintenanceState(open_named(*database_variable()) if store is None else store, **options)
    state.prime()
    replace_default(state)
    return state


def replace_default(state: MaintenanceState | None) -> None:
    """Make a state the default one, or none, and close the one before it."""
    global _state
    with _lock():
        previous, _state = _state, state
    if previous is not None:
        previous.close()


def build_from_environment() -> MaintenanceState:
    """Build a state for the database that the environment names. Nothing is connected.

    Raises:
        ConfigurationError: No database is named.
    """
    return MaintenanceState(open_named(*database_variable()))


_build: Callable[[], MaintenanceState] = build_from_environment


def provide_default(build: Callable[[], MaintenanceState]) -> None:
    """Build the default state with a function, when it is first needed. A state that exists stays."""
    global _build  # noqa: PLW0603
    _build = build


def default_state() -> MaintenanceState:
    """The default state of this process. If there is none yet, it is built.

    Raises:
        ConfigurationError: No database is named.
    """
    global _state  # noqa: PLW0603
    # A closed one stays: a process that refuses for good must not begin again with the environment's database.
    if _state is None:
        with _lock():
            if _state is None:
                _state = _build()
    return _state


def current_state() -> MaintenanceState | None:
    """The default state of this process, if there is one."""
    return _state


def maintenance_enabled(scope: str | None = None) -> bool:
    """Whether maintenance is on, by the default state.

    Args:
        scope: A part of the site. It is closed too while the whole site is.

    Raises:
        ConfigurationError: No default state exists and no database is named.
        TypeError, ValueError: It does not name a scope.
    """
    return default_state().is_enabled(scope)


class Flip(TypedDict, total=False):
    """The options of a flip or an edit; see `MaintenanceState.set`."""

    scope: str | None
    message: str | Mapping[str, str] | None
    starts: dt.datetime | None
    until: dt.datetime | None
    auto_off: bool
    retry_after: int | None
    mode: Mode
    actor: str | None
    updated_by: UUID | str | None
    reason: str | None
    secret: bool | str | None
    if_revision: int | None


def set_maintenance(enabled: bool, *, state: MaintenanceState | None = None, **options: Unpack[Flip]) -> Snapshot:
    """Flip a flag for the whole fleet: the store first, this process's memory after. It replaces every detail.

    Args:
        enabled: On or off.
        state: Another state than the default one.
        **options: ``scope``, ``message``, ``starts``, ``until``, ``auto_off``, ``retry_after``, ``mode``, ``actor``,
            ``updated_by``, ``reason``, ``secret`` and ``if_revision``, as in `MaintenanceState.set`.

    Returns:
        The flag as written.

    Raises:
        TypeError, ValueError: An argument is wrong; nothing was written.
        ConflictError: The flag is not at `if_revision` any more; nothing was written.
        StoreError: It was not written, or that is unknown; memory is unchanged.
    """
    return _choose(state).set(enabled, **options)


def update_maintenance(*, state: MaintenanceState | None = None, **options: Unpack[Flip]) -> Snapshot:
    """Change some details of a flag that is on or scheduled. Nothing that is not named changes.

    Args:
        state: Another state than the default one.
        **options: Those of `set_maintenance`, as in `MaintenanceState.update`.

    Returns:
        The flag as written.

    Raises:
        TypeError, ValueError: An argument is wrong; nothing was written.
        ConflictError: The flag is off, or another caller has changed it; nothing was written.
        StoreError: It was not written, or that is unknown; memory is unchanged.
    """
    return _choose(state).update(**options)


async def aset_maintenance(enabled: bool, **options: Any) -> Snapshot:
    """Run `set_maintenance` in a thread, for async code: the event loop is never blocked.

    The write is never half done. A task that anyio or trio cancels ends after the write. A task that asyncio cancels,
    as `asyncio.timeout` does, ends at once, and the write goes on.

    Args:
        enabled: On or off.
        **options: The options of `set_maintenance`.
    """
    from maintenance.base.threads import run_for_call  # noqa: PLC0415 - WSGI processes never load it

    return await run_for_call(functools.partial(set_maintenance, enabled, **options), abandon=False)


async def aupdate_maintenance(**options: Any) -> Snapshot:
    """Run `update_maintenance` in a thread, for async code; see `aset_maintenance`.

    Args:
        **options: The options of `update_maintenance`.
    """
    from maintenance.base.threads import run_for_call  # noqa: PLC0415 - WSGI processes never load it

    return await run_for_call(functools.partial(update_maintenance, **options), abandon=False)


def fleet(state: MaintenanceState | None = None) -> Fleet:
    """Every registered instance and the flag, read in one statement.

    Args:
        state: Another state than the default one.

    Raises:
        StoreError: The store cannot be reached.
    """
    return _choose(state).fleet()
