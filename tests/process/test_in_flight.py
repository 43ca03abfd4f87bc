"""The table of requests in flight, and what is summed up of it."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest

from maintenance.base.values import WEBSOCKET, Load
from maintenance.process.in_flight import ROOM, Entry, InFlight, sum_up
from tests.support.entering import enter

sweep = InFlight.sweep


def test_an_entry_is_what_came_and_when() -> None:
    flight, scope = InFlight(), {"any": "thing"}
    enter(flight, "GET", "/x", "/api", scope, 1000.0)
    assert flight.entries() == [Entry("GET", "/x", "/api", 1000.0, scope)]


def test_each_leaves_by_itself_and_a_second_time_changes_nothing() -> None:
    flight = InFlight()
    first, second = enter(flight, "GET", "/1", "", None, 1000.0), enter(flight, "GET", "/2", "", None, 1000.0)
    first.clear()
    first.clear()
    assert [entry.path for entry in flight.entries()] == ["/2"]
    second.clear()
    assert flight.entries() == []


def test_clearing_forgets_all_and_a_request_of_the_parent_ends_none_of_the_child() -> None:
    flight = InFlight()
    before = enter(flight, "GET", "/parent", "", None, 1000.0)
    flight.clear()
    enter(flight, "GET", "/child", "", None, 1000.0)
    before.clear()
    assert [entry.path for entry in flight.entries()] == ["/child"]


def test_clearing_forgets_whoever_was_at_a_sweep() -> None:
    """In the child of a fork that thread is not there to end it, and the child may have its parent's pid."""
    flight = InFlight()
    flight._sweeping[os.getpid()] = object()
    flight.clear()
    enter(flight, "GET", "/left", "", None, 1000.0).clear()
    flight.sweep()
    assert flight.table == []


def test_what_has_left_is_swept_out_and_what_is_in_flight_stays() -> None:
    flight = InFlight()
    staying = [enter(flight, "GET", f"/{number}", "", None, 1000.0) for number in range(ROOM)]
    for _ in range(10 * ROOM):
        enter(flight, "GET", "/short", "", None, 1000.0).clear()
    assert len(flight.table) <= 3 * ROOM
    assert [entry.path for entry in flight.entries()] == [entry[1] for entry in staying]


def test_as_many_as_are_in_flight_fit_without_a_sweep_for_each() -> None:
    flight = InFlight()
    swept = []
    with patch.object(InFlight, "sweep", autospec=True, side_effect=lambda it: swept.append(it) or sweep(it)):
        for number in range(100 * ROOM):
            enter(flight, "GET", f"/{number}", "", None, 1000.0)
    assert len(flight.entries()) == 100 * ROOM
    assert len(swept) < 10


def test_a_sweep_in_another_thread_is_left_to_that_one_and_loses_nothing() -> None:
    flight, inside, go_on = InFlight(), threading.Event(), threading.Event()

    class Slow(list[Any]):
        def copy(self) -> list[Any]:
            known = super().copy()
            inside.set()
            assert go_on.wait(10)
            return known

    flight.table = Slow([[], ["GET", "/stays", "", 1.0, None]])
    one = threading.Thread(target=flight.sweep)
    one.start()
    assert inside.wait(10)
    flight.sweep()  # does not wait, or this test would hang
    flight.table.append(["GET", "/new", "", 2.0, None])
    go_on.set()
    one.join(10)
    assert [entry.path for entry in flight.entries()] == ["/stays", "/new"]
    assert len(flight.table) == 2


def test_a_sweep_that_a_signal_has_ended_hinders_no_later_one() -> None:
    flight = InFlight()

    class Interrupted(list[Any]):
        def copy(self) -> list[Any]:
            raise KeyboardInterrupt

    flight.table = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        flight.sweep()
    flight.table = [[], ["GET", "/stays", "", 1.0, None]]
    flight.sweep()
    assert flight.table == [["GET", "/stays", "", 1.0, None]]


def test_a_request_that_leaves_at_the_very_look_is_not_in_flight() -> None:
    class Leaving(list[Any]):
        def __len__(self) -> int:
            length = super().__len__()
            self.clear()
            return length

    flight = InFlight()
    flight.table = [Leaving(["GET", "/leaves", "", 1.0, None]), ["GET", "/stays", "", 1.0, None]]
    assert [entry.path for entry in flight.entries()] == ["/stays"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks nothing")
def test_the_child_of_a_fork_during_a_sweep_sweeps_for_itself() -> None:
    flight = InFlight()

    class Forking(list[Any]):
        child: int | None = None

        def copy(self) -> list[Any]:
            if self.child is None:
                self.child = os.fork()
                if self.child == 0:
                    flight.sweep()  # the parent's, which is still noted down, ends in the parent
                    os._exit(len(flight.table))
            return super().copy()

    flight.table = Forking([[], [], ["GET", "/stays", "", 1.0, None]])
    flight.sweep()
    _, status = os.waitpid(flight.table.child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert len(flight.table) == 1


def test_entering_and_leaving_in_many_threads_miscounts_nothing() -> None:
    flight, threads = InFlight(), 8

    def visit(number: int) -> None:
        enter(flight, "GET", f"/stays/{number}", "", None, 1000.0)
        for _ in range(1000):
            one = enter(flight, "GET", f"/short/{number}", "", None, 1000.0)
            present = {entry.path for entry in flight.entries()}
            assert present >= {f"/stays/{number}", f"/short/{number}"}
            one.clear()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for visitor in [pool.submit(visit, number) for number in range(threads)]:
                visitor.result()
    finally:
        sys.setswitchinterval(interval)
    assert {entry.path for entry in flight.entries()} == {f"/stays/{number}" for number in range(threads)}
    flight.sweep()
    assert len(flight.table) == threads


def test_a_load_counts_what_it_is_told_to_and_names_the_oldest_of_it() -> None:
    entries = [
        Entry("POST", "/young", "", 108.0, None),
        Entry("POST", "/old", "", 103.0, None),
        Entry("GET", "/oldest", "", 101.0, None),
        Entry(WEBSOCKET, "/live", "", 105.0, None),
    ]
    assert sum_up([(entry, entry.method != "GET") for entry in entries], now=110.0) == Load(3, 1, "POST /old", 7.0)


def test_a_load_of_nothing_is_nothing() -> None:
    assert sum_up([], now=1.0) == Load()


def test_what_a_visitor_asked_for_is_reported_as_any_store_can_keep_it() -> None:
    entry = Entry("GET", "/a\x00b\x1b[2J\udce9/" + "x" * 500, "", 1.0, None)
    oldest = sum_up([(entry, True)], now=2.0).oldest
    assert oldest is not None
    assert oldest.startswith(r"GET /a\x00b\x1b[2J\udce9/xxx")
    assert len(oldest) == 200
