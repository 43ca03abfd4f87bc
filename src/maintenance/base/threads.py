"""Waiting in a thread, so that no event loop is blocked. A WSGI process never loads this module."""

import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

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


async def _run(
    function: Callable[[], Result], limit: "anyio.lowlevel.RunVar[anyio.CapacityLimiter]", *, abandon: bool
) -> Result:
    """Run a function in a daemon thread.

    The threads of `anyio.to_thread` end with the task that started the first of them, and the interpreter waits for
    their end. Under daphne, that task may be a WebSocket that never ends.

    Raises:
        RuntimeError: No thread can be started; or the function raised it.
    """
    future: Future[Result] = Future()
    async with _limiter(limit):
        done, context = LoopEvent(), contextvars.copy_context()
        work = functools.partial(context.run, _finish, function, future, done)
        threading.Thread(target=work, name="maintenance: call", daemon=True).start()
        with anyio.CancelScope(shield=not abandon):
            await done.wait(float("inf"))
    return future.result()


def _finish(function: Callable[[], Result], future: "Future[Result]", done: "LoopEvent") -> None:
    try:
        future.set_result(function())
    except BaseException as exc:  # noqa: BLE001 - it is raised in the task that waits
        future.set_exception(exc)
    with contextlib.suppress(RuntimeError):  # the event loop has ended, and no task waits
        done.set()


async def run_for_request(function: Callable[[], Result]) -> Result:
    """Run a function that a request waits for, in a thread that is not one of the app's."""
    started = False

    def run() -> Result:
        nonlocal started
        started = True
        return function()

    try:
        return await _run(run, _requests, abandon=True)
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
    return await _run(function, _calls, abandon=abandon)


async def run_shielded(function: Callable[[], None]) -> None:
    """Run a function that cleans up, although the task is being cancelled."""
    with anyio.CancelScope(shield=True):
        await run_for_call(function, abandon=False)


class LoopEvent:
    """An event that a task waits for, and that another thread sets."""

    def __init__(self) -> None:
        """Belong to the running event loop."""
        self._event, self._token = anyio.Event(), anyio.lowlevel.current_token()

    def set(self) -> None:
        """End the wait.

        Raises:
            RuntimeError: The event loop has ended.
        """
        anyio.from_thread.run_sync(self._event.set, token=self._token)

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - as of threading.Event
        """Wait for `timeout` seconds at most."""
        with anyio.move_on_after(timeout):
            await self._event.wait()
