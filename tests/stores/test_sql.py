"""The SQL files: their names, and the database that they make, on every PostgreSQL that is installed."""

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import LiteralString

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow, scalar_row

from maintenance import MaintenanceState, StoreError
from maintenance.base.values import Change, Details
from maintenance.errors import ConflictError
from maintenance.stores import PostgresStore
from maintenance.stores.migrations import migrations
from maintenance.stores.postgres import session as postgres_session
from maintenance.stores.rows import MAX_REVISION
from tests.support.postgres import DURABLE, Binaries, Server, database, installations, server
from tests.support.waiting import eventually

SQL = Path(__file__).parents[2] / "sql"
FLAG = "WHERE key = 'maintenance_mode'"
USER = "10000000-0000-0000-0000-000000000001"

# The content of a database as text. Two dumps are equal if nothing changed, the sequences' positions included.
_DUMP: tuple[LiteralString, ...] = (
    (
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
        "WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
    ),
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
    ),
    "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
    (
        "SELECT proname, pg_get_functiondef(oid), proacl::text FROM pg_proc "
        "WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
    ),
    "SELECT sequencename::text, start_value, increment_by, last_value FROM pg_sequences ORDER BY 1",
    (
        "SELECT relname::text, relpersistence::text, reloptions::text, relacl::text FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    ),
    "SELECT to_jsonb(s)::text FROM public.platform_settings s ORDER BY key",
    "SELECT to_jsonb(i)::text FROM public.maintenance_instances i ORDER BY id",
)


@pytest.fixture(scope="session", params=installations(), ids=lambda found: found.source)
def each_server(request: pytest.FixtureRequest, postgres: Server) -> Iterator[Server]:
    binaries: Binaries = request.param
    if binaries.source == postgres.source:
        yield postgres
        return
    with server(binaries) as another:
        yield another


@pytest.fixture
def url(each_server: Server) -> Iterator[str]:
    with database(each_server) as found:
        yield found


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def migrated(url: str, connection: Connection) -> Connection:
    """A connection to a migrated database."""
    migrate(url)
    return connection


def migrate(url: str) -> None:
    PostgresStore(url).migrate()


def run_files(connection: Connection) -> None:
    """As with psql, file after file."""
    for _, text in migrations():
        connection.execute(text)  # type: ignore[call-overload]


def dump(connection: Connection) -> list[list[TupleRow]]:
    return [connection.execute(query).fetchall() for query in _DUMP]


def ask(connection: Connection, query: LiteralString) -> object:
    """The one value of the one row."""
    cursor = connection.cursor(row_factory=scalar_row)
    return cursor.execute(query).fetchone()


def revision(connection: Connection) -> int:
    found = ask(connection, f"SELECT revision FROM platform_settings {FLAG}")
    assert isinstance(found, int)
    return found


def payloads_until_end(connection: Connection, count: int) -> list[str]:
    return [notice.payload for notice in connection.notifies(timeout=10, stop_after=count)]


def foreign_keys(connection: Connection) -> list[str]:
    rows = connection.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = 'public.platform_settings'::regclass AND contype = 'f'"
    )
    return [row[0] for row in rows]


def test_files_are_named_and_numbered_without_a_gap() -> None:
    names = sorted(path.name for path in SQL.iterdir())
    assert names[0] == "0001_platform_settings.sql"
    assert [name for name in names if not re.fullmatch(r"\d{4}_[a-z_]+\.sql", name)] == []
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_the_library_applies_exactly_these_files_in_this_order() -> None:
    assert [(path.name, path.read_text(encoding="utf-8")) for path in sorted(SQL.glob("*.sql"))] == list(migrations())


def test_the_files_are_sql_and_nothing_but() -> None:
    for name, text in migrations():
        assert not re.search(r"^\\", text, re.MULTILINE), f"{name}: psql's own commands run in psql only"
        assert not re.search(r"^\s*(BEGIN|COMMIT|ROLLBACK)\s*;", text, re.MULTILINE), (
            f"{name}: the caller's transaction"
        )
        assert "CONCURRENTLY" not in text, f"{name}: cannot run in a transaction"
        assert "%" not in text, f"{name}: a driver would take it for a parameter"


def test_the_table_is_the_one_that_was_promised(migrated: Connection) -> None:
    columns = migrated.execute(
        "SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = 'platform_settings' ORDER BY ordinal_position"
    ).fetchall()
    assert columns[:7] == [
        ("id", "integer", "NO", "nextval('platform_settings_id_seq'::regclass)"),
        ("key", "text", "NO", None),
        ("value_bool", "boolean", "YES", None),
        ("value_text", "text", "YES", None),
        ("description", "text", "NO", "''::text"),
        ("updated_at", "timestamp with time zone", "NO", "now()"),
        ("updated_by", "uuid", "YES", None),
    ]
    rows = migrated.execute("SELECT key, value_bool, value_text, updated_by FROM platform_settings").fetchall()
    assert rows == [("maintenance_mode", False, None, None)]
    assert ask(migrated, "SELECT description FROM platform_settings")
    indexes = migrated.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'platform_settings'").fetchall()
    assert any("UNIQUE" in definition and definition.endswith("(key)") for (definition,) in indexes)
    with pytest.raises(psycopg.errors.UniqueViolation):
        migrated.execute("INSERT INTO platform_settings (key) VALUES ('maintenance_mode')")


