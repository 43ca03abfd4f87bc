"""Jobs: they wait until the flag is off, count as in flight, and register the process only while they run."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import anyio
import anyio.to_thread
import pytest

from maintenance import ConfigurationError, MaintenanceActive, MaintenanceState, aset_maintenance, job
from maintenance.base.threads import THREADS
from maintenance.process import api, jobs
from maintenance.process.in_flight import EVERYTHING, ROOM, Jobs
from maintenance.process.jobs import LOOK
from maintenance.process.life import Purpose
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_wsgi
from tests.support.clock import Clock, Waits, hang, refuse, runtime
from tests.support.command import operator
from tests.support.faulty import FaultyStore
from tests.support.life import watcher_of
from tests.support.waiting import eventually

FORK_WARNS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def state(migrated_url: str) -> Iterator[MaintenanceState]:
    with closing(MaintenanceState(migrated_url)) as state:
        yield state


def registered(state: MaintenanceState) -> int:
    return len(state.fleet().instances)


def run_plainly(state: MaintenanceState, name: str = "report", **options: Any) -> str:
    with job(name, state=state, **options):
        return "done"


def run_async(state: MaintenanceState, name: str = "report", **options: Any) -> str:
    async def run() -> str:
        async with job(name, state=state, **options):
            return "done"

    return anyio.run(run)


def call(state: MaintenanceState, name: str = "report", **options: Any) -> str:
    return job(name, state=state, **options)(lambda: "done")()


def call_async(state: MaintenanceState, name: str = "report", **options: Any) -> str:
    @job(name, state=state, **options)
    async def work(result: str) -> str:
        return result

    return anyio.run(work, "done")


RUNS = pytest.mark.parametrize("run", [run_plainly, run_async, call, call_async])
Run = Callable[..., str]


# Waiting


@RUNS
def test_it_runs_at_once_when_the_flag_is_off(
    state: MaintenanceState, migrated_url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LOOK", 60.0)
    operator(migrated_url).set(True)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run, state)
        eventually(lambda: state.jobs._wakes and state.status().snapshot.enabled)
        assert not done.done()
        operator(migrated_url).set(False)
        assert done.result(10) == "done"
    assert state.jobs._wakes == {}


@RUNS
def test_without_a_wait_it_raises_with_the_snapshot(state: MaintenanceState, run: Run) -> None:
    on = state.set(True, message="Back at noon.")
    with pytest.raises(MaintenanceActive, match="job 'report' did not run: maintenance is on") as caught:
        run(state, wait=False)
    assert caught.value.snapshot.revision == on.revision
    assert pickle.loads(pickle.dumps(caught.value)).snapshot.message == "Back at noon."
    assert (registered(state), state.status().in_flight) == (0, 0)


@pytest.mark.parametrize(("closed", "runs"), [("shop", False), ("blog", True), (None, False)])
def test_it_obeys_the_flag_of_its_scope_and_the_site_s(
    state: MaintenanceState, closed: str | None, *, runs: bool
) -> None:
    state.set(True, scope=closed, mode="read_only")
    if runs:
        assert run_plainly(state, scope="shop") == "done"
        return
    with pytest.raises(MaintenanceActive) as caught:
        run_plainly(state, scope="shop", wait=False)
    assert caught.value.snapshot.scope == closed


def test_it_waits_for_its_timeout_and_looks_in_between(faulty: FaultyStore, clock: Clock, waits: Waits) -> None:
    state = MaintenanceState(faulty, ttl=60.0, runtime=runtime(clock, start=refuse, event=waits.event))
    state.set(True)
    with pytest.raises(MaintenanceActive):
        run_plainly(state, timeout=2.5)
    assert waits.waited == [LOOK, LOOK, 0.5]


def test_a_flip_wakes_those_that_wait_in_a_thread_and_none_without_one() -> None:
    woken: list[str] = []

    def fail() -> None:
        raise RuntimeError("its event loop has ended")

    for start in (refuse, lambda call: call()):
        table = Jobs(start=start)
        with table.woken(fail), table.woken(lambda: woken.append("woken")):
            table.notify(EVERYTHING)
        table.notify(EVERYTHING)
    assert woken == ["woken"]


def test_an_async_job_that_waits_blocks_no_event_loop_and_takes_no_thread(
    state: MaintenanceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LOOK", 60.0)
    state.set(True)
    ran: list[int] = []

    async def run_one(number: int) -> None:
        async with job("report", state=state):
            ran.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(2 * THREADS):
                tasks.start_soon(run_one, number)
            await anyio.to_thread.run_sync(eventually, lambda: len(state.jobs._wakes) == 2 * THREADS)
            await aset_maintenance(False, state=state)
            await anyio.to_thread.run_sync(eventually, lambda: len(ran) == 2 * THREADS)

    anyio.run(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_wait_leaves_nothing_behind(state: MaintenanceState, backend: str) -> None:
    state.set(True)

    async def main() -> None:
        with anyio.move_on_after(1.5):  # long after its first look, and between the two that follow
            async with job("report", state=state):
                pytest.fail("it runs")

    anyio.run(main, backend=backend)
    assert (registered(state), state.jobs._wakes, state.jobs.is_empty()) == (0, {}, True)


def test_a_job_that_is_interrupted_while_it_asks_is_not_in_flight(faulty: FaultyStore, clock: Clock) -> None:
    waits = Waits(clock)
    state = MaintenanceState(faulty, runtime=runtime(clock, start=hang, event=waits.event))
    waits.once.append(_interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_plainly(state)
    assert state.jobs.is_empty()
    assert state.lifecycle.watcher is None


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_a_cancelled_job_removes_its_row(state: MaintenanceState) -> None:
    async def main() -> None:
        with anyio.move_on_after(5) as scope:
            async with job("report", state=state):
                scope.cancel()
                await anyio.sleep_forever()

    anyio.run(main)
    assert registered(state) == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_job_that_is_cancelled_while_it_asks_leaves_no_row(
    state: MaintenanceState, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Its thread may ask only afterwards. That begins a new life, when no task is there any more to end it."""
    asks, cancelled = threading.Event(), threading.Event()
    ask = state.lifecycle.wait_for_answer

    def ask_late(purpose: Purpose) -> Any:
        asks.set()
        assert cancelled.wait(10)
        return ask(purpose)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_run_report, state)
            await anyio.to_thread.run_sync(asks.wait)
            tasks.cancel_scope.cancel()
        cancelled.set()
        await anyio.to_thread.run_sync(_join_calls)

    monkeypatch.setattr(state.lifecycle, "wait_for_answer", ask_late)
    anyio.run(main, backend=backend)
    eventually(lambda: registered(state) == 0, 5.0)


