"""The row of a process among the instances: when it is written, and what it shows."""

import pytest

from maintenance.base.flags import Flags
from maintenance.base.instances import Load
from maintenance.base.options import Settings
from maintenance.base.values import Snapshot
from maintenance.errors import RegistrationError, StoreError
from maintenance.proof.membership import DRAIN_REPORT, HEARTBEAT, Membership, Report, Row, make_report
from tests.support.clock import Clock, runtime
from tests.support.faulty import FaultySession, FaultyStore

FULL = RegistrationError("instances cannot register: the disk is full")
UNREGISTERED = "maintenance: this process is not registered, so `maintenance on --wait` will not wait for it"
UNHEARD = "maintenance: this process cannot report what it follows, so `maintenance on --wait` cannot confirm it"


class Member:
    """A process that has registered and acknowledged revision 1, with two requests in flight."""

    def __init__(self) -> None:
        self.clock, self.store = Clock(), FaultyStore()
        self.membership = Membership(Settings(), runtime=runtime(self.clock))
        self.session: FaultySession = self.store.connect()
        self.membership.register(self.session)
        self.membership.confirm(registered=True)
        self.acknowledge(1, Load(in_flight=2))
        self.store.reports.clear()

    def acknowledge(self, revision: int, load: Load | None, *, drain: bool = False) -> bool:
        """Acknowledge a revision; return whether that wrote the row."""
        before = len(self.store.reports)
        self.membership.acknowledge(self.session, report(revision, load, drain=drain))
        return len(self.store.reports) > before


def report(revision: int, load: Load | None, *, drain: bool = False) -> Report:
    """What a process reports while the site's flag is on."""
    flags = Flags(site=Snapshot(enabled=True), revision=revision, drains=frozenset({None} if drain else ()))
    return make_report(flags, flags, load)


@pytest.fixture
def member() -> Member:
    return Member()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("seconds", "revision", "load", "drain", "writes", "draining"),
    [
        (HEARTBEAT - 1, 1, Load(in_flight=2), False, False, False),
        (HEARTBEAT - 1, 1, Load(in_flight=1), False, False, False),  # no operator waits for it
        (HEARTBEAT, 1, Load(in_flight=2), False, True, False),
        (0.0, 2, Load(in_flight=2), False, True, False),
        (0.0, 1, Load(in_flight=2), True, False, True),
        (0.0, 1, Load(in_flight=1), True, True, True),
        (0.0, 1, Load(), True, True, False),
        (0.0, 2, None, True, True, False),  # requests are not tracked, and the row shows that
    ],
)
def test_an_acknowledgement_is_written_if_it_brings_news_or_a_heartbeat_is_due(
    member: Member, seconds: float, revision: int, load: Load | None, *, drain: bool, writes: bool, draining: bool
) -> None:
    member.clock.now += seconds
    assert member.acknowledge(revision, load, drain=drain) is writes
    assert member.membership.draining is draining
    if writes:
        [written] = member.store.reports
        assert (written.revision, written.in_flight) == (revision, load and load.in_flight)
        assert not member.acknowledge(revision, load, drain=drain)


@pytest.mark.parametrize(
    ("revision", "load", "drain", "seconds", "owes"),
    [
        (1, Load(in_flight=2), True, 9.0, False),
        (2, Load(in_flight=2), False, 0.0, True),
        (1, Load(), False, 0.0, True),
        (1, None, True, 0.0, True),  # a middleware was added that tracks no requests
        (1, Load(in_flight=1), False, 9.0, False),
        (1, Load(in_flight=1), True, DRAIN_REPORT - 0.01, False),
        (1, Load(in_flight=1), True, DRAIN_REPORT, True),
    ],
)
def test_the_row_owes_a_flip_the_end_of_all_requests_and_a_drain_once_a_second(
    member: Member, revision: int, load: Load | None, seconds: float, *, drain: bool, owes: bool
) -> None:
    member.acknowledge(1, Load(in_flight=2), drain=drain)
    member.clock.now += seconds
    now = report(revision, load, drain=drain)
    assert member.membership.owes(now) is owes
    member.membership.follow_up(member.session, now)
    assert not member.membership.owes(now)
    assert member.membership.draining is (drain and load is not None and load.in_flight > 0)
    assert DRAIN_REPORT == 1.0


def test_a_row_that_was_never_written_owes_nothing_and_may_not_exist() -> None:
    membership = Membership(Settings(), runtime=runtime(Clock()))
    assert not membership.owes(report(1, Load()))
    assert (membership.may_exist, membership.shows_requests) == (False, False)


def test_a_registration_that_fails_is_logged_once_and_nothing_is_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    member, membership = Member(), Membership(Settings(), runtime=runtime(Clock()))
    member.store.report_error = FULL
    for _ in range(2):
        membership.register(member.session)
        membership.confirm(registered=False)
    assert (membership.row, membership.error, membership.may_exist) == (Row.ABSENT, str(FULL), False)
    assert lines(caplog) == [f"{UNREGISTERED}: {FULL}"]
    member.store.report_error = None
    membership.register(member.session)
    assert (membership.row, membership.error) == (Row.UNCERTAIN, str(FULL))
    membership.acknowledge(member.session, report(1, Load()))
    membership.confirm(registered=True)
    assert (membership.row, membership.error) == (Row.PRESENT, None)
    assert [written.revision for written in member.store.reports] == [None]


def test_an_acknowledgement_that_fails_is_logged_and_repeated(member: Member, caplog: pytest.LogCaptureFixture) -> None:
    member.store.report_error = FULL
    assert not member.acknowledge(2, Load())
    assert (member.membership.row, member.membership.error) == (Row.PRESENT, str(FULL))
    assert lines(caplog) == [f"{UNHEARD}: {FULL}"]
    member.store.report_error = None
    assert member.acknowledge(2, Load())
    assert member.membership.error is None


def test_a_row_that_a_read_does_not_show_is_absent_and_acknowledges_nothing(
    member: Member, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        member.membership.confirm(registered=False)
    assert lines(caplog) == [
        f"{UNREGISTERED}: its row was written and is not there: look for a trigger or a policy that drops it"
    ]
    assert not member.acknowledge(2, Load())
    member.membership.confirm(registered=True)  # the row of an earlier moment
    assert member.membership.row is Row.ABSENT
    member.store.report_error = FULL
    member.membership.register(member.session)
    member.store.report_error = None
    assert not member.acknowledge(2, Load())


def test_a_registration_that_loses_the_connection_may_have_written_the_row() -> None:
    store, membership = FaultyStore(), Membership(Settings(), runtime=runtime(Clock()))
    store.report_error = StoreError("the server closed the connection")
    with pytest.raises(StoreError):
        membership.register(store.connect())
    assert (membership.row, membership.error) == (Row.UNCERTAIN, "the server closed the connection")
    assert membership.may_exist


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (["/srv/bin/gunicorn"], "gunicorn"),
        (["/lib/uvicorn/__main__.py"], "uvicorn"),
        ([""], "python"),
        ([], "python"),
        (None, "python"),
        (["/srv/caf\udce9/run\udce9"], "run\\udce9"),
        (["/srv/ж"], "\\u0436"),
        (["/srv/a\0b"], "a?b"),
    ],
)
def test_an_instance_names_its_program_and_host_as_any_store_can_keep_them(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str] | None, program: str
) -> None:
    monkeypatch.delattr("sys.argv")
    if arguments is not None:
        monkeypatch.setattr("sys.argv", arguments, raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "web\udcff")
    instance = Membership(Settings(), runtime=runtime(Clock())).instance
    assert (instance.program, instance.host) == (program, "web\\udcff")
