"""The command line: what it says, what it writes, and how it ends."""

import argparse
import contextlib
import datetime as dt
import getpass
import json
import os
import runpy
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from maintenance import MaintenanceState, __version__
from maintenance.base.values import Snapshot
from maintenance.cli import main, options, text
from maintenance.cli.watch import _line, events
from maintenance.stores import open_store
from tests.support.command import COMMAND, Acting, instance, read_until, register, run, started
from tests.support.waiting import eventually

COMMANDS = ("on", "off", "status", "watch", "fleet", "forget", "migrate", "sql", "demo")
NOW = dt.datetime(2026, 11, 21, 12, 0, 0, tzinfo=dt.UTC)
PASSWORD = "s3cret"


@pytest.fixture
def url(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated SQLite store, named by the environment."""
    open_store(sqlite_url).migrate()
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", sqlite_url)
    return sqlite_url


@contextlib.contextmanager
def machine_in(zone: str):
    """Have this process live in a time zone, whatever comes of it."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            yield
    finally:
        time.tzset()


@pytest.fixture
def vienna():
    """A machine that is not in UTC."""
    with machine_in("CET-1"):
        yield


def flag(url: str) -> Snapshot:
    return MaintenanceState(url, register=False).refresh()


def ended(*arguments: str) -> int:
    """The exit status, in this process."""
    try:
        return main(list(arguments))
    except SystemExit as exc:
        return int(exc.code or 0)


# The words.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400), ("1.5h", 5400), (" 5m ", 300), ("1h30m", 5400)],
)
def test_a_duration_has_a_unit(text, seconds):
    assert options.duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "", "m", "-5m", "5 m", "0m", "0h0m", "1h30", "1w", "٣m", "nan", "inf"])
def test_any_other_duration_is_refused_with_what_to_write(text):
    with pytest.raises(argparse.ArgumentTypeError, match="such as 30m"):
        options.duration(text)


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("0", 0), ("0.5", 0.5), ("2m", 120)])
def test_seconds_need_no_unit(text, seconds):
    assert options.seconds(text) == seconds


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_other_seconds_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="such as 30"):
        options.seconds(text)


@pytest.mark.parametrize("text", ["2026-11-22T06:00:00Z", "2026-11-22T07:00+01:00", "2026-11-22 06:00+00:00"])
def test_an_end_is_an_iso_time_with_a_time_zone(text):
    assert options.instant(text) == dt.datetime(2026, 11, 22, 6, tzinfo=dt.UTC)


@pytest.mark.usefixtures("vienna")
def test_an_end_without_a_time_zone_is_answered_with_the_two_that_may_be_meant():
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        options.instant("2026-11-22T06:00")
    assert "write 2026-11-22T06:00:00+01:00" in str(refused.value)
    assert "2026-11-22T06:00:00Z for UTC" in str(refused.value)


def test_an_end_that_is_no_time_is_answered_with_one_that_is():
    with pytest.raises(argparse.ArgumentTypeError, match="or --for 30m") as refused:
        options.instant("noon")
    written = str(refused.value).partition("such as ")[2].partition(",")[0]
    assert options.instant(written) > dt.datetime.now(dt.UTC)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "9999999999"])
def test_a_count_is_a_whole_number_from_one_on(text):
    assert options.count("012") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 to 999999999"):
        options.count(text)


@pytest.mark.parametrize("text", ["-1", "2m", "1.5", ""])
def test_retry_after_is_a_whole_number(text):
    assert options.whole_seconds("120") == 120
    with pytest.raises(argparse.ArgumentTypeError, match="such as 120"):
        options.whole_seconds(text)


def test_a_uuid_is_one():
    assert options.uuid("00000000-0000-0000-0000-000000000007") == UUID(int=7)
    with pytest.raises(argparse.ArgumentTypeError, match="32 hexadecimal digits"):
        options.uuid("alice")


