"""
The attacks of the canary: each says whether it *succeeded*.

The text of this module runs inside a sandbox, as ``python3 -I -S -c TEXT ORDER``, so that it imports nothing of skilld;
the daemon runs some of the attacks outside as well, for an attack that fails there proves nothing inside.

Owns: nothing.

Source: the channels that a script must not have: the guest agent's socket, the daemon and its files, other hosts, the
kernel's rarer doors.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any


def _open_descriptors() -> list[int]:
    found = []
    for fd in range(3, 64):
        try:
            os.fstat(fd)
            found.append(fd)
        except OSError:
            continue
    return found


_INHERITED = _open_descriptors()
# After that, for newer ones of libffi, below ctypes, keep their own library open.
import ctypes  # noqa: E402

_AF_VSOCK = 40
_CLONE_NEWUSER = 0x10000000
# (x86_64, aarch64)
_UNSHARE, _ADD_KEY, _MOUNT, _IO_URING_SETUP = (272, 97), (248, 217), (165, 40), (425, 425)
_PTRACE = (101, 117)
_PTRACE_SEIZE = 0x4206
_PR_GET_NO_NEW_PRIVS = 39


def attacks(order: dict[str, Any]) -> dict[str, Callable[[], bool]]:
    """
    The attacks, by name. Each returns whether it succeeded, or raises OSError where it did not.

    Args:
        order: ``secret`` (a file, mode 0600), ``socket`` (a path), ``abstract`` (a name), ``port`` (TCP on loopback)
            and ``pid``, of the daemon; ``variables`` that may be in the environment.
    """
    pid = order["pid"]
    return {
        "read a secret file": lambda: bool(_read(order["secret"])),
        "write beside a secret file": lambda: _write(order["secret"] + ".new"),
        "write into the skill": lambda: _write("canary"),
        "connect to a socket": lambda: _connect(socket.AF_UNIX, order["socket"]),
        "connect to an abstract socket": lambda: _connect(socket.AF_UNIX, "\0" + order["abstract"]),
        "send to a socket": lambda: _redirect(order["socket"] + ".dgram"),
        "connect over TCP": lambda: _connect(socket.AF_INET, ("127.0.0.1", order["port"])),
        "make a UDP socket": lambda: _socket(socket.AF_INET, socket.SOCK_DGRAM),
        "make a vsock socket": lambda: _socket(_AF_VSOCK, socket.SOCK_STREAM),
        "make a netlink socket": lambda: _socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "read the daemon's environment": lambda: _read(f"/proc/{pid}/environ") is not None,
        # Their numbers alone, which root's script sees in the host's /proc, lead nowhere.
        "reach the daemon's files": lambda: bool(os.readlink(f"/proc/{pid}/fd/0")),
        "signal the daemon": lambda: _signal(pid),
        "read the daemon's limits": lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE) is not None,
        "trace the daemon": lambda: _call(_PTRACE, _PTRACE_SEIZE, pid, 0, 0),
        "set up io_uring": lambda: _call(_IO_URING_SETUP, 1, ctypes.create_string_buffer(256)),
        "add a key": lambda: _call(_ADD_KEY, b"user", b"canary", b"x", 1, -3),
        "make a user namespace": lambda: _call(_UNSHARE, _CLONE_NEWUSER),
        "mount": lambda: _call(_MOUNT, b"none", b"/tmp", b"tmpfs", 0, None),
        "gain privileges": lambda: ctypes.CDLL(None).prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1,
        "keep a capability": lambda: _has_capability(),
        "inherit a descriptor": lambda: bool(_INHERITED),
        "inherit a variable": lambda: bool(os.environ.keys() - set(order["variables"])),
    }


# What succeeds outside wherever it can succeed at all, and harms nobody.
CONTROLS = (
    "read a secret file",
    "write beside a secret file",
    "connect to a socket",
    "connect to an abstract socket",
    "send to a socket",
    "connect over TCP",
    "make a UDP socket",
    "signal the daemon",
    "read the daemon's limits",
)


def attempt(order: dict[str, Any], names: tuple[str, ...] = ()) -> dict[str, bool]:
    """Try some attacks, or all: which succeeded."""
    found = {}
    for name, attack in attacks(order).items():
        if not names or name in names:
            try:
                found[name] = bool(attack())
            except (OSError, ValueError):
                found[name] = False
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1)


def _write(path: str) -> bool:
    with open(path, "w"):
        pass
    os.unlink(path)
    return True


def _connect(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(1)
        one.connect(address)
    return True


def _socket(family: int, kind: int) -> bool:
    with socket.socket(family, kind):
        return True


def _redirect(path: str) -> bool:
    """Send from one end of a pair to somebody else."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.sendto(b"x", path)
    return True


def _call(numbers: tuple[int, int], *args: Any) -> bool:
    number = numbers[platform.machine() == "aarch64"]
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return bool(ctypes.CDLL(None).syscall(ctypes.c_long(number), *words) >= 0)


def _signal(pid: int) -> bool:
    os.kill(pid, 0)
    return True


def _has_capability() -> bool:
    header, sets = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    return ctypes.CDLL(None).capget(header, sets) != 0 or any(sets.raw)


if __name__ == "__main__":
    print(json.dumps(attempt(json.loads(sys.argv[1]))))
