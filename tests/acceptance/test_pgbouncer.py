"""Behind a real PgBouncer, in each of its pool modes. Clients share server sessions if the mode allows it."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from maintenance import MaintenanceState, StoreError
from maintenance.stores import PostgresStore
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_wsgi
from tests.support.pgbouncer import PoolMode, pgbouncer
from tests.support.plain_apps import wsgi
from tests.support.postgres import Server
from tests.support.waiting import eventually

TTL = 1.0


@pytest.fixture
def pooled_url(request: pytest.FixtureRequest, postgres: Server, migrated_url: str) -> Iterator[str]:
    """The test's database through a PgBouncer in the mode of the parameter."""
    mode: PoolMode = request.param
    with pgbouncer(postgres, mode=mode) as bouncer:
        yield postgres.url(migrated_url.rpartition("/")[2], port=bouncer.port)


@pytest.mark.parametrize("pooled_url", ["session", "transaction", "statement"], indirect=True)
def test_processes_behind_it_follow_by_polling_and_are_proven(pooled_url: str, migrated_url: str) -> None:
    with closing(MaintenanceState(migrated_url, register=False)) as operator:
        with ExitStack() as stack:
            states = [
                stack.enter_context(closing(MaintenanceState(pooled_url, ttl=TTL, when_stale=policy)))
                for policy in ("serve", "block", "serve")
            ]
            apps = [MaintenanceMiddleware(wsgi, state) for state in states]
            assert [call_wsgi(app).status for app in apps] == [200, 200, 200]
            assert not any(state.status().listening for state in states)
            for enabled, expected in ((True, 503), (False, 200)):
                proof = operator.prove(operator.set(enabled), drain=enabled, expect=len(states), timeout=10.0)
                assert proof, proof
                assert {instance.id for instance in proof.confirmed} == {state.status().instance for state in states}
                assert [call_wsgi(app).status for app in apps] == [expected] * len(apps)
            assert [state.status().condition for state in states] == ["fresh"] * len(states)
        eventually(lambda: not operator.fleet().instances, what="an empty fleet")


@pytest.mark.parametrize("pooled_url", ["session", "transaction"], indirect=True)
def test_an_operator_behind_it_migrates_flips_and_proves(pooled_url: str, migrated_url: str) -> None:
    PostgresStore(pooled_url).migrate()
    with (
        closing(MaintenanceState(migrated_url)) as member,
        closing(MaintenanceState(pooled_url, register=False)) as operator,
    ):
        app = MaintenanceMiddleware(wsgi, member)
        assert call_wsgi(app).status == 200
        assert operator.prove(operator.set(True), drain=True, expect=1, timeout=10.0)
        assert call_wsgi(app).status == 503


@pytest.mark.parametrize("pooled_url", ["statement"], indirect=True)
def test_statement_pooling_refuses_a_flip_and_the_error_says_what_to_do(pooled_url: str) -> None:
    with closing(MaintenanceState(pooled_url, register=False)) as operator:
        with pytest.raises(StoreError, match="transaction blocks not allowed.*: pool by transaction"):
            operator.set(True)
        assert not operator.refresh().enabled
    with pytest.raises(StoreError, match=": pool by transaction"):
        PostgresStore(pooled_url).migrate()
