"""Scripts of skills, run by a real daemon in a real sandbox."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import Daemon, save

PATIENCE_S = 20.0


def script(root: Path, name: str, text: str, skill: str = "demo") -> None:
    """Write a script of a skill, without an execute bit."""
    path = root / skill / "scripts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def until(claim: Callable[[], Any]) -> Any:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not (value := claim()):
        assert time.monotonic() < end
        select.select([], [], [], 0.01)
    return value


def processes_named(mark: str) -> list[int]:
    """The processes whose command line holds a text."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
    return found


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that confines by one rung."""
    directory = tmp_path_factory.mktemp("x")
    root = directory / "skills"
    save(root / "demo", "Runs")
    daemon = Daemon([root], directory, execution_backend=request.param)
    try:
        if daemon.call("skilld.status")["sandbox"]["state"] != "checked":
            script(root, "first.sh", "exit 0\n")
            daemon.request("skills.execute_script", {"name": "demo", "script": "first.sh"})
        sandbox = daemon.call("skilld.status")["sandbox"]
        if sandbox["backend"] is None:
            pytest.skip(f"MISSING RUNG {request.param}: {sandbox['rejected']}")
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture
def work(running: Daemon) -> Path:
    """The root of the running daemon."""
    return running.roots[0]


def run(daemon: Daemon, name: str, **params: Any) -> dict[str, Any]:
    """The RunResult of a script of the skill "demo"."""
    result: dict[str, Any] = daemon.call("skills.execute_script", name="demo", script=name, **params)
    return result


def test_execute_script(running: Daemon, work: Path) -> None:
    """A script gets arguments, variables and input, and the caller its output, exit code and what confined it."""
    script(
        work,
        "all.py",
        "import os, sys\n"
        "print(sys.argv[1:], os.environ['GREETING'], sys.stdin.read())\n"
        "print('oops', file=sys.stderr)\n"
        "sys.exit(3)\n",
    )
    result = run(running, "all.py", args=["a b", "$(id)", ";*"], env={"GREETING": "hi"}, stdin="input")
    sandbox = running.call("skilld.status")["sandbox"]
    assert result.pop("duration_ms") > 0 <= result.pop("queued_ms")
    assert result == {
        "stdout": "['a b', '$(id)', ';*'] hi input\n",
        "stderr": "oops\n",
        "exit_code": 3,
        "encoding": {"stdout": "utf-8", "stderr": "utf-8"},
        "truncated": {"stdout": False, "stderr": False},
        "bytes": {"stdout": 32, "stderr": 5},
        "timed_out": False,
        "interpreter": "/usr/bin/python3",
        "sandbox": {key: sandbox[key] for key in ("backend", "network", "proc", "unix_sockets", "memory", "degraded")},
    }
    assert sandbox["canary"]["passed"]
    assert set(sandbox["canary"]["checks"].values()) <= {"blocked", "void"}


def test_over_rest(running: Daemon, work: Path) -> None:
    """The route takes a script's path with or without its folder; errors have their status."""
    script(work, "sub/rest.sh", "echo $1\n")
    for path in ("sub%2Frest.sh", "scripts%2Fsub%2Frest.sh"):
        status, result = running.http("POST", f"/skills/demo/scripts/{path}", {"args": ["x"]})
        assert (status, result["stdout"]) == (200, "x\n")
    status, reply = running.http("POST", "/skills/demo/scripts/none.sh")
    assert (status, reply["error"]["data"]["reason"]) == (404, "file-not-found")
    status, reply = running.http("POST", "/skills/demo/scripts/sub%2Frest.sh", {"stream": True})
    assert (status, reply["error"]["data"]["field"]) == (422, "stream")


