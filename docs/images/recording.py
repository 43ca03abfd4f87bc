"""Record ``maintenance on --wait`` as an animated SVG: ``python docs/images/recording.py [FOLDER]``.

Four real processes serve, one of them still handles a request, and the command runs in a terminal of its own.
"""

import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from html import escape
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pyte
from pyte.screens import Char

HERE = Path(__file__).parent
COMMAND = (
    "maintenance on --wait --drain --expect 4 --message 'Back at noon.' --for 30m --actor ann --reason 'new database'"
)
HOSTS = ("web-1", "web-1", "web-2", "web-2")
SECONDS = 3.0
"""How long the request takes that the drain waits for."""

APP = f"""
import asyncio, os, socket
socket.gethostname = lambda: os.environ["HOST"]  # no image shows the name of a real machine
from fastapi import FastAPI
from maintenance.asgi import MaintenanceMiddleware

app = FastAPI()
app.add_middleware(MaintenanceMiddleware)

@app.get("/report")
async def report() -> None:
    open("begun", "x").close()
    await asyncio.sleep({SECONDS})
"""

COLUMNS, ROWS = 118, 22
SIZE, ADVANCE, LINE, MARGIN = 14, 8.43, 19, 14
HOLD = 5.0
"""Seconds for which the last frame stays before the recording begins again."""

COLORS = {"green": "#7ee787", "red": "#ff7b72", "brown": "#e3b341", "cyan": "#79c0ff", "blue": "#79c0ff"}

Row = tuple[tuple[str, str, bool], ...]
"""The runs of one line: text, color, whether it is bold."""


class Frame(NamedTuple):
    """The rows of the terminal from a moment on."""

    at: float
    rows: tuple[Row, ...]


@contextmanager
def _serve(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run one process for each host; yield the URL of the first one."""
    (folder / "shop.py").write_text(APP)
    with ExitStack() as stack:
        ports = []
        for host in HOSTS:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(listener.getsockname()[1])
            command = [sys.executable, "-m", "uvicorn", "--log-level=warning", f"--fd={listener.fileno()}", "shop:app"]
            process = stack.enter_context(
                subprocess.Popen(command, cwd=folder, env=environment | {"HOST": host}, pass_fds=[listener.fileno()])
            )
            stack.callback(process.terminate)
        while len(json.loads(_run("maintenance", "fleet", "--json", folder=folder, env=environment))["instances"]) < 4:
            time.sleep(0.1)
        yield f"http://127.0.0.1:{ports[0]}"


def _run(*command: str, folder: Path, env: dict[str, str]) -> str:
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout


def _record(folder: Path, environment: dict[str, str]) -> list[Frame]:
    """Run the command in a terminal; return each picture that it shows."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {COMMAND}\r\n".encode())
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    with subprocess.Popen(["sh", "-c", COMMAND], cwd=folder, env=environment, stdout=slave, stderr=slave):
        os.close(slave)
        frames, began = [Frame(0.0, _read_rows(screen))], time.monotonic()
        for chunk in _read(master):
            stream.feed(chunk.replace(f"{folder}/".encode(), b""))  # the folder is a temporary one
            rows = _read_rows(screen)
            if rows != frames[-1].rows:
                frames.append(Frame(time.monotonic() - began, rows))
    return frames


def _read(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # what Linux answers when the command has ended
            chunk = b""
        if not chunk:
            os.close(descriptor)
            return
        yield chunk


def _read_rows(screen: pyte.Screen) -> tuple[Row, ...]:
    def read_row(number: int) -> Row:
        line = screen.buffer[number]
        runs = groupby((line[column] for column in range(COLUMNS)), lambda it: (it.fg, it.bold))
        found = [(_join(cells), color, bold) for (color, bold), cells in runs]
        if found and not found[-1][0].strip():
            found.pop()
        return tuple(found)

    return tuple(map(read_row, range(ROWS)))


def _join(cells: Iterator[Char]) -> str:
    return "".join(cell.data for cell in cells)


def _draw(frames: list[Frame]) -> str:
    """Draw each row once for each text that it shows. Only its visibility is animated."""
    total = frames[-1].at + HOLD
    height = max(number for number, row in enumerate(frames[-1].rows, 1) if row)
    body, rules = [], []
    for number in range(height):
        for row, start, end in _find_spans(frames, number):
            name = f"t{len(body)}"
            if start > 0 or end is not None:
                steps = [f"0%{{visibility:{'hidden' if start else 'visible'}}}"]
                steps += [f"{100 * start / total:.2f}%{{visibility:visible}}"] * (start > 0)
                steps += [f"{100 * end / total:.2f}%,100%{{visibility:hidden}}"] if end is not None else []
                rules.append(f"@keyframes {name}{{{''.join(steps)}}}.{name}{{animation-name:{name}}}")
            last = "" if end is None else " old"
            body.append(f'<text class="{name}{last}" y="{MARGIN + (number + 1) * LINE}">{_draw_row(row)}</text>')
    width, height = round(2 * MARGIN + COLUMNS * ADVANCE), 2 * MARGIN + (height + 1) * LINE - SIZE // 2
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>A terminal: maintenance on --wait lists each process until all of them have stopped</title>
<style>
text{{font:{SIZE}px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#e6edf3;white-space:pre}}
text{{animation:none {total:.2f}s step-end infinite}}
.b{{font-weight:bold}}.old{{visibility:hidden}}
{"".join(f".{name}{{fill:{color}}}" for name, color in COLORS.items())}
{"".join(rules)}
@media(prefers-reduced-motion:reduce){{text{{animation:none}}}}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
{chr(10).join(body)}
</svg>
"""


def _find_spans(frames: list[Frame], number: int) -> Iterator[tuple[Row, float, float | None]]:
    """Find the texts of one row, with the time from which and until which it shows each of them."""
    spans = [(row, next(group).at) for row, group in groupby(frames, lambda frame: frame.rows[number])]
    for (row, start), following in zip(spans, [*spans[1:], None], strict=True):
        if row:
            yield row, start, following[1] if following else None


def _draw_row(row: Row) -> str:
    drawn, column = "", 0
    for text, color, bold in row:
        classes = " ".join([color] * (color in COLORS) + ["b"] * bold)
        marked = f' class="{classes}"' if classes else ""
        drawn += f'<tspan x="{MARGIN + column * ADVANCE:.1f}"{marked}>{escape(text.rstrip())}</tspan>'
        column += len(text)
    return drawn


def main(folder: Path = HERE) -> None:
    """Write the recording into a folder."""
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        environment = {
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "MAINTENANCE_DATABASE_URL": "sqlite:///shop.db",
            "TERM": "xterm-256color",
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }
        _run("maintenance", "migrate", folder=here, env=environment)
        with _serve(here, environment) as url:
            asked = threading.Thread(target=lambda: urlopen(f"{url}/report").close())  # noqa: S310 - on loopback
            asked.start()
            while not (here / "begun").exists():
                time.sleep(0.01)
            frames = _record(here, environment)
            asked.join()
    (folder / "wait.svg").write_text(_draw(frames), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
