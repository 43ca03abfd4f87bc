"""What a running wait looks like: a live view on a terminal, plain lines elsewhere, JSON for machines."""

import contextlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from maintenance.cli import text
from maintenance.cli.standings import WORDINGS, Event, Standing, Standings, build_standing_json
from maintenance.proof.judge import Progress

if TYPE_CHECKING:
    from rich.text import Text

_AROUND: Final = 4
"""Lines of a terminal that stay free for the text around the processes."""


@contextlib.contextmanager
def show_progress(standings: Standings, *, json: bool) -> Iterator[Progress]:
    """Show a wait in the way that suits the output; yield the function that takes each judgement."""
    if json or not text.has_terminal(sys.stdout) or find_spec("rich") is None:
        show = print_json_event if json else print_event
        yield lambda proof: [show(standings, event) for event in standings.update(proof)]
        return
    from rich.console import Console  # noqa: PLC0415 - only on a terminal, and only if it is installed
    from rich.live import Live  # noqa: PLC0415

    console = Console(file=sys.stdout)
    with Live(
        console=console,
        get_renderable=lambda: draw(standings, height=console.height),
        refresh_per_second=8,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield standings.update


def print_event(standings: Standings, event: Event) -> None:
    """Print a line for each change, so that a log stays short."""
    if not isinstance(event, Standing):
        line = text.escape(event or "this obstacle is gone")
    elif standings.proof.final:
        return  # the flag is another one, so no process has to follow this one any more
    else:
        verdict = text.paint(f"{event.verdict:<13}", WORDINGS[event.verdict].color)
        line = f"{verdict}  {standings.describe(event)}"
    print(f"  {text.format_span(standings.proof.elapsed):>7}  {line}", flush=True)


def print_json_event(standings: Standings, event: Event) -> None:
    """Print a JSON object for each change."""
    elapsed = standings.proof.elapsed
    if isinstance(event, Standing):
        text.print_json({"event": "instance", "elapsed": elapsed, **build_standing_json(event)})
    else:
        text.print_json({"event": "problem", "problem": event, "elapsed": elapsed})


def draw(standings: Standings, *, height: int) -> "Text":
    """Draw every process with rich; those that are waited for come first, with the reason on a second line.

    Args:
        standings: The processes.
        height: Of the terminal, in lines.
    """
    from rich.text import Text  # noqa: PLC0415

    ordered = sorted(standings.known.values(), key=lambda it: list(WORDINGS).index(it.verdict))
    room, shown, lines = max(height - _AROUND, 3), 0, list[Text]()
    for standing in ordered:
        drawn = [Text(line, _choose_color(standing)) for line in _draw_process(standing)]
        if len(lines) + len(drawn) > room:
            break
        lines += drawn
        shown += 1
    if len(ordered) > shown:
        lines.append(Text(f"and {len(ordered) - shown} more"))
    lines.append(Text(_describe_progress(standings)))
    # On a narrow terminal, each line is cut at its end, which is the reason.
    return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)


def _choose_color(standing: Standing) -> text.Color:
    is_silent = standing.verdict == "waiting" and text.is_silent(standing.instance)
    return "red" if is_silent else WORDINGS[standing.verdict].color


def _draw_process(standing: Standing) -> list[str]:
    """Return the lines of a process: short, because a terminal may be narrow."""
    instance, waits = standing.instance, standing.verdict == "waiting"
    seen = f"seen {text.format_seen(instance)}" if waits else standing.why
    if waits and text.is_silent(instance):
        seen = f"SILENT for {text.format_span(instance.silent_for)}"
    place = f"{text.shorten_host(instance)} pid {instance.pid} (id {text.format_id(instance)})"
    head = f"{standing.verdict:<13}  {place}: {text.escape(seen)}"
    return [head, f"{'':13}  {text.escape(standing.why)}"] if waits else [head]


def _describe_progress(standings: Standings) -> str:
    known, problem = len(standings.known), standings.proof.problem
    if not known and not problem:
        return "reading the fleet"
    waiting = f"{len(standings.waiting)} of {text.format_count(known, 'process')} to go"
    limit = standings.proof.limit
    ends = "" if limit is None else f"; gives up in {text.format_span(limit - standings.proof.elapsed)}"
    obstacle = f"; {text.escape(problem)}" if problem else ""
    return f"{text.format_span(standings.proof.elapsed)}: {waiting}{ends}{obstacle}"