def test_the_actor_is_the_user_at_the_host_also_where_the_user_has_no_name(monkeypatch):
    monkeypatch.setenv("LOGNAME", "alice")
    user, _, host = options.user_at_host().partition("@")
    assert (user, host) == ("alice", os.uname().nodename)
    # A container's user without an entry in passwd cannot be had without being another user.
    monkeypatch.setattr(getpass, "getuser", lambda: {}["uid not found"])
    assert options.user_at_host() == f"uid {os.getuid()}@{host}"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.00 s"), (0.25, "0.25 s"), (0.999, "1.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (90, "90 s"),
        (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_800, "2 d"),
    ],
)  # fmt: skip
def test_spans_read_well(seconds, said):
    assert text.span(seconds) == said


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("postgresql://u:s3cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:s3cret@odd@h/d and more", "postgresql://u:***@h/d and more"),
        ("postgresql://h/d?password=s3cret&user=u", "postgresql://h/d?password=***&user=u"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
    ],
)
def test_no_password_is_shown(said, shown):
    assert text.scrub(said) == shown


def test_what_a_terminal_would_obey_is_shown_escaped():
    assert text.printable("GET /\x1b[2J\n\u202e ü") == "GET /\\x1b[2J\\n\\u202e ü"


def test_an_instance_is_silent_once_a_heartbeat_and_its_lease_have_passed():
    assert not text.is_silent(instance(silent_for=69.0))
    assert text.is_silent(instance(silent_for=71.0))


def test_an_answer_is_at_most_as_old_as_can_be_proven():
    assert text.answer_age(instance(silent_for=50.0)) is None
    assert text.answer_age(instance(silent_for=50.0, revision=7)) == 60.0
    assert text.answer_age(instance(silent_for=50.0, revision=7, when_stale="block")) == 10.0


def test_what_an_instance_was_last_known_to_do():
    busy = instance(revision=7, in_flight=2, oldest="GET /x\x1b[2J", oldest_age=3.2, websockets=1, silent_for=180.0)
    assert text.last_known(busy) == (
        "last seen 3 min ago: it held revision 7, 2 requests in flight "
        "(the oldest GET /x\\x1b[2J for 3 min, if it still runs), 1 WebSocket open"
    )
    assert text.last_known(instance()) == "last seen 0.00 s ago: it had read nothing yet, requests in flight unknown"


# on, off, status.


def test_on_then_status_then_off(shared_url, capsys):
    assert ended("on", "--database", shared_url, "--message", "Back at noon") == 0
    said = capsys.readouterr()
    first, *others = said.out.splitlines()
    assert first.startswith("maintenance is ON in ")
    assert others == ["  mode        full (everything is refused)", "  message     Back at noon"]
    assert said.err == ""
    assert flag(shared_url).enabled
    assert ended("status", "--database", shared_url) == 3
    assert "message     Back at noon" in capsys.readouterr().out
    assert ended("off", "--database", shared_url) == 0
    assert ended("status", "--database", shared_url) == 0
    assert capsys.readouterr().out.splitlines()[1] == "maintenance is OFF"


def test_every_detail_arrives(migrated_url):
    who = UUID(int=7)
    done = run(
        *("on", "--message", "Zurück um zwölf", "--until", "2099-11-22T06:00+01:00", "--retry-after", "90"),
        *("--mode", "read_only", "--actor", "alice", "--updated-by", str(who), "--reason", "upgrade", "--json"),
        env={"DATABASE_URL": migrated_url},
    )
    assert (done.returncode, done.stderr) == (0, "")
    known = flag(migrated_url)
    assert (known.enabled, known.mode, known.message) == (True, "read_only", "Zurück um zwölf")
    assert known.until == dt.datetime(2099, 11, 22, 5, tzinfo=dt.UTC)
    assert (known.retry_after, known.actor, known.reason, known.updated_by) == (90, "alice", "upgrade", who)
    told = json.loads(done.stdout)
    assert told["until"] == "2099-11-22T05:00:00+00:00"
    assert told["updated_by"] == str(who)
    assert told["store"].startswith("postgresql://tester@127.0.0.1:")
    assert set(Snapshot.__dataclass_fields__) < set(told)
    shown = run("status", env={"DATABASE_URL": migrated_url})
    assert shown.returncode == 3
    for said in ("read_only (GET, HEAD and OPTIONS pass)", "90 s", "alice", str(who), "upgrade", "Zurück um zwölf"):
        assert said in shown.stdout


def test_for_counts_from_now_and_the_actor_is_who_runs_it(url):
    before = dt.datetime.now(dt.UTC)
    assert ended("on", "--for", "30m") == 0
    known = flag(url)
    assert known.until is not None
    assert abs(known.until - before - dt.timedelta(minutes=30)) < dt.timedelta(seconds=10)
    assert known.actor == options.user_at_host()


