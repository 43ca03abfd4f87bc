"""Store URLs: which store each names, how a wrong one is refused, and that no password is ever shown."""

import re
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from maintenance import ConfigurationError, MaintenanceState, StoreError
from maintenance.stores import MemoryStore, PostgresStore, SQLiteStore, open_store
from maintenance.stores.postgres.connection import parse_url


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql://me@h/d", PostgresStore),
        ("postgres://me@h/d", PostgresStore),
        ("sqlite:///x.db", SQLiteStore),
        ("memory://", MemoryStore),
    ],
)
def test_a_url_names_its_store(url: str, kind: type) -> None:
    assert type(open_store(url)) is kind


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg://me:hunter2@h/d", "use postgresql:// instead"),
        ("postgres+asyncpg://me:hunter2@h/d", "use postgres:// instead"),
        ("sqlite+aiosqlite:///x.db", "use sqlite:// instead"),
        ("mysql+pymysql://me:hunter2@h/d", "use postgresql://user@host/database, sqlite:///path or memory://"),
        ("redis://me:hunter2@h", "begins with redis://: use postgresql://"),
        ("me:hunter2@h", "has no scheme: use postgresql://"),
        ("host=h user=me password=hunter2://x", "has no scheme: use postgresql://"),
        ("me:hunter2@h/d?application_name=a://b", "has no scheme: use postgresql://"),
        ("", "has no scheme"),
        ("memory://hunter2", "use memory://"),
        ("sqlite:", "has no scheme"),
        ("sqlite://", "does not name a file: use sqlite:///path, or memory://"),
        ("sqlite:///", "does not name a file"),
        ("sqlite:///:memory:", "or memory://"),
        ("sqlite://me:hunter2@host/path.db", "names a host: use sqlite:///path"),
        ("sqlite:///me:hunter2@host/path.db", "SQLite has neither: use sqlite:///path, with %40 for each @"),
        ("sqlite:///x.db?mode=memory", r"has \?: use sqlite:///path alone"),
        ("sqlite:///x.db#y", "has #"),
        ("sqlite:///x%00.db", "has %00"),
        ("sqlite:///x\0", "has a NUL character"),
        ("sqlite:////", "is a folder"),
        ("sqlite:///no/such/folder/x.db", "does not exist, or this user may not enter it: create it"),
        ("postgresql://me:hunter2@h@x/d", "more than one @: use %40 for each @ in user and password"),
        ("postgresql://me:p@hunter2@h/d", "more than one @"),
        ("postgresql://me:p@hun/ter2@h/d", "more than one @"),
        ("postgresql://me:hun/ter2@h/d", "use %2F for each /"),
        ("postgresql://me:1/hunter2@h/d", "use %2F for each /"),
        ("postgresql://me:hun?ter2@h/d", r"use %3F for each \?"),
        ("postgresql://me:1?dbname=hunter2@h/d", r"use %3F for each \?"),
        ("postgresql://me:hunter2#x@h/d", "use %23 for each #"),
        ("postgresql://h/d?password=hunter2#x", "use %23 for each #"),
        ("postgresql://h/d?password=hun@ter2", "%40 for each @ after the host"),
        ("postgresql://me:hunter2", "a number as the port"),
        ("postgresql://me:123456", "a number as the port"),
        ("postgresql://me:hunter2@[::1/d", r"\[ and \] around an IPv6 address"),
        ("postgresql://me:hunter2[/d", r"\[ and \] around an IPv6 address"),
        ("postgresql://me:%zzhunter2@h/d", "cannot be parsed: use postgresql://user@host:port/database"),
        ("postgresql://h/d?password=%zzhunter2", "cannot be parsed"),
        ("postgresql://h/d?password=hun=ter2", "cannot be parsed"),
        ("postgresql://h/d?password=hun&ter2", "cannot be parsed.* such as %26 for each &"),
        ("postgresql://h/d?hunter2=1", "libpq's own parameters only, such as sslmode=require"),
        ("postgresql://h/d?password=hun&ter2&conect_timeout=3", "libpq's own parameters only"),
        ("postgresql://me:hunter2\0@h/d", "has a NUL character"),
        ("postgresql://me:hunter2\udce4@h/d", "cannot be parsed"),
        ("postgresql://me:hunter2%FF@h/d", "cannot be parsed"),
        ("postgresql://me%3Ahunter2@h/d", "signs of a password in its user: use postgresql://user:password@host"),
        ("postgresql://me%3Ahunter2%40h/d", "signs of a password in its host"),
        ("postgresql://h/password=hunter2", "signs of a password in its dbname"),
        ("postgresql:///d?hostaddr=me:hunter2%40::1", "signs of a password in its hostaddr"),
        ("postgresql://me:hunter2@h/d?port=hunter2", "holds a wrong port: use a whole number"),
        ("postgresql://me:hunter2@h/d?connect_timeout=2s", "holds a wrong connect_timeout: use a whole number"),
        ("postgresql://me:hunter2@h/d?keepalives=yes", "holds a wrong keepalives"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_use_and_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_store(url)
    assert pieces_in(caught.value) == []


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PostgresStore("postgresql://h/d", statement_timeout="3"), "statement_timeout is '3'"),
        (lambda: PostgresStore("postgresql://h/d", statement_timeout=True), "statement_timeout is True"),
        (lambda: PostgresStore("postgresql://h/d", statement_timeout=0), "statement_timeout is 0"),
        (lambda: PostgresStore("postgresql://h/d", statement_timeout=-1.0), "statement_timeout is -1.0"),
        (lambda: PostgresStore("postgresql://h/d", statement_timeout=float("inf")), "statement_timeout is inf"),
        (lambda: PostgresStore("postgresql://h/d", statement_timeout=float("nan")), "statement_timeout is nan"),
        (lambda: PostgresStore("postgresql://h/d", listen="no"), "listen is 'no'"),
        (lambda: SQLiteStore("sqlite:///x.db", create=1), "create is 1"),
    ],
)
def test_a_wrong_option_of_a_store_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build()


