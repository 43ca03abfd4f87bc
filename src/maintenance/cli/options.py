"""The arguments of each command, and what their values mean."""

import argparse
import contextlib
import datetime as dt
import difflib
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn, TypeVar, get_args
from uuid import UUID

from maintenance._version import __version__
from maintenance.base.scopes import is_scope
from maintenance.base.values import Mode
from maintenance.cli.text import print_error
from maintenance.process.state import MAX_HISTORY
from maintenance.proof.judge import LEAST_SILENCE

FAILED: Final = 1
USAGE: Final = 2
IS_ON: Final = 3
NOT_PROVEN: Final = 4
CONFLICT: Final = 5
SKIPPED: Final = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""

CANNOT_RUN: Final = 126
NOT_FOUND: Final = 127
"""What a shell reports for a command that it cannot run, or cannot find."""

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""What a shell reports for a program that SIGPIPE has ended."""

_EXIT_CODES: Final = """\
exit status:
  0    done; with --wait: proven; `status`: maintenance is off
  1    failed; one line on stderr says why
  2    wrong usage; nothing was done
  3    `status`: maintenance is on; `status --scope`: that part, or all, is closed
  4    --wait: timed out, or another operator changed the flag while you waited;
       the flag is not changed back; `fleet --check`: a process does not follow,
       or the list may be incomplete
  5    --if-revision, --if-off, extend, edit: another operator was faster, or the
       flag is off; nothing was written
  75   `run`: maintenance is on, so the command was not run; else `run` ends with
       the exit status of the command: 126 if it cannot run, 127 if it is not
       found, 128+N if signal N has ended it
  130  ended by Ctrl-C, SIGTERM or SIGHUP (watch and demo then end with 0)
  141  the reader of the output has gone; changes made before are kept"""

_DATABASE: Final = """\
The database is the one of --database, else of MAINTENANCE_DATABASE_URL, else of
DATABASE_URL. Keep a password in a variable: other users of this machine can read
the value of --database."""

SHELLS: Final = ("bash", "zsh", "fish")

_COMMANDS: Final = {
    "on": "switch maintenance on for the whole fleet",
    "off": "switch maintenance off for the whole fleet",
    "extend": "move the expected end of a maintenance, and change nothing else",
    "edit": "change details of a maintenance that is on or planned, and nothing else",
    "wait": "wait until every process follows the current setting (changes nothing)",
    "status": "show every flag, and which processes follow: exit status 0 if off, 3 if on",
    "watch": "show the flag, then each change, until Ctrl-C",
    "log": "show who changed which flag, and when",
    "fleet": "list the processes that serve, and the revision that each follows",
    "forget": "remove processes that you know to be dead from the fleet",
    "run": "run a command once maintenance is off, and have --drain wait for its end",
    "page": "write the page that visitors see, as a file for a proxy or a CDN",
    "migrate": "create or upgrade the tables (safe to run again)",
    "sql": "print the SQL that `migrate` runs on PostgreSQL",
    "demo": "run two sample servers and flip them",
    "completion": "print a script that completes commands and options in a shell",
    "help": "show the help of a command",
}

_EXAMPLES: Final = {
    "on": "maintenance on --wait --drain --expect 12 --message 'Back at noon' --for 30m && ./deploy",
    "off": "maintenance off --wait --reason 'the upgrade is done'",
    "extend": "maintenance extend 30m",
    "edit": "maintenance edit --message 'Back at one' --until 2031-05-01T13:00Z",
    "wait": "maintenance wait --revision 42 --drain --expect 12 --presume-dead 10m",
    "status": "if maintenance status >/dev/null; then ./restart; fi     # exit status: 0 off, 3 on, 1 unknown",
    "watch": "maintenance watch --exec './notify.py --channel ops'",
    "log": "maintenance log --scope shop --limit 20",
    "fleet": "maintenance fleet --check",
    "forget": "maintenance forget 6f1c2a90",
    "run": "maintenance run --timeout 1h nightly-report -- ./report --all",
    "page": "maintenance page --language de --message 'Bald zurück' --output /srv/maintenance",
    "migrate": "maintenance migrate --database postgresql://owner@db.example/shop",
    "sql": "maintenance sql | psql --single-transaction -v ON_ERROR_STOP=1 shop",
    "demo": "DEMO_ONCE=1 maintenance demo     # all steps, without waiting for Ctrl-C",
    "completion": "maintenance completion bash > ~/.local/share/bash-completion/completions/maintenance",
    "help": "maintenance help on",
}

# The values.

T = TypeVar("T")
N = TypeVar("N", int, float)

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WORDS: Final = r"s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:ours?|rs?)?|d(?:ays?)?"
_PARTS: Final = re.compile(rf"(\d+(?:\.\d+)?)\s*({_WORDS})(?:\s+|(?=\d|$))", re.ASCII)
_SPACE: Final = re.compile(r"\s+(?=Z$|[+-]\d\d(:?\d\d)?$)", re.ASCII)
"""Before a time zone."""

_UTC: Final = re.compile(r"\s*(UTC|GMT)$", re.IGNORECASE)

_DURATION: Final = re.compile(rf"(?:{_PARTS.pattern})+", re.ASCII)


def make_type(parse: Callable[[str], T], advice: str) -> Callable[[str], T]:
    """Return a type for argparse.

    Args:
        parse: Raises ValueError for a wrong text.
        advice: What a wrong text is not, and what to use.
    """

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError:
            # Never the value, which may be a misplaced URL.
            raise argparse.ArgumentTypeError(f"not {advice}") from None

    return convert


def _read_duration(text: str) -> float:
    if not _DURATION.fullmatch(text.strip()):
        raise ValueError
    return _check_range(sum(float(number) * _UNITS[unit[0]] for number, unit in _PARTS.findall(text)), least=1e-6)


def _read_seconds(text: str) -> float:
    return _read_duration(text) if _DURATION.fullmatch(text.strip()) else _check_range(float(text), least=0)


def _read_digits(text: str) -> int:
    # int() alone also takes signs, underscores and the digits of other scripts.
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise ValueError
    return int(text)


def _read_id(text: str) -> str:
    text = text.replace("-", "").lower()
    # A row without an ID of its own has the name "null", or "row" and a number.
    if not re.fullmatch(r"[0-9a-f]{1,32}|null|row[0-9]+", text):
        raise ValueError
    return text


def _check_range(value: N, *, least: float, most: float = sys.float_info.max) -> N:
    if not least <= value <= most:  # which a NaN is not either
        raise ValueError
    return value


parse_duration: Final = make_type(_read_duration, "a duration: use a number and a unit (s, m, h or d), for example 30m")
parse_seconds: Final = make_type(_read_seconds, "a number of seconds: use 0 or more, for example 30, or 5m")
parse_silence: Final = make_type(
    lambda text: _check_range(_read_duration(text), least=LEAST_SILENCE),
    f"a duration of {LEAST_SILENCE}s or more: use for example 10m",
)


def _read_expect(text: str) -> tuple[str, int]:
    service, _, number = text.rpartition("=")
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,50}", service) or text.startswith("="):
        raise ValueError
    return service, _check_range(_read_digits(number), least=1)


def _read_scope(text: str) -> str:
    if not is_scope(text):
        raise ValueError
    return text


def _read_command(text: str) -> list[str]:
    if not (command := shlex.split(text)):
        raise ValueError
    return command


parse_command: Final = make_type(_read_command, "a command: use a program and its arguments, quoted as in a shell")
parse_expect: Final = make_type(
    _read_expect, "a number of processes: use a whole number from 1, for example 12, or one of a service: web=24"
)
parse_scope: Final = make_type(_read_scope, "a scope: use 1 to 100 letters, digits and ._:@/+-")
parse_count: Final = make_type(
    lambda text: _check_range(_read_digits(text), least=1, most=MAX_HISTORY),
    f"a number: use a whole number from 1 to {MAX_HISTORY}, for example 20",
)
parse_retry_after: Final = make_type(_read_digits, "a number of seconds: use a whole number, for example 120")
parse_revision: Final = make_type(
    _read_digits, "a revision: use the number shown by `maintenance on` or `maintenance status`"
)
parse_uuid: Final = make_type(UUID, "a UUID: use 32 hexadecimal digits, with or without hyphens")
parse_id: Final = make_type(_read_id, "an ID, nor the beginning of one: copy one from `maintenance fleet`")


def parse_span(text: str) -> dt.timedelta:
    """Return a duration that ends before the year 10,000.

    Raises:
        argparse.ArgumentTypeError: The text is not a duration, or is too long.
    """
    try:
        span = dt.timedelta(seconds=parse_duration(text))
        dt.datetime.now(dt.UTC) + 2 * span  # an end is a start and a span at most
    except OverflowError:
        raise argparse.ArgumentTypeError("ends after the year 9999: use a shorter duration") from None
    return span


def parse_time(text: str) -> dt.datetime:
    """Return an aware time from ISO 8601. A time of day is the next one.

    Raises:
        argparse.ArgumentTypeError: The text is not a time, or has no time zone.
    """
    example = (dt.datetime.now().astimezone() + dt.timedelta(hours=1)).isoformat(timespec="seconds")
    when = make_type(_read_time, f"an ISO time: use for example {example}, or --for 30m")(text.strip())
    if when.utcoffset() is not None:
        return when
    local = ""
    with contextlib.suppress(OverflowError, ValueError):  # this machine's time zone has no such year
        local = f"{when.astimezone().isoformat()} in the time zone of this machine, or "
    raise argparse.ArgumentTypeError(f"no time zone: use {local}{when.isoformat()}Z for UTC")


def _read_time(text: str) -> dt.datetime:
    text = _SPACE.sub("", _UTC.sub("Z", text))
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return _find_next(dt.time.fromisoformat(text))


def _find_next(clock: dt.time) -> dt.datetime:
    """Return when a clock shows a time next: today, or tomorrow."""
    now = dt.datetime.now(clock.tzinfo)
    when = dt.datetime.combine(now.date(), clock)
    return when if when > now else when + dt.timedelta(days=1)


# The parser.

EDITABLE: Final = ("message", "messages", "until", "lasts", "retry_after", "mode", "reason")
"""The options of which `edit` needs one."""

_PROGRAM: Final = "maintenance"

_ORDER: Final = "options go after the command"

_WITHOUT_DATABASE: Final = ("sql", "demo", "page", "completion", "help")
_WITHOUT_JSON: Final = ("run", "demo", "page", "completion", "help")

_OPTION: Final = re.compile(r"--[a-z]+(-[a-z]+)*(?==|$)")
"""The name of an option. Anything else may be a password."""


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, without the values that argparse would repeat: each may be a misplaced URL."""

    def error(self, message: str) -> NoReturn:
        """Exit because of a mistake that argparse has found."""
        # argparse puts each value in quotes, at the end.
        self.report(re.split("['\"]", message)[0].rstrip(" :"))
        self.exit(USAGE)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            hint = suggest(str(value), action.choices)
            raise argparse.ArgumentError(action, f"invalid choice: use {', '.join(action.choices)}{hint}")

    def report(self, message: str) -> None:
        """Print a mistake, and where to find help."""
        # The top parser complains about an option before the command.
        order = f"{_ORDER}; " if self.prog == _PROGRAM else ""
        print_error(f"{message} ({order}see `{self.prog} --help`)", label=f"{self.prog}: error")


