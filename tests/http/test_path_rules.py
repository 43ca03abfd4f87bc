"""The path rules, over both adapters, against a model of their own that fits into ten lines."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.http.rules import DEFAULT_EXEMPT
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import acall_asgi, call_wsgi

WORDS = ["health", "healthz", "admin", "Admin", "administrator", "status", "a", "x", "é", "維持", "a b", "..."]
TRAPS = ["", ".", "..", "%2e", "%2F", "%", "a;b", ";", "\\", "a\\..", "\0", "a\0", ". ", "‥", "／"]


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b""]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def passes(rules: list[str], method: str, mount: str, path: str) -> bool:
    """The contract, said again: whole segments below the mount, and nothing that two readers might read differently."""
    segments = f"{mount.rstrip('/')}{path}".split("/")[1:]
    if any(segment in (".", "..") or set(segment) & set("%\\;\0") for segment in segments) or "" in segments[:-1]:
        return False
    for rule in rules:
        wanted, _, prefix = rule.rpartition(" ")
        named = prefix.rstrip("/").split("/")
        if wanted in ("", method) and path.split("/")[: len(named)] == named:
            return True
    return False


@pytest.fixture(scope="module")
def state() -> Iterator[MaintenanceState]:
    state = MaintenanceState("memory://", ttl=1000.0)
    state.set(True)
    assert state.enabled
    yield state
    state.close()


segments = st.one_of(st.sampled_from(WORDS), st.sampled_from(TRAPS), st.text(st.characters(codec="utf-8"), max_size=3))
paths = st.one_of(st.just(""), st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts)))
plain = st.lists(st.sampled_from([word for word in WORDS if " " not in word]), min_size=1, max_size=2)
rule_paths = plain.map(lambda parts: "/" + "/".join(parts))
rules = st.lists(
    st.builds(
        lambda method, path, end: f"{method}{path}{end}",
        st.sampled_from(["", "GET ", "POST "]),
        rule_paths,
        st.sampled_from(["", "/"]),
    ),
    max_size=3,
)
mounts = st.one_of(
    st.just(""),
    st.builds(lambda parts, end: "/" + "/".join(parts) + end, plain, st.sampled_from(["", "/"])),
    st.sampled_from(["/a;b", "/a%2fb", "/a/../b", "/health"]),
)


@dataclass(frozen=True)
class Case:
    """One request, and what is exempt."""

    rules: list[str]
    default: bool
    method: str
    mount: str
    path: str


@st.composite
def cases(draw: st.DrawFn) -> Case:
    given_rules, default = draw(rules), draw(st.booleans())
    path = draw(paths)
    known = [rule.rpartition(" ")[2].rstrip("/") for rule in given_rules] + (list(DEFAULT_EXEMPT) if default else [])
    if known and draw(st.booleans()):
        path = draw(st.sampled_from(known)) + path  # near a rule, where the mistakes are
    return Case(given_rules, default, draw(st.sampled_from(["GET", "POST"])), draw(mounts), path)


@settings(max_examples=300, deadline=None)
@given(case=cases())
@example(Case([], True, "GET", "", "/administrator"))
@example(Case([], True, "GET", "/admin", "/x"))
@example(Case([], True, "GET", "/a", "/a/admin"))
@example(Case([], True, "GET", "", "/admin/../x"))
@example(Case([], True, "GET", "", "//admin"))
@example(Case([], True, "GET", "/a;b", "/admin"))
@example(Case([], True, "GET", "", "/admin/a\\b"))
@example(Case([], True, "GET", "", "/admin//x"))
@example(Case([], True, "GET", "", "/admin/a%2fb"))
@example(Case([], True, "GET", "", "/admin/a;b"))
@example(Case([], True, "GET", "", "/admin/\0"))
@example(Case([], True, "GET", "", "/admin/./x"))
@example(Case([], True, "GET", "", "/admin/.."))
@example(Case(["/é"], False, "GET", "/維持", "/é/x"))
def test_both_adapters_agree_with_the_model(state: MaintenanceState, case: Case) -> None:
    options: dict[str, Any] = {"exempt": case.rules, "default_exempt": case.default}
    asked: dict[str, Any] = {"method": case.method, "root": case.mount}
    all_rules = [*(DEFAULT_EXEMPT if case.default else ()), *case.rules]
    expected = passes(all_rules, case.method, case.mount, case.path)
    event("passes" if expected else "refused")
    through_wsgi = call_wsgi(WSGIMiddleware(wsgi_app, state, **options), case.path, **asked)
    through_asgi = asyncio.run(acall_asgi(ASGIMiddleware(asgi_app, state, **options), case.path, **asked))
    assert (through_wsgi.status, through_asgi.status) == ((200, 200) if expected else (503, 503))