async def _run_report(state: MaintenanceState) -> None:
    async with job("report", state=state):
        pytest.fail("it runs")


def _join_calls() -> None:
    for thread in threading.enumerate():
        if thread.name == "maintenance: call":
            thread.join()


WAITS_IN_A_THREAD = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from maintenance import MaintenanceActive, MaintenanceState, job
state = MaintenanceState(sys.argv[1])
state.set(True)
def work():
    try:
        with job("report", state=state):
            print("it runs")
    except MaintenanceActive:
        print("it ends", flush=True)
if sys.argv[2] == "executor":
    ThreadPoolExecutor(1).submit(work)
else:
    threading.Thread(target=work).start()
while not state.jobs._wakes:
    time.sleep(0.01)
"""


@pytest.mark.parametrize("kind", ["executor", "thread"])
def test_a_wait_keeps_no_process_alive(migrated_url: str, kind: str) -> None:
    command = [sys.executable, "-c", WAITS_IN_A_THREAD, migrated_url, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "it ends\n", "")


def test_a_state_that_is_closed_ends_the_wait(state: MaintenanceState) -> None:
    state.close()
    with pytest.raises(MaintenanceActive):
        run_plainly(state)


def test_the_default_state_is_found_when_the_job_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAINTENANCE_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(api, "_state", None)
    nightly = job("report")
    for enter in (nightly.__enter__, lambda: anyio.run(nightly.__aenter__)):
        with pytest.raises(ConfigurationError, match="no database is named"):
            enter()
    monkeypatch.setenv("DATABASE_URL", "memory://")
    with nightly:
        assert api.default_state().status().in_flight == 1
    api.default_state().close()


# In flight


def test_a_drain_waits_for_it_and_names_it(state: MaintenanceState, migrated_url: str) -> None:
    boss = operator(migrated_url)
    with job("nightly-report", state=state):
        on = boss.set(True, drain=True)
        proof = boss.prove(on, drain=True, timeout=1.0)
        [(_, why)] = proof.laggards
        assert why.startswith("1 request in flight, the oldest is job nightly-report for ")
    assert boss.prove(on, drain=True, timeout=10.0)


@pytest.mark.parametrize(("scope", "waits"), [("shop", True), ("blog", False), (None, False)])
def test_the_drain_of_a_scope_waits_for_its_jobs_alone(
    state: MaintenanceState, migrated_url: str, scope: str | None, *, waits: bool
) -> None:
    boss = operator(migrated_url)
    with job("report", scope=scope, state=state):
        on = boss.set(True, scope="shop", drain=True)
        assert bool(boss.prove(on, drain=True, timeout=1.0 if waits else 10.0)) is not waits


def test_no_job_slips_through_a_drain(faulty: FaultyStore, clock: Clock) -> None:
    """It is in flight before it asks, so a drain that finds nothing is never followed by a job that was admitted."""
    state = MaintenanceState(faulty, runtime=runtime(clock, start=refuse))
    seen: list[int | None] = []
    faulty.meanwhile = lambda: seen.append(state.status().in_flight)
    run_plainly(state)
    assert seen == [1]


def test_a_job_inside_another_waits_only_for_what_does_not_count_the_outer_one(state: MaintenanceState) -> None:
    with job("outer", state=state):
        state.set(True)
        state.set(True, scope="shop")
        assert run_plainly(state, wait=False) == "done"
        with pytest.raises(MaintenanceActive) as caught:
            run_plainly(state, scope="shop", wait=False)
        assert caught.value.snapshot.scope == "shop"
    with pytest.raises(MaintenanceActive):
        run_plainly(state, wait=False)


def test_a_task_that_outlives_its_job_is_not_inside_it(state: MaintenanceState) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            async with job("outer", state=state):
                ended = anyio.Event()
                tasks.start_soon(run_later, ended)
            await aset_maintenance(True, state=state)
            ended.set()

    async def run_later(ended: anyio.Event) -> None:
        await ended.wait()
        with pytest.raises(MaintenanceActive):
            async with job("inner", state=state, wait=False):
                pass

    anyio.run(main)


def test_jobs_that_have_ended_take_no_room() -> None:
    table = Jobs(start=refuse)
    stays = table.enter("stays", None, 1.0)
    for _ in range(10 * ROOM):
        table.enter("ends", None, 1.0).clear()
    assert len(table._flight.table) <= ROOM + 2
    assert [entry.path for entry, _ in table.entries(EVERYTHING)] == [stays[1]]


# In the fleet


def test_to_ask_registers_nothing_and_a_job_registers_while_it_runs(state: MaintenanceState) -> None:
    assert not state.enabled
    assert (registered(state), state.status().condition, state.status().instance) == (0, "fresh", None)
    with job("outer", state=state):
        with job("inner", state=state):
            assert registered(state) == 1
        assert registered(state) == 1
    assert registered(state) == 0
    assert not state.enabled
    assert registered(state) == 0


def test_an_answer_from_before_the_process_was_registered_serves_no_request(state: MaintenanceState) -> None:
    assert not state.enabled
    app = MaintenanceMiddleware(lambda _environ, start: (start("200 OK", []), [b""])[1], state)
    assert call_wsgi(app).status == 200
    assert registered(state) == 1


@pytest.mark.parametrize("serve", [MaintenanceState.start, MaintenanceState.wait_for_answer])
def test_a_process_that_serves_stays_registered_after_a_job(state: MaintenanceState, serve: Any) -> None:
    with job("report", state=state):
        serve(state)
    run_plainly(state)
    assert registered(state) == 1


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_code_that_only_asks_follows_by_notification(migrated_url: str, when_stale: Any) -> None:
    with closing(MaintenanceState(migrated_url, when_stale=when_stale)) as state:
        assert not state.enabled
        eventually(lambda: state.status().listening)
        operator(migrated_url).set(True)
        eventually(lambda: state.enabled, 2.0)


def test_code_that_asks_while_a_request_begins_gets_the_first_answer(faulty: FaultyStore, clock: Clock) -> None:
    """The life that only asks ends before its first read. The caller must not take that for an answer."""
    MaintenanceState(faulty.inner, register=False).set(True)
    waits = Waits(clock)
    state = MaintenanceState(faulty, runtime=runtime(clock, start=hang, event=waits.event))

    def serve() -> None:
        state.start()
        watcher_of(state)._try()

    waits.once.append(serve)
    assert state.enabled


@FORK_WARNS
def test_a_child_that_is_forked_for_one_job_leaves_no_row(state: MaintenanceState) -> None:
    """As the worker of a queue does, which ends its child without the hooks of the interpreter."""
    assert not state.enabled
    for ask in (lambda: state.enabled, lambda: run_plainly(state), lambda: run_async(state)):
        child = os.fork()
        if not child:
            try:
                ask()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        assert registered(state) == 0


@FORK_WARNS
def test_a_child_that_a_job_forks_is_not_that_job(state: MaintenanceState) -> None:
    with job("report", state=state):
        child = os.fork()
        if not child:
            os._exit(state.status().in_flight or 0)
        assert os.waitpid(child, 0) == (child, 0)
        assert state.status().in_flight == 1


def test_a_job_that_begins_while_the_last_one_ends_has_a_row_of_its_own(
    faulty: FaultyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = MaintenanceState(faulty, runtime=runtime(clock, start=refuse))
    first, second = job("first", state=state), job("second", state=state)
    beginning = threading.Thread(target=second.__enter__)
    end = state.lease.end

    def end_late(*arguments: Any) -> bool:
        beginning.start()
        beginning.join(0.2)  # it must wait for the end of the life
        return end(*arguments)

    first.__enter__()
    monkeypatch.setattr(state.lease, "end", end_late)
    first.__exit__(None, None, None)
    beginning.join(10)
    monkeypatch.undo()
    assert len(faulty.inner.connect().fleet().instances) == 1
    second.__exit__(None, None, None)
    assert faulty.inner.connect().fleet().instances == ()


class Future:
    """Awaitable, and no coroutine."""

    def __await__(self) -> Iterator[None]:
        yield None


# Options


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": ""}, "name is '': use a text, such as job\\('nightly-report'\\)"),
        ({"name": len}, "name is <built-in function len>: use a text"),
        ({"wait": 1}, "wait is 1: use True or False"),
        ({"timeout": 0}, "timeout is 0: use seconds above 0"),
        ({"timeout": 5, "wait": False}, "timeout is 5 and wait is False: use one of them"),
        ({"state": "memory://"}, "state is of type str"),
        ({"scope": "?"}, "scope is '\\?'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        job(**{"name": "report", **options})


def test_only_a_function_whose_body_runs_in_the_call_is_decorated() -> None:
    def generate() -> Iterator[int]:
        yield 1

    async def agenerate() -> Any:
        yield 1

    for wrong in (generate, agenerate):
        with pytest.raises(ConfigurationError, match="a job is the generator .*: use `with job"):
            job("report")(wrong)
    with pytest.raises(ConfigurationError, match="a job is 5: decorate a function"):
        job("report")(5)  # type: ignore[type-var]


def test_a_coroutine_that_would_run_after_its_job_is_refused() -> None:
    ran: list[str] = []

    async def report() -> None:
        ran.append("it ran")

    for awaitable in (report, Future):
        with pytest.raises(ConfigurationError, match="decorate the async function itself"):
            job("report", state=MaintenanceState("memory://"))(lambda make=awaitable: make())()
    assert not ran


def test_a_block_runs_once_at_a_time() -> None:
    one = job("report", state=MaintenanceState("memory://"))
    for _ in range(2):
        with one, pytest.raises(RuntimeError, match="job 'report' runs already: call job"):
            one.__enter__()
    with pytest.raises(RuntimeError, match="job 'report' does not run"):
        one.__exit__()
