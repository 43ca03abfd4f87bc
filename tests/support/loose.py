"""A table of instances without constraints, as a restore or another program may leave it."""

from maintenance.base.instances import MAX_NAME, Instance
from maintenance.proof.judge import Proof, Question, judge
from maintenance.stores import Session
from tests.stores.helpers import flip, instance, run_sql

LONG_TEXT = f"'{'x' * (MAX_NAME + 1)}'"
TEXTS = ("NULL", LONG_TEXT)
COUNTS = ("-1",)
WRONG = {
    "id": ("NULL",),
    "host": TEXTS,
    "boot": TEXTS,
    "pid": ("NULL", "-1"),
    "program": TEXTS,
    "version": TEXTS,
    "when_stale": (*TEXTS, "'never'"),
    "ttl": ("NULL", "0", "-1", "'NaN'", "'Infinity'", "'-Infinity'", "1e308"),
    "revision": ("-1", "9223372036854775807"),
    "in_flight": COUNTS,
    "websockets": ("NULL", "-1"),
    "oldest": (LONG_TEXT,),
    "oldest_age": ("'NaN'", "'Infinity'", "'-Infinity'", "1e308", "-100"),
    "drains": ("NULL", "'[]'", "'7'", """'{"shop": "x"}'""", """'{"shop": -1}'"""),
    "service": TEXTS,
    "seen_at": (
        *("NULL", "'infinity'", "'-infinity'", "'294276-12-31'", "'4713-01-01 BC'"),
        "now() + interval '1 day'",
    ),
}
"""For PostgreSQL, whose columns have types: each column, and what no process writes there."""

NO_UTF8 = "CAST(x'ff' AS TEXT)"
UNTYPED = ("x'ff00'", NO_UTF8, "zeroblob(5000)", "9e999", "-9e999", "-1e308", "1e308")
"""For SQLite, whose columns hold any type."""

OF_TEXT = {"host", "boot", "program", "version", "oldest", "service"}
LATER = "(julianday('now') - 2440587.5) * 86400.0 + 86400.0"


def find_wrong(url: str) -> dict[str, tuple[str, ...]]:
    """What does not belong into each column of a store, as SQL."""
    return {column: _wrong_in_sqlite(column) for column in WRONG} if url.startswith("sqlite") else WRONG


def _wrong_in_sqlite(column: str) -> tuple[str, ...]:
    if column in OF_TEXT:
        null = () if column == "oldest" else ("NULL",)
        return ("x'ff00'", NO_UTF8, "zeroblob(5000)", LONG_TEXT, *null)
    wrong = (
        *UNTYPED,
        LONG_TEXT,
        *(("NULL",) if column in ("id", "pid", "ttl", "websockets", "drains", "seen_at") else ()),
    )
    return (*wrong, LATER) if column == "seen_at" else wrong


class Loose:
    """A store whose table of instances has lost its constraints, with one process that follows.

    Attributes:
        url: Its URL.
        session: A session.
        wrong: For each column, what does not belong there.
    """

    def __init__(self, url: str, session: Session) -> None:
        self.url, self.session = url, session
        self.wrong = find_wrong(url)
        self._loosen(sqlite=url.startswith("sqlite"))
        self.revision = flip(session)
        session.report(instance(revision=self.revision, host="good", in_flight=0))

    def _loosen(self, *, sqlite: bool) -> None:
        if sqlite:
            run_sql(self.url, "ALTER TABLE maintenance_instances RENAME TO checked")
            # The names alone, without types. An upsert still needs the key to be unique.
            run_sql(self.url, f"CREATE TABLE maintenance_instances ({', '.join(WRONG)}, UNIQUE (id))")
            run_sql(self.url, f"INSERT INTO maintenance_instances SELECT {', '.join(WRONG)} FROM checked")
            return
        nullable = ", ".join(f"ALTER COLUMN {column} DROP NOT NULL" for column in WRONG)
        run_sql(
            self.url,
            "ALTER TABLE maintenance_instances DROP CONSTRAINT maintenance_instances_bounded, "
            "DROP CONSTRAINT maintenance_instances_pkey, ADD UNIQUE (id); "
            f"ALTER TABLE maintenance_instances {nullable}",
        )

    def insert(self, **wrong: str) -> None:
        """Insert a row that looks as good as the first one, but for some columns."""
        good = {
            "id": "'a0000000000000000000000000000000'", "host": "'bad'", "boot": "'b'", "pid": "1", "program": "'p'",
            "version": "'1'", "when_stale": "'block'", "ttl": "0.1", "revision": str(self.revision), "in_flight": "0",
            "websockets": "0", "oldest": "NULL", "oldest_age": "NULL", "drains": "'{}'", "service": "'web'",
            "seen_at": "1.0" if self.url.startswith("sqlite") else "'2001-01-01'",
        }  # fmt: skip
        values = good | wrong
        run_sql(
            self.url, f"INSERT INTO maintenance_instances ({', '.join(values)}) VALUES ({', '.join(values.values())})"
        )

    def judge(self) -> Proof:
        """As generous as a judgement can be."""
        question = Question(revision=self.revision, enabled=True, presume_dead=1, is_gone=lambda it: it.host != "good")
        return judge(self.session.fleet(), question, elapsed=1e9)

    def bad(self) -> list[Instance]:
        return [one for one in self.session.fleet().instances if one.problem]
