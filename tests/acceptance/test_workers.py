"""The jobs of the documentation, in real workers: they wait for the flag, a drain names them, and no row is left."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from maintenance import MaintenanceState
from tests.docs.pages import blocks
from tests.support.command import operator
from tests.support.redis import redis_server
from tests.support.waiting import eventually

PAGE = "docs/how-to/jobs.md"

PRELUDE = """
import pathlib, time

def print(number):
    pathlib.Path(f"began-{number}").touch()
    while number == 1 and not pathlib.Path("go-on").exists():
        time.sleep(0.02)
    pathlib.Path(f"ended-{number}").touch()
"""
"""The work of each sample: the first job lasts until the test lets it end."""


@dataclass(frozen=True)
class Queue:
    """How a queue runs the sample of its name.

    Attributes:
        word: What its sample has, and no other one.
        worker: The arguments of the worker, after `python -m`.
        send: The code that sends a job with a number.
        held: What the log says of a job that must wait; empty if the job waits in its process, which has a row then.
        hurry: What is changed in the sample, so that a test need not wait as long as an app.
    """

    word: str
    worker: str
    send: str
    held: str = ""
    hurry: tuple[str, str] = ("", "")


QUEUES = {
    "celery": Queue(
        "from celery import",
        "celery --app shop worker --pool prefork --concurrency 2 --loglevel INFO",
        "from shop import send_invoice; send_invoice.delay({})",
        "Retry in",
        ("countdown=30", "countdown=0.1"),
    ),
    "rq": Queue(
        "timeout=150",
        "rq.cli worker --url {redis} --quiet",
        "import os, rq, redis, shop;"
        "rq.Queue(connection=redis.Redis.from_url(os.environ['REDIS'])).enqueue(shop.send_invoice, {})",
    ),
    "dramatiq": Queue(
        "import dramatiq",
        "dramatiq shop --processes 1 --threads 2",
        "from shop import send_invoice; send_invoice.send({})",
        "Retrying message",
        ("delay=30_000", "delay=100"),
    ),
}

SCHEDULER = Queue(
    "apscheduler", "shop", "", "", ('"cron", hour=3, coalesce=True, misfire_grace_time=3600', '"interval", seconds=0.1')
)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


@dataclass(frozen=True)
class Shop:
    """An app with one job, in a folder of its own."""

    queue: Queue
    folder: Path
    env: dict[str, str]

    def write(self) -> None:
        [code] = [code for code in blocks(PAGE, "py") if self.queue.word in code]
        old, new = self.queue.hurry
        assert old in code
        code = code.replace(old, new).replace("redis://localhost", self.env["REDIS"])
        (self.folder / "shop.py").write_text(PRELUDE + code)

    def send(self, number: int) -> None:
        code = self.queue.send.format(number)
        subprocess.run([sys.executable, "-c", code], cwd=self.folder, env=self.env, check=True, timeout=30)

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @contextmanager
    def work(self) -> Iterator[None]:
        arguments = self.queue.worker.format(redis=self.env["REDIS"]).split()
        with (
            (self.folder / "log").open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=self.folder, env=self.env, stdout=log, stderr=log
            ) as worker,
        ):
            try:
                yield
                worker.terminate()
                worker.wait(20)
            finally:
                if worker.poll() is None:
                    worker.kill()


@pytest.fixture
def boss(migrated_url: str) -> Iterator[MaintenanceState]:
    state = operator(migrated_url)
    yield state
    state.close()


@pytest.fixture
def env(migrated_url: str) -> dict[str, str]:
    # Celery loads Django if this variable names its settings, and another test may have set it.
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return {**inherited, "MAINTENANCE_DATABASE_URL": migrated_url, "PYTHONPATH": "."}


def check_drain(shop: Shop, boss: MaintenanceState) -> None:
    """A drain names the job that runs, and is proven when it has ended."""
    eventually(lambda: shop.has("began-1"), 20)
    on = boss.set(True, drain=True)
    laggards = boss.prove(on, drain=True, timeout=1.0).laggards
    assert any("job send-invoice" in why for _, why in laggards)
    (shop.folder / "go-on").touch()
    assert boss.prove(on, drain=True, timeout=20.0)
    assert shop.has("ended-1")


@pytest.mark.parametrize("name", QUEUES)
def test_the_jobs_of_a_queue(
    name: str, redis_url: str, env: dict[str, str], boss: MaintenanceState, tmp_path: Path
) -> None:
    shop = Shop(QUEUES[name], tmp_path, {**env, "REDIS": f"{redis_url}/{list(QUEUES).index(name)}"})
    shop.write()
    boss.set(True)
    with shop.work():
        shop.send(1)
        eventually(lambda: shop.queue.held in shop.log and boss.fleet().instances, 20)
        assert not shop.has("began-1")
        boss.set(False)
        check_drain(shop, boss)
        shop.send(2)
        boss.set(False)
        eventually(lambda: shop.has("ended-2"), 20)
        if name == "rq":  # each job is a process of its own
            eventually(lambda: not boss.fleet().instances)
    assert boss.fleet().instances == ()


def test_the_jobs_of_a_scheduler(env: dict[str, str], boss: MaintenanceState, tmp_path: Path) -> None:
    shop = Shop(SCHEDULER, tmp_path, {**env, "REDIS": ""})
    shop.write()
    boss.set(True)
    with shop.work():
        eventually(lambda: boss.fleet().instances, 20)
        assert not shop.has("began-1")
        boss.set(False)
        check_drain(shop, boss)
