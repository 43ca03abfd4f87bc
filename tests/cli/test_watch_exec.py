"""``maintenance watch --exec``: real commands, for real changes."""

import datetime as dt
import json
import os
import re
import shlex
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from maintenance import Snapshot
from maintenance.base.runtime import is_gone
from maintenance.base.secret import hash_token
from maintenance.cli import hook
from maintenance.cli.hook import Hook, build_environment
from tests.support.command import Acting, Cli, operator, read_until, start
from tests.support.waiting import eventually

TOKEN = "a-token-" * 5

RECORD = """
import json, os, pathlib, sys
given = {name: value for name, value in os.environ.items() if name.startswith("MAINTENANCE_FLAG_")}
with open(sys.argv[1], "a") as file:
    print(json.dumps([given, json.loads(sys.stdin.read())]), file=file)
print("noise")
"""


def python(code: str, *arguments: object) -> str:
    return shlex.join([sys.executable, "-c", code, *map(str, arguments)])


def recorded(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_command_gets_each_change_after_the_first_reading_and_no_secret(each_url: str, tmp_path: Path):
    record, until = tmp_path / "record", dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
    with closing(operator(each_url)) as state:
        state.set(True, scope="blog")
        with start("watch", "--json", "--exec", python(RECORD, record)) as watching:
            read_until(watching, '"scope": "blog"')
            state.set(
                True, scope="shop", message="Zurück\nam Mittag; $(reboot)", until=until, secret=TOKEN,
                mode="read_only", actor="alice", reason="why",
            )  # fmt: skip
            flag = state.fleet(scope="shop").reading
            eventually(lambda: len(recorded(record)) == 1)
            state.set(False, scope="shop")
            [first, second] = eventually(lambda: len(found := recorded(record)) == 2 and found)
            watching.send_signal(signal.SIGINT)
            out, err = watching.communicate(timeout=10)
    assert flag.last == int(first[0]["MAINTENANCE_FLAG_REVISION"])
    assert first[0].items() >= {
        "MAINTENANCE_FLAG_ENABLED": "true",
        "MAINTENANCE_FLAG_SCOPE": "shop",
        "MAINTENANCE_FLAG_MODE": "read_only",
        "MAINTENANCE_FLAG_MESSAGE": "Zurück\nam Mittag; $(reboot)",
        "MAINTENANCE_FLAG_UNTIL": "2099-01-01T00:00:00+00:00",
        "MAINTENANCE_FLAG_STARTS": "",
        "MAINTENANCE_FLAG_ACTOR": "alice",
        "MAINTENANCE_FLAG_REASON": "why",
    }.items()  # fmt: skip
    assert (first[1]["event"], first[1]["secret"], first[1]["scope"]) == ("flag", True, "shop")
    assert second[0]["MAINTENANCE_FLAG_ENABLED"] == "false"
    assert [json.loads(line)["enabled"] for line in out.splitlines()] == [True, False]
    assert (watching.returncode, err) == (0, "noise\nnoise\n")
    assert hash_token(TOKEN) not in record.read_text()
    assert TOKEN not in record.read_text()


def test_the_environment_holds_every_detail_but_the_secret():
    shown = {name.removeprefix(hook.PREFIX).lower() for name in build_environment(Snapshot(enabled=True))}
    unshown = {"messages", "secret", "source", "read_at", "problems"}
    assert shown == set(Snapshot.__dataclass_fields__) - unshown


def test_a_slow_command_loses_no_change(url: str, tmp_path: Path):
    record, go_on = tmp_path / "record", tmp_path / "go on"
    record.touch()
    wait = f"until [ -e '{go_on}' ]; do sleep 0.02; done; echo $MAINTENANCE_FLAG_SCOPE >> '{record}'"
    with closing(operator(url)) as state, start("watch", "--exec", shlex.join(["sh", "-c", wait])) as watching:
        read_until(watching, "maintenance is OFF")
        state.set(True, scope="first")
        read_until(watching, "maintenance for first is ON")  # its command runs now, and hangs
        for scope in ("second", "third", "fourth"):
            state.set(True, scope=scope)
        go_on.touch()
        names = eventually(lambda: len(found := record.read_text().split()) == 4 and found)
        assert (names[0], sorted(names[1:])) == ("first", ["fourth", "second", "third"])


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("", None),
        ("import sys; sys.exit(7)", "exit status 7"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9 has ended it"),
    ],
)
def test_a_command_that_fails_is_reported_and_the_watch_goes_on(url: str, cli: Cli, code: str, problem: str | None):
    with closing(operator(url)) as state:
        output = Acting({
            "maintenance is OFF": lambda: state.set(True, message="one"),
            "message: one": lambda: state.set(True, message="two"),
            "message: two": lambda: signal.raise_signal(signal.SIGINT),
        })  # fmt: skip
        done = cli("watch", "--exec", python(code), output=output)
    assert done.status == 0
    failed = f"warning: --exec: {sys.executable} failed for revision 2: {problem}\n"
    assert done.err == (failed if problem else "")


