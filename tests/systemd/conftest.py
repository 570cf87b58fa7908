"""One booted systemd with skilld installed as the README says, shared by all tests here."""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import Machine, why_not
from tests.systemd.service import Service

CHECKOUT = Path(__file__).parent.parent.parent
UNITS = CHECKOUT / "systemd"

# Where the booted machine has what runs the daemon; the homes of this one are closed to services.
SOURCE, PACKAGES, PREFIX = Path("/opt/skilld/source"), Path("/opt/skilld/packages"), Path("/opt/skilld/python")
# This Python, by a shell script that finds it and its library there.
PYTHON = "/usr/local/bin/this-python"

# What the guest agent of dstack is to its clients: a socket that everybody may open, and an answer.
AGENT = """
import socket
listener = socket.socket(fileno=3)
while True:
    peer, _ = listener.accept()
    with peer:
        peer.recv(65536)
        head = b"HTTP/1.1 200 OK\\r\\nContent-Length: 20\\r\\nConnection: close\\r\\n\\r\\n"
        peer.sendall(head + b'{"version": "0.5.9"}')
"""


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A booted systemd in which the README's commands have been run."""
    if reason := why_not():
        pytest.skip(f"no systemd can be booted here: {reason}")
    shown = {CHECKOUT: SOURCE, Path(sysconfig.get_path("purelib")): PACKAGES}
    executable = Path(sys.executable).resolve()
    if not executable.is_relative_to("/usr"):
        shown[Path(sys.base_prefix)] = PREFIX
        executable = PREFIX / executable.relative_to(sys.base_prefix)
    units = {
        "dstack-guest-agent.socket": "[Socket]\nListenStream=/run/dstack.sock\nSocketMode=0777\n",
        "dstack-guest-agent.service": (
            "[Unit]\nRequires=dstack-guest-agent.socket\nAfter=dstack-guest-agent.socket\n"
            f"[Service]\nExecStart={PYTHON} /opt/agent.py\n"
        ),
        # It notes what it finds when its turn comes.
        "docker.service": (
            "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
            "ExecStart=sh -c 'stat -c %%F /run/skilld.sock >/run/docker-found; "
            "systemctl is-active skilld.service >>/run/docker-found || true'\n"
        ),
    }
    directory = Path(tempfile.mkdtemp(prefix="skilld-systemd-"))
    booted = Machine(directory, units, shown)
    try:
        booted.write(PYTHON, f'#!/bin/sh\nLD_LIBRARY_PATH={PREFIX}/lib exec {executable} "$@"\n', 0o755)
        launcher = f'#!/bin/sh\nPYTHONPATH={SOURCE}:{PACKAGES} exec {PYTHON} -m skilld "$@"\n'
        booted.write("/usr/local/bin/skilld", launcher, 0o755)
        booted.write("/opt/agent.py", AGENT)
        readme = (CHECKOUT / "README.md").read_text()
        commands = re.search(r"<!-- installing the units -->\n```sh\n(.*?)```", readme, re.DOTALL)
        assert commands
        booted.run("bash", "-euc", f"cd {SOURCE}\n{commands[1]}")
        yield booted
    finally:
        booted.close()
        shutil.rmtree(directory)


@pytest.fixture
def service(machine: Machine) -> Iterator[Service]:
    """The installed daemon, running; without a test's drop-ins and skills afterwards."""
    made = Service(machine)
    made.start()
    try:
        yield made
    finally:
        made.reset()