def test_an_end_that_has_passed_is_told_and_switches_nothing_off(url, capsys):
    assert ended("on", "--until", "2020-01-01T00:00Z") == 0
    assert "warning: the expected end lies in the past" in capsys.readouterr().err
    assert ended("status") == 3
    assert "the expected end has passed; it stays on until somebody switches it off" in capsys.readouterr().out


@pytest.mark.usefixtures("vienna")
def test_people_read_the_time_of_their_machine_and_machines_read_utc(url, capsys):
    ended("on", "--until", "2099-11-22T06:00Z")
    capsys.readouterr()
    assert ended("status") == 3
    assert "2099-11-22 07:00:00 CET (in " in capsys.readouterr().out
    assert ended("status", "--json") == 3
    assert json.loads(capsys.readouterr().out)["until"] == "2099-11-22T06:00:00+00:00"


@pytest.fixture(params=[("CET-1", "9999-12-31T23:59:59"), ("EST5", "0001-01-01T00:00:00")], ids=["last", "first"])
def beyond(request: pytest.FixtureRequest):
    """The last or the first instant of UTC, on a machine whose own time has no such year."""
    zone, instant = request.param
    with machine_in(zone):
        yield instant


def test_an_end_in_a_year_that_this_machine_has_not_is_shown_as_it_is(url, beyond, capsys):
    assert ended("on", "--until", f"{beyond}Z") == 0
    capsys.readouterr()
    assert ended("status") == 3
    assert f"{beyond.replace('T', ' ')} UTC (" in capsys.readouterr().out
    assert ended("status", "--json") == 3
    assert json.loads(capsys.readouterr().out)["until"] == f"{beyond}+00:00"
    assert f"until {beyond.replace('T', ' ')} UTC" in text.change(flag(url))


@pytest.mark.parametrize("zone", ["CET-1", "EST5"])
@pytest.mark.parametrize("instant", ["9999-12-31T23:59:59", "0001-01-01T00:00:00"])
def test_such_an_end_without_a_time_zone_is_answered_too(zone, instant):
    told = f"names no time zone: write .*{instant}Z for UTC"
    with machine_in(zone), pytest.raises(argparse.ArgumentTypeError, match=told):
        options.instant(instant)


def test_machines_are_told_what_json_has_not_as_text():
    west = dt.datetime(9999, 12, 31, 23, tzinfo=dt.timezone(-dt.timedelta(hours=5)))
    assert text.to_json(UUID(int=1)) == '"00000000-0000-0000-0000-000000000001"'
    assert text.to_json(west) == '"9999-12-31T23:00:00-05:00"'


def test_an_end_that_has_passed_while_it_is_off_is_no_alarm():
    off = Snapshot(enabled=False, until=NOW, revision=3)
    assert "(passed)" in "\n".join(text.flag(off, "memory://", now=NOW))


