"""The demo: run as a person runs it, and its example app as an example."""

import http.client
import io
import json
import os
import re
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
from maintenance.cli import demo
from maintenance.cli.demo import processes
from maintenance.cli.demo.app import app
from maintenance.cli.demo.processes import ADMIN, Server
from maintenance.process import api
from maintenance.stores import MemoryStore, open_store
from tests.support.command import Acting, Cli, instance, operator, read_until, register, run_as_main, start
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


def get(address: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", "/")
    status = connection.getresponse().status
    connection.close()
    return status


# As a whole.


STEPS = r"""Two servers share one flag in (sqlite:////|postgresql://tester@)\S+

  A  http://127\.0\.0\.1:\d+/  pid \d+  answers 200
  B  http://127\.0\.0\.1:\d+/  pid \d+  answers 200

1\. An admin switches maintenance on, through A
   A answers 503 immediately, B \d+ ms after the flip
   B asks its visitors to come back in \d+ s; its /health still answers 200

2\. B is killed and started again
   B was pid \d+ and is now pid \d+; its first answer is 503, because the flag is in the database

3\. The admin switches maintenance off, through B
   B answers 200 immediately, A \d+ ms after the flip

4\. Does every process follow\?
   Proven: 2 processes have acknowledged revision \d+

Every step worked\.
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_each_step_works_and_nothing_is_left_behind(kind, folder, request, cli: Cli, monkeypatch):
    monkeypatch.setenv("DEMO_ONCE", "1")
    if kind == "postgresql":
        monkeypatch.setenv("MAINTENANCE_DATABASE_URL", database := request.getfixturevalue("database_url"))
    done = cli("demo")
    assert (done.status, done.err) == (0, "")
    assert re.fullmatch(STEPS, done.out)
    assert not any(psutil.pid_exists(int(pid)) for pid in re.findall(r"pid (\d+)", done.out))
    assert list(folder.iterdir()) == []
    if kind == "postgresql":
        assert operator(database).fleet().instances == ()
        assert not operator(database).refresh().enabled


def test_it_runs_until_ctrl_c_and_restarts_a_server_that_is_killed(folder, cli: Cli):
    def flip() -> None:
        [command] = re.findall(r"^  (curl -X PUT .*true.*)$", output.getvalue(), re.MULTILINE)
        subprocess.run(["bash", "-c", command], capture_output=True, check=True)

    def kill() -> None:
        os.kill(int(re.findall(r"kill -9 (\d+)", output.getvalue())[0]), signal.SIGKILL)

    def check() -> None:
        [address] = re.findall(r"^  B  http://(\S+)/ ", output.getvalue(), re.MULTILINE)
        remembered.append(get(address))
        os.kill(os.getpid(), signal.SIGINT)

    remembered: list[int] = []
    output = Acting({
        "Press Ctrl-C": lambda: threading.Timer(0.1, flip).start(),
        "maintenance is ON, revision 4: Back in a minute.": lambda: threading.Timer(0.1, kill).start(),
        # In another thread, so that the interrupt reaches this one at rest.
        "with the same flag": lambda: threading.Timer(0.1, check).start(),
    })  # fmt: skip
    before = signal.getsignal(signal.SIGTERM)
    assert cli("demo", output=output).status == 0
    assert re.search(r"B \(pid \d+\) has ended; restarted as pid \d+, with the same flag", output.getvalue())
    assert remembered == [503]
    assert "Stopping the servers.\nmaintenance is OFF, revision 5\n" in output.getvalue()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_no_signal_leaves_a_server_behind(folder, number):
    with start("demo", env={"DEMO_ONCE": "0"}) as playing:
        read_until(playing, "Press Ctrl-C")
        running = psutil.Process(playing.pid).children()
        playing.send_signal(number)
        status = playing.wait(20)
    gone, alive = psutil.wait_procs(running, timeout=10)
    assert (len(gone), alive) == (2, [])
    assert (status, list(folder.iterdir())) == (0, []) or number == signal.SIGKILL


def test_sigterm_before_it_runs_ends_it(folder, cli: Cli):
    output = Acting({"share one flag": lambda: signal.raise_signal(signal.SIGTERM)})
    assert cli("demo", output=output).status == 130
    assert list(folder.iterdir()) == []


def test_the_commands_that_it_prints_work(folder):
    """Each is run as printed, by a shell."""
    with start("demo") as playing:
        printed = read_until(playing, "Press Ctrl-C")
        commands = [line.strip() for line in printed.splitlines() if line.startswith("  ") and "--database" in line]
        codes = [subprocess.run(["bash", "-c", line], capture_output=True, check=False).returncode for line in commands]
        os.killpg(playing.pid, signal.SIGINT)
        out, err = playing.communicate(timeout=20)
    assert (playing.returncode, err) == (0, "")
    assert "Stopping the servers." in out
    assert [line.split(" --database")[0].split()[-1] for line in commands] == ["on", "fleet", "off"]
    assert codes == [0, 0, 0]


def test_on_a_given_database_it_prints_no_password_and_removes_the_row_of_a_killed_demo(
    migrated_url: str, cli: Cli, monkeypatch
):
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", migrated_url)
    dead = subprocess.Popen(["true"])
    dead.wait()
    register(open_store(migrated_url), instance(host=socket.gethostname(), boot=boot_id(), pid=dead.pid))
    state = operator(migrated_url)
    output = Acting({
        "Press Ctrl-C": lambda: threading.Timer(0.1, state.set, [True]).start(),
        "maintenance is ON, revision": lambda: os.kill(os.getpid(), signal.SIGINT),
    })  # fmt: skip
    done = cli("demo", output=output)
    assert done.status == 0
    assert psycopg.conninfo.conninfo_to_dict(migrated_url)["password"] not in done.out + done.err
    assert "# with the same MAINTENANCE_DATABASE_URL as here:" in done.out
    assert "--database" not in done.out
    assert not state.refresh().enabled
    assert state.fleet().instances == ()


# What it refuses.


def test_it_never_flips_the_flag_of_other_processes(migrated_url: str, cli: Cli, monkeypatch):
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", migrated_url)
    state = operator(migrated_url)
    register(state.store, other := instance())
    done = cli("demo")
    assert done.status == 1
    assert "is used by other processes (1), and the demo would flip their flag" in done.err
    state.forget(other.id)
    kept = state.set(True)
    done = cli("demo")
    assert done.status == 1
    assert "has maintenance switched on" in done.err
    assert state.refresh().revision == kept.revision


def test_it_refuses_a_store_that_two_processes_cannot_share(cli: Cli, monkeypatch):
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", "memory://")
    done = cli("demo")
    assert done.status == 2
    assert "unset it" in done.err


def test_a_step_that_fails_is_reported(folder, cli: Cli, monkeypatch):
    monkeypatch.setenv("DEMO_ONCE", "1")
    monkeypatch.setattr(demo, "ADMIN", "/nowhere")
    done = cli("demo")
    assert done.status == 1
    assert done.err.startswith("maintenance: server A answered PUT /nowhere with 404 instead of 200")
    assert done.err.count("\n") == 1


def test_a_fleet_that_does_not_follow_is_reported(sqlite_url, monkeypatch):
    open_store(sqlite_url).migrate()
    state = operator(sqlite_url)
    with Server("A", sqlite_url) as a, Server("B", sqlite_url) as b:
        for server in (a, b):
            server.expect("GET", "/", 200)
        register(state.store, instance(ttl=0.1))
        monkeypatch.setattr("maintenance.proof.prover.MARGIN", 0.1)
        monkeypatch.setattr("maintenance.proof.judge.CLOCK_RATE", -0.9999)  # the longest lease is 10 s
        with pytest.raises(MaintenanceError, match="not proven that both servers follow"):
            demo._show_steps(a, b, state)


# The servers.


def test_a_server_that_cannot_start_is_reported(sqlite_url, capfd):
    server = Server("A", sqlite_url)
    server.kill()
    with Server("B", sqlite_url) as other:
        server._port = other._port
        with pytest.raises(MaintenanceError, match="server A did not start"):
            server.start()
    assert "Address already in use" in capfd.readouterr().err


def test_a_server_that_does_not_answer_follow_or_end_is_reported_and_ended(sqlite_url, monkeypatch):
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
        run_as_main("maintenance.cli.demo.server")
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
    status, answer = ask("PUT", ADMIN, '{"enabled": true, "message": "soon"}')
    assert (status, json.loads(answer)) == (200, {"enabled": True, "revision": 2})
    assert (state.enabled, state.snapshot().message) == (True, "soon")
    assert ask("PUT", ADMIN, '{"enabled": false}')[0] == 200
    assert not state.enabled


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '"on"', "{}", "null", '{"enabled": 1}', '{"enabled": true, "message": 7}', "\xff"]
)
def test_the_example_answers_bad_input_with_400_and_what_to_write(state, body):
    status, answer = ask("PUT", ADMIN, body)
    assert status == 400
    assert 'send {"enabled": true' in json.loads(answer)["error"]
    assert not state.enabled


def test_the_example_says_when_the_flag_could_not_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(api, "_state", None)
    made = init_maintenance(f"sqlite:///{tmp_path}/gone.db", register=False)
    (tmp_path / "gone.db").unlink()
    status, answer = ask("PUT", ADMIN, '{"enabled": true}')
    made.close()
    assert status == 502
    assert "gone" in json.loads(answer)["error"]


def test_the_example_has_a_page_a_probe_and_nothing_else(state):
    status, page = ask("GET", "/")
    assert status == 200
    assert f"Process <b>{os.getpid()}</b>" in page
    assert ask("GET", "/health") == (200, "ok\n")
    assert ask("GET", "/nowhere")[0] == 404
    assert ask("GET", ADMIN)[0] == 404
