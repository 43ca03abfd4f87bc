"""``on --wait`` and ``off --wait``: what the operator sees, and when it is called proven."""

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import connect

from maintenance import MaintenanceState, Proof
from maintenance.base.values import Fleet, Instance, Reading, Row, Snapshot
from maintenance.cli import display, main
from maintenance.cli import standings as standings_module
from maintenance.cli.display import Watch, table
from maintenance.cli.standings import MEANINGS, Standings, in_flight, result_json
from maintenance.cli.text import name
from maintenance.proof.judge import Question, judge
from maintenance.stores import open_store
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.command import COMMAND, Acting, instance, read_until, register, started
from tests.support.waiting import eventually


@pytest.fixture
def url(shared_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated store of each kind, named by the environment."""
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", shared_url)
    return shared_url


@pytest.fixture
def file_url(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated SQLite store, named by the environment."""
    open_store(sqlite_url).migrate()
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", sqlite_url)
    return sqlite_url


@contextmanager
def fleet(url: str, size: int) -> Iterator[list[MaintenanceState]]:
    """States that serve, each registered."""
    states = [MaintenanceState(url) for _ in range(size)]
    for state in states:
        state.start()
    try:
        eventually(lambda: _acknowledged(states))
        yield states
    finally:
        for state in states:
            state.close()


def _acknowledged(states: list[MaintenanceState]) -> bool:
    rows = {one.id: one.revision for one in states[0].fleet().instances}
    return all(rows.get(state.status().instance or "") for state in states)


def is_on(url: str) -> bool:
    return MaintenanceState(url, register=False).refresh().enabled


def test_a_fleet_that_follows_is_proven(url, capsys):
    with fleet(url, 3):
        assert main(["on", "--wait"]) == 0
        said = capsys.readouterr()
        assert main(["off", "--wait"]) == 0
    lines = said.out.splitlines()
    assert lines[2] == "waiting for every process; Ctrl-C ends the wait and leaves it ON"
    assert sum("  confirmed      " in line and f" pid {os.getpid()} " in line for line in lines) == 3
    assert lines[-1].startswith("proven after 0.")
    # This fleet has no middleware, so nothing tracks what is in flight.
    assert lines[-1].endswith(" s: 3 confirmed; 0 requests in flight when last reported")
    assert said.err == ""
    assert capsys.readouterr().out.splitlines()[-1].endswith(": 3 confirmed")


def test_the_flag_as_it_stands_is_proven_without_being_written(url, capsys):
    with fleet(url, 2):
        assert main(["on", "--message", "Back at noon.", "--mode", "read_only"]) == 0
        before = MaintenanceState(url, register=False).refresh()
        capsys.readouterr()
        assert main(["wait", "--drain"]) == 0
        assert main(["wait", "--expect", "2"]) == 0
        assert "maintenance is ON" in (said := capsys.readouterr().out)
        assert said.splitlines()[-1].endswith(" s: 2 confirmed; 0 requests in flight when last reported")
        assert main(["wait", "--json"]) == 0
        *_, last = map(json.loads, capsys.readouterr().out.splitlines())
        assert (last["event"], last["proven"], last["revision"]) == ("result", True, before.revision)
        after = MaintenanceState(url, register=False).refresh()
        assert replace(after, read_at=0.0) == replace(before, read_at=0.0)
        assert main(["off"]) == 0
        assert main(["wait"]) == 0


def test_one_that_is_waited_for_is_not_told_again_because_time_goes_by():
    """Or a log gets a line with each look."""
    busy = instance(revision=7, in_flight=1, oldest="GET /slow", oldest_age=1.0, silent_for=30.0)
    dead = instance(id="d" * 32, revision=6, silent_for=700.0)
    question = Question(revision=7, enabled=True, drain=True, presume_dead=600.0)

    def looked(*instances, elapsed):
        proof = judge(Fleet(Reading(Row(True, {}, 7)), instances, intact=True), question, elapsed=elapsed)
        return standings.update(proof)

    standings = Standings()
    assert len(looked(busy, dead, elapsed=1.0)) == 2
    later = [replace(it, silent_for=it.silent_for + 2.0) for it in (busy, dead)]
    assert looked(*later, elapsed=3.0) == []
    [told] = looked(replace(later[0], in_flight=2, silent_for=0.0), later[1], elapsed=3.5)
    assert told.instance.in_flight == 2


def test_a_drain_of_a_flag_that_is_off_waits_for_nothing_and_is_refused(file_url, capsys):
    assert main(["wait", "--drain"]) == 2
    assert "--drain waits for what is refused, and maintenance is off: leave it out" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_no_fleet(sqlite_url, capsys):
    for command in ("on", "wait"):
        assert main([command, "--wait" if command == "on" else "--expect=1", "--database", sqlite_url]) == 1
        assert "there is no such file" in capsys.readouterr().err
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()


def test_one_that_is_silent_is_named_and_it_ends_with_4(url, capsys):
    register(
        open_store(url),
        instance(host="web-7", pid=77, revision=1, in_flight=2, oldest="POST /pay", oldest_age=3.0),
        instance(host="web-8"),
    )
    assert main(["on", "--wait", "--timeout", "0.3"]) == 4
    said = capsys.readouterr()
    one, other, following = said.out.splitlines()[-3:]
    assert following.startswith(
        "one that hangs: restart it; once you know that one has ended: `maintenance forget ID`; "
    )
    assert "web-7 pid 77 (gunicorn, id " in one
    revision = MaintenanceState(url, register=False).refresh().revision
    assert following.endswith(f"; to ask again: maintenance wait --revision {revision} --timeout 0.3")
    assert f"has acknowledged revision 1, not revision {revision}; it serves when stale; last seen 0." in one
    assert re.search(r"revision 1, 2 requests in flight \(the oldest POST /pay for 3\.\d s, if it still runs\)", one)
    assert "web-8 pid 4242" in other
    assert "it had read nothing yet" in other
    assert "not proven after 0." in said.out
    assert "2 not accounted for; 2 requests in flight when last reported (1 of 2 did not say)" in said.out
    [verdict] = said.err.splitlines()
    assert verdict.startswith("maintenance: NOT PROVEN after 0.")
    assert verdict.endswith(": 2 processes not accounted for; maintenance stays ON")
    assert is_on(url)


def test_a_timeout_of_nothing_looks_once(file_url, capsys):
    register(open_store(file_url), instance())
    assert main(["off", "--wait", "--timeout", "0"]) == 4
    assert "maintenance stays OFF" in capsys.readouterr().err


def test_each_way_to_be_accounted_for_is_counted(file_url, capsys):
    store = open_store(file_url)
    here = MaintenanceState(store, register=False)
    dead = subprocess.Popen(["true"])
    dead.wait()
    with fleet(file_url, 1) as [state]:
        alive = state.fleet().instances[0]
        register(
            store,
            instance(host="blocks", when_stale="block", ttl=0.2, revision=1),
            instance(host=alive.host, boot=alive.boot, pid=dead.pid),
        )
        with sqlite3.connect(Path(file_url.removeprefix("sqlite://"))) as connection:
            register(store, old := instance(host="cut-off", ttl=0.2))
            connection.execute("UPDATE maintenance_instances SET seen_at = seen_at - 900 WHERE id = ?", (old.id,))
        connection.close()
        assert main(["on", "--wait", "--presume-dead", "10m"]) == 0
        left = {one.host for one in here.fleet().instances}
    said = capsys.readouterr()
    for word, why in (
        ("confirmed", "has acknowledged it"),
        ("waiting", "its lease has not run out"),
        ("fenced", "its lease has run out: it refuses by itself"),
        ("gone", "its process has ended on this host; its row is removed"),
        ("presumed dead", "taken for dead on your word"),
    ):
        assert any(line[11:].startswith(f"{word:<13}  ") and why in line for line in said.out.splitlines()), word
    last = said.out.splitlines()[-1]
    assert ": 1 confirmed, 1 fenced by their lease, 1 gone, 1 presumed dead on your word; 0 requests" in last
    assert said.err == ""
    assert left == {alive.host, "blocks", "cut-off"}


def test_a_presumption_that_would_bury_the_living_is_warned_of(file_url, capsys):
    assert main(["on", "--wait", "--presume-dead", "60s"]) == 0
    assert "warning: a process that lives may be silent for 60 s and its TTL" in capsys.readouterr().err


def test_nobody_is_proven_and_said_aloud(url, capsys):
    assert main(["on", "--wait"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("proven after 0.")
    assert "nobody is registered" in said.out
    assert "warning: no living process is registered in this database" in said.err


def test_fewer_than_expected_are_not_proven(file_url, capsys):
    with fleet(file_url, 1):
        assert main(["on", "--wait", "--expect", "2", "--timeout", "0.5"]) == 4
        said = capsys.readouterr()
        assert "1 of 2 expected instances are registered: each joins when it starts up" in said.out
        assert said.err.endswith(", or with its first request; maintenance stays ON\n")
        with fleet(file_url, 1):
            assert main(["on", "--wait", "--expect", "2"]) == 0


def test_an_obstacle_that_goes_away_is_told(file_url, capsys):
    output = Watch()
    output.show = display.lines
    for problem in (None, "a standby answered", "a standby answered", None):
        output(Proof(proven=False, revision=2, problem=problem))
    assert [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()] == [
        "a standby answered", "nothing else stands in the way any more",
    ]  # fmt: skip


def test_a_drain_waits_for_what_is_in_flight_and_names_it(file_url, capsys):
    inside, leave = threading.Event(), threading.Event()

    def slow(environ, start_response):
        inside.set()
        leave.wait(30)
        start_response("200 OK", [])
        return [b""]

    with fleet(file_url, 1) as [state]:
        app = MaintenanceMiddleware(slow, state)
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/report\x1b[2J", "SCRIPT_NAME": ""}
        asking = threading.Thread(target=lambda: app(environ, lambda *_: None).close())
        asking.start()
        inside.wait(10)
        try:
            assert main(["on", "--wait", "--timeout", "10"]) == 0
            assert "1 request in flight when last reported (--drain waits for them)" in capsys.readouterr().out
            assert main(["on", "--message", "now", "--drain", "--timeout", "1"]) == 4
            said = capsys.readouterr().out
            last = said.splitlines()[-2]
            assert "has 1 in flight, the oldest GET /report\\x1b[2J for " in last
            assert re.search(r"\d s; last seen \d\.\d+ s ago$", last), "what is in flight is said once"
            assert "\x1b" not in said
        finally:
            leave.set()
            asking.join()
        assert main(["on", "--drain"]) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith("1 confirmed; 0 requests in flight when last reported")


def test_a_flip_by_somebody_else_ends_the_wait_and_nothing_is_claimed_of_the_flag(url, monkeypatch, capsys):
    register(open_store(url), instance())
    output = Acting({"  waiting  ": lambda: MaintenanceState(url, register=False).set(False)})
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["on", "--wait"]) == 4
    said = capsys.readouterr()
    changed = r"the flag has changed since revision \d+: it is off at revision \d+; `maintenance status` tells more$"
    assert re.search(changed, said.err.strip())
    assert "stays" not in said.err
    assert "not accounted for" not in said.err, "nobody has to follow what is not the flag any more"
    assert "to ask again" not in said.out


def test_a_wait_for_one_revision_proves_no_other(file_url, capsys):
    with fleet(file_url, 1):
        assert main(["on", "--wait"]) == 0
        revision = capsys.readouterr().out.partition("(revision ")[2].partition(")")[0]
        assert main(["wait", "--revision", revision]) == 0
        assert main(["off", "--wait", "--actor", "Ann"]) == 0
        assert main(["wait"]) == 0, "which proves that it is off"
        capsys.readouterr()
        for more in ([], ["--drain"]):
            assert main(["wait", "--revision", revision, *more]) == 4
            said = capsys.readouterr()
            assert said.out.startswith(f"maintenance is OFF in {file_url} (revision {int(revision) + 1})\n")
            assert re.fullmatch(
                rf"maintenance: NOT PROVEN after [0-9.]+ s: the flag has changed since revision {revision}: "
                rf"it is off at revision {int(revision) + 1}, by Ann; `maintenance status` tells more\n",
                said.err,
            )
        assert main(["wait", "--revision", revision, "--json"]) == 4
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["event"], result["proven"], result["revision"]) == ("result", False, int(revision))


def test_what_somebody_else_wrote_is_not_obeyed_by_the_terminal(file_url, capsys):
    MaintenanceState(file_url, register=False).set(True, actor="x\x1b]0;y\x07\nproven")
    assert main(["wait", "--revision", "1"]) == 4
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert not re.search("^proven", said.out + said.err, re.MULTILINE)


def test_a_revision_is_a_number(file_url, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["wait", "--revision", "last"])
    assert "'last' is no revision: write the number" in capsys.readouterr().err


def test_a_fleet_that_cannot_be_read_is_not_called_empty(file_url, capsys):
    with contextlib.closing(sqlite3.connect(Path(file_url.removeprefix("sqlite://")))) as connection:
        connection.execute("DROP TABLE maintenance_instances")
    assert main(["on", "--wait", "--timeout", "0"]) == 4
    said = capsys.readouterr()
    assert "nobody" not in said.out
    assert "no such table: maintenance_instances: run `maintenance migrate" in said.out.splitlines()[-2]


def test_open_websockets_are_counted(file_url, capsys):
    register(open_store(file_url), instance(websockets=3, in_flight=0))
    assert main(["on", "--wait", "--timeout", "0"]) == 4
    assert "3 WebSockets open" in capsys.readouterr().out


def test_who_leaves_meanwhile_is_told(file_url, monkeypatch):
    register(open_store(file_url), one := instance())
    output = Acting({"  waiting  ": lambda: MaintenanceState(file_url, register=False).forget(one.id)})
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["on", "--wait"]) == 0
    assert "  left           web-1 pid 4242" in output.getvalue()
    assert ": 1 left" in output.getvalue().splitlines()[-1]


def test_who_is_gone_stays_gone_and_who_comes_back_is_told_again():
    one, standings = instance(), Standings()
    proof = Proof(proven=False, revision=2)
    found = ({"gone": (one,)}, {"gone": (one,)}, {"confirmed": (one,)}, {}, {})
    seen = [[it.word for it in standings.update(replace(proof, **how))] for how in found]
    assert seen == [["gone"], [], ["confirmed"], ["left"], []]
    assert standings.update(proof) == []


# For machines.


def test_json_is_one_object_a_line_and_the_last_is_the_result(url):
    with fleet(url, 2), started("on", "--wait", "--json", "--expect", "2") as waiting:
        out, err = waiting.communicate(timeout=30)
    told = [json.loads(line) for line in out.splitlines()]
    assert waiting.returncode == 0
    assert err == ""
    assert (told[0]["event"], told[0]["enabled"]) == ("flag", True)
    assert (
        {one["id"] for one in told[1:-1] if one["standing"] == "confirmed"}
        == {one["id"] for one in told[1:-1]}
        != set()
    )
    result = told[-1]
    assert (result["event"], result["proven"], result["confirmed"], result["laggards"]) == ("result", True, 2, [])
    assert result["revision"] == told[0]["revision"]
    assert 0 < result["elapsed"] < 30


def test_json_names_the_laggards_and_the_problem(file_url, capsys):
    register(open_store(file_url), instance(pid=77))
    assert main(["on", "--wait", "--expect", "2", "--timeout", "0.2", "--json"]) == 4
    said = capsys.readouterr()
    told = [json.loads(line) for line in said.out.splitlines()]
    assert [one["event"] for one in told] == ["flag", "problem", "instance", "result"]
    [laggard] = told[-1]["laggards"]
    assert (laggard["host"], laggard["pid"], laggard["standing"]) == ("web-1", 77, "waiting")
    assert told[-1]["problem"] == told[1]["problem"]
    assert told[1]["problem"].startswith("1 of 2 expected instances are registered")
    assert "maintenance stays ON" in said.err


# Ctrl-C.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_ctrl_c_leaves_the_flag_and_says_so(url, number):
    register(open_store(url), instance(pid=77))
    with started("on", "--wait", "--timeout", "60") as waiting:
        read_until(waiting, "  waiting  ")
        waiting.send_signal(number)
        out, err = waiting.communicate(timeout=10)
    assert waiting.returncode == 130
    assert err.startswith("maintenance: interrupted: the wait has ended; maintenance stays ON (revision ")
    assert err.count("\n") == 1
    assert "web-1 pid 77" in out
    assert is_on(url)


def test_ctrl_c_in_json_still_ends_with_a_result(file_url, monkeypatch, capsys):
    register(open_store(file_url), instance())
    output = Acting({'"waiting"': lambda: signal.raise_signal(signal.SIGINT)})
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["on", "--wait", "--json"]) == 130
    result = json.loads(output.getvalue().splitlines()[-1])
    assert (result["event"], result["proven"], result["interrupted"]) == ("result", False, True)
    assert "stays ON" in capsys.readouterr().err


