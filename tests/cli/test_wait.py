"""``maintenance wait``, ``on --wait`` and ``off --wait``: when it counts as proven, and what the operator reads."""

import os
import re
import shlex
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from maintenance.stores import open_store
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.command import Acting, Cli, Done, change, fleet_of, instance, operator, read_until, register, start


def test_a_fleet_that_follows_is_proven(each_url: str, cli: Cli):
    with fleet_of(each_url, 3):
        on, off = cli("on", "--wait"), cli("off", "--wait")
    assert (on.status, on.err, off.status) == (0, "", 0)
    assert "waiting for every process; Ctrl-C stops waiting and leaves maintenance ON" in on.lines
    assert sum("  confirmed      " in line and f" pid {os.getpid()} " in line for line in on.lines) == 3
    # These processes have no middleware, so nothing counts their requests.
    assert re.fullmatch(r"proven after 0\.\d+ s: 3 confirmed; 0 requests in flight when last reported", on.lines[-1])
    assert off.lines[-1].endswith(" s: 3 confirmed")


@pytest.mark.parametrize("command", ["on --wait --drain", "off --wait", "wait", "forget aaaa"])
def test_a_command_uses_one_connection(each_url: str, cli: Cli, monkeypatch, command: str):
    register(store := open_store(each_url), instance(id="a" * 32))
    connect, connected = type(store).connect, []
    monkeypatch.setattr(type(store), "connect", lambda *args, **more: (connected.append(1), connect(*args, **more))[1])
    cli(*command.split(), *(["--timeout", "0.2"] if "wait" in command else []))
    assert len(connected) == 1


def test_wait_proves_the_flag_without_writing_it(each_url: str, cli: Cli):
    with fleet_of(each_url, 2):
        before = operator(each_url).set(True, message="Back at noon.", mode="read_only")
        assert cli("wait", "--drain").status == 0
        done = cli("wait", "--expect", "2")
        assert (done.status, done.lines[0][:17]) == (0, "maintenance is ON")
        assert done.lines[-1].endswith(" s: 2 confirmed; 0 requests in flight when last reported")
        last = cli("wait", "--json").json[-1]
        assert (last["event"], last["proven"], last["revision"]) == ("result", True, before.revision)
        assert replace(operator(each_url).refresh(), read_at=0.0) == replace(before, read_at=0.0)
        operator(each_url).set(False)
        assert cli("wait").status == 0


def test_one_that_is_silent_is_named_and_it_ends_with_4(each_url: str, cli: Cli):
    busy = instance(host="web-7", pid=77, revision=1, in_flight=2, oldest="POST /pay", oldest_age=3.0)
    register(open_store(each_url), busy, other := instance(host="web-8"))
    done = cli("on", "--wait", "--timeout", "0.3")
    revision = operator(each_url).refresh().revision
    assert done.status == 4
    *_, one, two, heading, _, _, _ = done.lines
    assert re.fullmatch(
        r"  web-7 pid 77 \(gunicorn, id \w{8}\): .+; last seen 0\.\d+ s ago with revision 1, 2 requests in flight "
        r"\(oldest: POST /pay, running for 3\.\d s if it has not ended\)",
        one,
    )
    assert two.startswith(f"  web-8 pid 4242 (gunicorn, id {other.id[:8]}): ")
    assert " ago with no revision yet, requests in flight unknown" in two
    assert [heading, *done.lines[-3:]] == [
        "Next steps:",
        f"  1. Restart web-7 pid 77. If you are sure that it is dead, run: maintenance forget {busy.id[:8]}",
        f"  2. Restart web-8 pid 4242. If you are sure that it is dead, run: maintenance forget {other.id[:8]}",
        f"  3. Check again: maintenance wait --revision {revision} --timeout 0.3",
    ]
    assert re.fullmatch(
        r"maintenance: NOT PROVEN after 0\.\d+ s: 2 not accounted for; 2 requests in flight when last reported "
        rf"\(unknown for 1 of 2\); --drain waits for them; maintenance stays ON \(revision {revision}\)\n",
        done.err,
    )
    assert "proven" not in done.out, "the verdict is printed once"
    assert operator(each_url).refresh().enabled


