"""The judgement over each kind of instance, and the loop that repeats it over a store that fails."""

import datetime as dt
import socket
from contextlib import closing
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest

from maintenance import MaintenanceState
from maintenance.base.flags import Reading
from maintenance.base.instances import Fleet, Instance
from maintenance.base.runtime import Runtime
from maintenance.base.values import Change, Details, Row
from maintenance.errors import RegistrationError
from maintenance.proof.judge import Proof, Question, judge, lease_end
from maintenance.proof.prover import DRAIN_MARGIN, LATE, LONGEST_WAIT, MARGIN, Prover
from maintenance.stores.conversation import Conversation
from tests.support.clock import Clock, refuse, runtime
from tests.support.command import fleet_of, operator
from tests.support.faulty import FaultySession, FaultyStore
from tests.support.waiting import eventually

NO_REPLY = "no reply since the flip (last confirmed revision"
TTL = 10.0
END = 10.0 * 1.01 / 0.99
ON = Question(revision=7, enabled=True)


def one(**changed: Any) -> Instance:
    fields: dict[str, Any] = {"id": "a" * 32, "host": "web-1", "boot": "b", "pid": 17, "program": "gunicorn"}
    return Instance(**{**fields, "version": "1", "when_stale": "serve", "ttl": TTL, **changed})


def fleet(
    *instances: Instance, enabled: bool = True, revision: int = 7, primary: bool = True, intact: bool = True
) -> Fleet:
    return Fleet(Reading(Row(enabled, {}, revision), last=revision, primary=primary), instances, intact)


def reasons(proof: Proof) -> list[str]:
    return [why for _, why in proof.laggards]


def test_a_lease_ends_at_any_rates_of_the_two_clocks() -> None:
    holder, waiter = 1 - 0.01, 1 + 0.01  # the holder's clock is slow, the waiter's fast
    assert lease_end(TTL) == pytest.approx(TTL / holder * waiter) == pytest.approx(END)


# One instance

SERVING = "It may still be serving visitors"
LEASED = f"{SERVING} until its lease runs out"
OVER = "Its lease has run out, so it admits no requests, but some may still be running"
LATER = "; it counts as dead in 1.0 s, when its lease is over"
GONE = {"is_gone": lambda instance: instance.pid == 17}
SILENT = {"revision": 6, "when_stale": "block"}
DEAD = {"revision": 6, "silent_for": 600.0}
PRESUME = {"presume_dead": 600.0}
DRAIN = {"drain": True}
OFF = {"enabled": False}


