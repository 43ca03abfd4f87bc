"""What an ASGI adapter receives from its server and sends to it."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import anyio

from maintenance.base.threads import run_for_request
from maintenance.http import lifespan
from maintenance.http.admission import Admission
from maintenance.http.discard import LINGER, Discard
from maintenance.http.overrides import HEADERS, find_overrides
from maintenance.http.refusal import MODE_HEADER, Response
from maintenance.http.rules import strip_mount
from maintenance.http.secret_link import NAME, forwards_https, has_link, strip_cookies, strip_query
from maintenance.http.wire import Wire
from maintenance.process.lease import Answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


_OVERRIDES: Final = frozenset(name.encode() for name in HEADERS)

_NAME: Final = NAME.encode()

_MAX_DEPTH: Final = 100
"""How many middlewares around an app are looked into. An `app` attribute may lead in a circle."""


def _split_path(path: str, root: str) -> tuple[str, str]:
    behind = path[len(root) :] if path.startswith(root) and root.strip("/") else ""
    # Some frameworks remove such a mount point and some do not, so the path is ambiguous, as one with // is.
    return strip_mount(path, root), path if behind[:1] in ("", "/") else f"//{path}"


def _read_headers(scope: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        # HTTP/2 clients split their cookies (RFC 9113, section 8.2.3).
        comma = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{comma}{value}" if name in headers else value
    return headers


def _read_wishes(scope: Any) -> tuple[str | None, str | None]:
    accept = language = None
    for name, value in scope["headers"]:
        if name == b"accept":
            accept = value if accept is None else accept + b", " + value
        elif name == b"accept-language":
            language = value if language is None else language + b", " + value
    return accept.decode("latin-1") if accept else None, language.decode("latin-1") if language else None


def _read_header(scope: Any, name: str) -> str | None:
    wanted, joiner = name.encode(), b"; " if name == "cookie" else b", "
    values = [value for found, value in scope.get("headers") or () if found == wanted]
    return joiner.join(values).decode("latin-1") if values else None


def _read_query(scope: Any) -> str:
    query: bytes = scope.get("query_string") or b""
    return query.decode("latin-1")


def _read_place(scope: Any) -> tuple[bytes, bytes]:
    root, path = scope.get("root_path", ""), scope["path"]
    return root.rstrip("/").encode(errors="replace"), strip_mount(path, root).encode(errors="replace")


def _is_secure(scope: Any) -> bool:
    return scope.get("scheme") in ("https", "wss") or forwards_https(_read_header(scope, "x-forwarded-proto"))


def _strip(scope: Any) -> Any:
    """Return a scope without tokens. The app gets a copy, because the own one is looked at again in a drain."""
    changes: dict[str, Any] = {}
    for header in scope["headers"]:
        if _has_token(*header):
            stripped = (_strip_header(*header) for header in scope["headers"])
            changes["headers"] = [header for header in stripped if header is not None]
            break
    if has_link(query := _read_query(scope)):
        changes["query_string"] = strip_query(query).encode("latin-1")
    return {**scope, **changes} if changes else scope


def _has_token(name: bytes, value: bytes) -> bool:
    if len(name) == len(_NAME):
        # A WSGI app inside does not see whether a name has dashes or underscores.
        return name.lower().replace(b"_", b"-") == _NAME
    return name == b"cookie" and _NAME in value


def _strip_header(name: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    if not _has_token(name, value):
        return name, value
    rest = strip_cookies(value.decode("latin-1")).encode("latin-1") if name == b"cookie" else b""
    return (name, rest) if rest else None


def _read_overrides(scope: Any) -> list[str]:
    # A WSGI app inside does not see whether a name has dashes or underscores.
    headers = [
        value.decode("latin-1")
        for name, value in scope.get("headers") or ()
        if name.lower().replace(b"_", b"-") in _OVERRIDES
    ]
    return find_overrides(headers, (scope.get("query_string") or b"").decode("latin-1"))


def _find_roots(app: Any) -> tuple[str, ...]:
    """Return each `root_path` that an app, or an app in the middlewares around it, sets in the scope."""
    roots: list[str] = []
    for _ in range(_MAX_DEPTH):
        root = getattr(app, "root_path", None)
        if isinstance(root, str):
            roots.append(root)
        app = getattr(app, "app", None)
    return tuple(filter(None, roots))


def answer_status(app: App, admission: Admission, status_path: str) -> App:
    """Wrap an app, so that the status path is answered instead of it."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = None
        if scope["type"] == "http":
            response = admission.find_status(scope["path"], scope.get("root_path", ""), status_path)
        if response is None:
            await app(scope, receive, send)
            return
        for message in build_messages(response, scope["method"] == "HEAD"):
            await send(message)

    return answer


