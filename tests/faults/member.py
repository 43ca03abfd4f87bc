"""One process that serves, and measures itself: ``python -m tests.faults.member OPTIONS``.

It asks a WSGI and an ASGI app over one state, again and again. It obeys words on its standard input, and answers each
with one line of JSON.
"""

import asyncio
import contextlib
import encodings.unicode_escape  # noqa: F401 - loaded late otherwise, by an account that may not read it
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import anyio
import anyio.to_thread

from maintenance import MaintenanceState, asgi, wsgi
from tests.support import plain_apps
from tests.support.clients import Answer, acall_asgi, call_wsgi

MESSAGE: Final = "closed by hand"
"""The message of the flag. A process that does not know the flag cannot show it."""

TICK: Final = 0.005
CLIENTS: Final = 2


def name_answer(answer: Answer) -> str:
    """Return the status, or `unknown` if a process refuses because it does not know the flag."""
    known = answer.status != 503 or MESSAGE.encode() in answer.body
    return str(answer.status) if known else "unknown"


def _waited_for_processor() -> float:
    """Seconds for which this thread could run and did not; 0 where Linux does not count them."""
    with contextlib.suppress(OSError), open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as counts:
        return int(counts.read().split()[1]) / 1e9
    return 0.0


class Gaps:
    """The moments in which a ticker did not tick."""

    def __init__(self, keep: int | None) -> None:
        self.found: deque[tuple[float, float]] = deque(maxlen=keep)
        self.begin()

    def begin(self) -> None:
        self._waited, self._before = _waited_for_processor(), time.monotonic()

    def end(self) -> None:
        """Note a gap, without the time in which this thread could run and got no processor."""
        now, waited = time.monotonic(), _waited_for_processor()
        late = now - self._before - (waited - self._waited) - TICK
        if late > 2 * TICK:
            self.found.append((now - late, now))


class Notes(logging.Handler):
    """The lines of the library's log, and when they came."""

    def __init__(self, keep: int | None) -> None:
        super().__init__()
        self.lines: deque[tuple[float, str]] = deque(maxlen=keep)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((time.monotonic(), record.getMessage()))


class Member:
    """The apps over one state, and what their clients saw; only the last of it if `keep` is a number."""

    def __init__(self, state: MaintenanceState, *, keep: int | None = None) -> None:
        self.state, self.notes = state, Notes(keep)
        self.wsgi = wsgi.MaintenanceMiddleware(plain_apps.wsgi, state)
        self.asgi = asgi.MaintenanceMiddleware(plain_apps.asgi, state)
        self.seen: deque[tuple[float, float, str, bool]] = deque(maxlen=keep)
        self.loop_gaps = Gaps(keep)
        self.thread_gaps: deque[tuple[float, float]] = deque(maxlen=keep)
        self.over, self.forking = threading.Event(), threading.Event()

    def note(self, sent: float, answer: Answer | Exception) -> None:
        name = repr(answer) if isinstance(answer, Exception) else name_answer(answer)
        self.seen.append((sent, time.monotonic(), name, False))

    def ask(self) -> None:
        while not self.over.wait(0.01):
            sent = time.monotonic()
            try:
                self.note(sent, call_wsgi(self.wsgi))
            except Exception as exc:  # noqa: BLE001 - it is judged
                self.note(sent, exc)

    async def ask_asgi(self) -> None:
        while not self.over.is_set():
            await asyncio.sleep(0.01)
            sent = time.monotonic()
            try:
                self.note(sent, await acall_asgi(self.asgi))
            except Exception as exc:  # noqa: BLE001 - it is judged
                self.note(sent, exc)

    async def tick_loop(self) -> None:
        while not self.over.is_set():
            self.loop_gaps.begin()
            await asyncio.sleep(TICK)
            self.loop_gaps.end()

    def tick(self) -> None:
        """Tick beside the event loop. If both stand still, the process got no time, and nothing blocks the loop."""
        while not self.over.is_set():
            before = time.monotonic()
            time.sleep(TICK)
            now = time.monotonic()
            if now - before > 3 * TICK:
                self.thread_gaps.append((before + TICK, now))

    def fork(self) -> None:
        """Fork again and again. Each child asks once."""
        while not self.over.wait(0.1):
            if self.forking.is_set():
                self.ask_in_child()

    def ask_in_child(self) -> None:
        reader, writer = os.pipe()
        sent = time.monotonic()
        if os.fork() == 0:
            with contextlib.suppress(BaseException):
                os.write(writer, name_answer(call_wsgi(self.wsgi)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as told:
            name = told.read() or "a child died"
        self.seen.append((sent, time.monotonic(), name, True))
        os.wait()

    def obey(self) -> None:
        """Do what the words say, until the input ends."""
        words: dict[str, Callable[[], Any]] = {
            "status": lambda: [self.state.status().condition, self.seen[-1][2] if self.seen else None],
            "fork": self.forking.set,
            "no fork": self.forking.clear,
            "report": self.report,
        }
        for line in sys.stdin:
            print(json.dumps(words[line.strip()]()), flush=True)
        self.over.set()

    def report(self) -> dict[str, Any]:
        return {
            "seen": list(self.seen),
            "loop_gaps": list(self.loop_gaps.found),
            "thread_gaps": list(self.thread_gaps),
            "lines": list(self.notes.lines),
        }

    async def run(self) -> None:
        workers = [self.ask] * CLIENTS + [self.tick, self.fork, self.obey]
        for worker in workers:
            threading.Thread(target=worker, daemon=True).start()
        await asyncio.gather(self.tick_loop(), *(self.ask_asgi() for _ in range(CLIENTS)))


def _warm_up() -> None:
    """Load what is loaded late. Another account may not be able to read Python's own folder."""
    with contextlib.closing(MaintenanceState("memory://")) as state:
        member = Member(state)
        call_wsgi(member.wsgi)
        asyncio.run(acall_asgi(member.asgi))
        anyio.run(anyio.to_thread.run_sync, state.status)


def main() -> None:
    options = json.loads(sys.argv[1])
    state = MaintenanceState(options["url"], ttl=options["ttl"], when_stale=options["when_stale"])
    member = Member(state, keep=options["keep"])
    logging.getLogger("maintenance").addHandler(member.notes)
    if options["user"]:
        _warm_up()
        os.setgid(options["user"])
        os.setuid(options["user"])
    asyncio.run(member.run())
    state.close()


if __name__ == "__main__":
    main()
