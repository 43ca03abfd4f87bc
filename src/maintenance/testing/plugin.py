"""The fixture for pytest, which finds it without any configuration."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from maintenance.base.values import Snapshot
from maintenance.testing import override_maintenance

Override = Callable[..., Snapshot]


@pytest.fixture
def maintenance_override() -> Iterator[Override]:
    """Call it like `override_maintenance`, as often as needed. The end of the test undoes it."""
    with contextlib.ExitStack() as stack:

        def override(enabled: bool = True, scope: str | None = None, **details: Any) -> Snapshot:  # noqa: FBT002
            return stack.enter_context(override_maintenance(enabled, scope, **details))

        yield override
