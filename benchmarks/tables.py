"""The tables of the page of costs, made of the results that the benchmarks have kept."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import draw, results

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = "docs/explanation/costs.md"

OURS: Final = "maintenance"


def write() -> None:
    """Replace what stands between the marks of the page."""
    path = ROOT / PAGE
    path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")


def render(page: str) -> str:
    """Return a page with the newest results between its marks."""
    for name, make in TABLES.items():
        result = results.load(name)
        new = f"<!-- begin: {name} -->\n\n{make(result['data'])}\n\n{results.describe(result)}\n\n<!-- end: {name} -->"
        page = re.sub(f"<!-- begin: {name} -->.*?<!-- end: {name} -->", lambda _, new=new: new, page, flags=re.DOTALL)
    return page


def plot() -> dict[str, str]:
    """Return each plot by its name."""
    peers, propagation = results.load("peers")["data"], results.load("propagation")["data"]
    images = {}
    for mode in ("off", "on"):
        rows = [
            (f"{variant} ({family})", figures[mode]["added_us"], f"{figures[mode]['added_us']:,.1f} µs")
            for family, variants in peers.items()
            for variant, figures in variants.items()
            if variant != "bare" and figures.get(mode, {}).get("added_us", 0) > 0
        ]
        colours = {name: 1 for name, *_ in rows if not name.startswith(OURS)}
        title = f"What a middleware adds to a request while maintenance is {mode}, in µs (log scale)"
        images[f"peers-{mode}"] = draw.bars(title, rows, colours=colours)
    series = {
        name: [(float(size), figure["from_commit"]["median"]) for size, figure in sizes.items()]
        for name, sizes in propagation.items()
    }
    images["propagation"] = draw.lines(
        "From the commit of a flip until the last process follows, median",
        series, x="processes", y="milliseconds", log_x=True, log_y=True,
    )  # fmt: skip
    return images


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines])


def _peers(data: dict[str, Any]) -> str:
    def show(figure: dict[str, float] | None) -> str:
        if figure is None:
            return ""
        return f"{figure['added_us']:,.2f} ({figure['p10']:,.2f} to {figure['p90']:,.2f})"

    def compare(figure: dict[str, float]) -> str:
        """One that does nothing may take less time than the bare app, by chance. Then there is no ratio."""
        return f"{figure['of_nothing']:,.1f}" if "of_nothing" in figure else ""

    rows = [
        (family, variant, show(figures["off"]), compare(figures["off"]), show(figures.get("on")))
        for family, variants in data.items()
        for variant, figures in variants.items()
        if variant != "bare"
    ]
    head = (
        "around",
        "middleware",
        "off adds, us (p10 to p90)",
        "x of one that does nothing",
        "on adds, us (p10 to p90)",
    )
    return _table(head, rows)


def _sockets(data: dict[str, Any]) -> str:
    rows = [
        (
            server, variant, f"{it['requests_per_s']:,.0f}", f"{it['of_bare']:.2f}",
            *(f"{it[name]:.2f}" for name in ("p50_ms", "p99_ms", "p99.9_ms")),
        )
        for server, variants in data.items()
        for variant, it in variants.items()
    ]  # fmt: skip
    return _table(("server", "app", "requests/s", "of bare", "p50, ms", "p99, ms", "p99.9, ms"), rows)


def _propagation(data: dict[str, Any]) -> str:
    def show(figure: dict[str, float]) -> str:
        return f"{figure['median']:,.1f} / {figure['max']:,.1f}"

    rows = [
        (name, size, show(figure["from_commit"]), show(figure["from_call"]))
        for name, sizes in data.items()
        for size, figure in sizes.items()
    ]
    head = ("store", "processes", "from the commit, ms (median / longest)", "from the call, ms")
    return _table(head, rows)


def _slowest(data: dict[str, Any]) -> str:
    rows = [
        (
            interface.upper(), app, phase, f"{it['requests']:,}",
            *(f"{it[name]:,.1f}" for name in ("median_ms", "p99_ms", "max_ms")), str(it["waited"]),
        )
        for interface, apps in data.items()
        for app, phases in apps.items()
        for phase, it in phases.items()
    ]  # fmt: skip
    head = ("adapter", "app", "during", "requests", "median, ms", "p99, ms", "longest, ms", "waited")
    return _table(head, rows)


TABLES: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "peers": _peers,
    "sockets": _sockets,
    "slowest": _slowest,
    "propagation": _propagation,
}
"""How each table is made, by the name of its benchmark."""