def test_a_store_that_goes_away_during_the_wait_is_told(file_url, monkeypatch, capsys):
    register(open_store(file_url), instance())
    path = Path(file_url.removeprefix("sqlite://"))
    output = Acting({"  waiting  ": lambda: path.rename(path.with_suffix(".away"))})
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["on", "--wait", "--timeout", "0.5"]) == 4
    assert "where it is gone, restore it" in output.getvalue()
    assert "where it is gone, restore it" in capsys.readouterr().err


# On a terminal.


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, **env: str) -> Iterator[list[bytes]]:
    """Have this process's output be a terminal; what it shows is in the list once the block has ended."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        # A terminal whose other side is closed ends in an error.
        with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as screen:
            while chunk := screen.read(4096):
                shown.append(chunk)

    reading = threading.Thread(target=read)
    reading.start()
    for variable, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "12", **env}.items():
        monkeypatch.setenv(variable, value)
    with open(theirs, "w") as screen, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        yield shown
    reading.join()


def test_a_terminal_gets_a_live_table_and_then_the_summary(file_url, monkeypatch, capsys):
    register(open_store(file_url), *(instance(host=f"web-{number}\x1b[2J") for number in range(9)))
    with fleet(file_url, 1), terminal(monkeypatch) as shown:
        assert main(["on", "--wait", "--timeout", "0.4"]) == 4
    seen = b"".join(shown).decode()
    assert "┃" in seen
    assert "waiting" in seen
    assert "and 6 more" in seen
    assert "9 of 10 processes to go" in seen
    assert "\x1b[2J" not in seen
    assert "not proven after 0." in seen.rpartition("to go")[2]
    assert "NOT PROVEN" in capsys.readouterr().err


def test_the_command_itself_on_a_terminal(file_url):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with fleet(file_url, 1), subprocess.Popen([*COMMAND, "on", "--wait"], stdout=theirs, env=environment) as waiting:
        assert waiting.wait(30) == 0
    os.close(theirs)
    with open(ours, "rb", buffering=0) as screen:
        seen = screen.read(65_536).decode()
    assert "confirmed" in seen
    assert "┃" in seen


@pytest.mark.parametrize("without", ["rich", "terminal"])
def test_without_rich_or_a_real_terminal_there_are_plain_lines(file_url, monkeypatch, without):
    if without == "rich":
        # As where the extra `standard` is not installed.
        monkeypatch.setattr(display, "find_spec", lambda _: None)
    with fleet(file_url, 1), terminal(monkeypatch, TERM="xterm" if without == "rich" else "dumb") as shown:
        assert main(["on", "--wait"]) == 0
    seen = b"".join(shown).decode()
    assert "  confirmed      " in seen
    assert "┃" not in seen


def test_the_table_says_what_stands_in_the_way():
    from rich.console import Console

    watch = Watch()
    console = Console(width=100, force_terminal=False)
    with console.capture() as before:
        console.print(table(watch, height=24))
    watch(Proof(proven=False, revision=2, laggards=((instance(), "is slow"),), problem="a standby answered"))
    with console.capture() as after:
        console.print(table(watch, height=24))
    assert "asking the store" in before.get()
    assert "1 of 1 process to go; a standby answered" in after.get()
    assert "is slow" in after.get()


@pytest.mark.parametrize("width", [80, 100])
def test_on_a_narrow_terminal_the_reason_gives_way_and_nothing_else(width):
    from rich.console import Console

    watch = Watch()
    console = Console(width=width, force_terminal=False)
    late, done = instance(pid=77), instance(pid=78)
    watch(Proof(proven=False, revision=2, confirmed=(done,), laggards=((late, "is slow " * 20),)))
    with console.capture() as shown:
        console.print(table(watch, height=24))
    for one, word in ((late, "waiting"), (done, "confirmed")):
        assert re.search(rf"{re.escape(name(one))} +│ {word} +│", shown.get())
    assert "is slow" in shown.get()


def test_rich_is_loaded_for_the_live_table_only(file_url):
    program = "import sys; from maintenance.cli import main; main(['on', '--wait']); sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_the_command_that_asks_again_is_told_whatever_stands_in_the_way_and_does_as_it_is(
    file_url, monkeypatch, capsys
):
    monkeypatch.delenv("MAINTENANCE_DATABASE_URL", raising=False)
    options = ["--drain", "--expect", "3", "--timeout", "0.2", "--presume-dead", "1.5m", "--database", file_url]
    with fleet(file_url, 1):
        assert main(["on", "--message", "It's late", *options]) == 4
        [again] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("to ask again: ")]
        command = shlex.split(again.removeprefix("to ask again: "))
        assert command[:2] == ["maintenance", "wait"]
        assert main(command[1:]) == 4
        assert again in capsys.readouterr().out
        with fleet(file_url, 2):
            assert main(command[1:]) == 0


def test_the_command_that_asks_again_shows_no_password(migrated_url, capsys):
    before, password, after = re.fullmatch(r"(.+://[^:@/]+:)([^@]+)(@.+)", migrated_url).groups()
    register(open_store(migrated_url), instance())
    assert main(["on", "--wait", "--timeout", "0", "--database", migrated_url]) == 4
    said = capsys.readouterr()
    assert f"maintenance wait --database '{before}***{after}' --revision " in said.out
    assert password not in said.out + said.err


def test_a_fleet_whose_table_was_emptied_is_not_proven_by_its_absence(migrated_url, capsys):
    with connect(migrated_url, autocommit=True) as connection:
        connection.execute("TRUNCATE public.maintenance_instances")
    assert main(["on", "--wait", "--timeout", "0.2", "--database", migrated_url]) == 4
    said = capsys.readouterr()
    assert "was emptied" in said.err
    assert "--expect N" in said.err


# How they stand, as it is told


ONE = Instance(
    id="a" * 32, host="web-1", boot="b", pid=17, program="gunicorn", version="1", when_stale="serve", ttl=10.0
)


def test_who_has_followed_is_told_once_and_nothing_more_of_him() -> None:
    standings = Standings()
    proof = Proof(proven=True, revision=7, confirmed=(ONE,))
    [standing] = standings.update(proof)
    assert standings_module.why(standing, revision=7) == MEANINGS["confirmed"]
    assert standings.update(replace(proof, confirmed=(replace(ONE, in_flight=3),))) == []


def test_what_is_in_flight_is_summed_up_of_those_that_are_there() -> None:
    standings = Standings()
    proof = Proof(proven=True, revision=7, confirmed=(replace(ONE, websockets=2),), gone=(replace(ONE, id="b" * 32),))
    standings.update(proof)
    said = "0 requests in flight when last reported (1 of 1 did not say), 2 WebSockets open"
    assert in_flight(proof, standings, drain=True) == said
    told = result_json(proof, standings, Snapshot(enabled=True, revision=7))
    assert (told["confirmed"], told["gone"], told["presumed_dead"]) == (1, 1, 0)
