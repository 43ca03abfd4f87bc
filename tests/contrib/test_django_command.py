"""``manage.py maintenance``: the command line over the database of the settings, with its exit status."""

import io
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from maintenance.contrib.django.management.commands.maintenance import Command
from maintenance.stores import open_store
from tests.contrib.conftest import Project, describe
from tests.support.command import operator
from tests.support.servers import ROOT

SETTINGS = "--settings=tests.apps.django_site_settings"


def manage(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DJANGO_DATABASES": json.dumps({"default": describe(url)}), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "django", *arguments, SETTINGS]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_it_flips_the_flag_of_the_settings_and_keeps_exit_statuses(shared_url: str) -> None:
    done = manage(shared_url, "maintenance", "on", "--wait", "--message", "Back at noon.", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["message"] == "Back at noon."
    assert operator(shared_url).refresh().enabled
    assert manage(shared_url, "maintenance", "status").returncode == 3
    missing = manage(shared_url, "maintenance", "wait", "--expect", "2", "--timeout", "0")
    assert missing.returncode == 4
    wrong = manage(shared_url, "maintenance", "on", "--wat")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "unrecognized arguments: --wat" in wrong.stderr


def test_manage_py_shows_its_help(sqlite_url: str) -> None:
    for arguments in (("help", "maintenance"), ("maintenance", "--help")):
        done = manage(sqlite_url, *arguments)
        assert done.returncode == 0, done.stderr
        assert "show who changed which flag" in done.stdout


@pytest.fixture
def url(sqlite_url: str, project: Project) -> str:
    open_store(sqlite_url).migrate()
    project({"default": describe(sqlite_url)})
    return sqlite_url


def run(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as end:
        Command().run_from_argv(["manage.py", "maintenance", *arguments])
    return end.value.code


def test_the_options_of_manage_py_are_not_passed_on(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--pythonpath", "x", "status", "--settings=x", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["enabled"] is False
    assert run("status", "--", "--settings") == 2


def test_the_help_in_this_process(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    Command().print_help("manage.py", "maintenance")
    assert "show who changed which flag" in capsys.readouterr().out


def test_another_database_may_be_named(url: str, tmp_path: Any) -> None:
    other = f"sqlite:///{tmp_path}/other.db"
    assert run("migrate", "--database", other) == 0
    assert run("on", "--database", other) == 0
    assert (operator(other).refresh().enabled, operator(url).refresh().enabled) == (True, False)


def test_call_command_returns_the_output_and_raises_the_status(url: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    call_command("maintenance", "on", "--json", stdout=out, stderr=err)
    assert json.loads(out.getvalue().splitlines()[0])["enabled"]
    for arguments, status in ((("status",), 3), (("on", "--wat"), 2)):
        with pytest.raises(CommandError, match=f"status {status}") as raised:
            call_command("maintenance", *arguments, stdout=out, stderr=err)
        assert raised.value.returncode == status
    assert "--wat" in err.getvalue()


def test_what_needs_no_database_runs_with_wrong_settings(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project({})
    assert run("sql") == 0
    assert run("status") == 2
    assert "DATABASES['default'] is neither PostgreSQL nor SQLite" in capsys.readouterr().err
