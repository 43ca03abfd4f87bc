"""A database that answers and is wrong: rows, grants, triggers, missing tables and a standby."""

import json
import re
from collections.abc import Iterator
from contextlib import closing

import pytest

from maintenance import MaintenanceState, StoreError
from maintenance.cli import main
from maintenance.process.lease import LAGGING
from maintenance.stores import PostgresStore
from tests.support.postgres import Server, standby_of
from tests.support.site import site
from tests.support.sql import change_port, flip, run_sql
from tests.support.waiting import eventually

TTL = 0.5

WRONG_ROWS = {
    "missing": ("DELETE FROM platform_settings", "no row 'maintenance_mode'"),
    "null": ("UPDATE platform_settings SET value_bool = NULL", "value_bool"),
}


def test_a_read_of_a_wrong_row_names_what_is_wrong_and_a_flip_repairs_it(migrated_url: str) -> None:
    with closing(MaintenanceState(migrated_url, register=False)) as state:
        for wrong, named in WRONG_ROWS.values():
            run_sql(migrated_url, wrong)
            with pytest.raises(StoreError, match=re.escape(named)):
                state.refresh()
            assert named in (state.status().last_error or "")
            assert state.set(True).revision == state.refresh().revision


@pytest.mark.parametrize(
    "wrong", ["details = '[]'", """details = '{"mode": "FULL", "until": "2031-01-01"}'""", "updated_at = 'infinity'"]
)
def test_a_flip_by_hand_closes_the_site_whatever_else_is_wrong(wrong: str, migrated_url: str) -> None:
    with site(migrated_url, ttl=TTL) as serve, site(migrated_url, ttl=TTL, when_stale="block") as block:
        assert (serve.ask(), block.ask()) == (200, 200)
        run_sql(migrated_url, f"UPDATE platform_settings SET value_bool = true, {wrong}")
        eventually(lambda: (serve.ask(), block.ask()) == (503, 503))
        assert (serve.condition, block.condition) == ("fresh", "fresh")
        assert serve.state.prove(serve.state.refresh(), drain=True, expect=2, timeout=10)
        run_sql(migrated_url, f"UPDATE platform_settings SET value_bool = false, {wrong}")
        eventually(lambda: (serve.ask(), block.ask()) == (200, 200))


@pytest.mark.parametrize("wrong", ["missing", "null"])
def test_a_wrong_row_is_like_a_database_that_is_away(wrong: str, migrated_url: str) -> None:
    with site(migrated_url, ttl=TTL) as serve, site(migrated_url, ttl=TTL, when_stale="block") as block:
        assert (serve.ask(), block.ask()) == (200, 200)
        run_sql(migrated_url, WRONG_ROWS[wrong][0])
        eventually(lambda: serve.condition == block.condition == "stale")
        assert (serve.ask(), block.ask()) == (200, 503)
        serve.state.set(True)
        assert serve.ask() == 503
        eventually(lambda: serve.condition == block.condition == "fresh")
        serve.state.set(False)
        eventually(lambda: (serve.ask(), block.ask()) == (200, 200))


