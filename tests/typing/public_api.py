"""The types of the public API, as a user's type checker sees them. mypy reads this file, and nothing runs it.

`assert_type` fails if a type gets wider or narrower. A `type: ignore` fails if mypy no longer finds the mistake.
"""

import datetime as dt
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, assert_type
from uuid import UUID

import maintenance
import maintenance.asgi
import maintenance.wsgi
from maintenance import (
    ConfigurationError,
    Entry,
    Fleet,
    Instance,
    MaintenanceError,
    MaintenanceState,
    Proof,
    Request,
    Response,
    Snapshot,
    Status,
    StoreError,
)
from maintenance.bypass import addresses, header_token
from maintenance.errors import LateError
from maintenance.stores import MemoryStore, PostgresStore, Session, SQLiteStore, Store, Waker, open_store

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Mode = Literal["full", "read_only"]
WhenStale = Literal["serve", "block"]
Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

NOON = dt.datetime(2031, 5, 1, 12, tzinfo=dt.UTC)


def functions(store: Store, state: MaintenanceState, key: UUID, mode: Mode, when_stale: WhenStale) -> None:
    assert_type(maintenance.__version__, str)
    assert_type(maintenance.init_maintenance(), MaintenanceState)
    assert_type(maintenance.init_maintenance("memory://"), MaintenanceState)
    assert_type(maintenance.init_maintenance(store), MaintenanceState)
    assert_type(
        maintenance.init_maintenance(None, ttl=1, when_stale=when_stale, boot_timeout=1.5, register=True),
        MaintenanceState,
    )
    maintenance.init_maintenance(1)  # type: ignore[arg-type]

    assert_type(maintenance.maintenance_enabled(), bool)
    assert_type(maintenance.fleet(), Fleet)
    assert_type(maintenance.fleet(state), Fleet)
    maintenance.fleet("memory://")  # type: ignore[arg-type]

    assert_type(maintenance.set_maintenance(True), Snapshot)
    assert_type(maintenance.update_maintenance(scope="shop", message="Back at noon."), Snapshot)
    maintenance.set_maintenance(True, secret=True)
    maintenance.update_maintenance(secret="a-token-of-our-own-with-many-signs")
    maintenance.set_maintenance(True, secret=1)  # type: ignore[arg-type]
    maintenance.update_maintenance(messages="Back at noon.")  # type: ignore[call-arg]
    maintenance.set_maintenance(True, scope="shop", starts=dt.datetime.now(dt.UTC), auto_off=True, if_revision=7)
    assert_type(
        maintenance.set_maintenance(
            True,
            message="Back at noon.",
            until=NOON,
            retry_after=60,
            mode=mode,
            actor="alice",
            updated_by=key,
            reason="upgrade",
            state=state,
        ),
        Snapshot,
    )
    maintenance.set_maintenance(
        True,
        message=None,
        until=None,
        retry_after=None,
        mode="read_only",
        actor=None,
        updated_by=str(key),
        reason=None,
        state=None,
    )
    maintenance.set_maintenance(True, message={"en": "Back at noon.", "de": "Mittags zurück."})
    maintenance.set_maintenance(True, message={"en": 1})  # type: ignore[dict-item]
    maintenance.set_maintenance(False, updated_by=None)
    maintenance.set_maintenance()  # type: ignore[call-arg]
    maintenance.set_maintenance("on")  # type: ignore[arg-type]
    maintenance.set_maintenance(None)  # type: ignore[arg-type]
    maintenance.set_maintenance(True, "Back at noon.")  # type: ignore[call-arg, arg-type]
    maintenance.set_maintenance(True, messages="Back at noon.")  # type: ignore[call-arg]
    maintenance.set_maintenance(True, message=b"Back at noon.")  # type: ignore[arg-type]
    maintenance.set_maintenance(True, until="noon")  # type: ignore[arg-type]
    maintenance.set_maintenance(True, retry_after=0.5)  # type: ignore[arg-type]
    maintenance.set_maintenance(True, mode="closed")  # type: ignore[arg-type]
    maintenance.set_maintenance(True, mode=None)  # type: ignore[arg-type]
    maintenance.set_maintenance(True, actor=1)  # type: ignore[arg-type]
    maintenance.set_maintenance(True, updated_by=1)  # type: ignore[arg-type]
    maintenance.set_maintenance(True, reason=1)  # type: ignore[arg-type]
    maintenance.set_maintenance(True, state="memory://")  # type: ignore[arg-type]


