"""``maintenance run``: a command as a job, over each kind of store."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import COMMAND, Cli, change, operator, start
from tests.support.waiting import eventually

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]

COUNTS = """
import signal, sys, threading, time
seen = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: seen.append(number))
{begin}
print("ready", flush=True)
end = time.monotonic() + 10
while not seen and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.2)
sys.exit(sum(seen))
"""
"""Ends with the sum of the signals that it has got."""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(("code", "status"), [("", 0), ("import sys; sys.exit(7)", 7)])
def test_it_passes_the_exit_status_on_and_leaves_no_row(cli: Cli, each_url: str, code: str, status: int):
    assert cli("run", "report", "--", *python(code)).status == status
    assert operator(each_url).fleet().instances == ()


def test_the_command_gets_its_arguments_as_they_are(cli: Cli, url: str, tmp_path: Path):
    code = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(str(sys.argv[2:]))"
    done = cli("--database", url, "run", "report", "--", *python(code), str(tmp_path / "got"), "--skip", "--", "run")
    assert done.status == 0
    assert (tmp_path / "got").read_text() == "['--skip', '--', 'run']"


@pytest.mark.parametrize("arguments", [["on", "--", "run"], ["log", "--scope", "run", "--", "x"]])
def test_another_command_takes_no_command(cli: Cli, url: str, arguments: list[str]):
    assert cli(*arguments).status == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, *SIGNALS])
def test_a_command_that_a_signal_ends_is_128_and_its_number(cli: Cli, url: str, number: signal.Signals):
    done = cli("run", "report", "--", "sh", "-c", f"kill -{number.value} $$")
    assert done.status == 128 + number


@pytest.mark.parametrize(
    ("command", "status", "error"),
    [("./nowhere", 127, "./nowhere: No such file or directory"), ("/", 126, "/: Permission denied")],
)
def test_a_command_that_cannot_run_is_named(cli: Cli, url: str, command: str, status: int, error: str):
    done = cli("run", "report", "--", command)
    assert (done.status, done.err) == (status, f"maintenance: {error}: check the command after `--`\n")


@pytest.mark.parametrize("options", [["--skip"], ["--timeout", "0"], ["--timeout", "0.1"]])
def test_while_it_is_on_a_command_that_does_not_wait_ends_with_75(cli: Cli, each_url: str, tmp_path: Path, options):
    operator(each_url).set(True)
    done = cli("run", *options, "report", "--", "touch", str(tmp_path / "ran"))
    assert done.status == 75
    assert done.err == "maintenance: job 'report' did not run: maintenance is on: run it again when it is off\n"
    assert not (tmp_path / "ran").exists()
    assert operator(each_url).fleet().instances == ()


@pytest.mark.parametrize(("scope", "status"), [("shop", 75), ("blog", 0)])
def test_it_follows_the_flag_of_its_scope(cli: Cli, url: str, scope: str, status: int):
    operator(url).set(True, scope="shop")
    assert cli("run", "--skip", "--scope", scope, "report", "--", *python("")).status == status


def test_it_waits_until_the_flag_is_off_and_a_drain_waits_for_it(each_url: str, tmp_path: Path):
    boss, go_on = operator(each_url), tmp_path / "go on"
    boss.set(True)
    wait = f"touch '{tmp_path}/began'; until [ -e '{go_on}' ]; do sleep 0.05; done"
    with start("run", "nightly-report", "--", "sh", "-c", wait) as process:
        eventually(lambda: boss.fleet().instances)
        assert not (tmp_path / "began").exists()
        boss.set(False)
        eventually((tmp_path / "began").exists)
        on = boss.set(True, drain=True)
        [(_, why)] = boss.prove(on, drain=True, timeout=1.5).laggards
        assert "job nightly-report" in why
        go_on.touch()
        assert process.wait(10) == 0
        assert boss.prove(on, drain=True, timeout=10.0)


def test_a_job_that_is_not_registered_is_named(cli: Cli, url: str):
    change(url, "DROP TABLE maintenance_instances")
    done = cli("run", "report", "--", *python(""))
    assert done.status == 0
    assert "warning: --drain does not wait for this job, because it is not registered: " in done.err


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_reaches_the_command(url: str, number: signal.Signals):
    with start("run", "report", "--", *python(COUNTS.format(begin=""))) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(10) == number


def test_a_signal_during_the_wait_ends_it(url: str):
    operator(url).set(True)
    with start("run", "report", "--", *python("")) as process:
        eventually(lambda: operator(url).fleet().instances)
        process.terminate()
        assert process.wait(10) == 130
    assert operator(url).fleet().instances == ()


@pytest.mark.parametrize(("foreground", "number", "status"), [
    (False, signal.SIGINT, signal.SIGINT), (True, signal.SIGTERM, signal.SIGTERM), (True, signal.SIGINT, 0),
])  # fmt: skip
def test_ctrl_c_reaches_the_command_once(
    cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch, *, foreground: bool, number: int, status: int
):
    """A terminal sends it to the command itself."""
    open_file = os.open

    def open_terminal(path: str, flags: int, *more: int, **options: int) -> int:
        if path != "/dev/tty":
            return open_file(path, flags, *more, **options)
        if not foreground:
            raise OSError("there is no terminal")
        return open_file(os.devnull, flags)

    monkeypatch.setattr(os, "open", open_terminal)
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())
    begin = f"import os; os.kill(os.getppid(), {int(number)}); " + ("seen.append(0)" if not status else "")
    assert cli("run", "report", "--", *python(COUNTS.format(begin=begin))).status == status


@pytest.mark.parametrize("stdin", [None, os.devnull])
def test_at_a_terminal_ctrl_c_reaches_the_command_once(url: str, stdin: str | None):
    pid, terminal = pty.fork()
    if not pid:
        if stdin is not None:
            os.dup2(os.open(stdin, os.O_RDONLY), 0)
        os.execv(COMMAND[0], [*COMMAND, "run", "report", "--", *python(COUNTS.format(begin=""))])
    while b"ready" not in os.read(terminal, 1000):
        pass
    os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == signal.SIGINT
    os.close(terminal)


def test_a_signal_that_comes_before_the_command_has_started_reaches_it(
    cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch
):
    popen = subprocess.Popen

    def late(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", late)
    assert cli("run", "report", "--", "sleep", "20").status == 128 + signal.SIGTERM


def test_a_signal_that_may_not_be_passed_on_does_not_end_the_job(cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch):
    """As for `sudo`: a drain must wait until the command has ended."""

    def forbid(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(subprocess.Popen, "send_signal", forbid)
    code = f"import os, time; os.kill(os.getppid(), {int(signal.SIGTERM)}); time.sleep(0.5); os._exit(3)"
    done = cli("run", "report", "--", *python(code))
    assert done.status == 3
    assert "warning: SIGTERM is not passed on: the command belongs to another user" in done.err


def test_the_status_is_known_even_if_sigchld_is_ignored(cli: Cli, url: str):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert cli("run", "report", "--", *python("raise SystemExit(3)")).status == 3
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_signal_that_is_ignored_stays_so(cli: Cli, url: str):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        code = "import signal, sys; sys.exit(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
        assert cli("run", "report", "--", *python(code)).status == 1
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_without_the_flag_nothing_runs(cli: Cli, sqlite_url: str, tmp_path: Path):
    done = cli("run", "report", "--database", sqlite_url, "--", "touch", str(tmp_path / "ran"))
    assert done.status == 1
    assert "no such file" in done.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["run", "report"], "put the command after `--`"),
        (["run", "report", "./report"], "unrecognized arguments"),
        (["run", "report", "--"], "put the command after `--`"),
        (["run", "--skip", "--timeout", "5", "report", "--", "true"], "use either --skip or --timeout"),
        (["run", " ", "--", "true"], "name is ' '"),
        (["run", "--", "true"], "the following arguments are required: NAME"),
        (["--json", "run", "report", "--", "true"], "`maintenance run` has no option --json"),
    ],
)
def test_wrong_usage_is_2(cli: Cli, url: str, arguments: list[str], error: str):
    done = cli(*arguments)
    assert done.status == 2
    assert error in done.err