def test_where_a_script_runs(running: Daemon, work: Path) -> None:
    """It starts in its skill, may write where HOME and TMPDIR say, and nowhere in its skill."""
    script(
        work,
        "place.sh",
        'test -f SKILL.md && echo here; echo x > "$HOME/a" && echo home; echo x > "$TMPDIR/b" && echo tmp\n'
        "echo x > scripts/c || echo read-only; exit 0\n",
    )
    result = run(running, "place.sh")
    assert result["stdout"] == "here\nhome\ntmp\nread-only\n"
    assert not (work / "demo/scripts/c").exists()


def test_output_is_cut_in_the_middle(running: Daemon, work: Path) -> None:
    """Beginning and end are kept, all is counted; what is not UTF-8 comes as base64."""
    script(work, "much.py", "print('first'); print('x' * 3_000_000); print('last')\n")
    result = run(running, "much.py")
    assert result["truncated"] == {"stdout": True, "stderr": False}
    assert result["bytes"]["stdout"] == 3_000_012
    assert result["stdout"].startswith("first\n")
    assert result["stdout"].endswith("x\nlast\n")
    assert "bytes cut ...]" in result["stdout"]
    assert len(result["stdout"]) < 1_100_000
    script(work, "binary.py", "import sys; sys.stdout.buffer.write(bytes(range(256)))\n")
    result = run(running, "binary.py")
    assert result["encoding"]["stdout"] == "base64"
    assert base64.b64decode(result["stdout"]) == bytes(range(256))


def test_a_script_that_takes_too_long(running: Daemon, work: Path) -> None:
    """SIGTERM may be answered with an exit code of its own, which counts, and so does what is written then."""
    script(work, "heeds.sh", "trap 'echo bye; exit 9' TERM\necho up\nsleep 60 & wait\n")
    result = run(running, "heeds.sh", timeout_ms=300)
    assert (result["exit_code"], result["timed_out"], result["signal"]) == (9, True, "SIGTERM")
    assert result["stdout"] == "up\nbye\n"


def test_what_a_script_leaves_behind_ends_with_it(running: Daemon, work: Path) -> None:
    """A daemon that keeps the output open holds nobody up, and does not outlive its script."""
    mark = f"31.{os.getpid()}"
    script(work, "leaves.sh", f"(setsid sleep {mark} &) ; sleep {mark} & echo done\n")
    began = time.monotonic()
    assert run(running, "leaves.sh")["stdout"] == "done\n"
    assert time.monotonic() - began < 10
    assert processes_named(mark) == []


def test_input_that_nobody_reads(running: Daemon, work: Path) -> None:
    """It neither blocks nor fails the run."""
    script(work, "ignores.sh", "exit 5\n")
    assert run(running, "ignores.sh", stdin="x" * 5_000_000)["exit_code"] == 5


