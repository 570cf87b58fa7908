"""
Run attacks and say which succeeded: a script of a skill, and the same script unsandboxed for the positive control.

Standard input is the world as Python writes it: where everything is that the attacks reach for. The arguments name
attacks. Each
runs in a process of its own, and prints one line: ``{"attack", "open", "how"}``; ``open`` is None where this
kernel does not have what the attack uses.

Owns: nothing; uses only the standard library and the modules of attacks beside it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from tests.redteam import on_files, on_kernel, on_processes, on_resources, on_sockets
from tests.redteam.catalogue import CATALOGUE, inherited
from tests.redteam.kernel import Absent
from tests.redteam.needs import NEEDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Imported for what they enter into the catalogue.
MODULES = (on_sockets, on_processes, on_files, on_kernel, on_resources)

# Seconds for one attack; what blocks longer has failed.
ATTACK_S = 8.0


def main() -> None:
    """Run the attacks that the arguments name, one after the other."""
    world = eval(sys.stdin.read())
    for name in sys.argv[1:]:
        began = time.monotonic()
        outcome = run(name, world)
        print({"attack": name, **outcome, "took_s": round(time.monotonic() - began, 3)}, flush=True)


def run(name: str, world: dict[str, Any]) -> dict[str, Any]:
    """Run one attack in a child process; ``{"open", "how"}``."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setpgid(0, 0)
        os.write(writing, repr(_outcome(name, world)).encode())
        os._exit(0)
    os.close(writing)
    text = b""
    give_up = time.monotonic() + ATTACK_S
    while select.select([reading], [], [], max(0, give_up - time.monotonic()))[0] and (part := os.read(reading, 65536)):
        text += part
    os.close(reading)
    has_ended = bool(text) or time.monotonic() < give_up
    if not has_ended or text:
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if text:
        return dict(eval(text))
    if not has_ended:
        return {"open": False, "how": "blocks"}
    return {"open": False, "how": signal.Signals(-code).name if code < 0 else f"exit {code}"}


def _outcome(name: str, world: dict[str, Any]) -> dict[str, Any]:
    try:
        attempt = NEEDS[name] if name in NEEDS else CATALOGUE[name].attack
        return {"open": bool(attempt(world)), "how": ""}
    except Absent as exc:
        return {"open": None, "how": str(exc)}
    except BaseException as exc:  # whatever went wrong, the attack did
        return {"open": False, "how": f"{type(exc).__name__}: {exc}"}


if __name__ == "__main__":
    inherited()
    main()
