"""``maintenance fleet`` and ``forget``: the processes that serve."""

import os
from uuid import UUID

import psycopg
import pytest

from maintenance.stores import open_store
from tests.support.command import Cli, change, fleet_of, instance, operator, register


def test_fleet_shows_what_each_process_has_acknowledged(each_url: str, cli: Cli):
    follows = instance(id="a" * 32, host="web-1", revision=1, in_flight=0, when_stale="block", ttl=2.0)
    behind = instance(id="b" * 32, host="web-2", pid=31, in_flight=3, websockets=2, oldest="GET /x", oldest_age=1.0)
    register(open_store(each_url), follows, behind)
    done = cli("fleet")
    assert (done.status, done.err) == (0, "")
    first, headings, one, other, last = done.lines
    assert "maintenance is OFF in " in first
    assert headings.split()[:3] == ["ID", "HOST", "PID"]
    assert one.split()[:7] == ["aaaaaaaa", "web-1", "4242", "gunicorn", "0.1.0", "block", "2.0"]
    assert "at most 2.0 s" in one
    assert other[headings.index("REVISION") :].startswith("none behind")
    assert other[headings.index("IN FLIGHT") :].split()[:2] == ["3", "2"]
    assert last == "2 processes: 1 behind, 0 silent, 3 requests in flight when last reported"


def test_fleet_as_json(url: str, cli: Cli):
    with fleet_of(url, 1):
        [printed] = cli("fleet", "--json").json
    [one] = printed["instances"]
    assert (one["pid"], one["revision"], one["silent"], one["ttl"]) == (os.getpid(), 1, False, 10.0)
    assert one["answer_age_at_most"] == pytest.approx(10.0 + one["silent_for"])
    assert (printed["flag"]["enabled"], printed["intact"], printed["problem"]) == (False, True, None)


def test_fleet_warns_of_an_empty_fleet_and_of_an_emptied_table(migrated_url: str, cli: Cli):
    done = cli("fleet", "--database", migrated_url)
    assert done.status == 0
    assert "No process is registered in this database." in done.err
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("TRUNCATE public.maintenance_instances")
    done = cli("fleet", "--database", migrated_url)
    assert done.status == 0
    assert done.err.startswith("warning: The process table was emptied (a restore, or by hand)")
    assert "`maintenance wait --expect N`" in done.err, "which switches nothing on"


def test_the_silent_are_shown_and_forgotten(url: str, cli: Cli):
    register(open_store(url), silent := instance(host="web-9"))
    change(url, "UPDATE maintenance_instances SET seen_at = seen_at - 3600 WHERE host = 'web-9'")
    register(open_store(url), instance(host="web-1"))
    shown = cli("fleet").out
    assert "60 min ago SILENT" in shown
    assert "1 silent, 0 requests in flight when last reported" in shown
    done = cli("forget", "--silent", "1h")
    assert (done.status, done.err) == (0, "")
    assert f"forgotten: web-9 pid 4242 (gunicorn, id {silent.id[:8]}), last seen 60 min ago" in done.out
    assert [one.host for one in operator(url).fleet().instances] == ["web-1"]
    assert "nothing to forget" in cli("forget", "--silent", "1h").out


def test_forget_takes_the_beginning_of_an_id_and_warns_of_a_recent_report(each_url: str, cli: Cli):
    register(open_store(each_url), *(instance(id=sign * 32) for sign in "abc"))
    done = cli("forget", "aaaaaaaa", str(UUID("b" * 32)).upper(), "aaaa", "--json")
    assert done.status == 0
    assert [one["id"][0] for one in done.json[0]["forgotten"]] == ["a", "b"]
    assert "warning: aaaaaaaa reported " in done.err
    assert [one.id[0] for one in operator(each_url).fleet().instances] == ["c"]


@pytest.mark.parametrize(
    ("ids", "status", "says"),
    [
        (["a1", "ffff"], 1, "no process has the ID 'ffff': copy one from `maintenance fleet`"),
        (["-"], 2, "argument ID: not an ID, nor the beginning of one: copy one from `maintenance fleet`"),
        (["a1", "a"], 2, "2 processes have an ID that begins with 'a': add more digits"),
    ],
    ids=["unknown", "empty", "several"],
)
def test_forget_removes_nothing_if_one_id_is_unknown_or_names_several(url: str, cli: Cli, ids, status, says):
    register(open_store(url), instance(id="a1" + "0" * 30), instance(id="a2" + "0" * 30))
    done = cli("forget", *ids)
    assert done.status == status
    assert says in done.err
    assert len(operator(url).fleet().instances) == 2
