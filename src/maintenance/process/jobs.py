"""Work that is not a request: it waits until the flag is off, and counts as in flight until it ends."""

import functools
import inspect
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar, cast

from maintenance.base.options import check_bool, check_result, check_seconds
from maintenance.base.quoting import quote
from maintenance.base.runtime import is_ending
from maintenance.base.scopes import check_scope
from maintenance.base.values import Snapshot
from maintenance.errors import ConfigurationError, MaintenanceActive
from maintenance.process import api
from maintenance.process.lease import Answer
from maintenance.process.life import Purpose
from maintenance.process.state import MaintenanceState

LOOK: Final = 1.0
"""Seconds after which a job that waits looks again, although no flip has woken it."""

Function = TypeVar("Function", bound=Callable[..., Any])


class _Event(Protocol):
    """What a job waits for: a `threading.Event`, or a `LoopEvent`, whose wait is awaited."""

    def set(self) -> None: ...

    def wait(self, timeout: float) -> Any: ...


class _Call(NamedTuple):
    """A call that may block for a moment."""

    function: Callable[[], Any]


class _Pause(NamedTuple):
    """A wait that may be long."""

    event: _Event
    seconds: float


class _Run(NamedTuple):
    """A job that runs."""

    state: MaintenanceState
    entry: list[Any]


Result = TypeVar("Result")
_Steps = Generator[_Call | _Pause, Any, Result]

_runs: Final[ContextVar[tuple[_Run, ...]]] = ContextVar("maintenance: jobs", default=())
"""The jobs that the caller is inside of, the outermost first."""


class Job:
    """See `job`. Each call of a decorated function is a job of its own; a block is one."""

    def __init__(
        self, name: str, *, scope: str | None, wait: bool, timeout: float | None, state: MaintenanceState | None
    ) -> None:
        """Check the options."""
        given: object = name
        if not isinstance(given, str) or not given.strip():
            raise ConfigurationError(f"name is {quote(given)}: use a text, such as job('nightly-report')")
        check_scope(scope)
        check_bool("wait", wait)
        if timeout is not None:
            check_seconds("timeout", timeout)
            if not wait:
                raise ConfigurationError(f"timeout is {timeout:g} and wait is False: use one of them")
        api.check_state(state)
        self._name, self._scope, self._wait, self._timeout, self._state = name, scope, wait, timeout, state
        self._run: _Run | None = None

    def __enter__(self) -> Self:
        """Wait until the flag is off.

        Raises:
            MaintenanceActive: It stays on.
            RuntimeError: The block runs already.
        """
        steps = self._enter(lambda state: state.lease.runtime.event())
        try:
            self._begin(_drive(steps))
        except BaseException:
            steps.close()
            if (state := self._existing_state) is not None:
                state.lifecycle.leave_after_job()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the job."""
        self._end().lifecycle.leave_after_job()

    async def __aenter__(self) -> Self:
        """Do the same without blocking the event loop."""
        from maintenance.base.threads import LoopEvent  # noqa: PLC0415 - WSGI processes never load it

        steps = self._enter(lambda _: LoopEvent())
        try:
            self._begin(await _adrive(steps))
        except BaseException:
            steps.close()
            if (state := self._existing_state) is not None:
                await _aleave(state)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the job."""
        await _aleave(self._end())

    def __call__(self, function: Function) -> Function:
        """Make each call of a function a job. The function may be async.

        Raises:
            ConfigurationError: It cannot be called, or is a generator, whose body does not run in the call. At a call:
                it is a plain function that returns an awaitable.
        """
        if not callable(function):
            raise ConfigurationError(f"a job is {quote(function)}: decorate a function")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"a job is the generator {quote(function)}: use `with job(...)` inside it")

        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            with self._copy():
                return check_result("a job", function, function(*args, **options))

        @functools.wraps(function)
        async def arun(*args: Any, **options: Any) -> Any:
            async with self._copy():
                return await function(*args, **options)

        return cast("Function", arun if inspect.iscoroutinefunction(function) else run)

    def _copy(self) -> "Job":
        return Job(self._name, scope=self._scope, wait=self._wait, timeout=self._timeout, state=self._state)

    @property
    def _existing_state(self) -> MaintenanceState | None:
        return self._state or api.current_state()

    def _begin(self, run: _Run) -> None:
        self._run = run
        _runs.set((*_runs.get(), run))

    def _end(self) -> MaintenanceState:
        """Count the job no longer, and return the state that counted it."""
        run, self._run = self._run, None
        if run is None:
            raise RuntimeError(f"job {self._name!r} does not run")
        run.entry.clear()
        _runs.set(tuple(it for it in _runs.get() if it is not run))
        return run.state

    def _enter(self, make_event: Callable[[MaintenanceState], _Event]) -> _Steps[_Run]:
        """Wait until the flag is off, in steps that the caller takes: in its thread, or in its event loop."""
        if self._run is not None:
            raise RuntimeError(f"job {self._name!r} runs already: call job() for each block")
        until = None
        while True:
            # Looked up each time: `init_maintenance` may replace the default state.
            state = self._existing_state or (yield _Call(api.default_state))
            clock = state.clock
            until = clock() + (self._timeout or float("inf")) if until is None else until
            event = make_event(state)
            with state.jobs.woken(event.set):  # before it asks, or it could miss a flip
                found = yield from self._try(state)
                if isinstance(found, _Run):
                    return found
                left = until - clock()
                if not self._wait or left <= 0 or state.closed or is_ending():
                    raise MaintenanceActive(self._describe(found), found)
                yield _Pause(event, min(left, LOOK))

    def _try(self, state: MaintenanceState) -> "_Steps[_Run | Snapshot]":
        """Return the job if it runs now, or the flag that is on. It is in flight before it asks, as a request is."""
        lifecycle = state.lifecycle
        run = _Run(state, lifecycle.enter_job(self._name, self._scope))
        try:
            answer = lifecycle.peek(Purpose.WORK)
            if answer is None:
                answer = yield _Call(functools.partial(_ask, run))
            flag = self._find_on(answer, state)
        except BaseException:
            run.entry.clear()
            raise
        if flag is None:
            return run
        run.entry.clear()
        return flag

    def _find_on(self, answer: Answer, state: MaintenanceState) -> Snapshot | None:
        """Return the flag that holds the job up.

        A job inside another one is a part of it. If it waited for a flag whose drain waits for the outer one, neither
        would end.
        """
        outer = [entry for run in _runs.get() if run.state is state and (entry := tuple(run.entry))]
        counted = {scope for entry in outer for scope in (None, entry[-1])}
        flags = [answer.snapshot, *(flag for scope, flag in answer.scopes.items() if scope == self._scope)]
        return next((flag for flag in flags if flag.enabled and flag.scope not in counted), None)

    def _describe(self, flag: Snapshot) -> str:
        part = "" if flag.scope is None else f" of {flag.scope}"
        return f"job {self._name!r} did not run: maintenance{part} is on: run it again when it is off"


