"""``python -m tests.faults``: run every fault, save the result and write the table."""

import argparse
import sys
from typing import Any

from benchmarks.results import load, save
from tests.faults.page import write
from tests.faults.runner import lab, run
from tests.faults.soak import grown, soak
from tests.faults.table import FAULTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", help="run the faults whose names contain one of these, replace their rows")
    parser.add_argument("--soak", type=int, default=1000, help="outages of the soak (default: %(default)s)")
    parser.add_argument("--page", action="store_true", help="only write the table again, from the saved result")
    given = parser.parse_args()
    if given.page:
        write(load("faults"))
        return 0
    with lab() as shared:
        rows = run_all(shared, only=given.only or [""])
        data = load("faults")["data"] if given.only else {"faults": [], "soak": soak(shared, given.soak)}
        others = [row for row in data["faults"] if row["fault"] not in {new["fault"] for new in rows}]
        names = [fault.name for fault in FAULTS]
        data["faults"] = sorted((*others, *rows), key=lambda row: names.index(row["fault"]))
        note = f"PostgreSQL {shared.server.version}. The TTL is 1 s, and each fault lasts at least 3 s."
    save("faults", data, command="make faults", versions=["psycopg"], note=note)
    write(load("faults"))
    leaks = grown(data["soak"])
    _show("soak", leaks, data["soak"])
    return 1 if leaks or any(row["broken"] for row in data["faults"]) else 0


def run_all(shared: Any, *, only: list[str]) -> list[dict[str, Any]]:
    rows = []
    for fault in FAULTS:
        if any(it.lower() in f"{fault.group}: {fault.name}".lower() for it in only):
            for row in run(fault, shared):
                _show(f"{row['fault']} ({row['flag']}, {row['when_stale']})", row["broken"], row)
                rows.append(row)
    return rows


def _show(name: str, broken: list[str], row: dict[str, Any]) -> None:
    print(f"{'BROKEN' if broken else 'ok':6} {name} {row}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