async def async_functions(state: MaintenanceState, key: UUID, mode: Mode) -> None:
    assert_type(await maintenance.aset_maintenance(True), Snapshot)
    assert_type(
        await maintenance.aset_maintenance(
            True,
            message="Back at noon.",
            until=NOON,
            retry_after=60,
            mode=mode,
            actor="alice",
            updated_by=key,
            reason="upgrade",
            state=state,
        ),
        Snapshot,
    )
    await maintenance.aset_maintenance()  # type: ignore[call-arg]
    await maintenance.aset_maintenance("on")  # type: ignore[arg-type]
    await maintenance.aset_maintenance(True, "Back at noon.")  # type: ignore[call-arg]


def make_state(store: Store, when_stale: WhenStale) -> None:
    assert_type(MaintenanceState("memory://"), MaintenanceState)
    assert_type(
        MaintenanceState(store, ttl=10, when_stale=when_stale, boot_timeout=5.0, register=False), MaintenanceState
    )
    MaintenanceState()  # type: ignore[call-arg]
    MaintenanceState(None)  # type: ignore[arg-type]
    MaintenanceState(store, 10)  # type: ignore[call-arg]
    MaintenanceState(store, lease=10)  # type: ignore[call-arg]
    MaintenanceState(store, ttl="10")  # type: ignore[arg-type]
    MaintenanceState(store, when_stale="refuse")  # type: ignore[arg-type]
    MaintenanceState(store, boot_timeout=None)  # type: ignore[arg-type]
    MaintenanceState(store, register=None)  # type: ignore[arg-type]
    MaintenanceState(store, runtime=None)  # type: ignore[arg-type]


def use_state(state: MaintenanceState, key: UUID, mode: Mode) -> None:
    assert_type(state.store, Store)
    assert_type(state.snapshot(), Snapshot)
    assert_type(state.enabled, bool)
    assert_type(state.prime(), Snapshot)
    assert_type(state.refresh(), Snapshot)
    assert_type(state.fleet(), Fleet)
    assert_type(state.forget("6f1c2a90", "7a"), bool)
    assert_type(state.find("6f1c"), tuple[Instance, ...])
    assert_type(state.status(), Status)
    assert_type(state.start, Callable[[], None])
    assert_type(state.leave, Callable[[], None])
    assert_type(state.close, Callable[[], None])
    state.enabled = True  # type: ignore[misc]
    state.forget(key)  # type: ignore[arg-type]

    assert_type(state.set(True), Snapshot)
    assert_type(
        state.set(
            True,
            message="Back at noon.",
            until=NOON,
            retry_after=60,
            mode=mode,
            actor="alice",
            updated_by=key,
            reason="upgrade",
        ),
        Snapshot,
    )
    state.set(True, state=state)  # type: ignore[call-arg]
    state.set(True, updated_by=1)  # type: ignore[arg-type]
    state.set(True, until="noon")  # type: ignore[arg-type]


def prove(state: MaintenanceState, snapshot: Snapshot) -> None:
    assert_type(state.prove(snapshot), Proof)
    assert_type(
        state.prove(snapshot, drain=True, timeout=20, expect=12, presume_dead=600.0, progress=print_proof), Proof
    )
    state.prove(snapshot, timeout=None, expect=None, presume_dead=None)
    state.prove()  # type: ignore[call-arg]
    state.prove(True)  # type: ignore[arg-type]
    state.prove(snapshot, True)  # type: ignore[call-arg]
    state.prove(snapshot, drain=None)  # type: ignore[arg-type]
    state.prove(snapshot, timeout="20s")  # type: ignore[arg-type]
    state.prove(snapshot, expect=1.5)  # type: ignore[arg-type]
    state.prove(snapshot, presume_dead="10m")  # type: ignore[arg-type]
    state.prove(snapshot, progress=print_snapshot)  # type: ignore[arg-type]


