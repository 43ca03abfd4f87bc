"""The library's one log, whatever the app's own filters and handlers do."""

import logging

import pytest

from maintenance.base.log import log


@pytest.mark.parametrize("error", [RuntimeError("a handler of the app's"), SystemExit("reload")])
def test_what_a_handler_raises_hinders_nobody(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            raise error

    monkeypatch.setattr(logging.getLogger("maintenance"), "handlers", [Handler()])
    log(logging.ERROR, "number %d", 5)
    assert told == ["maintenance: number 5"]
