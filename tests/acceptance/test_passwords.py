"""No password is shown, whatever is wrong with a URL and wherever it is written by mistake.

Each form of a URL goes through the command line and through the Python API. Everything that they print, log and raise
is searched for a piece of the password: the whole chains of errors, shown or not, and the names and representations.
"""

import contextlib
import functools
import os
import re
import shlex
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from maintenance import ConfigurationError, MaintenanceState, init_maintenance
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.base.values import Snapshot
from maintenance.cli import main
from maintenance.process import api
from maintenance.stores import MemoryStore, PostgresStore, SQLiteStore, open_store
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.command import instance, register
from tests.support.plain_apps import wsgi
from tests.support.postgres import Server

PIECE = re.compile("Hun|ter2")

AT = "127.0.0.1:1/d"
"""Where nothing listens."""

IN_PLACE = [
    f"postgresql://u:Hun{between}ter2@{AT}"
    for between in (
        "", "\t", " ", "\n", "\u2003", "%09", "%20", "%0A", ":", "%40", "%2F", "%23", "'", '"', "\\", "$", "=", "&",
        ";", ",", "*", "{", "ä", "\u2100", "\udce4", "%FF", "%00", "%zz", "\0", "@", "/", "?", "#",
    )
]  # fmt: skip
"""The password is where it belongs, with special characters in it, encoded or not."""

IN_PARAMETERS = [
    f"postgresql://u@{AT}?{parameter}"
    for parameter in (
        "password=Hunter2", "password=Hun%09ter2", "p%61ssword=Hunter2", "%70assword=Hun ter2", "sslpassword=Hunter2",
        "passwd=Hunter2", "PASSWORD=Hunter2", "pass%20word=Hunter2", "password=Hun&ter2", "password=Hun=ter2",
        "password=Hun@ter2", "password=Hunter2#x", "password=%FFHunter2", "host=u:Hunter2@127.0.0.1",
        "hostaddr=u:Hunter2%40127.0.0.1", "port=Hunter2", "connect_timeout=Hunter2",
        "dbname=postgresql://u:Hunter2%40127.0.0.1/d", "user=u:Hunter2", "user=u%20password=Hunter2",
    )
]  # fmt: skip

ELSEWHERE = [
    "postgresql://u:Hunter2@127.0.0.1:1,127.0.0.1:2/d",
    f"postgres://u:Hunter2@{AT}",
    "postgresql://u:Hunter2@[::1]:1,127.0.0.1:1/d",
    "postgresql://u:Hunter2@/d?host=/nowhere/at/all",
    f"postgresql://u%3AHunter2@{AT}",
    f"postgresql://u%3AHunter2%40{AT}",
    "postgresql:///u%3AHunter2%40h",
    "postgresql://127.0.0.1:1/password=Hunter2",
    "postgresql://127.0.0.1:1/d%20password=Hunter2",
    "postgresql://127.0.0.1:1/d password=Hunter2",
    "postgresql://host=127.0.0.1 password=Hunter2",
    f"postgresql://user=u password=Hunter2@{AT}",
    "postgresql://u:Hunter2@127.0.0.1:port/d",
    "postgresql://u:Hunter2@[::1/d",
    "postgresql://u:Hunter2",
    f"postgresql:/u:Hunter2@{AT}",
    f"postgresql:u:Hunter2@{AT}",
    f"postgresql+psycopg://u:Hunter2@{AT}",
    f"mysql://u:Hunter2@{AT}",
    "redis://:Hunter2@127.0.0.1:1",
    f"//u:Hunter2@{AT}",
    f"u:Hunter2@{AT}",
    f"'postgresql://u:Hunter2@{AT}'",
    "host=127.0.0.1 port=1 user=u password=Hunter2",
    "password = 'Hun ter2' host=127.0.0.1",
    "sqlite://u:Hunter2@127.0.0.1/x.db",
    "sqlite:////u:Hunter2@127.0.0.1/x.db",
    "sqlite:///:Hunter2@/x.db",
    f"sqlite:///postgresql://u:Hunter2@{AT}",
    "sqlite:///x.db?key=Hunter2",
    "memory://u:Hunter2@h",
]

