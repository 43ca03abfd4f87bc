"""The request that a bypass gets: read-only, with headers in any case."""

from dataclasses import FrozenInstanceError

import pytest

from maintenance import Request


def test_a_request_and_its_headers_are_read_only() -> None:
    request = Request("GET", "/")
    with pytest.raises(FrozenInstanceError):
        request.method = "POST"  # type: ignore[misc]
    with pytest.raises(TypeError):
        request.headers["x"] = "y"  # type: ignore[index]


def test_headers_are_found_in_any_case_however_they_were_given() -> None:
    given = {"X-Secret": "s"}
    headers = Request("GET", "/", given).headers
    given["x-later"] = "no"
    assert (headers["x-secret"], headers.get("X-SECRET"), "X-Secret" in headers) == ("s", "s", True)
    assert (dict(headers), len(headers), repr(headers)) == ({"x-secret": "s"}, 1, "{'x-secret': 's'}")
    assert (headers.get("x-later"), "x-later" in headers) == (None, False)
    assert headers == {"x-secret": "s"}