def test_a_second_time_changes_nothing(url: str, migrated: Connection) -> None:
    migrated.execute(
        "UPDATE platform_settings SET value_bool = true, updated_by = %s, description = 'mine', "
        f"""details = '{{"message": "back soon"}}' {FLAG}""",
        [USER],
    )
    migrated.execute("INSERT INTO platform_settings (key, value_text) VALUES ('another', 'x')")
    before = dump(migrated)
    migrate(url)
    assert dump(migrated) == before
    assert ask(migrated, f"SELECT value_bool FROM platform_settings {FLAG}") is True


def test_a_second_time_notifies_no_process_and_waits_for_no_reader(url: str, migrated: Connection) -> None:
    """A reader in a long transaction, such as a dump of the database, must not hold up a deploy, nor be held up."""
    migrated.execute("LISTEN platform_settings")
    with psycopg.connect(url) as reader:
        reader.execute("SELECT * FROM platform_settings, maintenance_instances")
        migrate(url)
    assert list(migrated.notifies(timeout=0.2)) == []


def test_by_hand_each_file_also_runs_alone_and_twice(connection: Connection) -> None:
    run_files(connection)
    run_files(connection)
    first = dump(connection)
    run_files(connection)
    assert dump(connection) == first


@pytest.mark.parametrize("by_hand", [False, True], ids=["the library", "psql --single-transaction"])
def test_by_twenty_threads_at_once(url: str, connection: Connection, *, by_hand: bool) -> None:
    start = Barrier(20)

    def race(_: int) -> None:
        if not by_hand:
            start.wait(30)
            migrate(url)
            return
        with psycopg.connect(url) as own:
            start.wait(30)
            run_files(own)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(race, range(20)))
    assert ask(connection, "SELECT count(*) FROM platform_settings") == 1
    assert ask(connection, "SELECT last_value FROM platform_settings_id_seq") == 1
    before = dump(connection)
    migrate(url)
    assert dump(connection) == before


