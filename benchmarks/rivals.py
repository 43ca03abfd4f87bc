"""From a flip of this library, and of others, to the last process that refuses: each serves a request every 50 ms.

The other libraries keep the flag in Redis. Those that read it at each request are not here: they follow with the next.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing, suppress
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi_alcazaba import Cache
from fastapi_alcazaba import maintenance as alcazaba
from fastapi_alcazaba.backends.redis import RedisBackend
from redis.asyncio import Redis
from waygate.core.backends.redis import RedisBackend as WaygateBackend
from waygate.core.engine import WaygateEngine
from waygate.fastapi.middleware import WaygateMiddleware

from benchmarks import results
from benchmarks.propagation import FLEETS, TTL, hear, start_processes, summarize
from maintenance import MaintenanceState, aset_maintenance
from maintenance.asgi import MaintenanceMiddleware
from maintenance.base.runtime import REAL
from tests.support.clients import acall_asgi
from tests.support.postgres import DURABLE, server
from tests.support.redis import redis_server

FLIPS: Final = 11
"""With the one before them, which is not counted, an even number: it ends with off."""

PAUSE: Final = 0.05
"""Seconds between two requests to one process."""

App = Callable[..., Awaitable[None]]


class Rival(NamedTuple):
    """A library: what an app wraps itself in, and what flips it. Both run in the event loop that uses them."""

    wrap: Callable[[str], Awaitable[App]]
    flip: Callable[[str], Callable[[bool], Awaitable[None]]]
    redis: bool = True


def _app() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/x", lambda: PlainTextResponse("open"))
    return app


async def _wrap_in_ours(url: str) -> App:
    return MaintenanceMiddleware(_app(), MaintenanceState(url, ttl=TTL))


def _flip_ours(url: str) -> Callable[[bool], Awaitable[None]]:
    state = MaintenanceState(url, register=False)

    async def flip(on: bool) -> None:
        await aset_maintenance(on, state=state)

    return flip


async def _wrap_in_alcazaba(url: str) -> App:
    maintenance = alcazaba.FastAPIMaintenance(Cache(RedisBackend(Redis.from_url(url))))
    return alcazaba.MaintenanceMiddleware(_app(), maintenance=maintenance)


def _flip_alcazaba(url: str) -> Callable[[bool], Awaitable[None]]:
    switch = alcazaba.FastAPIMaintenance(Cache(RedisBackend(Redis.from_url(url))))

    async def flip(on: bool) -> None:
        await (switch.enable("Back soon.") if on else switch.disable())

    return flip


async def _wrap_in_waygate(url: str) -> App:
    engine, app = WaygateEngine(backend=WaygateBackend(url)), _app()
    await engine.start()
    app.add_middleware(WaygateMiddleware, engine=engine)
    return app


def _flip_waygate(url: str) -> Callable[[bool], Awaitable[None]]:
    engine = WaygateEngine(backend=WaygateBackend(url))

    async def flip(on: bool) -> None:
        await (engine.enable_global_maintenance(reason="Back soon.") if on else engine.disable_global_maintenance())

    return flip


RIVALS: Final = {
    "maintenance, PostgreSQL": Rival(_wrap_in_ours, _flip_ours, redis=False),
    "fastapi-alcazaba, Redis": Rival(_wrap_in_alcazaba, _flip_alcazaba),
    "waygate, Redis": Rival(_wrap_in_waygate, _flip_waygate),
}


def run() -> None:
    """Measure each library with each size of fleet, and keep the result."""
    with ExitStack() as stack:
        postgres = stack.enter_context(server(max_connections="250", **DURABLE)).url()
        with closing(MaintenanceState(postgres, register=False)) as owner:
            owner.store.migrate()
        redis = stack.enter_context(redis_server())
        data = {
            name: {str(size): _measure(name, redis if rival.redis else postgres, size) for size in FLEETS}
            for name, rival in RIVALS.items()
        }
    note = f"A request to each process every {PAUSE * 1e3:.0f} ms, {FLIPS} flips."
    versions = ("fastapi-alcazaba", "waygate", "fastapi", "redis")
    print(f"  kept in {results.save('rivals', data, versions=versions, note=note).name}")


def _measure(name: str, url: str, size: int) -> dict[str, dict[str, float]]:
    from_commit: list[float] = []
    from_call: list[float] = []
    with asyncio.Runner() as runner, start_processes(_follow, [(name, url)] * size) as tellers:
        flip = RIVALS[name].flip(url)
        for number in range(1, FLIPS + 2):
            called = REAL.clock()
            runner.run(flip(number % 2 == 1))
            committed = REAL.clock()
            last = max(hear(teller, number) for teller in tellers)
            from_commit.append(max(last - committed, 0.0))
            from_call.append(last - called)
            time.sleep(random.uniform(0.1, 1.1))  # not in step with what is refreshed each second
    figure = {"from_commit": summarize(from_commit[1:]), "from_call": summarize(from_call[1:])}
    print(f"  {name}, {size} processes, until the last one follows, ms: {figure}", flush=True)
    return figure


def _follow(there: Connection, name: str, url: str) -> None:
    asyncio.run(_serve(there, name, url))


async def _serve(there: Connection, name: str, url: str) -> None:
    """Report each change of the answer, with its number."""
    app = await RIVALS[name].wrap(url)
    status, number = await _ask(app), 0
    there.send((0, 0.0))
    with suppress(EOFError):
        while not there.poll():
            if (found := await _ask(app)) != status:
                status, number = found, number + 1
                there.send((number, REAL.clock()))
            await asyncio.sleep(random.uniform(0.0, 2 * PAUSE))


async def _ask(app: App) -> int:
    return (await acall_asgi(app, "/x")).status