def test_a_peer_that_goes_ends_its_run(running: Daemon, work: Path) -> None:
    """Over both framings, and also where the peer had said that it writes no more."""
    mark = f"32.{os.getpid()}"
    script(work, "waits.sh", f"sleep {mark}\n")
    params = {"name": "demo", "script": "waits.sh"}
    lines = running.lines()
    lines.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "skills.execute_script", "params": params}).encode())
    lines.send(b"\n")
    until(lambda: processes_named(mark))
    lines.close()
    until(lambda: not processes_named(mark))
    half = socket.socket(socket.AF_UNIX)
    half.connect(str(running.socket_path))
    half.sendall(b"POST /skills/demo/scripts/waits.sh HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    until(lambda: processes_named(mark))
    half.shutdown(socket.SHUT_WR)
    assert processes_named(mark)
    half.close()
    until(lambda: not processes_named(mark))


def test_output_streams(running: Daemon, work: Path) -> None:
    """Notifications come before the result, while the script still runs, in order, no character torn apart."""
    script(
        work,
        "talks.py",
        "import sys\n"
        "sys.stdout.buffer.write('é'.encode()[:1]); sys.stdout.flush()\n"
        "sys.stdout.buffer.write('é'.encode()[1:]); sys.stdout.flush()\n"
        "print('?'); sys.stdout.flush()\nprint(sys.stdin.read(), file=sys.stderr)\n",
    )
    with contextlib.closing(running.lines()) as lines:
        result = lines.request("skills.execute_script", {"name": "demo", "script": "talks.py", "stream": True})[
            "result"
        ]
        notes = lines.notifications
    assert {note["method"] for note in notes} == {"skills.output"}
    params = [note["params"] for note in notes]
    assert [one["seq"] for one in params] == list(range(len(params)))
    assert {one["request_id"] for one in params} == {1}
    assert "".join(one["data"] for one in params if one["stream"] == "stdout") == "é?\n" == result["stdout"]
    assert "".join(one["data"] for one in params if one["stream"] == "stderr") == "\n" == result["stderr"]


def test_a_notification_s_output_does_not_stream(running: Daemon, work: Path) -> None:
    """It has no id to be told by; the script runs all the same."""
    script(work, "hello.sh", "echo hello\n")
    params = {"name": "demo", "script": "hello.sh", "stream": True}
    with contextlib.closing(running.lines()) as lines:
        notification = {"jsonrpc": "2.0", "method": "skills.execute_script", "params": params}
        lines.send(json.dumps(notification).encode() + b"\n")
        # A request whose id is null has one.
        lines.send(json.dumps({**notification, "id": None}).encode() + b"\n")
        received = [lines.receive() for _ in range(2)]
        until(lambda: running.log_path.read_text().count("ran scripts/hello.sh") == 2)
        assert "result" in lines.request("skilld.ping", {})
        received += lines.notifications
    assert [one["params"]["data"] for one in received if "params" in one] == ["hello\n"]


def test_a_reader_that_is_slow_slows_the_script(running: Daemon, work: Path) -> None:
    """A flood that nobody reads stays with the script; the daemon does not grow."""
    script(work, "flood.py", "import sys\nfor _ in range(2_000): sys.stdout.write('x' * 100_000)\n")
    params = {"name": "demo", "script": "flood.py", "stream": True, "timeout_ms": 60_000}
    before_kib = peak_kib(running)
    with contextlib.closing(running.lines()) as lines:
        lines.send(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "skills.execute_script", "params": params}).encode()
            + b"\n"
        )
        first = lines.receive()
        assert first["params"]["stream"] == "stdout"
        # The script is held up: it does not end while we do not read.
        until(lambda: processes_named("flood.py"))
        count = len(first["params"]["data"])
        while "result" not in (message := lines.receive()):
            count += len(message["params"]["data"])
    assert count == 200_000_000 == message["result"]["bytes"]["stdout"]
    assert peak_kib(running) - before_kib < 16 * 1024


