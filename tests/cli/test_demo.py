"""The demo: run as a person runs it, and its example app as an example."""

import http.client
import io
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import psutil
import psycopg
import pytest

from maintenance import MaintenanceError, MaintenanceState, init_maintenance
from maintenance.base.runtime import boot_id
from maintenance.cli import demo, main
from maintenance.cli.demo import processes
from maintenance.cli.demo.app import app
from maintenance.cli.demo.processes import ADMIN, Server
from maintenance.process import api
from maintenance.stores import MemoryStore, open_store
from tests.support.command import Acting, instance, read_until, register, run, started
from tests.support.ports import accepts, free_port
from tests.support.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo makes its temporary folder."""
    made = tmp_path / "a place with spaces & ?"
    made.mkdir()
    monkeypatch.setenv("TMPDIR", str(made))
    monkeypatch.setattr("tempfile.tempdir", None)
    return made


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def put(url: str, body: str) -> None:
    connection = http.client.HTTPConnection(url, timeout=10)
    connection.request("PUT", ADMIN, body)
    assert connection.getresponse().status == 200
    connection.close()


# As a whole.


def _check_once(done, store: str) -> None:
    assert done.stderr == ""
    assert done.returncode == 0
    assert f"Two servers share one flag in {store}" in done.stdout
    for held in (
        r"A answers 503 immediately, B \d+ ms after the flip",
        r"B asks its visitors to come back in \d+ s; its /health still answers 200",
        r"B was pid \d+ and is now pid \d+; its first answer is 503",
        r"B answers 200 immediately, A \d+ ms after the flip",
        r"Proven: 2 processes have acknowledged revision \d+",
    ):
        assert re.search(held, done.stdout), held
    assert done.stdout.endswith("Every step worked.\n")
    for pid in re.findall(r"pid (\d+)", done.stdout):
        assert not psutil.pid_exists(int(pid))


def test_once_through_on_sqlite(folder):
    _check_once(run("demo", env={"DEMO_ONCE": "1"}), "sqlite:////")
    assert list(folder.iterdir()) == []


def test_once_through_on_postgresql(database_url):
    _check_once(run("demo", env={"DEMO_ONCE": "1", "MAINTENANCE_DATABASE_URL": database_url}), "postgresql://tester@")
    state = MaintenanceState(database_url, register=False)
    assert state.fleet().instances == ()
    assert not state.refresh().enabled


def test_it_stays_to_be_played_with_until_sigterm_and_leaves_nobody_behind(folder):
    with started("demo", env={"DEMO_ONCE": "0"}) as playing:
        said = read_until(playing, "Press Ctrl-C to stop")
        a, b = re.findall(r"^  [AB]  http://(\S+)/ ", said, re.MULTILINE)
        [line] = re.findall(r"-d '(.*true.*)'", said)
        put(a, line)
        assert "ON, revision 4: Back in a minute." in read_until(playing, "maintenance is ON")
        victim = int(re.findall(r"kill -9 (\d+)", said)[0])
        os.kill(victim, signal.SIGKILL)
        assert f"B (pid {victim}) has ended; restarted as pid" in read_until(playing, "with the same flag")
        connection = http.client.HTTPConnection(b, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().status == 503
        connection.close()
        running = children(playing.pid)
        assert len(running) == 2
        playing.terminate()
        assert playing.wait(20) == 0
    psutil.wait_procs(running, timeout=5)
    assert not any(child.is_running() for child in running)
    assert list(folder.iterdir()) == []


def test_not_even_sigkill_leaves_a_server_behind(folder):
    with started("demo") as playing:
        read_until(playing, "Press Ctrl-C to stop")
        running = children(playing.pid)
        playing.kill()
        gone, alive = psutil.wait_procs(running, timeout=10)
    assert (len(gone), alive) == (2, [])


def test_what_it_invites_to_run_works(folder, monkeypatch):
    """Every command that it prints is run as printed, by a shell."""
    with started("demo") as playing:
        said = read_until(playing, "Press Ctrl-C to stop")
        commands = [line.strip() for line in said.splitlines() if line.startswith("  ") and "--database" in line]
        curls = [line.strip() for line in said.splitlines() if line.startswith("  curl -X PUT")]
        codes = [subprocess.run(["bash", "-c", line], capture_output=True, check=False).returncode for line in commands]
        os.killpg(playing.pid, signal.SIGINT)
        out, err = playing.communicate(timeout=20)
    assert (playing.returncode, err) == (0, "")
    assert "Stopping the servers." in out
    assert [line.split(" --database")[0].split()[-1] for line in commands] == ["on", "fleet", "off"]
    assert codes == [0, 0, 0]
    assert len(curls) == 2


def test_on_a_shared_database_the_password_is_not_printed(database_url):
    with started("demo", env={"MAINTENANCE_DATABASE_URL": database_url}) as playing:
        said = read_until(playing, "Press Ctrl-C to stop")
        state = MaintenanceState(database_url, register=False)
        state.set(True)
        said += read_until(playing, "maintenance is ON")
        playing.send_signal(signal.SIGINT)
        out, err = playing.communicate(timeout=20)
    assert playing.returncode == 0
    password = psycopg.conninfo.conninfo_to_dict(database_url)["password"]
    assert isinstance(password, str)
    assert password not in said + out + err
    assert "with the same MAINTENANCE_DATABASE_URL as here" in said
    assert "--database" not in said
    assert not state.refresh().enabled
    assert state.fleet().instances == ()


def test_in_this_process(folder, monkeypatch):
    def kill() -> None:
        os.kill(int(re.findall(r"kill -9 (\d+)", output.getvalue())[0]), signal.SIGKILL)

    def flip() -> None:
        [url] = re.findall(r"share one flag in (\S+)", output.getvalue())
        MaintenanceState(url, register=False).set(True)

    output = Acting({
        "kill -9 ": lambda: threading.Timer(0.1, kill).start(),
        # In another thread, so that the interrupt that follows is this thread's, at rest.
        "restarted as pid": lambda: threading.Timer(0.1, flip).start(),
        "maintenance is ON": lambda: os.kill(os.getpid(), signal.SIGINT),
    })  # fmt: skip
    monkeypatch.setattr(sys, "stdout", output)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["demo"]) == 0
    assert "Stopping the servers.\nmaintenance is OFF, revision 5\n" in output.getvalue()
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setenv("DEMO_ONCE", "1")
    assert main(["demo"]) == 0


def test_on_postgresql_in_this_process_also_where_a_killed_demo_has_left_its_row(migrated_url, monkeypatch):
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", migrated_url)
    dead = subprocess.Popen(["true"])
    dead.wait()
    register(open_store(migrated_url), instance(host=socket.gethostname(), boot=boot_id(), pid=dead.pid))
    output = Acting({"Press Ctrl-C to stop": lambda: signal.raise_signal(signal.SIGINT)})
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["demo"]) == 0
    assert "Stopping the servers." in output.getvalue()


def test_sigterm_in_this_process(folder, monkeypatch):
    output = Acting({"share one flag": lambda: signal.raise_signal(signal.SIGTERM)})
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["demo"]) == 130
    assert list(folder.iterdir()) == []


# What it refuses.


def test_it_never_switches_a_fleet_that_is_not_its_own(migrated_url, monkeypatch, capsys):
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", migrated_url)
    state = MaintenanceState(migrated_url, register=False)
    register(state.store, other := instance())
    assert main(["demo"]) == 1
    assert "is used by other processes (1), and the demo would flip their flag" in capsys.readouterr().err
    state.forget(other.id)
    kept = state.set(True)
    assert main(["demo"]) == 1
    assert "has maintenance switched on" in capsys.readouterr().err
    assert state.refresh().revision == kept.revision


def test_it_refuses_a_store_that_two_processes_cannot_share(monkeypatch, capsys):
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", "memory://")
    assert main(["demo"]) == 2
    assert "unset it" in capsys.readouterr().err


def test_a_step_that_does_not_hold_is_told(folder, monkeypatch, capsys):
    monkeypatch.setenv("DEMO_ONCE", "1")
    monkeypatch.setattr(demo, "ADMIN", "/nowhere")
    monkeypatch.setattr(processes, "PATIENCE", 5.0)
    assert main(["demo"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("maintenance: server A answered PUT /nowhere with 404 instead of 200")
    assert said.count("\n") == 1


def test_a_fleet_that_does_not_follow_is_told(sqlite_url, monkeypatch, capsys):
    open_store(sqlite_url).migrate()
    state = MaintenanceState(sqlite_url, register=False)
    with Server("A", sqlite_url) as a, Server("B", sqlite_url) as b:
        for server in (a, b):
            server.expect("GET", "/", 200)
        register(state.store, instance(ttl=0.1))
        monkeypatch.setattr("maintenance.proof.prover.MARGIN", 0.1)
        monkeypatch.setattr("maintenance.proof.judge.CLOCK_RATE", -0.9999)  # the longest lease is 10 s
        with pytest.raises(MaintenanceError, match="not proven that both servers follow"):
            demo._show_steps(a, b, state)


# The servers.


def test_a_server_that_cannot_start_is_told(sqlite_url, capfd):
    server = Server("A", sqlite_url)
    server.kill()
    with Server("B", sqlite_url) as other:
        server._port = other._port
        with pytest.raises(MaintenanceError, match="server A did not start"):
            server.start()
    assert "Address already in use" in capfd.readouterr().err


def test_a_server_that_does_not_answer_follow_or_end_is_told_and_ended(sqlite_url, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.3)
    monkeypatch.setattr(processes, "GRACE", 0.3)
    with Server("A", sqlite_url) as server:
        with pytest.raises(MaintenanceError, match="did not answer 503 within"):
            server.wait_for_status(503, since=0.0)
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(MaintenanceError, match="did not answer GET /"):
            server.send("GET", "/")
    assert not server.is_running


def test_a_server_serves_until_its_stdin_ends(sqlite_url, monkeypatch, capsys):
    reader, writer = os.pipe()
    port = free_port()
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", sqlite_url)
    monkeypatch.setattr(api, "_state", None)
    monkeypatch.setattr(sys, "argv", ["server", str(port)])
    monkeypatch.delitem(sys.modules, "maintenance.cli.demo.server", raising=False)
    answers = []

    def play() -> None:
        eventually(lambda: accepts(port))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/health")
        answers.append(connection.getresponse().status)
        connection.close()
        os.close(writer)

    playing = threading.Thread(target=play)
    playing.start()
    with open(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        runpy.run_module("maintenance.cli.demo.server", run_name="__main__")
    playing.join()
    assert answers == [200]
    assert capsys.readouterr().out == f"{port}\n"
    import_module("maintenance.cli.demo.server")  # which serves nothing


@pytest.mark.parametrize("where", ["on the path", "nearby", "elsewhere", "nowhere"])
def test_the_command_that_it_prints_can_be_run(tmp_path, monkeypatch, where):
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    python = bin_ / "python"
    script = bin_ / "maintenance"
    if where != "nowhere":
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", str(bin_) if where == "on the path" else "/nowhere")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path if where == "nearby" else tmp_path / "other")
    told = {"on the path": "maintenance", "nearby": "bin/maintenance", "elsewhere": str(script)}
    assert demo._find_command() == told.get(where, f"{python} -m maintenance")


# The example app.


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[MaintenanceState]:
    """The default state of this process, for as long as the test lasts."""
    monkeypatch.setattr(api, "_state", None)
    made = init_maintenance(MemoryStore(), register=False)
    yield made
    made.close()


def ask(method: str, path: str, body: str = "") -> tuple[int, str]:
    environ: dict[str, object] = {"REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": str(len(body))}
    environ["SCRIPT_NAME"] = ""
    environ["wsgi.input"] = io.BytesIO(body.encode())
    environ["QUERY_STRING"] = ""
    setup_testing_defaults(environ)
    statuses: list[str] = []
    answer = validator(app)(environ, lambda status, _headers, _exc=None: statuses.append(status))
    text = b"".join(answer).decode()
    answer.close()
    return int(statuses[0][:3]), text


def test_the_example_switches_the_fleet(state):
    status, told = ask("PUT", ADMIN, '{"enabled": true, "message": "soon"}')
    assert (status, json.loads(told)) == (200, {"enabled": True, "revision": 2})
    assert (state.enabled, state.snapshot().message) == (True, "soon")
    assert ask("PUT", ADMIN, '{"enabled": false}')[0] == 200
    assert not state.enabled


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '"on"', "{}", "null", '{"enabled": 1}', '{"enabled": true, "message": 7}', "\xff"]
)
def test_the_example_answers_bad_input_with_400_and_what_to_write(state, body):
    status, told = ask("PUT", ADMIN, body)
    assert status == 400
    assert 'send {"enabled": true' in json.loads(told)["error"]
    assert not state.enabled


def test_the_example_says_when_the_flag_could_not_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(api, "_state", None)
    made = init_maintenance(f"sqlite:///{tmp_path}/gone.db", register=False)
    (tmp_path / "gone.db").unlink()
    status, told = ask("PUT", ADMIN, '{"enabled": true}')
    made.close()
    assert status == 502
    assert "gone" in json.loads(told)["error"]


def test_the_example_has_a_page_a_probe_and_nothing_else(state):
    status, page = ask("GET", "/")
    assert status == 200
    assert f"Process <b>{os.getpid()}</b>" in page
    assert ask("GET", "/health") == (200, "ok\n")
    assert ask("GET", "/nowhere")[0] == 404
    assert ask("GET", ADMIN)[0] == 404
