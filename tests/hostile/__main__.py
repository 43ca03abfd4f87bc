"""``python -m tests.hostile``: many hostile paths, on every core."""

import argparse
import multiprocessing
import os
import time

from tests.hostile.paths import SHARE, Tally, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="how many targets (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at the same time (default: each core)")
    given = parser.parse_args()
    began, whole, seeds = time.monotonic(), Tally(), range(given.first, given.first + -(-given.runs // SHARE))
    with multiprocessing.Pool(given.jobs) as pool:
        for tally in pool.imap_unordered(run, seeds):
            whole.failures += tally.failures
            whole.counts += tally.counts
            for failure in tally.failures[:5]:
                print(f"FAILED: {failure}", flush=True)
    print(f"{len(seeds) * SHARE} targets, {len(whole.failures)} failures, {time.monotonic() - began:.0f} s")
    print(", ".join(f"{what}: {count}" for what, count in sorted(whole.counts.items())))
    return 1 if whole.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
