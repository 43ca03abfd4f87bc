"""The rules that admit a request because of its method and path. Pure functions over plain values."""

import re
from collections.abc import Iterable
from typing import Final

from maintenance.base.quoting import quote
from maintenance.base.values import Mode
from maintenance.errors import ConfigurationError

PROBES: Final = ("/health", "/healthz", "/livez", "/readyz")

DEFAULT_EXEMPT: Final = (*(f"{method} {path}" for path in PROBES for method in ("GET", "HEAD")), "/admin")
"""Probes must not restart pods during maintenance, and operators must reach the off switch.

A probe only reads. Other methods stay closed, because an app may have a tenant that is called `health`.
"""

READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing in a well-behaved app (RFC 9110, section 9.2.1)."""

PASSES: Final[dict[Mode, frozenset[str]]] = {"full": frozenset(), "read_only": READS}
"""The methods that each mode admits. A WebSocket can write, so no mode admits it."""

# Two readers of such a path can disagree about its meaning, so no rule matches it.
# U+FFFD stands for bytes that are no UTF-8. The second row holds slashes that no normalization changes. NFKC turns the
# characters of the other rows into one of the first row, a slash or a dot.
_AMBIGUOUS: Final = re.compile(
    "["
    r"%\\;?#\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd"
    r"\u2044\u2215\u2216\u29f5\u29f8\u29f9"
    r"\u037e\u2024-\u2026\u2047-\u2049\u2100\u2101\u2105\u2106\u2488-\u249b\u33c2\u33c7\u33d8\ufe14\ufe16\ufe19\ufe30"
    r"\ufe52\ufe54\ufe56\ufe5f\ufe68\ufe6a\uff03\uff05\uff0e\uff0f\uff1b\uff1f\uff3c\U0001f100"
    r"]|//|(?:^|/)(?:\s|\.\.?(?:/|$))|\s(?:/|$)"
)

_AMBIGUOUS_WORDS: Final = "%, \\, ;, //, control characters, look-alikes of these, . and .. segments"

_RULE: Final = re.compile(r"(?:(?P<method>[A-Z]+) )?(?P<path>/[^\s?#]*)")


class Rules:
    """The exempt paths, by method."""

    def __init__(self, exempt: Iterable[str] = (), *, default_exempt: bool = True, paths: Iterable[str] = ()) -> None:
        """Check the rules and prepare the look-up.

        Args:
            exempt: ``"/metrics"`` for every method, or ``"GET /status"`` for one method. A rule matches whole
                segments, and its case matters.
            default_exempt: True to add the rules of `DEFAULT_EXEMPT`.
            paths: More paths that may be read: GET and HEAD are exempt there.

        Raises:
            ConfigurationError: A rule is wrong. The message shows how to write it.
        """
        if isinstance(exempt, str | bytes) or not isinstance(exempt, Iterable):
            raise ConfigurationError(f"exempt is {quote(exempt)}: use a tuple, such as ('/metrics',)")
        rules = [_parse_rule(rule) for rule in ((*DEFAULT_EXEMPT, *exempt) if default_exempt else exempt)]
        rules += [(method, f"{path}/") for path in paths for method in ("GET", "HEAD")]
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


def is_ambiguous(path: str) -> bool:
    """Return whether two readers of a path can disagree about its meaning."""
    return _AMBIGUOUS.search(path) is not None


def parse_path(path: object, *, option: str) -> str:
    """Return a path prefix of an option, with a slash at its end.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(path, str) or not path.startswith("/") or _AMBIGUOUS.search(path):
        raise ConfigurationError(f"{option} holds {quote(path)}: use a decoded path, such as '/shop'")
    return f"{path.rstrip('/')}/"


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
        raise ConfigurationError(f"exempt holds {quote(rule)}: use a decoded path without {_AMBIGUOUS_WORDS}")
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
