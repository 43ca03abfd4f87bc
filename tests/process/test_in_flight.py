"""The table of requests in flight, and its sum."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest

from maintenance.base.flags import Flags
from maintenance.base.instances import Load
from maintenance.base.values import WEBSOCKET
from maintenance.process.in_flight import ROOM, Entry, InFlight, Sources, sum_up
from tests.support.clock import Clock, runtime
from tests.support.entering import enter

sweep = InFlight.sweep


def get(flight: InFlight, path: str) -> list[Any]:
    return enter(flight, "GET", path, "", None, 1000.0)


def paths(flight: InFlight) -> list[str]:
    return [entry.path for entry in flight.entries()]


def test_each_request_is_in_flight_until_it_leaves() -> None:
    flight, scope = InFlight(), {"any": "thing"}
    first, second = enter(flight, "GET", "/1", "/api", scope, 1000.0), get(flight, "/2")
    assert flight.entries()[0] == Entry("GET", "/1", "/api", 1000.0, scope)
    first.clear()
    first.clear()
    assert paths(flight) == ["/2"]
    second.clear()
    assert flight.entries() == []


def test_clear_forgets_all_requests_of_the_parent_and_its_sweep() -> None:
    """The thread that swept is not in the child, which may have its parent's pid."""
    flight = InFlight()
    before = get(flight, "/parent")
    flight._sweeping[os.getpid()] = object()
    flight.clear()
    child = get(flight, "/child")
    before.clear()
    assert paths(flight) == ["/child"]
    child.clear()
    flight.sweep()
    assert flight.table == []


def test_a_sweep_removes_what_has_ended_and_nothing_else() -> None:
    flight = InFlight()
    staying = [get(flight, f"/{number}") for number in range(ROOM)]
    for _ in range(10 * ROOM):
        get(flight, "/short").clear()
    assert len(flight.table) <= 3 * ROOM
    assert paths(flight) == [entry[1] for entry in staying]


def test_the_table_has_room_for_all_that_is_in_flight_with_few_sweeps() -> None:
    flight = InFlight()
    swept = []
    with patch.object(InFlight, "sweep", autospec=True, side_effect=lambda it: swept.append(it) or sweep(it)):
        for number in range(100 * ROOM):
            get(flight, f"/{number}")
    assert len(flight.entries()) == 100 * ROOM
    assert len(swept) < 10


def test_of_two_sweeps_at_once_one_returns_immediately_and_no_entry_is_lost() -> None:
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
    assert paths(flight) == ["/stays", "/new"]
    assert len(flight.table) == 2


def test_a_sweep_works_after_one_that_a_signal_has_ended() -> None:
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


def test_a_request_that_leaves_during_the_look_is_not_in_flight() -> None:
    class Leaving(list[Any]):
        def __len__(self) -> int:
            length = super().__len__()
            self.clear()
            return length

    flight = InFlight()
    flight.table = [Leaving(["GET", "/leaves", "", 1.0, None]), ["GET", "/stays", "", 1.0, None]]
    assert paths(flight) == ["/stays"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks nothing")
def test_the_child_of_a_fork_during_a_sweep_sweeps_for_itself() -> None:
    flight = InFlight()

    class Forking(list[Any]):
        child: int | None = None

        def copy(self) -> list[Any]:
            if self.child is None:
                self.child = os.fork()
                if self.child == 0:
                    flight.sweep()  # the sweep of the parent, which is still noted, ends in the parent
                    os._exit(len(flight.table))
            return super().copy()

    flight.table = Forking([[], [], ["GET", "/stays", "", 1.0, None]])
    flight.sweep()
    _, status = os.waitpid(flight.table.child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert len(flight.table) == 1


def test_many_threads_that_enter_and_leave_are_counted_right() -> None:
    flight, threads = InFlight(), 8

    def visit(number: int) -> None:
        get(flight, f"/stays/{number}")
        for _ in range(1000):
            one = get(flight, f"/short/{number}")
            assert set(paths(flight)) >= {f"/stays/{number}", f"/short/{number}"}
            one.clear()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for visitor in [pool.submit(visit, number) for number in range(threads)]:
                visitor.result()
    finally:
        sys.setswitchinterval(interval)
    assert set(paths(flight)) == {f"/stays/{number}" for number in range(threads)}
    flight.sweep()
    assert len(flight.table) == threads


def test_a_load_counts_the_marked_requests_and_names_the_oldest_of_them() -> None:
    entries = [
        Entry("POST", "/young", "", 108.0, None),
        Entry("POST", "/old", "", 103.0, None),
        Entry("GET", "/oldest", "", 101.0, None),
        Entry(WEBSOCKET, "/live", "", 105.0, None),
    ]
    counted = [(entry, frozenset({None, "shop"} if entry.method != "GET" else {"shop"})) for entry in entries]
    load = sum_up(counted, {None, "shop", "blog"}, now=110.0)
    assert load == Load(3, 1, "POST /old", 7.0, {"shop": 4, "blog": 0})
    assert sum_up([], (), now=1.0) == Load()


def test_the_oldest_request_is_reported_as_any_store_can_keep_it() -> None:
    entry = Entry("GET", "/a\x00b\x1b[2J\udce9/" + "x" * 500, "", 1.0, None)
    oldest = sum_up([(entry, frozenset({None}))], (), now=2.0).oldest
    assert oldest is not None
    assert oldest.startswith(r"GET /a\x00b\x1b[2J\udce9/xxx")
    assert len(oldest) == 200


@pytest.mark.parametrize(
    ("entries", "idle"), [(None, True), ([], True), ([(Entry("GET", "/", "", 1.0, None), frozenset({None}))], False)]
)
def test_a_process_is_idle_without_a_known_request_and_asks_no_bypass(entries: Any, *, idle: bool) -> None:
    class Source:
        def entries(self, flags: Flags) -> Any:
            assert not flags.site.enabled  # under a flag that is on, the middleware asks the bypass of each request
            return entries

    sources = Sources(runtime=runtime(Clock(2.0)))
    sources.add(Source())  # type: ignore[arg-type]
    assert sources.is_idle() is idle