FORMS = [*IN_PLACE, *IN_PARAMETERS, *ELSEWHERE]


def find_pieces(*texts: object) -> list[str]:
    return [text for text in map(str, texts) if PIECE.search(text)]


def list_chain(exc: BaseException | None) -> Iterator[str]:
    """Each error of a chain, shown or not, and what a log prints of it."""
    if exc is not None:
        yield from traceback.format_exception(exc)
        seen: list[BaseException] = []
        todo = [exc]
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.append(one)
                yield from (str(one), repr(one), repr(one.args))
                todo += [it for it in (one.__cause__, one.__context__) if it is not None]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert os.listdir(tmp_path) == []


# The command line.

IN_ITS_PLACE = (
    *(f"{command} --database URL" for command in ("status", "fleet", "watch", "migrate", "off", "on --wait")),
    *(f"{command} --database=URL --json" for command in ("status", "wait")),
)
MISPLACED = (
    "URL", "URL status", "status URL", "on URL", "sql URL", "forget URL", "--database URL status", "--mesage URL on",
    "status --databse URL", "status --databse=URL", "on --mesage URL", "status --URL", "status -pURL", "status -hURL",
    "status --json=URL", "status --password URL", "on --for URL", "on --until URL", "on --mode URL", "on --mode=URL",
    "on --retry-after URL", "on --updated-by URL", "on --wait --expect URL", "on --wait --timeout URL",
    "wait --revision URL", "wait --presume-dead URL", "forget --silent URL", "forget --silent 1h URL", "demo URL",
)  # fmt: skip


