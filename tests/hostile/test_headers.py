"""Headers of any bytes: no error, no admission, and nothing of them in the refusal."""

import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import anyio
import pytest

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.bypass import addresses, header_token
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import Answer, call_wsgi, http_scope
from tests.support.plain_apps import asgi, wsgi

NAMES = [
    "Accept", "Accept-Language", "Cookie", "X-HTTP-Method-Override", "Forwarded", "X-Forwarded-For",
    "X-Forwarded-Proto", "Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers", "Host",
    "Content-Length", "Expect", "Transfer-Encoding", "Maintenance-Bypass", "X-Ops-Token", "Upgrade", "Connection",
    "Sec-WebSocket-Key", "Content-Type",
]  # fmt: skip
PIECES = [
    b"text/html", b";q=", b",", b"de", b"=", b";", b"*", b"*/*", b"10.0.0.1", b"::1", b"GET", b"WEBSOCKET", b"null",
    b"https://app.example", b"maintenance-bypass-", b"chunked", b"100-continue", b"websocket", b"\r\nSet-Cookie: x=1",
    b"\r\n\r\n<script>", b"\0", b"\x1b[2J", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b'"', b"\\", b" ", b"\t", b"%0d%0a",
    b"9" * 5000, b"-1", b"1e9", b"\xb2", b"A" * 3000,
]  # fmt: skip
OPTIONS: dict[str, Any] = {
    "bypass": (addresses("10.0.0.0/8", "::1", proxies=2), header_token("X-Ops-Token", "a-token-of-the-operators")),
    "cors": ("https://app.example",),
}
SENT = {
    *("content-type", "content-length", "content-language", "cache-control", "vary", "x-content-type-options"),
    *("maintenance-mode", "maintenance-page", "content-security-policy", "retry-after", "access-control-max-age"),
    *("access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"),
    *("access-control-allow-methods", "access-control-allow-headers"),
}


def make(chance: random.Random) -> dict[str, str]:
    chosen = chance.sample(NAMES, chance.randint(1, 6))
    return {name: b"".join(chance.choices(PIECES, k=chance.randint(0, 4))).decode("latin-1") for name in chosen}


def may_enter(headers: dict[str, str]) -> bool:
    """Two proxies saw one of the addresses, which the proxies' own entries say."""
    entries = [it.strip() for it in headers.get("X-Forwarded-For", "").split(",")]
    return len(entries) > 1 and entries[-2] in ("10.0.0.1", "::1") and bool(entries[-1])


async def call_asgi(app: Any, method: str, headers: dict[str, str]) -> Answer:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(http_scope("/orders", method=method, headers=raw), receive, send)
    named = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], named, sent[1]["body"])


@pytest.fixture
def state() -> Iterator[MaintenanceState]:
    with closing(MaintenanceState("memory://", ttl=1000.0)) as made:
        made.set(True, secret=True)
        yield made


def check(answer: Answer, method: str, headers: dict[str, str]) -> None:
    preflight = method == "OPTIONS" and headers.get("Origin") == "https://app.example"
    assert answer.status in ((503, 204) if preflight else (503,)), headers
    assert answer.headers.keys() <= SENT
    for value in answer.headers.values():
        assert value.isascii()
        assert value.isprintable(), value


def test_no_header_raises_admits_or_is_injected(state: MaintenanceState) -> None:
    chance = random.Random(5)
    over_wsgi, over_asgi = WSGIMiddleware(wsgi, state, **OPTIONS), ASGIMiddleware(asgi, state, **OPTIONS)

    async def main() -> None:
        for _ in range(5000):
            method, headers = chance.choice(["GET", "HEAD", "POST", "OPTIONS"]), make(chance)
            if may_enter(headers):
                continue
            check(call_wsgi(over_wsgi, "/orders", method=method, headers=headers), method, headers)
            check(await call_asgi(over_asgi, method, headers), method, headers)

    anyio.run(main)


def test_a_length_of_thousands_of_digits_is_a_length(state: MaintenanceState) -> None:
    headers = {"Content-Length": "9" * 5000}
    assert call_wsgi(WSGIMiddleware(wsgi, state), method="POST", headers=headers).status == 503
