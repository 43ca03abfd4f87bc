"""What may be written on the command line, and what its words mean."""

import argparse
import contextlib
import datetime as dt
import getpass
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import Final, NoReturn, get_args
from uuid import UUID

from maintenance._version import __version__
from maintenance.base.values import Details, Mode
from maintenance.cli.text import scrub
from maintenance.errors import ConfigurationError
from maintenance.proof.judge import LEAST_SILENCE
from maintenance.proof.membership import hostname

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_PARTS: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_PARTS.pattern})+", re.ASCII)

_QUOTED: Final = re.compile(r":(?!//)[^'\"]*@")
"""A password in a value that argparse quotes, which may hold blanks."""

_EXAMPLES: Final = {
    "on": """\
  maintenance on --message 'Back at noon' --for 30m
  maintenance on --until 2026-11-22T06:00:00+01:00 --reason 'upgrade of the database'
  maintenance on --mode read_only
  maintenance on --wait --drain --expect 12 && ./deploy""",
    "off": """\
  maintenance off
  maintenance off --wait --reason 'the upgrade is done'""",
    "wait": """\
  maintenance wait --drain
  maintenance wait --revision 42 --drain --expect 12 --presume-dead 10m""",
    "status": """\
  maintenance status
  maintenance status --json
  if maintenance status >/dev/null; then ./restart; fi     # exit status: 0 off, 3 on, 1 unknown""",
    "watch": """\
  maintenance watch
  maintenance watch --json | tee -a changes.jsonl""",
    "fleet": """\
  maintenance fleet
  maintenance fleet --json""",
    "forget": """\
  maintenance forget 6f1c2a90
  maintenance forget --silent 1h""",
    "migrate": """\
  maintenance migrate
  maintenance migrate --database postgresql://owner@db.example/shop""",
    "sql": """\
  maintenance sql | psql --single-transaction -v ON_ERROR_STOP=1 shop
  maintenance sql > migration.sql""",
    "demo": """\
  maintenance demo
  DEMO_ONCE=1 maintenance demo     # once through, then end
  MAINTENANCE_DATABASE_URL=postgresql://owner@localhost/scratch maintenance demo     # migrates it and flips it""",
}

_EXIT_CODES: Final = """\
exit status:
  0  done; with --wait: proven; `status`: maintenance is off
  1  failed: one line on stderr says why
  2  wrong usage; nothing was done
  3  `status`: maintenance is on
  4  --wait: not proven within the time-out, and the flag stays as it was set;
     or somebody else has flipped meanwhile
  130  ended by Ctrl-C, SIGTERM or SIGHUP; watch and demo end with 0 then
  141  the reader of the output has gone; what was written stands"""

_DATABASE: Final = """\
The database is named by --database, else by MAINTENANCE_DATABASE_URL, else by
DATABASE_URL. A password is better kept in a variable than in --database, which
other users of this machine can read."""


def duration(text: str) -> float:
    """Seconds of a duration with its unit.

    Args:
        text: A number and ``s``, ``m``, ``h`` or ``d``, such as ``30m`` or ``1.5h``; or several: ``1h30m``.

    Raises:
        argparse.ArgumentTypeError: It is something else.
    """
    parts = _PARTS.findall(text) if _DURATION.fullmatch(text.strip()) else []
    value = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if value == 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration: write a number above 0 and s, m, h or d, such as 30m"
        )
    return value


def silence(text: str) -> float:
    """Seconds of a duration after which a process may be taken for dead.

    Raises:
        argparse.ArgumentTypeError: It is something else, or shorter than `Question` takes.
    """
    value = duration(text)
    if value < LEAST_SILENCE:
        raise argparse.ArgumentTypeError(f"{text!r} is too short: write {LEAST_SILENCE}s or more, such as 10m")
    return value


def seconds(text: str) -> float:
    """Seconds of a duration whose unit may be left out.

    Raises:
        argparse.ArgumentTypeError: It is something else, or below 0.
    """
    try:
        value = duration(text) if _DURATION.fullmatch(text.strip()) else float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write seconds from 0 on, such as 30, or 5m")
    return value


def instant(text: str) -> dt.datetime:
    """An aware time in ISO 8601.

    Raises:
        argparse.ArgumentTypeError: It is something else, or names no time zone.
    """
    try:
        when = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no ISO time: write one such as {_example()}, or --for 30m"
        ) from None
    here = ""
    if when.utcoffset() is None:
        with contextlib.suppress(OverflowError, ValueError):  # this machine's zone has no such year
            here = f"{when.astimezone().isoformat()} for the time zone of this machine, "
        raise argparse.ArgumentTypeError(f"{text!r} names no time zone: write {here}{when.isoformat()}Z for UTC")
    return when


