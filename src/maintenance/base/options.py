"""The checks of options. Each error says what to use instead."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar, get_args

from maintenance.base.quoting import quote
from maintenance.base.values import WhenStale
from maintenance.errors import ConfigurationError

Result = TypeVar("Result")

LONGEST: Final = 1_000_000.0
"""The longest time that an option accepts, in seconds (11 days). poll(2) takes 24 days, and no lease is that long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a process follows the flag. Fixed when its state is made.

    Attributes:
        ttl: The lease, in seconds.
        when_stale: ``serve`` or ``block``, once the lease is over.
        boot_timeout: Seconds for which the first requests wait for the first read.
        register: Whether the process counts as one that serves.
        service: Which kind of process it is, such as ``web``; empty for the program's name.
    """

    ttl: float = 10.0
    when_stale: WhenStale = "serve"
    boot_timeout: float = 5.0
    register: bool = True
    service: str = ""

    def __post_init__(self) -> None:
        """Check each option.

        Raises:
            ConfigurationError: One is wrong.
        """
        check_seconds("ttl", self.ttl)
        if self.when_stale not in get_args(WhenStale):
            raise ConfigurationError(f"when_stale is {quote(self.when_stale)}: use 'serve' or 'block'")
        check_seconds("boot_timeout", self.boot_timeout)
        check_bool("register", self.register)
        service: object = self.service
        if not isinstance(service, str) or not re.fullmatch(r"[A-Za-z0-9._-]{0,50}", service):
            raise ConfigurationError(f"service is {quote(service)}: use at most 50 letters, digits and ._-")
        if self.when_stale == "block" and not self.register:
            raise ConfigurationError(
                "when_stale is 'block' and register is False: use register=True, because only a registered process "
                "may admit requests"
            )

    @property
    def limit(self) -> float:
        """Seconds for one try, and for the pause after it.

        Together they last at most min(TTL, 5 s). A TTL of a few milliseconds still leaves a try 0.2 s.
        """
        return max(min(self.ttl, 5.0) / 2, 0.2)

    @property
    def quick_limit(self) -> float:
        """Seconds for a try over a kept connection, if the store is not slow.

        A steady read comes at half of the TTL at the latest. If it hangs, enough of the lease is left for another
        connection.
        """
        return min(max(self.ttl / 5, 0.2), self.limit)


def check_bool(name: str, value: object) -> None:
    """Refuse anything but True and False.

    Raises:
        ConfigurationError: The value is something else.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is {quote(value)}: use True or False")


def check_seconds(name: str, value: object) -> None:
    """Refuse anything but a length of time.

    Raises:
        ConfigurationError: The value is not a number, not above 0, or longer than `LONGEST`.
    """
    # The comparison refuses a NaN too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST:
        raise ConfigurationError(
            f"{name} is {quote(value)}: use seconds above 0 and at most {LONGEST:g}, as a number such as 10.0"
        )


def check_list(name: str, value: object, example: str) -> None:
    """Refuse a single text, whose characters would be taken one by one, and anything that is no collection.

    Raises:
        ConfigurationError: The value is one of these.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} is {quote(value)}: use a tuple, such as {example}")


def check_result(name: str, function: object, result: Result) -> Result:
    """Return the result of a decorated function.

    Raises:
        ConfigurationError: It is awaitable, so the body runs only after what encloses it has ended.
    """
    if not inspect.isawaitable(result):
        return result
    if inspect.iscoroutine(result):
        result.close()  # or Python warns that it was never awaited
    raise ConfigurationError(
        f"{name} encloses {quote(function)}, a plain function that returns an awaitable: decorate the async "
        "function itself, or use a `with` block inside it"
    )


def check_function(name: str, value: object) -> None:
    """Refuse anything but a plain function.

    Raises:
        ConfigurationError: The value cannot be called, or its body would not run when it is called.
    """
    if not callable(value):
        raise ConfigurationError(f"{name} is {quote(value)}: use a function")
    if inspect.iscoroutinefunction(value):
        raise ConfigurationError(f"{name} is the async function {quote(value)}: use a plain one")
    if inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value):
        raise ConfigurationError(
            f"{name} is the generator {quote(value)}, whose result always counts as true: use a plain function"
        )
