"""The counts are exact without a lock, a child begins again, and nobody loads what the app does not use."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from maintenance import MaintenanceState
from maintenance.process import metrics
from maintenance.process.metrics import FAILURES, Count, publish_if_loaded

THREADS = 8
STEPS = 5_000


def test_no_step_of_any_thread_is_lost_while_others_look() -> None:
    count, looks = Count(), []

    def add() -> None:
        for _ in range(STEPS):
            count.add()

    adding = [threading.Thread(target=add) for _ in range(THREADS)]
    for thread in adding:
        thread.start()
    while any(thread.is_alive() for thread in adding):
        looks.append(count.read())
    assert looks == sorted(looks)
    assert count.read() == count.read() == THREADS * STEPS


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_begins_at_0_even_if_a_thread_was_looking() -> None:
    FAILURES.add()
    with FAILURES._lock:  # as if a thread of the parent held it
        if (pid := os.fork()) == 0:
            os._exit(FAILURES.read())
    assert os.waitpid(pid, 0)[1] == 0
    assert FAILURES.read() > 0
    metrics._clear_all()  # as the child did
    assert FAILURES.read() == 0


@pytest.fixture
def _unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_published", False)
    monkeypatch.setitem(sys.modules, metrics._API, object())


@pytest.mark.usefixtures("_unpublished")
def test_without_a_thread_it_is_tried_again() -> None:
    started: list[object] = []

    def refuse(_: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    publish_if_loaded(refuse)
    publish_if_loaded(started.append)
    publish_if_loaded(started.append)
    assert len(started) == 1


@pytest.mark.usefixtures("_unpublished")
def test_a_failure_is_logged_and_the_flag_is_followed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "_INTEGRATION", "maintenance.nowhere")
    assert not MaintenanceState("memory://").snapshot().enabled
    assert "the metrics are not published" in caplog.text


def test_a_process_that_does_not_use_opentelemetry_never_loads_it() -> None:
    code = (
        "import sys; from maintenance import init_maintenance; state = init_maintenance('memory://'); state.start(); "
        "state.refresh(); print([name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
