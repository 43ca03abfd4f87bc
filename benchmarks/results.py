"""Results as data: what was measured, with which command, on what machine, with which versions, and when."""

import datetime as dt
import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil

FOLDER: Final = Path(__file__).parent / "results"


def save(name: str, data: Any, *, versions: Iterable[str] = (), note: str = "", command: str = "") -> Path:
    """Write a result, and return its file.

    Args:
        name: Of the benchmark, as in ``python -m benchmarks NAME``.
        data: What was measured, as JSON allows.
        versions: The distributions whose versions count.
        note: What a reader should know of this run.
        command: What runs it, if it is no benchmark.
    """
    result = {
        "command": command or f"python -m benchmarks {name}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": {"Python": platform.python_version()} | {one: version(one) for one in versions},
        "note": note,
        "data": data,
    }
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load(name: str) -> dict[str, Any]:
    """Return a result that was saved."""
    result: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return result


def describe_machine() -> dict[str, Any]:
    """Return the kind of machine, and how busy it is. Nothing that names it."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def describe(result: dict[str, Any]) -> str:
    """Return the sentence below a table or a plot: the command, the machine, the versions and the date."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    where = f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, load {machine['load']}"
    note = f" {result['note']}" if result["note"] else ""
    return f"`{result['command']}`, {result['date']}, {where}. {versions}.{note}"
