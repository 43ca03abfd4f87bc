"""The judgement over every kind of instance, and the loop that repeats it over a store that fails."""

import socket
from contextlib import closing
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest

from maintenance import MaintenanceState
from maintenance.base.runtime import Runtime
from maintenance.base.values import Change, Details, Fleet, Instance, Reading, Row
from maintenance.errors import RegistrationError
from maintenance.proof.judge import Proof, Question, judge, lease_end
from maintenance.proof.prover import DRAIN_MARGIN, LATE, MARGIN, Prover
from maintenance.stores.conversation import Conversation
from tests.support.clock import Clock, refuse, runtime
from tests.support.faulty import FaultyStore

NO_REPLY = "no reply since the flip (last confirmed revision"
TTL = 10.0
END = 10.0 * 1.01 / 0.99
ON = Question(revision=7, enabled=True)
OFF = Question(revision=7, enabled=False)
DRAIN = Question(revision=7, enabled=True, drain=True)


def one(**changed: Any) -> Instance:
    told: dict[str, Any] = {"id": "a" * 32, "host": "web-1", "boot": "b", "pid": 17, "program": "gunicorn"}
    return Instance(**{**told, "version": "1", "when_stale": "serve", "ttl": TTL, **changed})


def fleet(
    *instances: Instance, enabled: bool = True, revision: int = 7, primary: bool = True, intact: bool = True
) -> Fleet:
    return Fleet(Reading(Row(enabled, {}, revision), primary=primary), instances, intact)


def said(proof: Proof) -> list[str]:
    return [why for _, why in proof.laggards]


def test_a_lease_ends_whatever_the_rates_of_the_two_clocks() -> None:
    holder, waiter = 1 - 0.01, 1 + 0.01  # the holder's clock is slow, the waiter's fast
    true_time = TTL / holder
    assert lease_end(TTL) == pytest.approx(true_time * waiter)
    assert lease_end(TTL) == pytest.approx(END)


def test_a_fleet_of_nobody_has_followed() -> None:
    assert judge(fleet(), ON, elapsed=0.0)


# Whether the flag is acknowledged


def test_all_that_have_acknowledged_this_very_revision_are_confirmed() -> None:
    everybody = (one(id="1", revision=7), one(id="2", revision=7, when_stale="block", in_flight=3))
    proof = judge(fleet(*everybody), ON, elapsed=0.0)
    assert proof
    assert (proof.confirmed, proof.laggards, proof.in_flight, proof.final) == (everybody, (), 3, False)


@pytest.mark.parametrize("revision", [None, 6, 8])
def test_another_revision_proves_nothing(revision: int | None) -> None:
    proof = judge(fleet(one(revision=7), one(id="b", revision=revision)), ON, elapsed=1e9)
    assert not proof
    last = "none" if revision is None else revision
    assert said(proof) == [f"{NO_REPLY}: {last}, now 7). It may still be serving visitors"]
    assert len(proof.confirmed) == 1


def test_a_silent_process_that_serves_when_stale_is_never_proven() -> None:
    assert not judge(fleet(one(revision=6, silent_for=1e9)), ON, elapsed=1e9)


def test_a_silent_process_that_blocks_is_fenced_when_its_lease_has_certainly_run_out() -> None:
    silent = one(revision=6, when_stale="block")
    early = judge(fleet(silent), ON, elapsed=END - 0.001)
    assert not early
    assert said(early) == [f"{NO_REPLY}: 6, now 7). It may still be serving visitors until its lease runs out"]
    late = judge(fleet(silent), ON, elapsed=END)
    assert late
    assert late.fenced == (silent,)


def test_each_lease_is_its_own() -> None:
    proof = judge(fleet(one(id="1", when_stale="block", ttl=1.0), one(id="2", when_stale="block")), ON, elapsed=5.0)
    assert [it.id for it in proof.fenced] == ["1"]
    assert [it.id for it, _ in proof.laggards] == ["2"]


