"""The request that a bypass gets: read-only, with headers in any case."""

from dataclasses import FrozenInstanceError

import pytest

from maintenance import MaintenanceState, Request
from tests.http.adapters import Adapter


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


@pytest.mark.parametrize(
    ("query", "parsed"),
    [
        ("", {}),
        ("a=1&b=&c&a=2&=x", {"a": "2", "b": "", "c": "", "": "x"}),
        ("n=J%C3%B6rg+M&%C3%A9=%ff;x=1", {"n": "J\u00f6rg M", "\u00e9": "\ufffd;x=1"}),
        ("a=\xc3\xa9&b=%zz%", {"a": "\u00e9", "b": "%zz%"}),
    ],
)
def test_any_query_is_parsed(query: str, parsed: dict[str, str]) -> None:
    assert Request("GET", "/", query_string=query).query == parsed


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ("", {}),
        ("a=1; b=2;c = 3 ; a=4", {"a": "1", "b": "2", "c": "3"}),
        ('bad/name[]={"x":1}; path=/; é=x=y; "q"="z"; none; =e', {
            "bad/name[]": '{"x":1}', "path": "/", "é": "x=y", '"q"': '"z"', "": "e",
        }),
    ],
)  # fmt: skip
def test_any_cookies_are_parsed_and_none_hides_another(header: str, parsed: dict[str, str]) -> None:
    assert Request("GET", "/", {"Cookie": header}).cookies == parsed


@pytest.mark.parametrize(
    ("header", "host"),
    [
        (None, ""),
        ("Shop.Example:8000", "shop.example"),
        ("shop.example.", "shop.example"),
        ("[2001:DB8::1]:80", "[2001:db8::1]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("a, b", "a, b"),
    ],
)
def test_the_host_has_no_port(header: str | None, host: str) -> None:
    assert Request("GET", "/", {} if header is None else {"Host": header}).host == host


def test_both_adapters_pass_the_query_cookies_and_host_on(adapter: Adapter, state: MaintenanceState) -> None:
    seen: list[Request] = []
    app = adapter.wrap(state, bypass=seen.append)
    state.set(True)
    adapter.ask(app, query="a=%41&b", headers={"Cookie": "c=d; e=f", "Host": "X.example:1"})
    [request] = seen
    assert (request.query, request.query_string) == ({"a": "A", "b": ""}, "a=%41&b")
    assert (request.cookies, request.host) == ({"c": "d", "e": "f"}, "x.example")