def suggest(typed: str, known: Iterable[str]) -> str:
    """Return a question about the nearest known word, or nothing. The typed word may be a password."""
    nearest = difflib.get_close_matches(typed, known, n=1)
    return f". Did you mean {nearest[0]}?" if nearest else ""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments of one command.

    Args:
        arguments: Without the program's name; None for those of this process.

    Returns:
        The values, with the command's own parser as `parser`.

    Raises:
        SystemExit: The arguments are wrong, or ask for help.
    """
    given, argv = _split_command(sys.argv[1:] if arguments is None else arguments)
    # Both options of every command also work before it. A command that does not get them leaves these values.
    args, unknown = build_parser().parse_known_args(given, argparse.Namespace(database=None, json=False, argv=argv))
    if args.command == "help":
        args.topics[args.topic].print_help()
        raise SystemExit(0)
    if args.command != "run":
        unknown += argv
    if problem := _find_unknown(args, unknown) or _find_conflict(args):
        args.parser.report(problem)
        raise SystemExit(USAGE)
    return args


def _split_command(arguments: Sequence[str]) -> tuple[Sequence[str], list[str]]:
    """Return the arguments of `run`, and the command after them, which argparse must not touch."""
    if "--" not in arguments or "run" not in arguments[: arguments.index("--")]:
        return arguments, []
    end = arguments.index("--")
    return arguments[:end], list(arguments[end + 1 :])


def _find_unknown(args: argparse.Namespace, unknown: Sequence[str]) -> str | None:
    for name, without in (("database", _WITHOUT_DATABASE), ("json", _WITHOUT_JSON)):
        if getattr(args, name) and args.command in without:
            return f"`maintenance {args.command}` has no option --{name}"
    if not unknown:
        return None
    shown = [found[0] if (found := _OPTION.match(argument)) else "***" for argument in unknown]
    # If the command has this option, it was written before the command.
    order = f": {_ORDER}" if hasattr(args, shown[0].lstrip("-").replace("-", "_")) else ""
    hint = "" if order else suggest(shown[0], list_options(args.parser))
    return f"unrecognized arguments: {' '.join(shown)}{hint}{order}"


def list_options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return each long option of a command that its help shows."""
    actions = parser._option_string_actions  # noqa: SLF001 - argparse has no other list of them
    return {
        name: action
        for name, action in actions.items()
        if name.startswith("--") and action.help is not argparse.SUPPRESS
    }


