"""To which scopes a request belongs."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from maintenance.base.options import check_function
from maintenance.base.quoting import quote
from maintenance.base.scopes import check_scope, is_scope
from maintenance.errors import ConfigurationError
from maintenance.http.request import Request
from maintenance.http.rules import is_ambiguous, parse_path

ScopeFunction = Callable[[Request], str | Iterable[str] | None]
Scope = str | Mapping[str, str] | ScopeFunction

NONE: Final = frozenset[str]()

_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?")
"""A path that every reader reads alike. There are others, which are looked at more closely."""


class Scopes:
    """What the option `scope` of a middleware says, checked once.

    Attributes:
        function: The function that names a request's scopes; None if its path alone decides.
    """

    def __init__(self, scope: Scope | None) -> None:
        """Check the option.

        Args:
            scope: The scope of the whole app, or a mapping from path prefix to scope, or a function.

        Raises:
            ConfigurationError: It is something else. The message shows how to write it.
        """
        self.function: ScopeFunction | None = None
        self._always, self._prefixes, self._depth = NONE, dict[str, frozenset[str]](), 0
        if isinstance(scope, str):
            self._always = frozenset({_check_name(scope)})
        elif isinstance(scope, Mapping):
            self._prefixes = {
                parse_path(path, option="scope"): frozenset({_check_name(name)}) for path, name in scope.items()
            }
            self._depth = max((path.count("/") for path in self._prefixes), default=0)
        elif scope is not None:
            check_function("scope", scope)
            self.function = scope

    def __bool__(self) -> bool:
        """Whether a request can belong to any scope."""
        return bool(self._always or self._prefixes or self.function)

    def find(self, below: str, whole: str) -> frozenset[str]:
        """The scopes of a path.

        Args:
            below: Relative to the mount point, decoded.
            whole: The path as the app receives it, including the mount point.
        """
        if not self._prefixes:
            return self._always
        # Two readers of such a path can disagree about its meaning, so it belongs wherever it may lead.
        if is_ambiguous(whole):
            return frozenset().union(*self._prefixes.values())
        return self._find_longest(f"{below}/")

    def _find_longest(self, path: str) -> frozenset[str]:
        """The scope of the longest prefix of a path that ends in a slash. Looks at each parent of the path once."""
        names, prefixes, end = NONE, self._prefixes, 0
        for _ in range(self._depth):
            end = path.find("/", end) + 1
            if not end:
                break
            names = prefixes.get(path[:end], names)
        return names

    def may_touch(self, path: str, on: Mapping[str, object]) -> bool:
        """Whether a request may belong to a scope that is on. If in doubt, true. Most requests need no further look.

        Args:
            path: As the server sends it, without a mount point.
            on: The scopes that are on.
        """
        if self.function is not None:
            return True
        names = self._always
        if self._prefixes:
            if not _PLAIN.fullmatch(path):
                return True
            names = self._find_longest(f"{path}/")
        # `isdisjoint` would go through all that are on, and `any` takes twice as long.
        for name in names:  # noqa: SIM110
            if name in on:
                return True
        return False


def _check_name(name: Any) -> str:
    try:
        check_scope(name)
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(str(exc)) from None
    if name is None:
        raise ConfigurationError("scope holds None: use the name of a scope, such as 'shop'")
    checked: str = name
    return checked


def read_names(returned: object) -> frozenset[str]:
    """The scopes that a function returned.

    Raises:
        TypeError: It returned no names of scopes.
    """
    if returned is None:
        return NONE
    names = frozenset({returned} if isinstance(returned, str) else returned if isinstance(returned, Iterable) else {0})
    if not all(map(is_scope, names)):
        raise TypeError(f"scope returned {quote(returned)}: return the name of a scope, several, or None")
    return names
