"""Every public name and option, written out. A change of the public API changes this file, too.

`tests/typing` checks the types of the same names.
"""

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from inspect import Parameter
from typing import Any

import pytest

import maintenance
from maintenance import MaintenanceState, stores
from maintenance.stores import MemoryStore, PostgresStore, Session, SQLiteStore, Store
from tests.support.command import run

PUBLIC = [
    "ConfigurationError",
    "ConflictError",
    "Entry",
    "Fleet",
    "Instance",
    "MaintenanceActive",
    "MaintenanceError",
    "MaintenanceState",
    "Page",
    "Proof",
    "Request",
    "Response",
    "Snapshot",
    "Status",
    "StoreError",
    "__version__",
    "aset_maintenance",
    "aupdate_maintenance",
    "fleet",
    "init_maintenance",
    "job",
    "maintenance_enabled",
    "set_maintenance",
    "update_maintenance",
]
PUBLIC_STORES = ["MemoryStore", "PostgresStore", "SQLiteStore", "Session", "Store", "Waker", "open_store"]

ERRORS = {
    "MaintenanceError": ["Exception"],
    "ConfigurationError": ["MaintenanceError", "ValueError"],
    "MaintenanceActive": ["MaintenanceError"],
    "StoreError": ["MaintenanceError"],
    "LateError": ["StoreError"],
    "ConflictError": ["StoreError"],
}

DETAILS = (
    "scope=None, message=None, starts=None, until=None, auto_off=False, retry_after=None, mode='full', actor=None, "
    "updated_by=None, reason=None, secret=None"
)
MIDDLEWARE = (
    "app, state=None, *, exempt=(), default_exempt=True, bypass=None, respond=None, in_flight=True, scope=None, "
    "status_path=None, discard_bytes=8388608, discard_seconds=5.0, close_streams=False, cors=(), reads=(), "
    "mark_read_only=False, page=None"
)

# `...` is a default that is not a literal, such as a clock.
CALLABLES = {
    "maintenance.init_maintenance": "store=None, **options",
    "maintenance.maintenance_enabled": "scope=None",
    "maintenance.set_maintenance": f"enabled, *, {DETAILS}, if_revision=None, state=None",
    "maintenance.aset_maintenance": "enabled, **options",
    "maintenance.update_maintenance": f"*, {DETAILS}, if_revision=None, state=None",
    "maintenance.aupdate_maintenance": "**options",
    "maintenance.fleet": "state=None",
    "maintenance.job": "name, *, scope=None, wait=True, timeout=None, state=None",
    "maintenance.MaintenanceState": (
        "store, *, ttl=10.0, when_stale='serve', boot_timeout=5.0, register=True, service=None, runtime=..."
    ),
    "maintenance.wsgi.MaintenanceMiddleware": MIDDLEWARE,
    "maintenance.asgi.MaintenanceMiddleware": f"{MIDDLEWARE}, close_websockets=False",
    "maintenance.bypass.addresses": "*networks, proxies=0",
    "maintenance.bypass.header_token": "name, value",
    "maintenance.contrib.flask.Maintenance": "app=None, *, state=None, **options",
    "maintenance.stores.open_store": "url",
    "maintenance.stores.PostgresStore": "url, *, listen=True, keep_connection=True, statement_timeout=3.0",
    "maintenance.stores.SQLiteStore": "url, *, create=True",
    "maintenance.stores.MemoryStore": "url='memory://', *, clock=...",
}

VALUES = {
    "Snapshot": (
        "*, enabled, scope=None, mode='full', message=None, messages=None, starts=None, until=None, auto_off=False, "
        "retry_after=None, actor=None, reason=None, secret=None, revision=0, "
        "updated_at=None, updated_by=None, source='store', read_at=0.0, problems=()"
    ),
    "Page": "*, name=None, logo=None, accent=None, support=None, status_url=None, texts=None, template=None",
    "Request": "method, path, headers=..., client=None, query_string=''",
    "Response": "status, headers, body",
    "Status": (
        "*, condition, since, snapshot, last_error, store, ttl, when_stale, listening, instance, registered, "
        "registration_error, in_flight, flags"
    ),
    "Instance": (
        "*, id, host, boot, pid, program, version, when_stale, ttl, revision=None, in_flight=None, websockets=0, "
        "oldest=None, oldest_age=None, drains=..., service='', silent_for=0.0, problem=None"
    ),
    "Entry": (
        "*, at, scope, revision, before, after, details_before, details, updated_by=None, role='', "
        "application_name='', client_address=None"
    ),
    "Fleet": "reading, instances, intact",
    "Proof": (
        "*, proven, revision, confirmed=(), fenced=(), gone=(), presumed=(), laggards=(), in_flight=0, problem=None, "
        "final=False, elapsed=0.0, limit=None"
    ),
}