def _example() -> str:
    return (dt.datetime.now().astimezone() + dt.timedelta(hours=1)).isoformat(timespec="seconds")


def _whole(text: str, pattern: str, wrong: str) -> int:
    """A whole number that matches; `wrong` says what another text is not, and what to write."""
    if not re.fullmatch(pattern, text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is {wrong}")
    return int(text)


def count(text: str) -> int:
    """A whole number from 1 on.

    Raises:
        argparse.ArgumentTypeError: It is something else.
    """
    return _whole(text, r"0*[1-9]\d{0,8}", "no number of instances: write a whole number from 1 to 999999999")


def revision(text: str) -> int:
    """A revision of the flag.

    Raises:
        argparse.ArgumentTypeError: It is something else.
    """
    return _whole(text, r"\d{1,18}", "no revision: write the number that `on` or `status` tells")


def whole_seconds(text: str) -> int:
    """Whole seconds.

    Raises:
        argparse.ArgumentTypeError: It is something else.
    """
    return _whole(text, r"\d{1,18}", "no number of seconds: write a whole number up to 2147483647, such as 120")


def uuid(text: str) -> UUID:
    """A UUID.

    Raises:
        argparse.ArgumentTypeError: It is something else.
    """
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no UUID: write 32 hexadecimal digits, with or without hyphens"
        ) from None