def test_a_migration_that_hangs_holds_up_the_next_one_for_a_while(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = tuple((name, sql.replace("'30s'", "'200ms'")) for name, sql in migrations())
    monkeypatch.setattr("maintenance.stores.postgres.store.migrations", lambda: impatient)
    for _ in range(2):  # while there is no table yet, and later
        with psycopg.connect(url) as hanging:
            hanging.execute(migrations()[0][1])  # type: ignore[call-overload]
            pid = hanging.info.backend_pid
            message = rf"has not ended in time: try again, or end it with SELECT pg_terminate_backend\({pid}\)"
            with pytest.raises(StoreError, match=message):
                migrate(url)
            hanging.rollback()
        migrate(url)


def test_a_migration_waits_for_a_table_for_a_while(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_session, "LOCK_TIMEOUT", 0.2)
    with psycopg.connect(url) as reader:
        reader.execute(migrations()[0][1])  # type: ignore[call-overload]
        reader.commit()
        reader.execute("SELECT FROM platform_settings")
        with pytest.raises(StoreError, match="lock timeout.*: end the transaction that holds the lock, or try again"):
            migrate(url)
    migrate(url)


def test_by_eight_processes_at_once(database_url: str) -> None:
    program = (
        "import sys; from maintenance.stores import PostgresStore; store = PostgresStore(sys.argv[1]); "
        "print('ready', flush=True); sys.stdin.read(1); store.migrate()"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen([sys.executable, "-c", program, database_url], **pipes) for _ in range(8)]
    assert [process.stdout.readline() for process in processes] == [b"ready\n"] * 8
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [(b"", 0)] * 8
    with psycopg.connect(database_url) as connection:
        assert ask(connection, "SELECT count(*) FROM platform_settings") == 1


@pytest.mark.parametrize(
    "definition", ["id uuid PRIMARY KEY", "id uuid UNIQUE, other int"], ids=["primary key", "unique"]
)
def test_updated_by_refers_to_users_with_a_uuid_key(
    url: str, connection: Connection, definition: LiteralString
) -> None:
    connection.execute(f"CREATE TABLE public.users ({definition})")
    connection.execute("INSERT INTO public.users (id) VALUES (%s)", [USER])
    migrate(url)
    connection.execute(f"UPDATE platform_settings SET updated_by = %s {FLAG}", [USER])
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute(f"UPDATE platform_settings SET updated_by = gen_random_uuid() {FLAG}")
    connection.execute("DELETE FROM public.users")
    assert ask(connection, f"SELECT updated_by FROM platform_settings {FLAG}") is None


def test_updated_by_refers_to_a_users_table_that_came_later(url: str, migrated: Connection) -> None:
    migrated.execute(f"UPDATE platform_settings SET updated_by = %s {FLAG}", [USER])  # of a user who never was
    migrated.execute("CREATE TABLE public.users (id uuid PRIMARY KEY)")
    migrate(url)
    [foreign_key] = foreign_keys(migrated)
    assert "REFERENCES users(id) ON DELETE SET NULL" in foreign_key
    migrated.execute("CREATE SCHEMA other")
    migrate(url)
    assert foreign_keys(migrated) == [foreign_key]


@pytest.mark.parametrize(
    "other",
    [
        "SELECT 1",
        "CREATE TABLE public.users (id integer PRIMARY KEY)",
        "CREATE TABLE public.users (id uuid)",
        "CREATE TABLE public.users (id uuid, tenant int, PRIMARY KEY (id, tenant))",
        "CREATE TABLE public.users (key uuid PRIMARY KEY)",
        "CREATE VIEW public.users AS SELECT gen_random_uuid() AS id",
        """CREATE MATERIALIZED VIEW public.users AS SELECT gen_random_uuid() AS id;
        CREATE UNIQUE INDEX ON public.users (id)""",
        "CREATE UNLOGGED TABLE public.users (id uuid PRIMARY KEY)",
        "CREATE SCHEMA app; CREATE TABLE app.users (id uuid PRIMARY KEY)",
    ],
)
def test_updated_by_is_a_plain_uuid_otherwise(url: str, connection: Connection, other: LiteralString) -> None:
    connection.execute(other)
    migrate(url)
    assert foreign_keys(connection) == []
    connection.execute(f"UPDATE platform_settings SET updated_by = gen_random_uuid() {FLAG}")


def test_a_foreign_key_of_another_name_is_enough(url: str, connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE public.users (id uuid PRIMARY KEY); CREATE TABLE public.platform_settings ("
        "key text UNIQUE, updated_by uuid CONSTRAINT who REFERENCES public.users (id) ON DELETE RESTRICT)"
    )
    migrate(url)
    assert foreign_keys(connection) == ["FOREIGN KEY (updated_by) REFERENCES users(id) ON DELETE RESTRICT"]


# A table of that name, which the platform may have had before.


@pytest.mark.parametrize(
    "columns",
    [
        "key text",
        "key varchar(80) NOT NULL, value_bool boolean, description varchar(255) NOT NULL DEFAULT ''",
        "id uuid DEFAULT gen_random_uuid(), key text PRIMARY KEY, value_bool boolean, value_text text, extra json",
        "tenant int DEFAULT 1, key text, UNIQUE (tenant, key)",
        "key text UNIQUE, updated_at timestamptz",
    ],
)
def test_a_table_that_exists_is_taken_over(url: str, connection: Connection, columns: LiteralString) -> None:
    connection.execute(f"CREATE TABLE public.platform_settings ({columns})")
    connection.execute("INSERT INTO public.platform_settings (key) VALUES ('theirs'), ('maintenance_mode')")
    migrate(url)
    # If they allow a time to be NULL, so does the library.
    assert ask(connection, f"SELECT updated_at IS NULL FROM platform_settings {FLAG}") is ("updated_at" in columns)
    with closing(MaintenanceState(url)) as state:
        with pytest.raises(StoreError, match="value_bool of 'maintenance_mode' is None"):
            state.refresh()
        assert state.set(True, message="x").enabled
        assert state.refresh().message == "x"
    connection.execute("UPDATE public.platform_settings SET value_bool = true WHERE key = 'theirs'")
    assert ask(connection, "SELECT count(DISTINCT revision) FROM public.platform_settings") == 2
    before = dump(connection)
    migrate(url)
    assert dump(connection) == before


def test_a_flag_without_a_time_is_read(url: str, connection: Connection) -> None:
    connection.execute("CREATE TABLE platform_settings (key text UNIQUE, value_bool boolean, updated_at timestamptz)")
    connection.execute("INSERT INTO platform_settings VALUES ('maintenance_mode', true)")
    migrate(url)
    with closing(MaintenanceState(url, register=False)) as state:
        assert (state.refresh().enabled, state.refresh().updated_at) == (True, None)
        assert state.set(False).updated_at is not None


@pytest.mark.parametrize(
    ("columns", "wrong"),
    [
        ("id int", "key is missing, not text"),
        ("key integer", "key is integer, not text"),
        (
            "key text UNIQUE, value_bool text, updated_by int",
            "updated_by is integer, not uuid; value_bool is text, not boolean",
        ),
        (
            "key text UNIQUE, updated_at timestamp",
            "updated_at is timestamp without time zone, not timestamp with time zone",
        ),
    ],
)
def test_a_table_of_another_form_is_refused_and_stays(
    url: str, connection: Connection, columns: LiteralString, wrong: str
) -> None:
    connection.execute(f"CREATE TABLE public.platform_settings ({columns})")
    with pytest.raises(StoreError) as caught:
        migrate(url)
    assert f"exists in another form ({wrong}): change its columns, or rename it" in str(caught.value)
    assert ask(connection, "SELECT count(*) FROM pg_class WHERE relname LIKE 'maintenance%'") == 0


_UPSERT: LiteralString = (
    "INSERT INTO platform_settings (key, value_bool) VALUES ('maintenance_mode', {}) ON CONFLICT (key) "
)


@pytest.mark.parametrize(
    ("statement", "taken"),
    [
        ("UPDATE platform_settings SET value_bool = true", 1),
        ("UPDATE platform_settings SET value_bool = NULL", 1),
        ("UPDATE platform_settings SET value_text = 'x'", 1),
        ("""UPDATE platform_settings SET details = '{"message": "back soon"}'""", 1),
        ("UPDATE platform_settings SET value_bool = true, updated_by = gen_random_uuid(), description = 'x'", 1),
        ("UPDATE platform_settings SET value_bool = true, revision = 1", 1),
        ("UPDATE platform_settings SET value_bool = true, revision = 9223372036854775807", 1),
        (_UPSERT.format("true") + "DO UPDATE SET value_bool = EXCLUDED.value_bool", 1),
        (_UPSERT.format("false") + "DO UPDATE SET value_bool = EXCLUDED.value_bool", 0),
        (_UPSERT.format("true") + "DO NOTHING", 0),
        ("UPDATE platform_settings SET value_bool = value_bool", 0),
        ("UPDATE platform_settings SET value_bool = false, details = '{}'", 0),
        ("UPDATE platform_settings SET updated_by = gen_random_uuid()", 0),
        ("UPDATE platform_settings SET description = 'x'", 0),
        ("UPDATE platform_settings SET revision = revision + 10", 0),
        ("UPDATE platform_settings SET updated_at = '2001-01-01'", 0),
        ("UPDATE platform_settings SET drain_revision = 0", 0),
    ],
)
def test_a_change_by_raw_sql_is_a_new_revision(migrated: Connection, statement: LiteralString, taken: int) -> None:
    migrated.execute("UPDATE platform_settings SET updated_at = 'epoch'")
    before = revision(migrated)
    migrated.execute(statement)
    assert revision(migrated) == before + taken
    assert ask(migrated, "SELECT now() - updated_at < '1 min' FROM platform_settings") is bool(taken)
    migrated.execute("UPDATE platform_settings SET value_text = 'the next one'")
    assert revision(migrated) == before + taken + 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE platform_settings SET value_bool = true, drain_revision = 0",
        "UPDATE platform_settings SET drain_revision = 0",
        (
            "DELETE FROM platform_settings; INSERT INTO platform_settings (key, value_bool, drain_revision) "
            "VALUES ('maintenance_mode', true, 0)"
        ),
        (
            "INSERT INTO platform_settings (key, value_bool, drain_revision) VALUES ('maintenance_mode', true, 0) "
            "ON CONFLICT (key) DO UPDATE SET value_bool = true, drain_revision = EXCLUDED.drain_revision"
        ),
    ],
)
def test_a_drain_at_revision_0_is_a_drain_at_this_very_change(migrated: Connection, statement: LiteralString) -> None:
    migrated.execute(statement)
    assert ask(migrated, "SELECT drain_revision = revision FROM platform_settings") is True
    migrated.execute("UPDATE platform_settings SET value_text = 'x'")
    assert ask(migrated, "SELECT drain_revision = revision FROM platform_settings") is False


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize(
    ("before", "held"),
    [
        ("SELECT 1", "UPDATE platform_settings SET value_bool = true"),
        ("SELECT 1", "DELETE FROM platform_settings"),
        ("SELECT 1", "DELETE FROM platform_settings; INSERT INTO platform_settings (key) VALUES ('maintenance_mode')"),
        ("DELETE FROM platform_settings", "INSERT INTO platform_settings (key) VALUES ('maintenance_mode')"),
    ],
    ids=["a flip", "a delete", "a delete and insert", "an insert"],
)
def test_a_flip_that_waits_for_another_change_has_a_later_revision(
    url: str, migrated: Connection, before: LiteralString, held: LiteralString, end: LiteralString
) -> None:
    change = Change(enabled=True, details=Details(message="later"), drain=True)
    migrated.execute(before)
    highest = ask(migrated, "SELECT last FROM platform_settings_revision")
    with (
        psycopg.connect(url) as holder,
        ThreadPoolExecutor(1) as pool,
        closing(PostgresStore(url).connect()) as session,
    ):
        holder.execute(held)
        if end == "COMMIT":
            highest = ask(holder, "SELECT last FROM platform_settings_revision")
        written = pool.submit(session.write, change)
        eventually(lambda: ask(migrated, "SELECT count(*) FROM pg_locks WHERE NOT granted"), what="the flip waits")
        holder.execute(end)
        row = written.result(10).row
        assert row.revision == highest + 1, "no number is lost"
        assert session.read().row == row
        assert row.drain


