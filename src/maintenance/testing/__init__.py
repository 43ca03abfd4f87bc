"""For the tests of an app: put this process into maintenance, without a database."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any, TypeVar, cast

from maintenance.base.flags import Flags
from maintenance.base.options import check_bool, check_result
from maintenance.base.scopes import check_scope
from maintenance.base.secret import choose_token, hash_token
from maintenance.base.values import Details, Snapshot, split_message
from maintenance.process import api
from maintenance.process.lease import Lease
from maintenance.process.state import MaintenanceState, pin_all

__all__ = ["override_maintenance"]

Function = TypeVar("Function", bound=Callable[..., Any])


class override_maintenance:  # noqa: N801 - used like a function, as the override of other libraries are
    """Have every state and every middleware of this process follow another flag than the one that is stored.

    A context manager, and a decorator of plain and async functions. No store is read, and no thread is started. A
    flip inside the block still goes to the store, and changes nothing until the end of the block.
    """

    def __init__(self, enabled: bool, scope: str | None = None, **details: Any) -> None:
        """Check the arguments.

        Args:
            enabled: On or off.
            scope: A part of the site; None for all of it.
            **details: ``message``, ``until``, ``retry_after``, ``mode``, ``actor``, ``reason`` and ``secret``, as in
                `set_maintenance`.

        Raises:
            TypeError, ValueError: An argument is wrong.
        """
        check_bool("enabled", enabled)
        check_scope(scope)
        token = choose_token(details.pop("secret", None))
        message = split_message(details.pop("message", None))
        given = Details(**message, secret=token and hash_token(token), **details)
        self._snapshot = Snapshot(enabled=enabled, scope=scope, revision=1, **asdict(given)).with_token(token)
        self._entered: list[tuple[Flags | None, MaintenanceState | None]] = []

    def __enter__(self) -> Snapshot:
        """Begin; return the flag, with the `token` of a secret."""
        before, made = Lease.pinned, None
        if api.current_state() is None:
            made = MaintenanceState("memory://")
            api.replace_default(made)
        pin_all((before or Flags(site=Snapshot(enabled=False))).put(self._snapshot))
        self._entered.append((before, made))
        return self._snapshot

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Follow what was followed before."""
        before, made = self._entered.pop()
        pin_all(before)
        if made is not None and made is api.current_state():
            api.replace_default(None)

    def __call__(self, function: Function) -> Function:
        """Override during each call of a function."""

        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            with self:
                return check_result("override_maintenance", function, function(*args, **options))

        @functools.wraps(function)
        async def arun(*args: Any, **options: Any) -> Any:
            with self:
                return await function(*args, **options)

        return cast("Function", arun if inspect.iscoroutinefunction(function) else run)
