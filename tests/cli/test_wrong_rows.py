"""What the commands do about rows that cannot be trusted, and about very many rows."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from maintenance.proof.judge import lease_end
from maintenance.stores import open_store
from tests.stores.helpers import run_sql
from tests.support.command import Cli, instance, operator
from tests.support.loose import WRONG, Loose


@pytest.fixture
def loose(each_url: str) -> Iterator[Loose]:
    with closing(open_store(each_url).connect()) as session:
        yield Loose(each_url, session)


def test_any_mixture_of_wrong_values_hides_nothing(loose: Loose, cli: Cli) -> None:
    chance = random.Random(7)
    columns = [column for column in WRONG if column != "id"]
    everything = {column: chance.choice(loose.wrong[column]) for column in columns}
    mixtures = [everything]
    for _ in range(30):
        chosen = chance.sample(columns, chance.randint(1, len(columns)))
        mixtures.append({column: chance.choice(loose.wrong[column]) for column in chosen})
    for number, mixture in enumerate(mixtures):
        loose.insert(id=f"'{number:032x}'" if number else "'f0000000000000000000000000000000'", **mixture)
    bad = loose.bad()
    assert len(bad) == len(mixtures)
    assert max(len(one.problem or "") for one in bad) < 2000
    proof = loose.judge()
    assert ([it.host for it in proof.confirmed], len(proof.laggards)) == (["good"], len(bad))
    begun = time.monotonic()
    for arguments in (["fleet"], ["wait", "--timeout", "0"], ["wait", "--timeout", "0", "--drain"]):
        assert cli(*arguments).status in (0, 4)
        for line in cli(*arguments, "--json").out.splitlines():
            json.loads(line, parse_constant=pytest.fail)
    assert time.monotonic() - begun < 10.0
    assert cli("forget", *(one.id for one in bad)).status == 0
    assert loose.judge()


def test_huge_texts_are_cut_before_they_are_sent(loose: Loose, cli: Cli) -> None:
    """To send, sort or print them would take many times the time-out."""
    size = 50_000_000
    text = f"hex(zeroblob({size // 2}))" if loose.url.startswith("sqlite") else f"repeat('x', {size})"
    loose.insert(program=text, host=text)
    begun = time.monotonic()
    done = cli("wait", "--timeout", "2", "--json")
    assert time.monotonic() - begun < 10.0
    assert (done.status, len(done.out) < 10_000) == (4, True)
    [laggard] = done.json[-1]["laggards"]
    assert cli("forget", laggard["id"]).status == 0


@pytest.fixture
def thousand(each_url: str) -> str:
    """A store with the rows of 1,000 processes that died long ago, with a lease of a second."""
    with closing(open_store(each_url).connect()) as session:
        session.report(instance(ttl=1.0, when_stale="block"))
    sqlite = each_url.startswith("sqlite")
    key = "lower(hex(randomblob(16)))" if sqlite else "gen_random_uuid()"
    earlier = "seen_at - 7200" if sqlite else "seen_at - interval '2 h'"
    numbers = (
        "(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n) AS n"
        if sqlite
        else "generate_series(1, 1000)"
    )
    names = "host, boot, pid, program, version, when_stale, ttl, websockets, oldest, oldest_age"
    run_sql(
        each_url,
        f"INSERT INTO maintenance_instances (id, {names}, seen_at) SELECT {key}, {names}, {earlier} "
        f"FROM maintenance_instances, {numbers} WHERE pid <> 0",
    )
    return each_url


def test_a_thousand_silent_rows_are_forgotten_in_one_step(thousand: str, cli: Cli, monkeypatch):
    with closing(open_store(thousand).connect()) as session:
        session_type = type(session)
    remove, removals = session_type.remove, []
    monkeypatch.setattr(session_type, "remove", lambda self, *ids: removals.append(len(ids)) or remove(self, *ids))
    done = cli("forget", "--silent", "1h")
    assert (done.status, removals) == (0, [1000])
    assert len(operator(thousand).fleet().instances) == 1


def test_a_thousand_dead_processes_are_fenced_after_one_lease(thousand: str, cli: Cli):
    lease = lease_end(1.0)
    [result] = [it for it in cli("on", "--wait", "--json").json if it["event"] == "result"]
    assert (result["proven"], result["fenced"]) == (True, 1001)
    assert lease <= result["elapsed"] < lease + 10.0  # to read and print so many takes a busy machine seconds
