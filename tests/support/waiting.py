"""Waiting for another process or thread, always with a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(predicate: Callable[[], T], timeout: float = 10.0, *, interval: float = 0.02, what: str = "") -> T:
    """Ask until the answer is truthy, and return it.

    Args:
        predicate: Called until it returns something truthy. Its exceptions pass.
        timeout: Seconds after which it is a failure.
        interval: Seconds between two questions.
        what: The expected event, for the failure's message.

    Raises:
        AssertionError: The answer was falsy all along; the message holds the last one.
    """
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            waited_for = what or getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"not within {timeout:g} s: {waited_for}; the last answer was {answer!r}")
        time.sleep(interval)
    return answer
