"""The table on the page of faults, made of the result that `make faults` has saved."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from benchmarks.results import describe
from tests.docs.pages import ROOT

PAGE: Final = "docs/explanation/faults.md"
BEGIN: Final = "<!-- begin: written by `make faults` -->"
END: Final = "<!-- end -->"
WORDS: Final = {"unknown": "closed"}
HEAD: Final = (
    "| fault | off, `serve` | off, `block` | on, `serve` | on, `block` | wait | loop | flip seen |\n"
    "|---|---|---|---|---|---|---|---|"
)

Row = dict[str, Any]


def render(result: dict[str, Any]) -> str:
    """The part of the page between the two marks."""
    faults = groupby(result["data"]["faults"], key=lambda row: (row["group"], row["fault"]))
    lines = [(group, _line(name, list(rows))) for (group, name), rows in faults]
    parts = []
    for group, of_group in groupby(lines, key=lambda line: line[0]):
        parts.append("\n".join((f"### {group}\n\n{HEAD}", *(line for _, line in of_group))))
    return "\n\n".join((*parts, _soak(result["data"]["soak"]), describe(result)))


def write(result: dict[str, Any]) -> None:
    """Replace that part."""
    path = ROOT / PAGE
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{render(result)}\n\n{END}{after}", encoding="utf-8")


def _line(name: str, rows: Sequence[Row]) -> str:
    cells = {
        (row["flag"], row["when_stale"]): ", then ".join(WORDS.get(it, it) for it in row["answers"]) or "none"
        for row in rows
    }
    answers = [cells.get((flag, policy), "") for flag in ("off", "on") for policy in ("serve", "block")]
    wait, gap = (max(row[key] for row in rows) for key in ("longest_wait_ms", "loop_gap_ms"))
    return f"| {' | '.join((name, *answers, f'{wait} ms', f'{gap} ms', _seen(rows)))} |"


def _seen(rows: Sequence[Row]) -> str:
    """Where the processes differ, both are shown."""
    parts = {}
    for policy in ("serve", "block"):
        parts[policy] = _seen_by([row for row in rows if row["when_stale"] == policy])
    if len({moment for moment, _ in parts.values()}) == 1:
        [moment] = {moment for moment, _ in parts.values()}
        return f"{moment}, {max(after for _, after in parts.values())} ms"
    return "; ".join(f"`{policy}` {moment}, {after} ms" for policy, (moment, after) in parts.items())


def _seen_by(rows: Iterable[Row]) -> tuple[str, int]:
    rows = list(rows)
    late = [row for row in rows if row["truth_seen"] == "after"] or rows
    return late[0]["truth_seen"], max(row["truth_after_ms"] for row in late)


def _soak(soak: dict[str, Any]) -> str:
    before, after = soak["before"], soak["after"]
    megabytes = (after["bytes"] - before["bytes"]) / 2**20
    return (
        f"After {soak['outages']:,} outages, a process holds {after['threads']} threads ({before['threads']} before), "
        f"{after['descriptors']} descriptors ({before['descriptors']}), {after['connections']} connection "
        f"({before['connections']}), and {megabytes:+.1f} MiB of memory."
    )
