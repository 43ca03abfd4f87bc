"""The one decision that both adapters ask for: admit a request, or refuse it with a response."""

import contextlib
import functools
import inspect
import logging
import weakref
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from random import random
from typing import Any, ClassVar, Final

from maintenance.base.flags import Flags
from maintenance.base.log import log
from maintenance.base.options import check_bool, check_function
from maintenance.base.quoting import quote
from maintenance.base.runtime import REAL
from maintenance.base.values import WEBSOCKET, Mode, Snapshot
from maintenance.errors import ConfigurationError
from maintenance.http.cors import Cors
from maintenance.http.discard import MAX_BYTES, MAX_SECONDS, Discard
from maintenance.http.refusal import Page, Refusals, Renderer, Response, check_page, complete_response
from maintenance.http.request import NOT_A_WEBSOCKET, Request, Target, is_event_stream
from maintenance.http.rules import READS, Rules, strip_mount
from maintenance.http.scopes import Scope, Scopes, read_names
from maintenance.http.secret_link import Links
from maintenance.http.status_path import check_status_path, is_below, render_status
from maintenance.http.wire import Wire
from maintenance.process import api
from maintenance.process.in_flight import Entry, InFlight
from maintenance.process.lease import Answer, Lease
from maintenance.process.leaving import leave_on_sigterm
from maintenance.process.metrics import REFUSED
from maintenance.process.state import MaintenanceState

Bypass = Callable[[Request], bool]
Respond = Callable[[Snapshot, Request], Response]

ALL: Final[frozenset[str | None]] = frozenset({None})
"""The flags that count a request while the site's flag is off and no operator waits for a scope."""

MAX_KEPT: Final = 256
"""The scopes whose refusals are kept."""

LOG_INTERVAL: Final = 60.0
"""Seconds between two log lines about the same `bypass`, `scope` or `respond` function that fails."""


class Middleware:
    """The options of both adapters, checked once."""

    _wire: ClassVar[Wire]
    _end_streams: Callable[[Any], Any]
    """Wraps an app, so that a flip ends its event streams. Each adapter has its own way."""

    def __init__(
        self,
        app: Any,
        state: MaintenanceState | None = None,
        *,
        exempt: Iterable[str] = (),
        default_exempt: bool = True,
        bypass: Bypass | Iterable[Bypass] | None = None,
        respond: Respond | None = None,
        in_flight: bool = True,
        scope: Scope | None = None,
        status_path: str | None = None,
        discard_bytes: int = MAX_BYTES,
        discard_seconds: float = MAX_SECONDS,
        close_streams: bool = False,
        cors: Iterable[str] = (),
        reads: Iterable[str] = (),
        mark_read_only: bool = False,
        page: Page | None = None,
    ) -> None:
        """Wrap an app.

        Args:
            app: The app.
            state: The state to ask. None for the process's default state, which the first request looks up.
            exempt: Requests to admit by path, or by method and path: ``"/metrics"``, or ``"GET /status"``.
            default_exempt: Whether /admin is exempt too, and GET and HEAD of /health, /healthz, /livez and /readyz.
            bypass: One plain function that takes a `Request` and returns true to admit it, or several.
            respond: A function that takes a `Snapshot` and a `Request` and returns the response to send instead of
                the standard one.
            in_flight: Whether to count running requests. ``--drain`` needs that.
            scope: The scope of the whole app, or a mapping from path prefix to scope, of which the longest wins, or a
                function that takes a `Request` and returns the name of a scope, several, or None. A request is refused
                if the site's flag refuses it, or the flag of one of its scopes does.
            status_path: A path that the middleware answers itself, on or off, with what is on and what is planned, as
                JSON that other origins may read.
            discard_bytes: How much of the body of a refused request is read and thrown away before the refusal is
                sent, because a proxy may not pass it on otherwise. 0 for nothing.
            discard_seconds: How long that may take.
            close_streams: Whether a flip ends the responses of type ``text/event-stream`` that it refuses. If not, a
                drain waits for them.
            cors: The origins whose browser apps may read a refusal: ``"https://app.example"``, or ``"*"`` alone.
            reads: Requests that change nothing although their method could, by method and path: ``"POST /search"``.
                `read_only` admits them.
            mark_read_only: Whether responses of the app carry ``Maintenance-Mode: read_only`` while that mode is on.
            page: How the page looks that visitors see.

        Raises:
            ConfigurationError: An option is wrong. The message shows how to write it.
        """
        if not callable(app):
            raise ConfigurationError(f"app is of type {type(app).__name__}: pass the app to wrap")
        api.check_state(state)
        check_bool("default_exempt", default_exempt)
        check_bool("in_flight", in_flight)
        check_bool("close_streams", close_streams)
        check_bool("mark_read_only", mark_read_only)
        if respond is not None:
            check_function("respond", respond)
        check_page(page)
        status_path = check_status_path(status_path)
        rules = Rules(exempt, default_exempt=default_exempt, paths=() if status_path is None else (status_path,))
        bypasses, flight = _list_bypasses(bypass), InFlight() if in_flight else None
        scopes = Scopes(scope)
        self._admission = Admission(
            state,
            self._wire,
            rules,
            scopes=scopes,
            roots=self._wire.find_roots(app),
            bypasses=bypasses,
            respond=respond,
            page=page,
            in_flight=flight,
            cors=Cors(cors, self._wire),
            reads=Rules.of_reads(reads),
            mark_read_only=mark_read_only,
        )
        self._discard = Discard(discard_bytes, discard_seconds)
        self._app = app if status_path is None else self._wire.answer_status(app, self._admission, status_path)
        self._strip = self._admission.strip
        if close_streams:
            self._app = self._end_streams(self._app)
        leave_on_sigterm()  # most lives start in the thread of a request, which cannot install a handler

    def exempts(self, method: str, path: str) -> bool:
        """Return whether a rule exempts a method and a path. The path is decoded and relative to the mount point."""
        return self._admission.exempts(method, path)


