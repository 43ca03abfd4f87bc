"""How a figure is shown."""

import statistics
from collections.abc import Sequence


def line(what: str, measured: float, unit: str, *, limit: float | None = None, more: str = "") -> None:
    """One figure, beside its limit if it has one."""
    beside = "" if limit is None else f"  limit {limit:g}{unit:<4} {'ok' if measured <= limit else 'OVER'}"
    print(f"  {what:<46} {measured:8.2f} {unit:<4}{beside}{f'  ({more})' if more else ''}", flush=True)


def spread(seconds: Sequence[float]) -> str:
    """What a median leaves out, in milliseconds."""
    tenths = statistics.quantiles(seconds, n=10) if len(seconds) > 1 else [*seconds] * 9
    least, ninth, most = (value * 1e3 for value in (min(seconds), tenths[8], max(seconds)))
    return f"{len(seconds)} times; min {least:.1f}, p90 {ninth:.1f}, max {most:.1f} ms"