def test_each_way_to_be_accounted_for_is_shown_and_counted(url: str, cli: Cli):
    dead = subprocess.Popen(["true"])
    dead.wait()
    with fleet_of(url, 1) as [state]:
        [alive] = state.fleet().instances
        register(
            state.store,
            instance(host="blocks", when_stale="block", ttl=0.2, revision=1),
            instance(host=alive.host, boot=alive.boot, pid=dead.pid),
            instance(host="cut-off", ttl=0.2),
        )
        change(url, "UPDATE maintenance_instances SET seen_at = seen_at - 900 WHERE host = 'cut-off'")
        done = cli("on", "--wait", "--presume-dead", "10m")
        left = {one.host for one in operator(url).fleet().instances}
    for verdict, why in (
        ("confirmed", "has acknowledged the flag"),
        ("waiting", "lease"),
        ("fenced", "its lease is over, so it refuses requests"),
        ("gone", "the process on this host has ended; its row is removed"),
        ("presumed dead", "silent for longer than --presume-dead"),
    ):
        assert any(line[11:].startswith(f"{verdict:<13}  ") and why in line for line in done.lines), verdict
    assert ": 1 confirmed, 1 gone, 1 presumed dead, 1 fenced by their lease; 0 requests" in done.lines[-1]
    assert (done.status, done.err) == (0, "")
    assert left == {alive.host, "blocks", "cut-off"}


def test_an_empty_fleet_is_proven_with_a_warning(each_url: str, cli: Cli):
    done = cli("on", "--wait", "--presume-dead", "60s")
    assert done.status == 0
    assert re.fullmatch(r"proven after 0\.\d+ s: no process is registered", done.lines[-1])
    assert "warning: A healthy process may go 60 s plus its TTL without reporting." in done.err
    assert "warning: No running process is registered in this database, so there was nothing to wait for." in done.err


def test_fewer_than_expected_are_not_proven(url: str, cli: Cli):
    with fleet_of(url, 1):
        done = cli("on", "--wait", "--expect", "2", "--timeout", "0.5")
        assert done.status == 4
        assert "1 of 2" in done.out
        assert re.search(r"NOT PROVEN after .* s: 1 confirmed; 1 of 2 .*; maintenance stays ON", done.err)
        assert done.lines[-1].startswith("  1. Check again: maintenance wait --revision 2 --timeout 0.5 --expect 2")
        with fleet_of(url, 1):
            assert cli("on", "--wait", "--expect", "2").status == 0


