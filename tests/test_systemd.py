"""What systemd passes to the daemon and is told by it, with real descriptors and a real notification socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skilld import systemd
from skilld.systemd import notify, take_socket, watchdog_interval_s

PACKAGE_DIR = Path(systemd.__file__).parents[1]

# Puts what it was given at descriptor 3 and up, as systemd does, and tells what take_socket made of it.
CHILD = """
import fcntl, json, os, sys
given, environ = json.loads(sys.argv[1])
high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in given]
for number, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + number)
from skilld.systemd import take_socket
environ = {key: value.replace("PID", str(os.getpid())) for key, value in environ.items()}
try:
    taken = take_socket(environ, os.getpid())
except ValueError as exc:
    result = str(exc)
else:
    result = None
    if taken:
        result = [taken.fileno(), taken.getsockname(), os.get_inheritable(taken.fileno())]
        taken.close()
print(json.dumps([result, environ]))
"""


class Passed:
    """Sockets and files to pass, by kind."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self.count = 0

    def descriptor(self, kind: str) -> int:
        if kind == "file":
            return self.stack.enter_context(open(self.directory / "file", "w")).fileno()
        family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
        style = socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM
        made = self.stack.enter_context(socket.socket(family, style))
        addresses: dict[str, Any] = {"tcp": ("127.0.0.1", 0), "abstract": f"\0{self.directory}"}
        made.bind(addresses.get(kind, str(self.directory / f"{self.count}.sock")))
        self.count += 1
        if kind in ("listening", "tcp", "abstract"):
            made.listen()
        return made.fileno()


@pytest.fixture
def passed(tmp_path: Path) -> Iterator[Passed]:
    with contextlib.ExitStack() as stack:
        yield Passed(tmp_path, stack)


def take_in_child(descriptors: list[int], environ: dict[str, str]) -> tuple[object, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, json.dumps([descriptors, environ])],
        cwd=PACKAGE_DIR,
        pass_fds=descriptors,
        check=True,
        capture_output=True,
        timeout=30,
    )
    assert done.stderr == b""
    result, left = json.loads(done.stdout)
    return result, left


@pytest.mark.parametrize(
    ("kinds", "names", "index"),
    [
        (["listening"], "rpc", 0),
        (["listening"], "", 0),
        (["listening"], "skilld.socket", 0),
        (["tcp", "listening"], "http:rpc", 1),
        (["listening", "tcp"], "rpc:http", 0),
        (["listening", "listening"], "a:b", 0),
        (["listening"], "other:rpc", 0),
    ],
)
def test_the_socket_named_rpc_is_taken_else_the_first(
    passed: Passed, tmp_path: Path, kinds: list[str], names: str, index: int
) -> None:
    """Names beyond the passed descriptors do not count; what is taken is not inherited further."""
    descriptors = [passed.descriptor(kind) for kind in kinds]
    environ = {"LISTEN_PID": "PID", "LISTEN_FDS": str(len(kinds)), "LISTEN_FDNAMES": names, "HOME": "/"}
    path = str(tmp_path / f"{index}.sock")
    assert take_in_child(descriptors, environ) == ([3 + index, path, False], {"HOME": "/"})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bound", "descriptor 3 from LISTEN_FDS is no listening Unix stream socket"),
        ("datagram", "descriptor 3 from LISTEN_FDS is no listening Unix stream socket"),
        ("tcp", "descriptor 3 from LISTEN_FDS is no listening Unix stream socket"),
        ("abstract", "descriptor 3 from LISTEN_FDS is bound to no path"),
        ("file", "descriptor 3 from LISTEN_FDS is no socket: Socket operation on non-socket"),
        (None, "descriptor 3 from LISTEN_FDS is no socket: Bad file descriptor"),
    ],
)
def test_a_descriptor_of_another_kind_is_an_error(passed: Passed, kind: str | None, expected: str) -> None:
    """A unit file with a mistake is reported, not served."""
    descriptors = [passed.descriptor(kind)] if kind else []
    environ = {"LISTEN_PID": "PID", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "rpc"}
    assert take_in_child(descriptors, environ) == (expected, {})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "42", "LISTEN_FDS": ""},
        {"LISTEN_PID": "42", "LISTEN_FDS": "0"},
        {"LISTEN_PID": "42", "LISTEN_FDS": "-1"},
        {"LISTEN_PID": "42", "LISTEN_FDS": "1.0"},
        {"LISTEN_PID": "42 ", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "rpc"},
    ],
)
def test_what_is_meant_for_another_process_is_left_alone(environ: dict[str, str]) -> None:
    """Another pid, or no descriptors, is no socket; the variables go all the same, so that no child takes them."""
    assert take_socket(environ, 42) is None
    assert environ == {}


@pytest.mark.parametrize("prefix", ["", "@"], ids=["path", "abstract"])
def test_systemd_is_told_in_one_datagram(tmp_path: Path, prefix: str) -> None:
    """Both kinds of address work, and several states travel together."""
    name = f"{prefix}{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemds_end:
        systemds_end.bind(name.replace("@", "\0"))
        assert notify({"NOTIFY_SOCKET": name}, "READY=1\nSTATUS=größer")
        assert systemds_end.recv(4_096) == "READY=1\nSTATUS=größer".encode()


@pytest.mark.parametrize(
    "address", ["", "/nowhere/notify", "@nobody-listens-here", "vsock:2:1234", "x" * 200, "@" + "x" * 200]
)
def test_nobody_to_tell_is_no_error(address: str) -> None:
    """A missing, dead or foreign address is answered False."""
    assert notify({"NOTIFY_SOCKET": address}, "READY=1") is False
    assert notify({}, "READY=1") is False


def test_a_supervisor_that_does_not_read_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the queue of the notification socket full, the daemon gives up after a moment."""
    monkeypatch.setattr(systemd, "NOTIFY_TIMEOUT_S", 0.01)
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(name)
        told = 0
        while notify({"NOTIFY_SOCKET": name}, "WATCHDOG=1"):
            told += 1
        assert told > 0
        assert deaf.recv(4_096) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_asked(environ: dict[str, str], expected: float | None) -> None:
    """Half of WATCHDOG_USEC, if it is meant for this process."""
    assert watchdog_interval_s(environ, 42) == expected


def test_the_environment_of_the_process_is_not_read_behind_the_callers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the mapping that is passed counts."""
    for key, value in {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "WATCHDOG_USEC": "10"}.items():
        monkeypatch.setenv(key, value)
    assert (take_socket({}, os.getpid()), watchdog_interval_s({}, os.getpid())) == (None, None)