STATE_METHODS = {
    "snapshot": "",
    "prime": "",
    "refresh": "",
    "set": f"enabled, *, {DETAILS}, if_revision=None, drain=False",
    "update": "*, scope=None, if_revision=None, **details",
    "is_enabled": "scope=None",
    "upcoming": "",
    "history": "*, scope=None, limit=100",
    "keep_connection": "",
    "prove": "snapshot, *, drain=False, timeout=None, expect=None, presume_dead=None, progress=...",
    "aprove": "snapshot, **options",
    "fleet": "*, scope=None",
    "find": "beginning",
    "forget": "*instances",
    "status": "",
    "on_change": "callback",
    "start": "",
    "leave": "",
    "close": "",
}
STORE_METHODS = {"connect": "*, listen=False, limit=None", "migrate": ""}
SESSION_METHODS = {
    "read": "instance=None, *, known=None",
    "write": "change",
    "report": "instance",
    "remove": "*instances",
    "fleet": "scope=None",
    "find": "beginning",
    "ask_drain": "revision, scope=None",
    "carry_out": "scope, revision, *, enabled",
    "history": "scope, *, limit",
    "wait": "timeout, waker",
    "within": "seconds",
    "abandon": "",
    "close": "",
}

STATE_INTERNALS = {"attach", "jobs", "sources", "notify", "closed", "fork", "peek", "wait_for_answer", "write"}
"""What other modules call on a state, and no page documents; there may be fewer."""

COMMON = "--help --database --json"
PROOF = "--timeout --expect --presume-dead"
RECORD = "--scope --if-revision --actor --updated-by --reason"
DETAIL = "--message --message-for --until --for --retry-after --mode"
COMMANDS = {
    "": f"{COMMON} --version",
    "on": f"{COMMON} {RECORD} {DETAIL} --at --in --auto-off --if-off --secret --secret-stdin --wait --drain {PROOF}",
    "off": f"{COMMON} {RECORD} --wait {PROOF}",
    "extend": f"{COMMON} {RECORD}",
    "edit": f"{COMMON} {RECORD} {DETAIL}",
    "wait": f"{COMMON} --scope --revision --drain {PROOF}",
    "log": f"{COMMON} --scope --limit",
    "status": f"{COMMON} --scope",
    "watch": f"{COMMON} --exec",
    "run": "--help --database --scope --skip --timeout",
    "fleet": f"{COMMON} --check",
    "forget": f"{COMMON} --silent",
    "migrate": COMMON,
    "page": (
        "--help --language --message --message-for --until --name --logo --accent --support --status-url --template "
        "--output --open"
    ),
    "sql": "--help --json",
    "demo": "--help",
    "completion": "--help",
    "help": "--help",
}


def load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def parse_parameters(text: str) -> list[Parameter]:
    """The parameters that stand in a piece of source."""
    function: Callable[..., object] = eval(f"lambda {text}: None")
    return list(inspect.signature(function).parameters.values())


