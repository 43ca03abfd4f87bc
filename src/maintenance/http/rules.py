"""The rules that admit a request because of its method and path. Pure functions over plain values."""

import re
from collections.abc import Iterable
from typing import Final

from maintenance.base.options import check_list
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
# characters of the other rows into one of the first row, a slash or a dot. Some frameworks add a missing first slash.
_AMBIGUOUS: Final = re.compile(
    "["
    r"%\\;?#\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd"
    r"\u2044\u2215\u2216\u29f5\u29f8\u29f9"
    r"\u037e\u2024-\u2026\u2047-\u2049\u2100\u2101\u2105\u2106\u2488-\u249b\u33c2\u33c7\u33d8\ufe14\ufe16\ufe19\ufe30"
    r"\ufe52\ufe54\ufe56\ufe5f\ufe68\ufe6a\uff03\uff05\uff0e\uff0f\uff1b\uff1f\uff3c\U0001f100"
    r"]|^[^/]|//|(?:^|/)(?:\s|\.\.?(?:/|$))|\s(?:/|$)"
)

_AMBIGUOUS_WORDS: Final = "%, \\, ;, //, control characters, look-alikes of these, . and .. segments"

_RULE: Final = re.compile(r"(?:(?P<method>[A-Z]+(?:-[A-Z]+)*) )?(?P<exact>=)?(?P<path>/[^\s?#]*)")

_PATTERN: Final = re.compile(
    r"(?P<expression>\.[*+]|\(\?|[\[\]|^]|\\[dws])|(?P<wildcard>\*)|(?P<parameter>[<>{}])|(?P<anchor>\$$)"
)
"""Signs of the patterns of other tools, which would match no request."""

_INSTEAD: Final = {
    "expression": "a rule is not a regular expression: use '/x' for a path and all below it, or '=/x' for it alone",
    "wildcard": "a rule covers all paths below its own: leave out the wildcard",
    "parameter": "a rule covers all paths below its own: end it before the parameter",
    "anchor": "a rule for exactly one path has a sign in front, as in '=/x' or 'GET =/x'",
}


class Rules:
    """Paths by method: those that are exempt, or those that only read."""

    def __init__(
        self,
        given: Iterable[str] = (),
        *,
        default_exempt: bool = True,
        paths: Iterable[str] = (),
    ) -> None:
        """Check the rules of the option `exempt` and prepare the look-up.

        Args:
            given: ``"/metrics"`` for every method, or ``"GET /status"`` for one method. A rule matches whole segments,
                and its case matters. ``"GET =/"`` matches exactly that path.
            default_exempt: True to add the rules of `DEFAULT_EXEMPT`.
            paths: More paths that may be read: GET and HEAD are exempt there.

        Raises:
            ConfigurationError: A rule is wrong. The message shows how to write it.
        """
        check_list("exempt", given, "('/metrics',)")
        rules = [_parse_rule("exempt", rule) for rule in ((*DEFAULT_EXEMPT, *given) if default_exempt else given)]
        self._prepare([*rules, *((method, f"{path}/", False) for path in paths for method in ("GET", "HEAD"))])

    @classmethod
    def of_reads(cls, given: Iterable[str]) -> "Rules | None":
        """Check the rules of the option `reads`. Each names a method, and may name every path.

        Returns:
            None if there are no rules.

        Raises:
            ConfigurationError: A rule is wrong. The message shows how to write it.
        """
        check_list("reads", given, "('POST /search',)")
        rules = [_parse_rule("reads", rule, whole_site=True) for rule in given]
        for method, path, _ in rules:
            if method is None:
                raise ConfigurationError(f"reads holds {quote(path)}: name a method too, as in 'POST /search'")
        made = cls(default_exempt=False)
        made._prepare(rules)
        return made if rules else None

    def _prepare(self, rules: list["Rule"]) -> None:
        methods = {method for method, _, _ in rules}
        # A rule without a method also opens the methods that have rules of their own.
        self._by_method = {
            wanted: (
                tuple(path for method, path, exact in rules if method in (None, wanted) and not exact),
                frozenset(path for method, path, exact in rules if method in (None, wanted) and exact),
            )
            for wanted in methods | {None}
        }
        self._any = self._by_method[None]

    def exempts(self, method: str, path: str, whole: str) -> bool:
        """Return whether a rule matches a request.

        Args:
            method: As sent.
            path: Relative to the mount point, decoded.
            whole: The path as the app receives it, including the mount point.
        """
        prefixes, exact = self._by_method.get(method, self._any)
        # The slash at both ends makes a prefix match whole segments: /admin/ matches /admin/x/, not /administrator/.
        matches = f"{path}/".startswith(prefixes) or (bool(exact) and (path or "/") in exact)
        return matches and not _AMBIGUOUS.search(whole)


def is_ambiguous(path: str) -> bool:
    """Return whether two readers of a path can disagree about its meaning."""
    return _AMBIGUOUS.search(path) is not None


def parse_path(path: object, *, option: str) -> str:
    """Return a path prefix of an option, with a slash at its end.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(path, str) or not path.startswith("/") or _AMBIGUOUS.search(path) or _PATTERN.search(path):
        raise ConfigurationError(f"{option} holds {quote(path)}: use a decoded path, such as '/shop'")
    return f"{path.rstrip('/')}/"


Rule = tuple[str | None, str, bool]
"""(method or None, path, whether exactly that path is meant). Any other path ends in a slash."""


def _parse_rule(option: str, rule: object, *, whole_site: bool = False) -> Rule:
    holds = f"{option} holds {quote(rule)}"
    if not isinstance(rule, str):
        raise ConfigurationError(f"{holds}: use str, such as '/metrics' or 'GET /status'")
    if pattern := _PATTERN.search(rule):
        raise ConfigurationError(f"{holds}: {_INSTEAD[str(pattern.lastgroup)]}")
    match = _RULE.fullmatch(rule)
    if not match:
        raise ConfigurationError(f"{holds}: use a path or METHOD /path, such as 'GET /status'")
    path = match["path"] if match["exact"] else f"{match['path'].rstrip('/')}/"
    if path == "/" and not match["exact"] and not whole_site:
        raise ConfigurationError(f"{holds}, which would exempt every path: name the paths to exempt")
    if _AMBIGUOUS.search(path):
        raise ConfigurationError(f"{holds}: use a decoded path without {_AMBIGUOUS_WORDS}")
    return match["method"], path, bool(match["exact"])


def strip_mount(path: str, root: str) -> str:
    """Return the part of a path below its mount point.

    Args:
        path: As the server sends it: with the mount point in front (ASGI), or without it (if a proxy stripped it).
        root: The mount point (``root_path``), with or without a slash at its end.
    """
    root = root.rstrip("/")
    below = path.removeprefix(root)
    return below if not below or below.startswith("/") else path
