"""A daemon that is given its socket, and tells whoever gave it how it does: what systemd and it say to each other."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import Lines, save

# What systemd does between fork and exec: the socket is descriptor 3, and only the process itself knows its pid.
LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="rpc")
os.execv(sys.executable, [sys.executable, "-m", "skilld", "serve", *sys.argv[2:]])
"""


class Supervisor:
    """What systemd is to the daemon: the owner of its socket, and the ear for its states."""

    def __init__(self, directory: Path, root: Path, **environ: str) -> None:
        self.path = directory / "s"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.path))
        self.socket.listen()
        self.ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ear.bind(str(directory / "n"))
        self.ear.settimeout(20)
        self.log_path = directory / "log"
        self.config = directory / "skilld.yaml"
        self.config.write_text(f"skills_dir: {root}\ncache_dir: none\n")
        environ |= {"NOTIFY_SOCKET": str(directory / "n")}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(self.socket.fileno()), "--config", self.config],
                env=os.environ | environ, pass_fds=[self.socket.fileno()], stdin=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    def hear(self) -> list[str]:
        """The next states that come together."""
        return self.ear.recv(4_096).decode().split("\n")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.socket.close()
        self.ear.close()


@pytest.fixture
def supervisor(short_dir: Path, root: Path, request: pytest.FixtureRequest) -> Iterator[Supervisor]:
    made = Supervisor(short_dir, root, **getattr(request, "param", {}))
    try:
        yield made
    finally:
        made.close()


def test_every_state_is_told(supervisor: Supervisor, root: Path) -> None:
    """Ready after the scan, reloading until the next scan is done, stopping; the socket stays who gave it."""
    inode = supervisor.path.stat().st_ino
    with contextlib.closing(Lines(supervisor.path)) as lines:
        assert supervisor.hear() == ["READY=1"]
        assert lines.request("skilld.ping", {})["result"] == {}
        save(root / "pdf", "x")
        supervisor.process.send_signal(signal.SIGHUP)
        reloading, since = supervisor.hear()
        assert (reloading, since.partition("=")[0]) == ("RELOADING=1", "MONOTONIC_USEC")
        assert supervisor.hear() == ["READY=1"]
        assert [skill["id"] for skill in lines.request("skills.list", {})["result"]["skills"]] == ["pdf"]
    supervisor.config.write_text("no_such_key: 1\n")
    supervisor.process.send_signal(signal.SIGHUP)
    assert [supervisor.hear()[0], supervisor.hear()[0]] == ["RELOADING=1", "READY=1"]
    supervisor.process.send_signal(signal.SIGTERM)
    assert supervisor.hear() == ["STOPPING=1"]
    assert supervisor.process.wait(20) == 0
    assert supervisor.path.stat().st_ino == inode
    assert not (supervisor.path.parent / "s.lock").exists()
    assert "the configuration stays as it is" in supervisor.log_path.read_text()


@pytest.mark.parametrize("supervisor", [{"WATCHDOG_USEC": "100000"}], indirect=True)
def test_the_watchdog_is_fed_while_the_daemon_answers_itself(supervisor: Supervisor) -> None:
    """A sign of life comes again and again; once nobody accepts on the socket any more, none does."""
    assert supervisor.hear() == ["READY=1"]
    assert [supervisor.hear(), supervisor.hear()] == [["WATCHDOG=1"], ["WATCHDOG=1"]]
    # Another socket in the path's place, which nobody answers.
    supervisor.path.unlink()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(supervisor.path))
        deaf.listen()
        # Those from before may still be on their way; two intervals of silence are the end of them.
        supervisor.ear.settimeout(0.3)
        with pytest.raises(TimeoutError):
            for _ in range(10):
                supervisor.hear()
    assert "the self-probe failed" in supervisor.log_path.read_text()


@pytest.fixture
def large_root(root: Path) -> Path:
    """So many skills that their first scan takes a while."""
    for number in range(1_500):
        save(root / f"made-{number}", "x")
    return root


def test_a_reload_during_the_first_scan_is_not_ready_yet(large_root: Path, supervisor: Supervisor) -> None:
    """Ready is told once everything is known, whoever asks for what meanwhile."""
    with contextlib.closing(Lines(supervisor.path)) as lines:
        lines.request("skilld.ping", {})
        supervisor.process.send_signal(signal.SIGHUP)
        known: list[int] = []
        while len(known) < 2:
            if supervisor.hear() == ["READY=1"]:
                known.append(lines.request("skilld.status", {})["result"]["roots"][0]["skills"])
    assert known == [1_500, 1_500]
