"""What the commands do about rows that cannot be trusted, and about very many rows."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from maintenance.stores import open_store
from tests.support.command import Cli
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
