"""All benchmarks, or those named: ``python -m benchmarks hot_path``."""

import argparse
import os
import sys

from benchmarks import fleet, flip, hot_path

BENCHMARKS = {"hot_path": hot_path.run, "flip": flip.run, "fleet": fleet.run, "faulted": fleet.run_faulted}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := sorted(set(names) - BENCHMARKS.keys()):
        parser.error(f"no benchmark is called {', '.join(unknown)}: choose from {', '.join(BENCHMARKS)}")
    for name in names:
        load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
        print(f"{name}: {sys.version.split()[0]}, {os.cpu_count()} cores, load {load}", flush=True)
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
