"""The reference leaves nothing out, and its numbers are those of the code."""

import argparse
import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields
from typing import Any, get_args

import psycopg
import pytest

import maintenance
from maintenance import MaintenanceState, stores, testing
from maintenance.asgi import MaintenanceMiddleware
from maintenance.base.options import Settings
from maintenance.base.values import MAX_LANGUAGES, MAX_MESSAGES, MAX_TEXT, Details, Mode
from maintenance.bypass import addresses, header_token
from maintenance.cli import hook, main, options
from maintenance.contrib.flask import Maintenance
from maintenance.contrib.opentelemetry import MAX_SCOPES
from maintenance.http.refusal import DEFAULT_RETRY_AFTER
from maintenance.http.refusal.languages import MAX_HEADER
from maintenance.http.refusal.page import MAX_LOGO, MAX_NAME
from maintenance.http.refusal.template import SLOTS
from maintenance.http.refusal.texts import load_texts
from maintenance.process import api, lifecycle, waiting, watcher
from maintenance.process.state import WRITE_LIMIT
from maintenance.proof.membership import HEARTBEAT
from maintenance.proof.prover import DRAIN_MARGIN, LONGEST_WAIT, MARGIN
from maintenance.stores import PostgresStore, SQLiteStore
from maintenance.stores.migrations import migrations
from maintenance.stores.postgres import connection as postgres_connection
from maintenance.stores.postgres import session as postgres_session
from maintenance.stores.sqlite import session as sqlite_session
from tests.docs.pages import blocks, prose, text


def parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "options"}


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def referred(name: str, wanted: set[str], *, page: str = "docs/reference/python.md") -> None:
    code = " ".join(re.findall(r"`([^`]+)`", prose(page)) + blocks(page, "python") + blocks(page, "sql"))
    missing = wanted - set(re.findall(r"\w+", code))
    assert not missing, f"{page} leaves out some of {name}"


def test_every_public_name_is_in_the_reference() -> None:
    referred("maintenance", set(maintenance.__all__))
    referred("maintenance.stores", set(stores.__all__))
    referred("the other modules", {"asgi", "wsgi", "bypass", "addresses", "header_token", *testing.__all__})


@pytest.mark.parametrize(
    "function",
    [
        maintenance.init_maintenance,
        maintenance.set_maintenance,
        maintenance.fleet,
        MaintenanceState,
        MaintenanceState.prove,
        MaintenanceMiddleware,
        super(MaintenanceMiddleware, MaintenanceMiddleware).__init__,
        maintenance.Page,
        maintenance.job,
        PostgresStore,
        SQLiteStore,
        addresses,
        header_token,
        testing.override_maintenance,
        Maintenance,
    ],
    ids=lambda function: function.__qualname__,
)
def test_every_option_is_in_the_reference(function: Callable[..., Any]) -> None:
    referred(function.__qualname__, parameters(function))


@pytest.mark.parametrize("kind", ["Snapshot", "Request", "Response", "Status", "Instance", "Entry", "Fleet", "Proof"])
def test_every_field_is_in_the_reference(kind: str) -> None:
    referred(kind, {it.name for it in fields(getattr(maintenance, kind)) if not it.name.startswith("_")})


# Between the modules of the package.
INTERNAL = {"attach", "jobs", "sources", "notify", "closed", "fork", "peek", "wait_for_answer", "write"}


def test_every_method_of_a_state_is_in_the_reference() -> None:
    referred("MaintenanceState", public(MaintenanceState) - INTERNAL)


def commands() -> dict[str, argparse.ArgumentParser]:
    [found] = [it for it in options.build_parser()._actions if isinstance(it, argparse._SubParsersAction)]
    return found.choices


def test_every_command_and_option_is_in_the_reference() -> None:
    page = text("docs/reference/command-line.md")
    assert "`--version`" in page
    for name, command in commands().items():
        assert f"| `{name}" in page
        for action in command._actions:
            if action.dest == "help" or action.help == argparse.SUPPRESS:
                continue
            for option in action.option_strings:
                row = re.search(rf"^\| `{option}\b[^|]*\| ([^|]+)\|", page, re.MULTILINE)
                assert row, f"{option} is not in the reference"
                but = re.findall(r"`(\w+)`", row[1])
                assert (name in but) is not row[1].startswith("all but"), f"{option} of {name}"


