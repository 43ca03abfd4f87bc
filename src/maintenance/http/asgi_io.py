"""What an ASGI adapter receives from its server and sends to it."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from maintenance.base.threads import run_for_request
from maintenance.http.admission import Admission
from maintenance.http.overrides import HEADERS, find_overrides
from maintenance.http.refusal import Response
from maintenance.http.rules import strip_mount
from maintenance.http.wire import Wire
from maintenance.process.lease import Answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


_OVERRIDES: Final = frozenset(name.encode() for name in HEADERS)

_MAX_DEPTH: Final = 100
"""How many middlewares around an app are looked into. An `app` attribute may lead in a circle."""


def _read_headers(scope: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        # HTTP/2 clients split their cookies (RFC 9113, section 8.2.3).
        comma = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{comma}{value}" if name in headers else value
    return headers


def _read_accept(scope: Any) -> str | None:
    accept = None
    for name, value in scope["headers"]:
        if name == b"accept":
            accept = value if accept is None else accept + b", " + value
    return accept.decode("latin-1") if accept else None


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
    split_path=lambda path, root: (strip_mount(path, root), path),
    read_accept=_read_accept,
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


async def find_answer(admission: Admission) -> Answer:
    """Return the answer for a request past the deadline. If it must wait, it waits in a thread."""
    answer = admission.peek()
    return await run_for_request(admission.wait_for_answer) if answer is None else answer


async def run_lifespan(app: App, admission: Admission, scope: Scope, receive: Receive, send: Send) -> None:
    """Keep the state running from the server's start to its end. The app may build the default state at startup."""
    complete = False

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
        await app(scope, receive, pass_on)
    finally:
        # The app may end without a message. Not awaited: the server ends the loop at the next step.
        leave()
