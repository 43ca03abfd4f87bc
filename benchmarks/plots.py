"""The plots and tables of the documentation, from the results that are kept: ``python -m benchmarks draw``."""

from pathlib import Path
from typing import Any, Final

from benchmarks import results, tables
from benchmarks.draw import lines

IMAGES: Final = Path(__file__).parent.parent / "docs" / "images"

LOAD: Final = {"PostgreSQL": "cpu of postgres", "PgBouncer": "cpu of pgbouncer", "the simulator": "cpu of simulator"}


def run() -> None:
    """Draw what has been measured."""
    fleets = results.load("ten_thousand")["data"]["through PgBouncer"]
    sizes = {
        int(name.removesuffix("/10")): it for name, it in fleets.items() if name.endswith("/10") and "steady" in it
    }
    _save("sizing-load", _load(sizes))
    _save("sizing-restart", _restart(sizes))
    for name, svg in tables.plot().items():
        _save(name, svg)
    tables.write()


def _save(name: str, svg: str) -> None:
    (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(f"  drawn {name}.svg")


def _load(sizes: dict[int, Any]) -> str:
    series = {
        name: [(size, max(sizes[size]["steady"][key], 0.001)) for size in sorted(sizes)] for name, key in LOAD.items()
    }
    return lines(
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
    return lines(title, series, x=across, y=f"in {found['bin']:g} s")