@pytest.mark.parametrize(("number", "url"), list(enumerate(FORMS)), ids=range(len(FORMS)))
def test_no_command_prints_a_password(number: int, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    # A value that is out of place is not parsed as a URL, so a few forms are enough.
    for command in IN_ITS_PLACE if number % 7 else (*IN_ITS_PLACE, *MISPLACED):
        with contextlib.suppress(SystemExit):
            assert main([word.replace("URL", url) for word in shlex.split(command)]) in (1, 2), command
        assert find_pieces(*capsys.readouterr()) == [], command


@pytest.mark.parametrize("variable", [*api.VARIABLES, "MAINTENANCE_MODE"])
def test_no_command_prints_the_password_of_a_variable(
    variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", "")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u@{AT}")
    for url in FORMS:
        if "\0" not in url:  # which no variable can hold
            monkeypatch.setenv(variable, url)
            assert main(["status"]) in (1, 2)
            assert find_pieces(*capsys.readouterr()) == []


def test_the_password_of_libpq_s_variable_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for password in ("Hunter2", "Hun\udce4ter2"):
        monkeypatch.setenv("PGPASSWORD", password)
        assert main(["status", "--database", f"postgresql://u@{AT}"]) == 1
        assert find_pieces(*capsys.readouterr()) == []


@pytest.mark.parametrize(
    "form", ["u:Hun\tter2@h", "u:Hun%09ter2@h", "u@h?p%61ssword=Hun%09ter2", "u@h?password=Hun\tter2"]
)
def test_the_next_steps_of_a_wait_name_the_store(
    form: str, migrated_url: str, postgres: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    user, (place, _, name) = f"u{uuid4().hex}", migrated_url.rpartition("@")[2].partition("/")
    url = re.sub(r"^u", f"postgresql://{user}", re.sub("@h", f"@{place}/{name}", form))
    register(open_store(migrated_url), instance())
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD E'Hun\\tter2'")
        try:
            assert main(["on", "--wait", "--timeout", "0", "--database", url]) == 4
        finally:
            connection.execute(f"DROP ROLE {user}")
    out, err = capsys.readouterr()
    assert find_pieces(out, err) == []
    assert f"maintenance wait --database postgresql://{user}@{place}/{name} --revision " in out


@pytest.mark.parametrize("password", ["connection", "server", "u", "1", "Connection%20refused"])
def test_a_password_that_is_a_word_garbles_no_message(password: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"postgresql://u:{password}@{AT}"
    assert main(["status", "--database", url]) == 1
    assert re.fullmatch(
        rf'maintenance: postgresql://u@{AT}: connection failed: connection to server at "127.0.0.1", port 1 failed: '
        r"Connection refused.*\n",
        capsys.readouterr().err,
    )


# The Python API.


def list_calls(url: str) -> dict[str, Callable[[], object]]:
    """Each place where a URL can be written, the right ones and the wrong ones."""
    state = MaintenanceState(MemoryStore(), register=False)
    here: dict[str, Callable[..., object]] = {
        "a store": open_store,
        "PostgresStore": PostgresStore,
        "SQLiteStore": SQLiteStore,
        "MemoryStore": MemoryStore,
        "connect": lambda url: open_store(url).connect(),
        "migrate": lambda url: open_store(url).migrate(),
        "a state": lambda url: MaintenanceState(url, register=False).refresh(),
        "the default state": lambda url: init_maintenance(url, register=False).set(True),
        "a state of bytes": lambda url: MaintenanceState(url.encode("utf-8", "replace")),
        "exempt": lambda url: MaintenanceMiddleware(wsgi, state, exempt=url),
        "a rule": lambda url: ASGIMiddleware(wsgi, state, exempt=[url]),
        "the app": MaintenanceMiddleware,
        "the middleware's state": lambda url: MaintenanceMiddleware(wsgi, url),
        "enabled": state.set,
        "snapshot": state.prove,
        "instance": lambda url: state.forget([url]),  # type: ignore[arg-type]
        "callback": lambda url: state.on_change(functools.partial(print, url, end="")) and state.set(url),
        "a callback": state.on_change,
    }
    options: dict[Callable[..., object], tuple[str, ...]] = {
        functools.partial(MaintenanceState, MemoryStore()): ("ttl", "when_stale", "boot_timeout", "register"),
        functools.partial(init_maintenance, MemoryStore()): ("ttl", "when_stale", "boot_timeout", "register"),
        functools.partial(PostgresStore, f"postgresql://{AT}"): ("listen", "statement_timeout"),
        functools.partial(SQLiteStore, "sqlite:///x.db"): ("create",),
        functools.partial(state.set, True): ("mode", "until", "retry_after", "updated_by"),
        functools.partial(state.prove, state.set(True)): ("drain", "timeout", "expect", "presume_dead", "progress"),
        functools.partial(MaintenanceMiddleware, wsgi): ("default_exempt", "bypass", "respond", "in_flight"),
    }
    calls = {name: functools.partial(function, url) for name, function in here.items()}
    for function, names in options.items():
        calls |= {name: functools.partial(function, **{name: url}) for name in names}
    return calls


@pytest.mark.parametrize("url", FORMS, ids=range(len(FORMS)))
def test_no_call_shows_a_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    for name, call in list_calls(url).items():
        raised: Exception | None = None
        try:
            call()
        except Exception as exc:  # noqa: BLE001 - whatever it is, it may show no password
            raised = exc
        assert find_pieces(*list_chain(raised)) == [], name
        assert raised or name in ("a store", "PostgresStore", "SQLiteStore", "MemoryStore"), name
    assert find_pieces(caplog.text) == []


@pytest.mark.parametrize("url", IN_PLACE + IN_PARAMETERS, ids=range(len(IN_PLACE + IN_PARAMETERS)))
def test_a_state_whose_store_is_away_shows_no_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    try:
        state = MaintenanceState(url, register=False)
    except ConfigurationError:
        return
    state.prime()
    proof = state.prove(Snapshot(enabled=True, revision=1), timeout=0)
    shown = (state, state.store, state.store.name, vars(state), state.status(), state.lease.error, proof)
    assert find_pieces(*shown, *map(repr, shown), caplog.text) == []
    assert "cannot read the flag" in caplog.text