async def aprove(state: MaintenanceState, snapshot: Snapshot) -> None:
    assert_type(await state.aprove(snapshot), Proof)
    assert_type(
        await state.aprove(snapshot, drain=True, timeout=20, expect=12, presume_dead=600.0, progress=print_proof),
        Proof,
    )
    await state.aprove()  # type: ignore[call-arg]
    await state.aprove(True)  # type: ignore[arg-type]
    await state.aprove(snapshot, True)  # type: ignore[call-arg]


def print_proof(proof: Proof) -> None: ...


def print_snapshot(snapshot: Snapshot) -> int:
    return snapshot.revision


def on_change(state: MaintenanceState) -> None:
    @state.on_change
    def keep(snapshot: Snapshot) -> str:
        return snapshot.source

    # As a decorator it gives back the very function, not just any callable.
    assert_type(keep(state.snapshot()), str)
    assert_type(state.on_change(print_snapshot)(state.snapshot()), int)
    state.on_change(print_proof)  # type: ignore[type-var]
    state.on_change()  # type: ignore[call-arg]


def is_staff(request: Request) -> bool:
    return request.client == "192.0.2.1"


def respond(snapshot: Snapshot, request: Request) -> Response:
    return Response(503, (("X-Path", request.path),), (snapshot.message or "").encode())


def wsgi(app: "WSGIApplication", environ: "WSGIEnvironment", start: "StartResponse", state: MaintenanceState) -> None:
    wrapped: WSGIApplication = maintenance.wsgi.MaintenanceMiddleware(app)
    assert_type(wrapped(environ, start), Iterable[bytes])
    maintenance.wsgi.MaintenanceMiddleware(
        app,
        state,
        exempt=["/metrics", "GET /status"],
        default_exempt=False,
        bypass=is_staff,
        respond=respond,
        in_flight=False,
    )
    maintenance.wsgi.MaintenanceMiddleware(app, None, exempt=(), bypass=(is_staff, is_staff), respond=None)
    maintenance.wsgi.MaintenanceMiddleware(app, state=state, bypass=None)
    maintenance.wsgi.MaintenanceMiddleware(app, cors=("*",), reads=["POST /search"], mark_read_only=True)
    maintenance.wsgi.MaintenanceMiddleware(app, bypass=addresses("10.0.0.0/8"))
    maintenance.wsgi.MaintenanceMiddleware()  # type: ignore[call-arg]
    maintenance.wsgi.MaintenanceMiddleware(app, "memory://")  # type: ignore[arg-type]
    maintenance.wsgi.MaintenanceMiddleware(app, None, ["/metrics"])  # type: ignore[call-arg]
    maintenance.wsgi.MaintenanceMiddleware(app, exempt=[1])  # type: ignore[list-item]
    maintenance.wsgi.MaintenanceMiddleware(app, default_exempt=None)  # type: ignore[arg-type]
    maintenance.wsgi.MaintenanceMiddleware(app, bypass="staff")  # type: ignore[arg-type]
    maintenance.wsgi.MaintenanceMiddleware(app, page=maintenance.Page(name="Shop", texts={"de": {"title": "x"}}))
    maintenance.wsgi.MaintenanceMiddleware(app, page="page.html")  # type: ignore[arg-type]
    maintenance.wsgi.MaintenanceMiddleware(app, respond=is_staff)  # type: ignore[arg-type]
    maintenance.wsgi.MaintenanceMiddleware(app, in_flight=None)  # type: ignore[arg-type]
    maintenance.wsgi.MaintenanceMiddleware(app, close_websockets=True)  # type: ignore[call-arg]