def test_a_drain_waits_for_running_requests_and_names_the_oldest(url: str, cli: Cli):
    inside, leave = threading.Event(), threading.Event()

    def slow(environ, start_response):
        inside.set()
        leave.wait(30)
        start_response("200 OK", [])
        return [b""]

    with fleet_of(url, 1) as [state]:
        app = MaintenanceMiddleware(slow, state)
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/report\x1b[2J", "SCRIPT_NAME": ""}
        running = threading.Thread(target=lambda: app(environ, lambda *_: None).close())
        running.start()
        inside.wait(10)
        try:
            done = cli("on", "--wait", "--timeout", "10")
            assert done.status == 0
            assert done.lines[-1].endswith("1 request in flight when last reported; --drain waits for them")
            done = cli("on", "--message", "now", "--drain", "--timeout", "1")
            assert done.status == 4
            [laggard] = [line for line in done.lines if line.startswith(f"  {os.uname().nodename} pid ")]
            assert "GET /report\\x1b[2J" in laggard
            assert re.search(r"\d s; last seen \d\.\d+ s ago$", laggard), "what is in flight is shown once"
            assert "\x1b" not in done.out + done.err
        finally:
            leave.set()
            running.join()
        assert cli("on", "--drain").lines[-1].endswith("1 confirmed; 0 requests in flight when last reported")


def test_a_flip_by_another_operator_ends_the_wait_without_a_claim_about_the_flag(each_url: str, cli: Cli):
    register(open_store(each_url), instance())
    output = Acting({"  waiting  ": lambda: operator(each_url).set(False)})
    done = cli("on", "--wait", output=output)
    assert done.status == 4
    assert re.fullmatch(
        r"maintenance: NOT PROVEN after \S+ s: .*changed since revision \d+: .*; run `maintenance status` for more\n",
        done.err,
    )
    assert "stays" not in done.err
    assert "not accounted for" not in done.err, "no process has to follow this flag any more"
    assert "Next steps" not in done.out


def test_a_wait_for_one_revision_proves_no_other(url: str, cli: Cli):
    with fleet_of(url, 1):
        revision = cli("on", "--wait", "--json").json[-1]["revision"]
        assert cli("wait", "--revision", str(revision)).status == 0
        assert cli("off", "--wait", "--actor", "Ann\x1b]0;y\x07\nproven").status == 0
        assert cli("wait").status == 0, "which proves that it is off"
        for more in ([], ["--drain"]):
            done = cli("wait", "--revision", str(revision), *more)
            assert done.status == 4
            assert done.out.startswith(f"maintenance is OFF in {url} (revision {revision + 1})\n")
            assert f"has changed since revision {revision}: " in done.err
            assert "Ann\\x1b]0;y\\x07\\nproven" in done.err, "which no terminal obeys"
        done = cli("wait", "--revision", str(revision), "--json")
    assert done.status == 4
    assert (done.json[-1]["event"], done.json[-1]["proven"], done.json[-1]["revision"]) == ("result", False, revision)


def test_a_process_that_leaves_during_the_wait_is_shown(url: str, cli: Cli):
    register(open_store(url), one := instance())
    done = cli("on", "--wait", output=Acting({"  waiting  ": lambda: operator(url).forget(one.id)}))
    assert done.status == 0
    assert "  left           web-1 pid 4242" in done.out
    assert done.lines[-1].endswith(": 1 left; 0 requests in flight when last reported")


def test_a_database_that_goes_away_during_the_wait_is_the_verdict(url: str, cli: Cli):
    register(open_store(url), instance())
    path = Path(url.removeprefix("sqlite://"))
    done = cli("on", "--wait", "--timeout", "0.5", output=Acting({
        "  waiting  ": lambda: path.rename(path.with_suffix(".away")),
    }))  # fmt: skip
    assert done.status == 4
    for output in (done.out, done.err):
        assert path.name in output
        assert "missing" in output


# The command that checks again.


def test_the_next_commands_do_the_same_as_they_are_printed(url: str, cli: Cli, monkeypatch):
    monkeypatch.delenv("MAINTENANCE_DATABASE_URL")
    options = ["--drain", "--expect", "3", "--timeout", "0.2", "--presume-dead", "1.5m", "--database", url]
    with fleet_of(url, 1) as [state]:
        register(state.store, stray := instance(websockets=1))
        done = cli("on", "--message", "It's late", *options)
        steps = [line.rpartition(": maintenance ")[2] for line in done.lines if ": maintenance " in line]
        forget, wait = map(shlex.split, steps)
        assert (done.status, forget[:2], wait[0]) == (4, ["forget", stray.id[:8]], "wait")
        assert cli(*forget).status == 0
        again = cli(*wait)
        assert again.status == 4
        assert steps[1] in again.out
        with fleet_of(url, 2):
            assert cli(*wait).status == 0


# For machines.


def test_json_is_one_object_a_line_and_the_last_is_the_result(each_url: str):
    with fleet_of(each_url, 2), start("on", "--wait", "--json", "--expect", "2") as waiting:
        out, err = waiting.communicate(timeout=30)
    first, *events, result = Done(waiting.returncode, out, err).json
    assert (waiting.returncode, err) == (0, "")
    assert (first["event"], first["enabled"]) == ("flag", True)
    assert len({one["id"] for one in events if one["standing"] == "confirmed"}) == 2
    assert (result["event"], result["proven"], result["confirmed"], result["laggards"]) == ("result", True, 2, [])
    assert result["revision"] == first["revision"]
    assert 0 < result["elapsed"] < 30


def test_json_names_the_laggards_and_the_problem(url: str, cli: Cli):
    register(open_store(url), instance(pid=77))
    done = cli("on", "--wait", "--expect", "2", "--timeout", "0.2", "--json")
    assert done.status == 4
    _, problem, _, result = done.json
    assert [one["event"] for one in done.json] == ["flag", "problem", "instance", "result"]
    [laggard] = result["laggards"]
    assert (laggard["host"], laggard["pid"], laggard["standing"]) == ("web-1", 77, "waiting")
    assert (result["waiting"], result["presumed_dead"]) == (1, 0)
    assert result["problem"] == problem["problem"]
    assert problem["problem"].startswith("1 of 2")
    assert "maintenance stays ON" in done.err


# Ctrl-C.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_ctrl_c_ends_the_wait_and_leaves_the_flag(each_url: str, number):
    register(open_store(each_url), instance(pid=77))
    with start("on", "--wait", "--timeout", "60") as waiting:
        read_until(waiting, "  waiting  ")
        waiting.send_signal(number)
        out, err = waiting.communicate(timeout=10)
    assert waiting.returncode == 130
    assert re.fullmatch(
        r"maintenance: interrupted after .+ s: 1 not accounted for; .+; maintenance stays ON \(revision \d+\)\n", err
    )
    assert "web-1 pid 77" in out
    assert "Next steps:" in out
    assert operator(each_url).refresh().enabled


def test_ctrl_c_in_json_still_ends_with_a_result(url: str, cli: Cli):
    register(open_store(url), instance())
    done = cli("on", "--wait", "--json", output=Acting({'"waiting"': lambda: signal.raise_signal(signal.SIGINT)}))
    assert done.status == 130
    result = done.json[-1]
    assert (result["event"], result["proven"], result["interrupted"]) == ("result", False, True)
    assert "stays ON" in done.err


def test_ctrl_c_before_the_fleet_was_read(url: str, cli: Cli, monkeypatch):
    monkeypatch.setattr("maintenance.process.state.MaintenanceState.prove", interrupt)
    done = cli("on", "--wait")
    assert done.status == 130
    assert "the fleet was not read yet; maintenance stays ON" in done.err


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
