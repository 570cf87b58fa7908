"""Attacks by callers and by those who write skills, on a real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import Daemon, save
from tests.functional.test_execute_script import processes_named, script, until
from tests.redteam.rungs import RUNGS, SHARED_PROC, why_not


@pytest.fixture(scope="module", params=[rung for rung in RUNGS if rung != SHARED_PROC])
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon on one rung."""
    if why := why_not(request.param):
        pytest.skip(f"SANDBOX MISSING: {request.param}: {why}")
    directory = tmp_path_factory.mktemp("r")
    root = directory / "skills"
    save(root / "demo", "Runs")
    running = Daemon([root], directory, execution_backend=request.param)
    try:
        yield running
    finally:
        running.stop()


def start(daemon: Daemon, name: str, **params: Any) -> Any:
    """Send a request for a run, and return the connection; its output comes first."""
    lines = daemon.lines()
    params = {"name": "demo", "script": name, "stream": True, **params}
    request = {"jsonrpc": "2.0", "id": 1, "method": "skills.execute_script", "params": params}
    lines.send(json.dumps(request).encode() + b"\n")
    return lines


def run(daemon: Daemon, name: str, **params: Any) -> dict[str, Any]:
    result: dict[str, Any] = daemon.call("skills.execute_script", name="demo", script=name, **params)
    return result


def test_arguments_stay_arguments(daemon: Daemon) -> None:
    """Neither a shell nor bubblewrap takes them for anything else."""
    script(daemon.roots[0], "args.py", "import sys\nprint(sys.argv[1:])\n")
    given = ["--bind", "/", "/", "--args", "0", "--", "$(id)", "`id`", "; id", "*", "a\nb", "", "-c", "\u202e"]
    assert run(daemon, "args.py", args=given)["stdout"] == f"{given}\n"


def test_secrets_are_seen_by_the_script_alone(daemon: Daemon) -> None:
    """A variable's value stands in no command line of the machine, and neither it nor an argument in the log."""
    secret, argument = secrets.token_hex(16), secrets.token_hex(16)
    script(daemon.roots[0], "secret.py", "import os, sys\nprint(os.environ['TOKEN'], flush=True)\nsys.stdin.read()\n")
    with contextlib.closing(start(daemon, "secret.py", env={"TOKEN": secret}, args=[argument])) as lines:
        assert lines.receive()["params"]["data"] == f"{secret}\n"
        assert processes_named(secret) == []
        while "result" not in lines.receive():
            pass
    log = daemon.log_path.read_text()
    assert "ran scripts/secret.py" in log
    assert secret not in log and argument not in log


def test_runs_do_not_see_each_other(daemon: Daemon) -> None:
    """What one writes to its directories, another does not find in its own, nor beside them."""
    mark = f"mark{secrets.token_hex(8)}"
    script(
        daemon.roots[0],
        "leave.sh",
        'for d in "$HOME" "$TMPDIR" /tmp /dev/shm; do echo > "$d/$1"; done 2>/dev/null\necho up\nsleep 60\n',
    )
    script(
        daemon.roots[0],
        "look.sh",
        'ls -R "$HOME" "$HOME/.." "$TMPDIR" "$TMPDIR/.." /tmp /work /dev/shm 2>/dev/null\nexit 0\n',
    )
    with contextlib.closing(start(daemon, "leave.sh", args=[mark])) as lines:
        assert lines.receive()["params"]["data"] == "up\n"
        assert mark not in run(daemon, "look.sh")["stdout"]
        assert not [name for name in (*os.listdir("/tmp"), *os.listdir("/dev/shm")) if name == mark]


def test_who_writes_a_skill_has_no_say(daemon: Daemon) -> None:
    """Frontmatter that asks for less of a sandbox is text."""
    directory = daemon.roots[0] / "lax"
    save(directory, "Asks")
    text = (directory / "SKILL.md").read_text()
    wishes = "sandbox: none\nexecution:\n  backend: none\nnetwork: host\nmetadata:\n  sandbox: none\n"
    (directory / "SKILL.md").write_text(text.replace("---\n\n", f"{wishes}---\n\n"))
    script(daemon.roots[0], "who.sh", "exit 0\n", "lax")
    daemon.call("skills.get", name="lax", sync_timeout_ms=20_000)
    result = daemon.call("skills.execute_script", name="lax", script="who.sh")
    assert result["sandbox"]["backend"] == daemon.call("skilld.status")["sandbox"]["backend"] != "none"


def test_a_lookup_fails_at_once(daemon: Daemon) -> None:
    """A name of the network is not found, rather than waited for."""
    script(
        daemon.roots[0],
        "lookup.py",
        "import socket, time\nbegan = time.monotonic()\n"
        "try: socket.getaddrinfo('example.org', 443)\nexcept OSError: print(time.monotonic() - began < 3)\n",
    )
    assert run(daemon, "lookup.py")["stdout"] == "True\n"


@pytest.mark.parametrize("name", ["\u0455cripts/a.sh", "device", "hidden\u200b.sh", "scripts", "sub", "."])
def test_what_is_no_script(daemon: Daemon, name: str) -> None:
    """Look-alikes, devices and directories run nothing."""
    scripts = daemon.roots[0] / "demo/scripts"
    script(daemon.roots[0], "a.sh", "exit 0\n")
    (scripts / "sub").mkdir(exist_ok=True)
    if os.geteuid() == 0 and not (scripts / "device").exists():
        os.mknod(scripts / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert daemon.error("skills.execute_script", name="demo", script=name)["code"] in (-32004, -32602)


def test_peers_that_hang_up_at_once(daemon: Daemon) -> None:
    """Whatever state a run is in when its peer goes, nothing of it stays."""
    mark = f"77.{secrets.randbelow(10**9)}"
    script(daemon.roots[0], "long.sh", f"exec sleep {mark}\n")
    for _ in range(25):
        start(daemon, "long.sh").close()
    until(lambda: daemon.call("skilld.status")["sandbox"]["running"] == 0)
    until(lambda: not processes_named(mark))
    script(daemon.roots[0], "after.sh", "echo alive\n")
    assert run(daemon, "after.sh")["stdout"] == "alive\n"


def test_a_link_that_comes_and_goes(daemon: Daemon, tmp_path: Path) -> None:
    """However a script is swapped for a link out of its skill, what lies outside never runs."""
    scripts = daemon.roots[0] / "demo/scripts"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "raced.sh").write_text("echo outside\n")
    (outside / "deep").mkdir()
    (outside / "deep/raced.sh").write_text("echo outside\n")
    script(daemon.roots[0], "deep/raced.sh", "echo inside\n")
    script(daemon.roots[0], "raced.sh", "echo inside\n")
    over = threading.Event()

    def swap() -> None:
        number = 0
        while not over.is_set():
            number += 1
            for name in ("raced.sh", "deep"):
                spare = scripts / f".spare-{number}"
                spare.symlink_to(outside / name)
                kept = scripts / f".kept-{number}"
                with contextlib.suppress(OSError):
                    os.rename(scripts / name, kept)
                    os.rename(spare, scripts / name)
                    os.unlink(scripts / name)
                    os.rename(kept, scripts / name)
                spare.unlink(missing_ok=True)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        replies = [
            daemon.request("skills.execute_script", {"name": "demo", "script": f"{folder}raced.sh"})
            for _ in range(15)
            for folder in ("", "deep/")
        ]
    finally:
        over.set()
        thread.join()
    said = {reply["result"]["stdout"] for reply in replies if "result" in reply}
    assert said <= {"inside\n", ""}, said
