"""Rows of instances that no process of this library wrote: a restore, another program or an attacker did."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from maintenance.base.instances import MAX_NAME
from maintenance.stores import PostgresStore, open_store, rows
from maintenance.stores.rows import MAX_REVISION
from tests.stores.helpers import flip, instance, path_of, run_sql, snapshot
from tests.support.loose import LATER, NO_UTF8, WRONG, Loose, find_wrong
from tests.support.postgres import Server

IN_NO_CONSTRAINT = {
    *(LATER, "now() + interval '1 day'", "'294276-12-31'", "'4713-01-01 BC'", NO_UTF8),
    *("""'{"shop": "x"}'""", """'{"shop": -1}'"""),
}
"""A constraint cannot know the time, does not look into JSON, and SQLite checks no encoding."""


@pytest.fixture
def loose(shared_url: str) -> Iterator[Loose]:
    with closing(open_store(shared_url).connect()) as session:
        yield Loose(shared_url, session)


@pytest.mark.parametrize("column", [it for it in WRONG if it != "id"])
def test_a_wrong_value_is_named_counts_as_nothing_and_can_be_forgotten(loose: Loose, column: str) -> None:
    for value in loose.wrong[column]:
        loose.insert(**{column: value})
        proof = loose.judge()
        assert [it.host for it in proof.confirmed] == ["good"], value
        assert (proof.fenced, proof.gone, proof.presumed) == ((), (), ()), value
        [(laggard, why)] = proof.laggards
        assert (laggard.problem or "").startswith(f"{column} is not "), value
        assert "cannot be trusted" in why
        assert f"maintenance forget {laggard.id}" in why
        [found] = loose.session.find(laggard.id[:8])
        assert found.problem == laggard.problem
        assert loose.session.remove(laggard.id) == 1, value
    assert loose.judge()


def test_a_row_without_an_id_can_be_forgotten(loose: Loose) -> None:
    for value in loose.wrong["id"]:
        loose.insert(id=value)
        [one] = [it for it in loose.session.fleet().instances if it.host == "bad"]
        assert [it.host for it in loose.session.find(one.id)] == ["bad"], value
        assert loose.session.remove(one.id) == 1, value
    assert [it.host for it in loose.session.fleet().instances] == ["good"]
    assert loose.session.fleet().intact


@pytest.mark.parametrize("column", WRONG)
def test_the_constraints_refuse_a_wrong_value(shared_url: str, column: str) -> None:
    with closing(open_store(shared_url).connect()) as session:
        session.report(instance())
    for value in find_wrong(shared_url)[column]:
        if value not in IN_NO_CONSTRAINT:
            with pytest.raises((psycopg.errors.IntegrityError, sqlite3.IntegrityError)):
                run_sql(shared_url, f"UPDATE maintenance_instances SET {column} = {value} WHERE pid <> 0")


def test_a_time_that_a_clock_set_back_explains_is_trusted(loose: Loose) -> None:
    soon = LATER.replace("+ 86400.0", "+ 30.0")
    loose.insert(seen_at=soon if loose.url.startswith("sqlite") else "now() + interval '30 s'")
    [one] = [it for it in loose.session.fleet().instances if it.host == "bad"]
    assert (one.problem, one.silent_for) == (None, 0.0)


def test_each_text_is_cut_before_it_is_sent(loose: Loose, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    make = rows._make_instance
    measure = lambda *columns: sent.extend(len(it) for it in columns if isinstance(it, str)) or make(*columns)  # noqa: E731
    monkeypatch.setattr(rows, "_make_instance", measure)
    huge = f"'{'x' * 1_000_000}'"
    loose.insert(**dict.fromkeys(("host", "boot", "program", "version", "when_stale", "oldest"), huge))
    assert len(loose.session.fleet().instances) == 2
    assert max(sent) == MAX_NAME + 1


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_huge_details_are_refused_and_never_sent_to_a_process(
    kind: str, request: pytest.FixtureRequest, sqlite_url: str
) -> None:
    size = 20_000_000
    if kind == "sqlite":
        url, huge = sqlite_url, f"replace(hex(zeroblob({size})), '0', '[')"
    else:
        url, huge = request.getfixturevalue("migrated_url"), f"to_jsonb(repeat('x', {size}))"
    open_store(url).migrate()
    update = f"UPDATE platform_settings SET details = {huge}"
    with pytest.raises((psycopg.errors.CheckViolation, sqlite3.IntegrityError)):
        run_sql(url, update)
    if kind == "sqlite":
        with closing(sqlite3.connect(path_of(url), isolation_level=None)) as careless:
            careless.execute("PRAGMA ignore_check_constraints = ON")
            careless.execute(update)
    else:
        run_sql(url, "ALTER TABLE platform_settings DROP CONSTRAINT platform_settings_details_bounded")
        run_sql(url, update)
    with closing(open_store(url).connect()) as session:
        found = snapshot(session)
        assert found.problems == ("details is 'larger than 262144 bytes': use a JSON object, such as {}",)
        assert flip(session)
        assert snapshot(session).problems == ()


def test_bytes_that_are_no_text_hide_no_other_row(postgres: Server) -> None:
    """A database in SQL_ASCII checks nothing."""
    run_sql(postgres.url(), "CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0")
    try:
        store = PostgresStore(postgres.url("bytes"))
        store.migrate()
        with closing(store.connect()) as session:
            session.report(instance(host="good"))
            session.report(instance(host="bad"))
            run_sql(postgres.url("bytes"), r"UPDATE maintenance_instances SET program = E'\xff' WHERE host = 'bad'")
            assert [(it.host, it.program) for it in session.fleet().instances] == [
                ("bad", "ÿ"),
                ("good", "gunicorn"),
            ]
    finally:
        run_sql(postgres.url(), "DROP DATABASE bytes WITH (FORCE)")


def test_no_row_uses_up_the_revisions(migrated_url: str) -> None:
    """A migration raises the counter above every row, and the highest number would be the last one."""
    with closing(PostgresStore(migrated_url).connect()) as session:
        Loose(migrated_url, session).insert(revision="9223372036854775807")
        PostgresStore(migrated_url).migrate()
        assert flip(session) < MAX_REVISION
        run_sql(migrated_url, "DROP TABLE platform_settings, platform_settings_revision CASCADE")
        PostgresStore(migrated_url).migrate()
        assert flip(session) < MAX_REVISION


def test_a_table_of_an_earlier_version_gets_the_rules_and_keeps_its_rows(database_url: str) -> None:
    store = PostgresStore(database_url)
    store.migrate()
    with closing(store.connect()) as session:
        loose = Loose(database_url, session)
        run_sql(database_url, "ALTER TABLE maintenance_instances DROP COLUMN registered_by CASCADE")
        run_sql(database_url, "DROP FUNCTION maintenance_instances_guard CASCADE")
        loose.insert(ttl="'NaN'")
        session.report(instance(host="before"))
        store.migrate()
        with pytest.raises(psycopg.errors.CheckViolation):
            run_sql(database_url, "UPDATE maintenance_instances SET pid = -1")
        assert {it.host for it in session.fleet().instances} == {"good", "bad", "before"}
        session.report(instance(host="after"))
        with psycopg.connect(database_url) as psql:
            found = psql.execute("SELECT host, registered_by FROM maintenance_instances").fetchall()
        assert dict(found) == {"": None, "good": None, "bad": None, "before": None, "after": "tester"}
