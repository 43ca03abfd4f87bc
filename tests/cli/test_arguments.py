"""The arguments: what their values mean, what is refused, and where the database is named."""

import argparse
import datetime as dt
import os
import re
import shlex
from pathlib import Path
from uuid import UUID

import pytest

from maintenance import __version__
from maintenance.cli import options
from maintenance.cli.commands import COMMANDS
from maintenance.cli.commands.flip import name_user
from maintenance.stores import open_store
from tests.support.command import Cli, machine_in, operator

PASSWORD = "s3cret"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        *(("duration", *pair) for pair in [
            ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400), ("1.5h", 5400), (" 5m ", 300), ("1h30m", 5400),
            ("30min", 1800), ("2hours", 7200), ("1 hr 5 minutes", 3900), ("90 sec", 90),
        ]),
        *(("seconds", *pair) for pair in [("30", 30), ("0", 0), ("0.5", 0.5), ("2m", 120)]),
        *(("time", text, dt.datetime(2026, 11, 22, 6, tzinfo=dt.UTC)) for text in [
            "2026-11-22T06:00:00Z", "2026-11-22T07:00+01:00", "2026-11-22 06:00+00:00", "2026-11-22 06:00 UTC",
            "2026-11-22 07:00 +01:00",
        ]),
        ("silence", "1s", 1),
        ("count", "012", 12),
        ("retry_after", "120", 120),
        ("revision", "0", 0),
        ("uuid", "00000000-0000-0000-0000-000000000007", UUID(int=7)),
    ],
)  # fmt: skip
def test_a_value_is_understood(kind, text, value):
    assert getattr(options, f"parse_{kind}")(text) == value


@pytest.mark.parametrize(
    ("kind", "says", "texts"),
    [
        (
            "duration", "not a duration: use a number and a unit (s, m, h or d), for example 30m",
            ["30", "", "m", "-5m", "5 x", "0m", "0h0m", "1h30", "1w", "5mays", "2dec", "٣m", "nan", "inf",
             "9" * 400 + "d"],
        ),
        ("seconds", "use 0 or more, for example 30, or 5m", ["-1", "nan", "inf", "soon"]),
        ("silence", "use for example 10m", ["0.5s", "10", "x"]),
        ("count", "use a whole number from 1 to 100000", ["0", "100001", "-1", "1.5", "many", "", "٣"]),
        ("retry_after", "for example 120", ["-1", "2m", "1.5", "", "9" * 19]),
        ("revision", "the number shown by `maintenance on` or", ["last", "-1", "1_0"]),
        ("uuid", "32 hexadecimal digits", ["alice"]),
        ("span", "use a shorter duration", ["99999999d"]),
        ("time", "or --for 30m", ["noon", ""]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_what_to_use(kind, says, texts):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match=re.escape(says)):
            getattr(options, f"parse_{kind}")(text)


def test_a_time_without_a_time_zone_is_answered_with_the_two_that_may_be_meant():
    with machine_in("CET-1"), pytest.raises(argparse.ArgumentTypeError) as refused:
        options.parse_time("2026-11-22T06:00")
    advice = "use 2026-11-22T06:00:00+01:00 in the time zone of this machine, or 2026-11-22T06:00:00Z"
    assert advice in str(refused.value)


@pytest.mark.parametrize("zone", ["CET-1", "EST5"])
@pytest.mark.parametrize("when", ["9999-12-31T23:59:59", "0001-01-01T00:00:00"])
def test_a_time_without_a_time_zone_at_the_end_of_all_years_is_answered_too(zone, when):
    with machine_in(zone), pytest.raises(argparse.ArgumentTypeError, match=f"no time zone: use .*{when}Z for UTC"):
        options.parse_time(when)


@pytest.mark.parametrize("zone", ["Z", "+14:00", " -12:00", " UTC"])
def test_a_time_of_day_is_the_next_one_in_its_zone(zone):
    now = dt.datetime.now(dt.UTC)
    for hour in (0, 9, 23):
        when = options.parse_time(f"{hour:02}:30{zone}")
        assert (when.hour, when.minute) == (hour, 30)
        assert now < when <= now + dt.timedelta(days=1, seconds=9)


def test_the_example_of_a_time_is_one_in_the_future():
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        options.parse_time("noon")
    example = str(refused.value).partition("for example ")[2].partition(",")[0]
    assert options.parse_time(example) > dt.datetime.now(dt.UTC)


def test_the_actor_is_the_user_at_the_host_even_if_the_user_has_no_name(monkeypatch):
    monkeypatch.setenv("LOGNAME", "alice")
    user, _, host = name_user().partition("@")
    assert (user, host) == ("alice", os.uname().nodename)
    # A container's user without an entry in passwd cannot be had without being another user.
    monkeypatch.setattr("getpass.getuser", lambda: {}["uid not found"])
    assert name_user() == f"uid {os.getuid()}@{host}"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("on --until 2026-11-22T06:00", "or 2026-11-22T06:00:00Z for UTC"),
        ("on --for 30", "for example 30m"),
        ("on --for 5m --until 2026-11-22T06:00Z", "not allowed with argument"),
        ("on --retry-after 99999999999", "between 0 and 2147483647"),
        ("on --message 'a\x00b'", "message has a NUL"),
        ("on --reason '" + "a" * 10_001 + "'", "at most 10000"),
        ("on --mode half", "argument --mode: invalid choice: use full, read_only (see"),
        ("on --wait --presume-dead 0.5s", "1s or more"),
        ("on --timeout 3", "--timeout needs --wait: add it"),
        ("off --presume-dead 3m", "--presume-dead needs --wait: add it"),
        ("off --drain", "use --wait alone"),
        ("off --message x", "unrecognized arguments"),
        ("on --mess x", "unrecognized arguments: --mess ***. Did you mean --message? (see `maintenance on --help`)"),
        ("wait --drain", "maintenance refuses, and it is off: omit --drain"),
        ("wait --revision last", "argument --revision: not a revision: use the number"),
        ("forget", "--silent 1h"),
        ("forget abc --silent 1h", "either"),
        ("off --database ''", "--database is empty: use postgresql://"),
        ("off --database me:secret@h", "--database: the database URL has no scheme"),
        ("status --database mysql://h/d", "sqlite:///path"),
        ("status --database postgresql+psycopg://h/d", "postgresql://"),
        ("status --database memory://", "no server sees it"),
        ("", "COMMAND"),
        ("frobnicate", "argument COMMAND: invalid choice: use on, off, extend, edit, wait, status"),
        ("status --json=x", "argument --json: ignored explicit argument (see"),
        # No password is repeated, wherever it was written.
        ("--scope shop off", "(options go after the command; see"),
        ("stauts", "Did you mean status?"),
        ("--json demo", "`maintenance demo` has no option --json"),
        ("--database sqlite:///x.db sql", "`maintenance sql` has no option --database"),
        ("help stauts", "Did you mean status?"),
        (f"status postgresql://u:{PASSWORD}@h/d", "maintenance status: error: unrecognized arguments: *** (see"),
        (f"status --password {PASSWORD}", "unrecognized arguments: --password ***"),
        (
            f"status '--databse=postgresql://u:{PASSWORD} a@h/d'",
            "unrecognized arguments: --databse. Did you mean --database? (see",
        ),
        (f"status --database \"host=h password='a {PASSWORD}'\"", "postgresql://"),
        (f"status --database ' postgresql+psycopg://u:{PASSWORD}@h/d'", "postgresql://"),
        (f"'postgresql://u:a {PASSWORD}@h/d'", "invalid choice: use"),
        (f"status -p{PASSWORD}", "unrecognized arguments: *** (see"),
        (f"on --for postgresql:/u:{PASSWORD}@h", "not a duration"),
    ],
)
def test_wrong_usage_is_2_and_one_line_and_writes_nothing(url: str, cli: Cli, command: str, says: str):
    done = cli(*shlex.split(command))
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert says in done.err
    assert PASSWORD not in done.err
    assert operator(url).refresh().revision == 1