def test_the_revision_only_grows_while_many_flip_at_the_same_time(url: str, migrated: Connection) -> None:
    migrated.execute("CREATE TABLE seen (nr serial, revision bigint, drain bigint)")
    migrated.execute(
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO seen (revision, drain) VALUES (NEW.revision, NEW.drain_revision); RETURN NULL; END';"
        "CREATE TRIGGER z AFTER UPDATE ON platform_settings FOR EACH ROW EXECUTE FUNCTION look()"
    )

    def flip(number: int) -> None:
        with closing(PostgresStore(url).connect()) as session:
            for turn in range(25):
                session.write(Change(enabled=True, details=Details(message=f"{number} {turn}"), drain=True))

    def by_hand(number: int) -> None:
        with psycopg.connect(url, autocommit=True) as psql:
            for turn in range(25):
                psql.execute(f"UPDATE platform_settings SET value_text = '{number} {turn}'")
                psql.execute(_UPSERT.format("true") + f"DO UPDATE SET value_text = '{number} {turn} again'")

    migrated.execute("DELETE FROM platform_settings")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda call: call[0](call[1]), [(flip, 1), (by_hand, 2), (flip, 3), (by_hand, 4)]))
    seen = migrated.execute("SELECT revision, drain FROM seen ORDER BY nr").fetchall()
    revisions = [revision for revision, _ in seen]
    assert len(seen) >= 100
    assert revisions == sorted(set(revisions))
    assert all(drain in (None, revision) or drain < revision for revision, drain in seen)
    assert 0 not in [drain for _, drain in seen]


