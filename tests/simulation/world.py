"""Time, processes and threads.

`World.now` is true time. It moves only when nothing is left to do at the present moment. What happens at the same
moment happens in an order that the seed draws. A process has a clock of its own, which begins anywhere and runs up to
1 % fast or slow, as the database's does; all that the library is told in seconds is measured by that clock. The wall
clock of a process is wrong by up to an hour, and jumps.

A thread gives way in `World.step`, which every injected call passes, and sometimes between two statements. There the
seed may let it wait for microseconds, for milliseconds (a busy machine), or for as long as `Weather.longest`; and it
may freeze the whole process, whose clock goes on.

`World.stamp` numbers what happens: a later number is a later event, so that "before" needs no time.
"""

import contextlib
import heapq
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from maintenance.base.runtime import Runtime

CLOCK_RATE = 0.01
SCHEDULE_RATE = 0.001
"""What the documentation allows, for leases and for schedules."""


@dataclass
class Weather:
    """How rough it is. All probabilities are per step."""

    unrest: float = 0.0  # that a thread gives way
    longest: float = 0.0  # seconds for which it may have to wait then
    freeze: float = 0.0  # that its whole process is frozen
    frozen: float = 0.0  # seconds, at most


@dataclass(eq=False)
class Process:
    """One process on one host. A fork and a restart are new ones."""

    world: "World"
    name: str
    host: str
    pid: int
    rate: float = 1.0
    offset: float = 0.0
    alive: bool = True
    threads: bool = True  # whether it can start any
    frozen_until: float = 0.0
    cut_until: float = 0.0  # until when no packet passes between it and the database
    may_register: bool = True  # whether its role may write instances
    may_flip: bool = True  # whether its role may write flags
    wall: float = 0.0  # seconds by which its wall clock is wrong
    leeway: Callable[[float], float] = lambda _: 0.0  # see `Server.leeway`

    def freeze(self, seconds: float) -> None:
        self.frozen_until = max(self.frozen_until, self.world.now + seconds)
        self.world.log("frozen", self.name, seconds)

    def cut(self, seconds: float) -> None:
        self.cut_until = max(self.cut_until, self.world.now + seconds)
        self.world.log("cut off", self.name, seconds)


class Thread(greenlet):
    """A greenlet of one process."""

    process: Process
    generation = 0  # moments that were queued for an earlier one are void
    read = 0  # the stamp of its latest reading of the clock
    read_at = 0.0  # its true time
    clock: Any = None  # of the database, as its process knew it when the request came
    asked = 0  # the stamp of its latest reading of the fleet


class Queue(list[Thread]):
    """Who waits for one thing. Nobody does in the child of a fork."""

    def __deepcopy__(self, _: object) -> "Queue":
        return Queue()


