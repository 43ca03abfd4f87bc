"""``maintenance on``, ``off`` and ``wait``: the flip, and the wait for the fleet."""

import argparse
import datetime as dt
import shlex
from dataclasses import asdict, replace

from maintenance.base.values import Snapshot
from maintenance.cli import options
from maintenance.cli.display import Watch, shown
from maintenance.cli.standings import NOBODY, line, next_step, result_json, summary
from maintenance.cli.store import warn, watching
from maintenance.cli.text import emit, ended, flag_json, flipped, number, printable, scrub, span, word
from maintenance.errors import ConfigurationError
from maintenance.process.state import MaintenanceState
from maintenance.proof.judge import Proof
from maintenance.proof.membership import HEARTBEAT

NOT_PROVEN = 4
INTERRUPTED = 130


class Ended(Exception):  # noqa: N818 - an interrupted wait is an end, and no error
    """Ends the command with one line on stderr and an exit status.

    Attributes:
        status: The exit status.
    """

    def __init__(self, message: str, status: int) -> None:
        """Remember both."""
        super().__init__(message)
        self.status = status


def flip(args: argparse.Namespace) -> int:
    """Write the flag; where asked for, wait until it has provably arrived."""
    enabled = args.command == "on"
    now = dt.datetime.now(dt.UTC)
    details = options.details(args, now=now)
    # A file that is made this moment cannot be the one that a fleet follows.
    state = watching(args, create=enabled and not args.wait)
    try:
        snapshot = state.set(enabled, updated_by=args.updated_by, **asdict(details))
    except KeyboardInterrupt:
        raise Ended(
            "interrupted while it was written: `maintenance status` tells whether it was", INTERRUPTED
        ) from None
    _tell(snapshot, state.store.name, now=now, json=args.json, waits=args.wait)
    if ended(snapshot, now=now):
        warn("the expected end lies in the past; nothing switches off by itself")
    return _wait(state, snapshot, args) if args.wait else 0


def wait(args: argparse.Namespace) -> int:
    """Prove the flag as it stands."""
    state = watching(args)
    snapshot = state.refresh()
    asked = snapshot if args.revision is None else replace(snapshot, revision=args.revision)
    if args.drain and not snapshot.enabled and asked == snapshot:
        raise ConfigurationError("--drain waits for what is refused, and maintenance is off: leave it out")
    args.drain = args.drain and snapshot.enabled
    _tell(snapshot, state.store.name, now=dt.datetime.now(dt.UTC), json=args.json, waits=True)
    return _wait(state, asked, args)


def _tell(snapshot: Snapshot, store: str, *, now: dt.datetime, json: bool, waits: bool) -> None:
    if json:
        event = {"event": "flag"} if waits else {}
        emit({**event, **flag_json(snapshot, store)})
        return
    print("\n".join(flipped(snapshot, store, now=now)), flush=True)
    if waits:
        print(f"waiting for every process; Ctrl-C ends the wait and leaves it {word(snapshot)}", flush=True)


def _wait(state: MaintenanceState, snapshot: Snapshot, args: argparse.Namespace) -> int:
    if args.presume_dead is not None and args.presume_dead < 2 * HEARTBEAT:
        silent = f"for {span(HEARTBEAT)} and its TTL"
        warn(f"a process that lives may be silent {silent}, and --presume-dead takes it for dead")
    watch = Watch()
    try:
        with shown(watch, json=args.json):
            proof = state.prove(
                snapshot,
                drain=args.drain,
                timeout=args.timeout,
                expect=args.expect,
                presume_dead=args.presume_dead,
                progress=watch,
            )
    except KeyboardInterrupt:
        proof = Proof(proven=False, revision=snapshot.revision) if watch.proof is None else watch.proof
        _conclude(proof, watch, snapshot, args, interrupted=True)
        stays = f"maintenance stays {word(snapshot)} (revision {snapshot.revision})"
        raise Ended(f"interrupted: the wait has ended; {stays}", INTERRUPTED) from None
    _conclude(proof, watch, snapshot, args, interrupted=False)
    if proof:
        return 0
    raise Ended(_verdict(proof, watch, snapshot), NOT_PROVEN)


def _conclude(proof: Proof, watch: Watch, snapshot: Snapshot, args: argparse.Namespace, *, interrupted: bool) -> None:
    standings = watch.standings
    if args.json:
        emit(result_json(proof, standings, snapshot, interrupted=interrupted))
    else:
        print(printable(summary(proof, standings, snapshot, drain=args.drain)), flush=True)
        for standing in watch.waiting:
            print(f"  {line(standing, revision=snapshot.revision)}", flush=True)
        if not proof and not proof.final:
            print(next_step(_again(snapshot, args), waits=bool(watch.waiting)), flush=True)
    if proof and not proof.confirmed and not proof.fenced:
        warn(NOBODY)


def _verdict(proof: Proof, watch: Watch, snapshot: Snapshot) -> str:
    obstacles = [proof.problem] if proof.problem else []
    if waiting := watch.waiting:
        obstacles.append(f"{number(len(waiting), 'process')} not accounted for")
    stays = "`maintenance status` tells more" if proof.final else f"maintenance stays {word(snapshot)}"
    return f"NOT PROVEN after {span(proof.elapsed)}: {'; '.join([*obstacles, stays])}"


def _again(snapshot: Snapshot, args: argparse.Namespace) -> str:
    """The command that asks the same again; where a password is masked in it, that is to be written anew."""
    said = {
        "database": None if args.database is None else shlex.quote(scrub(args.database)),
        "revision": snapshot.revision,
        "expect": args.expect,
        "timeout": None if args.timeout is None else f"{args.timeout:.15g}",
        "presume-dead": None if args.presume_dead is None else f"{args.presume_dead:.15g}s",
    }
    given = [f"--{option} {value}" for option, value in said.items() if value is not None]
    return " ".join(["maintenance wait", *given, *(["--drain"] if args.drain else [])])
