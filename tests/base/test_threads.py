"""Waiting in an event loop for another thread."""

import contextvars
import subprocess
import sys
import threading

import anyio
import anyio.to_thread
import pytest

from maintenance.base.threads import LoopEvent, run_for_call

KEPT = contextvars.ContextVar("kept", default="")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_another_thread_ends_the_wait_of_a_task(backend: str) -> None:
    async def main() -> None:
        event = LoopEvent()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, event.set)
            with anyio.fail_after(10):
                await event.wait(60.0)
        await LoopEvent().wait(0.01)

    anyio.run(main, backend=backend)


def test_after_the_loop_has_ended_it_raises() -> None:
    async def make() -> LoopEvent:
        return LoopEvent()

    event = anyio.run(make)
    errors: list[BaseException] = []

    def end() -> None:
        try:
            event.set()
        except RuntimeError as exc:
            errors.append(exc)

    thread = threading.Thread(target=end)
    thread.start()
    thread.join(10)
    assert len(errors) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_function_runs_in_a_daemon_thread_and_in_the_context_of_its_task(backend: str) -> None:
    def describe() -> tuple[bool, str]:
        return threading.current_thread().daemon, KEPT.get()

    def fail() -> None:
        raise LookupError("its own")

    async def main() -> None:
        KEPT.set("yes")
        assert await run_for_call(describe, abandon=False) == (True, "yes")
        with pytest.raises(LookupError, match="its own"):
            await run_for_call(fail, abandon=True)

    anyio.run(main, backend=backend)


def test_a_task_that_waited_and_never_ends_keeps_no_process_alive() -> None:
    """Under daphne, the loop stops at SIGTERM and is not closed, and no task is cancelled."""
    script = """
import asyncio
from maintenance.base.threads import run_for_call

async def never_end():
    await run_for_call(lambda: None, abandon=False)
    loop.stop()
    await asyncio.Event().wait()

loop = asyncio.new_event_loop()
task = loop.create_task(never_end())
loop.run_forever()
"""
    subprocess.run([sys.executable, "-c", script], timeout=10, check=True, stderr=subprocess.DEVNULL)
