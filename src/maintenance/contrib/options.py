"""The options of the state in the settings of a framework."""

from collections.abc import Mapping
from difflib import get_close_matches
from inspect import signature
from typing import Any, Final

from maintenance.base.quoting import quote
from maintenance.errors import ConfigurationError
from maintenance.process.state import MaintenanceState

_KNOWN: Final = tuple(name for name in signature(MaintenanceState).parameters if name != "store")


def read_options(setting: str, given: object, *others: str) -> dict[str, Any]:
    """Return the options of `MaintenanceState` in a setting. The state itself checks their values.

    Args:
        setting: The name of the setting, for the error.
        given: Its value.
        *others: The other keys that it may hold.

    Raises:
        ConfigurationError: It is not a mapping, or holds a wrong name.
    """
    known = (*others, *_KNOWN)
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{setting} is {quote(given)}: use a dict, such as {{'ttl': 5.0}}")
    for name in given.keys() - set(known):
        nearest = get_close_matches(str(name).lower(), known, n=1) or known
        raise ConfigurationError(f"{setting} holds {quote(name)}: use {', '.join(map(repr, nearest))}")
    return dict(given)
