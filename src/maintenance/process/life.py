"""The life of a process, as one small state machine.

========== ================================== ==================================================
phase      what requests get                  what runs
========== ================================== ==================================================
IDLE       the first one starts a life        nothing
BOOTING    they wait for the first read       a watcher
FOLLOWING  the flag, from memory              a watcher
LEAVING    the first one starts a new life    the old watcher, until nothing is in flight there
CLOSED     503                                the old watcher, until nothing is in flight there
========== ================================== ==================================================

`TRANSITIONS` lists every change of the phase. An event that it does not list changes nothing.

The `epoch` is a fencing token. LEAVE, FORK and CLOSE end it. A watcher belongs to the epoch in which it was made. Once
that epoch is over, no answer of that watcher renews the lease, and the watcher removes its row and ends.

Two more facts belong to one life. They are kept by the objects that change them:

- `Thread`, kept by the watcher: NONE -> STARTING -> RUNNING -> NONE. Unless it is RUNNING, requests read.
- `maintenance.proof.membership.Row`: ABSENT -> UNCERTAIN -> PRESENT. UNCERTAIN lasts until a later read shows the row.
"""

from enum import Enum, IntEnum, auto
from typing import Final

from maintenance.base.runtime import Runtime


class Phase(Enum):
    """The stages of a life."""

    IDLE = auto()
    BOOTING = auto()
    FOLLOWING = auto()
    LEAVING = auto()
    CLOSED = auto()


class Event(Enum):
    """What changes the phase.

    START: a request comes, or code asks. READY: the first read succeeds, or the time for it is over. LEAVE: the process
    leaves the fleet. LEFT: its watcher has ended. FORK: this is the child. CLOSE: it refuses everything from now on.
    """

    START = auto()
    READY = auto()
    LEAVE = auto()
    LEFT = auto()
    FORK = auto()
    CLOSE = auto()


class Purpose(IntEnum):
    """What a life is for.

    ASK: code asks for the flag, and the process is not registered. WORK: jobs run, and the process is registered until
    the last one ends. SERVE: requests come, and the process is registered until it leaves.
    """

    ASK = auto()
    WORK = auto()
    SERVE = auto()


class Thread(Enum):
    """The background thread of one watcher."""

    NONE = auto()
    STARTING = auto()
    RUNNING = auto()


TRANSITIONS: Final = {
    (Phase.IDLE, Event.START): Phase.BOOTING,
    (Phase.IDLE, Event.LEAVE): Phase.IDLE,  # these two end the epoch: an earlier `refresh` counts no longer
    (Phase.IDLE, Event.FORK): Phase.IDLE,
    (Phase.IDLE, Event.CLOSE): Phase.CLOSED,
    (Phase.BOOTING, Event.READY): Phase.FOLLOWING,
    (Phase.BOOTING, Event.LEAVE): Phase.LEAVING,
    (Phase.BOOTING, Event.FORK): Phase.IDLE,
    (Phase.BOOTING, Event.CLOSE): Phase.CLOSED,
    (Phase.FOLLOWING, Event.LEAVE): Phase.LEAVING,
    (Phase.FOLLOWING, Event.FORK): Phase.IDLE,
    (Phase.FOLLOWING, Event.CLOSE): Phase.CLOSED,
    (Phase.LEAVING, Event.START): Phase.BOOTING,
    (Phase.LEAVING, Event.LEFT): Phase.IDLE,
    (Phase.LEAVING, Event.FORK): Phase.IDLE,
    (Phase.LEAVING, Event.CLOSE): Phase.CLOSED,
}
"""The next phase, by the present one and the event."""

_ENDS_EPOCH: Final = frozenset({Event.LEAVE, Event.FORK, Event.CLOSE})


class Life:
    """The phase and the epoch of a process.

    Attributes:
        phase: Changed by `apply` alone.
        epoch: Grows with each LEAVE, FORK and CLOSE.
    """

    def __init__(self, *, runtime: Runtime) -> None:
        """Begin as IDLE."""
        self._make_lock = runtime.lock
        self._lock = runtime.lock()
        self.phase = Phase.IDLE
        self.epoch = 0

    @property
    def closed(self) -> bool:
        """Whether the process refuses everything for good."""
        return self.phase is Phase.CLOSED

    def apply(self, event: Event, *, epoch: int | None = None) -> bool:
        """Change the phase as `TRANSITIONS` says.

        Args:
            event: What happened.
            epoch: Ignore the event unless this is still the epoch: a watcher that lags speaks of an earlier life.

        Returns:
            Whether the phase changed.
        """
        with self._lock:
            phase = TRANSITIONS.get((self.phase, event))
            if phase is None or epoch not in (None, self.epoch):
                return False
            self.phase = phase
            if event in _ENDS_EPOCH:
                self.epoch += 1
            return True

    def fork(self) -> None:
        """Begin a life of its own in a child. A thread of the parent may hold the lock, so the child gets a new one."""
        self._lock = self._make_lock()
        self.apply(Event.FORK)