def _ask(run: _Run) -> Answer:
    """Wait for an answer. It may arrive after the task that asked was cancelled, and that has left by then."""
    lifecycle = run.state.lifecycle
    try:
        return lifecycle.wait_for_answer(Purpose.WORK)
    finally:
        if not run.entry:
            lifecycle.leave_after_job()


def _drive(steps: _Steps[_Run]) -> _Run:
    answer = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as done:
            return cast("_Run", done.value)
        answer = step.function() if isinstance(step, _Call) else step.event.wait(step.seconds)


async def _adrive(steps: _Steps[_Run]) -> _Run:
    from maintenance.base.threads import run_for_call  # noqa: PLC0415 - WSGI processes never load it

    answer = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as done:
            return cast("_Run", done.value)
        if isinstance(step, _Call):
            answer = await run_for_call(step.function, abandon=True)
        else:
            await step.event.wait(step.seconds)


async def _aleave(state: MaintenanceState) -> None:
    from maintenance.base.threads import run_shielded  # noqa: PLC0415 - WSGI processes never load it

    if state.lifecycle.only_worked:
        await run_shielded(state.lifecycle.leave_after_job)


def job(
    name: str,
    *,
    scope: str | None = None,
    wait: bool = True,
    timeout: float | None = None,
    state: MaintenanceState | None = None,
) -> Job:
    """Run a piece of work that is not a request, once the flag is off: ``with``, ``async with``, or a decorator.

    It counts as in flight until it ends, and the process is registered until then. So ``--drain`` waits for it, and
    names it.

    Args:
        name: For the operator who waits for it, such as ``nightly-report``.
        scope: A part of the site. The job also waits while the whole site is closed.
        wait: Whether to wait until the flag is off. If not, a flag that is on raises.
        timeout: How long to wait, in seconds; None for as long as it takes.
        state: Another state than the default one.

    Raises:
        ConfigurationError: An option is wrong. When the job begins: no default state exists and no database is named.
        TypeError, ValueError: The scope does not name one.
        MaintenanceActive: When the job begins: the flag is on, and `wait` or `timeout` ends the wait; or the process
            ends, or has closed its state.
    """
    return Job(name, scope=scope, wait=wait, timeout=timeout, state=state)