WIRE: Final = Wire(
    split_path=_split_path,
    read_header=_read_header,
    read_query=_read_query,
    read_place=_read_place,
    read_method=lambda scope: scope.get("method"),
    is_secure=_is_secure,
    strip=_strip,
    read_wishes=_read_wishes,
    read_headers=_read_headers,
    read_client=lambda scope: (scope.get("client") or [None])[0] or None,
    read_overrides=_read_overrides,
    is_websocket=lambda scope: scope.get("type") == "websocket",
    find_roots=_find_roots,
    answer_status=answer_status,
    copy=lambda scope: {**scope, "headers": list(scope["headers"])},
)


def build_messages(response: Response, head: bool) -> tuple[Message, Message]:
    """Return the two messages of a refusal. A HEAD gets no body."""
    try:
        headers = response._encoded  # noqa: SLF001 - the adapter keeps it there
    except AttributeError:  # the first time; the standard responses are sent again and again
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        object.__setattr__(response, "_encoded", headers)
    # A copy, because a server or another middleware may change the list.
    start = {"type": "http.response.start", "status": response.status, "headers": headers.copy()}
    return start, {"type": "http.response.body", "body": b"" if head else response.body}


async def refuse(response: Response, scope: Scope, receive: Receive, send: Send, discard: Discard) -> None:
    """Read the body, within bounds, and send a refusal."""
    start, body = build_messages(response, scope["method"] == "HEAD")
    reads = discard.concerns(scope["method"]) and _has_body(scope["headers"])
    is_read = not reads or await _discard_body(receive, discard.bytes, discard.seconds)
    await send(start)
    if is_read:
        await send(body)
        return
    await send({**body, "more_body": True})
    await _discard_body(receive, discard.bytes, LINGER)
    await send({"type": "http.response.body", "body": b""})


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a client sends a body without being asked for it."""
    found = {name.lower(): value for name, value in headers}
    # The server asks when the body is read first (RFC 9110, section 10.1.1). A client that was refused sends none.
    return b"expect" not in found and (found.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in found)


async def _discard_body(receive: Receive, most: int, seconds: float) -> bool:
    """Read the body and throw it away; False if a bound was reached first."""
    with anyio.move_on_after(seconds):
        while most >= 0:
            message = await receive()
            if not message.get("more_body"):
                return True  # the end, or the client has gone
            most -= len(message.get("body", b""))
    return False


def strip_tokens(app: App, admission: Admission) -> App:
    """Wrap an app, so that it gets no token of a secret link."""

    async def stripped(scope: Scope, receive: Receive, send: Send) -> None:
        await app(admission.strip(scope) if scope["type"] in ("http", "websocket") else scope, receive, send)

    return stripped


def mark_read_only(send: Send) -> Send:
    """Return a function that sends a response of the app with the mode. No cache keeps it, or the mark would stay."""

    async def marked(message: Message) -> None:
        # The headers of a 304 would change a response that is stored.
        if message["type"] == "http.response.start" and message["status"] != 304:
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"cache-control"]
            more = [(MODE_HEADER.lower().encode(), b"read_only"), (b"cache-control", b"no-store")]
            message = {**message, "headers": [*kept, *more]}
        await send(message)

    return marked


async def find_answer(admission: Admission) -> Answer:
    """Return the answer for a request past the deadline. If it must wait, it waits in a thread."""
    answer = admission.peek()
    return await run_for_request(admission.wait_for_answer) if answer is None else answer


async def run_lifespan(app: App, admission: Admission, scope: Scope, receive: Receive, send: Send) -> None:
    """Keep the state running from the server's start to its end. The app may build the default state at startup."""
    complete = asked = False

    async def take() -> Message:
        nonlocal asked
        asked = True
        return await receive()

    async def pass_on(message: Message) -> None:
        nonlocal complete
        if message["type"] == "lifespan.startup.complete":
            complete = True
            await run_for_request(admission.start_default)
        elif message["type"].startswith("lifespan.shutdown."):
            await run_for_request(leave)
        await send(message)

    def leave() -> None:
        # An app without lifespan support raises before its startup is complete. Its process goes on serving.
        if complete and (state := admission.existing_state) is not None:
            state.leave()

    admission.start()
    try:
        await app(scope, take, pass_on)
    except Exception:
        # An app that has asked for no message does not support the lifespan.
        if asked or not lifespan.stands_in:
            raise
        await _answer_lifespan(receive, pass_on)
    finally:
        # The app may end without a message. Not awaited: the server ends the loop at the next step.
        leave()


async def _answer_lifespan(receive: Receive, send: Send) -> None:
    """Answer in place of the app."""
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})