def peak_kib(daemon: Daemon) -> int:
    """The most memory that a daemon has held."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"script": "../SKILL.md"}, "script"),
        ({"script": "/etc/passwd"}, "script"),
        ({"script": "a\0b"}, "script"),
        ({"script": "-rf"}, "script"),
        ({"script": "a//b"}, "script"),
        ({"script": "a\nb"}, "script"),
        ({"script": "x" * 300}, "script"),
        ({"script": ""}, "script"),
        ({"args": ["a\0"]}, "args"),
        ({"args": ["x"] * 257}, "args"),
        ({"args": ["x" * 140_000]}, "args"),
        ({"args": [1]}, "args"),
        ({"env": {"LD_PRELOAD": "/skill/evil.so"}}, "env"),
        ({"env": {"GCONV_PATH": "/skill"}}, "env"),
        ({"env": {"OPENSSL_CONF": "/skill/evil.cnf"}}, "env"),
        ({"env": {"LOCPATH": "/skill"}}, "env"),
        ({"env": {"PATH": "/x"}}, "env"),
        ({"env": {"DSTACK_AGENT_ADDRESS": "x"}}, "env"),
        ({"env": {"A=B": "x"}}, "env"),
        ({"env": {"": "x"}}, "env"),
        ({"env": {"A": "\0"}}, "env"),
        ({"env": {"A": "x" * 40_000}}, "env"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": 600_001}, "timeout_ms"),
        ({"stdin": {"base64": "!"}}, "stdin"),
        ({"sandbox": "none"}, "sandbox"),
        ({"backend": "none"}, "backend"),
    ],
)
def test_params_that_break_a_rule(running: Daemon, params: dict[str, Any], field: str) -> None:
    """The field is named, and nothing runs."""
    error = running.error("skills.execute_script", **{"name": "demo", "script": "all.py", **params})
    assert (error["code"], error["data"]["field"]) == (-32602, field)


def test_scripts_that_do_not_run(running: Daemon, work: Path) -> None:
    """What is no plain file of the skill is not found; what nothing runs, or lacks its packages, is said to."""
    scripts = work / "demo/scripts"
    script(work, "real.sh", "echo real\n")
    (scripts / "link.sh").symlink_to("real.sh")
    (scripts / "out").symlink_to("/usr/bin")
    os.mkfifo(scripts / "fifo.sh")
    for name in ("none.sh", "link.sh", "out/env", "fifo.sh", "out"):
        error = running.error("skills.execute_script", name="demo", script=name)
        assert (error["code"], error["data"]["path"]) == (-32004, f"scripts/{name}"), name
    script(work, "what.xyz", "?\n")
    error = running.error("skills.execute_script", name="demo", script="what.xyz")
    assert (error["code"], error["data"]["interpreter"]) == (-32021, None)
    script(work, "ruby-ish", "#!/usr/bin/env fish\n")
    error = running.error("skills.execute_script", name="demo", script="ruby-ish")
    assert (error["code"], error["data"]["interpreter"]) == (-32021, "fish")
    script(work, "deps.py", '# /// script\n# dependencies = ["requests<3", "rich"]\n# ///\nprint()\n')
    error = running.error("skills.execute_script", name="demo", script="deps.py")
    assert (error["code"], error["data"]["dependencies"]) == (-32022, ["requests<3", "rich"])
    assert running.error("skills.execute_script", name="nope", script="a.sh")["code"] == -32001
    assert running.error("skills.execute_script", name="demo", script="real.sh", receipt=True)["code"] == -32030


def test_a_script_that_was_just_saved_runs(running: Daemon, work: Path) -> None:
    """What runs is what lies on the disk, and what the registry knows of it."""
    for number in range(3):
        script(work, "saved.sh", f"echo {number}\n")
        assert run(running, "saved.sh")["stdout"] == f"{number}\n"


def test_a_run_sees_one_state(running: Daemon, work: Path) -> None:
    """A change of several files swaps the directory; a script that runs goes on in the old one, which goes after it."""
    save(work / "swap", "Is changed")
    script(work, "data.txt", "old data\n", "swap")
    (work / "swap/references").mkdir()
    (work / "swap/references/r.md").write_text("old reference\n")
    script(
        work,
        "main.py",
        "import sys, time\nprint('up', flush=True)\ntime.sleep(0.4)\n"
        "print(open('scripts/data.txt').read(), open('references/r.md').read())\n",
        "swap",
    )
    running.call("skills.get", name="swap", sync_timeout_ms=20_000)
    with contextlib.closing(running.lines()) as lines:
        params = {"name": "swap", "script": "main.py", "stream": True}
        lines.send(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "skills.execute_script", "params": params}).encode()
            + b"\n"
        )
        assert lines.receive()["params"]["data"] == "up\n"
        running.call(
            "skills.update", name="swap", scripts={"data.txt": "new data\n"}, references={"r.md": "new reference\n"}
        )
        assert (work / "swap/scripts/data.txt").read_text() == "new data\n"
        while "result" not in (message := lines.receive()):
            pass
    assert message["result"]["stdout"] == "up\nold data\n old reference\n\n"
    until(lambda: not [name for name in os.listdir(work) if name.startswith(".skilld-staged-")])
    result = running.call("skills.execute_script", name="swap", script="main.py")
    assert result["stdout"] == "up\nnew data\n new reference\n\n"


def test_runs_while_the_skill_is_swapped(running: Daemon, work: Path) -> None:
    """Other files of the skill are changed again and again, its directory swapped each time: every run is one."""
    save(work / "swapped", "Is changed all the time")
    script(work, "run.sh", "echo ran\n", "swapped")
    running.call("skills.list", sync_timeout_ms=20_000)
    is_done = threading.Event()
    swaps: list[str] = []

    def swap() -> None:
        while not is_done.wait(0.005):
            text = str(len(swaps))
            swaps.append(running.call("skills.update", name="swapped", references={"a": text, "b": text})["digest"])

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(60):
            assert running.call("skills.execute_script", name="swapped", script="run.sh")["stdout"] == "ran\n"
    finally:
        is_done.set()
        swapper.join()
    assert len(set(swaps)) > 10


def test_explain(running: Daemon, work: Path) -> None:
    """The plan is told without running anything."""
    script(work, "plan.sh", 'touch "$HOME/ran"\n')
    plan = running.call("skills.execute_script", name="demo", script="plan.sh", args=["-x"], explain=True)["plan"]
    assert plan["argv"][-1] == "-x"
    assert plan["seccomp"]
    assert plan["rlimits"]["NPROC"] == 64


def test_the_command(running: Daemon, work: Path) -> None:
    """``skilld run`` passes streams and exit code through; what follows the script is the script's."""
    script(work, "cli.sh", 'cat; echo "$@" >&2; exit 4\n')
    command = [sys.executable, "-m", "skilld", "--endpoint", str(running.socket_path), "run"]
    done = subprocess.run(
        [*command, "-i", "demo", "cli.sh", "--json", "-e"], input=b"in\xff\n", capture_output=True, timeout=20
    )
    assert (done.returncode, done.stdout, done.stderr) == (4, b"in\xff\n", b"--json -e\n")
    done = subprocess.run([*command, "--json", "demo", "cli.sh"], capture_output=True, timeout=20)
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (4, 4)