@pytest.mark.parametrize("details", ["--retry-after 99999999999", "--message 'a\x00b'"])
def test_wrong_details_create_no_file(cli: Cli, sqlite_url: str, tmp_path: Path, details: str):
    done = cli("on", "--database", sqlite_url, *shlex.split(details))
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []


# The database.


def test_without_a_database_it_says_what_to_set(cli: Cli):
    done = cli("status")
    assert done.status == 2
    assert "use --database URL, or set MAINTENANCE_DATABASE_URL or DATABASE_URL" in done.err


@pytest.mark.parametrize("variable", ["MAINTENANCE_DATABASE_URL", "DATABASE_URL"])
def test_a_wrong_database_is_reported_with_the_variable(cli: Cli, variable, monkeypatch):
    monkeypatch.setenv(variable, f"mysql://me:{PASSWORD}@h/d")
    done = cli("status")
    assert done.status == 2
    assert f"{variable}: the database URL begins with mysql://" in done.err
    assert PASSWORD not in done.err


def test_the_option_wins_over_the_variable_and_that_over_the_platform_s(cli: Cli, url, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "sqlite:////nowhere/at/all.db")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    open_store(other).migrate()
    assert cli("on", "--database", other).status == 0
    assert (operator(other).refresh().enabled, operator(url).refresh().enabled) == (True, False)
    assert cli("on").status == 0
    assert operator(url).refresh().enabled


# The help.


def test_the_help_lists_the_commands_and_the_exit_statuses(cli: Cli):
    done = cli("--help")
    assert done.status == 0
    for command in COMMANDS:
        assert f"\n    {command} " in done.out
    assert "exit status:" in done.out
    assert cli("--version").out == f"maintenance {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example_that_is_right(cli: Cli, command: str):
    done = cli(command, "--help")
    assert done.status == 0
    example = done.out.partition("example:\n")[2].partition("maintenance ")[2]
    words = shlex.split(re.split(r" [|>&#]|;", example)[0])
    assert options.parse_arguments(words).command == command


@pytest.mark.parametrize("words", ["--database {0} --json status", "--json status --database {0}"])
def test_the_options_of_every_command_work_before_it_too(cli: Cli, url: str, tmp_path, words: str):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    open_store(other).migrate()
    [flag] = cli(*words.format(other).split()).json
    assert flag["store"] == other


def test_help_is_a_command(cli: Cli):
    assert cli("help").out == cli("--help").out
    assert cli("help", "on").out == cli("on", "--help").out