def _find_conflict(args: argparse.Namespace) -> str | None:
    if args.command == "forget" and bool(args.ids) == (args.silent is not None):
        return "use either the IDs from `maintenance fleet`, or --silent 1h"
    if args.command == "off" and args.drain:
        return "--drain works with `maintenance on` only, because `off` refuses nothing: use --wait alone"
    if args.command == "on" and args.if_off and args.if_revision is not None:
        return "use either --if-off or --if-revision"
    if args.command == "on" and args.secret and args.secret_stdin:
        return "use either --secret or --secret-stdin"
    if args.command == "edit" and not any(getattr(args, name) is not None for name in EDITABLE):
        return "name what to change, for example --message 'Back at one'"
    finders = {"run": _find_run_conflict, **dict.fromkeys(("on", "off", "wait"), _find_wait_conflict)}
    return finders[args.command](args) if args.command in finders else None


def _find_run_conflict(args: argparse.Namespace) -> str | None:
    if not args.argv:
        return "put the command after `--`: maintenance run nightly-report -- ./report"
    if args.skip and args.timeout is not None:
        return "use either --skip or --timeout"
    return None


def _find_wait_conflict(args: argparse.Namespace) -> str | None:
    args.wait = args.wait or args.drain
    for name in ("timeout", "expect", "presume_dead"):
        if getattr(args, name) is not None and not args.wait:
            return f"--{name.replace('_', '-')} needs --wait: add it"
    services = [service for service, _ in args.expect or ()]
    if len(services) > len(set(services)):
        return "--expect is given twice for the same processes: use one number for each service"
    return None


