"""Waiting in a thread, so that no event loop is blocked. Loaded by whoever has one: a WSGI process never loads it."""

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

Result = TypeVar("Result")

THREADS: Final = 40
"""How many requests, and how many other calls, may wait at the same time; the app has as many threads of its own."""

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
    """Run what a request waits for. The app's threads are the app's, so it takes none of those."""
    begun = False

    def run() -> Result:
        nonlocal begun
        begun = True
        return function()

    try:
        return await anyio.to_thread.run_sync(run, limiter=_limiter(_requests), abandon_on_cancel=True)
    except RuntimeError:
        if begun:
            raise
        # No thread can be started here: to hold the loop for a moment is better than to fail the request.
        return function()


async def run_for_call(function: Callable[[], Result], *, abandon: bool) -> Result:
    """Run what the app's own code waits for, even while all of its threads hang.

    Args:
        function: What waits.
        abandon: Whether a task that is cancelled goes on at once, and leaves the thread to itself.
    """
    return await anyio.to_thread.run_sync(function, limiter=_limiter(_calls), abandon_on_cancel=abandon)
