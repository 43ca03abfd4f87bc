"""Three promises of docs/explanation/guarantees.md to visitors, through both adapters, over PostgreSQL.

While the flag is on, visitors get a 503. `/health` and `/admin` still reach the app. A flip in the database reaches
the process within one TTL, and nothing needs a restart.
"""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.stores import PostgresStore
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import Answer, call_asgi, call_wsgi
from tests.support.plain_apps import asgi, wsgi
from tests.support.sql import flip
from tests.support.waiting import eventually

TTL = 1.0

Get = Callable[[str], Answer]


@pytest.fixture
def state(migrated_url: str) -> Iterator[MaintenanceState]:
    # Without notifications, so that the TTL brings the change.
    with closing(MaintenanceState(PostgresStore(migrated_url, listen=False), ttl=TTL)) as state:
        yield state


@pytest.fixture(params=["wsgi", "asgi"])
def get(request: pytest.FixtureRequest, state: MaintenanceState) -> Get:
    if request.param == "wsgi":
        wrapped = WSGIMiddleware(wsgi, state)
        return lambda path: call_wsgi(wrapped, path)
    served = ASGIMiddleware(asgi, state)
    return lambda path: call_asgi(served, path)


def test_on_visitors_get_a_503_with_retry_after(get: Get, migrated_url: str) -> None:
    flip(migrated_url, on=True)
    answer = get("/")
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1


def test_on_health_and_admin_still_reach_the_app(get: Get, migrated_url: str) -> None:
    flip(migrated_url, on=True)
    reached = {"/": 503, "/health": 200, "/admin": 200, "/admin/": 200, "/admin/x": 200, "/administrator": 503}
    assert {path: get(path).status for path in reached} == reached


def test_a_flip_in_the_database_arrives_within_one_ttl(get: Get, migrated_url: str) -> None:
    assert get("/").status == 200
    for on in (True, False):
        flip(migrated_url, on=on)
        eventually(lambda on=on: get("/").status == (503 if on else 200), TTL + 1.0, what="the flip, within one TTL")
