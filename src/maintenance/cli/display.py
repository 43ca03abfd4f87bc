"""What a wait looks like: a live table on a terminal, plain lines elsewhere, JSON for machines."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from maintenance.cli.standings import Standing, Standings, line, standing_json
from maintenance.cli.text import emit, name, number, printable, span
from maintenance.proof.judge import Proof

if TYPE_CHECKING:
    from rich.table import Table

_ORDER: Final = ("waiting", "fenced", "presumed dead", "left", "gone", "confirmed")
_STYLES: Final = {"waiting": "yellow", "confirmed": "green", "fenced": "cyan", "presumed dead": "magenta"}
_FRAME: Final = 8
"""Lines of a terminal that the table leaves to its own frame and to what stands around it."""


Show = Callable[[Proof, Sequence[Standing], bool], None]
"""Shows a judgement, the instances that stand differently than before, and whether `Proof.problem` is another one."""


def lines(proof: Proof, changed: Sequence[Standing], problem: bool) -> None:
    """Plain lines, each written once, so that a log of them reads well."""
    if problem:
        print(
            f"  {span(proof.elapsed):>7}  {printable(proof.problem or 'nothing else stands in the way any more')}",
            flush=True,
        )
    # Where the flag is another one by now, nobody has to follow this one any more.
    for it in () if proof.final else changed:
        print(f"  {span(proof.elapsed):>7}  {it.word:<13}  {line(it, revision=proof.revision)}", flush=True)


def json_lines(proof: Proof, changed: Sequence[Standing], problem: bool) -> None:
    """One JSON object a line."""
    if problem:
        emit({"event": "problem", "problem": proof.problem, "elapsed": proof.elapsed})
    for it in changed:
        emit({"event": "instance", "elapsed": proof.elapsed, **standing_json(it)})


class Watch:
    """What `MaintenanceState.prove` reports its progress to."""

    def __init__(self) -> None:
        """Know nothing yet, and show nothing: a live table looks at what is known, several times a second."""
        self.standings = Standings()
        self.show: Show = lambda *_: None
        self.proof: Proof | None = None

    @property
    def waiting(self) -> list[Standing]:
        """Who has to follow, and is not accounted for: nobody any more, where the flag is another one by now."""
        return [] if self.proof is not None and self.proof.final else self.standings.waiting

    def __call__(self, proof: Proof) -> None:
        """Take a judgement, and show what is new in it."""
        before, self.proof = self.proof, proof
        changed = self.standings.update(proof)
        self.show(proof, changed, proof.problem != (None if before is None else before.problem))


@contextlib.contextmanager
def shown(watch: Watch, *, json: bool) -> Iterator[None]:
    """Show a wait in the way that suits whoever reads it."""
    if json or not _is_terminal() or find_spec("rich") is None:
        watch.show = json_lines if json else lines
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - only on a terminal, and only where it is installed
    from rich.live import Live  # noqa: PLC0415

    console = Console(file=sys.stdout)
    with Live(
        console=console,
        get_renderable=lambda: table(watch, height=console.height),
        refresh_per_second=8,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def table(watch: Watch, *, height: int) -> "Table":
    """Who stands how, as rich draws it, with whoever is waited for on top.

    Args:
        watch: What is known.
        height: Of the terminal, in lines.
    """
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(caption=Text(_caption(watch)), caption_justify="left", expand=True)
    # The last one alone gives way on a narrow terminal.
    for heading, ratio in (("process", None), ("standing", None), ("why", 1)):
        drawn.add_column(heading, overflow="ellipsis", no_wrap=True, ratio=ratio)
    ordered = sorted(watch.standings.known.values(), key=lambda it: _ORDER.index(it.word))
    room = max(height - _FRAME, 3)
    for it in ordered[:room]:
        cells = (name(it.instance), it.word, printable(it.why))
        drawn.add_row(*(Text(cell, _STYLES.get(it.word, "")) for cell in cells))
    if len(ordered) > room:
        drawn.add_row(f"and {len(ordered) - room} more")
    return drawn


def _caption(watch: Watch) -> str:
    if watch.proof is None:
        return "asking the store"
    waiting, known = len(watch.standings.waiting), len(watch.standings.known)
    said = f"{span(watch.proof.elapsed)}: {waiting} of {number(known, 'process')} to go"
    return f"{said}; {printable(watch.proof.problem)}" if watch.proof.problem else said