def test_a_message_that_the_terminal_cannot_show_is_no_failure(url):
    assert run("on", "--message", "Zurück").returncode == 0
    shown = run("status", env={"PYTHONIOENCODING": "ascii"})
    assert shown.returncode == 3
    assert "Zur\\xfcck" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["on", "--until", "2026-11-22T06:00"], "names no time zone"),
        (["on", "--for", "30"], "such as 30m"),
        (["on", "--for", "5m", "--until", "2026-11-22T06:00Z"], "not allowed with argument"),
        (["on", "--for", "99999999d"], "write a shorter time"),
        (["on", "--retry-after", "99999999999"], "between 0 and 2147483647"),
        (["on", "--message", "a\x00b"], "message holds a NUL"),
        (["on", "--mode", "half"], "invalid choice"),
        (["on", "--updated-by", "alice"], "no UUID"),
        (["off", "--database", ""], "--database is empty: write postgresql://"),
        (["off", "--database", "me:secret@h"], "--database: the database URL has no scheme: write"),
        (["wait", "--presume-dead", "x"], "is no duration"),
        (["on", "--wait", "--presume-dead", "0.5s"], "write 1s or more"),
        (["on", "--for", "0s"], "a number above 0"),
        (["on", "--wait", "--timeout", "x"], "write seconds from 0 on, such as 30, or 5m"),
        (["on", "--wait", "--expect", "1000000000"], "to 999999999"),
        (["on", "--retry-after", "9999999999999999999"], "up to 2147483647"),
        (["on", "--until", "noon"], "is no ISO time: write one such as 2"),
        (["on", "--timeout", "3"], "--timeout says how to wait: add --wait"),
        (["on", "--expect", "3"], "--expect says how to wait: add --wait"),
        (["off", "--presume-dead", "3m"], "--presume-dead says how to wait: add --wait"),
        (["off", "--drain"], "write --wait alone"),
        (["off", "--message", "x"], "unrecognized arguments"),
        (["on", "--mess", "x"], "unrecognized arguments: --mess *** (see"),
        (["--json", "status"], "unrecognized arguments: --json: options go after the command (see"),
        (["--database", f"postgresql://u:{PASSWORD}@h/d", "off"], "(options go after the command; see"),
        (["on", "--expect", "0", "--wait"], "from 1 to 999999999"),
        (["forget"], "--silent 1h"),
        (["forget", "abc", "--silent", "1h"], "either"),
        (["status", "--database", "mysql://h/d"], "sqlite:///path"),
        (["status", "--database", "postgresql+psycopg://h/d"], "write postgresql://"),
        (["status", "--database", "memory://"], "no server sees"),
        (
            ["status", f"postgresql://u:{PASSWORD}@h/d"],
            "maintenance status: error: unrecognized arguments: postgresql:***",
        ),
        (["status", "--password", PASSWORD], "unrecognized arguments: --password ***"),
        (["on", "--for", f"postgresql:/u:{PASSWORD}@h"], "no duration"),
        (["status", "--database", f"host=h password='a {PASSWORD}'"], "write postgresql://"),
        (["status", f"--databse=postgresql://u:{PASSWORD} a@h/d"], "unrecognized arguments: --databse=***"),
        ([f"postgresql://u:a {PASSWORD}@h/d"], "invalid choice: 'postgresql://u:***@h/d'"),
        (["status", "--database", f" postgresql+psycopg://u:{PASSWORD}@h/d"], "write postgresql://"),
        ([], "COMMAND"),
        (["frobnicate"], "invalid choice"),
    ],
)
def test_wrong_usage_ends_with_2_says_what_to_write_and_writes_nothing(url, capsys, arguments, says):
    assert ended(*arguments) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1
    assert PASSWORD not in said.err
    assert said.out == ""
    assert flag(url).revision == 1


@pytest.mark.parametrize("variable", ["MAINTENANCE_DATABASE_URL", "DATABASE_URL"])
def test_a_wrong_database_is_said_with_where_it_was_named(variable, capsys, monkeypatch):
    monkeypatch.setenv(variable, f"mysql://me:{PASSWORD}@h/d")
    assert main(["status"]) == 2
    said = capsys.readouterr().err
    assert f"{variable}: the database URL begins with mysql://: write postgresql://" in said
    assert PASSWORD not in said