def test_many_runs_wait_in_turns(root: Path, short_dir: Path) -> None:
    """A bounded number at a time; a full waiting room answers busy; at the end who waits is told."""
    save(root / "demo", "Runs")
    script(root, "slow.sh", "sleep 30\n")
    script(root, "fast.sh", "exit 0\n")
    daemon = Daemon([root], short_dir, execution_max_concurrent=1, execution_max_queued=2)
    try:
        assert run(daemon, "fast.sh")["exit_code"] == 0
        with contextlib.closing(daemon.lines()) as lines:
            for id in range(4):
                params = {"name": "demo", "script": "slow.sh"}
                lines.send(
                    json.dumps(
                        {"jsonrpc": "2.0", "id": id, "method": "skills.execute_script", "params": params}
                    ).encode()
                    + b"\n"
                )
            reply = lines.receive()
            assert (reply["error"]["code"], reply["error"]["data"]["retry_after_s"]) == (-32040, 1.0)
            sandbox = daemon.call("skilld.status")["sandbox"]
            assert (sandbox["running"], sandbox["queued"]) == (1, 2)
            daemon.process.send_signal(signal.SIGTERM)
            assert {lines.receive()["error"]["code"] for _ in range(2)} == {-32043}
        # The one that runs ends with its caller.
        assert daemon.stop() == 0
    finally:
        daemon.stop()


def test_scripts_can_be_switched_off(root: Path, short_dir: Path) -> None:
    """Then the daemon serves everything else."""
    save(root / "demo", "Runs")
    script(root, "a.sh", "exit 0\n")
    daemon = Daemon([root], short_dir, execution_enabled="false")
    try:
        error = daemon.error("skills.execute_script", name="demo", script="a.sh")
        assert (error["code"], error["data"]["reason"]) == (-32020, "sandbox-unavailable")
        assert daemon.call("skilld.status")["sandbox"]["state"] == "disabled"
    finally:
        daemon.stop()