def test_a_boot_with_a_wrong_row_follows_the_environment(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINTENANCE_MODE", "1")
    run_sql(migrated_url, WRONG_ROWS["null"][0])
    with site(migrated_url, ttl=TTL) as one:
        assert (one.ask(), one.condition) == (503, "never read")
        flip(migrated_url, on=False)
        eventually(lambda: one.ask() == 200)


def test_a_database_without_tables_says_what_to_run_and_needs_no_restart(database_url: str) -> None:
    with site(database_url, ttl=TTL) as one:
        assert one.state.prime().source == "default"
        assert (one.ask(), one.condition) == (200, "never read")
        assert "run `maintenance migrate`" in (one.state.status().last_error or "")
        for ask in (one.state.refresh, lambda: one.state.set(True)):
            with pytest.raises(StoreError, match="run `maintenance migrate`"):
                ask()
        PostgresStore(database_url).migrate()
        flip(database_url, on=True)
        eventually(lambda: one.ask() == 503, what="the flip, without a restart")


# Processes that cannot register


def create_trigger(table: str, body: str) -> list[str]:
    return [
        f"CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE TRIGGER meddle BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION meddle()",
    ]


UNREGISTERED = {
    "no table": (["DROP TABLE maintenance_instances"], "run `maintenance migrate`"),
    "read-only database": (["ALTER DATABASE {name} SET default_transaction_read_only = on"], "read-only"),
    "a full disk": (
        create_trigger("maintenance_instances", "RAISE disk_full USING MESSAGE = 'no space left on device';"),
        "no space left on device",
    ),
    "a trigger that drops the row": (
        create_trigger("maintenance_instances", "RETURN NULL;"),
        "is not there: look for a trigger",
    ),
}


def check_unregistered(url: str, admin_url: str, *, why: str) -> None:
    """`serve` goes on, `block` admits nothing, and both follow a flip."""
    with site(url, ttl=TTL) as serve, site(url, ttl=TTL, when_stale="block") as block:
        assert (serve.ask(), block.ask()) == (200, 503)
        status = serve.state.status()
        assert (status.condition, status.registered) == ("fresh", False)
        assert why in (status.registration_error or "")
        assert why in (block.state.status().last_error or "")
        run_sql(admin_url, "SET default_transaction_read_only = off", "UPDATE platform_settings SET value_bool = true")
        eventually(lambda: serve.ask() == 503)
        assert serve.condition == "fresh"


@pytest.mark.parametrize(("statements", "why"), UNREGISTERED.values(), ids=UNREGISTERED)
def test_a_process_that_cannot_register_follows_and_says_why(
    statements: list[str], why: str, migrated_url: str
) -> None:
    name = migrated_url.rpartition("/")[2]
    run_sql(migrated_url, *(statement.replace("{name}", name) for statement in statements))
    check_unregistered(migrated_url, migrated_url, why=why)


def test_a_role_that_may_not_write_follows_and_cannot_flip(postgres: Server, migrated_url: str) -> None:
    role = f"reader_of_{migrated_url.rpartition('/')[2]}"
    run_sql(
        migrated_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'reader'",
        f"GRANT SELECT ON platform_settings, maintenance_instances TO {role}",
    )
    url = migrated_url.replace(f"{postgres.user}:{postgres.password}@", f"{role}:reader@")
    check_unregistered(url, migrated_url, why="grant this role")
    with closing(MaintenanceState(url)) as state:
        before = state.prime()
        with pytest.raises(StoreError, match="permission denied"):
            state.set(False)
        assert state.snapshot() == before
    run_sql(migrated_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_process_that_blocks_registers_once_there_is_a_table(migrated_url: str) -> None:
    run_sql(migrated_url, "DROP TABLE maintenance_instances")
    with site(migrated_url, ttl=TTL, when_stale="block") as block:
        assert block.ask() == 503
        PostgresStore(migrated_url).migrate()
        eventually(lambda: block.ask() == 200)
        assert block.state.status().registered


def test_a_flip_that_a_trigger_overrules_is_an_error_and_proves_nothing(
    migrated_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_sql(migrated_url, *create_trigger("platform_settings", "NEW.value_bool := false; RETURN NEW;"))
    with closing(MaintenanceState(migrated_url, register=False)) as state:
        with pytest.raises(StoreError, match="look for a trigger"):
            state.set(True)
        assert not state.enabled
    assert main(["on", "--wait", "--drain", "--database", migrated_url]) == 1
    assert "look for a trigger that overrides it" in capsys.readouterr().err


# A standby


@pytest.fixture(scope="module")
def standby(postgres: Server) -> Iterator[Server]:
    with standby_of(postgres) as second:
        yield second


@pytest.fixture
def standby_url(standby: Server, migrated_url: str) -> str:
    """The URL of the database of `migrated_url` on the standby, once it is there."""
    url = change_port(migrated_url, standby.port)
    eventually(lambda: main(["status", "--database", url]) == 0, what="the tables, by replication")
    return url


def test_the_command_line_says_that_a_standby_answered(
    standby_url: str, migrated_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for command in ("status", "fleet"):
        assert main([command, "--database", standby_url]) == 0
        assert capsys.readouterr().err.endswith(f"warning: {LAGGING}\n")
        for url, problem in ((standby_url, LAGGING), (migrated_url, None)):
            assert main([command, "--database", url, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["problem"] == problem


def test_a_standby_updates_the_answer_and_never_the_lease(standby_url: str, migrated_url: str) -> None:
    with site(standby_url, ttl=TTL) as serve, site(standby_url, ttl=TTL, when_stale="block") as block:
        flip(migrated_url, on=True)
        eventually(lambda: serve.ask() == 503, what="the flip, by polling")
        flip(migrated_url, on=False)
        eventually(lambda: serve.ask() == 200)
        assert block.ask() == 503, "an answer of a standby renews no lease"
        status = serve.state.status()
        assert (status.condition, status.listening, status.registered) == ("stale", False, False)
        assert "standby" in (status.last_error or "")
        with pytest.raises(StoreError, match="read-only"):
            serve.state.set(True)
        assert not serve.state.enabled
