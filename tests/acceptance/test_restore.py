"""A dump that was taken while maintenance was off is restored while it is on."""

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from maintenance.process.status import TAKEN_BACK
from tests.support.clients import keep_asking
from tests.support.command import operator
from tests.support.postgres import Server, installations
from tests.support.site import site
from tests.support.sql import flip, run_sql
from tests.support.waiting import eventually

TTL = 1.0


@pytest.fixture
def tools(postgres: Server) -> Path:
    """The folder of pg_dump and psql."""
    found = [it.folder for it in installations() if (it.folder / "pg_dump").exists() and it.source == postgres.source]
    if not found:
        pytest.skip("this PostgreSQL has no pg_dump")
    return found[0]


def restore(tools: Path, url: str, dump: str) -> None:
    """As an operator does, stopping at the first error."""
    command = [tools / "psql", "--quiet", "--set=ON_ERROR_STOP=1", url]
    done = subprocess.run(command, input=dump, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("form", [("--clean", "--if-exists"), ()], ids=["over the tables", "into an empty schema"])
def test_a_restore_of_an_older_dump_opens_no_process(
    migrated_url: str, tools: Path, form: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    dump = subprocess.run([tools / "pg_dump", *form, migrated_url], capture_output=True, text=True, check=True).stdout
    with ExitStack() as stack:
        old = [stack.enter_context(site(migrated_url, ttl=TTL)) for _ in range(2)]
        assert {one.ask() for one in old} == {200}
        flip(migrated_url, on=True)
        watching = operator(migrated_url)
        assert watching.prove(watching.refresh(), expect=2, timeout=10.0)
        crowds = [stack.enter_context(keep_asking(one, clients=2)) for one in old]
        began = time.monotonic()
        if not form:
            run_sql(migrated_url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        restore(tools, migrated_url, dump)
        assert run_sql(migrated_url, "SELECT value_bool FROM platform_settings WHERE key = 'maintenance_mode'") == [
            (False,)
        ]
        eventually(lambda: all(one.state.status().flags.taken_back for one in old))
        eventually(lambda: _knows_of_the_others(migrated_url))
        operator(migrated_url).store.migrate()  # as an init container does before each process
        late = stack.enter_context(site(migrated_url, ttl=TTL))
        assert late.ask() == 503, "a process that starts now learns it from the others"
        eventually(lambda: time.monotonic() > began + 3 * TTL)
        assert {seen.status for one in crowds for seen in one.since(began)} == {503}
        assert caplog.text.count(TAKEN_BACK) == 3, "one line in each process"
        watching.set(False)
        for one in (*old, late):
            eventually(lambda one=one: one.ask() == 200)


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_a_database_that_begins_again_opens_no_process(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """As a restore without the flag and a migration after it, or a file that is deleted and made again."""
    url = request.getfixturevalue("migrated_url") if kind == "postgresql" else f"sqlite:///{tmp_path}/flag.db"
    operator(url).store.migrate()
    with site(url, ttl=TTL) as old:
        boss = operator(url)
        boss.set(True)
        eventually(lambda: old.ask() == 503)
        if kind == "postgresql":
            run_sql(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        else:
            for path in tmp_path.iterdir():
                path.unlink()
        operator(url).store.migrate()
        eventually(lambda: old.state.status().flags.taken_back)
        assert old.ask() == 503
        operator(url).set(False)
        eventually(lambda: old.ask() == 200)


def _knows_of_the_others(url: str) -> bool:
    sql = "SELECT count(*) FROM maintenance_instances, platform_settings_revision WHERE revision > last"
    return run_sql(url, sql) == [(2,)]
