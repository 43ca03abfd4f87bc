"""The metrics, as the SDK collects them and as Prometheus scrapes them, over both adapters."""

import datetime as dt
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    PeriodicExportingMetricReader,
)
from prometheus_client import CollectorRegistry, start_http_server

from maintenance import MaintenanceState, Snapshot, StoreError, job
from maintenance.contrib.opentelemetry import MAX_SCOPES, instrument
from maintenance.process import state as states
from tests.http.adapters import Adapter
from tests.support.clock import Clock, refuse, runtime
from tests.support.faulty import FaultyStore
from tests.support.servers import ROOT
from tests.support.waiting import eventually

Points = dict[str, dict[tuple[Any, ...], float]]

NAMES = {
    "maintenance.enabled",
    "maintenance.refused",
    "maintenance.in_flight",
    "maintenance.snapshot.age",
    "maintenance.refresh.failures",
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states of other tests are no part of this process."""
    monkeypatch.setattr(states, "_states", type(states._states)())


@pytest.fixture(params=["wsgi", "asgi"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return Adapter(request.param)


@contextmanager
def collecting(reader: MetricReader) -> Iterator[None]:
    provider = MeterProvider([reader])
    instrument(provider)
    yield
    provider.shutdown()


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    with collecting(reader):
        yield reader


def collect(reader: InMemoryMetricReader) -> Points:
    """The value of each point, by the name of its metric and the values of its attributes."""
    data = reader.get_metrics_data()
    assert data is not None
    [scope] = data.resource_metrics[0].scope_metrics
    return {
        metric.name: {tuple(point.attributes.values()): point.value for point in metric.data.data_points}
        for metric in scope.metrics
    }


def grew(reader: InMemoryMetricReader, name: str, act: Callable[[], object]) -> dict[tuple[Any, ...], float]:
    """By how much the points of a counter grow. Tests that ran before have counted too."""
    before = collect(reader)[name]
    act()
    return {key: value - before[key] for key, value in collect(reader)[name].items() if value > before[key]}


def test_they_follow_the_flag_and_the_requests(adapter: Adapter, reader: InMemoryMetricReader) -> None:
    seen: list[Points] = []
    with closing(MaintenanceState("memory://")) as state:
        app = adapter.wrap(state, inside=lambda _: seen.append(collect(reader)))
        assert collect(reader).keys() == NAMES - {"maintenance.enabled", "maintenance.snapshot.age"}
        adapter.ask(app)
        assert seen[0].keys() == NAMES
        assert seen[0]["maintenance.enabled"] == {(): 0}
        assert seen[0]["maintenance.in_flight"] == {(): 1}
        assert 0 <= seen[0]["maintenance.snapshot.age"][()] < 10
        assert grew(reader, "maintenance.refused", lambda: adapter.ask(app)) == {}
        state.set(True, scope="shop", mode="read_only")
        assert collect(reader)["maintenance.enabled"] == {(): 0, ("shop",): 1}
        state.set(True, mode="read_only")
        post = lambda: adapter.ask(app, "/a-secret-path", method="POST")  # noqa: E731
        assert grew(reader, "maintenance.refused", post) == {("read_only",): 1}
        state.set(True)
        state.set(False, scope="shop")
        assert grew(reader, "maintenance.refused", lambda: [adapter.ask(app) for _ in range(3)]) == {("full",): 3}
        assert collect(reader)["maintenance.enabled"] == {(): 1}
        assert collect(reader)["maintenance.in_flight"] == {(): 0}
        data = reader.get_metrics_data()
        assert data is not None
        assert "secret-path" not in data.to_json()


def test_age_and_failures_show_a_store_that_is_away(reader: InMemoryMetricReader) -> None:
    store, clock = FaultyStore(), Clock()
    state = MaintenanceState(store, ttl=10.0, when_stale="block", runtime=runtime(clock, start=refuse))
    state.wait_for_answer()
    clock.now += 4.0
    assert collect(reader)["maintenance.snapshot.age"] == {(): 4.0}
    store.error = StoreError("away")
    clock.now += 30.0
    assert grew(reader, "maintenance.refresh.failures", state.wait_for_answer)[()] >= 1
    assert collect(reader)["maintenance.snapshot.age"][()] >= 34.0
    assert collect(reader)["maintenance.enabled"] == {(): 1}  # it refuses everything
    store.error, store.standby = None, True
    state.refresh()
    assert collect(reader)["maintenance.snapshot.age"][()] >= 34.0  # a standby may lag
    store.standby = False
    clock.now += 10.0
    state.wait_for_answer()
    assert collect(reader)["maintenance.snapshot.age"][()] < 10.0
    assert collect(reader)["maintenance.enabled"] == {(): 0}


def test_a_state_that_only_flips_is_reported_no_longer_than_it_knows(reader: InMemoryMetricReader) -> None:
    clock = Clock()
    state = MaintenanceState("memory://", runtime=runtime(clock, start=refuse))
    state.set(True)
    assert collect(reader)["maintenance.enabled"] == {(): 1}
    assert collect(reader)["maintenance.snapshot.age"] == {(): 0.0}
    clock.now += 10.0
    assert not collect(reader).keys() & {"maintenance.enabled", "maintenance.snapshot.age"}


def test_several_states_and_middlewares_are_one_process(adapter: Adapter, reader: InMemoryMetricReader) -> None:
    seen: list[Points] = []
    clock = Clock()
    first, second = (MaintenanceState("memory://", runtime=runtime(clock, start=refuse)) for _ in range(2))
    first.set(True, scope="shop")
    second.set(True, scope="blog")
    second.set(True)
    inner = adapter.wrap(first, inside=lambda _: seen.append(collect(reader)))
    uncounted = adapter.wrap(first, in_flight=False, inside=lambda _: adapter.ask(inner))
    other = adapter.wrap(second)
    if adapter.name == "wsgi":  # an event loop cannot run inside another one
        adapter.ask(uncounted)
    else:
        adapter.ask(inner)
    with job("nightly", state=first):
        assert collect(reader)["maintenance.in_flight"] == {(): 1}
    assert grew(reader, "maintenance.refused", lambda: adapter.ask(other)) == {("full",): 1}
    assert seen[0]["maintenance.enabled"] == {(): 1, ("shop",): 1, ("blog",): 1}
    assert seen[0]["maintenance.in_flight"] == {(): 1}
    first._sources.add(next(it for it in second.sources if it is not second.jobs))
    assert collect(reader)["maintenance.in_flight"] == {(): 0}


def test_the_number_of_scopes_is_bounded_and_those_that_are_on_come_first(reader: InMemoryMetricReader) -> None:
    state = MaintenanceState("memory://", runtime=runtime(Clock(), start=refuse))
    state.set(True, scope="a-planned-one", starts=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    for number in range(MAX_SCOPES - 1):
        state.set(True, scope=f"tenant-{number}")
    state.refresh()
    reported = collect(reader)["maintenance.enabled"]
    assert (len(reported), reported["a-planned-one",]) == (MAX_SCOPES + 1, 0)
    state.set(True, scope="one-more")
    reported = collect(reader)["maintenance.enabled"]
    assert (len(reported), ("a-planned-one",) in reported, ("one-more",) in reported) == (MAX_SCOPES + 1, False, True)


def test_a_provider_gets_each_metric_once(reader: InMemoryMetricReader, caplog: pytest.LogCaptureFixture) -> None:
    provider = NoOpMeterProvider()
    for _ in range(2):
        instrument(provider)
        instrument()
    assert caplog.text == ""


@pytest.fixture
def scrape() -> Iterator[Callable[[], str]]:
    """Ask as Prometheus does, over a socket."""
    registry = CollectorRegistry()
    with collecting(PrometheusMetricReader(registry=registry)):
        server, thread = start_http_server(0, "127.0.0.1", registry)

        def ask() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
                text: str = answer.read().decode()
                return text

        yield ask
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_prometheus_sees_the_names_of_the_guide(adapter: Adapter, scrape: Callable[[], str]) -> None:
    guide = (ROOT / "docs/how-to/metrics.md").read_text(encoding="utf-8")
    with closing(MaintenanceState("memory://")) as state:
        app = adapter.wrap(state)
        state.set(True, scope="shop")
        assert adapter.ask(app).status == 200
        state.set(True)
        assert adapter.ask(app).status == 503
        lines = [line for line in scrape().splitlines() if line.startswith("maintenance_")]
    names = {line.partition("{")[0] for line in lines}
    assert names == {
        "maintenance_enabled",
        "maintenance_refused_total",
        "maintenance_in_flight",
        "maintenance_snapshot_age_seconds",
        "maintenance_refresh_failures_total",
    }
    assert {name for name in names if f"`{name}`" not in guide} == set()
    assert any('maintenance_scope="shop"' in line and line.endswith("} 1.0") for line in lines)
    assert any('maintenance_scope=""' in line and line.endswith("} 1.0") for line in lines)


class _Exporter(MetricExporter):
    """Stands still, or fails, whenever it is to export."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.fails, self.called, self.go_on = fails, threading.Event(), threading.Event()

    def export(self, *_: Any, **__: Any) -> MetricExportResult:
        self.called.set()
        if self.fails:
            raise RuntimeError("the collector is away")
        assert self.go_on.wait(60)
        return MetricExportResult.SUCCESS

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass

    def force_flush(self, *_: Any, **__: Any) -> bool:
        return True


@pytest.mark.parametrize("fails", [False, True])
def test_an_exporter_that_hangs_or_fails_delays_no_request_and_no_flip(adapter: Adapter, *, fails: bool) -> None:
    exporter = _Exporter(fails=fails)
    with closing(MaintenanceState("memory://")) as state:
        app = adapter.wrap(state)
        with collecting(PeriodicExportingMetricReader(exporter, export_interval_millis=1)):
            assert exporter.called.wait(10)
            # Had any of them waited for the exporter, it would wait for `go_on` below.
            assert [adapter.ask(app).status for _ in range(20)] == [200] * 20
            state.set(True)
            assert [adapter.ask(app).status for _ in range(20)] == [503] * 20
            assert state.refresh().enabled
            exporter.go_on.set()


def test_a_hook_that_hangs_delays_no_request_and_no_flip(adapter: Adapter) -> None:
    called, go_on = threading.Event(), threading.Event()

    def hang(flag: Snapshot) -> None:
        if flag.enabled:
            called.set()
            assert go_on.wait(60)

    with closing(MaintenanceState("memory://", ttl=0.2)) as state:
        app = adapter.wrap(state)
        state.on_change(hang)
        adapter.ask(app)
        MaintenanceState(state.store).set(True)
        assert called.wait(10)
        assert [adapter.ask(app).status for _ in range(20)] == [503] * 20
        MaintenanceState(state.store).set(False)
        eventually(lambda: adapter.ask(app).status == 200, what="the thread still reads")
        assert [adapter.ask(app).status for _ in range(20)] == [200] * 20
        go_on.set()


_PROGRAM = """
import os, sys
{before}
from maintenance import MaintenanceState
from maintenance.wsgi import MaintenanceMiddleware
from tests.contrib.test_opentelemetry import collect
from tests.support.clients import call_wsgi
from tests.support.plain_apps import wsgi

state = MaintenanceState("memory://", ttl=0.2)
app = MaintenanceMiddleware(wsgi, state)
call_wsgi(app)
{after}
"""

_SDK = """
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
provider = MeterProvider([reader])
set_meter_provider(provider)
"""


def run_program(*, before: str = "", after: str) -> list[str]:
    code = _PROGRAM.format(before=before, after=after)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


ONCE = "from maintenance.contrib.opentelemetry import instrument; instrument(); instrument(provider)\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_SDK, ""),
        (_SDK, ONCE),
        ("import opentelemetry.metrics", _SDK),
        ("import opentelemetry.metrics", _SDK + ONCE),
    ],
)
def test_a_process_that_uses_opentelemetry_publishes_them_without_a_call(before: str, after: str) -> None:
    printed = run_program(before=before, after=f"{after}print(*collect(reader))")
    assert set(printed) == NAMES


def test_a_child_reports_what_it_has_refused_itself_and_nothing_of_its_parent() -> None:
    fork = """
state.set(True)
[call_wsgi(app) for _ in range(3)]
refused = lambda: collect(reader)["maintenance.refused"][("full",)]
assert refused() == 3
if (pid := os.fork()) == 0:
    call_wsgi(app)
    print(refused(), *collect(reader)["maintenance.in_flight"].values(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(refused())
state.close()
"""
    assert run_program(before=_SDK + "import warnings; warnings.simplefilter('ignore')", after=fork) == ["1", "0", "3"]