def test_every_environment_variable_is_in_the_reference() -> None:
    given = hook.build_environment(maintenance.Snapshot(enabled=True))
    for variable in (*api.VARIABLES, "MAINTENANCE_MODE", "DEMO_ONCE", *given):
        assert f"| `{variable}` |" in text("docs/reference/environment.md")


def test_every_column_and_trigger_is_in_the_reference(migrated_url: str) -> None:
    with psycopg.connect(migrated_url) as connection:
        made = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "UNION SELECT tgname FROM pg_trigger WHERE NOT tgisinternal "
            "UNION SELECT sequence_name FROM information_schema.sequences",
        ).fetchall()
    referred("the tables", {name for (name,) in made}, page="docs/reference/sql.md")
    referred("the details", {field.name for field in fields(Details)}, page="docs/reference/sql.md")
    referred("the modes", set(get_args(Mode)), page="docs/reference/command-line.md")


def default(function: Callable[..., Any], option: str) -> Any:
    return inspect.signature(function).parameters[option].default


MIGRATE_TIMEOUT = float(re.findall(r"'(\d+)s'", migrations()[0][1])[0])
BOOT_TIMEOUT = default(MaintenanceState, "boot_timeout")
CONNECT_TIMEOUT = float(postgres_connection.parse_url("postgresql://")["connect_timeout"])
READ_LOCK = int(postgres_session._SQL["short_lock_timeout"].partition("lock_timeout = ")[2].rstrip(";")) / 1000
LIMIT = Settings(ttl=1e3, when_stale="serve", register=True).limit