@pytest.mark.parametrize(
    ("changed", "asked", "elapsed", "verdict"),
    [
        # The flag
        ({"revision": 7}, {}, 0.0, "confirmed"),
        ({"revision": 7, "when_stale": "block", "in_flight": 3}, {}, 0.0, "confirmed"),
        ({"revision": 7}, OFF, 0.0, "confirmed"),
        ({"revision": 7}, GONE, 0.0, "confirmed"),
        ({"revision": None}, {}, 1e9, f"{NO_REPLY}: none, now 7). {SERVING}"),
        ({"revision": 6, "silent_for": 1e9}, {}, 1e9, f"{NO_REPLY}: 6, now 7). {SERVING}"),
        ({"revision": 8}, {}, 1e9,
         f"follows revision 8, and the database, which was taken back, has only 7. {SERVING}"),
        (SILENT, {}, END - 0.001, f"{NO_REPLY}: 6, now 7). {LEASED}"),
        (SILENT, {}, END, "fenced"),
        (SILENT | {"ttl": 1.0}, {}, 5.0, "fenced"),
        (SILENT, OFF, 1e9, f"{NO_REPLY}: 6, now 7)"),  # a lease opens nothing
        ({"revision": 6}, GONE, 0.0, "gone"),
        (DEAD, PRESUME, END - 1.0, f"{NO_REPLY}: 6, now 7). {SERVING}{LATER}"),
        (DEAD, PRESUME, END, "presumed"),
        (DEAD | {"silent_for": 599.0}, PRESUME, END - 1.0, f"{NO_REPLY}: 6, now 7). {SERVING}"),
        (DEAD | {"silent_for": 599.0}, PRESUME, END, f"{NO_REPLY}: 6, now 7). {SERVING}"),
        # The drain
        ({"revision": 7, "in_flight": 0}, DRAIN, 0.0, "confirmed"),
        ({"revision": 7, "in_flight": 1}, DRAIN, 0.0, "1 request in flight"),
        ({"revision": 7, "in_flight": 1, "when_stale": "block"}, DRAIN, 1e9, "1 request in flight"),
        ({"revision": 7, "in_flight": 1}, DRAIN | GONE, 0.0, "gone"),
        ({"revision": 7, "in_flight": 2, "oldest": "GET /slow", "oldest_age": 3.14}, DRAIN, 1e9,
         "2 requests in flight, the oldest is GET /slow for 3.1 s"),
        ({"revision": 7, "in_flight": 2, "oldest": "GET /slow", "oldest_age": 3.0, "silent_for": 40.0}, DRAIN, 1e9,
         "2 requests in flight, the oldest is GET /slow for 43.0 s"),
        # Another service may keep a row of its own that shows less.
        ({"revision": 7, "in_flight": 1, "oldest": "GET /slow"}, DRAIN, 1e9,
         "1 request in flight, the oldest is GET /slow for 0.0 s"),
        ({"revision": 7, "in_flight": None}, DRAIN, 1e9, "does not count its requests in flight (in_flight=False)"),
        ({"revision": 6, "in_flight": 0}, DRAIN, 1e9, f"{NO_REPLY}: 6, now 7). {SERVING}"),
        ({"revision": 7, "in_flight": 0}, {**DRAIN, "scope": "shop"}, 1e9,
         "has not reported yet what it has in flight there"),
        ({"revision": 7, "in_flight": 0, "drains": {"shop": 0}}, {**DRAIN, "scope": "shop"}, 1e9, "confirmed"),
        (SILENT, DRAIN, END - 0.001, f"{NO_REPLY}: 6, now 7). {LEASED}"),
        (SILENT, DRAIN, END, f"{NO_REPLY}: 6, now 7). {OVER}"),
    ],
)  # fmt: skip
def test_an_instance_is_accounted_for_or_a_laggard(
    changed: dict[str, Any], asked: dict[str, Any], elapsed: float, verdict: str
) -> None:
    instance, question = one(**changed), replace(ON, **asked)
    found = fleet(instance, enabled=question.enabled)
    if question.scope is not None:
        found = replace(found, reading=replace(found.reading, scopes=(Row(True, {}, 7, scope=question.scope),)))
    proof = judge(found, question, elapsed=elapsed)
    verdicts = ("confirmed", "fenced", "gone", "presumed")
    assert {name: getattr(proof, name) for name in verdicts} == {
        name: (instance,) if name == verdict else () for name in verdicts
    }
    assert reasons(proof) == ([] if verdict in verdicts else [verdict])
    assert proof.proven is bool(proof) is (verdict in verdicts)
    assert (proof.in_flight, proof.final) == (instance.in_flight or 0, False)


# The whole fleet


def test_one_laggard_is_enough_and_an_empty_fleet_has_followed() -> None:
    assert judge(fleet(), ON, elapsed=0.0)
    proof = judge(fleet(one(id="1", revision=7), one(id="2", revision=6)), ON, elapsed=0.0)
    assert not proof
    assert (len(proof.confirmed), len(proof.laggards)) == (1, 1)


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        (Row(True, {}, 8), "it is on at revision 8"),
        (Row(False, {"actor": "Ann"}, 9), "it is off at revision 9, by Ann"),
        (Row(True, {}, 6), "it is on at revision 6"),
        (Row(False, "no JSON", 7), "it is off at revision 7"),
        (Row(1, {}, 7), "it is on at revision 7"),
        (Row(None, {"actor": "x" * 200}, 8), f"it is neither on nor off at revision 8, by {'x' * 100}"),
        (None, "its row is gone"),
    ],
    ids=str,
)
def test_a_flag_that_has_changed_can_never_be_proven(changed: Row | None, state: str) -> None:
    proof = judge(Fleet(Reading(changed), (one(revision=7),), intact=True), ON, elapsed=0.0)
    assert not proof
    assert (proof.final, proof.problem) == (True, f"the flag has changed since revision 7: {state}")