def list_parameters(function: Callable[..., object]) -> list[Parameter]:
    """The parameters of a callable, without `self`; each key of an ``Unpack[TypedDict]`` counts as a keyword."""
    found: list[Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if typing.get_origin(parameter.annotation) is typing.Unpack:
            found += _list_keys(*typing.get_args(parameter.annotation))
        else:
            found.append(parameter)
    return found


def _list_keys(options: Any) -> list[Parameter]:
    # A TypedDict names no defaults.
    return [
        Parameter(key, Parameter.KEYWORD_ONLY, default=Parameter.empty if key in options.__required_keys__ else ...)
        for key in typing.get_type_hints(options)
    ]


def assert_same(function: Callable[..., object], text: str) -> None:
    expected, actual = parse_parameters(text), list_parameters(function)
    # Keywords may stand in any order.
    assert sorted(map(_describe, actual)) == sorted(map(_describe, expected))
    assert [it.name for it in actual if not _is_keyword(it)] == [it.name for it in expected if not _is_keyword(it)]
    known = {it.name: it.default for it in expected}
    for parameter in actual:
        default = known[parameter.name]
        if default is ... or parameter.default is ...:
            assert (default is Parameter.empty) == (parameter.default is Parameter.empty), parameter
        else:
            assert (default, type(default)) == (parameter.default, type(parameter.default)), parameter


def _is_keyword(parameter: Parameter) -> bool:
    return parameter.kind is Parameter.KEYWORD_ONLY


def _describe(parameter: Parameter) -> str:
    return f"{parameter.kind.name} {parameter.name}"


def public_members(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_the_public_names() -> None:
    assert maintenance.__all__ == PUBLIC
    assert stores.__all__ == PUBLIC_STORES
    for module, names in ((maintenance, PUBLIC), (stores, PUBLIC_STORES)):
        assert [name for name in names if not hasattr(module, name)] == []


def test_each_public_name_is_described_below() -> None:
    described = {*ERRORS, *VALUES, *(path.rpartition(".")[2] for path in CALLABLES), "__version__"}
    assert set(PUBLIC) - described == set()
    assert set(PUBLIC_STORES) - described == {"Session", "Store", "Waker"}  # the protocols


@pytest.mark.parametrize("path", CALLABLES)
def test_the_parameters_of(path: str) -> None:
    assert_same(load(path), CALLABLES[path])


@pytest.mark.parametrize("name", VALUES)
def test_the_fields_of(name: str) -> None:
    value = getattr(maintenance, name)
    assert is_dataclass(value)
    public = [field.name for field in fields(value) if not field.name.startswith("_")]
    assert public == [parameter.name for parameter in parse_parameters(VALUES[name])]
    assert value.__dataclass_params__.frozen
    assert_same(value, VALUES[name])


@pytest.mark.parametrize(
    ("cls", "methods", "others"),
    [
        (MaintenanceState, STATE_METHODS, {"enabled"}),
        (Store, STORE_METHODS, set()),
        (PostgresStore, STORE_METHODS, set()),
        (SQLiteStore, STORE_METHODS, set()),
        (MemoryStore, STORE_METHODS, {"name", "row"}),
        (Session, SESSION_METHODS, {"listening"}),
    ],
)
def test_the_members_of(cls: type, methods: Mapping[str, str], others: set[str]) -> None:
    internals = STATE_INTERNALS if cls is MaintenanceState else set()
    assert public_members(cls) - internals == {*methods, *others}
    for name, text in methods.items():
        assert_same(getattr(cls, name), text)


@pytest.mark.parametrize("name", ERRORS)
def test_the_errors(name: str) -> None:
    assert [base.__name__ for base in load(f"maintenance.errors.{name}").__bases__] == ERRORS[name]


def test_what_a_flip_leaves_out_has_its_default() -> None:
    # A TypedDict names no defaults, so that they are looked at here too.
    snapshot = maintenance.set_maintenance(True, state=MaintenanceState("memory://"))
    for parameter in parse_parameters(f"*, {DETAILS}"):
        assert getattr(snapshot, parameter.name) == parameter.default


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_the_command(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    # At the start of a line: elsewhere, a sentence or the usage mentions an option.
    options = re.findall(r"^ {2}(?:-\w, )?(--[a-z-]+)", done.stdout, flags=re.MULTILINE)
    assert sorted(options) == sorted(COMMANDS[command].split())


def test_the_commands() -> None:
    listed = re.findall(r"^ {4}(\w+) {2,}", run("--help").stdout, flags=re.MULTILINE)
    assert set(listed) == set(COMMANDS) - {""}


class _Options(typing.TypedDict, total=False):
    actor: typing.Required[str]
    reason: str | None


def _unpacked(enabled: bool, **options: typing.Unpack[_Options]) -> None: ...


@pytest.mark.parametrize("text", ["enabled, *, reason=None", "enabled, *, actor, reason", "enabled, *, actor='x'"])
def test_unpacked_options_are_compared_too(text: str) -> None:
    assert_same(_unpacked, "enabled, *, actor, reason=None")
    with pytest.raises(AssertionError):
        assert_same(_unpacked, text)