def test_a_lease_proves_nobody_back_when_the_flag_is_off() -> None:
    silent = one(revision=6, when_stale="block")
    back = judge(fleet(silent, enabled=False), OFF, elapsed=1e9)
    assert not back
    assert said(back) == [f"{NO_REPLY}: 6, now 7)"]
    assert judge(fleet(one(revision=7), enabled=False), OFF, elapsed=0.0)


def test_a_process_that_has_ended_on_this_host_is_gone() -> None:
    dead = one(revision=6)
    proof = judge(fleet(dead), replace(ON, is_gone=lambda it: it.pid == 17), elapsed=0.0)
    assert proof
    assert (proof.gone, proof.confirmed) == ((dead,), ())


def test_one_that_has_followed_is_confirmed_even_if_it_has_ended_since() -> None:
    proof = judge(fleet(one(revision=7)), replace(ON, is_gone=lambda _: True), elapsed=0.0)
    assert len(proof.confirmed) == 1


@pytest.mark.parametrize(("silent_for", "presumed"), [(599.0, False), (600.0, True)])
def test_what_was_silent_for_long_is_taken_for_dead_on_the_operators_word(silent_for: float, *, presumed: bool) -> None:
    silent = one(revision=6, silent_for=silent_for)
    early = judge(fleet(silent), replace(ON, presume_dead=600.0), elapsed=END - 1.0)
    assert not early
    assert said(early)[0].endswith("; it counts as dead in 1.0 s, when its lease is over") is presumed
    proof = judge(fleet(silent), replace(ON, presume_dead=600.0), elapsed=END)
    assert proof.proven is presumed
    assert proof.presumed == ((silent,) if presumed else ())


# The drain


def test_a_drain_is_over_when_nobody_has_anything_in_flight() -> None:
    assert judge(fleet(one(revision=7, in_flight=0)), DRAIN, elapsed=0.0)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"in_flight": 2, "oldest": "GET /slow", "oldest_age": 3.14},
            "2 requests in flight, the oldest is GET /slow for 3.1 s",
        ),
        (
            {"in_flight": 2, "oldest": "GET /slow", "oldest_age": 3.0, "silent_for": 40.0},
            "2 requests in flight, the oldest is GET /slow for 43.0 s",
        ),
        ({"in_flight": 1}, "1 request in flight"),
        # Another service may keep a row of its own, and say less.
        ({"in_flight": 1, "oldest": "GET /slow"}, "1 request in flight, the oldest is GET /slow for 0.0 s"),
        ({"in_flight": None}, "does not count its requests in flight (in_flight=False)"),
        ({"in_flight": 0, "revision": 6}, f"{NO_REPLY}: 6, now 7). It may still be serving visitors"),
    ],
)
def test_a_drain_that_goes_on_names_the_oldest_request(changed: dict[str, Any], why: str) -> None:
    proof = judge(fleet(one(**{"revision": 7, **changed})), DRAIN, elapsed=1e9)
    assert not proof
    assert said(proof) == [why]


def test_a_silent_process_is_never_drained_by_its_lease() -> None:
    silent = fleet(one(revision=6, when_stale="block"))
    early, late = (judge(silent, DRAIN, elapsed=elapsed) for elapsed in (END - 0.001, END))
    assert not early
    assert not late
    assert said(early) == [f"{NO_REPLY}: 6, now 7). It may still be serving visitors until its lease runs out"]
    [why] = said(late)
    assert why.endswith("Its lease has run out, so it admits no requests, but some may still be running")
    assert not judge(fleet(one(revision=7, in_flight=1, when_stale="block")), DRAIN, elapsed=1e9)


def test_a_process_that_has_ended_has_nothing_in_flight() -> None:
    assert judge(fleet(one(revision=7, in_flight=1)), replace(DRAIN, is_gone=lambda _: True), elapsed=0.0)


# What stands in the way of any proof


