"""The life of a process as a table: every phase, every event, and what becomes of the epoch."""

import pytest

from maintenance import MaintenanceState
from maintenance.process.life import TRANSITIONS, Event, Life, Phase, Thread
from maintenance.proof.membership import Row
from tests.support.clock import Clock, Queue, hang, runtime
from tests.support.faulty import FaultyStore
from tests.support.life import watcher_of

IDLE, BOOTING, FOLLOWING, LEAVING, CLOSED = Phase

TABLE = {
    #            START    READY      LEAVE    LEFT     FORK   CLOSE
    IDLE:      (BOOTING, IDLE,      IDLE,    IDLE,    IDLE,  CLOSED),
    BOOTING:   (BOOTING, FOLLOWING, LEAVING, BOOTING, IDLE,  CLOSED),
    FOLLOWING: (FOLLOWING, FOLLOWING, LEAVING, FOLLOWING, IDLE, CLOSED),
    LEAVING:   (BOOTING, LEAVING,   LEAVING, IDLE,    IDLE,  CLOSED),
    CLOSED:    (CLOSED,) * 6,
}  # fmt: skip
ENDS_EPOCH = {
    *((IDLE, event) for event in (Event.LEAVE, Event.FORK, Event.CLOSE)),
    *((phase, event) for phase in (BOOTING, FOLLOWING) for event in (Event.LEAVE, Event.FORK, Event.CLOSE)),
    *((LEAVING, event) for event in (Event.FORK, Event.CLOSE)),
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("phase", Phase)
def test_each_event_leads_from_each_phase_to_the_next(phase: Phase, event: Event) -> None:
    life = Life(runtime=runtime(Clock()))
    life.phase = phase
    after = TABLE[phase][list(Event).index(event)]
    assert life.apply(event) is ((phase, event) in TRANSITIONS)
    assert life.phase is after
    assert life.epoch == ((phase, event) in ENDS_EPOCH)
    assert life.closed is (after is CLOSED)


def test_an_event_of_an_earlier_epoch_changes_nothing() -> None:
    life = Life(runtime=runtime(Clock()))
    life.apply(Event.START)
    life.apply(Event.LEAVE)
    life.apply(Event.START)
    assert not life.apply(Event.READY, epoch=0)
    assert life.phase is BOOTING
    assert life.apply(Event.READY, epoch=1)


def test_a_child_takes_no_lock_of_its_parent() -> None:
    def locked() -> None:
        raise AssertionError("the parent's thread holds it, and the child does not have that thread")

    lock = Queue()
    locks = iter([lock, Queue()])
    life = Life(runtime=runtime(Clock(), lock=lambda: next(locks)))
    lock.first = locked
    life.fork()
    assert (life.phase, life.epoch) == (IDLE, 1)


# The same table, walked by a real state: phase, thread, row, and whether the lease runs.


def facts(state: MaintenanceState) -> tuple[Phase, Thread | None, Row | None, bool]:
    watcher = state.lifecycle.watcher
    thread, row = (watcher.thread, watcher.reader.membership.row) if watcher else (None, None)
    return state.lease.life.phase, thread, row, state.lease.running


def test_a_life_from_its_first_request_to_its_end(threadless: MaintenanceState) -> None:
    state = threadless
    assert facts(state) == (IDLE, None, None, False)
    state.start()
    assert facts(state) == (BOOTING, Thread.NONE, Row.ABSENT, False)
    state.wait_for_answer()
    assert facts(state) == (FOLLOWING, Thread.NONE, Row.PRESENT, True)
    state.leave()
    assert facts(state) == (IDLE, None, None, False)
    state.wait_for_answer()
    assert facts(state) == (FOLLOWING, Thread.NONE, Row.PRESENT, True)
    state.fork()
    assert facts(state) == (IDLE, None, None, False)
    state.close()
    assert facts(state) == (CLOSED, None, None, False)
    state.start()
    state.leave()
    state.fork()
    assert facts(state) == (CLOSED, None, None, False)


def test_a_registration_is_uncertain_until_a_later_read_shows_it(faulty: FaultyStore, clock: Clock) -> None:
    state = MaintenanceState(faulty, runtime=runtime(clock, start=hang))
    state.start()
    assert facts(state) == (BOOTING, Thread.STARTING, Row.ABSENT, False)
    watcher = watcher_of(state)
    seen: list[Row] = []
    faulty.meanwhile = lambda: seen.append(watcher.reader.membership.row)
    watcher._try()
    assert seen == [Row.UNCERTAIN]
    assert facts(state) == (FOLLOWING, Thread.STARTING, Row.PRESENT, True)


def test_the_time_for_the_first_read_ends_the_boot(faulty: FaultyStore, clock: Clock) -> None:
    state = MaintenanceState(faulty, boot_timeout=3.0, runtime=runtime(clock, start=hang))
    state.start()
    clock.now += 3.0
    assert not state.lifecycle.booting
    assert facts(state) == (FOLLOWING, Thread.STARTING, Row.ABSENT, False)
