"""The table of requests in flight, and what is summed up of it."""

from maintenance.in_flight import Entry, InFlight, Load, load, total
from maintenance.policy import WEBSOCKET
from tests.support.clock import Clock


def test_an_entry_is_what_came_and_when() -> None:
    clock, scope = Clock(), {"any": "thing"}
    flight = InFlight()
    flight.enter("GET", "/x", "/api", scope, clock())
    clock.now += 5
    assert flight.entries() == [Entry("GET", "/x", "/api", 1000.0, scope)]


def test_each_leaves_by_its_own_key_and_a_second_time_changes_nothing() -> None:
    flight = InFlight()
    first, second = flight.enter("GET", "/1", "", None, 1000.0), flight.enter("GET", "/2", "", None, 1000.0)
    flight.leave(first)
    flight.leave(first)
    flight.leave(None)
    assert [entry.path for entry in flight.entries()] == ["/2"]
    flight.leave(second)
    assert flight.entries() == []


def test_clearing_forgets_all_and_gives_no_key_twice() -> None:
    flight = InFlight()
    before = flight.enter("GET", "/parent", "", None, 1000.0)
    flight.clear()
    flight.enter("GET", "/child", "", None, 1000.0)
    flight.leave(before)  # the parent's key must not end the child's request
    assert [entry.path for entry in flight.entries()] == ["/child"]


def test_a_load_counts_what_it_is_told_to_and_names_the_oldest_of_it() -> None:
    entries = [
        Entry("POST", "/young", "", 108.0, None),
        Entry("POST", "/old", "", 103.0, None),
        Entry("GET", "/oldest", "", 101.0, None),
        Entry(WEBSOCKET, "/live", "", 105.0, None),
    ]
    assert load(entries, lambda entry: entry.method != "GET", now=110.0) == Load(3, 4, 1, "POST /old", 7.0)


def test_a_load_of_nothing_is_nothing() -> None:
    assert load([], lambda _: True, now=1.0) == Load() == total([])


def test_a_total_sums_up_and_keeps_the_oldest() -> None:
    loads = [Load(1, 2, 1, "GET /a", 3.0), Load(0, 1), Load(2, 2, 0, "GET /b", 9.0)]
    assert total(loads) == Load(3, 5, 1, "GET /b", 9.0)


def test_what_a_visitor_asked_for_is_reported_as_any_store_can_keep_it() -> None:
    entries = [Entry("GET", "/a\x00b\x1b[2J\udce9/" + "x" * 500, "", 1.0, None)]
    oldest = load(entries, lambda _: True, now=2.0).oldest
    assert oldest is not None
    assert oldest.startswith(r"GET /a\x00b\x1b[2J\udce9/xxx")
    assert len(oldest) == 200
