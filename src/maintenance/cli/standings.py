"""How each instance stands in a wait, followed from one judgement to the next. Pure."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from maintenance.base.values import Instance, Snapshot
from maintenance.cli.text import last_known, last_seen, name, number, printable, span
from maintenance.proof.judge import Proof

Word = Literal["waiting", "confirmed", "fenced", "gone", "presumed dead", "left"]

MEANINGS: Final[dict[Word, str]] = {
    "waiting": "not accounted for yet",
    "confirmed": "has acknowledged it",
    "fenced": "is silent, and its lease has run out: it refuses by itself",
    "gone": "its process has ended on this host; its row is removed",
    "presumed dead": "taken for dead on your word",
    "left": "has taken itself out of the fleet",
}

_ON_SUMMARY: Final[dict[Word, str]] = {
    "confirmed": "confirmed",
    "fenced": "fenced by their lease",
    "gone": "gone",
    "presumed dead": "presumed dead on your word",
    "left": "left",
    "waiting": "not accounted for",
}

NOBODY: Final = (
    "no living process is registered in this database: nobody had to follow. Is it the one that the app uses? "
    "(--expect N fails unless N are registered)"
)


@dataclass(frozen=True, slots=True)
class Standing:
    """How one instance stands."""

    instance: Instance
    word: Word
    why: str


class Standings:
    """Every instance that a wait has seen, also those that have left; who is gone, each `Proof` tells again."""

    def __init__(self) -> None:
        """Know nobody yet."""
        self.known: dict[str, Standing] = {}

    def update(self, proof: Proof) -> list[Standing]:
        """Take a judgement; return what has changed by it."""
        now = {standing.instance.id: standing for standing in _sorted_out(proof)}
        for key, before in self.known.items():
            if key not in now:
                now[key] = Standing(before.instance, "left", MEANINGS["left"])
        changed = [it for key, it in now.items() if key not in self.known or _said(it) != _said(self.known[key])]
        self.known = now  # swapped whole: a live table draws it from another thread
        return changed

    def counts(self) -> dict[Word, int]:
        """How many stand how; those that are none are left out."""
        words = [standing.word for standing in self.known.values()]
        return {word: words.count(word) for word in _ON_SUMMARY if word in words}

    @property
    def waiting(self) -> list[Standing]:
        """Who is not accounted for."""
        return [standing for standing in self.known.values() if standing.word == "waiting"]


def _sorted_out(proof: Proof) -> list[Standing]:
    groups: dict[Word, tuple[Instance, ...]] = {
        "confirmed": proof.confirmed,
        "fenced": proof.fenced,
        "gone": proof.gone,
        "presumed dead": proof.presumed,
    }
    found = [Standing(one, word, MEANINGS[word]) for word, instances in groups.items() for one in instances]
    return found + [Standing(one, "waiting", why) for one, why in proof.laggards]


def _said(standing: Standing) -> tuple[Word, Instance | None]:
    """What tells one standing from another: never how long ago it was said, which is new with each look."""
    return standing.word, replace(standing.instance, silent_for=0.0) if standing.word == "waiting" else None


def why(standing: Standing, *, revision: int) -> str:
    """Why an instance stands as it does; of one that is waited for, also what it was last known to do.

    Args:
        standing: Whose.
        revision: The one that is waited for. Of who has acknowledged it, `why` tells what is in flight.
    """
    if standing.word != "waiting":
        return standing.why
    drains = standing.instance.revision == revision
    return f"{standing.why}; {last_seen(standing.instance) if drains else last_known(standing.instance)}"


def line(standing: Standing, *, revision: int) -> str:
    """An instance, and `why` it stands as it does, for a terminal."""
    return f"{name(standing.instance)}: {printable(why(standing, revision=revision))}"


def summary(proof: Proof, standings: Standings, snapshot: Snapshot, *, drain: bool) -> str:
    """The end of a wait in one line."""
    counted = ", ".join(f"{count} {_ON_SUMMARY[word]}" for word, count in standings.counts().items())
    verdict = "proven" if proof else "not proven"
    flying = f"; {in_flight(proof, standings, drain=drain)}" if snapshot.enabled and standings.known else ""
    # Nobody has been seen. Where it is not proven, the fleet may not have been read at all.
    nobody = "nobody is registered" if proof else proof.problem or "nothing is known yet"
    return f"{verdict} after {span(proof.elapsed)}: {counted or nobody}{flying}"


def next_step(command: str, *, waits: bool) -> str:
    """What to do where it is not proven.

    Args:
        command: What asks again.
        waits: Whether somebody is not accounted for.
    """
    again = f"to ask again: {command}"
    if not waits:
        return again
    return f"one that hangs: restart it; once you know that one has ended: `maintenance forget ID`; {again}"


def in_flight(proof: Proof, standings: Standings, *, drain: bool) -> str:
    """What was in flight when it was last reported."""
    present = [it.instance for it in standings.known.values() if it.word not in ("gone", "left")]
    said = f"{number(proof.in_flight, 'request')} in flight when last reported"
    if unknown := sum(instance.in_flight is None for instance in present):
        said += f" ({unknown} of {len(present)} did not say)"
    if sockets := sum(instance.websockets for instance in present):
        said += f", {number(sockets, 'WebSocket')} open"
    return said if drain or not proof.in_flight else f"{said} (--drain waits for them)"


def standing_json(standing: Standing) -> dict[str, Any]:
    """One instance's standing, for machines."""
    return {"standing": standing.word, "why": standing.why, **asdict(standing.instance)}


def result_json(proof: Proof, standings: Standings, snapshot: Snapshot, **more: Any) -> dict[str, Any]:
    """The end of a wait, for machines."""
    counts = standings.counts()
    return {
        "event": "result",
        "proven": proof.proven,
        "revision": proof.revision,
        "enabled": snapshot.enabled,
        **{word.replace(" ", "_"): counts.get(word, 0) for word in _ON_SUMMARY},
        "laggards": [standing_json(standing) for standing in standings.waiting],
        "in_flight": proof.in_flight,
        "problem": proof.problem,
        "elapsed": proof.elapsed,
        **more,
    }
