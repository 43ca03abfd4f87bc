"""The rules that admit a request because of its method and path. Pure functions over plain values."""

import re
from collections.abc import Iterable
from typing import Final

from maintenance.base.quoting import quote
from maintenance.base.values import Mode
from maintenance.errors import ConfigurationError

DEFAULT_EXEMPT: Final = ("/health", "/healthz", "/livez", "/readyz", "/admin")
"""Probes must not restart pods during maintenance, and operators must reach the off switch."""

READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing in a well-behaved app (RFC 9110, section 9.2.1)."""

PASSES: Final[dict[Mode, frozenset[str]]] = {"full": frozenset(), "read_only": READS}
"""The methods that each mode admits. A WebSocket can write, so no mode admits it."""

# Two readers of such a path can disagree about its meaning, so no rule matches it.
_AMBIGUOUS: Final = re.compile(r"[%\\;\x00]|//|(?:^|/)\.\.?(?:/|$)")

_RULE: Final = re.compile(r"(?:(?P<method>[A-Z]+) )?(?P<path>/[^\s?#]*)")


class Rules:
    """The exempt paths, by method."""

    def __init__(self, exempt: Iterable[str] = (), *, default_exempt: bool = True) -> None:
        """Check the rules and prepare the look-up.

        Args:
            exempt: ``"/metrics"`` for every method, or ``"GET /status"`` for one method. A rule matches whole
                segments, and its case matters.
            default_exempt: True to add the rules of `DEFAULT_EXEMPT`.

        Raises:
            ConfigurationError: A rule is wrong. The message shows how to write it.
        """
        if isinstance(exempt, str | bytes) or not isinstance(exempt, Iterable):
            raise ConfigurationError(f"exempt is {quote(exempt)}: use a tuple, such as ('/metrics',)")
        rules = [_parse_rule(rule) for rule in ((*DEFAULT_EXEMPT, *exempt) if default_exempt else exempt)]
        self._any = tuple(prefix for method, prefix in rules if method is None)
        # A rule without a method also opens the methods that have rules of their own.
        self._by_method = {
            wanted: self._any + tuple(prefix for method, prefix in rules if method == wanted)
            for wanted in {method for method, _ in rules if method}
        }

    def exempts(self, method: str, path: str, whole: str) -> bool:
        """Return whether a request is exempt.

        Args:
            method: As sent.
            path: Relative to the mount point, decoded.
            whole: The path as the app receives it, including the mount point.
        """
        prefixes = self._by_method.get(method, self._any)
        # The slash at both ends makes a prefix match whole segments: /admin/ matches /admin/x/, not /administrator/.
        return f"{path}/".startswith(prefixes) and not _AMBIGUOUS.search(whole)


def _parse_rule(rule: object) -> tuple[str | None, str]:
    """Return a rule as (method or None, prefix that ends in a slash)."""
    if not isinstance(rule, str):
        raise ConfigurationError(f"exempt holds {quote(rule)}: use str, such as '/metrics' or 'GET /status'")
    match = _RULE.fullmatch(rule)
    if not match:
        raise ConfigurationError(f"exempt holds {quote(rule)}: use a path or METHOD /path, such as 'GET /status'")
    path = match["path"].rstrip("/")
    if not path:
        raise ConfigurationError(f"exempt holds {quote(rule)}, which would exempt every path: name the paths to exempt")
    if _AMBIGUOUS.search(path):
        raise ConfigurationError(
            f"exempt holds {quote(rule)}: use a decoded path without %, \\, ;, //, . and .. segments"
        )
    return match["method"], f"{path}/"


def strip_mount(path: str, root: str) -> str:
    """Return the part of a path below its mount point.

    Args:
        path: As the server sends it: with the mount point in front (ASGI), or without it (if a proxy stripped it).
        root: The mount point (``root_path``), with or without a slash at its end.
    """
    root = root.rstrip("/")
    below = path.removeprefix(root)
    return below if not below or below.startswith("/") else path
