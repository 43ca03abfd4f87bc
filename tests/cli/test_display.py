"""A running wait: what is shown of each judgement, on a terminal and elsewhere."""

import contextlib
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from maintenance import Proof
from maintenance.base.flags import Reading
from maintenance.base.instances import Fleet
from maintenance.base.values import Row, Snapshot
from maintenance.cli import display, text
from maintenance.cli.standings import Standing, Standings
from maintenance.proof.judge import Question, judge
from maintenance.stores import open_store
from tests.support.command import Cli, fleet_of, instance, register

ON = Snapshot(enabled=True, revision=7)
PROOF = Proof(proven=False, revision=7)


def changes(standings: Standings, proof: Proof) -> list[str | None]:
    return [it.verdict if isinstance(it, Standing) else it for it in standings.update(proof)]


def test_a_process_is_shown_once_for_each_verdict():
    one, standings = instance(), Standings(ON)
    busy = replace(one, in_flight=3)
    history = ({"gone": (one,)}, {"gone": (one,)}, {"confirmed": (one,)}, {"confirmed": (busy,)}, {}, {})
    seen = [changes(standings, replace(PROOF, **how)) for how in history]
    assert seen == [["gone"], [], ["confirmed"], [], ["left"], []]


def test_a_laggard_is_not_shown_again_because_time_goes_by():
    """Or a log gets a line with each look."""
    busy = instance(revision=7, in_flight=1, oldest="GET /slow", oldest_age=1.0, silent_for=30.0)
    dead = instance(id="d" * 32, revision=6, silent_for=700.0)
    question = Question(revision=7, enabled=True, drain=True, presume_dead=600.0)
    standings = Standings(ON, drain=True)

    def look(*instances, elapsed):
        return changes(
            standings, judge(Fleet(Reading(Row(True, {}, 7)), instances, intact=True), question, elapsed=elapsed)
        )

    assert look(busy, dead, elapsed=1.0) == ["waiting", "waiting"]
    later = [replace(it, silent_for=it.silent_for + 2.0) for it in (busy, dead)]
    assert look(*later, elapsed=3.0) == []
    assert look(replace(later[0], in_flight=2, silent_for=0.0), later[1], elapsed=3.5) == ["waiting"]


def test_an_obstacle_is_shown_when_it_comes_and_when_it_goes(capsys):
    with display.show_progress(Standings(ON), json=False) as progress:
        for problem in (None, "a standby\n", "a standby\n", None):
            progress(replace(PROOF, problem=problem))
    assert [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()] == [
        "a standby\\n", "this obstacle is gone",
    ]  # fmt: skip


TWO = (instance(websockets=2), instance(in_flight=1))
LATE = tuple((one, "is slow") for one in TWO)


@pytest.mark.parametrize(
    ("enabled", "found", "verdict"),
    [
        (True, {}, "the fleet was not read yet; maintenance stays ON (revision 7)"),
        (False, {}, "the fleet was not read yet; maintenance stays OFF (revision 7)"),
        (True, {"proven": True}, "no process is registered"),
        (False, {"proven": True, "confirmed": TWO}, "2 confirmed"),
        (
            True,
            {"proven": True, "confirmed": TWO, "gone": (instance(websockets=3),), "in_flight": 1},
            ("2 confirmed, 1 gone; 1 request in flight when last reported (unknown for 1 of 2), 2 WebSockets open; "
             "--drain waits for them"),
        ),
        (True, {"problem": "no such table"}, "no such table; maintenance stays ON (revision 7)"),
        (
            True,
            {"laggards": LATE[1:], "problem": "1 of 2"},
            "1 not accounted for; 1 of 2; 0 requests in flight when last reported; maintenance stays ON (revision 7)",
        ),
        (True, {"laggards": LATE, "problem": "has changed", "final": True},
         "has changed; run `maintenance status` for more"),
    ],
    ids=["unread", "unread off", "empty", "off", "proven", "unreadable", "too few", "changed"],
)  # fmt: skip
def test_the_verdict(enabled, found, verdict):
    standings = Standings(Snapshot(enabled=enabled, revision=7))
    standings.update(replace(PROOF, elapsed=2.0, **found))
    assert standings.summarize("done") == f"done after 2.0 s: {verdict}"


# On a terminal.


@contextlib.contextmanager
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


LIVE = "\x1b[?25l"
"""Hides the cursor, as rich does while a view is live."""


