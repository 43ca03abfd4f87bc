"""The library's log, under filters and handlers of the app that fail."""

import logging

import pytest

from maintenance.base.log import log


@pytest.mark.parametrize("error", [RuntimeError("a handler of the app's"), SystemExit("reload")])
def test_an_error_of_a_handler_is_ignored(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            raise error

    monkeypatch.setattr(logging.getLogger("maintenance"), "handlers", [Handler()])
    log(logging.ERROR, "number %d", 5)
    assert lines == ["maintenance: number 5"]
