"""What passes while maintenance is on, by what is asked for: pure functions over plain values."""

import re
from collections.abc import Iterable
from typing import Final

from maintenance.base.values import Mode
from maintenance.errors import ConfigurationError

DEFAULT_EXEMPT: Final = ("/health", "/healthz", "/livez", "/readyz", "/admin")
"""So that probes do not kill pods, and the off switch stays reachable."""

READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing, as far as an app keeps to them (RFC 9110, section 9.2.1)."""

PASSES: Final[dict[Mode, frozenset[str]]] = {"full": frozenset(), "read_only": READS}
"""The methods that a mode lets pass; a WebSocket may write, whatever it asks for."""

# Two readers of such a path may disagree about what it names, so it opens nothing.
_AMBIGUOUS: Final = re.compile(r"[%\\;\x00]|//|(?:^|/)\.\.?(?:/|$)")

_RULE: Final = re.compile(r"(?:(?P<method>[A-Z]+) )?(?P<path>/[^\s?#]*)")


class Rules:
    """The exempt paths, by method."""

    def __init__(self, exempt: Iterable[str] = (), *, default_exempt: bool = True) -> None:
        """Check the rules and prepare the look-up.

        Args:
            exempt: ``"/metrics"`` for every method, or ``"GET /status"`` for one; whole segments, case and all.
            default_exempt: Whether `DEFAULT_EXEMPT` comes first.

        Raises:
            ConfigurationError: A rule is wrong; the message says what to write.
        """
        if isinstance(exempt, str | bytes):
            raise ConfigurationError(f"exempt is {exempt!r}: write a tuple, such as ({exempt!r},)")
        if not isinstance(exempt, Iterable):
            raise ConfigurationError(f"exempt is {exempt!r}: write a tuple, such as ('/metrics',)")
        rules = [_parse(rule) for rule in ((*DEFAULT_EXEMPT, *exempt) if default_exempt else exempt)]
        self._any = tuple(path for method, path in rules if method is None)
        self._only = {
            wanted: self._any + tuple(path for method, path in rules if method == wanted)
            for wanted in {method for method, _ in rules if method}
        }

    def exempts(self, method: str, path: str, whole: str) -> bool:
        """Whether a request passes by what it asks for.

        Args:
            method: As sent.
            path: Relative to the mount point, decoded.
            whole: The path as the app receives it, mount point and all.
        """
        # The slash at both ends makes a prefix a run of whole segments: /admin/ begins /admin/x/, not /administrator/.
        rules = self._only.get(method, self._any)
        return f"{path}/".startswith(rules) and not _AMBIGUOUS.search(whole)


def _parse(rule: object) -> tuple[str | None, str]:
    """A rule as (method or None, prefix that ends in a slash)."""
    if not isinstance(rule, str):
        raise ConfigurationError(f"exempt holds {rule!r}: write str, such as '/metrics' or 'GET /status'")
    match = _RULE.fullmatch(rule)
    if not match:
        raise ConfigurationError(f"exempt holds {rule!r}: write a path or METHOD /path, such as 'GET /status'")
    path = match["path"].rstrip("/")
    if not path:
        raise ConfigurationError(f"exempt holds {rule!r}, which would exempt every path: name the ones that shall pass")
    if _AMBIGUOUS.search(path):
        raise ConfigurationError(f"exempt holds {rule!r}: write a decoded path without %, \\, ;, //, . and .. segments")
    return match["method"], f"{path}/"


def relative(path: str, root: str) -> str:
    """The part of a path below its mount point.

    Args:
        path: As the server gives it: with the mount point in front (ASGI), or without it (a proxy stripped it).
        root: The mount point (``root_path``), with or without a slash at its end.
    """
    root = root.rstrip("/")
    below = path.removeprefix(root)
    return below if not below or below.startswith("/") else path
