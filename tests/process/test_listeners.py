"""Each change reaches the callbacks and the middlewares once, from any thread."""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from maintenance import ConfigurationError, MaintenanceState, Snapshot
from maintenance.base.flags import Flags
from maintenance.process.in_flight import Entry
from maintenance.stores import MemoryStore
from tests.support.clock import Bell, Clock, runtime
from tests.support.faulty import FaultyStore
from tests.support.waiting import eventually


@pytest.fixture
def called() -> list[Snapshot]:
    """The snapshots that the callback of a test was called with."""
    return []


def test_a_callback_is_called_once_for_each_flip_from_any_process(
    threadless: MaintenanceState, faulty: FaultyStore, called: list[Snapshot]
) -> None:
    threadless.refresh()
    assert threadless.on_change(called.append) is not None
    threadless.set(True, message="a")
    threadless.set(True, message="a", updated_by=uuid4())  # nothing for visitors has changed
    threadless.refresh()
    MaintenanceState(faulty).set(True, message="b")
    threadless.refresh()
    threadless.refresh()
    assert [snapshot.message for snapshot in called] == ["a", "b"]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit("reload")])
def test_a_callback_that_fails_is_logged_and_the_next_one_called(
    threadless: MaintenanceState, called: list[Snapshot], caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    @threadless.on_change
    def fail(_: Snapshot) -> None:
        raise error

    threadless.on_change(called.append)
    assert threadless.set(True).enabled
    assert [snapshot.enabled for snapshot in called] == [True]
    assert "an on_change callback failed" in caplog.text
    assert str(error) in caplog.text


def test_a_callback_whose_failure_cannot_be_logged_hinders_no_other(
    threadless: MaintenanceState, called: list[Snapshot], failing_log: list[str]
) -> None:
    threadless.on_change(lambda _: 1 / 0)
    threadless.on_change(called.append)
    threadless.set(True)
    threadless.set(False)
    assert [snapshot.enabled for snapshot in called] == [True, False]
    assert len(failing_log) == 2


def test_a_callback_that_is_interrupted_ends_no_later_call(
    threadless: MaintenanceState, called: list[Snapshot]
) -> None:
    @threadless.on_change
    def interrupt(snapshot: Snapshot) -> None:
        called.append(snapshot)
        if snapshot.enabled:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        threadless.set(True)
    threadless.set(False)
    assert [snapshot.enabled for snapshot in called] == [True, False]


@pytest.mark.parametrize("forks", [False, True])
def test_a_callback_may_flip_and_close_and_the_child_of_a_fork_calls_for_itself(
    threadless: MaintenanceState, called: list[Snapshot], *, forks: bool
) -> None:
    @threadless.on_change
    def switch_off(snapshot: Snapshot) -> None:
        called.append(snapshot)
        if snapshot.enabled:
            if forks:
                threadless.fork()
            threadless.set(False)
            assert len(called) == 1 + forks
            threadless.close()

    threadless.set(True)
    assert [snapshot.enabled for snapshot in called] == [True, False]
    assert threadless.closed


def test_of_two_flips_at_once_the_last_call_is_about_the_last_flip(
    threadless: MaintenanceState, called: list[Snapshot]
) -> None:
    first, go_on = threading.Event(), threading.Event()

    @threadless.on_change
    def wait(snapshot: Snapshot) -> None:
        if snapshot.message == "one":
            first.set()
            assert go_on.wait(10)
        called.append(snapshot)

    flipping = threading.Thread(target=lambda: threadless.set(True, message="one"))
    flipping.start()
    assert first.wait(10)
    threadless.set(True, message="two")
    assert called == []  # the first call has not ended
    go_on.set()
    flipping.join(10)
    assert [snapshot.message for snapshot in called] == ["one", "two"]
    assert threadless.lease.known.site.message == "two"


def test_a_slow_callback_delays_no_read() -> None:
    store, go_on = MemoryStore(), threading.Event()
    called: list[int | None] = []
    with closing(MaintenanceState(store, ttl=0.4)) as state:

        @state.on_change
        def wait(snapshot: Snapshot) -> None:
            called.append(snapshot.revision)
            assert go_on.wait(10)

        state.wait_for_answer()
        eventually(lambda: called, what="the first read")
        other = MaintenanceState(store, register=False)
        for enabled in (True, False, True):
            last = other.set(enabled).revision
            eventually(lambda: state.lease.known.revision == last and state.lease.running)  # noqa: B023
        read_at = state.lease.known.site.read_at
        eventually(lambda: state.lease.known.site.read_at > read_at, what="another read")
        assert called == [1]
        go_on.set()
        eventually(lambda: called == [1, last])


def test_a_read_starts_a_thread_for_callbacks_only_if_it_brings_news(faulty: FaultyStore, clock: Clock) -> None:
    started: list[Any] = []
    state = MaintenanceState(faulty, runtime=runtime(clock, start=started.append, waker=Bell))
    state.on_change(lambda _: None)
    state.refresh()
    for starts in (0, 1):
        state._listeners.notify_in_thread()
        assert len(started) == starts
        flags = state.lease.known
        newer = replace(flags, site=replace(flags.site, revision=99), revision=99)
        state.lease.install(newer, ticket=state.lease.ticket())


def test_a_request_calls_the_callbacks_if_no_thread_can_be_started(
    threadless: MaintenanceState, faulty: FaultyStore, called: list[Snapshot]
) -> None:
    threadless.on_change(called.append)
    MaintenanceState(faulty).set(True)
    threadless.wait_for_answer()
    assert [snapshot.enabled for snapshot in called] == [True]


def test_a_middleware_that_attaches_twice_is_counted_and_notified_once(
    threadless: MaintenanceState, called: list[Any]
) -> None:
    class Source:
        notify = called.append

        def entries(self, _: Flags) -> list[tuple[Entry, frozenset[str | None]]]:
            return [(Entry("GET", "/", "", 1.0, None), frozenset({None}))]

        def clear(self) -> None: ...

    source = Source()
    threadless.attach(source)
    threadless.attach(source)
    assert threadless.status().in_flight == 1
    threadless.set(True)
    assert [flags.site.enabled for flags in called] == [True]


def test_a_callback_must_be_a_plain_function(threadless: MaintenanceState) -> None:
    async def later(_: Snapshot) -> None: ...

    def generate(_: Snapshot) -> Iterator[None]:
        yield

    for wrong, error in (
        (later, "callback is the async function .*: use a plain one"),
        (generate, "callback is the generator .*: use a plain function"),
        (None, "callback is None: use a function"),
    ):
        with pytest.raises(ConfigurationError, match=error):
            threadless.on_change(wrong)  # type: ignore[type-var]