def test_a_terminal_gets_a_live_view_and_then_the_next_steps(url: str, cli: Cli, monkeypatch):
    register(open_store(url), *(instance(host=f"web-{number}\x1b[2J") for number in range(9)))
    with fleet_of(url, 1), terminal(monkeypatch) as shown:
        done = cli("on", "--wait", "--timeout", "0.4")
    assert done.status == 4
    seen = b"".join(shown).decode()
    assert LIVE in seen
    assert "and 6 more" in seen
    assert "9 of 10 processes to go" in seen
    assert "web-1\x1b[2J" not in seen
    assert "Next steps:" in seen.rpartition("to go")[2]
    assert "gives up in 0." in seen
    assert "NOT PROVEN" in done.err


@pytest.mark.parametrize("without", ["rich", "terminal"])
def test_without_rich_or_a_real_terminal_there_are_plain_lines(url: str, cli: Cli, monkeypatch, without):
    if without == "rich":
        # As if the extra `standard` were not installed.
        monkeypatch.setattr(display, "find_spec", lambda _: None)
    with fleet_of(url, 1), terminal(monkeypatch, TERM="xterm" if without == "rich" else "dumb") as shown:
        assert cli("on", "--wait").status == 0
    seen = b"".join(shown).decode()
    assert "  confirmed      " in re.sub(r"\x1b\[\d+m", "", seen)
    assert LIVE not in seen


def render(standings: Standings, *, width: int = 100) -> str:
    from rich.console import Console, Group

    console = Console(width=width, force_terminal=False)
    with console.capture() as shown:
        console.print(Group(display.draw(standings, height=24)))  # as it is, a text would lose how it is cut
    return shown.get()


def test_the_view_says_what_stands_in_the_way():
    standings = Standings(ON)
    assert render(standings) == "reading the fleet\n"
    standings.update(replace(PROOF, laggards=((instance(), "is slow"),), problem="a standby answered"))
    assert "1 of 1 process to go; a standby answered" in render(standings)
    assert "is slow" in render(standings)


def test_at_80_columns_nothing_but_the_reason_is_cut(monkeypatch):
    monkeypatch.setattr(text, "has_terminal", lambda _: True)
    pod = "shop-web-7d9c5b8f6d-x2x7q-of-a-long-name"
    late, done, standings = instance(host=pod, silent_for=200.0), instance(pid=78), Standings(ON)
    standings.update(replace(PROOF, confirmed=(done,), laggards=((late, "is slow " * 20),), elapsed=2.0, limit=17.0))
    head, reason, confirmed, end = render(standings, width=80).splitlines()
    place = f"shop-web-…long-name pid {late.pid} (id {late.id[:8]})"
    assert head == f"waiting        {place}: SILENT for 3 min"
    assert re.match(" +is slow is slow", reason)
    assert confirmed == f"confirmed      web-1 pid 78 (id {done.id[:8]}): has acknowledged the flag"
    assert end == "2.0 s: 1 of 2 processes to go; gives up in 15 s"


@pytest.mark.parametrize(("silent_for", "color"), [(1.0, "yellow"), (200.0, "red")])
def test_a_process_that_is_silent_has_another_color_than_one_that_is_late(silent_for: float, color: str):
    standings = Standings(ON)
    standings.update(replace(PROOF, laggards=((instance(silent_for=silent_for), "is slow"),)))
    assert {str(span.style) for span in display.draw(standings, height=24).spans} == {color}


@pytest.mark.parametrize(("variables", "colors"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colors_are_for_terminals_and_for_those_who_want_them(url: str, cli: Cli, monkeypatch, variables, colors):
    register(open_store(url), instance(host="web-7", silent_for=0.0, revision=1))
    monkeypatch.delenv("NO_COLOR", raising=False)
    with terminal(monkeypatch, **variables) as shown:
        cli("on")
        cli("status")
        cli("fleet")
    assert (b"\x1b[33mON\x1b[0m" in b"".join(shown)) is colors
    assert (b"\x1b[" in b"".join(shown)) is colors
    assert "\x1b[" not in cli("status").out


def test_on_a_narrow_terminal_the_fleet_has_fewer_columns(url: str, cli: Cli, monkeypatch):
    register(open_store(url), instance(host="shop-web-7d9c5b8f6d-x2x7q"))
    heads = []
    for columns in ("20", "80", "400"):
        with terminal(monkeypatch, COLUMNS=columns, NO_COLOR="1") as shown:
            assert cli("fleet").status == 0
        heads.append(b"".join(shown).decode().splitlines()[1])
    assert heads[0].split() == ["ID", "HOST", "PID", "REVISION", "IN", "FLIGHT", "LAST", "SEEN"]
    assert len(heads[1]) <= 80 < len(heads[2])
    assert heads[2].split() == cli("fleet").lines[1].split(), "a program gets all of them"


def test_rich_is_loaded_for_the_live_view_only(url: str):
    program = "import sys; from maintenance.cli import main; main(['on', '--wait']); sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