FENCED = one(id="2", revision=6, when_stale="block", silent_for=END)
OTHER = one(id="2", revision=6, pid=18)
PASS_EXPECT = "pass --expect N: the table of instances was emptied, so it may not list every process"
EMPTIED = "1 of 2 expected processes have confirmed since the table of instances was emptied"
TOO_FEW = "1 of 2 expected processes are registered. A process registers when it starts"


@pytest.mark.parametrize(
    ("others", "asked", "about", "elapsed", "problem"),
    [
        ([], {}, {"primary": False}, 1e9, "connect to the primary: a standby answered"),
        ([one(id="2", revision=7)], {"expect": {"": 2}}, {}, 0.0, None),
        ([OTHER], {"expect": {"": 2}, "is_gone": lambda instance: instance.pid == 18}, {}, 0.0, TOO_FEW),
        ([FENCED], {"expect": {"": 2}}, {}, END, None),
        ([FENCED], {"expect": {"": 2}, "presume_dead": END, "drain": True}, {}, END, TOO_FEW),
        ([FENCED], {"expect": {"": 1}, "presume_dead": END, "drain": True}, {}, END, None),
        ([], {}, {"intact": False}, 1e9, PASS_EXPECT),
        ([], {"expect": {"": 1}}, {"intact": False}, END - 0.001,
         "the table of instances was emptied: waiting for the longest lease to end"),
        ([], {"expect": {"": 1}}, {"intact": False}, END, None),
        # It may be the second row of a restarted process.
        ([FENCED], {"expect": {"": 2}}, {"intact": False}, 1e9, EMPTIED),
    ],
)  # fmt: skip
def test_a_proof_needs_a_primary_and_all_expected_processes(
    others: list[Instance], asked: dict[str, Any], about: dict[str, Any], elapsed: float, problem: str | None
) -> None:
    proof = judge(fleet(one(revision=7, in_flight=0), *others, **about), replace(ON, **asked), elapsed=elapsed)
    assert (proof.problem or "").startswith(problem or "")
    assert (proof.problem is None, proof.final) == (problem is None, False)
    assert proof.proven is (problem is None)


def test_the_least_numbers_that_are_right_are_accepted() -> None:
    least = replace(ON, expect={"": 0}, presume_dead=1)
    assert judge(fleet(), least, elapsed=0.0)
    assert judge(fleet(intact=False), least, elapsed=0.0)


