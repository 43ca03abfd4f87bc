"""The SQL that the pages show does what they say, on a real PostgreSQL."""

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest

import maintenance
from maintenance import MaintenanceState
from tests.docs.pages import blocks, marked
from tests.support.waiting import eventually


def execute(connection: psycopg.Connection[Any], sql: str) -> Any:
    return connection.execute(sql.encode())


def test_other_languages_can_flip_and_be_waited_for(migrated_url: str) -> None:
    listen, read, flip, register, acknowledge, leave = blocks("docs/how-to/other-languages.md", "sql")
    with (
        psycopg.connect(migrated_url, autocommit=True) as connection,
        closing(MaintenanceState(migrated_url, register=False)) as state,
    ):
        execute(connection, listen)
        assert execute(connection, read).fetchone()[:2] == ("maintenance_mode", False)
        execute(connection, register)
        execute(connection, flip)
        assert [notify.payload for notify in connection.notifies(timeout=5, stop_after=1)] == ["maintenance_mode"]
        snapshot = state.refresh()
        assert (snapshot.enabled, snapshot.message, snapshot.actor) == (True, "Back at noon.", "deploy")
        [(laggard, _)] = state.prove(snapshot, drain=True, timeout=0.0).laggards
        assert laggard.program == "shop-go"
        execute(connection, acknowledge)
        assert state.prove(snapshot, drain=True, timeout=5.0)
        execute(connection, leave)
        assert state.fleet().instances == ()


def test_the_flip_by_hand(migrated_url: str) -> None:
    [by_hand] = [sql for sql in blocks("docs/reference/sql.md", "sql") if sql.startswith("UPDATE")]
    with psycopg.connect(migrated_url) as connection:
        execute(connection, by_hand)
    with closing(MaintenanceState(migrated_url, register=False)) as state:
        assert (state.refresh().enabled, state.refresh().message) == (True, "Back at noon.")


def test_a_role_that_serves_needs_no_more_than_is_said(role: Callable[[str], str], migrated_url: str) -> None:
    url = role("shop_app")
    with psycopg.connect(migrated_url) as connection:
        execute(connection, marked("docs/reference/sql.md", "grants: serve"))
    with closing(MaintenanceState(url, when_stale="block")) as state:
        state.start()
        eventually(lambda: state.status().condition == "fresh")
        assert state.status().registered
    with closing(MaintenanceState(migrated_url, register=False)) as operator:
        assert operator.fleet().instances == (), "it could not remove its row"


def test_a_flip_that_fails_changes_nothing(role: Callable[[str], str], migrated_url: str) -> None:
    url = role("shop_app")
    with psycopg.connect(migrated_url) as connection:
        execute(connection, marked("docs/reference/sql.md", "grants: serve"))
    with closing(MaintenanceState(url)) as state, closing(MaintenanceState(migrated_url, register=False)) as other:
        before = state.snapshot()
        with pytest.raises(maintenance.StoreError, match="permission denied"):
            state.set(True, message="Back at noon.")
        assert not state.enabled
        assert state.snapshot().revision == before.revision == other.refresh().revision
        with pytest.raises(ValueError, match="retry_after"):
            other.set(True, retry_after=-1)
        assert not other.refresh().enabled


def test_a_role_that_flips_needs_no_more_than_is_said(role: Callable[[str], str], migrated_url: str) -> None:
    url = role("shop_admin")
    with psycopg.connect(migrated_url) as connection:
        execute(connection, marked("docs/reference/sql.md", "grants: flip"))
        execute(connection, "DELETE FROM maintenance_instances; DELETE FROM platform_settings")
    with closing(MaintenanceState(url, register=False)) as state:
        assert state.prove(state.set(True), drain=True, expect=0, timeout=5.0)
        assert state.fleet().intact
        assert not state.set(False).enabled


def test_a_role_that_looks_needs_no_more_than_is_said(role: Callable[[str], str], migrated_url: str) -> None:
    url = role("shop_viewer")
    with psycopg.connect(migrated_url) as connection:
        execute(connection, marked("docs/reference/sql.md", "grants: look"))
    with closing(MaintenanceState(url, register=False)) as state:
        assert not state.refresh().enabled
        assert state.fleet().intact


PROOF = "docs/explanation/proof.md"


@pytest.fixture
def orders(role: Callable[[str], str], migrated_url: str) -> str:
    """A table that the app writes to; returns the app's URL."""
    url = role("shop_app")
    with psycopg.connect(migrated_url) as connection:
        execute(connection, "CREATE TABLE orders (id int); GRANT ALL ON orders TO shop_app")
    return url


def test_a_fence_takes_the_sessions_away_and_gives_them_back(orders: str, migrated_url: str) -> None:
    with (
        psycopg.connect(migrated_url, autocommit=True) as operator,
        psycopg.connect(orders) as let_in,
    ):
        execute(let_in, "INSERT INTO orders VALUES (1)")
        execute(operator, marked(PROOF, "fence: close"))
        execute(operator, marked(PROOF, "fence: end sessions"))
        eventually(lambda: execute(operator, marked(PROOF, "fence: end sessions")).fetchone() == (0,))
        with pytest.raises(psycopg.OperationalError):
            execute(let_in, "COMMIT")
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            psycopg.connect(orders)
        assert execute(operator, "SELECT count(*) FROM orders").fetchone() == (0,)
        execute(operator, marked(PROOF, "fence: open"))
        with psycopg.connect(orders) as again:
            execute(again, "INSERT INTO orders VALUES (2)")


def test_a_fence_in_the_tables_waits_for_what_was_let_in_and_refuses_what_wakes_later(
    orders: str, migrated_url: str
) -> None:
    with (
        closing(MaintenanceState(migrated_url, register=False)) as state,
        psycopg.connect(migrated_url, autocommit=True) as operator,
        psycopg.connect(orders) as let_in,
        psycopg.connect(orders) as paused,
    ):
        execute(operator, marked(PROOF, "fence: install"))
        # No role but the owner can take the fence's lock, not even in the weakest mode.
        with psycopg.connect(orders) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(app, "LOCK TABLE maintenance_fence IN ACCESS SHARE MODE")
        execute(paused, "SELECT 1")  # its transaction has begun, and it has not written yet
        execute(let_in, "INSERT INTO orders VALUES (1)")
        state.set(True)
        waited = threading.Thread(target=lambda: execute(operator, marked(PROOF, "fence: wait")))
        waited.start()
        eventually(lambda: waits_for_a_lock(migrated_url))
        let_in.commit()
        waited.join(10)
        assert not waited.is_alive()
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="maintenance is on"):
            execute(paused, "INSERT INTO orders VALUES (3)")
        execute(operator, "INSERT INTO orders VALUES (4)")  # the work itself, under another role
        assert execute(operator, "SELECT array_agg(id ORDER BY id) FROM orders").fetchone() == ([1, 4],)
        paused.rollback()
        state.set(False)
        execute(paused, "INSERT INTO orders VALUES (5)")
        paused.commit()
        execute(paused, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"):
            execute(paused, "INSERT INTO orders VALUES (6)")


def waits_for_a_lock(url: str) -> bool:
    with psycopg.connect(url) as connection:
        sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'maintenance_fence'::regclass"
        return execute(connection, sql).fetchone() == (1,)
