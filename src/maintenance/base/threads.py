"""Waiting in a thread, so that no event loop is blocked. A WSGI process never loads this module."""

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

Result = TypeVar("Result")

THREADS: Final = 40
"""How many requests, and how many other calls, may wait at the same time. The app has as many threads of its own."""

_requests: Final = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("maintenance: requests")
_calls: Final = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("maintenance: calls")


def _limiter(kept: "anyio.lowlevel.RunVar[anyio.CapacityLimiter]") -> anyio.CapacityLimiter:
    try:
        return kept.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS)
        kept.set(limiter)
        return limiter


async def run_for_request(function: Callable[[], Result]) -> Result:
    """Run a function that a request waits for, in a thread that is not one of the app's."""
    started = False

    def run() -> Result:
        nonlocal started
        started = True
        return function()

    try:
        return await anyio.to_thread.run_sync(run, limiter=_limiter(_requests), abandon_on_cancel=True)
    except RuntimeError:
        if started:
            raise
        # No thread can be started. To block the loop for a moment is better than to fail the request.
        return function()


async def run_for_call(function: Callable[[], Result], *, abandon: bool) -> Result:
    """Run a function that the app's own code waits for, even while all threads of the app hang.

    Args:
        function: The function.
        abandon: Whether a cancelled task goes on at once, while the thread finishes.
    """
    return await anyio.to_thread.run_sync(function, limiter=_limiter(_calls), abandon_on_cancel=abandon)
