"""The metrics of this process, through the API of OpenTelemetry."""

from collections.abc import Iterator
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from maintenance._version import __version__
from maintenance.process.in_flight import EVERYTHING
from maintenance.process.metrics import FAILURES, REFUSED
from maintenance.process.state import MaintenanceState, list_states

MAX_SCOPES: Final = 100
"""The most scopes that are reported: a tenant may have a scope of its own, and each one is a time series."""

_done: Final[dict[MeterProvider | None, object]] = {}
"""The providers that get the metrics. None stands for the global one, also while it is not set yet."""


def instrument(meter_provider: MeterProvider | None = None) -> None:
    """Publish the metrics of this process. For one provider, a second call changes nothing.

    A state does this for the global provider, if the process uses OpenTelemetry. Every number is of the whole process:
    of all its states and middlewares.

    Args:
        meter_provider: The provider; None for the global provider, which may be set later.
    """
    if not _claim(meter_provider):
        return
    meter = metrics.get_meter("maintenance", __version__, meter_provider)
    # All are observed. A request updates no instrument, so that nothing of an exporter can delay it.
    meter.create_observable_gauge(
        "maintenance.enabled", [_observe_enabled], description="1 if maintenance is on, 0 if it is off or planned"
    )
    meter.create_observable_counter(
        "maintenance.refused", [_observe_refused], "{request}", "The requests that maintenance has refused"
    )
    meter.create_observable_up_down_counter(
        "maintenance.in_flight", [_observe_in_flight], "{request}", "The requests and jobs that are running"
    )
    meter.create_observable_gauge(
        "maintenance.snapshot.age", [_observe_age], "s", "The time since the read that renewed the lease last"
    )
    meter.create_observable_counter(
        "maintenance.refresh.failures", [_observe_failures], "{failure}", "How often the lease could not be renewed"
    )


def _claim(given: MeterProvider | None) -> bool:
    current, me = metrics.get_meter_provider(), object()
    provider = current if given is None else given
    keys = [provider, None] if provider is current else [provider]
    return all([_done.setdefault(key, me) is me for key in keys])  # noqa: C419 - each one is claimed


def _list_following() -> list[MaintenanceState]:
    """Return the states that follow the flag. The value that others know may be old."""
    return [state for state in list_states() if state.lifecycle.watcher is not None or state.lease.primed]


def _observe_enabled(_: CallbackOptions) -> Iterator[Observation]:
    following = _list_following()
    site = [state.lease.flags.site.enabled or state.lease.refuses_all for state in following]
    if site:
        yield Observation(int(any(site)))
    scopes: dict[str, bool] = {}
    for state in following:
        for scope, flag in state.lease.flags.scopes.items():
            scopes[scope] = flag.enabled or scopes.get(scope, False)
    for scope, enabled in sorted(scopes.items(), key=lambda it: (not it[1], it[0]))[:MAX_SCOPES]:
        yield Observation(int(enabled), {"maintenance.scope": scope})


def _observe_refused(_: CallbackOptions) -> Iterator[Observation]:
    for mode, count in REFUSED.items():
        yield Observation(count.read(), {"maintenance.mode": mode})


def _observe_in_flight(_: CallbackOptions) -> Iterator[Observation]:
    # A middleware that has followed two states is a source of both.
    sources = {source for state in list_states() for source in state.sources}
    yield Observation(sum(len(source.entries(EVERYTHING) or ()) for source in sources))


def _observe_age(_: CallbackOptions) -> Iterator[Observation]:
    ages = [age for state in _list_following() if (age := state.lease.age) is not None]
    if ages:
        yield Observation(max(ages))


def _observe_failures(_: CallbackOptions) -> Iterator[Observation]:
    yield Observation(FAILURES.read())