def user_at_host() -> str:
    """Who runs this, for the record."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user often has a number only
        user = f"uid {os.getuid()}"
    return f"{user}@{hostname()}"


def details(args: argparse.Namespace, *, now: dt.datetime) -> Details:
    """What the arguments of ``on`` or ``off`` say about a maintenance.

    Args:
        args: As parsed.
        now: Aware; what ``--for`` counts from.

    Raises:
        ConfigurationError: A value can be kept in no store; the message says what to write.
    """
    said = {name: getattr(args, name, None) for name in ("message", "until", "retry_after", "reason")}
    try:
        if getattr(args, "duration", None) is not None:
            said["until"] = now.replace(microsecond=0) + dt.timedelta(seconds=args.duration)
        actor = user_at_host() if args.actor is None else args.actor
        return Details(mode=getattr(args, "mode", "full"), actor=actor, **said)
    except OverflowError:
        raise ConfigurationError("--for ends after the year 9999: write a shorter time") from None
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(str(exc)) from exc


_PROGRAM: Final = "maintenance"

_ORDER: Final = "options go after the command"


class Parser(argparse.ArgumentParser):
    """One line for a mistake, without the passwords that argparse would repeat."""

    def error(self, message: str) -> NoReturn:
        """End with exit status 2."""
        message = _QUOTED.sub(":***@", message)
        # One that stands before the command takes its place, or that of what the command line itself knows.
        order = f"{_ORDER}; " if self.prog == _PROGRAM else ""
        self.exit(2, f"{self.prog}: error: {scrub(message)} ({order}see `{self.prog} --help`)\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog=_PROGRAM,
        description="Put every process of a fleet into maintenance, and know when it has arrived.",
        epilog=f"{_DATABASE}\n\n{_EXIT_CODES}\n\nexamples:\n{_all_examples()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"maintenance {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    _add_on(_command(commands, "on", "switch maintenance on, for the whole fleet"))
    _add_off(_command(commands, "off", "switch maintenance off, for the whole fleet"))
    _add_proof(_command(commands, "wait", "prove the flag as it stands, without writing it"), implied=True)
    _command(commands, "status", "tell whether it is on: exit status 0 when off, 3 when on")
    _command(commands, "watch", "show the flag, then each change as it arrives, until Ctrl-C")
    _command(commands, "fleet", "show each process that serves, and what it has acknowledged")
    _add_forget(_command(commands, "forget", "remove processes from the fleet, on your word that they have ended"))
    _command(commands, "migrate", "bring the database to the form that this version needs; twice changes nothing")
    _command(commands, "sql", "print what `migrate` would apply to PostgreSQL", database=False)
    _command(commands, "demo", "two servers, one flip, to play with", database=False, json=False)
    return top


def _all_examples() -> str:
    return "\n".join(example.splitlines()[0] for example in _EXAMPLES.values())


def _command(
    commands: "argparse._SubParsersAction[Parser]", name: str, does: str, *, database: bool = True, json: bool = True
) -> Parser:
    command: Parser = commands.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=f"{_DATABASE + chr(10) * 2 if database else ''}examples:\n{_EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if database:
        command.add_argument("--database", metavar="URL", help="postgresql://user@host/database or sqlite:///path")
    if json:
        command.add_argument("--json", action="store_true", help="for machines: JSON, one object a line, times in UTC")
    return command


def _add_on(command: Parser) -> None:
    command.add_argument("--message", metavar="TEXT", help="what visitors are told")
    end = command.add_mutually_exclusive_group()
    end.add_argument("--until", metavar="TIME", type=instant, help="the expected end, in ISO 8601 with a time zone")
    end.add_argument(
        "--for", dest="duration", metavar="TIME", type=duration, help="the same, from now: 90s, 30m, 1h30m or 1d"
    )
    command.add_argument(
        "--retry-after", metavar="SECONDS", type=whole_seconds, help="what Retry-After says, instead of the time left"
    )
    command.add_argument(
        "--mode",
        choices=get_args(Mode),
        default="full",
        help="read_only lets GET, HEAD and OPTIONS pass (default: full)",
    )
    _add_who(command)
    _add_proof(command)


def _add_off(command: Parser) -> None:
    _add_who(command)
    _add_proof(command, drain=False)


def _add_who(command: Parser) -> None:
    command.add_argument("--actor", metavar="NAME", help="who flips it (default: user@host)")
    command.add_argument("--updated-by", metavar="UUID", type=uuid, help="who flips it, by the platform's own key")
    command.add_argument("--reason", metavar="TEXT", help="why, for the record; visitors never see it")


def _add_proof(command: Parser, *, implied: bool = False, drain: bool = True) -> None:
    wait = command.add_argument_group("proof")
    if implied:
        command.set_defaults(wait=True)
        wait.add_argument(
            "--revision",
            metavar="N",
            type=revision,
            help="fail unless the flag is still at the revision that `on` told",
        )
    else:
        wait.add_argument(
            "--wait", action="store_true", help="wait until every process has provably followed; exit status 4 if not"
        )
    also = "also wait until nothing that is refused is in flight" + ("" if implied else "; implies --wait")
    wait.add_argument("--drain", action="store_true", help=also if drain else argparse.SUPPRESS)
    longer = "; 30 s more for --drain" if drain else ""
    wait.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        help=f"how long to wait (default: a little more than the longest lease{longer})",
    )
    wait.add_argument("--expect", metavar="N", type=count, help="fail unless at least N processes are registered")
    wait.add_argument(
        "--presume-dead", metavar="TIME", type=silence,
        help="take for dead, on your word, what has been silent for this long, once its lease is over: 10m",
    )  # fmt: skip


def _add_forget(command: Parser) -> None:
    command.add_argument("ids", metavar="ID", nargs="*", help="as `maintenance fleet` shows it, or its beginning")
    command.add_argument("--silent", metavar="TIME", type=duration, help="all that have been silent for this long: 1h")


def check(args: argparse.Namespace, unknown: Sequence[str] = ()) -> None:
    """Refuse arguments that nobody knows, or that contradict each other.

    Raises:
        ConfigurationError: They do; the message says what to write.
    """
    if unknown:
        said = [_masked(argument, before) for argument, before in zip(unknown, ("", *unknown), strict=False)]
        # One that the command has was not understood because of where it stands.
        order = f": {_ORDER}" if hasattr(args, unknown[0].lstrip("-").replace("-", "_")) else ""
        raise ConfigurationError(f"unrecognized arguments: {' '.join(said)}{order}")
    if args.command in ("on", "off", "wait"):
        _check_wait(args)
    if args.command == "forget" and bool(args.ids) == (args.silent is not None):
        raise ConfigurationError("write either the IDs that `maintenance fleet` shows, or --silent 1h")


def _masked(argument: str, before: str) -> str:
    """An argument without what may be a password in it: a part of a URL, or the value of an option."""
    if before.startswith("-") and not argument.startswith("-"):
        return "***"
    return re.sub(r"([:=@]).*", r"\1***", argument, flags=re.DOTALL)


def _check_wait(args: argparse.Namespace) -> None:
    if args.command == "off" and args.drain:
        raise ConfigurationError("--drain goes with `maintenance on` only: off refuses nothing, so write --wait alone")
    args.wait = args.wait or args.drain
    for name in ("timeout", "expect", "presume_dead"):
        if getattr(args, name) is not None and not args.wait:
            raise ConfigurationError(f"--{name.replace('_', '-')} says how to wait: add --wait")


def complain(command: str, message: str) -> None:
    """Say on stderr, in one line, what is wrong with the arguments."""
    print(f"maintenance {command}: error: {scrub(message)} (see `maintenance {command} --help`)", file=sys.stderr)