class _NoLease:
    """Stands for the lease until there is a state. Every request that is not exempt has to look for one."""

    current: Final = Answer(Snapshot(enabled=False, source="default"), float("-inf"))


class Admission:
    """Decides about the requests of one middleware.

    Attributes:
        lease: The lease of the state that is followed.
        clock_call: The state's clock, as a function and its arguments.
        in_flight: The running requests, for the whole life of the middleware. None if they are not counted.
        keep: Copies a raw request that is asked about again later. None if no bypass needs the copy.
        strip: Returns a raw request for the app, without the tokens of secret links.
        on_flips: Called with the flags after each flip, in any thread. They return immediately.
    """

    def __init__(
        self,
        state: MaintenanceState | None,
        wire: Wire,
        rules: Rules,
        *,
        scopes: Scopes,
        roots: tuple[str, ...],
        bypasses: tuple[Bypass, ...],
        respond: Respond | None,
        page: Page | None,
        in_flight: InFlight | None,
        cors: Cors,
        reads: Rules | None,
        mark_read_only: bool,
    ) -> None:
        """Follow the state, if one is given. The arguments have been checked."""
        self._given, self._wire, self._rules, self._scopes = state, wire, rules, scopes
        self._roots = roots
        self._split_path, self._read_wishes = wire.split_path, wire.read_wishes  # one look-up less for each refusal
        self._bypasses, self._respond = bypasses, respond
        self._cors, self._reads, self._marks = cors or None, reads, mark_read_only
        self._links, self.strip = Links(wire), wire.strip
        self._silent_until: dict[int, float] = {}
        self._refusals: dict[str | None, Refusals] = {}
        self._begun = False
        self._template = None if page is None else page.template
        self._renderer = Renderer(page, on_failure=functools.partial(_log_template, weakref.ref(self)))
        self._state: MaintenanceState | None = None
        self._source = _Source(self, in_flight)
        self.lease: Lease | _NoLease = _NoLease()
        self.clock_call = _split_call(REAL.clock)
        self.in_flight = in_flight
        self.keep = wire.copy if bypasses or scopes.function else None
        self.on_flips: list[Callable[[Flags], None]] = []
        if state is not None:
            self._follow(state)

    def _follow(self, state: MaintenanceState) -> None:
        # Before its lease is used, so that the state counts every request that it admits.
        state.attach(self._source)
        self._state, self.lease, self.clock_call = state, state.lease, _split_call(state.clock)
        self.notify(state.lease.flags)

    def notify(self, flags: Flags) -> None:
        """Pass on a flip. Takes no time."""
        for call in self.on_flips:
            call(flags)

    def _find_state(self) -> MaintenanceState:
        """Return the state to ask, after following it: the given one, or the default one, which may be replaced.

        Raises:
            ConfigurationError: There is no default state, and no database is named.
        """
        state = self._state
        if state is None or (state.closed and self._given is None):
            newest = api.default_state()
            if newest is not state:
                self._follow(newest)
            return newest
        return state

    @property
    def existing_state(self) -> MaintenanceState | None:
        """The state, or None if the default state has not been built yet."""
        return self._given or api.current_state()

    def find_status(self, path: str, root: str, status_path: str) -> Response | None:
        """Return the answer if a request asks for the status path, or None. Never waits."""
        below, _ = self._split_path(path, root)
        if not is_below(below, status_path):
            return None
        self.start()
        state = self.existing_state
        if state is None:
            self._start_default_beside()
            return render_status(Flags(site=_NoLease.current.snapshot))
        flags, lease = state.lease.flags, state.lease
        if lease.refuses_all:
            flags = replace(flags, site=lease.stale_answer(grace=0.0).snapshot)
        return render_status(flags)

    def _start_default_beside(self) -> None:
        """Build the default state in a thread, once. A process may get no other requests than those for the status."""
        if not self._begun:
            self._begun = True
            with contextlib.suppress(RuntimeError, OSError):  # the next other request builds it
                REAL.start(self.start_default)

    def start(self) -> None:
        """Start the state if there is one: a process that gets only exempt requests registers too."""
        if (state := self.existing_state) is not None:
            state.start()

    def start_default(self) -> None:
        """Start the state, and build the default one if there is none. An error is logged, and requests raise it."""
        try:
            self._find_state().start()
        except ConfigurationError as exc:
            log(logging.ERROR, "misconfigured: every request except exempt paths will fail: %s", exc)

    def peek(self) -> Answer | None:
        """Return the answer for a request past the deadline, or None if it must call `wait_for_answer`.

        Never waits: if there is no state yet, `wait_for_answer` builds it, which loads a driver.
        """
        return None if self.existing_state is None else self._find_state().peek()

    def wait_for_answer(self) -> Answer:
        """Return the answer for a request past the deadline. Waits, but never long.

        Raises:
            ConfigurationError: There is no default state, and no database is named.
        """
        return self._find_state().wait_for_answer()

    def read_target(self, method: str, path: str, root: str, raw: Any) -> Target | None:
        """Return what a request asks for, or None if it is exempt. A preflight asks for what it announces."""
        if method == "OPTIONS" and self._cors is not None:
            method = self._cors.read_preflight(raw) or method
        # Most paths have no mount point and no character to decode.
        below, whole = self._split_path(path, root) if root or not path.isascii() else (path, path)
        exempt = self._rules.exempts(method, below, whole) and self._stays_exempt(method, below, whole, raw)
        return None if exempt else (method, below, whole, raw)

    def exempts(self, method: str, path: str) -> bool:
        """Return whether a rule exempts a method and a path."""
        return self._rules.exempts(method, path, path)

    def _stays_exempt(self, method: str, below: str, whole: str, raw: Any) -> bool:
        """Return whether a request is exempt in each way in which the app may read it."""
        methods = [self._name_method(method, raw), *self._wire.read_overrides(raw)]
        return all(self._rules.exempts(it, path, whole) for it in methods for path in self._list_paths(below, whole))

    def _list_paths(self, below: str, whole: str) -> list[str]:
        """Return the path in each way in which the app may read it."""
        return [below, *(strip_mount(whole, root) for root in self._roots)]

    def _name_method(self, method: str, raw: Any) -> str:
        return NOT_A_WEBSOCKET if method == WEBSOCKET and not self._wire.is_websocket(raw) else method

    def admits_all(self, path: str, root: str, answer: Answer, now: float) -> bool:
        """Return whether every request to a path is admitted, whatever else it says. If in doubt, false.

        Most requests need no further look while the flags of other parts of the site are on.
        """
        is_off = now < answer.deadline and not answer.snapshot.enabled
        return is_off and not root and not self._roots and not self._scopes.may_touch(path, answer.scopes)

    def pass_exempt(self, method: str, path: str, root: str, raw: Any) -> Response | None:
        """Start the state, and return the answer to a valid link. Never waits."""
        self.start()
        if not self._links.is_followed(method, raw):
            return None
        return self._follow_link((method, *self._split_path(path, root), raw), self.lease.current)

    def find_refusal(self, target: Target, answer: Answer) -> Response | None:
        """Return the refusal or the answer to a valid link, or None if the request is admitted."""
        if self._links.is_followed(target[0], target[3]) and (found := self._follow_link(target, answer)) is not None:
            return found
        site = answer.snapshot
        closed = site if self._is_closed(target, site) else None
        if closed is None and answer.scopes:
            closed = next((flag for flag in self._list_scopes(target, answer) if self._is_closed(target, flag)), None)
        if closed is None or (self._bypasses and self._is_bypassed(target)):
            return None
        REFUSED[closed.mode].add()
        return self._build_refusal(target, closed)

    def _build_refusal(self, target: Target, snapshot: Snapshot) -> Response:
        refusals = self._refusals.get(snapshot.scope)
        if refusals is None or refusals.snapshot is not snapshot:
            refusals = self._keep_refusals(snapshot)
        submits = target[0] not in READS
        accept, language = self._read_wishes(target[3])
        standard = refusals.get(accept, language, random(), submits)  # noqa: S311 - spreads, guards nothing
        respond = self._respond
        response = standard if respond is None else self._call_respond(respond, snapshot, target, standard)
        return response if self._cors is None else self._cors.open(target[3], response, known=respond is None)

    def _is_closed(self, target: Target, flag: Snapshot) -> bool:
        """Return whether a flag refuses a request that is neither exempt nor bypassed."""
        if not flag.enabled or self._passes(target, flag.mode):
            return False
        return flag.secret is None or not self._links.opens(target[3], flag.secret)

    def _list_scopes(self, target: Target, answer: Answer) -> list[Snapshot]:
        """Return the flags that are on of a request's scopes."""
        on = answer.scopes
        return [on[name] for name in self._name_scopes(target) if name in on] if on and self._scopes else []

    def _follow_link(self, target: Target, answer: Answer) -> Response | None:
        flags = (answer.snapshot, *self._list_scopes(target, answer))
        return self._links.redirect(target[3], [flag.secret for flag in flags if flag.enabled and flag.secret])

    def marks(self, target: Target | None, answer: Answer) -> bool:
        """Return whether the response to an admitted request is to show that the site is read-only."""
        if not self._marks or target is None:
            return False
        flags = (answer.snapshot, *self._list_scopes(target, answer))
        return any(flag.enabled and flag.mode == "read_only" for flag in flags)

    def _passes(self, target: Target, mode: Mode) -> bool:
        """Return whether a mode admits a request's method, and each method that the request asks for instead."""
        if mode == "full":
            return False
        method, _, _, raw = target
        asked = [method, *self._wire.read_overrides(raw)]
        return READS.issuperset(asked) or (self._reads is not None and self._only_reads(self._reads, asked, target))

    def _only_reads(self, rules: Rules, asked: list[str], target: Target) -> bool:
        _, below, whole, raw = target
        writes = [self._name_method(method, raw) for method in asked if method not in READS]
        return all(rules.exempts(it, path, whole) for it in writes for path in self._list_paths(below, whole))

    def _keep_refusals(self, snapshot: Snapshot) -> Refusals:
        if len(self._refusals) >= MAX_KEPT:
            self._refusals = {}
        self._refusals[snapshot.scope] = refusals = Refusals(snapshot, self._renderer)
        return refusals

    def _name_scopes(self, target: Target) -> Iterable[str]:
        """Return the scopes of a request. If the function fails, there are none: the site's flag decides."""
        function = self._scopes.function
        if function is None:
            found = (self._scopes.find(path, target[2]) for path in self._list_paths(target[1], target[2]))
            return frozenset().union(*found)
        try:
            return read_names(function(self._build_request(target)))
        except Exception as exc:  # noqa: BLE001 - it is logged
            self._log_failure("a scope function failed, so the site's flag decides", function, exc)
            return ()

    def refuses(self, target: Target, flags: Flags) -> bool:
        """Return whether a flag refuses a request that is not exempt."""
        return bool(self._list_refusing(target, flags, flags.scopes))

    def _list_refusing(self, target: Target, flags: Flags, scopes: Collection[str | None]) -> set[str | None]:
        """Return which flags refuse a request that is not exempt: the site's (None), and of these scopes."""
        named = self._name_scopes(target) if scopes and self._scopes else ()
        asked = [flags.site, *(flags.scopes[name] for name in named if name in scopes and name in flags.scopes)]
        found = {it.scope for it in asked if self._is_closed(target, it)}
        return found if found and not self._is_bypassed(target) else set()

    def name_stream(self, entry: Entry) -> Entry:
        """Return the entry of a running request; if it asks for an event stream, its path says so."""
        streams = entry.method == "GET" and is_event_stream(self._read_wishes(entry.raw)[0] or "")
        return entry._replace(path=f"{entry.path} (event stream)") if streams else entry

    def counts(self, entry: Entry, flags: Flags) -> frozenset[str | None]:
        """Return the flags that count a running request; see `InFlightSource.entries`."""
        drains = flags.drains - {None}
        site: set[str | None] = set() if flags.site.enabled else {None}
        if site and not drains:
            return ALL
        target = self.read_target(entry.method, entry.path, entry.root, entry.raw)
        return frozenset(site if target is None else site | self._list_refusing(target, flags, drains))

    def _is_bypassed(self, target: Target) -> bool:
        for bypass in self._bypasses:
            try:
                admits: Any = bypass(self._build_request(target))
                if inspect.isawaitable(admits):
                    raise TypeError("a bypass must be a plain function, and this one returned an awaitable")  # noqa: TRY301
            except Exception as exc:  # noqa: BLE001 - it is logged
                self._log_failure("a bypass failed, so it admits no request", bypass, exc)
                continue
            if admits:
                return True
        return False

    def _call_respond(self, respond: Respond, snapshot: Snapshot, target: Target, standard: Response) -> Response:
        try:
            return complete_response(respond(snapshot, self._build_request(target)), standard)
        except Exception as exc:  # noqa: BLE001 - it is logged
            self._log_failure("respond failed; the standard response is sent", respond, exc)
            return standard

    def log_template(self, exc: Exception) -> None:
        """Log that the page's own template has failed."""
        self._log_failure("the page's template failed; the standard page is sent", self._template, exc)

    def _log_failure(self, event: str, function: object, exc: Exception) -> None:
        clock, arguments = self.clock_call
        now = clock(*arguments)
        if now >= self._silent_until.get(id(function), now):
            self._silent_until[id(function)] = now + LOG_INTERVAL
            log(logging.ERROR, "%s (logged once in %g s): %s", event, LOG_INTERVAL, quote(function), exc=exc)

    def _build_request(self, target: Target) -> Request:
        method, path, _, raw = target
        wire = self._wire
        named = self._name_method(method, raw)
        return Request(named, path, wire.read_headers(raw), wire.read_client(raw), wire.read_query(raw))


