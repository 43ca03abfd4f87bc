"""``maintenance on`` and ``off``: what is written, and what is shown of it."""

import datetime as dt
import json
from pathlib import Path
from uuid import UUID

import pytest

from maintenance.base.values import Snapshot
from maintenance.cli.commands.flip import name_user
from tests.support.command import Cli, change, machine_in, operator, run


def test_on_then_status_then_off(each_url: str, cli: Cli):
    done = cli("on", "--message", "Back at noon")
    assert (done.status, done.err) == (0, "")
    assert done.lines[0].startswith("maintenance is ON in ")
    assert done.lines[1:3] == ["  mode        full (all requests are refused)", "  message     Back at noon"]
    assert operator(each_url).refresh().enabled
    done = cli("status")
    assert done.status == 3
    assert "  message     Back at noon" in done.lines
    assert cli("off").lines[0].startswith("maintenance is OFF in ")
    assert cli("status").status == 0


def test_every_detail_is_written(migrated_url: str):
    who = UUID(int=7)
    done = run(
        *("on", "--message", "Zurück um zwölf", "--until", "2099-11-22T06:00+01:00", "--retry-after", "90"),
        *("--mode", "read_only", "--actor", "alice", "--updated-by", str(who), "--reason", "upgrade", "--json"),
        env={"DATABASE_URL": migrated_url},
    )
    assert (done.returncode, done.stderr) == (0, "")
    known = operator(migrated_url).refresh()
    assert (known.enabled, known.mode, known.message) == (True, "read_only", "Zurück um zwölf")
    assert known.until == dt.datetime(2099, 11, 22, 5, tzinfo=dt.UTC)
    assert (known.retry_after, known.actor, known.reason, known.updated_by) == (90, "alice", "upgrade", who)
    printed = json.loads(done.stdout)
    assert (printed["until"], printed["updated_by"]) == ("2099-11-22T05:00:00+00:00", str(who))
    assert printed["store"].startswith("postgresql://tester@127.0.0.1:")
    assert set(Snapshot.__dataclass_fields__) < set(printed)
    shown = run("status", env={"DATABASE_URL": migrated_url})
    assert shown.returncode == 3
    for detail in ("read_only (GET, HEAD and OPTIONS pass)", "90 s", "alice", str(who), "upgrade", "Zurück um zwölf"):
        assert detail in shown.stdout


def test_off_empties_the_details(url: str, cli: Cli):
    cli("on", "--message", "soon", "--for", "30m", "--retry-after", "5", "--mode", "read_only", "--reason", "x")
    assert cli("off").status == 0
    known = operator(url).refresh()
    assert (known.message, known.until, known.retry_after, known.mode, known.reason) == (None, None, None, "full", None)


def test_for_counts_from_now_and_the_actor_is_who_runs_it(url: str, cli: Cli):
    before = dt.datetime.now(dt.UTC)
    assert cli("on", "--for", "30m").status == 0
    known = operator(url).refresh()
    assert known.until is not None
    assert abs(known.until - before - dt.timedelta(minutes=30)) < dt.timedelta(seconds=10)
    assert known.actor == name_user()


@pytest.mark.parametrize(
    ("zone", "when"), [("CET-1", "9999-12-31T23:59:59"), ("EST5", "0001-01-01T00:00:00")], ids=["last", "first"]
)
def test_an_end_in_a_year_that_this_machine_has_not_is_kept_as_it_is(url: str, cli: Cli, zone, when):
    with machine_in(zone):
        operator(url).set(True, until=dt.datetime.fromisoformat(f"{when}Z"))
        assert f"{when.replace('T', ' ')} UTC (" in cli("status").out
        assert cli("status", "--json").json[0]["until"] == f"{when}+00:00"


def test_on_creates_an_sqlite_file_and_says_so(sqlite_url: str, cli: Cli):
    done = cli("on", "--database", sqlite_url)
    assert done.status == 0
    assert "did not exist and was created" in done.err
    assert operator(sqlite_url).refresh().enabled


# Faults, of each command.


@pytest.mark.parametrize("command", ["status", "off", "on --wait", "wait --expect=1", "fleet", "watch", "forget abc"])
def test_a_missing_sqlite_file_is_reported_and_not_created(sqlite_url: str, cli: Cli, tmp_path, command):
    done = cli(*command.split(), "--database", sqlite_url)
    assert (done.status, done.out) == (1, "")
    assert f"no such file: check the path, or create it with `maintenance migrate --database {sqlite_url}`" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "fleet", "wait", "on", "off"])
def test_no_table_is_added_to_another_sqlite_file(sqlite_url: str, cli: Cli, command):
    """A misspelt path would be a flag that no server follows, and would be shown as OFF."""
    path = Path(sqlite_url.removeprefix("sqlite://"))
    change(sqlite_url, "CREATE TABLE theirs (a)")
    before = path.read_bytes()
    done = cli(command, "--database", sqlite_url)
    assert done.status == 1
    assert "no such table: platform_settings: run `maintenance migrate" in done.err
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", ["on", "off", "status", "watch", "fleet", "forget abc", "migrate"])
def test_an_unreachable_database_is_1_and_one_line_without_a_password(command):
    done = run(*command.split(), "--database", "postgresql://u:s3cret@127.0.0.1:1/d")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("maintenance: postgresql://u@127.0.0.1:1/d: ")
    assert "s3cret" not in done.stdout + done.stderr


def test_no_command_counts_as_a_process_that_serves(url: str, cli: Cli):
    for command in ("on --wait", "status", "fleet", "off"):
        cli(*command.split())
    assert operator(url).fleet().instances == ()