def asgi(app: AsgiApp, state: MaintenanceState) -> None:
    wrapped: AsgiApp = maintenance.asgi.MaintenanceMiddleware(app)
    maintenance.asgi.MaintenanceMiddleware(
        wrapped,
        state,
        exempt=["/metrics", "GET /status"],
        default_exempt=False,
        bypass=[is_staff],
        respond=respond,
        in_flight=False,
        close_websockets=True,
    )
    maintenance.asgi.MaintenanceMiddleware(app, None, exempt=(), bypass=is_staff, respond=None)
    maintenance.asgi.MaintenanceMiddleware(app, state=state, bypass=None)
    maintenance.asgi.MaintenanceMiddleware()  # type: ignore[call-arg]
    maintenance.asgi.MaintenanceMiddleware(is_staff)  # type: ignore[arg-type]
    maintenance.asgi.MaintenanceMiddleware(app, "memory://")  # type: ignore[arg-type]
    maintenance.asgi.MaintenanceMiddleware(app, None, True)  # type: ignore[arg-type, call-arg]
    maintenance.asgi.MaintenanceMiddleware(app, exempt=[1])  # type: ignore[list-item]
    maintenance.asgi.MaintenanceMiddleware(app, default_exempt=None)  # type: ignore[arg-type]
    maintenance.asgi.MaintenanceMiddleware(app, bypass="staff")  # type: ignore[arg-type]
    maintenance.asgi.MaintenanceMiddleware(app, page=maintenance.Page(accent="#0b6e4f", logo="logo.svg"))
    maintenance.asgi.MaintenanceMiddleware(app, respond=is_staff)  # type: ignore[arg-type]
    maintenance.asgi.MaintenanceMiddleware(app, in_flight=None)  # type: ignore[arg-type]
    maintenance.asgi.MaintenanceMiddleware(app, close_websockets=None)  # type: ignore[arg-type]
    maintenance.asgi.MaintenanceMiddleware(app, close_sockets=True)  # type: ignore[call-arg]


def values(snapshot: Snapshot, request: Request, response: Response) -> None:
    assert_type(snapshot.enabled, bool)
    assert_type(snapshot.mode, Mode)
    assert_type(snapshot.message, str | None)
    assert_type(snapshot.until, dt.datetime | None)
    assert_type(snapshot.retry_after, int | None)
    assert_type(snapshot.actor, str | None)
    assert_type(snapshot.reason, str | None)
    assert_type(snapshot.revision, int)
    assert_type(snapshot.updated_at, dt.datetime | None)
    assert_type(snapshot.updated_by, UUID | None)
    assert_type(snapshot.source, Literal["store", "environment", "default"])
    assert_type(snapshot.read_at, float)
    snapshot.enabled = False  # type: ignore[misc]

    assert_type(request.method, str)
    assert_type(request.path, str)
    assert_type(request.headers, Mapping[str, str])
    assert_type(request.client, str | None)
    assert_type(snapshot.secret, str | None)
    assert_type(snapshot.token, str | None)
    assert_type(request.query, Mapping[str, str])
    assert_type(request.cookies, Mapping[str, str])
    assert_type(request.host, str)
    assert_type(addresses("10.0.0.0/8", proxies=1)(request), bool)
    assert_type(header_token("X-Ops-Token", "x" * 16)(request), bool)
    assert_type(Request("GET", "/"), Request)
    assert_type(Request("GET", "/", {"Cookie": "a=b"}, "192.0.2.1"), Request)
    request.path = "/"  # type: ignore[misc]
    request.headers["Cookie"] = "a=b"  # type: ignore[index]

    assert_type(response.status, int)
    assert_type(response.headers, tuple[tuple[str, str], ...])
    assert_type(response.body, bytes)
    assert_type(Response(503, (), b""), Response)
    assert_type(Response(status=503, headers=(), body=b""), Response)
    response.status = 200  # type: ignore[misc]
    Response(503, {}, b"")  # type: ignore[arg-type]
    Response(503, (), "")  # type: ignore[arg-type]


