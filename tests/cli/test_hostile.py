"""Texts and rows of an attacker, as a person sees them on a terminal."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from maintenance.cli import text
from maintenance.stores import open_store
from tests.stores.helpers import run_sql
from tests.support.command import Cli, fleet_of, instance, read_until, register, start

TRICKS = (
    *("\x1b[2J\x1b]0;owned\x07", "\r\nproven after 0.1 s", "\u202e\u2066", "\x9b31m", "\u200b\ufeff\u2028"),
    *("\u2800\u3164", "{message} {{message}} %s", "<script>alert(1)</script>", "[red]x[/red]", '"},{"'),
    *("a    4242  web  1  ", "é" + "\u0301" * 90),
)
EVIL = "".join(TRICKS)
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@pytest.fixture
def attacked(each_url: str) -> Iterator[str]:
    """A fleet of one process that follows, and of one whose every text is an attack."""
    names = dict.fromkeys(("host", "boot", "program", "version", "service", "oldest"), EVIL)
    most = 2**31 - 1
    load = {"in_flight": most, "websockets": most, "oldest_age": 1e9, "drains": {EVIL: most}}
    evil = instance(revision=2**62, ttl=3600.0, **names, **load)
    with fleet_of(each_url, 1):
        register(open_store(each_url), evil)
        yield each_url


def check(shown: str) -> list[str]:
    """No line is made, erased or moved by what it shows."""
    assert not HARMFUL.search(shown)
    lines = shown.splitlines()
    assert not any(line.startswith("proven after") for line in lines)
    return lines


def test_no_row_of_an_instance_acts_on_a_terminal_proves_or_hides(attacked: str, cli: Cli) -> None:
    for command in (["fleet"], ["status"], ["on", "--wait", "--timeout", "0.5"], ["wait", "--timeout", "0", "--drain"]):
        done = cli(*command)
        check(done.out)
        check(done.err)
        assert done.status in ((4,) if command[0] in ("on", "wait") else (0, 3))
        for line in cli(*command, "--json").out.splitlines():
            check(line)
            json.loads(line, parse_constant=pytest.fail)
    head, *rows = [line for line in cli("fleet").lines if re.match("ID |[0-9a-f]{8} ", line)]
    assert len(rows) == 2
    assert {len(re.split(" {2,}", row)) for row in rows} == {len(re.split(" {2,}", head))}


def test_no_detail_of_a_flag_acts_on_a_terminal(each_url: str, cli: Cli) -> None:
    details: Any = {"message": EVIL, "reason": EVIL, "actor": EVIL, "mode": EVIL, "until": EVIL, EVIL: EVIL}
    details["messages"] = {"de": EVIL, EVIL: EVIL}
    written = json.dumps(details).replace("'", "''")
    cli("status")
    update = "UPDATE platform_settings SET value_bool = true, details = '{}' WHERE key = 'maintenance_mode'"
    run_sql(each_url, update.format(written))
    for command in (["status"], ["log"], ["fleet"], ["on"], ["edit", "--reason", "x"]):
        for option in ([], ["--json"]):
            done = cli(*command, *option)
            assert EVIL not in done.out
            check(done.out)
            check(done.err)
    run_sql(each_url, update.format(written))
    with start("watch", "--database", each_url) as watching:
        check(read_until(watching, "maintenance is ON"))
    with start("watch", "--json", "--database", each_url) as watching:
        line = read_until(watching, "enabled")
        check(line)
        json.loads(line.splitlines()[-1], parse_constant=pytest.fail)


def test_a_line_of_the_log_begins_with_what_the_database_has_seen(migrated_url: str, cli: Cli) -> None:
    database = ("--database", migrated_url)
    cli("on", *database, "--message", "m; by role owner; from 192.0.2.9", "--actor", "by role owner")
    assert re.match(r"\S+ \S+ \S+; revision \d+; by role \w+; ", cli("log", *database).lines[0])


def test_a_key_that_names_no_scope_hides_no_change(each_url: str, cli: Cli) -> None:
    cli("on")
    key = "maintenance_mode:\x1b[2J no scope"
    run_sql(each_url, f"INSERT INTO platform_settings (key, value_bool) VALUES ('{key}', true)")
    first, *others = check(cli("log").out)
    assert "scope \\x1b[2J no scope" in first
    assert any("the site on" in line for line in others)


@pytest.mark.parametrize("blank", ["  ", "\u2800", "\u3164", "\u115f"])
def test_a_cell_never_looks_like_several(blank: str) -> None:
    one, two = text.format_table([{"A": text.escape(f"x{blank}y"), "B": "z"}])
    assert one.split("  ")[0] == "A"
    assert len(re.split(" {2,}", two)) == 2
    assert blank not in two.removesuffix("  z")