# Arguments that are refused


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"timeout": -1}, ValueError, "timeout is -1: use 0 or more, or None"),
        ({"timeout": float("nan")}, ValueError, "timeout is nan"),
        ({"timeout": "5"}, TypeError, "timeout is '5': use a number"),
        ({"timeout": True}, TypeError, "timeout is True"),
        ({"progress": 5}, TypeError, "progress is 5: use a function of one Proof"),
        ({"expect": -1}, ValueError, "expect is -1"),
        ({"expect": 1.5}, TypeError, "expect is 1.5: use a number, or a number by service"),
        ({"expect": True}, TypeError, "expect is True"),
        ({"expect": {"web": "2"}}, TypeError, "use whole numbers of instances"),
        ({"expect": {7: 2}}, TypeError, "use a number, or a number by service"),
        ({"expect": "2"}, TypeError, "expect is '2'"),
        ({"presume_dead": 0}, ValueError, "presume_dead is 0: use 1 or more"),
        ({"presume_dead": float("nan")}, ValueError, "presume_dead is nan"),
        ({"presume_dead": "10m"}, TypeError, "presume_dead is '10m'"),
        ({"drain": True, "off": True}, ValueError, "the flag is off, which refuses nothing: use drain=False"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_asked(wrong: dict[str, Any], error: type, message: str) -> None:
    store = FaultyStore()
    state = MaintenanceState(store)
    snapshot = state.set(not wrong.pop("off", False))
    asked = store.connects
    with pytest.raises(error, match=message):
        state.prove(snapshot, **wrong)
    assert store.connects == asked


def test_a_proof_waits_for_requests_in_flight_only_if_a_drain_is_asked_for(wait: "Wait") -> None:
    state = MaintenanceState(wait.store, runtime=wait.machine)
    for enabled in (True, False):
        snapshot = state.set(enabled)
        wait.register(revision=snapshot.revision, in_flight=1)
        assert state.prove(snapshot, timeout=0)
    snapshot = state.set(True)
    wait.register(revision=snapshot.revision, in_flight=1)
    assert not state.prove(snapshot, drain=True, timeout=0)


def test_two_operators_who_flip_different_scopes_both_get_their_proof(shared_url: str) -> None:
    first, second = closing(operator(shared_url)), closing(operator(shared_url))
    with fleet_of(shared_url, 3), first as one, second as another:
        shop, pay = one.set(True, scope="shop"), another.set(True, scope="payments")
        site = one.set(True, scope="site")
        assert one.prove(shop, expect=3, timeout=10.0)
        assert another.prove(pay, expect=3, timeout=10.0)
        another.set(True, scope="site", message="changed")
        assert not one.prove(site, expect=3, timeout=10.0), "this flag itself was changed"


def test_prove_refuses_all_but_a_snapshot_from_a_store() -> None:
    store = FaultyStore()
    state = MaintenanceState(store)
    known = state.refresh()
    store.away()
    with pytest.raises(TypeError, match=r"snapshot is True: use prove\(state.set\(...\)\)"):
        state.prove(True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="drain is 'no': use True or False"):
        state.prove(known, drain="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"never in a store: use prove\(state.set\(...\)\)"):
        MaintenanceState(store).prove(MaintenanceState(store).prime())


# The loop


class Wait:
    """An operator who waits, with a clock that moves only while they sleep."""

    def __init__(self) -> None:
        self.clock, self.store = Clock(), FaultyStore()
        self.row = self.store.inner.connect().write(Change(enabled=True, details=Details())).row
        self.seen: list[Proof] = []
        self.slept: list[float] = []
        self.at_sleep: Any = lambda: None

    @property
    def machine(self) -> Runtime:
        return runtime(self.clock, start=refuse, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.now += seconds
        self.at_sleep()

    def register(self, **changed: Any) -> Instance:
        instance = one(**changed)
        self.store.inner.connect().report(instance)
        return instance

    def run(self, *, timeout: float | None = None, **question: Any) -> Proof:
        revision: Any = self.row.revision
        asked = Question(**{"revision": revision, "enabled": True, **question})
        with closing(Conversation(self.store, clock=self.clock)) as conversation:
            prover = Prover(conversation, asked, runtime=self.machine)
            return prover.run(timeout=timeout, progress=self.seen.append)

    @property
    def registered(self) -> list[str]:
        return [it.id for it in self.store.inner.connect().fleet().instances]


@pytest.fixture
def wait() -> Wait:
    return Wait()


def test_a_wait_asks_again_until_the_proof_over_one_connection(wait: Wait) -> None:
    silent = wait.register(revision=1)

    def acknowledge() -> None:
        if len(wait.slept) == 3:
            wait.register(revision=wait.row.revision)

    wait.at_sleep = acknowledge
    proof = wait.run()
    assert proof
    assert [bool(each) for each in wait.seen] == [False, False, False, True]
    assert [it.id for it in proof.confirmed] == [silent.id]
    assert proof.elapsed == pytest.approx(sum(wait.slept))
    assert (wait.store.connects, wait.store.open) == (1, 0)


def plan(wait: Wait, **changed: Any) -> dict[str, Any]:
    """A start that has passed, and the question about it."""
    starts = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    wait.store.inner.row = Row(False, {"starts": starts.isoformat()} | changed, wait.row.revision)
    return {"starts": starts, "timeout": 2.0}


def test_a_start_is_proven_by_who_has_read_it_and_drained_only_once_it_is_written(wait: Wait) -> None:
    question = plan(wait)
    wait.register(revision=wait.row.revision, in_flight=0)
    assert wait.run(**question).revision == wait.row.revision

    def follow() -> None:
        written = wait.store.inner.row
        assert written is not None
        wait.register(revision=written.revision, in_flight=0)

    wait.at_sleep = follow
    proof = wait.run(drain=True, **question)
    first = wait.seen[1]
    assert reasons(first)[0].startswith("no process has written yet that it has begun")
    assert (proof.proven, proof.revision) == (True, wait.row.revision + 1)


def test_another_maintenance_is_not_taken_for_the_planned_one(wait: Wait) -> None:
    question = plan(wait, mode="read_only")
    wait.store.inner.connect().carry_out(None, wait.row.revision, enabled=True)
    wait.register(revision=wait.row.revision + 1)
    assert not wait.run(**question)
    assert wait.run(mode="read_only", **question)


def test_a_wait_ends_at_the_time_out_and_names_the_laggard(wait: Wait) -> None:
    wait.register(revision=1)
    proof = wait.run(timeout=2.0)
    assert not proof
    assert 2.0 <= proof.elapsed < 2.5
    assert [it.pid for it, _ in proof.laggards] == [17]
    assert wait.store.open == 0
    wait.seen.clear()
    assert not wait.run(timeout=0)
    assert len(wait.seen) == 1


def test_a_look_ends_with_the_wait_but_has_a_second_at_least(wait: Wait) -> None:
    wait.register(revision=1)
    wait.run(timeout=7.0)
    limits = wait.store.limits
    assert limits[0] == max(limits) == 5.0
    assert limits[-1] == pytest.approx(1.0)
    assert any(1.0 < limit < 5.0 for limit in limits)


@pytest.mark.parametrize(("drain", "margin"), [(False, MARGIN), (True, MARGIN + DRAIN_MARGIN)])
def test_the_default_time_out_is_longer_than_the_longest_lease(wait: Wait, margin: float, *, drain: bool) -> None:
    wait.register(id="1", revision=1, ttl=30.0)
    wait.register(id="2", revision=1, ttl=3.0)
    assert wait.run(drain=drain).elapsed == pytest.approx(lease_end(30.0) + margin, abs=0.6)


def test_a_silent_instance_is_fenced_as_soon_as_its_lease_ends(wait: Wait) -> None:
    wait.register(revision=1, when_stale="block")
    proof = wait.run()
    assert proof
    assert lease_end(TTL) <= proof.elapsed <= lease_end(TTL) + 2 * LATE  # a look is due then, at any pause


def test_a_thousand_silent_instances_are_fenced_as_soon_as_one(wait: Wait) -> None:
    for number in range(1000):
        wait.register(id=f"{number}", revision=1, when_stale="block")
    proof = wait.run()
    assert (len(proof.fenced), proof.proven) == (1000, True)
    assert lease_end(TTL) <= proof.elapsed <= lease_end(TTL) + 2 * LATE


def test_no_row_makes_the_default_time_out_endless(wait: Wait) -> None:
    wait.register(revision=1, ttl=1e6)
    assert wait.run().elapsed == pytest.approx(LONGEST_WAIT, abs=0.6)


def test_a_lease_must_end_before_the_question_is_sent(wait: Wait) -> None:
    wait.register(revision=1, when_stale="block")
    session = wait.store.connect()
    slow_answer = session.fleet

    def slow(scope: str | None = None) -> Fleet:
        wait.clock.now += END  # the lease ran out while the answer was on its way
        return slow_answer(scope)

    session.fleet = slow  # type: ignore[method-assign]
    wait.store.connect = lambda **_: session  # type: ignore[method-assign]
    assert not wait.run(timeout=0)


def test_the_value_that_a_process_writes_at_the_start_does_not_end_the_wait(wait: Wait) -> None:
    session = wait.store.inner.connect()
    starts = dt.datetime.now(dt.UTC) + dt.timedelta(milliseconds=50)
    wait.row = session.write(Change(enabled=True, details=Details(starts=starts))).row

    def carry_out() -> None:
        eventually(lambda: dt.datetime.now(dt.UTC) > starts)
        session.carry_out(None, wait.row.revision, enabled=True)
        wait.at_sleep = lambda: wait.register(revision=session.read().last)

    silent = wait.register(revision=1)
    wait.at_sleep = carry_out
    proof = wait.run(starts=starts)
    assert proof
    assert proof.revision > wait.row.revision
    assert proof.confirmed[0].id == silent.id


def test_a_change_of_the_flag_ends_the_wait_at_once(wait: Wait) -> None:
    wait.register(revision=1)
    wait.at_sleep = lambda: wait.store.inner.connect().write(Change(enabled=False, details=Details()))
    proof = wait.run(timeout=60.0)
    assert not proof
    assert proof.final
    assert len(wait.slept) == 1


def test_a_wait_connects_again_to_a_store_that_fails(wait: Wait) -> None:
    wait.register(revision=1)

    def trouble() -> None:
        match len(wait.slept):
            case 1:
                wait.store.away()
            case 3:
                wait.store.back()
                wait.register(revision=wait.row.revision)

    wait.at_sleep = trouble
    assert wait.run()
    assert [proof.problem for proof in wait.seen] == [None, "the server is away", "the server is away", None]
    assert [len(proof.laggards) for proof in wait.seen] == [1, 1, 1, 0]  # what was last known of them
    assert [proof.elapsed for proof in wait.seen] == pytest.approx([0.0, *accumulate(wait.slept)])
    assert (wait.store.connects, wait.store.open) == (3, 0)


def test_a_store_that_never_answers_proves_nothing(wait: Wait) -> None:
    wait.store.away()
    proof = wait.run(timeout=1.0)
    assert (proof.proven, proof.problem) == (False, "the server is away")


def test_the_last_judgement_names_all_that_were_gone_and_did_not_come_back(wait: Wait) -> None:
    wait.register(id="dead", pid=1, revision=1)
    wait.register(id="back", pid=2, revision=1)
    wait.register(id="slow", revision=1)

    def at_sleep() -> None:
        if len(wait.slept) == 2:
            wait.register(id="back", pid=2, revision=wait.row.revision)
        if len(wait.slept) == 4:
            wait.register(id="slow", revision=wait.row.revision)

    wait.at_sleep = at_sleep
    proof = wait.run(is_gone=lambda it: it.pid in (1, 2))
    assert proof
    assert [sorted(it.id for it in seen.gone) for seen in wait.seen] == [["back", "dead"]] * 2 + [["dead"]] * 3
    assert sorted(it.id for it in proof.confirmed) == ["back", "slow"]


def test_a_wait_removes_the_rows_of_the_gone_in_one_step_and_no_others(wait: Wait) -> None:
    for number in range(3):
        wait.register(id=f"dead {number}", pid=1, revision=1)
    wait.register(id="mute", pid=2, revision=1)
    proof = wait.run(timeout=0, is_gone=lambda it: it.pid == 1)
    assert [it.id for it in proof.gone] == ["dead 0", "dead 1", "dead 2"]
    assert wait.store.removals == [("dead 0", "dead 1", "dead 2")]
    assert wait.registered == ["mute"]


def test_a_row_that_may_not_be_removed_spoils_no_proof(wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_removal(*_: object) -> int:
        raise RegistrationError("permission denied")

    monkeypatch.setattr(FaultySession, "remove", refuse_removal)
    wait.register(pid=1, revision=1)
    proof = wait.run(timeout=0, is_gone=lambda it: it.pid == 1)
    assert (bool(proof), len(proof.gone), proof.problem) == (True, 1, None)


def test_a_row_that_cannot_be_trusted_is_a_laggard_whatever_it_claims() -> None:
    claims = one(revision=7, in_flight=0, when_stale="block", silent_for=1e6, problem="ttl is not a number")
    generous = replace(ON, presume_dead=1, is_gone=lambda _: True)
    proof = judge(fleet(claims), generous, elapsed=1e9)
    assert not proof
    assert reasons(proof) == [
        f"its row cannot be trusted: ttl is not a number. Remove it: maintenance forget {'a' * 32}"
    ]


def test_a_drain_is_asked_for_once(wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    wait.register(revision=wait.row.revision, in_flight=1)
    asked: list[int] = []
    ask = FaultySession.ask_drain
    monkeypatch.setattr(
        FaultySession, "ask_drain", lambda it, revision, scope: ask(it, asked.append(revision) or revision)
    )
    assert wait.run()
    assert asked == [], "no drain is wanted"
    wait.run(timeout=2.0, drain=True)
    wait.run(timeout=2.0, drain=True)
    assert asked == [wait.row.revision], "the second wait finds it asked"


def test_only_a_proof_marks_an_emptied_table_as_complete(wait: Wait) -> None:
    wait.store.intact = False
    wait.register(revision=1)
    assert not wait.run(timeout=1.0, expect={"": 1})
    assert not wait.store.intact
    wait.register(revision=wait.row.revision)
    wait.store.report_error = RegistrationError("permission denied")
    refused = wait.run(timeout=60.0, expect={"": 1})
    assert refused.problem == "the table of instances cannot be marked as complete again: permission denied"
    wait.store.report_error = None
    assert wait.run(expect={"": 1})
    assert wait.store.intact


def test_a_proof_over_a_complete_table_writes_nothing(wait: Wait) -> None:
    wait.register(revision=wait.row.revision)
    wait.store.report_error = RegistrationError("permission denied")
    assert wait.run()


def test_the_pause_between_two_looks_grows_with_the_laggards_and_with_the_wait(wait: Wait) -> None:
    wait.register(id="0", revision=1)
    wait.run(timeout=0)
    wait.run(timeout=100.0)
    assert (wait.slept[0], max(wait.slept)) == pytest.approx((0.01, 0.5))
    for number in range(1, 100):
        wait.register(id=f"{number}", revision=1)
    wait.slept.clear()
    wait.run(timeout=0.01)
    assert wait.slept == pytest.approx([0.04])


def test_a_pid_means_something_only_on_its_own_host_and_boot(wait: Wait) -> None:
    state = MaintenanceState(wait.store, runtime=replace(wait.machine, is_gone=lambda _: True))
    snapshot = state.refresh()
    state.wait_for_answer()
    mine = wait.store.reports[0]
    state.leave()
    for number, changed in enumerate([{"host": "elsewhere"}, {"boot": "another"}, {}]):
        wait.register(id=f"{number}", **{"host": mine.host, "boot": mine.boot, "revision": 1, **changed})
    proof = state.prove(snapshot, timeout=0)
    assert [it.id for it in proof.gone] == ["2"]
    assert len(proof.laggards) == 2
    assert mine.boot


def test_no_pid_counts_if_the_boot_is_unknown(wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maintenance.proof.prover.boot_id", lambda: "")
    state = MaintenanceState(wait.store, runtime=replace(wait.machine, is_gone=lambda _: True))
    wait.register(host=socket.gethostname(), boot="", revision=1)
    assert not state.prove(state.refresh(), timeout=0).gone
