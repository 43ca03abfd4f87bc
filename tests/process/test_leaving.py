"""A process that ends leaves the fleet. SIGTERM is tried in processes of their own, over a real store."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from maintenance import MaintenanceState
from maintenance.base.runtime import REAL, run_beside
from maintenance.process import leaving
from tests.support.command import operator

PROCESS = """
import os, signal, sys, threading, time
from maintenance import init_maintenance
from maintenance.wsgi import MaintenanceMiddleware
{before}
state = init_maintenance()
MaintenanceMiddleware(lambda *_: [], state)
thread = threading.Thread(target=state.start)  # as the request of a server does
thread.start()
thread.join()
while not state.status().registered:
    time.sleep(0.01)
print("ready", flush=True)
{after}
time.sleep(30)
"""


def end(url: str, before: str = "", after: str = "") -> tuple[int, str]:
    """Start a process that serves, send it SIGTERM, and return its exit status and what it has printed."""
    code = PROCESS.format(before=before, after=after)
    env = {**os.environ, "MAINTENANCE_DATABASE_URL": url}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(operator(url).fleet().instances) == 1
        process.terminate()
        return process.wait(10), process.stdout.read()


def test_sigterm_leaves_no_row_and_ends_the_process_as_before(shared_url: str) -> None:
    assert end(shared_url) == (-signal.SIGTERM, "")
    assert operator(shared_url).fleet().instances == ()


def test_the_main_thread_may_hold_a_lock_that_leaving_takes(sqlite_url: str) -> None:
    assert end(sqlite_url, after="state.lifecycle._lock.acquire()")[0] == -signal.SIGTERM


def test_the_app_s_own_handler_stays(sqlite_url: str) -> None:
    handler = "signal.signal(signal.SIGTERM, lambda *_: (print('mine'), sys.exit(7)))"
    assert end(sqlite_url, before=handler) == (7, "mine\n")
    assert operator(sqlite_url).fleet().instances == ()


def test_a_signal_that_is_ignored_stays_so(sqlite_url: str) -> None:
    before = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    after = "os.kill(os.getpid(), signal.SIGTERM); print('goes on', flush=True); os._exit(0)"
    assert end(sqlite_url, before, after) == (0, "goes on\n")


def test_a_child_of_multiprocessing_leaves_no_row(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text("""
import multiprocessing, time
from maintenance import init_maintenance

def serve():
    state = init_maintenance()
    state.start()
    while not state.status().registered:
        time.sleep(0.01)

if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=serve)
    child.start()
    child.join()
    raise SystemExit(child.exitcode)
""")
    env = {**os.environ, "MAINTENANCE_DATABASE_URL": sqlite_url}
    subprocess.run([sys.executable, str(tmp_path / "parent.py")], env=env, check=True, timeout=60)
    assert operator(sqlite_url).fleet().instances == ()


@pytest.mark.parametrize(("pid", "module"), [(1, "another"), (4242, "uwsgi")])
def test_there_is_no_handler_if_the_process_would_go_on_or_its_server_ends_it(
    monkeypatch: pytest.MonkeyPatch, pid: int, module: str
) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        monkeypatch.setattr(os, "getpid", lambda: pid)
        monkeypatch.setitem(sys.modules, module, leaving)
        leaving.leave_on_sigterm()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_handler_leaves_for_good_and_sends_the_signal_again(monkeypatch: pytest.MonkeyPatch) -> None:
    state, sent = MaintenanceState("memory://"), []
    monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))
    monkeypatch.setattr(leaving, "_finders", [lambda: [state.lifecycle]])
    before = signal.getsignal(signal.SIGTERM)
    try:
        leaving.leave_and_end(signal.SIGTERM, None)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sent == [signal.SIGTERM]
    assert state.closed


def test_a_process_that_never_loaded_multiprocessing_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "multiprocessing.util", raising=False)
    leaving.leave_after_multiprocessing()
    assert "multiprocessing.util" not in sys.modules


def test_what_runs_beside_is_waited_for_within_a_limit() -> None:
    ran, stuck = [], REAL.event()
    run_beside(lambda: ran.append("run"), 5.0)
    assert ran == ["run"]
    run_beside(lambda: stuck.wait(30.0), 0.05)
    assert not stuck.is_set()
    stuck.set()
