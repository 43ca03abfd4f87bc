"""What a fleet of 100, 1,000 and 10,000 processes costs, and what breaks first.

The processes are simulated, see `benchmarks.hub` and `benchmarks.simulated`. PostgreSQL and PgBouncer are real.
"""

import base64
import hashlib
import hmac
import os
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psutil
import psycopg

from benchmarks import results
from benchmarks.report import line
from benchmarks.simulated import BIN, Fleet, await_fresh, raise_limit, simulated
from maintenance import MaintenanceState, Snapshot
from tests.support.pgbouncer import PgBouncer, pgbouncer
from tests.support.postgres import DURABLE, Server, server

POOLED: Final = os.environ.get("BENCH_POOLED", "100/10 1000/10 2500/10 10000/60").split()
LISTENING: Final = os.environ.get("BENCH_LISTENING", "100/10 500/10 1000/10 2000/10").split()
"""How many processes, and their TTL in seconds."""

STEADY: Final = 20.0
STARTS: Final = 50.0
"""Processes that start in a second. The simulator pays for each login what a machine of the fleet would pay."""

SCOPES: Final = 1000
DOWN: Final = 5.0
POOL: Final = 20
MOST_FOR_SCOPES: Final = 1000
"""Processes. Each reads all scopes after each change, and the simulator would pay for all of them."""

Data = dict[str, Any]


@dataclass
class Site:
    """What is measured."""

    server: Server
    pooler: PgBouncer | None
    fleet: Fleet
    operator: MaintenanceState
    size: int
    ttl: int

    @property
    def limit(self) -> float:
        """Seconds after which a part is given up. Its failure is a result too."""
        return max(60.0, self.size / STARTS)


def run() -> None:
    """Measure each size through PgBouncer, then those that listen, and keep the result."""
    raise_limit()
    data: Data = {"through PgBouncer": {}, "listening": {}}
    for kind, fleets in (("through PgBouncer", POOLED), ("listening", LISTENING)):
        for fleet in fleets:
            size, ttl = map(int, fleet.split("/"))
            print(f"  {size} processes, TTL {ttl} s, {kind}", flush=True)
            data[kind][fleet] = _attempt(fleet, lambda size=size, ttl=ttl, kind=kind: _run(size, ttl, kind))
            _keep(data)


def _run(size: int, ttl: int, kind: str) -> Data:
    pooled = kind != "listening"
    with _site(size, ttl, pooled=pooled) as site:
        return _measure(site) if pooled else _measure_listening(site)


def _keep(data: Data) -> None:
    note = "The simulator, the database and PgBouncer share the cores."
    path = results.save("ten_thousand", data, versions=("psycopg", "greenlet"), note=note)
    print(f"  kept in {path.name}", flush=True)


@contextmanager
def _site(size: int, ttl: int, *, pooled: bool) -> Iterator[Site]:
    with server(**DURABLE, max_connections=str(size + 50 if not pooled else 100)) as database:
        url = database.url()
        with closing(MaintenanceState(url, register=False)) as owner:
            owner.store.migrate()
        with _pooler(database, size) if pooled else _nothing() as pooler:
            reached = url if pooler is None else database.url(port=pooler.port)
            with (
                simulated(reached, listen=not pooled, ttl=ttl) as fleet,
                closing(MaintenanceState(reached, register=False)) as operator,
            ):
                fleet.start(size, size / STARTS)
                site = Site(database, pooler, fleet, operator, size, ttl)
                await_fresh(fleet, size, size / STARTS + site.limit)
                time.sleep(ttl / 2)
                yield site


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


@contextmanager
def _pooler(database: Server, size: int) -> Iterator[PgBouncer]:
    settings: dict[str, object] = {"default_pool_size": POOL, "max_client_conn": size + 100, "listen_backlog": 4096}
    settings |= {"log_connections": 0, "log_disconnections": 0, "log_pooler_errors": 0}
    secret = _secret(database.password)
    with psycopg.connect(database.url()) as connection:  # PgBouncer logs in with what it learns from a client's login
        connection.execute(f"ALTER ROLE {database.user} PASSWORD '{secret}'")
    with pgbouncer(database, mode="transaction", secret=secret, **settings) as pooler:
        yield pooler