@pytest.mark.parametrize(
    ("changed", "says"),
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
def test_a_flag_that_has_changed_can_never_be_proven(changed: Row | None, says: str) -> None:
    proof = judge(Fleet(Reading(changed), (one(revision=7),), intact=True), ON, elapsed=0.0)
    assert not proof
    assert (proof.final, proof.problem) == (True, f"the flag has changed since revision 7: {says}")


def test_a_standby_proves_nothing_and_may_not_stay_one() -> None:
    proof = judge(fleet(one(revision=7), primary=False), ON, elapsed=1e9)
    assert not proof
    assert (proof.final, proof.problem) == (False, "connect to the primary: a standby answered")


def test_fewer_than_expected_is_no_proof_and_the_gone_do_not_count() -> None:
    expect = replace(ON, expect=2, is_gone=lambda it: it.id == "gone")
    two = fleet(one(revision=7), one(id="gone", revision=6))
    proof = judge(two, expect, elapsed=0.0)
    assert not proof
    assert (proof.problem or "").startswith(
        "1 of 2 expected processes are registered. A process registers when it starts"
    )
    assert judge(fleet(one(id="1", revision=7), one(id="2", revision=7)), expect, elapsed=0.0)


def test_those_presumed_dead_fill_no_place_of_the_expected_and_those_fenced_do() -> None:
    silent = one(id="silent", revision=6, when_stale="block", silent_for=END)
    two, expect = fleet(one(id="1", revision=7, in_flight=0), silent), replace(ON, expect=2)
    assert judge(two, expect, elapsed=END)
    drain = replace(expect, drain=True, presume_dead=END)
    proof = judge(two, drain, elapsed=END)
    assert (proof.proven, proof.presumed) == (False, (silent,))
    assert (proof.problem or "").startswith("1 of 2 expected processes")
    assert judge(two, replace(drain, expect=1), elapsed=END)


def test_an_emptied_table_is_no_empty_fleet() -> None:
    proof = judge(fleet(intact=False), ON, elapsed=1e9)
    assert not proof
    assert "pass --expect N" in str(proof.problem)
    assert not proof.final


def test_an_emptied_table_is_believed_again_once_the_longest_lease_is_over() -> None:
    question, emptied = replace(ON, expect=1), fleet(one(revision=7), intact=False)
    early = judge(emptied, question, elapsed=END - 0.001)
    assert not early
    assert early.problem == "the table of instances was emptied: waiting for the longest lease to end"
    assert judge(emptied, question, elapsed=END)


def test_of_an_emptied_table_who_is_silent_is_none_of_those_expected() -> None:
    """He may be the second row of one that has restarted."""
    two = (one(id="1", revision=7), one(id="2", revision=6, when_stale="block"))
    question = replace(ON, expect=2)
    assert judge(fleet(*two), question, elapsed=1e9)
    proof = judge(fleet(*two, intact=False), question, elapsed=1e9)
    assert not proof
    assert proof.problem == "1 of 2 expected processes have confirmed since the table of instances was emptied"


# Numbers that would prove nothing, or everything


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"timeout": -1}, ValueError, "timeout is -1: use 0 or more, or None"),
        ({"timeout": float("nan")}, ValueError, "timeout is nan"),
        ({"timeout": "5"}, TypeError, "timeout is '5': use a number"),
        ({"timeout": True}, TypeError, "timeout is True"),
        ({"progress": 5}, TypeError, "progress is 5: use a function of one Proof"),
        ({"expect": -1}, ValueError, "expect is -1"),
        ({"expect": 1.5}, TypeError, "expect is 1.5: use the number of instances"),
        ({"expect": True}, TypeError, "expect is True"),
        ({"expect": "2"}, TypeError, "expect is '2'"),
        ({"presume_dead": 0}, ValueError, "presume_dead is 0: use 1 or more"),
        ({"presume_dead": float("nan")}, ValueError, "presume_dead is nan"),
        ({"presume_dead": "10m"}, TypeError, "presume_dead is '10m'"),
        ({"drain": True, "off": True}, ValueError, "the flag is off, which refuses nothing: use drain=False"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_asked(wrong: dict[str, Any], error: type, says: str) -> None:
    store = FaultyStore()
    state = MaintenanceState(store)
    told = state.set(not wrong.pop("off", False))
    asked = store.connects
    with pytest.raises(error, match=says):
        state.prove(told, **wrong)
    assert store.connects == asked


def test_the_least_numbers_that_are_right_are_taken() -> None:
    least = replace(ON, expect=0, presume_dead=1)
    assert judge(fleet(), least, elapsed=0.0)
    assert judge(fleet(intact=False), least, elapsed=0.0)


def test_a_proof_waits_for_no_request_in_flight_unless_it_is_told_to(wait: "Wait") -> None:
    state = MaintenanceState(wait.store, runtime=wait.machine)
    for enabled in (True, False):
        told = state.set(enabled)
        wait.register(revision=told.revision, in_flight=1)
        assert state.prove(told, timeout=0)
    told = state.set(True)
    wait.register(revision=told.revision, in_flight=1)
    assert not state.prove(told, drain=True, timeout=0)


def test_what_was_never_in_a_store_cannot_be_proven() -> None:
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
        self.row = self.store.inner.connect().write(Change(enabled=True, details=Details()))
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
        told = one(**changed)
        self.store.inner.connect().report(told)
        return told

    def run(self, *, timeout: float | None = None, **question: Any) -> Proof:
        revision: Any = self.row.revision
        asked = Question(**{"revision": revision, "enabled": True, **question})
        with closing(Conversation(self.store)) as conversation:
            prover = Prover(conversation, asked, runtime=self.machine)
            return prover.run(timeout=timeout, progress=self.seen.append)

    @property
    def registered(self) -> list[str]:
        return [it.id for it in self.store.inner.connect().fleet().instances]


@pytest.fixture
def wait() -> Wait:
    return Wait()


def test_it_asks_again_until_it_is_proven_over_one_connection(wait: Wait) -> None:
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


def test_it_gives_up_at_the_time_out_and_names_the_laggard(wait: Wait) -> None:
    wait.register(revision=1)
    proof = wait.run(timeout=2.0)
    assert not proof
    assert 2.0 <= proof.elapsed < 2.5
    assert [it.pid for it, _ in proof.laggards] == [17]
    assert wait.store.open == 0


def test_a_time_out_of_0_looks_once(wait: Wait) -> None:
    wait.register(revision=1)
    assert not wait.run(timeout=0)
    assert len(wait.seen) == 1


def test_a_look_is_given_up_when_the_time_is_over_and_not_later(wait: Wait) -> None:
    """But none before it has had a second: a time-out of 0 is one honest look."""
    wait.register(revision=1)
    wait.run(timeout=7.0)
    assert wait.store.limits[0] == 5.0
    assert wait.store.limits[-1] == pytest.approx(1.0)
    assert any(1.0 < limit < 5.0 for limit in wait.store.limits)
    assert max(wait.store.limits) == 5.0


@pytest.mark.parametrize(("drain", "margin"), [(False, MARGIN), (True, MARGIN + DRAIN_MARGIN)])
def test_without_a_time_out_it_waits_for_longer_than_the_longest_lease(
    wait: Wait, margin: float, *, drain: bool
) -> None:
    wait.register(id="1", revision=1, ttl=30.0)
    wait.register(id="2", revision=1, ttl=3.0)
    assert wait.run(drain=drain).elapsed == pytest.approx(lease_end(30.0) + margin, abs=0.6)


def test_it_is_fenced_no_earlier_than_the_lease_ends(wait: Wait) -> None:
    wait.register(revision=1, when_stale="block")
    proof = wait.run()
    assert proof
    assert lease_end(TTL) <= proof.elapsed <= lease_end(TTL) + 2 * LATE  # a look is due then, whatever the pause


def test_a_lease_is_counted_to_before_the_question_is_sent(wait: Wait) -> None:
    wait.register(revision=1, when_stale="block")
    session = wait.store.connect()
    slow_answer = session.fleet

    def slow() -> Fleet:
        wait.clock.now += END  # the lease ran out while the answer was on its way
        return slow_answer()

    session.fleet = slow  # type: ignore[method-assign]
    wait.store.connect = lambda *, listen=False: session  # type: ignore[method-assign,misc]
    assert not wait.run(timeout=0)


def test_a_flag_that_changed_ends_the_wait_at_once(wait: Wait) -> None:
    wait.register(revision=1)
    wait.at_sleep = lambda: wait.store.inner.connect().write(Change(enabled=False, details=Details()))
    proof = wait.run(timeout=60.0)
    assert not proof
    assert proof.final
    assert len(wait.slept) == 1


def test_a_store_that_fails_is_asked_again_over_a_new_connection(wait: Wait) -> None:
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


def test_the_last_word_names_all_that_were_gone_and_not_who_came_back(wait: Wait) -> None:
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


def test_rows_of_the_gone_are_removed_and_no_others(wait: Wait) -> None:
    wait.register(id="dead", pid=1, revision=1)
    wait.register(id="mute", pid=2, revision=1)
    proof = wait.run(timeout=0, is_gone=lambda it: it.pid == 1)
    assert [it.id for it in proof.gone] == ["dead"]
    assert wait.registered == ["mute"]


def test_a_drain_is_asked_for_once(wait: Wait) -> None:
    wait.register(revision=wait.row.revision, in_flight=1)
    asked: list[int] = []
    connect = wait.store.connect

    def connecting(*, listen: bool = False) -> Any:
        session = connect(listen=listen)
        ask = session.ask_drain
        session.ask_drain = lambda revision: (asked.append(revision), ask(revision))  # type: ignore[method-assign,func-returns-value]
        return session

    wait.store.connect = connecting  # type: ignore[method-assign]
    wait.run(timeout=2.0, drain=True)
    wait.run(timeout=2.0, drain=True)
    assert asked == [wait.row.revision], "the second wait finds it asked"


def test_without_a_drain_none_is_asked_for(wait: Wait) -> None:
    wait.register(revision=wait.row.revision, in_flight=1)
    assert wait.run()
    assert not wait.store.inner.connect().read().drain


def test_a_table_that_was_emptied_is_vouched_for_by_a_proof_alone(wait: Wait) -> None:
    wait.store.intact = False
    wait.register(revision=1)
    assert not wait.run(timeout=1.0, expect=1)
    assert not wait.store.intact
    wait.register(revision=wait.row.revision)
    wait.store.report_error = RegistrationError("permission denied")
    refused = wait.run(timeout=60.0, expect=1)
    assert refused.problem == "the table of instances cannot be marked as complete again: permission denied"
    wait.store.report_error = None
    assert wait.run(expect=1)
    assert wait.store.intact


def test_a_table_that_is_whole_needs_nobody_s_word(wait: Wait) -> None:
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


def test_a_pid_counts_on_its_own_host_and_boot_alone(wait: Wait) -> None:
    state = MaintenanceState(wait.store, runtime=replace(wait.machine, is_gone=lambda _: True))
    told = state.refresh()
    state.wait_for_answer()
    mine = wait.store.reports[0]
    state.leave()
    for number, changed in enumerate([{"host": "elsewhere"}, {"boot": "another"}, {}]):
        wait.register(id=f"{number}", **{"host": mine.host, "boot": mine.boot, "revision": 1, **changed})
    proof = state.prove(told, timeout=0)
    assert [it.id for it in proof.gone] == ["2"]
    assert len(proof.laggards) == 2
    assert mine.boot


def test_where_the_boot_is_unknown_no_pid_counts(wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maintenance.proof.prover.boot_id", lambda: "")
    state = MaintenanceState(wait.store, runtime=replace(wait.machine, is_gone=lambda _: True))
    wait.register(host=socket.gethostname(), boot="", revision=1)
    assert not state.prove(state.refresh(), timeout=0).gone
