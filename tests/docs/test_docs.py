"""The documentation keeps its word: links, names, commands, SQL and samples are held against the real thing."""

import argparse
import ast
import inspect
import json
import re
import shlex
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import anyio
import anyio.to_thread
import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import maintenance
from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware
from maintenance.base.values import MAX_TEXT, Details, Mode, Request
from maintenance.cli import main, options
from maintenance.http.refusal import DEFAULT_RETRY_AFTER
from maintenance.process import api, lifecycle, watcher
from maintenance.process.state import WRITE_LIMIT
from maintenance.proof.membership import Settings
from maintenance.proof.prover import DRAIN_MARGIN
from maintenance.stores import PostgresStore, SQLiteStore, postgres_session, sqlite_session
from tests.support.servers import gunicorn
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(name: str) -> str:
    return _FENCE.sub("", text(name))


def blocks(name: str, language: str) -> list[str]:
    return [code for kind, code in _FENCE.findall(text(name)) if kind == language]


def sample(name: str, word: str) -> str:
    """The one Python block of a page that holds a word."""
    [found] = [code for code in blocks(name, "python") if word in code]
    return found


def marked(name: str, mark: str) -> str:
    """The SQL block behind a mark, which only readers of the source see."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\n\n```sql\n(.*?)```", text(name), re.DOTALL)
    assert found, f"{name} has no SQL marked {mark!r}"
    return found[1]


def execute(connection: psycopg.Connection[Any], sql: str) -> Any:
    return connection.execute(sql.encode())


# What a page says of other pages, of tests and of the code.


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.is_file(), f"{name} links to {link}"
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT).as_posix()), f"{name} links to {link}"


def anchors(name: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)#]+)\)", text("docs/README.md"))}
    assert listed == {path for path in PAGES if ROOT / "docs" in path.parents} - {ROOT / "docs" / "README.md"}


def test_each_guarantee_is_proven_by_tests_that_exist() -> None:
    readme = text("README.md")
    guaranteed = re.findall(r"^\| (.+) \| yes \|$", readme, re.MULTILINE)
    proofs = re.findall(r"^tests/.+$", readme, re.MULTILINE)
    assert len(guaranteed) == len(proofs) > 0
    for line in proofs:
        for proof in line.split():
            path, _, test = proof.partition("::")
            assert test in functions(path), f"README.md names {proof}"


def functions(path: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(text(path))) if isinstance(node, ast.FunctionDef)}


# What the reference must not leave out.


def parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "options"}


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def referred(name: str, wanted: set[str], *, page: str = "docs/reference/python.md") -> None:
    code = " ".join(re.findall(r"`([^`]+)`", prose(page)) + blocks(page, "python") + blocks(page, "sql"))
    missing = wanted - set(re.findall(r"\w+", code))
    assert not missing, f"{page} does not tell of all of {name}"


def test_every_public_name_is_in_the_reference() -> None:
    referred("maintenance", set(maintenance.__all__))
    referred("maintenance.stores", {"Store", "PostgresStore", "SQLiteStore", "MemoryStore"})


@pytest.mark.parametrize(
    "function",
    [
        maintenance.init_maintenance,
        maintenance.set_maintenance,
        maintenance.fleet,
        MaintenanceState,
        MaintenanceState.prove,
        MaintenanceMiddleware,
        super(MaintenanceMiddleware, MaintenanceMiddleware).__init__,
        PostgresStore,
        SQLiteStore,
    ],
    ids=lambda function: function.__qualname__,
)
def test_every_option_is_in_the_reference(function: Callable[..., Any]) -> None:
    referred(function.__qualname__, parameters(function))


@pytest.mark.parametrize("kind", ["Snapshot", "Request", "Response", "Status", "Instance", "Fleet", "Proof"])
def test_every_field_is_in_the_reference(kind: str) -> None:
    referred(kind, {field.name for field in fields(getattr(maintenance, kind))})


# Between the modules of the package.
INTERNAL = {"attach", "forked", "peek", "wait_for_answer"}


def test_every_method_of_a_state_is_in_the_reference() -> None:
    referred("MaintenanceState", public(MaintenanceState) - INTERNAL)


def commands() -> dict[str, argparse.ArgumentParser]:
    [found] = [it for it in options.build_parser()._actions if isinstance(it, argparse._SubParsersAction)]
    return found.choices


def test_every_command_and_option_is_in_the_reference() -> None:
    page = text("docs/reference/command-line.md")
    assert "`--version`" in page
    for name, command in commands().items():
        assert f"| `{name}" in page
        for action in command._actions:
            if action.dest == "help" or action.help == argparse.SUPPRESS:
                continue
            for option in action.option_strings:
                row = re.search(rf"^\| `{option}\b[^|]*\| ([^|]+)\|", page, re.MULTILINE)
                assert row, f"{option} is not in the reference"
                but = re.findall(r"`(\w+)`", row[1])
                assert (name in but) is not row[1].startswith("all but"), f"{option} of {name}"


def test_every_environment_variable_is_in_the_reference() -> None:
    for variable in (*api.VARIABLES, "MAINTENANCE_MODE", "DEMO_ONCE"):
        assert f"| `{variable}` |" in text("docs/reference/environment.md")


def test_every_column_and_trigger_is_in_the_reference(migrated_url: str) -> None:
    with psycopg.connect(migrated_url) as connection:
        made = execute(
            connection,
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "UNION SELECT tgname FROM pg_trigger WHERE NOT tgisinternal "
            "UNION SELECT sequence_name FROM information_schema.sequences",
        ).fetchall()
    referred("the tables", {name for (name,) in made}, page="docs/reference/sql.md")
    referred("the details", {field.name for field in fields(Details)}, page="docs/reference/sql.md")
    referred("the modes", set(get_args(Mode)), page="docs/reference/command-line.md")


def usual(function: Callable[..., Any], option: str) -> Any:
    return inspect.signature(function).parameters[option].default


BOOT_TIMEOUT = usual(MaintenanceState, "boot_timeout")
CONNECT_TIMEOUT = float(postgres_session.conninfo("postgresql://")["connect_timeout"])
READ_LOCK = int(postgres_session._NO_QUEUE.partition("lock_timeout = ")[2].rstrip(";")) / 1000
LIMIT = Settings(ttl=1e3, when_stale="serve", register=True).limit


@pytest.mark.parametrize(
    ("page", "said", "number"),
    [
        ("README.md", "within one TTL ({:g} s)", usual(MaintenanceState, "ttl")),
        ("README.md", "how old an answer may be | `{:.1f}`", usual(MaintenanceState, "ttl")),
        ("README.md", "a database that takes up to {:g} s to answer", BOOT_TIMEOUT),
        ("README.md", "first requests wait for the first read | `{:.1f}`", BOOT_TIMEOUT),
        ("README.md", "one request waits for at most {:g} s", lifecycle.PATIENCE),
        ("docs/explanation/store-down.md", "`boot_timeout` ({:g} s)", BOOT_TIMEOUT),
        ("docs/explanation/store-down.md", "is asked again for {:g} s", lifecycle.PATIENCE),
        ("docs/explanation/store-down.md", "one request waits, for at most {:g} s", lifecycle.PATIENCE),
        ("docs/explanation/store-down.md", "come meanwhile wait for at most {:g} s", lifecycle.SHORT_PATIENCE),
        ("docs/explanation/store-down.md", "at most min(TTL, {:g} s) apart", 2 * LIMIT),
        ("docs/explanation/store-down.md", "`connect_timeout`, {:g} s", CONNECT_TIMEOUT),
        ("docs/explanation/forks-and-threads.md", "wait at most {:g} s for that", lifecycle.LEAVE_LIMIT),
        ("docs/explanation/costs.md", "looks at the file {:g} times a second", 1 / sqlite_session.POLL),
        ("docs/how-to/pgbouncer-and-standbys.md", "gives up after {:g} s", WRITE_LIMIT),
        ("docs/how-to/pgbouncer-and-standbys.md", "`connect_timeout` is {:g} s", CONNECT_TIMEOUT),
        ("docs/how-to/migrations.md", "up to {:g} s for another migration", postgres_session.MIGRATE_TIMEOUT),
        ("docs/how-to/migrations.md", "up to {:g} s for a transaction", postgres_session.LOCK_TIMEOUT),
        ("docs/how-to/bypass.md", "up to {:g} times a second", 1 / watcher.LOOK),
        ("docs/how-to/playbook.md", "with `--drain` {:g} s more", DRAIN_MARGIN),
        ("docs/reference/command-line.md", "with `--drain` {:g} s more", DRAIN_MARGIN),
        ("docs/reference/python.md", "with `drain` {:g} s more", DRAIN_MARGIN),
        ("docs/reference/python.md", "while the store can be reached | `{:.1f}`", usual(MaintenanceState, "ttl")),
        ("docs/reference/python.md", "#before-the-first-read) | `{:.1f}`", BOOT_TIMEOUT),
        ("docs/reference/python.md", "statement_timeout={:.1f}", usual(PostgresStore, "statement_timeout")),
        ("docs/reference/python.md", "waits for a lock for {:g} s", READ_LOCK),
        ("docs/reference/python.md", "at most {:,} characters", MAX_TEXT),
        ("docs/reference/http.md", "has passed: {:g} s", DEFAULT_RETRY_AFTER),
    ],
)  # fmt: skip
def test_a_number_that_a_page_tells_is_the_codes_own(page: str, said: str, number: float) -> None:
    assert said.format(number) in " ".join(text(page).split())


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Iterator[tuple[str, object]]:
    """Each key, at any depth, of what a command prints with ``--json``, and what stands there."""
    main([*arguments, "--json"])
    left: list[object] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    while left:
        it = left.pop()
        if isinstance(it, dict):
            yield from it.items()
            left += it.values()
        elif isinstance(it, list):
            left += it


def test_every_key_of_json_is_in_the_reference(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", migrated_url)
    with closing(MaintenanceState(migrated_url)) as serving:
        serving.wait_for_answer()
        commands = [
            ["on"], ["off", "--wait", "--expect", "2", "--timeout", "0"], ["wait"], ["status"], ["fleet"],
            ["forget", "--silent", "0.000001s"], ["migrate"], ["sql"],
        ]  # fmt: skip
        found = [pair for command in commands for pair in printed(capsys, *command)]
    events = {str(value) for key, value in found if key == "event"}
    assert events == {"flag", "instance", "problem", "result"}
    page = text("docs/reference/command-line.md").partition("## JSON")[2] + text("docs/reference/python.md")
    missing = ({key for key, _ in found} | events) - set(re.findall(r"`\"?(\w+)\"?`", page))
    assert not missing


# What it tells people to run.


def shown() -> Iterator[tuple[str, str]]:
    for name in NAMES:
        for block in blocks(name, "sh") + blocks(name, "yaml"):
            for line in block.splitlines():
                for found in re.findall(r"(?<![\w'./\[])maintenance (?:on|off|[a-z]+).*", line):
                    yield name, re.split(r" [|>&]| #|;", found)[0]


def test_every_command_shown_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    seen = set()
    for name, line in shown():
        try:
            seen.add(options.parse_arguments(shlex.split(line)[1:]).command)
        except SystemExit:
            pytest.fail(f"{name} shows {line!r}: {capsys.readouterr().err}")
    assert seen >= {"on", "off", "status", "watch", "fleet", "forget", "migrate", "sql"}


@pytest.fixture
def alone(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Runs a sample as if it were pasted into an empty project; returns what it has defined."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", migrated_url)
    monkeypatch.setenv("MAINTENANCE_BYPASS_TOKEN", "a long random text")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.support.django_settings")
    monkeypatch.setattr(api, "_state", None)
    (tmp_path / "maintenance.sql").write_text("SELECT 1")

    def run(code: str) -> Any:
        module = types.ModuleType("pasted")
        module.__file__ = str(tmp_path / "pasted.py")
        monkeypatch.setitem(sys.modules, "pasted", module)
        exec(compile(code, "pasted.py", "exec"), vars(module))
        return module

    yield run
    if (state := api.current_state()) is not None:
        state.close()


@pytest.mark.parametrize("name", [name for name in NAMES if blocks(name, "python")])
def test_every_sample_stands_alone(name: str, alone: Callable[[str], Any]) -> None:
    for code in blocks(name, "python"):
        alone(code)


# What the samples do.


@pytest.fixture
def printed_sql(tmp_path: Path, alone: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    """`maintenance sql > maintenance.sql`, beside what is pasted."""
    main(["sql"])
    (tmp_path / "maintenance.sql").write_text(capsys.readouterr().out)


MIGRATIONS = "docs/how-to/migrations.md"


@pytest.mark.usefixtures("printed_sql")
def test_alembic_makes_the_tables(alone: Callable[[str], Any], database_url: str) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from sqlalchemy import create_engine

    upgrade = alone(sample(MIGRATIONS, "from alembic import op")).upgrade
    for _ in range(2):
        engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
            upgrade()
        engine.dispose()
    assert not MaintenanceState(database_url).refresh().enabled


@pytest.mark.usefixtures("printed_sql")
# No project is set up here: the database is all that is asked for.
@pytest.mark.filterwarnings("ignore:Accessing the database during app initialization:RuntimeWarning")
def test_django_makes_the_tables(
    alone: Callable[[str], Any], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [operation] = alone(sample(MIGRATIONS, "class Migration")).Migration.operations
    from django.db import connections
    from django.db.utils import ConnectionHandler

    parts = conninfo_to_dict(database_url)
    named = {name.upper(): str(parts[name]) for name in ("host", "port", "user", "password") if name in parts}
    settings = {"ENGINE": "django.db.backends.postgresql", "NAME": parts["dbname"], **named}
    # An alias of its own: under the usual one, another test may have connected.
    monkeypatch.setattr(connections, "settings", ConnectionHandler({"default": {}, "shop": settings}).settings)
    with closing(connections["shop"]) as connection:
        for _ in range(2):
            with connection.schema_editor() as editor:
                operation.database_forwards("shop", editor, None, None)
    del connections["shop"]
    assert not MaintenanceState(database_url).refresh().enabled


def answers(app: Any, *requests: tuple[str, str, Any], headers: dict[str, str] | None = None) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            return [await client.request(method, path, json=json) for method, path, json in requests]

    return anyio.run(ask)


ADMIN = "/api/v1/admin/maintenance"
ROUND = [
    ("GET", "/", None),
    ("PUT", ADMIN, {"enabled": True, "message": "Back at noon."}),
    ("GET", "/", None),
    ("PUT", ADMIN, {"enabled": False}),
    ("GET", "/", None),
]
ANSWERED = [404, 200, 503, 200, 404]


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/fastapi.md"])
def test_fastapi_flips_and_is_reached_while_it_is_on(page: str, alone: Callable[[str], Any]) -> None:
    told = answers(alone(sample(page, "async def switch")).app, *ROUND)
    assert [answer.status_code for answer in told] == ANSWERED
    assert told[2].json()["detail"] == "Back at noon."


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/flask.md"])
def test_flask_flips_and_is_reached_while_it_is_on(page: str, alone: Callable[[str], Any]) -> None:
    client = alone(sample(page, "\ndef switch():")).app.test_client()
    told = [client.open(path, method=method, json=json, buffered=True) for method, path, json in ROUND]
    assert [answer.status_code for answer in told] == ANSWERED
    assert told[2].get_json()["detail"] == "Back at noon."


def test_the_guides_answer_what_is_wrong_with_400_or_422(alone: Callable[[str], Any]) -> None:
    flask = alone(sample("docs/how-to/flask.md", "\ndef switch():")).app.test_client()
    assert [flask.put(ADMIN, json=asked).status_code for asked in ({}, {"enabled": "no"})] == [400, 400]
    too_long = ("PUT", ADMIN, {"enabled": True, "message": "a" * 10_001})
    [answer] = answers(alone(sample("docs/how-to/fastapi.md", "async def switch")).app, too_long)
    assert answer.status_code == 422


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/django.md"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_django_flips_and_is_reached_while_it_is_on(
    page: str, kind: str, alone: Callable[[str], Any], migrated_url: str
) -> None:
    urls = types.ModuleType("urls")
    urls.urlpatterns = alone(sample(page, "urlpatterns")).urlpatterns  # type: ignore[attr-defined]
    wrap = sample("docs/how-to/django.md", f"MaintenanceMiddleware(get_{kind}_application()")
    application = alone(wrap).application
    from django.test import override_settings

    with override_settings(ROOT_URLCONF=urls):
        if kind == "asgi":
            told = [answer.status_code for answer in answers(application, *ROUND)]
        else:
            with httpx.Client(transport=httpx.WSGITransport(application), base_url="http://test") as client:
                told = [client.request(method, path, json=json).status_code for method, path, json in ROUND]
    assert told == ANSWERED


def test_django_with_a_lifespan_leaves_the_fleet(alone: Callable[[str], Any], migrated_url: str) -> None:
    application = alone(sample("docs/how-to/django.md", "with_lifespan")).application
    instances = maintenance.init_maintenance().fleet
    steps = iter([("lifespan.startup", 0), ("lifespan.shutdown", 1)])
    told: list[Any] = []

    async def receive() -> dict[str, str]:
        step, registered = next(steps)
        await anyio.to_thread.run_sync(eventually, lambda: len(instances().instances) >= registered)
        return {"type": step}

    async def send(message: dict[str, str]) -> None:
        told.append(message["type"])

    anyio.run(application, {"type": "lifespan"}, receive, send)
    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert instances().instances == ()


def test_a_browser_on_another_origin_can_read_the_503(alone: Callable[[str], Any]) -> None:
    app = alone(sample("docs/how-to/fastapi.md", "CORSMiddleware")).app
    maintenance.set_maintenance(True)
    [refused] = answers(app, ("GET", "/", None), headers={"Origin": "https://shop.example"})
    assert refused.status_code == 503
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"


def test_only_the_holder_of_the_token_gets_in(alone: Callable[[str], Any]) -> None:
    has_token = alone(sample("docs/how-to/bypass.md", "compare_digest")).has_token
    given = {"right": "a long random text", "wrong": "a long random tex", "empty": "", "odd": "ü"}
    told = {word: has_token(Request("GET", "/", {"x-maintenance-bypass": it})) for word, it in given.items()}
    assert told == {"right": True, "wrong": False, "empty": False, "odd": False}
    assert not has_token(Request("GET", "/"))


@pytest.mark.parametrize(
    ("client", "forwarded", "passes"),
    [
        ("192.0.2.7", None, True),
        ("::ffff:192.0.2.7", None, True),
        ("2001:db8::1", None, True),
        ("198.51.100.1", None, False),
        ("198.51.100.1", "192.0.2.7", False),  # a visitor without a proxy writes what he likes
        ("10.0.0.9", "192.0.2.7", True),
        ("10.0.0.9", "192.0.2.7, 198.51.100.1", False),
        ("10.0.0.9", "198.51.100.1, 192.0.2.7", True),
        ("10.0.0.9", "nonsense", False),
        ("10.0.0.9", None, False),
        (None, "192.0.2.7", False),
    ],
)
def test_only_the_office_gets_in(
    client: str | None, forwarded: str | None, *, passes: bool, alone: Callable[[str], Any]
) -> None:
    from_the_office = alone(sample("docs/how-to/bypass.md", "from_the_office")).from_the_office
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    assert from_the_office(Request("GET", "/", headers, client)) is passes


def test_a_response_of_ones_own(alone: Callable[[str], Any]) -> None:
    app = alone(sample("docs/how-to/custom-response.md", "envelope")).app
    maintenance.set_maintenance(True, message="Back at noon.")
    [refused] = answers(app, ("GET", "/", None))
    assert refused.json() == {"error": {"code": "maintenance", "message": "Back at noon.", "until": None}}
    assert refused.headers["cache-control"] == "no-store"
    assert int(refused.headers["retry-after"]) >= 60
    page = alone(sample("docs/how-to/custom-response.md", "html.escape")).app.test_client()
    maintenance.set_maintenance(True, message="<script>")
    assert "<h1>&lt;script&gt;</h1>" in page.get("/").text


def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "docs/tutorial/first-flip.md"
    (tmp_path / "shop.py").write_text(sample(page, "def home"))
    [url] = set(re.findall(r"MAINTENANCE_DATABASE_URL=(sqlite\S+)", text(page)))
    environment = {"MAINTENANCE_DATABASE_URL": url}
    monkeypatch.setenv(*next(iter(environment.items())))

    def run(line: str, *, ends: int = 0) -> str:
        assert line in "\n".join(blocks(page, "sh"))
        command = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == ends, done
        return done.stdout

    run("maintenance migrate")
    with gunicorn("shop:app", env=environment, options=[f"--chdir={tmp_path}"]) as running:

        def status(path: str = "/") -> int:
            return httpx.get(f"{running.url}{path}").status_code

        def two_have_served() -> bool:
            assert status() == 200
            return "2 processes: 0 behind" in run("maintenance fleet")

        eventually(two_have_served, 20.0)
        run("maintenance on --message 'Back at noon.'")
        eventually(lambda: {status() for _ in range(10)} == {503})
        assert status("/health") == 200
        run("maintenance off")
        assert "2 confirmed" in run("maintenance on --wait --drain")
        assert {status() for _ in range(10)} == {503}
        run("maintenance off --wait")
        assert {status() for _ in range(10)} == {200}


# What its SQL does, on a real PostgreSQL.


def test_other_languages_can_flip_and_be_waited_for(migrated_url: str) -> None:
    listen, read, flip, register, acknowledge, leave = blocks("docs/how-to/other-languages.md", "sql")
    with (
        psycopg.connect(migrated_url, autocommit=True) as connection,
        closing(MaintenanceState(migrated_url, register=False)) as state,
    ):
        execute(connection, listen)
        assert execute(connection, read).fetchone()[0] is False
        execute(connection, register)
        execute(connection, flip)
        assert [notify.payload for notify in connection.notifies(timeout=5, stop_after=1)] == ["maintenance_mode"]
        snapshot = state.refresh()
        assert (snapshot.enabled, snapshot.message, snapshot.actor) == (True, "Back at noon.", "deploy")
        [(laggard, _)] = state.prove(snapshot, drain=True, timeout=0.0).laggards
        assert laggard.program == "shop-go"
        execute(connection, acknowledge)
        assert state.prove(snapshot, drain=True, timeout=5.0)
        execute(connection, leave)
        assert state.fleet().instances == ()


def test_the_flip_by_hand(migrated_url: str) -> None:
    [by_hand] = [sql for sql in blocks("docs/reference/sql.md", "sql") if sql.startswith("UPDATE")]
    with psycopg.connect(migrated_url) as connection:
        execute(connection, by_hand)
    with closing(MaintenanceState(migrated_url, register=False)) as state:
        assert (state.refresh().enabled, state.refresh().message) == (True, "Back at noon.")


@pytest.fixture
def role(migrated_url: str) -> Iterator[Callable[[str], str]]:
    """Makes a login role; returns the URL of this test's database as that role."""
    made: list[str] = []

    def make(name: str) -> str:
        with psycopg.connect(migrated_url) as connection:
            execute(connection, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        made.append(name)
        return re.sub(r"//[^@]+@", f"//{name}:secret@", migrated_url)

    yield make
    with psycopg.connect(migrated_url) as connection:
        for name in made:
            execute(connection, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_a_role_that_serves_needs_no_more_than_is_said(role: Callable[[str], str], migrated_url: str) -> None:
    url = role("shop_app")
    with psycopg.connect(migrated_url) as connection:
        execute(connection, marked("docs/reference/sql.md", "grants: serve"))
    with closing(MaintenanceState(url, when_stale="block")) as state:
        state.start()
        eventually(lambda: state.status().condition == "fresh")
        assert state.status().registered
    with closing(MaintenanceState(migrated_url, register=False)) as operator:
        assert operator.fleet().instances == (), "it could not remove its row"


def test_a_flip_that_fails_changes_nothing(role: Callable[[str], str], migrated_url: str) -> None:
    url = role("shop_app")
    with psycopg.connect(migrated_url) as connection:
        execute(connection, marked("docs/reference/sql.md", "grants: serve"))
    with closing(MaintenanceState(url)) as state, closing(MaintenanceState(migrated_url, register=False)) as other:
        before = state.snapshot()
        with pytest.raises(maintenance.StoreError, match="permission denied"):
            state.set(True, message="Back at noon.")
        assert not state.enabled
        assert state.snapshot().revision == before.revision == other.refresh().revision
        with pytest.raises(ValueError, match="retry_after"):
            other.set(True, retry_after=-1)
        assert not other.refresh().enabled


def test_a_role_that_flips_needs_no_more_than_is_said(role: Callable[[str], str], migrated_url: str) -> None:
    url = role("shop_admin")
    with psycopg.connect(migrated_url) as connection:
        execute(connection, marked("docs/reference/sql.md", "grants: flip"))
        execute(connection, "DELETE FROM maintenance_instances; DELETE FROM platform_settings")
    with closing(MaintenanceState(url, register=False)) as state:
        assert state.prove(state.set(True), drain=True, expect=0, timeout=5.0)
        assert state.fleet().intact
        assert not state.set(False).enabled


def test_a_role_that_looks_needs_no_more_than_is_said(role: Callable[[str], str], migrated_url: str) -> None:
    url = role("shop_viewer")
    with psycopg.connect(migrated_url) as connection:
        execute(connection, marked("docs/reference/sql.md", "grants: look"))
    with closing(MaintenanceState(url, register=False)) as state:
        assert not state.refresh().enabled
        assert state.fleet().intact


PROOF = "docs/explanation/proof.md"


@pytest.fixture
def orders(role: Callable[[str], str], migrated_url: str) -> str:
    """A table that the app writes to; returns the app's URL."""
    url = role("shop_app")
    with psycopg.connect(migrated_url) as connection:
        execute(connection, "CREATE TABLE orders (id int); GRANT ALL ON orders TO shop_app")
    return url


def test_a_fence_takes_the_sessions_away_and_gives_them_back(orders: str, migrated_url: str) -> None:
    with (
        psycopg.connect(migrated_url, autocommit=True) as operator,
        psycopg.connect(orders) as let_in,
    ):
        execute(let_in, "INSERT INTO orders VALUES (1)")
        execute(operator, marked(PROOF, "fence: close"))
        execute(operator, marked(PROOF, "fence: end sessions"))
        eventually(lambda: execute(operator, marked(PROOF, "fence: end sessions")).fetchone() == (0,))
        with pytest.raises(psycopg.OperationalError):
            execute(let_in, "COMMIT")
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            psycopg.connect(orders)
        assert execute(operator, "SELECT count(*) FROM orders").fetchone() == (0,)
        execute(operator, marked(PROOF, "fence: open"))
        with psycopg.connect(orders) as again:
            execute(again, "INSERT INTO orders VALUES (2)")


def test_a_fence_in_the_tables_waits_for_what_was_let_in_and_refuses_what_wakes_later(
    orders: str, migrated_url: str
) -> None:
    with (
        closing(MaintenanceState(migrated_url, register=False)) as state,
        psycopg.connect(migrated_url, autocommit=True) as operator,
        psycopg.connect(orders) as let_in,
        psycopg.connect(orders) as paused,
    ):
        execute(operator, marked(PROOF, "fence: install"))
        execute(paused, "SELECT 1")  # its transaction has begun, and it has not written yet
        execute(let_in, "INSERT INTO orders VALUES (1)")
        state.set(True)
        waited = threading.Thread(target=lambda: execute(operator, marked(PROOF, "fence: wait")))
        waited.start()
        eventually(lambda: waits_for_a_lock(migrated_url))
        let_in.commit()
        waited.join(10)
        assert not waited.is_alive()
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="maintenance is on"):
            execute(paused, "INSERT INTO orders VALUES (3)")
        execute(operator, "INSERT INTO orders VALUES (4)")  # the work itself, under another role
        assert execute(operator, "SELECT array_agg(id ORDER BY id) FROM orders").fetchone() == ([1, 4],)
        paused.rollback()
        state.set(False)
        execute(paused, "INSERT INTO orders VALUES (5)")
        paused.commit()
        execute(paused, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"):
            execute(paused, "INSERT INTO orders VALUES (6)")


def waits_for_a_lock(url: str) -> bool:
    with psycopg.connect(url) as connection:
        sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        return execute(connection, sql).fetchone() == (1,)