def build_parser() -> Parser:
    """Return the whole command line."""
    top = Parser(
        prog=_PROGRAM,
        description="Put every process of a fleet into maintenance, and wait until all of them follow.",
        epilog=f"{_DATABASE}\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_common(top)
    top.add_argument("--version", action="version", version=f"maintenance {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    made = {name: _add_command(commands, name) for name in _COMMANDS}
    _add_details(made["on"], mode="full")
    _add_schedule(made["on"])
    _add_secret(made["on"])
    _add_details(made["edit"], mode=None)
    made["extend"].add_argument("by", metavar="TIME", type=parse_span, help="how much later it ends: 30m")
    for name in ("on", "off", "edit", "extend"):
        _add_record(made[name])
    for name in ("on", "off", "edit", "extend", "wait", "status", "log", "run"):
        help_ = "a part of the site instead of all of it"
        made[name].add_argument("--scope", metavar="SCOPE", type=parse_scope, help=help_)
    for name in ("on", "off", "edit", "extend"):
        help_ = "refuse if the flag has another revision by now; exit status 5"
        made[name].add_argument("--if-revision", metavar="N", type=parse_revision, help=help_)
    made["log"].add_argument(
        "--limit", metavar="N", type=parse_count, default=50, help="how many changes (default: 50)"
    )
    help_ = "run it, without a shell, for each change of a flag: environment variables and stdin describe the change"
    made["watch"].add_argument("--exec", dest="hook", metavar="COMMAND", type=parse_command, help=help_)
    made["fleet"].add_argument("--check", action="store_true", help="exit status 4 unless each process follows")
    for name in ("on", "off", "wait"):
        _add_wait(made[name], name)
    _add_page(made["page"])
    _add_run(made["run"])
    help_ = "an ID from `maintenance fleet`, or its beginning"
    made["forget"].add_argument("ids", metavar="ID", nargs="*", type=parse_id, help=help_)
    help_ = "all processes that have not reported for this long: 1h"
    made["forget"].add_argument("--silent", metavar="TIME", type=parse_duration, help=help_)
    made["completion"].add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    made["help"].set_defaults(topics={None: top, **made})
    made["help"].add_argument("topic", metavar="COMMAND", nargs="?", choices=list(made), help="the name of a command")
    return top


def _add_common(parser: Parser, *, database: bool = True, json: bool = True) -> None:
    # Without a default, an option after the command does not undo the one before it.
    if database:
        help_ = "postgresql://user@host/database or sqlite:///path"
        parser.add_argument("--database", metavar="URL", default=argparse.SUPPRESS, help=help_)
    if json:
        help_ = "print JSON, one object a line, times in UTC"
        parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=help_)


def _add_command(commands: "argparse._SubParsersAction[Parser]", name: str) -> Parser:
    does = _COMMANDS[name]
    database = name not in _WITHOUT_DATABASE
    command: Parser = commands.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=f"{_DATABASE + chr(10) * 2 if database else ''}example:\n  {_EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(parser=command)
    _add_common(command, database=database, json=name not in _WITHOUT_JSON)
    return command


_TIME_HELP: Final = "2031-05-01 02:00+02:00, or the next 18:00Z"


def _add_schedule(command: Parser) -> None:
    start = command.add_mutually_exclusive_group()
    help_ = f"begin then, in every process at the same instant: {_TIME_HELP}; with --wait, the wait begins then"
    start.add_argument("--at", dest="starts", metavar="TIME", type=parse_time, help=help_)
    start.add_argument("--in", dest="begins_in", metavar="TIME", type=parse_span, help="the same, from now: 2h")
    command.add_argument("--auto-off", action="store_true", help="switch off at --until, or after --for")
    command.add_argument("--if-off", action="store_true", help="refuse if it is on or planned already; exit status 5")


def _add_details(command: Parser, *, mode: str | None) -> None:
    command.add_argument("--message", metavar="TEXT", help="a text for visitors")
    _add_messages(command)
    end = command.add_mutually_exclusive_group()
    end.add_argument("--until", metavar="TIME", type=parse_time, help=f"the expected end: {_TIME_HELP}")
    help_ = "the same, from the start: 90s, 30m, 1h30m or 1d"
    end.add_argument("--for", dest="lasts", metavar="TIME", type=parse_span, help=help_)
    help_ = "sent as Retry-After, instead of the time left"
    command.add_argument("--retry-after", metavar="SECONDS", type=parse_retry_after, help=help_)
    help_ = f"read_only lets GET, HEAD and OPTIONS pass{' (default: full)' if mode else ''}"
    command.add_argument("--mode", choices=get_args(Mode), default=mode, help=help_)


def _add_secret(command: Parser) -> None:
    help_ = "make a link that lets people in until `off`, and print it once"
    command.add_argument("--secret", action="store_true", help=help_)
    help_ = "the same with a token of your own, from the first line of stdin; it is not printed"
    command.add_argument("--secret-stdin", action="store_true", help=help_)


def _add_page(command: Parser) -> None:
    help_ = "one language, such as de (default: English on stdout, and every language with --output)"
    command.add_argument("--language", metavar="LANG", help=help_)
    command.add_argument("--message", metavar="TEXT", help="a text for visitors")
    _add_messages(command)
    command.add_argument("--until", metavar="TIME", type=parse_time, help=f"the expected end: {_TIME_HELP}")
    command.add_argument("--name", metavar="NAME", help="the name of the site")
    command.add_argument("--logo", metavar="FILE", help="an SVG or PNG file, which becomes a part of the page")
    command.add_argument("--accent", metavar="COLOUR", help="a CSS hex colour: '#0b6e4f'")
    command.add_argument("--support", metavar="ADDRESS", help="an e-mail address or an https URL for help")
    command.add_argument("--status-url", metavar="URL", help="an https URL about the state of the service")
    command.add_argument("--template", metavar="FILE", help="an HTML file of your own instead of the standard page")
    command.add_argument("--output", metavar="DIR", help="a folder to write the page to, instead of stdout")
    command.add_argument("--open", action="store_true", help="also show the page in a browser")


def _add_run(command: Parser) -> None:
    command.usage = "%(prog)s [options] NAME -- COMMAND..."
    command.add_argument("name", metavar="NAME", help="the name of the job, for the operator who waits for it")
    help_ = "do not wait: exit status 75 if maintenance is on"
    command.add_argument("--skip", action="store_true", help=help_)
    help_ = "how long to wait for the end of maintenance; exit status 75 after that (default: no limit)"
    command.add_argument("--timeout", metavar="SECONDS", type=parse_seconds, help=help_)


def _add_messages(command: Parser) -> None:
    help_ = "the same for visitors who read that language: --message-for de 'Bald zurück'; may be repeated"
    command.add_argument(
        "--message-for", dest="messages", metavar=("LANG", "TEXT"), nargs=2, action="append", help=help_
    )


def _add_record(command: Parser) -> None:
    command.add_argument("--actor", metavar="NAME", help="your name (default: user@host)")
    command.add_argument("--updated-by", metavar="UUID", type=parse_uuid, help="your user's UUID in the users table")
    command.add_argument("--reason", metavar="TEXT", help="a note for the record; visitors never see it")


def _add_wait(command: Parser, name: str) -> None:
    group = command.add_argument_group("waiting")
    if name == "wait":
        command.set_defaults(wait=True)
        help_ = "fail if someone has changed the flag since this revision (shown by `on`)"
        group.add_argument("--revision", metavar="N", type=parse_revision, help=help_)
    else:
        help_ = "wait until every process provably follows; exit status 4 if one does not"
        group.add_argument("--wait", action="store_true", help=help_)
    help_ = f"also wait for running requests to finish{'; implies --wait' if name == 'on' else ''}"
    group.add_argument("--drain", action="store_true", help=argparse.SUPPRESS if name == "off" else help_)
    longer = "" if name == "off" else "; 30 s more for --drain"
    help_ = f"how long to wait (default: a little more than the longest lease{longer})"
    group.add_argument("--timeout", metavar="SECONDS", type=parse_seconds, help=help_)
    help_ = "fail unless at least N processes are registered, or N of a service: web=24; may be repeated"
    group.add_argument("--expect", metavar="N", type=parse_expect, action="append", help=help_)
    help_ = "treat processes as dead if they have not reported for this long, e.g. 10m"
    group.add_argument("--presume-dead", metavar="TIME", type=parse_silence, help=help_)