class _Source:
    """Counts the running requests of a middleware for a state. The state does not keep the middleware alive."""

    def __init__(self, admission: Admission, flight: InFlight | None) -> None:
        self._admission, self._flight = weakref.ref(admission), flight

    def entries(self, flags: Flags) -> list[tuple[Entry, frozenset[str | None]]] | None:
        """Return each running request and the flags that count it, or None if running requests are not tracked."""
        if self._flight is None:
            return None
        admission = self._admission()
        # A middleware that was deleted has no rules any more, so all of its requests count, everywhere.
        every = ALL | flags.drains
        entries = self._flight.entries()
        if admission is None:
            return [(entry, every) for entry in entries]
        return [(admission.name_stream(entry), admission.counts(entry, flags)) for entry in entries]

    def clear(self) -> None:
        """Forget the running requests: in the child of a fork they are the parent's."""
        if self._flight is not None:
            self._flight.clear()

    def notify(self, flags: Flags) -> None:
        """Pass on a flip. Takes no time."""
        if (admission := self._admission()) is not None:
            admission.notify(flags)


def _log_template(admission: "weakref.ref[Admission]", exc: Exception) -> None:
    if (found := admission()) is not None:  # pragma: no branch - it is alive while it renders
        found.log_template(exc)


def _split_call(clock: Callable[[], float]) -> tuple[Callable[..., float], tuple[Any, ...]]:
    """Return a clock as (function, arguments): to call a partial takes a request a third longer."""
    return (clock.func, clock.args) if isinstance(clock, functools.partial) else (clock, ())


def _list_bypasses(given: Bypass | Iterable[Bypass] | None) -> tuple[Bypass, ...]:
    if given is None:
        return ()
    bypasses: tuple[Any, ...] = tuple(given) if isinstance(given, Iterable) and not callable(given) else (given,)
    for bypass in bypasses:
        check_function("bypass", bypass)
    return bypasses