@pytest.mark.parametrize(
    ("page", "phrase", "number"),
    [
        ("README.md", "within one [TTL][glossary] ({:g} s)", default(MaintenanceState, "ttl")),
        ("docs/glossary.md", "is reachable: {:g} s by default", default(MaintenanceState, "ttl")),
        ("docs/explanation/guarantees.md", "within one TTL ({:g} s)", default(MaintenanceState, "ttl")),
        ("docs/explanation/guarantees.md", "takes up to {:g} s to answer", BOOT_TIMEOUT),
        ("docs/explanation/guarantees.md", "one request waits, for up to {:g} s", waiting.PATIENCE),
        ("docs/explanation/store-down.md", "`boot_timeout` ({:g} s)", BOOT_TIMEOUT),
        ("docs/explanation/store-down.md", "it is retried for only {:g} s", waiting.PATIENCE),
        ("docs/explanation/store-down.md", "one request waits, for at most {:g} s", waiting.PATIENCE),
        ("docs/explanation/store-down.md", "are held for at most {:g} s", waiting.SHORT_PATIENCE),
        ("docs/explanation/store-down.md", "at most min(TTL, {:g} s) apart", 2 * LIMIT),
        ("docs/explanation/store-down.md", "`connect_timeout`, {:g} s", CONNECT_TIMEOUT),
        ("docs/explanation/store-down.md", "comes after {:g} to", watcher.STEADY[0]),
        ("docs/explanation/store-down.md", "to {:g} of the TTL", watcher.STEADY[1]),
        ("docs/explanation/store-down.md", "within {:g} of the TTL", Settings(ttl=5.0).quick_limit / 5.0),
        ("docs/explanation/store-down.md", "at most {:g} s, the process ends", Settings(ttl=1e3).quick_limit),
        ("docs/explanation/store-down.md", "`forget()`, it is {:g} s", WRITE_LIMIT),
        ("docs/explanation/store-down.md", "waits for a name for {:g} s", postgres_connection.RESOLVE_LIMIT),
        ("docs/explanation/costs.md", "each 20 to {:g} ms", 1000 * watcher.CALM[1]),
        ("docs/explanation/guarantees.md", "at most {:g} reads a second", 1 / watcher.CALM[0]),
        ("docs/explanation/forks-and-threads.md", "wait at most {:g} s for that", lifecycle.LEAVE_LIMIT),
        ("docs/explanation/costs.md", "looks at the file {:g} times a second", 1 / sqlite_session.POLL),
        ("docs/how-to/pgbouncer-and-standbys.md", "gives up after {:g} s", WRITE_LIMIT),
        ("docs/how-to/pgbouncer-and-standbys.md", "`connect_timeout` is {:g} s", CONNECT_TIMEOUT),
        ("docs/how-to/migrations.md", "up to {:g} s for another migration", MIGRATE_TIMEOUT),
        ("docs/how-to/migrations.md", "up to {:g} s for a transaction", postgres_session.LOCK_TIMEOUT),
        ("docs/how-to/bypass.md", "up to {:g} times a second", 1 / watcher.LOOK),
        ("docs/how-to/playbook.md", "with `--drain` {:g} s more", DRAIN_MARGIN),
        ("docs/how-to/playbook.md", "at least once every {:g} s plus its TTL", HEARTBEAT),
        ("docs/reference/command-line.md", "with `--drain` {:g} s more", DRAIN_MARGIN),
        ("docs/reference/python.md", "with `drain` {:g} s more", DRAIN_MARGIN),
        ("docs/reference/python.md", "at most {:g} minutes", LONGEST_WAIT / 60),
        ("docs/reference/command-line.md", "at most {:g} minutes", LONGEST_WAIT / 60),
        ("docs/how-to/playbook.md", "at most {:g} minutes", LONGEST_WAIT / 60),
        ("docs/explanation/proof.md", "ends {:g} s after the longest lease", MARGIN),
        ("docs/reference/python.md", "the store can be reached | `{:.1f}`", default(MaintenanceState, "ttl")),
        ("docs/reference/python.md", "#before-the-first-read) | `{:.1f}`", BOOT_TIMEOUT),
        ("docs/reference/python.md", "statement_timeout={:.1f}", default(PostgresStore, "statement_timeout")),
        ("docs/reference/python.md", "waits for a lock for {:g} s", READ_LOCK),
        ("docs/reference/python.md", "at most {:,} characters", MAX_TEXT),
        ("docs/reference/python.md", "at most {:g} languages", MAX_LANGUAGES),
        ("docs/reference/python.md", "languages and {:,} characters", MAX_MESSAGES),
        ("docs/reference/python.md", "SVG or PNG file of at most {:g} KiB", MAX_LOGO / 1024),
        ("docs/reference/python.md", "the name of the site, at most {:g} characters", MAX_NAME),
        ("docs/reference/http.md", "At most {:,} characters of the header", MAX_HEADER),
        ("docs/reference/http.md", "has passed: {:g} s", DEFAULT_RETRY_AFTER),
        ("docs/reference/command-line.md", "takes longer than {:g} s", hook.LIMIT),
        ("docs/how-to/notifications.md", "takes longer than {:g} s", hook.LIMIT),
        ("docs/how-to/metrics.md", "At most {:g} scopes", MAX_SCOPES),
    ],
)  # fmt: skip
def test_a_number_on_a_page_is_the_number_of_the_code(page: str, phrase: str, number: float) -> None:
    assert phrase.format(number) in " ".join(text(page).split())


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Iterator[tuple[str, object]]:
    """Each key, at any depth, of what a command prints with ``--json``, and what stands there."""
    main([*arguments, "--json"])
    left: list[object] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    while left:
        it = left.pop()
        if isinstance(it, dict):
            yield from it.items()
            left += it.values()
        elif isinstance(it, list):
            left += it


def test_every_key_of_json_is_in_the_reference(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", migrated_url)
    with closing(MaintenanceState(migrated_url)) as serving:
        serving.wait_for_answer()
        commands = [
            ["on"], ["off", "--wait", "--expect", "2", "--timeout", "0"], ["wait"], ["status"], ["fleet"],
            ["forget", "--silent", "0.000001s"], ["migrate"], ["sql"],
        ]  # fmt: skip
        found = [pair for command in commands for pair in printed(capsys, *command)]
    events = {str(value) for key, value in found if key == "event"}
    assert events == {"flag", "instance", "problem", "result"}
    page = text("docs/reference/command-line.md").partition("## JSON")[2] + text("docs/reference/python.md")
    missing = ({key for key, _ in found} | events) - set(re.findall(r"`\"?(\w+)\"?`", page))
    assert not missing


def test_every_text_and_slot_is_in_the_guide() -> None:
    referred("the texts", {*load_texts()["en"], *SLOTS}, page="docs/how-to/page.md")
