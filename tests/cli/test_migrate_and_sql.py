"""``maintenance migrate`` and ``sql``: the tables."""

import psycopg

from tests.support.command import Cli, operator


def test_migrate_creates_the_tables_and_says_what_was_applied(database_url: str, sqlite_url: str, cli: Cli):
    done = cli("migrate", "--database", database_url)
    assert done.status == 0
    assert " is up to date: 0001_platform_settings.sql, 0002" in done.out
    [printed] = cli("migrate", "--database", database_url, "--json").json
    assert (printed["migrated"], printed["files"][0]) == (True, "0001_platform_settings.sql")
    assert cli("migrate", "--database", sqlite_url).out.endswith("maintenance.db is up to date\n")
    for url in (database_url, sqlite_url):
        assert not operator(url).refresh().enabled


def test_sql_prints_what_migrate_applies_without_a_database(database_url: str, cli: Cli):
    done = cli("sql")
    assert done.status == 0
    assert done.out.startswith("-- 0001_platform_settings.sql\n")
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute(done.out.encode())
    assert not operator(database_url).refresh().enabled
    names = [file["name"] for file in cli("sql", "--json").json[0]["files"]]
    assert names == sorted(names)
    assert names[0] == "0001_platform_settings.sql"
