"""``maintenance on --secret``: the link is shown once, and the token nowhere else."""

import io
import json

import pytest

from maintenance.base.secret import hash_token
from tests.support.command import Cli, operator

TOKEN = "a-token-of-our-own-with-many-signs"


def test_the_link_is_shown_once(each_url: str, cli: Cli):
    done = cli("on", "--secret", "--message", "Back at noon")
    [line] = [line for line in done.lines if "?maintenance-bypass=" in line]
    token = line.partition("?maintenance-bypass=")[2]
    assert (len(token), done.out.count(token)) == (43, 1)
    flag = operator(each_url).refresh()
    assert flag.secret == hash_token(token)
    commands = [["status"], ["status", "--json"], ["log"], ["log", "--json"], ["fleet", "--json"]]
    commands += [["extend", "5m"], ["edit", "--message", "Later", "--json"], ["wait"], ["off"], ["on", "--json"]]
    shown = [cli(*command) for command in commands]
    assert not [it for it in shown if token in it.out + it.err]
    assert "  secret link admits whoever has it, until maintenance is switched off" in shown[0].lines
    assert "secret: a link" in shown[2].out
    outputs = [json.loads(shown[number].lines[0])["secret"] for number in (1, 6, 9)]
    assert outputs == [True, True, False]  # an edit keeps it, and the next flip ends it


def test_json_has_the_link(each_url: str, cli: Cli):
    printed = json.loads(cli("on", "--secret", "--json", "--scope", "shop").out)
    token = printed["link"].removeprefix("?maintenance-bypass=")
    assert operator(each_url).fleet(scope="shop").reading.scopes[0].details["secret"] == hash_token(token)


def test_a_token_from_stdin_is_not_repeated(url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TOKEN}\n"))
    done = cli("on", "--secret-stdin")
    assert (done.status, TOKEN in done.out + done.err) == (0, False)
    assert operator(url).refresh().secret == hash_token(TOKEN)


def test_a_weak_token_from_stdin_is_refused_and_not_repeated(url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2\n"))
    done = cli("on", "--secret-stdin")
    assert (done.status, "secret is not 32 to 256" in done.err, "hunter2" in done.err) == (2, True, False)
    assert not operator(url).refresh().enabled


def test_one_secret_is_enough(url: str, cli: Cli):
    done = cli("on", "--secret", "--secret-stdin")
    assert (done.status, "use either --secret or --secret-stdin" in done.err) == (2, True)
