"""Many short outages, after which a process must hold no more than before."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Final

import psutil

from tests.faults.fault import Lab, Place, update_flag
from tests.faults.places import relayed
from tests.faults.runner import Process
from tests.faults.table import TERMINATE
from tests.support.sql import run_sql
from tests.support.waiting import eventually

TTL: Final = 0.2
WARM_UP: Final = 9
"""Outages until each thing that is loaded once is loaded."""

MOST_GROWTH: Final = 4 * 2**20
"""Bytes. One object kept for each of a thousand outages would be about as much."""


def soak(lab: Lab, outages: int) -> dict[str, Any]:
    """Cause outages of one process that serves, and return what it holds before and after them."""
    with relayed(lab) as place, closing(Process(place.cases[0], "serve", place, ttl=TTL, keep=100)) as one:
        eventually(lambda: one.shows("200"), 15.0)
        acts = _acts(place, one)
        for act in itertools.islice(acts, WARM_UP):
            act()
        before = _holdings(place, one)
        for done, act in enumerate(itertools.islice(acts, outages), 1):
            act()
            if done % 50 == 0:
                print(f"{done} outages", flush=True)
        # A connection that has just been replaced may still be closing.
        eventually(lambda: _holdings(place, one)["connections"] == 1)
        after = _holdings(place, one)
        update_flag(place.cases[0], on=True)
        eventually(lambda: one.shows("503"), what="the flip after all outages")
    return {"outages": outages, "before": before, "after": after}


def grown(result: dict[str, Any]) -> list[str]:
    """Return what the process holds more of."""
    before, after = result["before"], result["after"]
    most = dict.fromkeys(before, 0) | {"bytes": MOST_GROWTH}
    return [f"{name}: {before[name]} -> {after[name]}" for name in before if after[name] > before[name] + most[name]]


def _acts(place: Place, one: Process) -> Iterator[Callable[[], None]]:
    relay: Any = place.relay

    def refuse() -> None:
        relay.refuse()
        _miss(one)
        relay.pass_()
        _recover(one)

    def cut() -> None:
        relay.cut()
        _miss(one)
        relay.pass_()
        _recover(one)

    def terminate() -> None:
        gone = {pid for (pid,) in _backends(place)}
        run_sql(place.server.url(), TERMINATE)
        eventually(lambda: {pid for (pid,) in _backends(place)} - gone, what="a new connection")
        _recover(one)

    return itertools.cycle((refuse, cut, terminate))


def _miss(one: Process) -> None:
    eventually(lambda: one.tell("status")[0] == "stale", interval=0.005)


def _recover(one: Process) -> None:
    eventually(lambda: one.shows("200"), interval=0.005)


def _backends(place: Place) -> list[Any]:
    return run_sql(place.server.url(), "SELECT pid FROM pg_stat_activity WHERE application_name = 'maintenance'")


def _holdings(place: Place, one: Process) -> dict[str, int]:
    process = psutil.Process(one.popen.pid)
    return {
        "bytes": process.memory_info().rss,
        "threads": process.num_threads(),
        "descriptors": process.num_fds(),
        "connections": len(_backends(place)),
    }
