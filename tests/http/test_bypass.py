"""Who is admitted by an address or by a token in a header."""

import hmac
from typing import Any

import pytest

from maintenance import ConfigurationError, MaintenanceState, Request
from maintenance.bypass import addresses, header_token
from tests.http.adapters import Adapter

OFFICE = addresses("10.0.0.0/8", "2001:db8::/32", "192.0.2.7")
SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    ("client", "admits"),
    [
        *((it, True) for it in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "192.0.2.7")),
        *((it, False) for it in ("11.0.0.1", "::ffff:11.0.0.1", "2001:db9::1", "192.0.2.8", "010.1.2.3", "10.1.2")),
        *((it, False) for it in (None, "", "unknown", "10.1.2.3:80", "x" * 1000, "10.1.2.3\0")),
    ],
)
def test_the_address_of_the_peer_admits(client: str | None, *, admits: bool) -> None:
    forged = {"X-Forwarded-For": "10.0.0.1"}
    assert [OFFICE(Request("GET", "/", forged, client)) for _ in range(2)] == [admits] * 2


@pytest.mark.parametrize(
    ("forwarded", "proxies", "admits"),
    [
        ("10.0.0.1", 1, True),
        ("1.2.3.4, 10.0.0.1", 1, True),
        ("10.0.0.1, 1.2.3.4", 1, False),  # the client wrote the first
        ("10.0.0.1, 1.2.3.4", 2, True),
        ("10.0.0.9, 10.0.0.1 , 1.2.3.4", 2, True),
        ("10.0.0.1", 2, False),  # a proxy is missing
        ("10.0.0.1,", 1, False),
        ("10.0.0.1,", 2, False),
        ("", 1, False),
        ("unknown", 1, False),
        ("for=10.0.0.1", 1, False),
    ],
)
def test_behind_proxies_only_the_entry_of_the_outermost_counts(
    adapter: Adapter, state: MaintenanceState, forwarded: str, proxies: int, *, admits: bool
) -> None:
    app = adapter.wrap(state, bypass=addresses("10.0.0.0/8", proxies=proxies))
    state.set(True)
    headers = {"X-Forwarded-For": forwarded}
    assert adapter.ask(app, headers=headers).status == (200 if admits else 503)


def test_all_lines_of_the_header_count(state: MaintenanceState) -> None:
    admission = Adapter("asgi").wrap(state)._admission
    lines = [(b"x-forwarded-for", b"10.0.0.1"), (b"x-forwarded-for", b"1.2.3.4")]
    request = admission._build_request(("GET", "/", "/", {"headers": lines}))
    assert [addresses("10.0.0.0/8", proxies=number)(request) for number in (1, 2)] == [False, True]


@pytest.mark.parametrize(
    ("networks", "proxies", "message"),
    [
        ((), 0, "names no network"),
        (("10.0.0.1/8",), 0, r"use '10\.0\.0\.0/8', or the address without a length"),
        (("office",), 0, "addresses.. holds 'office': use a network"),
        ((5,), 0, "holds 5: use str"),
        (("::ffff:10.0.0.0/104",), 0, r"use IPv4, '10\.0\.0\.0/8'"),
        (("10.0.0.0/8",), -1, "proxies is -1"),
        (("10.0.0.0/8",), True, "proxies is True"),
    ],
)
def test_wrong_networks_are_refused_with_what_to_write(networks: Any, proxies: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        addresses(*networks, proxies=proxies)


def test_a_token_in_a_header_admits(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state, bypass=[OFFICE, header_token("X-Ops-Token", SECRET)])
    state.set(True)
    given = [SECRET, "", SECRET[:-1], f"{SECRET}x", "é" * len(SECRET), f"{SECRET}, {SECRET}"]
    assert [adapter.ask(app, headers={"x-ops-token": it}).status for it in given] == [200] + [503] * 5


def test_a_header_token_is_compared_in_constant_time(
    adapter: Adapter, state: MaintenanceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = adapter.wrap(state, bypass=[header_token("X-Ops-Token", SECRET)])
    state.set(True)
    compared: list[object] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or compare(a, b))
    assert [adapter.ask(app, headers={"X-Ops-Token": it}).status for it in ("wrong", SECRET)] == [503, 200]
    assert len(compared) == 2


@pytest.mark.parametrize("value", ["fifteen-letters", "", None, b"x" * 16, "x" * 15 + "é", "with a blank in it", 5])
def test_a_weak_value_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="the value of X-Ops-Token is") as caught:
        header_token("X-Ops-Token", value)
    assert not value or str(value) not in str(caught.value)


def test_a_wrong_name_is_refused() -> None:
    for name in ("", "X Ops", None):
        with pytest.raises(ConfigurationError, match="use for example 'X-Ops-Token'"):
            header_token(name, SECRET)  # type: ignore[arg-type]


def test_a_repr_shows_what_is_no_secret() -> None:
    assert repr(OFFICE) == "addresses('10.0.0.0/8', '2001:db8::/32', '192.0.2.7/32', proxies=0)"
    assert repr(header_token("X-Ops-Token", SECRET)) == "header_token('X-Ops-Token', ...)"
