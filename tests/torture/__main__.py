"""Flips of a large fleet that is being broken: ``python -m tests.torture --flips 1000 --processes 60``."""

import argparse
import random
import sys
import time

from tests.torture.trial import Tally, trial


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=120.0, help="end after so many, whatever --flips says")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the faults; not of their timing")
    options = parser.parse_args()
    began = time.monotonic()
    print(f"{options.flips} flips of {options.processes} processes, --seed {options.seed}", flush=True)
    with trial(processes=options.processes, seed=options.seed) as running:
        while running.tally.flips < options.flips and time.monotonic() - began < options.minutes * 60:
            running.flip(running.plan())
            if running.tally.flips % 50 == 0 or len(running.tally.violations):
                print(summary(running.tally, time.monotonic() - began), flush=True)
            if len(running.tally.violations) > 20:
                break
    print(summary(running.tally, time.monotonic() - began))
    return 1 if running.tally.violations else 0


def summary(tally: Tally, seconds: float) -> str:
    lines = [f"{tally.flips} flips in {seconds:.0f} s, {len(tally.violations)} violations"]
    lines += [f"  {count:6} {outcome}" for outcome, count in sorted(tally.outcomes.items())]
    for name, counts in (("instances", tally.instances), ("faults", tally.faults)):
        lines.append(f"  {name}: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    lines.append(f"  requests: {tally.admitted} let in, {tally.refused} refused")
    return "\n".join([*lines, *(f"  VIOLATION {violation}" for violation in tally.violations)])


if __name__ == "__main__":
    sys.exit(main())
