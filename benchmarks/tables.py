"""The tables and plots of the pages, made of the results that the benchmarks have kept."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import draw, results

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ("docs/explanation/costs.md", "docs/explanation/sizing.md")

OURS: Final = "maintenance"


def write() -> None:
    """Replace what stands between the marks of the pages."""
    for page in PAGES:
        path = ROOT / page
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")


def render(page: str) -> str:
    """Return a page with the newest results between its marks."""
    return re.sub(
        r"(<!-- begin: (.+?) -->).*?(<!-- end: \2 -->)",
        lambda found: f"{found[1]}\n\n{_render_one(found[2])}\n\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


def _render_one(name: str) -> str:
    """Return a table, and where it comes from. `ten_thousand, polling` is a table of the result `ten_thousand`."""
    result = results.load(name.partition(",")[0])
    return f"{TABLES[name](result['data'])}\n\n{results.describe(result)}"


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
    for name, data in (("propagation", propagation), ("rivals", results.load("rivals")["data"])):
        series = {
            kind: [(float(size), max(figure["from_commit"]["median"], 1.0)) for size, figure in sizes.items()]
            for kind, sizes in data.items()
        }
        images[name] = draw.lines(
            "From the commit of a flip until the last process follows, median",
            series, x="processes", y="milliseconds", log_x=True, log_y=True,
        )  # fmt: skip
    fleets = results.load("ten_thousand")["data"]["through PgBouncer"]
    same = {int(name.removesuffix("/10")): it for name, it in fleets.items() if name.endswith("/10") and "steady" in it}
    return images | {"sizing-load": _load(same), "sizing-restart": _restart(same)}


LOAD: Final = {"PostgreSQL": "cpu of postgres", "PgBouncer": "cpu of pgbouncer", "the simulator": "cpu of simulator"}


def _load(sizes: dict[int, Any]) -> str:
    series = {
        name: [(size, max(sizes[size]["steady"][key], 0.001)) for size in sorted(sizes)] for name, key in LOAD.items()
    }
    return draw.lines(
        "Steady load by polling, TTL 10 s", series, x="processes", y="CPU seconds a second", log_x=True, log_y=True
    )


def _restart(sizes: dict[int, Any]) -> str:
    """Draw the largest fleet that came back."""
    restarts = {size: it["restart"] for size, it in sizes.items() if "series" in it["restart"]}
    size = max(restarts)
    found = restarts[size]
    series = {
        name: [(number * found["bin"], count) for number, count in enumerate(counts)]
        for name, counts in found["series"].items()
    }
    title = f"A restart of the database and of PgBouncer, {size:,} processes"
    across = f"seconds since the loss; both are back at {-found['begins']:g} s"
    return draw.lines(title, series, x=across, y=f"in {found['bin']:g} s")


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


def _propagation(data: dict[str, Any], kind: str = "store") -> str:
    def show(figure: dict[str, float]) -> str:
        return f"{figure['median']:,.1f} / {figure['max']:,.1f}"

    rows = [
        (name, size, show(figure["from_commit"]), show(figure["from_call"]))
        for name, sizes in data.items()
        for size, figure in sizes.items()
    ]
    head = (kind, "processes", "from the commit, ms (median / longest)", "from the call, ms")
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


def _hot_path(data: dict[str, Any]) -> str:
    def of_nothing(times: dict[str, float], name: str) -> str:
        return f"{(times[name] - times['bare']) / (times['nothing'] - times['bare']):.1f}"

    columns = {
        "off, `in_flight=False`: a multiple of a middleware that does nothing": lambda it: of_nothing(it, "off"),
        "off: the same": lambda it: of_nothing(it, "off, in flight"),
        "off: added, us": lambda it: f"{(it['off, in flight'] - it['bare']) / 1000:.2f}",
        "a 503, us": lambda it: f"{it['on, in flight'] / 1000:.1f}",
        "a 503 with all options in use, us": lambda it: f"{it['on, all options'] / 1000:.1f}",
        "admitted by the cookie of a secret link, us": lambda it: f"{it['by cookie'] / 1000:.1f}",
    }
    rows = [(name, *(show(times) for times in data.values())) for name, show in columns.items()]
    return _table(("a request", *data), rows)


def _fleet(data: dict[str, Any]) -> str:
    flips = [
        (f"{data['processes']} processes, a flip {name}: from the commit to its proof, ms (median / p90)",
         f"{data[name]['median']:.0f} / {data[name]['p90']:.0f}")
        for name in ("on", "off")
    ]  # fmt: skip
    return _table(
        ("", ""),
        [*flips, *((f"{name} for each process and flip", f"{data[name]:.2f}") for name in ("writes", "reads"))],
    )


Keys = tuple[str, ...]

_POLLING: Final[dict[str, tuple[Keys, str]]] = {
    "reads a second": (("steady", "reads"), ",.0f"),
    "CPU seconds a second: PostgreSQL": (("steady", "cpu of postgres"), ".2f"),
    "the same: PgBouncer": (("steady", "cpu of pgbouncer"), ".3f"),
    "the same: the simulator": (("steady", "cpu of simulator"), ".2f"),
    "bytes of WAL a second": (("steady", "wal bytes"), ",.0f"),
    "a flip on, from the commit to its proof, s": (("flip", "on", "proven"), ".1f"),
    "a flip off, the same": (("flip", "off", "proven"), ".1f"),
    "writes a second during the flip on": (("flip", "on", "writes"), ",.0f"),
    "a rolling restart of all processes, over so many s": (("rolling restart", "spread over"), ".0f"),
    "until all are fresh after it, s": (("rolling restart", "settled"), ".1f"),
    "after a restart of the database and PgBouncer, until all are fresh, s": (("restart", "settled"), ".1f"),
    "most reads in 0.1 s after it": (("restart", "peak"), ",.0f"),
    "usual reads in 0.1 s": (("restart", "usual"), ".1f"),
    "1,000 scopes on at once, until all follow, s": (("scopes", "all on", "followed"), ".1f"),
    "one more scope, until its proof, s": (("scopes", "one more", "proven"), ".1f"),
}

_LISTENING: Final[dict[str, tuple[Keys, str]]] = {
    name: _POLLING[name]
    for name in (
        "reads a second", "CPU seconds a second: PostgreSQL", "the same: the simulator",
        "a flip on, from the commit to its proof, s", "a flip off, the same",
    )
}  # fmt: skip


def _sizes(fleets: dict[str, Any], wanted: dict[str, tuple[Keys, str]]) -> str:
    """A column for each fleet, and a sentence for each part that failed."""
    titles = [f"{int(size):,}" for size in (name.partition("/")[0] for name in fleets)]
    rows = [("TTL, s", *(name.partition("/")[2] for name in fleets))]
    rows += [(name, *(_find(it, path, form) for it in fleets.values())) for name, (path, form) in wanted.items()]
    failed = [
        f"- {title} processes, {part}: {found['failed']}."
        for title, fleet in zip(titles, fleets.values(), strict=True)
        for part, found in (("start", fleet), *fleet.items())
        if isinstance(found, dict) and "failed" in found
    ]
    return "\n\n".join(
        [_table(("processes", *titles), rows), *(["What did not end in time:", "\n".join(failed)] if failed else [])]
    )


def _find(data: Any, path: Keys, form: str) -> str:
    for name in path:
        data = data.get(name, {})
    return "" if isinstance(data, dict) else format(data, form)


TABLES: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "peers": _peers,
    "sockets": _sockets,
    "slowest": _slowest,
    "propagation": _propagation,
    "rivals": lambda data: _propagation(data, "library"),
    "hot_path": _hot_path,
    "fleet": _fleet,
    "ten_thousand, polling": lambda data: _sizes(data["through PgBouncer"], _POLLING),
    "ten_thousand, listening": lambda data: _sizes(data["listening"], _LISTENING),
}
"""How each table is made, by its name."""
