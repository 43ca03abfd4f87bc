"""How a command runs and ends: its streams, signals and exit status."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from maintenance import __version__
from maintenance.cli import main
from tests.support.command import COMMAND, Cli, operator, run_as_main
from tests.support.waiting import eventually

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)


def test_it_runs_as_a_module_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["maintenance", "sql", "--json"])
    with pytest.raises(SystemExit) as end:
        run_as_main("maintenance.__main__")
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["files"]
    run_as_main("maintenance.__main__", as_name="maintenance.__main__")  # as an import, it runs nothing


def test_the_script_is_installed():
    script = Path(sys.executable).with_name("maintenance")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"maintenance {__version__}\n"


def test_a_reader_that_goes_away_is_141_and_no_error():
    done = shell(f"{' '.join(COMMAND)} sql --json | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (141, "")


def test_a_reader_that_goes_away_in_this_process(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main(["sql"]) == 141
        monkeypatch.undo()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_does_its_work_with_closed_streams(url: str, closed):
    done = shell(f"{' '.join(COMMAND)} on --wait --json {closed}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] in ([], ["flag", "result"])
    assert operator(url).refresh().enabled


@FULL
def test_an_output_that_cannot_be_written_is_1_and_the_flip_is_kept(url: str):
    done = shell(f"{' '.join(COMMAND)} on >/dev/full")
    kept = "changes made before this error are kept; run `maintenance status` to check"
    assert (done.returncode, done.stderr) == (1, f"maintenance: [Errno 28] No space left on device: {kept}\n")
    assert operator(url).refresh().enabled


@FULL
def test_an_output_that_cannot_be_written_in_this_process(monkeypatch, capsys):
    with open("/dev/full", "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main(["sql"]) == 1
        monkeypatch.undo()
    assert "maintenance: [Errno 28] No space left on device" in capsys.readouterr().err


def test_an_interrupt_before_a_command_has_begun_is_one_line(cli: Cli, monkeypatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("maintenance.cli.options.build_parser", interrupt)
    done = cli("status")
    assert (done.status, done.err) == (130, "maintenance: interrupted\n")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("on", "interrupted during the write: run `maintenance status` to see whether the flag was changed"),
        ("status", "maintenance: interrupted"),
    ],
)
def test_ctrl_c_while_the_database_is_busy(migrated_url: str, cli: Cli, command, says):
    with psycopg.connect(migrated_url) as busy:
        busy.execute("LOCK TABLE public.platform_settings IN ACCESS EXCLUSIVE MODE")
        watcher = threading.Thread(target=_interrupt_once_it_waits, args=(migrated_url,))
        watcher.start()
        done = cli(command, "--database", migrated_url)
        watcher.join()
    assert done.status == 130
    assert says in done.err
    assert not operator(migrated_url).refresh().enabled


def _interrupt_once_it_waits(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as looking:
        waiting = (
            "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
            "WHERE NOT granted AND datname = current_database()"
        )
        eventually(lambda: looking.execute(waiting).fetchone() != (0,))
    os.kill(os.getpid(), 2)