@pytest.mark.parametrize(
    "url", [None, b"postgresql://h/d", Path("x.db"), "x.db", "sqlite:x.db", "http://me:hunter2@h/d"]
)
def test_a_store_refuses_the_url_of_another(url: object) -> None:
    for kind, message in (
        (SQLiteStore, "not SQLite's: use sqlite:///path"),
        (PostgresStore, "not PostgreSQL's: use postgresql://user@host/database"),
        (MemoryStore, "use memory://"),
    ):
        with pytest.raises(ConfigurationError, match=message) as caught:
            kind(url)
        assert pieces_in(caught.value) == []


def pieces_in(exc: BaseException | None, *texts: str) -> list[str]:
    """The texts with a piece of the password: those given, and the whole chain of errors, shown or not."""
    chain: list[BaseException] = []
    todo = [exc]
    while todo:
        if (found := todo.pop()) and found not in chain:
            chain.append(found)
            todo += [found.__cause__, found.__context__]
    return [text for text in (*texts, *map(repr, chain), *map(str, chain)) if re.search("hun|ter2", text)]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/d",
        "postgresql://me:hun%2Fter2@127.0.0.1:1/d",
        "postgresql://me:hun%40ter2%23@127.0.0.1:1/d",
        "postgresql://me:hun:ter2@127.0.0.1:1/d",
        "postgresql://me:hunter2\u2100@127.0.0.1:1/d",
        "postgresql://me:hunter2@[::1]:1,127.0.0.1:1/d",
        "postgresql://me:hunter2@/d?host=/nowhere/at/all",
        "postgresql://me:hunter2@no.such.host.invalid/nowhere",
        "postgresql://127.0.0.1:1/d?user=me&password=hunter2",
        "postgresql://127.0.0.1:1/d?user=me&password=hun%40ter2/x",
        "postgresql://127.0.0.1:1/d?user=me&sslpassword=hunter2",
        "postgresql://me:hunter2@127.0.0.1:65536/d",
        "postgresql://me:hunter2@127.0.0.1:0/d",
        "postgresql://me:hunter2@127.0.0.1:1/d?connect_timeout=-",
        "postgresql://me:hunter2@127.0.0.1:1/d?keepalives_idle=99999999999",
    ],
)
def test_a_password_is_in_no_name_no_error_and_no_status(url: str) -> None:
    store = PostgresStore(url)
    with closing(MaintenanceState(store, register=False)) as state:
        with pytest.raises(StoreError) as caught:
            state.refresh()
        assert pieces_in(caught.value, store.name, repr(store), str(state.status()), repr(state)) == []


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("127.0.0.1:65536/d", 'invalid port number: "65536"'),
        ("127.0.0.1,127.0.0.1:0/d", 'invalid port number: "0"'),
        ("127.0.0.1:1/d?connect_timeout=-", "connect_timeout"),
        ("127.0.0.1:1/d?keepalives_idle=99999999999", "keepalives_idle"),
    ],
)
def test_a_number_that_is_out_of_range_is_named_at_once(place: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        PostgresStore(f"postgresql://me@{place}").connect()


def test_a_wrong_password_is_in_no_error(migrated_url: str) -> None:
    url = migrated_url.replace(str(urlsplit(migrated_url).password), "hunter2")
    with pytest.raises(StoreError) as caught:
        open_store(url).connect()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_several_hosts_mean_the_primary_unless_a_parameter_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def target(url: str) -> str | None:
        return parse_url(url).get("target_session_attrs")

    assert target("postgresql://a,b/d") == "read-write"
    assert target("postgresql://a,b/d?target_session_attrs=any") == "any"
    assert target("postgresql://a/d") is None
    assert target("postgresql:///d?hostaddr=1.1.1.1,1.1.1.2") == "read-write"
    monkeypatch.setenv("PGHOST", "a,b")
    assert target("postgresql:///d") == "read-write"
    assert target("postgresql://a/d") is None
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "primary")
    assert target("postgresql:///d") is None
    for number in ("9", "+9", "9.5", " 9", "-1"):
        assert parse_url(f"postgresql://a/d?connect_timeout={quote(number)}")["connect_timeout"] == number


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://me:hunter2@h:5433/d", "postgresql://me@h:5433/d"),
        ("postgres:///d?host=/tmp", "postgresql://%2Ftmp/d"),
        ("postgres:///d?hostaddr=127.0.0.1", "postgresql://127.0.0.1/d"),
        ("postgresql://me%40work@h/a%2Fb", "postgresql://me%40work@h/a%2Fb"),
        ("postgresql://h", "postgresql://h/"),
        ("postgresql://me:hunter2@a:1,b:2/d", "postgresql://me@a:1,b:2/d"),
        ("postgresql://a,b/d?port=5433", "postgresql://a:5433,b:5433/d"),
        ("postgresql://a,b:5433/d", "postgresql://a,b:5433/d"),
        ("postgresql://me@[::1]:5433/d", "postgresql://me@[::1]:5433/d"),
    ],
)
def test_the_name_is_the_url_without_its_password(url: str, name: str) -> None:
    assert PostgresStore(url).name == name == PostgresStore(name).name


def test_without_libpq_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("session", "connection"):
        monkeypatch.delitem(sys.modules, f"maintenance.stores.postgres.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"install libpq, or run pip install 'maintenance\[standard\]'"):
        PostgresStore("postgresql://h/d")


def test_sqlite_keeps_its_path_when_the_folder_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("sqlite:///one%20%C3%BC%3F.db")
    monkeypatch.chdir("/")
    store.connect().close()
    assert (tmp_path / "one ü?.db").exists()
    assert SQLiteStore(store.name).name == store.name
