"""The names of scopes, and the keys of their flags."""

import re
from typing import Final

KEY: Final = "maintenance_mode"
"""The key of the site's flag in ``platform_settings``. The flag of a scope has the key ``maintenance_mode:<scope>``."""

_PREFIX: Final = f"{KEY}:"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,99}")


def is_scope(name: object) -> bool:
    """Whether a value may name a scope: 1 to 100 letters, digits and ``._:@/+-``, and the first no sign."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def check_scope(name: object) -> None:
    """Refuse anything but the name of a scope, or None for the site.

    Raises:
        TypeError, ValueError: It is something else.
    """
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"scope is a {type(name).__name__}: use a str, or None for the whole site")
    if not is_scope(name):
        raise ValueError(
            f"scope is {name[:100]!r}: use 1 to 100 letters, digits and ._:@/+- that begin with a letter or a digit"
        )


def scope_key(scope: str | None) -> str:
    """The key of a flag."""
    return KEY if scope is None else f"{_PREFIX}{scope}"


def read_key(key: str) -> str | None:
    """What a key names, also if no flag can have that name; None for the site."""
    return None if key == KEY else key.removeprefix(_PREFIX)


def parse_key(key: str) -> str | None:
    """The scope that a key names; None for the site.

    Raises:
        ValueError: The key is not that of a flag.
    """
    if key == KEY:
        return None
    if not key.startswith(_PREFIX) or not is_scope(key.removeprefix(_PREFIX)):
        raise ValueError(f"{key[:100]!r} is not the key of a flag: use {KEY}, or {_PREFIX} and the name of a scope")
    return key.removeprefix(_PREFIX)