@pytest.mark.parametrize("command", [["status"], ["fleet"], ["wait"], ["on"], ["off"]], ids=" ".join)
def test_nothing_is_made_in_a_file_of_somebody_else_s(command, sqlite_url, capsys):
    """A misspelt path would be a flag that no server follows, and would say so as OFF."""
    path = Path(sqlite_url.removeprefix("sqlite://"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()
    assert main([*command, "--database", sqlite_url]) == 1
    assert "no such table: platform_settings: run `maintenance migrate" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_an_interrupt_before_a_command_has_begun_is_one_line(capsys, monkeypatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("maintenance.cli.options.parser", interrupt)
    assert main(["status"]) == 130
    assert capsys.readouterr().err == "maintenance: interrupted\n"


def test_without_a_database_it_says_what_to_set(capsys):
    assert ended("status") == 2
    assert "write --database URL, or set MAINTENANCE_DATABASE_URL or DATABASE_URL" in capsys.readouterr().err


def test_the_option_wins_over_the_variable_and_that_over_the_platform_s(url, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "sqlite:////nowhere/at/all.db")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    open_store(other).migrate()
    assert ended("on", "--database", other) == 0
    assert (flag(other).enabled, flag(url).enabled) == (True, False)
    assert ended("on") == 0
    assert flag(url).enabled


@pytest.mark.parametrize("command", ["status", "off", "fleet", "watch", "forget --silent 1h"])
def test_an_sqlite_file_that_is_not_there_is_told_and_not_made(sqlite_url, tmp_path, capsys, command):
    assert ended(*command.split(), "--database", sqlite_url) == 1
    said = capsys.readouterr()
    assert f"no such file: check the path, or make it with `maintenance migrate --database {sqlite_url}`" in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_on_makes_an_sqlite_file_and_says_so(sqlite_url, capsys):
    assert ended("on", "--database", sqlite_url) == 0
    assert "did not exist and is made now" in capsys.readouterr().err
    assert flag(sqlite_url).enabled


@pytest.mark.parametrize("command", ["on", "off", "status", "watch", "fleet", "forget abc", "migrate"])
def test_a_store_that_is_away_is_one_line_without_a_password_and_1(command):
    done = run(*command.split(), "--database", f"postgresql://u:{PASSWORD}@127.0.0.1:1/d")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("maintenance: postgresql://u@127.0.0.1:1/d: ")
    assert PASSWORD not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_row_is_1_and_names_the_column(url, capsys):
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE platform_settings SET details = '[]'")
    connection.close()
    assert ended("status") == 1
    assert "platform_settings.details" in capsys.readouterr().err
    assert ended("fleet") == 1


def test_the_command_line_never_counts_as_a_process_that_serves(url):
    for command in ("on --wait", "status", "fleet", "off"):
        ended(*command.split())
    assert MaintenanceState(url, register=False).fleet().instances == ()


# migrate, sql, help.


def test_migrate_makes_the_table_and_says_what_was_applied(database_url, sqlite_url, capsys):
    assert ended("migrate", "--database", database_url) == 0
    said = capsys.readouterr().out
    assert "is migrated: 0001_platform_settings.sql, 0002" in said
    assert ended("migrate", "--database", database_url, "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"][0] == "0001_platform_settings.sql"
    assert not flag(database_url).enabled
    assert ended("migrate", "--database", sqlite_url) == 0
    assert capsys.readouterr().out.endswith("maintenance.db is migrated\n")
    assert not flag(sqlite_url).enabled


def test_sql_prints_what_migrate_applies_and_asks_no_database(database_url, capsys):
    assert ended("sql") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("-- 0001_platform_settings.sql\n")
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute(printed)
    assert not flag(database_url).enabled
    assert ended("sql", "--json") == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [file["name"][:4] for file in files] == ["0001", "0002", "0003"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command, capsys):
    assert ended(command, "--help") == 0
    said = capsys.readouterr().out
    assert f"maintenance {command}" in said.partition("examples:")[2]


def test_the_examples_are_right(capsys):
    for line in (line for example in options._EXAMPLES.values() for line in example.splitlines()):
        command = line.split("maintenance ", 1)[1]
        for end in ("|", ">", "&&", "#", ";"):
            command = command.partition(f" {end}")[0].partition(f"{end} ")[0]
        options.check(options.parser().parse_args(shlex.split(command)))


def test_help_and_version(capsys):
    assert ended("--help") == 0
    said = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in said
    assert "exit status:" in said
    assert ended("--version") == 0
    assert capsys.readouterr().out == f"maintenance {__version__}\n"


def test_it_runs_as_a_module_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["maintenance", "sql", "--json"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("maintenance", run_name="__main__")
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["files"]
    assert not hasattr(runpy.run_module("maintenance.__main__", run_name="imported"), "code")


def test_the_script_is_installed():
    script = Path(sys.executable).with_name("maintenance")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"maintenance {__version__}\n"


# fleet, forget.


def test_the_fleet_shows_who_has_acknowledged_what(shared_url, capsys):
    store = open_store(shared_url)
    followed = instance(id="a" * 32, host="web-1", revision=1, in_flight=0, when_stale="block", ttl=2.0)
    behind = instance(id="b" * 32, host="web-2", pid=31, in_flight=3, websockets=2, oldest="GET /x", oldest_age=1.0)
    register(store, followed, behind)
    assert ended("fleet", "--database", shared_url) == 0
    first, headings, one, other, last = capsys.readouterr().out.splitlines()
    assert "maintenance is OFF" in first
    assert headings.split()[:3] == ["ID", "HOST", "PID"]
    assert one.split()[:7] == ["aaaaaaaa", "web-1", "4242", "gunicorn", "0.1.0", "block", "2.0"]
    assert "at most 2.0 s" in one
    assert "none behind" in other
    assert "3 + 2 WebSockets" in other
    assert last == "2 processes: 1 behind, 0 silent, 3 requests in flight, as last reported"


def test_the_fleet_as_json(url, capsys):
    state = MaintenanceState(url)
    state.start()
    eventually(lambda: state.status().registered and state.fleet().instances[0].revision == 1)
    assert ended("fleet", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    state.close()
    [one] = told["instances"]
    assert (one["pid"], one["revision"], one["silent"], one["ttl"]) == (os.getpid(), 1, False, 10.0)
    assert one["answer_age_at_most"] == pytest.approx(10.0 + one["silent_for"])
    assert (told["flag"]["enabled"], told["intact"]) == (False, True)


def test_the_silent_are_shown_and_forgotten(url, capsys):
    age(url, silent := instance(host="web-9"), 3600.0)
    register(open_store(url), instance(host="web-1"))
    ended("on")
    capsys.readouterr()
    assert ended("fleet") == 0
    said = capsys.readouterr().out
    assert "60 min ago SILENT" in said
    assert "1 silent, 0 requests in flight that it refuses" in said
    assert ended("forget", "--silent", "1h") == 0
    said = capsys.readouterr()
    assert f"forgotten, on your word: web-9 pid 4242 (gunicorn, id {silent.id[:8]}), last seen 60 min ago" in said.out
    assert said.err == ""
    assert [one.host for one in MaintenanceState(url, register=False).fleet().instances] == ["web-1"]
    assert ended("forget", "--silent", "1h") == 0
    assert "nothing to forget" in capsys.readouterr().out


def age(url: str, one, seconds: float) -> None:
    """Have an instance been silent."""
    register(open_store(url), one)
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    with connection:
        connection.execute("UPDATE maintenance_instances SET seen_at = seen_at - ? WHERE id = ?", (seconds, one.id))
    connection.close()


def test_forget_takes_the_beginning_of_an_id_and_warns_of_the_living(shared_url, capsys):
    register(open_store(shared_url), *(instance(id=sign * 32) for sign in "abc"))
    whole = str(UUID("b" * 32)).upper()
    assert ended("forget", "aaaaaaaa", whole, "aaaa", "--database", shared_url, "--json") == 0
    said = capsys.readouterr()
    assert [one["id"][0] for one in json.loads(said.out)["forgotten"]] == ["a", "b"]
    assert "warning: aaaaaaaa was heard " in said.err
    assert [one.id[0] for one in MaintenanceState(shared_url, register=False).fleet().instances] == ["c"]


def test_forget_removes_nobody_where_one_id_is_unknown_or_names_several(url, capsys):
    register(open_store(url), instance(id="a1" + "0" * 30), instance(id="a2" + "0" * 30))
    assert ended("forget", "a1", "ffff") == 1
    assert "no instance 'ffff' is registered: `maintenance fleet` shows who is" in capsys.readouterr().err
    assert ended("forget", "-") == 1
    assert ended("forget", f"postgresql://u:{PASSWORD}@h/d") == 1
    assert PASSWORD not in capsys.readouterr().err
    assert ended("forget", "a1", "a") == 2
    assert "begins the ids of 2 instances: write more of it" in capsys.readouterr().err
    assert len(MaintenanceState(url, register=False).fleet().instances) == 2


def test_an_empty_fleet_and_an_emptied_table_are_told(migrated_url, capsys):
    assert ended("fleet", "--database", migrated_url) == 0
    assert "no process is registered in this database" in capsys.readouterr().err
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("TRUNCATE public.maintenance_instances")
    assert ended("fleet", "--database", migrated_url) == 0
    assert "was emptied behind the library's back" in (said := capsys.readouterr().err)
    assert "`maintenance wait --expect N`" in said, "which switches nothing on"


# watch.


def test_watch_shows_what_is_then_each_change_until_ctrl_c(shared_url):
    with started("watch", "--database", shared_url) as watching:
        read_until(watching, "maintenance is OFF  revision ")
        ended("on", "--database", shared_url, "--message", "soon", "--reason", "why", "--actor", "alice", "--for", "1h")
        line = read_until(watching, "maintenance is ON")
        for said in (f"revision {flag(shared_url).revision}", "by alice", "until ", "message: soon", "reason: why"):
            assert said in line
        ended("on", "--database", shared_url, "--mode", "read_only")
        assert "  read_only  by " in read_until(watching, "maintenance is ON")
        assert MaintenanceState(shared_url, register=False).fleet().instances == ()
        watching.send_signal(signal.SIGINT)
        out, err = watching.communicate(timeout=10)
        assert (out, err, watching.returncode) == ("", "", 0)


def test_watch_in_json_one_object_a_line(url, monkeypatch):
    output = Acting({
        '"enabled": false': lambda: MaintenanceState(url, register=False).set(True),
        '"enabled": true': lambda: signal.raise_signal(signal.SIGINT),
    })  # fmt: skip
    monkeypatch.setattr(sys, "stdout", output)
    assert ended("watch", "--json") == 0
    first, second = map(json.loads, output.getvalue().splitlines())
    assert (first["event"], first["enabled"], second["enabled"]) == ("flag", False, True)
    assert dt.datetime.fromisoformat(second["at"]).utcoffset() == dt.timedelta(0)


def test_watch_says_when_the_store_is_away_and_when_it_is_back(url, monkeypatch):
    path = Path(url.removeprefix("sqlite:///"))
    away = path.with_suffix(".away")
    output = Acting({
        "maintenance is OFF": lambda: path.rename(away),
        "the store is away": lambda: away.rename(path),
        "the store is back": lambda: signal.raise_signal(signal.SIGINT),
    })  # fmt: skip
    monkeypatch.setattr(sys, "stdout", output)
    assert ended("watch") == 0
    assert [line[25:38] for line in output.getvalue().splitlines()[1:]] == [
        "maintenance i",
        "the store is ",
        "the store is ",
    ]


def test_watch_tells_machines_why_the_store_is_away(url):
    state = MaintenanceState(url, register=False)
    path = Path(url.removeprefix("sqlite:///"))
    told = events(state)
    assert isinstance(next(told), Snapshot)
    path.rename(path.with_suffix(".away"))
    error = next(told)
    state.close()
    line = json.loads(_line(error, "a store", json=True))
    assert (line["event"], line["store"]) == ("store", "a store")
    assert "gone" in line["error"]


# How it ends.


def test_a_reader_that_goes_away_is_no_failure_to_tell(url):
    shell = f"{' '.join(COMMAND)} sql --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_whoever_closes_its_output_has_it_do_its_work(url, closed):
    command = " ".join(COMMAND)
    done = shell(f"{command} on --wait --json --until 2001-01-01T00:00:00Z {closed}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] in ([], ["flag", "result"])
    assert flag(url).enabled


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_an_output_that_cannot_be_written_is_told_and_the_flip_stands(url):
    done = shell(f"{' '.join(COMMAND)} on >/dev/full")
    said = "maintenance: [Errno 28] No space left on device: what was done before stands, as `maintenance status` tells"
    assert (done.returncode, done.stderr.strip()) == (1, said)
    assert flag(url).enabled


def test_a_reader_that_goes_away_in_this_process(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert ended("sql") == 141
        monkeypatch.undo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_an_output_that_cannot_be_written_in_this_process(monkeypatch, capsys):
    with open("/dev/full", "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert ended("sql") == 1
        monkeypatch.undo()
    assert "maintenance: [Errno 28] No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("on", "interrupted while it was written: `maintenance status` tells whether it was"),
        ("status", "maintenance: interrupted"),
    ],
)
def test_ctrl_c_while_the_database_is_busy(migrated_url, capsys, command, says):
    with psycopg.connect(migrated_url) as busy:
        busy.execute("LOCK TABLE public.platform_settings IN ACCESS EXCLUSIVE MODE")
        watcher = threading.Thread(target=_interrupt_once_it_waits, args=(migrated_url,))
        watcher.start()
        assert ended(command, "--database", migrated_url) == 130
        watcher.join()
    assert says in capsys.readouterr().err
    assert not flag(migrated_url).enabled


def _interrupt_once_it_waits(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as looking:
        waiting = (
            "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
            "WHERE NOT granted AND datname = current_database()"
        )
        eventually(lambda: looking.execute(waiting).fetchone() != (0,))
    os.kill(os.getpid(), signal.SIGINT)
