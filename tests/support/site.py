"""A process that serves, in this process: its state, its app, and what its clients saw."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from maintenance import MaintenanceState
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import Crowd, call_wsgi
from tests.support.plain_apps import wsgi


class Site(Crowd):
    """A WSGI app behind a state, and its clients."""

    def __init__(self, state: MaintenanceState) -> None:
        super().__init__(lambda: call_wsgi(MaintenanceMiddleware(wsgi, state)))
        self.state = state

    @property
    def condition(self) -> str:
        return self.state.status().condition


@contextmanager
def site(store: Any, **options: Any) -> Iterator[Site]:
    """A site over a store or a URL; `options` are those of `MaintenanceState`."""
    with closing(MaintenanceState(store, **options)) as state:
        yield Site(state)