def _secret(password: str, iterations: int = 1) -> str:
    """Return what PgBouncer needs to check a password.

    Each client pays the iterations, and in a fleet each has a machine of its own. So the simulator pays for one.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    keys = (base64.b64encode(it).decode() for it in (client, hmac.digest(salted, b"Server Key", "sha256")))
    return f"SCRAM-SHA-256${iterations}:{base64.b64encode(salt).decode()}${':'.join(keys)}"


def _measure(site: Site) -> Data:
    steady = _measured(site, "steady", lambda: _rest(site))
    parts: dict[str, Callable[[], Data]] = {
        "flip": lambda: _flip(site), "rolling restart": lambda: _roll(site),
        "restart": lambda: _restart(site, steady["reads"]),
    }  # fmt: skip
    if site.size <= MOST_FOR_SCOPES:
        parts["scopes"] = lambda: _scopes(site)
    return {"steady": steady} | {name: _attempt(name, part) for name, part in parts.items()}


def _rest(site: Site) -> Data:
    time.sleep(max(STEADY, site.ttl / 2))
    return {"fresh": site.fleet.report()[1]}


def _attempt(name: str, part: Callable[[], Data]) -> Data:
    try:
        return part()
    except RuntimeError as exc:
        print(f"    {name}: {exc}", flush=True)
        return {"failed": str(exc)}


def _measure_listening(site: Site) -> Data:
    return {"steady": _measured(site, "steady", lambda: _rest(site)), "flip": _flip(site)}


def _flip(site: Site) -> Data:
    on = _measured(site, "flip on", lambda: _prove(site, site.operator.set(True)))
    return {"on": on, "off": _measured(site, "flip off", lambda: _prove(site, site.operator.set(False)))}


def _prove(site: Site, snapshot: Snapshot) -> Data:
    looks: list[float] = []
    began = time.monotonic()
    proof = site.operator.prove(
        snapshot, timeout=site.limit, expect=site.size, progress=lambda it: looks.append(len(it.confirmed))
    )
    if not proof:
        raise RuntimeError(f"not proven: {len(proof.laggards)} laggards after {site.limit:g} s; {proof.problem}")
    return {"proven": time.monotonic() - began, "looks": len(looks)}


def _scopes(site: Site) -> Data:
    """Turn many scopes on at once, and then flip one more."""

    def turn_on() -> Data:
        began = time.monotonic()
        with psycopg.connect(site.server.url()) as connection:
            connection.execute(
                "INSERT INTO platform_settings (key, value_bool) "
                "SELECT 'maintenance_mode:scope-' || n, true FROM generate_series(1, %s) n",
                (SCOPES,),
            )
        _await(site, lambda: site.fleet.report()[2] >= SCOPES)
        return {"followed": time.monotonic() - began}

    all_on = _measured(site, "scopes on", turn_on)
    one = _measured(site, "one more scope", lambda: _prove(site, site.operator.set(True, scope="one-more")))
    return {"on": SCOPES, "all on": all_on, "one more": one}


def _roll(site: Site) -> Data:
    """Replace each process by another one."""
    seconds = max(site.size / STARTS, 10.0)

    def replace() -> Data:
        site.fleet.replace(seconds)
        time.sleep(seconds)
        return {"spread over": seconds, "settled": await_fresh(site.fleet, site.size, site.limit)}

    data = _measured(site, "rolling restart", replace)
    _await(site, lambda: _rows(site) == site.size)
    return data | {"flip after": _prove(site, site.operator.set(True)), "back": _prove(site, site.operator.set(False))}


def _rows(site: Site) -> int:
    with psycopg.connect(site.server.url()) as connection:
        row = connection.execute("SELECT count(*) - 1 FROM maintenance_instances").fetchone()
    return int(row[0]) if row else 0


def _restart(site: Site, steady: float) -> Data:
    """End the database and PgBouncer at once, wait, and start both."""
    assert site.pooler is not None
    site.server.kill()
    site.pooler.kill()
    time.sleep(DOWN)
    site.server.start()
    back = time.monotonic()
    site.pooler.start()
    time.sleep(1.0)
    settled = 1.0 + await_fresh(site.fleet, site.size, site.limit)
    time.sleep(10.0)
    first = int((back - site.fleet.began - DOWN) / BIN)
    shown = range(first, first + int((DOWN + settled + 10.0) / BIN))
    counts = site.fleet.report()[0]
    series = {name: [_at(counts[name], it) for it in shown] for name in ("connects tried", "connects", "reads")}
    peak = max(series["reads"])
    # What chance alone brings in the steady state: the mean, and four times its square root.
    usual = steady * BIN
    line("restart: until all are fresh", settled, "s")
    line("restart: peak of reads, of the steady rate", peak / max(usual, 0.1), "x", more=f"{peak} in {BIN:g} s")
    return {"settled": settled, "peak": peak, "usual": usual, "bin": BIN, "begins": -DOWN, "series": series}


def _at(counts: list[int], number: int) -> int:
    return counts[number] if 0 <= number < len(counts) else 0


def _await(site: Site, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + site.limit
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"the fleet has not settled within {site.limit:g} s")
        time.sleep(0.25)


def _measured(site: Site, name: str, action: Callable[[], Data | None]) -> Data:
    """Run something; return its own figures, and the load while it ran, for each second."""
    before, began = _load(site), time.monotonic()
    found = action() or {}
    took = time.monotonic() - began
    after = _load(site)
    data = {key: round((after[key] - before[key]) / took, 3) for key in after} | {"seconds": round(took, 2)}
    data |= {key: round(value, 3) for key, value in found.items()}
    print(f"    {name}: " + ", ".join(f"{key} {value:g}" for key, value in data.items()), flush=True)
    return data


def _load(site: Site) -> dict[str, float]:
    counts = site.fleet.report()[0]
    with psycopg.connect(site.server.url()) as connection:
        row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
    load = {name: sum(counts.get(name, [])) for name in ("reads", "writes", "removals", "connects")}
    load["failed reads"] = sum(counts.get("reads sent", [])) - load["reads"]
    load |= {"wal bytes": float(row[0]) if row else 0.0, "cpu of postgres": _cpu(site.server.pid)}
    load["cpu of pgbouncer"] = _cpu(site.pooler.process.pid) if site.pooler else 0.0
    load["cpu of simulator"] = sum(_cpu(worker.pid) for worker in site.fleet.workers)
    return load | {"cpu of operator": statistics.fsum(psutil.Process().cpu_times()[:2])}


def _cpu(pid: int | None) -> float:
    """Return the seconds of a process and its children, those that have ended included."""
    process = psutil.Process(pid)
    total = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # it is counted once the parent has waited for it
    return total
