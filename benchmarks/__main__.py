"""All benchmarks, or those named: ``python -m benchmarks hot_path``."""

import argparse
import importlib
import os
import sys
from typing import Final

BENCHMARKS: Final = {
    "hot_path": "hot_path:run",
    "propagation": "propagation:run",
    "rivals": "rivals:run",
    "fleet": "fleet:run",
    "faulted": "fleet:run_faulted",
    "peers": "peers:run",
    "sockets": "sockets:run",
    "slowest": "slowest:run",
    "ten_thousand": "ten_thousand:run",
    "draw": "plots:run",
}
"""Where each one is. Only those that are asked for are imported, because each one needs other packages."""

NAMED: Final = {"ten_thousand", "draw"}
"""Those that run only if they are named. The first takes many minutes, and the second one draws what is kept."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or [name for name in BENCHMARKS if name not in NAMED]
    if unknown := sorted(set(names) - BENCHMARKS.keys()):
        parser.error(f"no benchmark is called {', '.join(unknown)}: choose from {', '.join(BENCHMARKS)}")
    for name in names:
        load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
        print(f"{name}: {sys.version.split()[0]}, {os.cpu_count()} cores, load {load}", flush=True)
        module, _, function = BENCHMARKS[name].partition(":")
        getattr(importlib.import_module(f"benchmarks.{module}"), function)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
