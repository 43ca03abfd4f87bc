"""A fleet as seen from outside: its processes, and the faults that can happen to them."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from maintenance.base.values import WhenStale
from maintenance.stores import PostgresStore
from tests.support.postgres import DURABLE, Server, server
from tests.support.relay import Relay
from tests.support.waiting import eventually
from tests.torture.slots import Sight, Slots

ROOT = Path(__file__).parents[2]


@dataclass(eq=False)
class Process:
    """A process of the fleet.

    Attributes:
        slot: The slot in which it records its requests.
        when_stale: Its policy.
        ttl: Its lease, in seconds.
        relay: The relay between it and the database, if any.
        parent: The process that forked it; None for the nursery.
        pid: 0 until it runs.
        handle: It, and no later process or thread of the same number.
        seen: How many of its slot's entries have been looked at.
        answered: How many requests it had let in and refused at the last look.
    """

    slot: int
    when_stale: WhenStale
    ttl: float
    relay: Relay | None = None
    parent: "Process | None" = None
    pid: int = 0
    handle: psutil.Process | None = None
    seen: int = 0
    answered: tuple[int, int] = (0, 0)

    def signal(self, number: signal.Signals) -> None:
        with suppress(psutil.NoSuchProcess):
            if self.handle is not None:
                self.handle.send_signal(number)

    def runs(self) -> bool:
        return self.handle is not None and self.handle.is_running()


@dataclass
class Fleet:
    """Starts processes through a nursery, breaks them, and reads their records.

    Attributes:
        server: The database.
        pace: Seconds between two requests of a process, on average.
        members: Those that are alive.
    """

    server: Server
    pace: float
    slots: Slots
    nursery: "subprocess.Popen[str]"
    members: list[Process] = field(default_factory=list)
    _free: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free = list(range(self.slots.number))

    @property
    def url(self) -> str:
        return self.server.url()

    def spawn(self, *, when_stale: WhenStale, ttl: float, relay: Relay | None = None) -> Process:
        process = Process(self._slot(), when_stale, ttl, relay)
        url = self.server.url(port=relay.port if relay else None)
        options = {"slot": process.slot, "url": url, "ttl": ttl, "when_stale": when_stale, "pace": self.pace}
        assert self.nursery.stdin is not None
        self.nursery.stdin.write(json.dumps(options) + "\n")
        self.nursery.stdin.flush()
        self.members.append(process)
        return process

    def fork(self, parent: Process) -> Process:
        """Have a process fork in mid-service."""
        child = Process(self._slot(), parent.when_stale, parent.ttl, parent.relay, parent)
        self.slots.ask_fork(parent.slot, child.slot)
        self.members.append(child)
        return child

    def kill(self, process: Process) -> list[Process]:
        """Kill a process, and with it those that it has forked; returns them all."""
        ended = [process]
        for other in self.members:
            if other.parent in ended:
                ended.append(other)
        self.await_pids(ended)
        process.signal(signal.SIGKILL)
        for one in ended:
            self.members.remove(one)
        return ended

    def bury(self, ended: Iterable[Process]) -> None:
        """Use the slots of the dead again, once their last entries have been looked at."""
        for process in ended:
            eventually(lambda one=process: not one.runs(), what=f"the end of process {process.pid}")
            self._free.append(process.slot)

    def await_pids(self, processes: Iterable[Process]) -> None:
        """Wait until processes run."""
        for process in processes:
            if process.handle is None:
                process.pid = eventually(
                    lambda slot=process.slot: self.slots.pid(slot), 30, interval=0.002, what="a process's start"
                )
                process.handle = psutil.Process(process.pid)

    def await_service(self, processes: Iterable[Process], timeout: float = 30.0) -> None:
        """Wait until each process has admitted one more request."""
        before = {process.slot: self.slots.admitted(process.slot) for process in processes}
        eventually(
            lambda: all(self.slots.admitted(slot) > count for slot, count in before.items()),
            timeout,
            interval=0.002,
            what="a request that each process admits",
        )

    def new(self, process: Process) -> Iterator[Sight]:
        """The handlers that were seen since the last look."""
        for sight in self.slots.new(process.slot, process.seen):
            process.seen += 1
            yield sight

    def count_answers(self, process: Process) -> tuple[int, int]:
        """How many requests it has let in and refused since the last look."""
        before, now = process.answered, (self.slots.admitted(process.slot), self.slots.refused(process.slot))
        process.answered = now
        return now[0] - before[0], now[1] - before[1]

    def _slot(self) -> int:
        slot = self._free.pop(0)
        self.slots.start(slot)
        return slot


@contextmanager
def fleet(*, slots: int, pace: float, relays: int = 0) -> Iterator[tuple[Fleet, list[Relay]]]:
    """An empty fleet over a migrated database of its own, and relays to it; nothing of it survives."""
    with ExitStack() as stack:
        database = stack.enter_context(server(**DURABLE))
        PostgresStore(database.url()).migrate()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maintenance-fleet-")))
        memory = Slots(folder / "slots", slots)
        ways = [stack.enter_context(Relay(database.port)) for _ in range(relays)]
        nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.nursery", memory.path],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        stack.callback(_end, nursery)
        yield Fleet(database, pace, memory, nursery), ways


def _end(nursery: "subprocess.Popen[str]") -> None:
    nursery.kill()  # and the kernel kills every process that it has forked
    nursery.wait()
    assert nursery.stdin is not None
    nursery.stdin.close()
