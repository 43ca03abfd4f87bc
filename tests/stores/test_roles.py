"""What each role of PostgreSQL can do to the tables, and what it cannot. docs/explanation/security.md lists it."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from psycopg.errors import InsufficientPrivilege, TooManyConnections

from maintenance import MaintenanceActive, MaintenanceState, StoreError, job
from maintenance.base.instances import SENTINEL
from maintenance.base.runtime import SocketWaker
from maintenance.errors import RegistrationError
from maintenance.stores import PostgresStore, Session
from maintenance.stores.migrations import migrations
from tests.docs.pages import marked
from tests.stores.helpers import LONG, ON, flip, instance
from tests.support.postgres import Server, installations

GRANTS = "docs/reference/sql.md"
IMPATIENT = tuple((name, sql.replace("'30s'", "'200ms'")) for name, sql in migrations())
"""The migrations, with less time for the lock."""


@contextmanager
def psql(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as opened:
        yield opened


class Roles:
    """Login roles of a migrated database, each with the grants that the documentation gives it."""

    def __init__(self, url: str) -> None:
        self.owner = url
        self._made: list[str] = []

    def make(self, name: str, grants: str | None = None) -> str:
        """Create a role, and return its URL."""
        self._made.append(name)
        with psql(self.owner) as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
            if grants:
                documented = marked(GRANTS, f"grants: {grants}")
                connection.execute(re.sub(r"shop_(app|admin|viewer)", name, documented).encode())
        return re.sub(r"//[^@]+@", f"//{name}:secret@", self.owner)

    def drop(self) -> None:
        with psql(self.owner) as connection:
            for name in self._made:
                connection.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.fixture
def roles(migrated_url: str) -> Iterator[Roles]:
    made = Roles(migrated_url)
    yield made
    made.drop()


@contextmanager
def session_of(url: str, *, listen: bool = False) -> Iterator[Session]:
    with closing(PostgresStore(url).connect(listen=listen)) as opened:
        yield opened


def refused(url: str, statement: str) -> bool:
    """Whether a role lacks the privilege for a statement."""
    with psql(url) as connection:
        try:
            connection.execute(statement.encode())
        except InsufficientPrivilege:
            return True
    return False


def test_a_fleet_works_with_the_grants_of_the_documentation(roles: Roles) -> None:
    web, admin = roles.make("web", "serve"), roles.make("admin", "flip")
    with psql(roles.owner) as owner:
        owner.execute(marked(GRANTS, "grants: history").replace("shop_admin", "admin").encode())
    with (
        closing(MaintenanceState(web)) as serving,
        closing(MaintenanceState(admin, register=False)) as operator,
    ):
        serving.start()
        with job("report", state=serving):
            proof = operator.prove(operator.set(True, scope="shop"), timeout=LONG)
            assert [it.id for it in proof.confirmed] == [serving.status().instance]
            assert serving.status().flags.get("shop").enabled
        PostgresStore(roles.owner).migrate()
        assert operator.prove(operator.set(True), drain=True, timeout=LONG)
        assert [entry.role for entry in operator.history()] == ["admin", "admin"]
        with pytest.raises(MaintenanceActive), job("report", wait=False, state=serving):
            pass
        with pytest.raises(StoreError, match="permission denied"):
            serving.history()


def test_a_role_changes_and_removes_the_rows_that_it_registered_and_no_others(roles: Roles) -> None:
    web, worker = roles.make("web", "serve"), roles.make("worker", "serve")
    mine, others = instance(), instance()
    with session_of(web, listen=True) as one, session_of(worker, listen=True) as other:
        one.report(mine)
        other.report(others)
        for number in (1, 2):  # the second is an acknowledgement of its own
            one.report(instance(id=mine.id, revision=number))
            message = rf"only worker, its members .* the row of instance {UUID(others.id)}: grant that role to this one"
            with pytest.raises(RegistrationError, match=message):
                one.report(instance(id=others.id, revision=number))
        with pytest.raises(RegistrationError, match="instances cannot be removed: .* only worker, its members"):
            one.remove(mine.id, others.id)
        assert {it.id: it.revision for it in one.fleet().instances} == {mine.id: 2, others.id: None}
        assert one.remove(mine.id) == 1
    for column in ("revision = 5", "registered_by = 'web'", "seen_at = now()"):
        assert refused(web, f"UPDATE maintenance_instances SET {column} WHERE id = '{others.id}'")
    with session_of(worker) as other:
        other.report(mine)
    assert refused(worker, f"UPDATE maintenance_instances SET registered_by = 'web' WHERE id = '{mine.id}'")


def test_a_member_of_a_role_forgets_the_rows_of_that_role(roles: Roles) -> None:
    web, admin = roles.make("web", "serve"), roles.make("admin", "flip")
    with session_of(web) as serving, closing(MaintenanceState(admin, register=False)) as operator:
        serving.report(dead := instance())
        with pytest.raises(StoreError, match="only web, its members"):
            operator.forget(dead.id)
        with psql(roles.owner) as owner:
            owner.execute(
                marked(GRANTS, "grants: forget").replace("shop_app", "web").replace("shop_admin", "admin").encode()
            )
        assert operator.forget(dead.id)
        serving.report(dead)
        with psql(roles.owner) as owner:
            owner.execute(f"DELETE FROM maintenance_instances WHERE id = '{dead.id}'")
        assert operator.fleet().instances == ()


def test_a_wait_counts_the_gone_whose_rows_it_may_not_remove(roles: Roles) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with closing(MaintenanceState(roles.make("web", "serve"))) as serving:
        serving.start()
        serving.wait_for_answer()
        [alive] = serving.fleet().instances
        with session_of(roles.make("other_web", "serve")) as other:
            other.report(instance(host=alive.host, boot=alive.boot, pid=ended.pid))
        with closing(MaintenanceState(roles.make("admin", "flip"), register=False)) as operator:
            proof = operator.prove(operator.set(True), timeout=LONG)
            assert (proof.problem, [it.pid for it in proof.gone]) == (None, [ended.pid])
            assert proof
            assert len(operator.fleet().instances) == 2


def test_a_row_of_a_role_that_was_dropped_is_the_owner_s(roles: Roles) -> None:
    web = roles.make("web", "serve")
    with psql(roles.owner) as owner:
        owner.execute(
            "INSERT INTO maintenance_instances (id, host, boot, pid, program, version, when_stale, ttl, registered_by) "
            "VALUES (gen_random_uuid(), 'h', 'b', 1, 'p', '1', 'serve', 10, 'gone')"
        )
        with session_of(web) as serving:
            [one] = serving.fleet().instances
            with pytest.raises(RegistrationError, match="only gone, its members and the owner"):
                serving.remove(one.id)
        with session_of(roles.owner) as session:
            assert session.remove(one.id) == 1


def test_a_row_of_an_earlier_version_belongs_to_the_role_that_writes_it_next(roles: Roles) -> None:
    web, worker = roles.make("web", "serve"), roles.make("worker", "serve")
    with session_of(web) as serving, session_of(worker) as other, psql(roles.owner) as owner:
        serving.report(found := instance())
        owner.execute("ALTER TABLE maintenance_instances DISABLE TRIGGER USER")
        owner.execute("UPDATE maintenance_instances SET registered_by = NULL")
        owner.execute("ALTER TABLE maintenance_instances ENABLE TRIGGER USER")
        serving.report(found)
        with pytest.raises(RegistrationError, match="only web"):
            other.report(found)


def test_only_a_role_that_flips_marks_the_table_as_complete(roles: Roles) -> None:
    web, admin = roles.make("web", "serve"), roles.make("admin", "flip")
    assert refused(web, "DELETE FROM maintenance_instances")
    assert refused(web, "TRUNCATE maintenance_instances")
    with psql(roles.owner) as owner:
        owner.execute("TRUNCATE maintenance_instances")
    with session_of(web) as serving, session_of(admin) as operator:
        with pytest.raises(RegistrationError, match="marks the table of instances as complete: connect as a role that"):
            serving.report(SENTINEL)
        serving.report(own := instance())
        assert refused(web, f"UPDATE maintenance_instances SET id = '{UUID(SENTINEL.id)}' WHERE id = '{own.id}'")
        assert not operator.fleet().intact
        operator.report(SENTINEL)
        assert serving.fleet().intact
        assert refused(web, f"DELETE FROM maintenance_instances WHERE id = '{UUID(SENTINEL.id)}'")


def test_without_a_grant_no_table_can_be_read_changed_or_locked(roles: Roles) -> None:
    stranger = roles.make("stranger")
    for table in ("platform_settings", "maintenance_instances"):
        for statement in (
            f"SELECT FROM {table}",
            f"DELETE FROM {table}",
            f"LOCK TABLE {table} IN ACCESS SHARE MODE",
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
        ):
            assert refused(stranger, f"BEGIN; {statement}"), statement
    assert refused(stranger, "UPDATE platform_settings_revision SET last = 1")


def test_without_a_grant_a_role_can_wake_processes_and_take_connections(roles: Roles) -> None:
    stranger = roles.make("stranger")
    with session_of(roles.owner, listen=True) as session, closing(SocketWaker()) as waker:
        before = flip(session)
        while session.wait(0.1, waker):
            session.read()
        with psql(stranger) as connection:
            connection.execute("NOTIFY platform_settings, 'maintenance_mode'")
        assert session.wait(LONG, waker)
        assert session.read().snapshot(read_at=0.0).revision == before, "it learns nothing new"
    with psql(roles.owner) as owner:
        owner.execute("ALTER ROLE stranger CONNECTION LIMIT 1")
    with psql(stranger), pytest.raises(psycopg.OperationalError, match="too many connections"):
        psycopg.connect(stranger)
    assert TooManyConnections.sqlstate


def test_the_locks_that_any_role_can_take_hold_up_no_migration_and_no_flip(roles: Roles) -> None:
    with psql(roles.make("stranger")) as stranger:
        stranger.execute("SELECT pg_advisory_lock(hashtextextended('maintenance migrate', 0))")
        stranger.execute("SELECT pg_advisory_lock(hashtextextended('maintenance fence', 0))")
        PostgresStore(roles.owner).migrate()
        with session_of(roles.owner) as session:
            assert session.write(ON).row.value_bool


def test_the_first_migration_names_the_session_that_holds_it_up(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maintenance.stores.postgres.store.migrations", lambda: IMPATIENT)
    with psql(roles.make("stranger")) as stranger, psql(roles.owner) as owner:
        owner.execute("DROP TABLE platform_settings, maintenance_instances")
        stranger.execute("SELECT pg_advisory_lock(hashtextextended('maintenance migrate', 0))")
        with pytest.raises(StoreError, match=rf"pg_terminate_backend\({stranger.info.backend_pid}\)"):
            PostgresStore(roles.owner).migrate()


def test_a_role_that_reads_sees_everything_and_changes_nothing(roles: Roles) -> None:
    viewer = roles.make("viewer", "look")
    with session_of(viewer) as session:
        assert session.fleet().intact
    for table in ("platform_settings", "maintenance_instances"):
        assert refused(viewer, f"DELETE FROM {table}")
        assert refused(viewer, f"BEGIN; LOCK TABLE {table} IN ROW SHARE MODE; LOCK TABLE {table} IN EXCLUSIVE MODE")
        # As pg_dump does. With row level security, this fails for every role but the owner.
        assert not refused(viewer, f"SET row_security = off; SELECT * FROM {table}")
    with psycopg.connect(viewer) as reading, session_of(roles.owner) as session:
        reading.execute("LOCK TABLE platform_settings, maintenance_instances IN ACCESS SHARE MODE")
        assert session.write(ON).row.value_bool
        PostgresStore(roles.owner).migrate()


def test_a_role_that_serves_can_lock_the_instances_and_no_setting(roles: Roles) -> None:
    web = roles.make("web", "serve")
    assert refused(web, "BEGIN; LOCK TABLE platform_settings IN EXCLUSIVE MODE")
    assert refused(web, "UPDATE platform_settings SET value_bool = true")
    with session_of(roles.owner) as session, psycopg.connect(web) as locking:
        locking.execute("LOCK TABLE maintenance_instances IN ACCESS EXCLUSIVE MODE")
        assert session.write(ON).row.value_bool
        assert session.read().snapshot(read_at=0.0).enabled
        with pytest.raises(RegistrationError):
            session.report(instance())


def test_a_role_that_flips_can_lock_the_settings_and_the_wait_names_its_session(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintenance.stores.postgres.store.migrations", lambda: IMPATIENT)
    admin = roles.make("admin", "flip")
    assert refused(admin, "ALTER TABLE platform_settings DISABLE TRIGGER USER")
    with psycopg.connect(admin) as locking:
        locking.execute("LOCK TABLE platform_settings IN SHARE MODE")
        with pytest.raises(StoreError, match=rf"pg_terminate_backend\({locking.info.backend_pid}\)"):
            PostgresStore(roles.owner).migrate()


def test_the_tables_can_be_dumped_by_a_reader_and_restored_by_the_owner(
    roles: Roles, postgres: Server, database_url: str
) -> None:
    found = [it.folder for it in installations() if (it.folder / "pg_dump").exists() and it.source == postgres.source]
    if not found:
        pytest.skip("this PostgreSQL has no pg_dump")
    with session_of(roles.make("web", "serve")) as serving:
        serving.report(one := instance())
    viewer = roles.make("viewer", "look")
    with psql(roles.owner) as owner:
        owner.execute("GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO viewer")
        owner.execute("GRANT SELECT ON maintenance_history TO viewer")
    dumped = subprocess.run([found[0] / "pg_dump", viewer], capture_output=True, text=True, check=True).stdout
    restored = subprocess.run(
        [found[0] / "psql", "-v", "ON_ERROR_STOP=1", database_url],
        input=dumped,
        capture_output=True,
        text=True,
        check=False,
    )
    assert restored.returncode == 0, restored.stderr
    PostgresStore(database_url).migrate()
    with psql(database_url) as connection:
        sql = f"SELECT registered_by FROM maintenance_instances WHERE id = '{one.id}'"
        assert connection.execute(sql.encode()).fetchone() == ("web",)


def test_a_table_without_the_guard_still_works(roles: Roles) -> None:
    with psql(roles.owner) as owner:
        owner.execute("DROP FUNCTION maintenance_instances_guard CASCADE")
        owner.execute("ALTER TABLE maintenance_instances DROP COLUMN registered_by")
    with session_of(roles.make("web", "serve"), listen=True) as serving:
        serving.report(one := instance())
        serving.report(instance(id=one.id, revision=1))
        assert serving.read(one.id).registered
        assert serving.remove(one.id) == 1
