"""The edge: clocks, native threads, and their wakers."""

import os
import random
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from maintenance.base import runtime
from maintenance.base.runtime import NOBODY, REAL, SocketWaker, Waker, boot_id, has_frozen_threads, is_gone, run_beside

LONG = 20.0
"""Seconds. No wait here lasts as long."""


@pytest.fixture
def waker() -> Iterator[SocketWaker]:
    waker = SocketWaker()
    yield waker
    waker.close()


# SocketWaker


def test_a_wake_ends_the_wait_that_is_under_way(waker: SocketWaker) -> None:
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(waker.wait(LONG)))
    thread.start()
    waker.wake()
    thread.join(LONG / 2)
    assert woken == [True]


@pytest.mark.parametrize("platform", ["poll", "select alone"])
def test_any_number_of_wakes_ends_the_next_wait_alone_and_never_blocks(
    waker: SocketWaker, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    if platform != "poll":
        monkeypatch.delattr(select, "poll")
    for _ in range(20_000):
        waker.wake()
    assert waker.wait(LONG)
    while waker.wait(0.0):
        pass
    assert not waker.wait(0.001)
    assert not waker.wait(-5.0), "a time that is over"


@pytest.mark.parametrize("waker", [NOBODY, SocketWaker()])
def test_a_waker_that_no_thread_waits_for_does_nothing(waker: Waker) -> None:
    waker.close()
    waker.wake()
    assert waker is not NOBODY or not waker.wait(LONG)


def test_data_ends_a_wait_without_a_wake_also_at_a_descriptor_above_1023(waker: SocketWaker) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2100:
        pytest.skip("this machine allows no descriptor above 1023")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2100, hard))
    reader, writer = os.pipe()
    os.dup2(reader, 2000)
    os.write(writer, b"x")
    for descriptor in (reader, 2000):
        began = time.monotonic()
        assert not waker.wait(LONG, fd=descriptor)
        assert time.monotonic() - began < LONG / 2
    for descriptor in (2000, reader, writer):
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_however_often_it_is_woken_it_never_blocks(waker: SocketWaker) -> None:
    for _ in range(20_000):
        waker.wake()
    assert waker.wait(0.0)


# Threads


def test_start_runs_a_function_in_a_thread() -> None:
    ran = threading.Event()
    REAL.start(ran.set)
    assert ran.wait(LONG)


def test_under_gevent_threads_and_locks_are_native() -> None:
    script = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, time
from maintenance.base.runtime import REAL, _native
ran = []
REAL.start(lambda: (_native("time", "sleep")(0.1), ran.append(1)))
end = _native("time", "monotonic")() + 10
while not ran and _native("time", "monotonic")() < end:
    pass  # a green thread would never run while this one does not yield
assert ran == [1]
import _thread
assert type(REAL.lock()) is type(gevent.monkey.get_original("_thread", "allocate_lock")())
assert type(REAL.event()).__module__.startswith(("gevent", "threading"))
print("native")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.returncode) == ("native", 0), done.stderr


# Clocks


def test_the_clock_also_runs_while_the_machine_is_suspended() -> None:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    expected = time.monotonic() if clock is None else time.clock_gettime(clock)
    assert REAL.clock() == pytest.approx(expected, abs=1.0)
    assert REAL.clock() <= REAL.clock()


def test_on_other_platforms_the_clock_also_counts_the_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert runtime._boot_clock() is time.monotonic
    monkeypatch.setattr(sys, "platform", "darwin")
    assert runtime._boot_clock()() == pytest.approx(time.clock_gettime(time.CLOCK_MONOTONIC), abs=1.0)


# Processes


def test_a_process_that_has_ended_is_gone_and_this_one_is_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(LONG)
    assert is_gone(child.pid)
    assert not is_gone(os.getpid())
    assert REAL.is_gone(child.pid)


def test_a_process_that_may_not_be_asked_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: Any) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(os, "kill", forbid)
    assert not is_gone(1)


def test_a_boot_and_namespace_has_one_id() -> None:
    assert boot_id() == boot_id()
    if sys.platform == "linux":
        assert "pid:[" in boot_id()


def test_the_boot_has_no_id_if_the_system_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Any) -> Any:
        raise OSError("no /proc here")

    monkeypatch.setattr(os, "readlink", missing)
    assert boot_id() == ""


def test_sleep_random_numbers_and_pid_are_real() -> None:
    began = time.monotonic()
    REAL.sleep(0.01)
    assert time.monotonic() - began >= 0.009
    assert 2.0 <= REAL.uniform(2.0, 3.0) <= 3.0
    assert REAL.pid() == os.getpid()


def test_the_background_thread_draws_nothing_from_the_app_s_generator() -> None:
    random.seed(7)
    before = random.getstate()
    REAL.uniform(0.0, 1.0)
    assert random.getstate() == before


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_function_beside_is_waited_for_within_a_limit(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # In a thread that a tracer can follow.
    monkeypatch.setattr("maintenance.base.runtime._start", lambda run: threading.Thread(target=run).start())
    threads, go_on = [], threading.Event()

    def function() -> None:
        threads.append(threading.current_thread())
        if fails:
            raise LookupError
        go_on.wait(10)

    began = time.monotonic()
    run_beside(function, 0.1)
    go_on.set()
    assert (time.monotonic() - began < 0.1) is fails
    assert threads[0] is not threading.current_thread()
    threads[0].join(10)


@pytest.mark.parametrize(
    ("version", "options", "frozen"),
    [
        ((2, 0, 26, 0, b""), {"module": b"app"}, True),
        ((2, 0, 26, 0, b""), {"enable-threads": True}, False),
        ((2, 0, 26, 0, b""), {"threads": b"2"}, False),
        ((2, 0, 30, 0, b""), {"module": b"app"}, False),
    ],
)
def test_uwsgi_may_freeze_threads(
    version: tuple[Any, ...], options: dict[str, Any], frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not has_frozen_threads()
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(version_info=version, opt=options))
    assert has_frozen_threads() is frozen