def reports(status: Status, instance: Instance, fleet: Fleet, proof: Proof) -> None:
    assert_type(status.condition, Literal["fresh", "stale", "never read"])
    assert_type(status.since, dt.datetime)
    assert_type(status.snapshot, Snapshot)
    assert_type(status.last_error, str | None)
    assert_type(status.store, str)
    assert_type(status.ttl, float)
    assert_type(status.when_stale, WhenStale)
    assert_type(status.listening, bool)
    assert_type(status.instance, str | None)
    assert_type(status.registered, bool)
    assert_type(status.registration_error, str | None)
    assert_type(status.in_flight, int | None)

    assert_type(instance.id, str)
    assert_type(instance.host, str)
    assert_type(instance.boot, str)
    assert_type(instance.pid, int)
    assert_type(instance.program, str)
    assert_type(instance.version, str)
    assert_type(instance.when_stale, WhenStale)
    assert_type(instance.ttl, float)
    assert_type(instance.revision, int | None)
    assert_type(instance.in_flight, int | None)
    assert_type(instance.websockets, int)
    assert_type(instance.oldest, str | None)
    assert_type(instance.oldest_age, float | None)
    assert_type(instance.silent_for, float)
    assert_type(instance.problem, str | None)

    assert_type(fleet.instances, tuple[Instance, ...])
    assert_type(fleet.intact, bool)
    assert_type(fleet.reading.snapshot(read_at=0.0), Snapshot)

    assert_type(bool(proof), bool)
    assert_type(proof.proven, bool)
    assert_type(proof.revision, int)
    assert_type(proof.confirmed, tuple[Instance, ...])
    assert_type(proof.fenced, tuple[Instance, ...])
    assert_type(proof.gone, tuple[Instance, ...])
    assert_type(proof.presumed, tuple[Instance, ...])
    assert_type(proof.laggards, tuple[tuple[Instance, str], ...])
    assert_type(proof.in_flight, int)
    assert_type(proof.problem, str | None)
    assert_type(proof.final, bool)
    assert_type(proof.elapsed, float)


def stores() -> None:
    # Each of them is a Store, and so may be given wherever one is asked for.
    postgres: Store = PostgresStore("postgresql://localhost/shop", listen=False, statement_timeout=1.5)
    sqlite: Store = SQLiteStore("sqlite:///flag.db", create=False)
    memory: Store = MemoryStore()
    assert_type(open_store("memory://"), Store)
    PostgresStore()  # type: ignore[call-arg]
    PostgresStore("postgresql://localhost/shop", listen=None)  # type: ignore[arg-type]
    PostgresStore("postgresql://localhost/shop", statement_timeout="3s")  # type: ignore[arg-type]
    SQLiteStore()  # type: ignore[call-arg]
    SQLiteStore("sqlite:///flag.db", create=None)  # type: ignore[arg-type]
    MemoryStore().row = None
    MemoryStore().row = False  # type: ignore[assignment]
    open_store(sqlite)  # type: ignore[arg-type]
    MaintenanceState(postgres, ttl=2)
    MaintenanceState(memory, ttl=2)


class OwnStore:
    """A store of a user's own: the protocol is met by shape, without a base class."""

    name = "own"

    def connect(self, *, listen: bool = False, limit: float | None = None) -> Session:
        raise LateError(f"it is late: {listen}")

    def migrate(self) -> None: ...


class NoStore:
    name = "none"

    def connect(self) -> Session: ...  # type: ignore[empty-body]


def protocols(session: Session, waker: Waker, instance: Instance) -> None:
    assert_type(MaintenanceState(OwnStore()), MaintenanceState)
    MaintenanceState(NoStore())  # type: ignore[arg-type]

    store: Store = OwnStore()
    assert_type(store.name, str)
    assert_type(store.connect(), Session)
    assert_type(store.connect(listen=True), Session)
    assert_type(store.migrate, Callable[[], None])
    store.connect(True)  # type: ignore[call-arg]

    assert_type(session.listening, bool)
    assert_type(session.read().snapshot(read_at=0.0), Snapshot)
    assert_type(session.read(instance.id).snapshot(read_at=0.0), Snapshot)
    session.report(instance)
    assert_type(session.remove(instance.id, instance.id), int)
    assert_type(session.find("6f1c"), tuple[Instance, ...])
    assert_type(session.fleet(), Fleet)
    assert_type(session.fleet("shop"), Fleet)
    assert_type(session.history(None, limit=10), tuple[Entry, ...])
    session.ask_drain(7)
    session.ask_drain(7, "shop")
    assert_type(session.wait(1.5, waker), bool)
    assert_type(session.within(1.5), AbstractContextManager[None])
    assert_type(session.abandon, Callable[[], None])
    assert_type(session.close, Callable[[], None])


def errors(configuration: ConfigurationError, store: StoreError, late: LateError) -> None:
    base: MaintenanceError = configuration
    value: ValueError = configuration
    base = store
    store = late
    value = store  # type: ignore[assignment]
    raise base from value
