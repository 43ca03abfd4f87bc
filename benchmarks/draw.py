"""Plots as SVG, on a white card: so they can be read in a dark colour scheme too."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final

WIDTH: Final = 760
LEFT: Final = 250
"""The space for the names of the bars."""

ROW: Final = 24
COLOURS: Final = ("#1d4ed8", "#c2410c", "#15803d", "#7e22ce", "#0e7490", "#a16207")


def bars(title: str, rows: Sequence[tuple[str, float, str]], *, colours: Mapping[str, int] | None = None) -> str:
    """Return horizontal bars on a scale of powers of ten.

    Args:
        title: Above the bars, with the unit.
        rows: The name, the value above zero, and the text beside the bar.
        colours: The colour of a bar by its name, as an index; 0 for the others.
    """
    low, high = _decades([value for _, value, _ in rows])
    scale = (WIDTH - LEFT - 110) / max(high - low, 1)
    parts = []
    for number, (name, value, beside) in enumerate(rows):
        y = 44 + number * ROW
        width = max((log10(value) - low) * scale, 2)
        colour = COLOURS[(colours or {}).get(name, 0)]
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{ROW - 8}" rx="2" fill="{colour}"/>',
            f'<text x="{LEFT + width + 6:.1f}" y="{y + 13}">{escape(beside)}</text>',
        ]
    return _card(title, parts, 56 + len(rows) * ROW)


Points = Sequence[tuple[float, float]]


def lines(title: str, series: Mapping[str, Points], *, x: str, y: str, log_x: bool = False, log_y: bool = False) -> str:
    """Return lines over two axes.

    Args:
        title: Above the plot.
        series: The points of each line, by its name.
        x: What the horizontal axis shows, with the unit.
        y: What the vertical axis shows, with the unit.
        log_x: Whether the horizontal axis is one of powers of ten. Then no value is zero.
        log_y: The same for the vertical axis.
    """
    left, top, width, height = 70, 50, WIDTH - 100, 260
    points = [point for line in series.values() for point in line]
    across = _Axis([at for at, _ in points], left, left + width, log=log_x)
    up = _Axis([at for _, at in points], top + height, top, log=log_y)
    parts = []
    for at, label in across.ticks():
        parts.append(f'<text x="{at:.1f}" y="{top + height + 18}" text-anchor="middle">{label}</text>')
    for at, label in up.ticks():
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across.place(a):.1f},{up.place(b):.1f}" for a, b in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        place = left + 10 + number * (width // max(len(series), 1))
        parts.append(f'<text x="{place}" y="{top - 8}" fill="{colour}" font-weight="600">{escape(name)}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 38}" text-anchor="middle">{escape(x)}</text>')
    middle = top + height / 2
    parts.append(
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{escape(y)}</text>'
    )
    return _card(title, parts, top + height + 52)


class _Axis:
    """Places values between two ends of the card."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, log: bool) -> None:
        self._log, self._start, self._end = log, start, end
        if log:
            self._low, self._high = map(float, _decades(values))
        else:
            self._low, self._high = 0.0, _round_up(max(values))

    def place(self, value: float) -> float:
        at = log10(value) if self._log else value
        return self._start + (at - self._low) / (self._high - self._low) * (self._end - self._start)

    def ticks(self) -> list[tuple[float, str]]:
        if self._log:
            values = [10.0**power for power in range(int(self._low), int(self._high) + 1)]
        else:
            values = [self._high * step / 5 for step in range(6)]
        return [(self.place(value), f"{value:,.10g}") for value in values]


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low = floor(log10(min(values)))
    return low, max(ceil(log10(max(values))), low + 1)


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def _card(title: str, parts: Sequence[str], height: float) -> str:
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    font = 'font-family="system-ui, sans-serif" font-size="12" fill="#0f172a"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {font}>',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height:.0f}" rx="8" fill="#ffffff" stroke="#e2e8f0"/>',
            f'<text x="16" y="26" font-size="14" font-weight="600">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )
