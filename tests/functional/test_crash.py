"""A daemon that is killed at any moment loses no acknowledged write and leaves no half-written skill."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from skilld.skills.scanner import ScanLimits, scan
from tests.functional.conftest import Daemon

ROUNDS = 8
NAMES = [f"skill-{number}" for number in range(4)]
LIMITS = ScanLimits(1 << 20, 1_000, 1 << 24, 6, frozenset())


class Writer(threading.Thread):
    """Writes at random until the daemon goes, and remembers what each skill was and may have become."""

    def __init__(self, daemon: Daemon, seed: int, states: dict[str, set[str | None]]) -> None:
        super().__init__()
        self.daemon_path = daemon.socket_path
        self.chance = random.Random(seed)
        # By name, the versions that may be on the disk; None is no skill.
        self.states = states
        self.acknowledged = 0

    def run(self) -> None:
        try:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(20)
                peer.connect(str(self.daemon_path))
                with peer.makefile("rb") as stream:
                    while True:
                        self._write(peer, stream)
        except (OSError, ValueError):
            pass  # the daemon is gone

    def _write(self, peer: socket.socket, stream: Any) -> None:
        name = self.chance.choice(NAMES)
        version = f"v{self.chance.randrange(10**9)}"
        before = set(self.states[name])
        method, wanted = self.chance.choice(
            [
                ("skills.create", version),
                ("skills.update", version),
                ("skills.update", version),
                ("skills.delete", None),
            ]
        )
        params: dict[str, Any] = {"name": name}
        if wanted is not None:
            # Description, body and three files all say the version: half a write would show.
            files = {f"{number}.md": f"{wanted} " * 3_000 for number in range(3)}
            params |= {"description": wanted, "body": f"{wanted}\n", "references": files}
        self.states[name] = before | {wanted}
        peer.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
        reply = json.loads(stream.readline())
        self.states[name] = {wanted} if "result" in reply else before
        self.acknowledged += "result" in reply


def version_of(directory: Path) -> str | None:
    """The one version that a whole skill says everywhere; None where there is none."""
    if not directory.exists():
        return None
    text = (directory / "SKILL.md").read_text()
    version = text.partition("description: ")[2].split("\n")[0]
    assert text == f"---\nname: {directory.name}\ndescription: {version}\n---\n\n{version}\n"
    files = {path.relative_to(directory).as_posix(): path.read_text() for path in directory.rglob("*.md")}
    assert files == {"SKILL.md": text} | {f"references/{number}.md": f"{version} " * 3_000 for number in range(3)}
    return version


@pytest.mark.parametrize("seed", [1, 2])
def test_a_kill_at_any_moment(root: Path, short_dir: Path, seed: int) -> None:
    """After every kill each skill is one that was acknowledged or under way, whole; the next start leaves no litter."""
    chance = random.Random(seed)
    daemon = Daemon([root], short_dir)
    states: dict[str, set[str | None]] = {name: {None} for name in NAMES}
    acknowledged = 0
    try:
        for round_number in range(ROUNDS):
            daemon.call("skills.list")
            writer = Writer(daemon, seed * 1_000 + round_number, states)
            writer.start()
            time.sleep(chance.random() * 0.25)
            daemon.stop(signal.SIGKILL)
            writer.join()
            acknowledged += writer.acknowledged
            for name in NAMES:
                found = version_of(root / name)
                assert found in states[name], (name, found, states[name])
                states[name] = {found}
            daemon.start()
        served = {skill["id"]: skill["description"] for skill in daemon.call("skills.list")["skills"]}
        assert served == {name: next(iter(states[name])) for name in NAMES if states[name] != {None}}
        # One more write, so that the writing thread has cleaned up before it.
        daemon.call("skills.create", name="last", description="last", body="")
        assert sorted(os.listdir(root)) == sorted([*served, "last"])
        assert len(list(scan(str(root), "", {}, LIMITS))) == len(served) + 1
    finally:
        daemon.stop()
    assert acknowledged >= ROUNDS
