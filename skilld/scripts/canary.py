"""
The proof that a sandbox holds, made at start: the attacks fail inside it, and succeed outside.

A sandbox that silently does nothing is the usual way in which sandboxes fail. So before the first script runs, the
attacks of :mod:`skilld.scripts.probe` run in a sandbox made like any other, against targets that the daemon puts up for
the purpose; those that are harmless run outside as well, because an attack that fails there would fail anywhere.

Owns: the targets, while the canary lasts.

Source: SECURITY.md of bubblewrap: "the level of protection is entirely determined by the arguments".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skilld.scripts import probe
from skilld.scripts.plan import VARIABLES, Target
from skilld.scripts.runner import Bounds, Ended
from skilld.scripts.scratch import CANARY, fresh_directory
from skilld.scripts.started import SetupFailed

TIMEOUT_S = 20.0
# Without these two the canary could not fail.
_VITAL = ("read a secret file", "connect to a socket")

# Runs a target in the sandbox that is to be proved: its skill directory, its bounds, and a path to be shown.
RunTarget = Callable[[Target, str, Bounds, tuple[str, ...]], Awaitable[Ended]]


@dataclass(frozen=True)
class Verdict:
    """
    What the canary found.

    Attributes:
        checks: "blocked" or "open" by attack; "void" where it fails outside, too.
        reason: Why the sandbox must not be used; "" where it may.
    """

    checks: Mapping[str, str]
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the sandbox holds."""
        return not self.reason


def python() -> tuple[str, str]:
    """The daemon's own interpreter, and the directory that it needs to be shown where that is not the system's."""
    prefix = os.path.realpath(sys.base_prefix)
    program = os.path.realpath(sys.executable)
    return program, "" if prefix == "/usr" or prefix.startswith("/usr/") else prefix


async def prove(run: RunTarget, memory_bytes: int) -> Verdict:
    """
    Run the canary.

    Args:
        run: The sandbox.
        memory_bytes: What a run may hold.
    """
    with _targets() as (order, skill_dir):
        outside = await asyncio.to_thread(probe.attempt, order, probe.CONTROLS)
        if missing := [name for name in _VITAL if not outside[name]]:
            return Verdict({}, f"the canary cannot {missing[0]} outside the sandbox, so that it proves nothing inside")
        program, prefix = python()
        text = Path(probe.__file__).read_text()
        command = (program, "-I", "-S", "-c", text, json.dumps(order))
        target = Target("canary", "scripts/canary", command, timeout_s=TIMEOUT_S)
        try:
            bounds = Bounds(TIMEOUT_S, 1 << 16, memory_bytes, 64)
            ended = await run(target, skill_dir, bounds, (prefix,) if prefix else ())
        except SetupFailed as exc:
            return Verdict({}, str(exc))
    return judge(outside, ended)


def judge(outside: Mapping[str, bool], ended: Ended) -> Verdict:
    """What the canary's run says, given what the attacks did outside."""
    try:
        inside: Any = json.loads(ended.stdout.head)
        names = tuple(probe.attacks(dict.fromkeys(("secret", "socket", "abstract"), "") | {"pid": 0, "port": 0}))
        if ended.exit_code or inside.keys() != set(names):
            raise ValueError
    except (ValueError, AttributeError):
        said = (ended.stderr.tail or ended.stderr.head).decode(errors="replace").strip().splitlines()[-1:]
        return Verdict({}, f"the canary did not end well: exit code {ended.exit_code} {''.join(said)[:200]}".strip())
    checks = {
        name: "open" if inside[name] else "blocked" if outside.get(name, True) else "void" for name in sorted(names)
    }
    holes = [name for name, found in checks.items() if found == "open"]
    return Verdict(checks, f"a script could {', '.join(holes)}" if holes else "")


@contextlib.contextmanager
def _targets() -> Iterator[tuple[dict[str, Any], str]]:
    """What the attacks are aimed at, and the directory of a skill to run them in."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(fresh_directory(CANARY))
        skill_dir = f"{directory}/skill"
        os.mkdir(skill_dir)
        secret, path = f"{directory}/secret", f"{directory}/s"
        with open(os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write("secret")
        abstract = f"{CANARY}{secrets.token_hex(8)}"
        listeners = [
            (socket.AF_UNIX, socket.SOCK_STREAM, path),
            (socket.AF_UNIX, socket.SOCK_DGRAM, f"{path}.dgram"),
            (socket.AF_UNIX, socket.SOCK_STREAM, f"\0{abstract}"),
        ]
        for family, kind, address in listeners:
            one = stack.enter_context(socket.socket(family, kind))
            one.bind(address)
            if kind == socket.SOCK_STREAM:
                one.listen()
        for name in (path, f"{path}.dgram"):
            os.chmod(name, 0o777)  # noqa: S103 - as the guest agent's
        port = 0
        with contextlib.suppress(OSError):  # a host without loopback
            tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            tcp.bind(("127.0.0.1", 0))
            tcp.listen()
            port = tcp.getsockname()[1]
        order = {
            "secret": secret,
            "socket": path,
            "abstract": abstract,
            "port": port,
            "pid": os.getpid(),
            "variables": list(VARIABLES),
        }
        yield order, skill_dir
