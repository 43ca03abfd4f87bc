"""The standing of each process in a wait, from one judgement of the fleet to the next. Pure."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, NamedTuple

from maintenance.base.instances import Instance
from maintenance.base.values import Snapshot
from maintenance.cli import text
from maintenance.proof.judge import Proof

Verdict = Literal["waiting", "fenced", "presumed dead", "left", "gone", "confirmed"]


class Wording(NamedTuple):
    """The texts for one verdict, and its color in the live view."""

    why: str
    counted: str
    color: text.Color = ""


WORDINGS: Final[dict[Verdict, Wording]] = {
    "waiting": Wording("", "not accounted for", "yellow"),
    "fenced": Wording("silent, and its lease is over, so it refuses requests", "fenced by their lease", "cyan"),
    "presumed dead": Wording("silent for longer than --presume-dead", "presumed dead", "magenta"),
    "left": Wording("its row was removed", "left"),
    "gone": Wording("the process on this host has ended; its row is removed", "gone"),
    "confirmed": Wording("has acknowledged the flag", "confirmed", "green"),
}
"""The order is the one of the live view: the most urgent first."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one process stands."""

    instance: Instance
    verdict: Verdict
    why: str


Event = Standing | str | None
"""A process that stands differently than before, an obstacle besides the processes, or None when that is gone."""


class Standings:
    """Every process that a wait has seen, including those that have left."""

    def __init__(self, snapshot: Snapshot, *, drain: bool = False) -> None:
        """Start without a judgement.

        Args:
            snapshot: The flag that the processes have to follow.
            drain: Whether the wait also covers running requests.
        """
        self.snapshot, self.drain = snapshot, drain
        self.proof = Proof(proven=False, revision=snapshot.revision)
        self.known: dict[str, Standing] = {}

    def update(self, proof: Proof) -> list[Event]:
        """Take a judgement, and return what it changes."""
        now = {standing.instance.id: standing for standing in _list_standings(proof)}
        for key, before in self.known.items():
            if key not in now:
                now[key] = Standing(before.instance, "left", WORDINGS["left"].why)
        problem: list[Event] = [] if proof.problem == self.proof.problem else [proof.problem]
        changed = [
            it for key, it in now.items() if key not in self.known or _fingerprint(it) != _fingerprint(self.known[key])
        ]
        self.proof, self.known = proof, now  # replaced whole: another thread draws the live view from them
        return problem + changed

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many processes stand how."""
        verdicts = [standing.verdict for standing in self.known.values()]
        return {verdict: verdicts.count(verdict) for verdict in WORDINGS}

    @property
    def waiting(self) -> list[Standing]:
        """The processes that are not accounted for."""
        return [standing for standing in self.known.values() if standing.verdict == "waiting"]

    def describe(self, standing: Standing) -> str:
        """Return a process and why it stands as it does. If it is waited for, add its last report."""
        why = standing.why
        if standing.verdict == "waiting":
            # If it follows the flag already, `why` says what is in flight.
            follows = standing.instance.revision == self.snapshot.revision
            why += f"; {text.describe_report(standing.instance, work=not follows)}"
        return f"{text.format_process(standing.instance)}: {text.escape(why)}"

    def summarize(self, outcome: str) -> str:
        """Return the end of a wait in one line.

        Args:
            outcome: Such as ``proven``.
        """
        parts = [f"{outcome} after {text.format_span(self.proof.elapsed)}: {self._summarize_processes()}"]
        if self.proof.final:
            return f"{parts[0]}; run `maintenance status` for more"
        if self.snapshot.enabled and self.known:
            parts.append(self._summarize_work())
        if not self.proof:
            planned, switch = text.is_planned(self.snapshot), text.format_switch(self.snapshot)
            kept = "the schedule stays" if planned else f"maintenance stays {switch}"
            parts.append(f"{kept} (revision {self.snapshot.revision})")
        return "; ".join(parts)

    def _summarize_processes(self) -> str:
        counted = ", ".join(f"{n} {WORDINGS[verdict].counted}" for verdict, n in reversed(self.counts.items()) if n)
        if self.proof.final:
            counted = ""  # the flag is another one, so no process has to follow this one any more
        if self.proof.problem:
            return "; ".join(filter(None, [counted, self.proof.problem]))
        return counted or ("no process is registered" if self.proof else "the fleet was not read yet")

    def _summarize_work(self) -> str:
        present = [it.instance for it in self.known.values() if it.verdict not in ("gone", "left")]
        line = f"{text.format_count(self.proof.in_flight, 'request')} in flight when last reported"
        if unknown := sum(instance.in_flight is None for instance in present):
            line += f" (unknown for {unknown} of {len(present)})"
        if sockets := sum(instance.websockets for instance in present):
            line += f", {text.format_count(sockets, 'WebSocket')} open"
        return line if self.drain or not self.proof.in_flight else f"{line}; --drain waits for them"

    def build_json(self, *, interrupted: bool) -> dict[str, Any]:
        """Return the end of a wait for machines."""
        return {
            "event": "result",
            "proven": self.proof.proven,
            "revision": self.proof.revision,
            "enabled": self.snapshot.in_force,
            **{verdict.replace(" ", "_"): count for verdict, count in self.counts.items()},
            "laggards": [build_standing_json(standing) for standing in self.waiting],
            "in_flight": self.proof.in_flight,
            "problem": self.proof.problem,
            "elapsed": self.proof.elapsed,
            "interrupted": interrupted,
        }


def _list_standings(proof: Proof) -> Iterator[Standing]:
    groups: dict[Verdict, tuple[Instance, ...]] = {
        "confirmed": proof.confirmed,
        "fenced": proof.fenced,
        "gone": proof.gone,
        "presumed dead": proof.presumed,
    }
    for verdict, instances in groups.items():
        yield from (Standing(instance, verdict, WORDINGS[verdict].why) for instance in instances)
    yield from (Standing(instance, "waiting", why) for instance, why in proof.laggards)


def _fingerprint(standing: Standing) -> tuple[Verdict, Instance | None]:
    """Return what must differ before a standing is shown again: never `silent_for`, which each look changes."""
    waits = standing.verdict == "waiting"
    return standing.verdict, replace(standing.instance, silent_for=0.0) if waits else None


def build_standing_json(standing: Standing) -> dict[str, Any]:
    """Return one process's standing for machines."""
    return {"standing": standing.verdict, "why": standing.why, **asdict(standing.instance)}