class World:
    """The scheduler; see the module."""

    current: "World | None" = None

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.weather = Weather()
        self.now = 0.0
        self.clock_rate = CLOCK_RATE
        self.stamps = 0
        self.trace: list[tuple[float, int, str, str, object]] = []
        self.processes: list[Process] = []
        self.oversleep = 0.0  # seconds by which a sleep may last longer than it was told
        self.over = False
        self.thread: Thread | None = None
        self._hub = getcurrent()
        self._queue: list[tuple[float, float, int, Any, int]] = []
        self._threads: list[Thread] = []
        self._pids = 100
        self.runtime = Runtime(
            clock=self.clock,
            start=self._start,
            lock=lambda: Lock(self),
            event=lambda: Event(self),
            waker=lambda: Waker(self),
            sleep=lambda seconds: self.sleep(seconds / self.process.rate + self.oversleep * self.random.random()),
            pid=lambda: self.process.pid if self.thread else 0,
            is_gone=self._is_gone,
            uniform=self.random.uniform,
        )

    def __deepcopy__(self, _: object) -> "World":
        return self

    # What happened.

    def stamp(self) -> int:
        self.stamps += 1
        return self.stamps

    def log(self, kind: str, who: str, what: object = "") -> None:
        self.trace.append((round(self.now, 6), self.stamps, kind, who, what))

    def digest(self) -> str:
        """Two equal digests are two equal stories: the generator's next number depends on every choice before."""
        return f"{zlib.crc32(repr((self.trace, self.stamps, self.random.random())).encode()):08x}"

    # Processes.

    def boot(self, name: str, host: str, *, pid: int | None = None, like: Process | None = None) -> Process:
        """A new process; `like` is another one on the same host, whose clock it shares."""
        self._pids += 1
        process = Process(self, name, host, pid or self._pids)
        drift = self.random.choice((-1.0, 1.0, self.random.uniform(-1, 1)))
        process.rate = like.rate if like else 1.0 + self.clock_rate * drift
        process.offset = like.offset if like else self.random.choice((0.0, self.random.uniform(-1e6, 1e6)))
        process.threads = like.threads if like else True
        process.wall = self.random.uniform(-3600, 3600)
        self.processes.append(process)
        return process

    @property
    def process(self) -> Process:
        assert self.thread is not None
        return self.thread.process

    @property
    def wall(self) -> float:
        """What the wall clock of the process that runs shows, in seconds."""
        return self.now + (self.thread.process.wall if self.thread else 0.0)

    def _is_gone(self, pid: int) -> bool:
        return not any(one.alive and one.pid == pid and one.host == self.process.host for one in self.processes)

    # Threads.

    def spawn(self, process: Process, function: Callable[[], object], *, after: float = 0.0) -> None:
        thread = Thread(function, self._hub)
        thread.process = process
        self._threads.append(thread)
        self._push(after, thread, thread.generation)

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Have the world itself do something: a packet arrives, a fault begins."""
        self._push(seconds, action, 0)

    def _push(self, seconds: float, what: Any, generation: int) -> None:
        self.stamps += 1
        heapq.heappush(self._queue, (self.now + seconds, self.random.random(), self.stamps, what, generation))

    def run(self, until: Callable[[], bool], *, limit: float) -> None:
        """Let things happen until `until`; `limit` is the true time at which that is a hang."""
        while not until():
            if not self._queue:
                raise AssertionError("deadlock: nothing will ever happen again")
            time, _, _, what, generation = heapq.heappop(self._queue)
            if time > limit:
                raise AssertionError(f"hang: not done at {limit:g} s")
            if not isinstance(what, Thread):
                self.now = time
                what()
                continue
            process = what.process
            if generation != what.generation or not process.alive:
                continue
            if process.frozen_until > time:
                self._push(process.frozen_until - self.now, what, generation)
                continue
            self.now = time
            self._switch(what)

    def _switch(self, thread: Thread) -> None:
        thread.generation += 1
        self.thread = thread
        thread.switch()
        self.thread = None

    def end(self) -> None:
        """Unwind every thread; from here on nothing injected has any effect."""
        self.over = True
        for thread in self._threads:
            if not thread.dead:
                with contextlib.suppress(Exception):  # the run is judged already
                    thread.throw(GreenletExit)
        self._queue.clear()

    def sleep(self, seconds: float) -> None:
        """Let true time pass for this thread."""
        self.wait(timeout=seconds)

    def wait(self, *queues: "Queue", timeout: float | None = None) -> None:
        """Wait until somebody wakes one of the queues, or for `timeout` seconds of true time."""
        thread = self.thread
        if self.over or thread is None:
            raise GreenletExit
        for queue in queues:
            queue.append(thread)
        if timeout is not None:
            self._push(max(timeout, 0.0), thread, thread.generation)
        self._hub.switch()
        if self.over:
            raise GreenletExit
        for queue in queues:
            if thread in queue:
                queue.remove(thread)

    def wake(self, queue: "Queue") -> None:
        for thread in queue:
            self._push(0.0, thread, thread.generation)
        queue.clear()

    def step(self) -> None:
        """A place where others may run first."""
        weather, random = self.weather, self.random.random
        if self.over or self.thread is None or random() >= weather.unrest:
            return
        if random() < weather.freeze:
            self.process.freeze(weather.frozen * random())
        kind = random()
        self.sleep(random() * (1e-4 if kind < 0.8 else 5e-3 if kind < 0.98 else weather.longest))

    # What the library is given.

    def clock(self) -> float:
        if self.thread is None:
            return 0.0
        self.step()
        process = self.process
        self.thread.read, self.thread.read_at = self.stamp(), self.now
        reading = process.offset + process.rate * self.now
        self.step()
        return reading

    def _start(self, function: Callable[[], None]) -> None:
        if not self.process.threads:
            raise RuntimeError("can't start new thread")
        self.spawn(self.process, function)

    @contextlib.contextmanager
    def watchdog(self, seconds: float, action: Callable[[], None]) -> Iterator[None]:
        done = False
        process = self.process

        def bark() -> None:
            if done or not process.alive:
                return
            if process.frozen_until > self.now:
                self.after(process.frozen_until - self.now, bark)
            else:
                action()

        self.after(seconds / process.rate, bark)
        try:
            yield
        finally:
            done = True


class Lock:
    """A lock of `_thread`'s."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held = False
        self._queue = Queue()

    def __enter__(self) -> None:
        self._world.step()
        while self._held and not self._world.over:
            self._world.wait(self._queue)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
        self._world.wake(self._queue)


class Event:
    """A `threading.Event`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._set = False
        self._queue = Queue()

    def set(self) -> None:
        self._set = True
        self._world.wake(self._queue)

    def wait(self, timeout: float | None = None) -> bool:
        world = self._world
        end = None if timeout is None else world.now + timeout / world.process.rate
        while not self._set and (end is None or world.now < end):
            world.wait(self._queue, timeout=None if end is None else end - world.now)
        return self._set


class Waker:
    """A `maintenance.base.runtime.Waker`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.woken = False
        self.queue = Queue()

    def wake(self) -> None:
        self.woken = True
        self._world.wake(self.queue)

    def wait(self, timeout: float, *, fd: object = None) -> bool:
        world = self._world
        end = world.now + timeout / world.process.rate
        while not self.woken and world.now < end:
            world.wait(self.queue, timeout=end - world.now)
        woken, self.woken = self.woken, False
        return woken

    def close(self) -> None:
        self._world.step()