def test_a_role_that_may_only_insert_adds_other_settings_and_no_flag(
    migrated: Connection, flipper: LiteralString
) -> None:
    migrated.execute(f"GRANT INSERT ON platform_settings TO {flipper}")
    migrated.execute(f"GRANT USAGE ON SEQUENCE platform_settings_id_seq TO {flipper}")
    migrated.execute(f"SET ROLE {flipper}")
    migrated.execute("INSERT INTO platform_settings (key) VALUES ('another')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        migrated.execute("INSERT INTO platform_settings (key) VALUES ('maintenance_mode:another')")
    migrated.execute("RESET ROLE")
    assert ask(migrated, "SELECT revision FROM platform_settings WHERE key = 'another'") == 0


def test_a_trigger_of_the_platform_runs_as_the_role_that_flips(migrated: Connection) -> None:
    migrated.execute(
        "CREATE SCHEMA shop; CREATE TABLE shop.seen (key text);"
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO seen (key) VALUES (NEW.key); RETURN NULL; END';"
        "CREATE TRIGGER look AFTER UPDATE ON platform_settings FOR EACH ROW EXECUTE FUNCTION look()"
    )
    migrated.execute("SET search_path = shop, public")
    migrated.execute("INSERT INTO platform_settings (key, value_bool) VALUES ('maintenance_mode:cart', true)")
    assert ask(migrated, "SELECT key FROM seen") == "maintenance_mode:cart"


def test_the_revision_grows_across_delete_and_insert(url: str, migrated: Connection) -> None:
    migrated.execute(f"UPDATE platform_settings SET value_bool = true {FLAG}")
    before = revision(migrated)
    migrated.execute(f"DELETE FROM platform_settings {FLAG}")
    migrated.execute("INSERT INTO platform_settings (key, value_bool, revision) VALUES ('maintenance_mode', true, 1)")
    assert revision(migrated) > before
    migrated.execute("TRUNCATE platform_settings RESTART IDENTITY")
    migrate(url)
    assert revision(migrated) > before + 1


def test_settings_made_anew_beside_instances_of_before_give_no_revision_twice(url: str, migrated: Connection) -> None:
    migrated.execute(
        "INSERT INTO maintenance_instances (id, host, boot, pid, program, version, when_stale, ttl, revision) "
        "VALUES (gen_random_uuid(), 'h', 'b', 1, 'p', '1', 'serve', 10, 70)"
    )
    migrated.execute("DROP TABLE platform_settings CASCADE; DROP TABLE platform_settings_revision")
    migrate(url)
    assert revision(migrated) > 70


def test_what_replication_applies_is_a_change_like_any_other(migrated: Connection) -> None:
    before = revision(migrated)
    migrated.execute("LISTEN platform_settings")
    migrated.execute("SET session_replication_role = replica")
    migrated.execute(f"UPDATE platform_settings SET value_bool = true {FLAG}")
    assert revision(migrated) > before
    [heard] = migrated.notifies(timeout=10, stop_after=1)
    assert heard.payload == "maintenance_mode"


@pytest.mark.parametrize(
    ("statement", "payloads"),
    [
        ("UPDATE platform_settings SET value_bool = true", ["maintenance_mode"]),
        ("UPDATE platform_settings SET description = 'x'", ["maintenance_mode"]),
        ("UPDATE platform_settings SET value_bool = value_bool", []),
        ("DELETE FROM platform_settings", ["maintenance_mode"]),
        ("INSERT INTO platform_settings (key) VALUES ('another')", ["another"]),
    ],
)
def test_a_change_notifies_with_the_key(
    url: str, migrated: Connection, statement: LiteralString, payloads: list[str]
) -> None:
    migrated.execute("LISTEN platform_settings")
    with psycopg.connect(url) as writer:
        writer.execute(statement)
        writer.execute("NOTIFY platform_settings, 'end'")
    heard = [notice.payload for notice in migrated.notifies(timeout=10, stop_after=len(payloads) + 1)]
    assert heard == [*payloads, "end"]


def test_a_column_without_equality_stops_no_flip(migrated: Connection) -> None:
    migrated.execute("ALTER TABLE platform_settings ADD COLUMN extra json DEFAULT '{}'")
    migrated.execute("LISTEN platform_settings")
    for statement in (
        "UPDATE platform_settings SET value_bool = true",
        "UPDATE platform_settings SET value_bool = true",  # no change
        """UPDATE platform_settings SET extra = '{"a": 1}'""",
        "INSERT INTO platform_settings (key, extra) VALUES ('another', '[]')",
        "UPDATE platform_settings SET key = 'renamed' WHERE key = 'another'",
        "DELETE FROM platform_settings WHERE key = 'renamed'",
        "NOTIFY platform_settings, 'end'",
    ):
        migrated.execute(statement)
    heard = [notice.payload for notice in migrated.notifies(timeout=10, stop_after=7)]
    assert heard == ["maintenance_mode"] * 2 + ["another"] * 2 + ["renamed"] * 2 + ["end"]


@pytest.fixture
def flipper(connection: Connection) -> Iterator[LiteralString]:
    """A role that may do nothing yet."""
    connection.execute("DROP ROLE IF EXISTS flipper")
    connection.execute("CREATE ROLE flipper")
    yield "flipper"
    connection.execute("RESET ROLE; DROP OWNED BY flipper; DROP ROLE flipper")


def test_a_role_that_may_only_update_the_table_flips(migrated: Connection, flipper: LiteralString) -> None:
    """The counter, the history and the functions need no grant of their own, and give no other right."""
    migrated.execute(f"GRANT SELECT, UPDATE ON platform_settings TO {flipper}")
    before = revision(migrated)
    migrated.execute(f"SET ROLE {flipper}")
    migrated.execute(f"UPDATE platform_settings SET value_bool = true {FLAG}")
    assert revision(migrated) > before
    for statement in (
        "UPDATE platform_settings_revision SET last = 1",
        "SELECT FROM platform_settings_revision FOR KEY SHARE",
        "DO 'BEGIN LOCK TABLE platform_settings_revision IN ROW EXCLUSIVE MODE; END'",
        "DELETE FROM maintenance_history",
        "INSERT INTO maintenance_history (key, revision, role, application_name) VALUES ('a', 1, 'b', 'c')",
        "SELECT FROM maintenance_history",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            migrated.execute(statement)
    migrated.execute("RESET ROLE")
    recorded = "SELECT role, new_value, application_name FROM maintenance_history ORDER BY revision DESC LIMIT 1"
    [(role, value, _)] = migrated.execute(recorded)
    assert (role, value) == (flipper, True)


@pytest.mark.parametrize("breaks", ["DROP TABLE maintenance_history", "LOCK maintenance_history"])
def test_no_flip_fails_because_of_the_history(url: str, migrated: Connection, breaks: LiteralString) -> None:
    before = revision(migrated)
    with psycopg.connect(url) as holder:
        if breaks.startswith("LOCK"):
            holder.execute(breaks)
        else:
            migrated.execute(breaks)
        with closing(PostgresStore(url).connect()) as session:
            assert session.write(Change(enabled=True, details=Details())).row.revision == before + 1


@pytest.mark.parametrize("lost", ["DELETE FROM platform_settings_revision", "DROP TABLE platform_settings_revision"])
def test_a_counter_that_was_lost_gives_no_revision_twice(url: str, migrated: Connection, lost: LiteralString) -> None:
    migrated.execute("UPDATE platform_settings SET value_text = 'x'")
    before = revision(migrated)
    migrated.execute(lost)
    if lost.startswith("DROP"):
        with pytest.raises(psycopg.errors.UndefinedTable):
            migrated.execute("UPDATE platform_settings SET value_text = 'y'")
        migrate(url)
    migrated.execute("UPDATE platform_settings SET value_text = 'y'")
    assert revision(migrated) == before + 1


# A table whose column runs code of its owner when the trigger fills it.
_TRAP: tuple[LiteralString, ...] = (
    (
        "CREATE FUNCTION pg_temp.trap(bigint) RETURNS boolean LANGUAGE plpgsql STRICT AS "
        "$$ BEGIN EXECUTE 'ALTER ROLE flipper SUPERUSER'; RETURN true; END $$"
    ),
    "CREATE DOMAIN pg_temp.trapped AS bigint CHECK (pg_temp.trap(value))",
    (
        "CREATE TEMPORARY TABLE trap (key text, value_bool boolean, value_text text, details jsonb, "
        "revision pg_temp.trapped, updated_at timestamptz)"
    ),
)


@pytest.mark.parametrize("function", ["platform_settings_revise", "platform_settings_record"])
def test_the_triggers_do_not_lend_their_owner_s_rights(
    migrated: Connection, flipper: LiteralString, function: str
) -> None:
    """They run as their owner, so no other role may put them on a table of its own."""
    migrated.execute(f"SET ROLE {flipper}")
    for statement in _TRAP:
        migrated.execute(statement)
    create = f"CREATE TRIGGER t BEFORE INSERT ON trap FOR EACH ROW EXECUTE FUNCTION public.{function}()"
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"):
        migrated.execute(create)  # type: ignore[call-overload]
    migrated.execute("RESET ROLE")
    migrated.execute(create)  # type: ignore[call-overload]
    with pytest.raises(psycopg.errors.RaiseException, match=f"{function} belongs to public.platform_settings"):
        migrated.execute("INSERT INTO trap (key) VALUES ('a')")
    assert ask(migrated, "SELECT rolsuper FROM pg_roles WHERE rolname = 'flipper'") is False
    migrated.execute("DROP TABLE trap; DROP DOMAIN pg_temp.trapped")


def test_a_hostile_search_path_changes_nothing(url: str, connection: Connection) -> None:
    connection.execute("CREATE SCHEMA other; SET search_path = other")
    for _, text in migrations():
        connection.execute(text)  # type: ignore[call-overload]
    connection.execute("UPDATE public.platform_settings SET value_bool = true")
    assert ask(connection, "SELECT count(*) FROM pg_class WHERE relnamespace = 'other'::regnamespace") == 0


# Each matches better than PostgreSQL's own, unless that is named with its schema or called with its exact types.
_BETTER: tuple[LiteralString, ...] = (
    "FUNCTION public.has_table_privilege(regclass, text) RETURNS boolean",
    "FUNCTION public.has_sequence_privilege(text, text, text) RETURNS boolean",
    "FUNCTION public.hashtextextended(text, integer) RETURNS bigint",
    "FUNCTION public.nextval(text) RETURNS bigint",
    "FUNCTION public.concat(text, bigint) RETURNS text",
    "FUNCTION public.trap(oid, regclass) RETURNS boolean",
    "FUNCTION public.trap(oid, regtype) RETURNS boolean",
)
_OPERATORS: tuple[LiteralString, ...] = (
    "public.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = public.trap)",
    "public.= (LEFTARG = oid, RIGHTARG = regtype, FUNCTION = public.trap)",
)


@pytest.mark.parametrize("migrated_before", [False, True])
def test_a_function_that_a_role_created_in_public_is_never_run(
    url: str, connection: Connection, *, migrated_before: bool
) -> None:
    """Up to PostgreSQL 14 everybody may. The pattern is that of CVE-2018-1058."""
    if migrated_before:
        migrate(url)
    for head in _BETTER:
        connection.execute(f"CREATE {head} LANGUAGE plpgsql AS $$ BEGIN RAISE 'run as %', current_user; END $$")
    for operator in _OPERATORS:
        connection.execute(f"CREATE OPERATOR {operator}")
    with pytest.raises(psycopg.errors.RaiseException, match="run as tester"):
        connection.execute("SELECT nextval('a')")  # the trap works
    migrate(url)
    with (
        closing(MaintenanceState(url, when_stale="block")) as member,
        closing(MaintenanceState(url, register=False)) as operator,
    ):
        member.start()
        assert operator.prove(operator.set(True), drain=True, expect=1, timeout=10.0)
        assert member.enabled
    assert operator.fleet().instances == ()


def test_a_flip_in_psql_survives_a_crash_of_the_server_whatever_the_role_asks() -> None:
    """Processes may have followed it, and a proof of the flag before it must not come true again."""
    with server(**DURABLE) as own:
        migrate(own.url())
        with psycopg.connect(own.url(), autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute("UPDATE platform_settings SET value_bool = true")
            own.kill()
        own.start()
        with psycopg.connect(own.url()) as connection:
            assert ask(connection, f"SELECT value_bool FROM platform_settings {FLAG}") is True


def test_a_table_of_instances_that_is_made_anew_is_not_whole(url: str, migrated: Connection) -> None:
    """Who was in it still serves, and need not have noticed."""
    migrated.execute("DROP TABLE maintenance_instances")
    migrate(url)
    with closing(MaintenanceState(url, register=False)) as operator:
        assert not operator.fleet().intact
        proof = operator.prove(operator.set(True), timeout=0.0)
        assert (proof.proven, "pass --expect N" in str(proof.problem)) == (False, True)
    dumped = dump(migrated)
    migrate(url)
    assert dump(migrated) == dumped


@pytest.mark.parametrize("came", ["settings", "instances"])
def test_rows_that_come_without_the_counter_take_no_later_revision(url: str, migrated: Connection, came: str) -> None:
    """As logical replication brings them to the server that is to take over."""
    if came == "settings":
        migrated.execute("ALTER TABLE platform_settings DISABLE TRIGGER platform_settings_revise")
        migrated.execute("UPDATE platform_settings SET revision = 4242")
    else:
        migrated.execute("DELETE FROM platform_settings_revision")
        acknowledge(migrated, 4242)
    migrate(url)
    migrated.execute("UPDATE platform_settings SET value_bool = true")
    assert revision(migrated) == 4243


def acknowledge(connection: Connection, number: int) -> None:
    connection.execute(
        "INSERT INTO maintenance_instances (id, host, boot, pid, program, version, when_stale, ttl, revision) "
        "VALUES (gen_random_uuid(), 'web-1', '', 1, 'gunicorn', '1', 'serve', 10, %s)",
        [number],
    )


def test_a_migration_hides_no_restore(url: str, migrated: Connection) -> None:
    """A process that has acknowledged more than the counter follows a state that was taken back."""
    acknowledge(migrated, 4242)
    migrate(url)
    assert ask(migrated, "SELECT last FROM platform_settings_revision") == revision(migrated)


def test_a_role_that_serves_uses_up_no_numbers(url: str, migrated: Connection) -> None:
    acknowledge(migrated, MAX_REVISION)
    for lost in ("SELECT 1", "DELETE FROM platform_settings_revision"):
        migrated.execute(lost)  # type: ignore[call-overload]
        migrate(url)
        migrated.execute("UPDATE platform_settings SET value_bool = NOT value_bool")
        assert revision(migrated) < MAX_REVISION


def test_a_row_that_nobody_has_flipped_is_older_than_any_flip(migrated: Connection) -> None:
    assert ask(migrated, f"SELECT updated_at = 'epoch' FROM platform_settings {FLAG}") is True
    migrated.execute("UPDATE platform_settings SET value_bool = true")
    assert ask(migrated, f"SELECT updated_at > now() - interval '1 hour' FROM platform_settings {FLAG}") is True


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("key text PRIMARY KEY, revision integer NOT NULL DEFAULT 1", r"columns of another use \(revision\): rename"),
        ("key text UNIQUE DEFERRABLE", r"\(key\) is deferrable: make it NOT DEFERRABLE"),
    ],
)
def test_a_table_that_flips_would_break_is_refused(url: str, connection: Connection, table: str, error: str) -> None:
    connection.execute(f"CREATE TABLE platform_settings ({table})")  # type: ignore[call-overload]
    with pytest.raises(StoreError, match=error):
        migrate(url)


def test_of_two_operators_who_insert_a_flag_at_once_one_is_refused(url: str, migrated: Connection) -> None:
    change = Change(enabled=True, details=Details(message="mine"), scope="shop", if_revision=0)
    with (
        psycopg.connect(url) as holder,
        ThreadPoolExecutor(1) as pool,
        closing(PostgresStore(url).connect()) as session,
    ):
        holder.execute("INSERT INTO platform_settings (key, value_bool) VALUES ('maintenance_mode:shop', true)")
        written = pool.submit(session.write, change)
        eventually(lambda: ask(migrated, "SELECT count(*) FROM pg_locks WHERE NOT granted"), what="the flip waits")
        holder.commit()
        with pytest.raises(ConflictError, match="the flag is at revision 2, not 0"):
            written.result(10)
    assert ask(migrated, "SELECT details FROM platform_settings WHERE key = 'maintenance_mode:shop'") == {}


def notify_without_end(connection: Connection) -> None:
    for number in itertools.count():
        connection.execute("SELECT pg_notify('x', repeat('y', 7900) || %s)", [str(number)])


def test_a_full_queue_of_notifications_refuses_no_flip() -> None:
    """Any listener of the cluster, in any database, may keep it full: one that sits in a transaction."""
    binaries = installations()[-1]
    if binaries.version < 17:
        pytest.skip("only from PostgreSQL 17 on can the queue be made small enough to fill it")
    with server(binaries, max_notify_queue_pages="64") as own, psycopg.connect(own.url()) as stuck:
        migrate(own.url())
        with psycopg.connect(own.url(), autocommit=True) as connection:
            stuck.execute("LISTEN x")
            stuck.commit()
            stuck.execute("SELECT 1")
            with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="too many notifications"):
                notify_without_end(connection)
            connection.execute("UPDATE platform_settings SET value_bool = true")
            assert ask(connection, f"SELECT value_bool FROM platform_settings {FLAG}") is True
            stuck.rollback()
            eventually(lambda: ask(connection, "SELECT pg_notification_queue_usage()") == 0.0)
            connection.execute("LISTEN platform_settings")
            connection.execute("UPDATE platform_settings SET value_bool = false")
            assert [it.payload for it in connection.notifies(timeout=5.0, stop_after=1)] == ["maintenance_mode"]


def test_the_instances_survive_a_crash_of_the_server() -> None:
    """An emptied table would be taken for an empty fleet, so it must be logged."""
    with server(**DURABLE) as own:
        migrate(own.url())
        with psycopg.connect(own.url(), autocommit=True) as connection:
            before = ask(connection, "SELECT count(*) FROM maintenance_instances")
            own.kill()
        own.start()
        with psycopg.connect(own.url()) as connection:
            assert ask(connection, "SELECT count(*) FROM maintenance_instances") == before
            assert before
