"""`python -m tests.simulation`: many runs of the simulation, on every core."""

import argparse
import collections
import multiprocessing
import os
import time

from tests.simulation.scenario import run, story


def _replayed(seed: int, size: int | None) -> int:
    outcome = run(seed, size=size)
    for moment, stamp, kind, who, what in outcome.trace:
        print(f"{moment:12.6f} {stamp:8d} {who:12} {kind} {what}")
    print(f"seed {seed}: faults {' '.join(sorted(outcome.faults)) or 'none'}; digest {outcome.digest}")
    for violation in outcome.violations:
        print(f"VIOLATED: {violation}")
    return 1 if outcome.violations else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of 3 to 20 processes (default: %(default)s)")
    parser.add_argument("--large", type=int, default=20, help="of 200 processes (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at the same time (default: each core)")
    parser.add_argument("--seed", type=int, help="replay one run and print its story")
    parser.add_argument("--size", type=int, help="of the run that is replayed")
    given = parser.parse_args()
    if given.seed is not None:
        return _replayed(given.seed, given.size)
    began, counts, failed = time.monotonic(), collections.Counter[str](), 0
    tasks = [(seed, 200) for seed in range(given.first, given.first + given.large)]
    tasks += [(seed, None) for seed in range(given.first, given.first + given.runs)]
    with multiprocessing.Pool(given.jobs) as pool:
        for done, (seed, size, violations, counted) in enumerate(pool.imap_unordered(story, tasks, chunksize=1), 1):
            counts.update(counted)
            if violations:
                failed += 1
                again = f"python -m tests.simulation --seed {seed}{f' --size {size}' if size else ''}"
                print(f"VIOLATED: {violations[0]}\n  replay: {again}", flush=True)
            if done % 1000 == 0:
                print(f"{done} runs, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{len(tasks)} runs, {failed} with violations, {time.monotonic() - began:.0f} s")
    print(", ".join(f"{what}: {count}" for what, count in sorted(counts.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