def test_a_command_that_has_gone_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    command = tmp_path / "hook"
    command.touch(0o755)
    found = Hook([str(command)])
    command.unlink()
    found.run(Snapshot(enabled=True, revision=3), {})
    assert f"{command} failed for revision 3: [Errno 2] No such file or directory" in capfd.readouterr().err


@pytest.mark.parametrize("begin", ["sleep 60 &", "trap '' TERM; sleep 60 &", "(trap '' TERM; exec sleep 60) &"])
def test_a_command_that_hangs_is_ended_with_what_it_has_started(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, begin: str
):
    monkeypatch.setattr(hook, "GRACE", 0.2)
    script = f"{begin} echo $! > '{tmp_path}/pid'; wait; sleep 60"
    Hook(["sh", "-c", script], limit=1.0).run(Snapshot(enabled=True), {})
    assert "it took longer than 1 s and was ended" in capfd.readouterr().err
    eventually(lambda: has_ended(int((tmp_path / "pid").read_text())))


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits for somebody to ask for its exit status."""
    return is_gone(pid) or ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_a_command_of_another_user_holds_up_no_later_change(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def forbid(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(hook, "GRACE", 0.2)
    monkeypatch.setattr(os, "killpg", forbid)
    found = Hook(["sleep", "60"], limit=0.1)
    with pytest.warns(ResourceWarning, match="still running") as warned:
        found.run(Snapshot(enabled=True), {})
    assert "took longer than 0.1 s and cannot be ended, because it belongs to another user" in capfd.readouterr().err
    pid = int(re.findall(r"subprocess (\d+)", str(warned[0].message))[0])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_the_status_is_known_even_if_sigchld_is_ignored(capfd: pytest.CaptureFixture[str]):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        Hook(["sh", "-c", "exit 3"]).run(Snapshot(enabled=True), {})
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert "exit status 3" in capfd.readouterr().err


def test_without_process_groups_the_command_alone_is_ended(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(os, "killpg")
    Hook(["sleep", "60"], limit=0.1).run(Snapshot(enabled=True), {})
    assert "was ended" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_watch_and_its_command(url: str, tmp_path: Path, number: signal.Signals):
    script = f"echo $$ > '{tmp_path}/new'; mv '{tmp_path}/new' '{tmp_path}/pid'; sleep 60"
    with closing(operator(url)) as state, start("watch", "--exec", shlex.join(["sh", "-c", script])) as watching:
        read_until(watching, "maintenance is OFF")
        state.set(True)
        eventually((tmp_path / "pid").exists)
        watching.send_signal(number)
        assert watching.wait(10) == 0
        assert has_ended(int((tmp_path / "pid").read_text()))


def test_ctrl_c_during_the_command_ends_both(url: str, cli: Cli, tmp_path: Path):
    # It has read its event, so it has begun.
    script = f"read -r event; echo $$ > '{tmp_path}/pid'; kill -INT $PPID; sleep 60"
    with closing(operator(url)) as state:
        output = Acting({"maintenance is OFF": lambda: state.set(True)})
        assert cli("watch", "--exec", shlex.join(["sh", "-c", script]), output=output).status == 0
    assert has_ended(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("command", "error"),
    [("./nowhere --x", "./nowhere: no such command"), ("'", "not a command"), (" ", "not a command")],
)
def test_a_wrong_command_is_refused_before_the_first_change(cli: Cli, url: str, command: str, error: str):
    done = cli("watch", "--exec", command)
    assert (done.status, done.out) == (2, "")
    assert error in done.err
