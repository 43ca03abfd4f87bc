"""What an option has to be, asked when it is given; each error says what to write instead."""

import inspect
from typing import Final, get_args

from maintenance.base.values import WhenStale
from maintenance.errors import ConfigurationError

LONGEST: Final = 1_000_000.0
"""The longest time that an option may name, in seconds (11 days): poll(2) takes 24 days, and no lease is that long."""


def check_bool(name: str, value: object) -> None:
    """Refuse what is neither True nor False.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is {value!r}: write True or False")


def check_seconds(name: str, value: object) -> None:
    """Refuse what is no length of time.

    Raises:
        ConfigurationError: It is no number, or not above 0, or longer than `LONGEST`.
    """
    # A NaN is not above 0 either.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST:
        raise ConfigurationError(
            f"{name} is {value!r}: write seconds above 0 and at most {LONGEST:g}, as a number such as 10.0"
        )


def check_function(name: str, value: object) -> None:
    """Refuse what cannot be called, or would only be called and never run.

    Raises:
        ConfigurationError: It is no function, or an async one.
    """
    if not callable(value):
        raise ConfigurationError(f"{name} is {value!r}: write a function")
    if inspect.iscoroutinefunction(value):
        raise ConfigurationError(f"{name} is the async function {value!r}: write a plain one")
    if inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value):
        raise ConfigurationError(
            f"{name} is the generator {value!r}, whose answer would always count as true: write a plain function"
        )


def check_when_stale(value: object) -> None:
    """Refuse what is neither ``serve`` nor ``block``.

    Raises:
        ConfigurationError: It is something else.
    """
    if value not in get_args(WhenStale):
        raise ConfigurationError(f"when_stale is {value!r}: write 'serve' or 'block'")
