"""skilld.service and skilld.socket in a booted machine, and plain ways to use them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from tests.functional.conftest import Lines, save
from tests.systemd.machine import PATIENCE_S, Machine

SOCKET = "/run/skilld.sock"
LIBRARY = "/var/lib/skilld/skills"
PROBE_OUTPUT = "/run/probe.out"
DROP_INS = ("skilld.service.d", "skilld.socket.d")


class Service:
    """
    The daemon under its shipped units.

    Attributes:
        machine: Where it runs.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._changed_units = False

    @property
    def socket_path(self) -> Path:
        """The socket, as seen from here."""
        return self.machine.path(SOCKET)

    @property
    def state(self) -> str:
        """The state of the service: active, activating, failed..."""
        return self.machine.show("skilld.service", "ActiveState")[0]

    def start(self) -> None:
        """Have socket and service running."""
        self.machine.systemctl("start", "skilld.socket", "skilld.service")

    def stop(self) -> None:
        """End the service; the socket stays."""
        self.machine.systemctl("stop", "skilld.service")

    def drop_in(self, unit: str, text: str) -> None:
        """Add a drop-in to "skilld.service" or "skilld.socket"; it counts from the unit's next start on."""
        self._changed_units = True
        self.machine.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
        self.machine.systemctl("daemon-reload")

    def reset(self) -> None:
        """Take away what a test added."""
        shutil.rmtree(self.machine.path(LIBRARY), ignore_errors=True)
        self.machine.run("install", "-d", "-o", "skilld", "-g", "skilld", LIBRARY)
        if self._changed_units:
            for directory in DROP_INS:
                shutil.rmtree(self.machine.path(f"/etc/systemd/system/{directory}"), ignore_errors=True)
            self.machine.systemctl("daemon-reload")
            self.machine.systemctl("stop", "skilld.service", "skilld.socket")
        self.machine.systemctl("reset-failed")

    def save(self, id: str, description: str) -> None:
        """Save a SKILL.md by hand."""
        save(self.machine.path(f"{LIBRARY}/{id}"), description)

    def lines(self) -> Lines:
        """A new connection of JSON lines."""
        return Lines(self.socket_path)

    def call(self, method: str, **params: Any) -> Any:
        """The result of one call on a connection of its own; an error fails the test."""
        with contextlib.closing(self.lines()) as lines:
            reply = lines.request(method, params)
        assert "result" in reply, reply
        return reply["result"]

    def run_in_its_place(self, script: str, drop_in: str = "") -> str:
        """Run a shell script in place of the daemon, with all that the shipped unit allows; what it prints."""
        text = self.machine.path("/etc/systemd/system/skilld.service").read_text()
        for there, instead in (
            ("Type=notify", "Type=oneshot"),
            ("ExecStart=skilld serve", "ExecStart=sh /opt/probe.sh"),
            ("Restart=always", f"Restart=no\nStandardOutput=truncate:{PROBE_OUTPUT}\nStandardError=inherit"),
            ("WatchdogSec=30s", ""),
        ):
            assert text.count(there) == 1
            text = text.replace(there, instead)
        self.machine.write("/opt/probe.sh", script)
        self.machine.write("/run/units/skilld-probe.service", f"{text}\n{drop_in}")
        self.machine.systemctl("daemon-reload")
        done = self.machine.run("systemctl", "start", "skilld-probe.service", check=False)
        output = self.machine.path(PROBE_OUTPUT).read_text()
        assert done.returncode == 0, output + self.machine.systemctl("status", "skilld-probe.service", check=False)
        return output

    def main_pid(self) -> int:
        """The daemon, as seen from here; waits until there is one."""
        end = time.monotonic() + PATIENCE_S
        while not (pids := self.machine.pids("skilld.service")):
            assert time.monotonic() < end, self.machine.systemctl("status", "skilld.service", check=False)
            time.sleep(0.002)
        return pids[0]

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send the daemon a signal; its pid."""
        pid = self.main_pid()
        os.kill(pid, number)
        return pid

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The records of the daemon that match, such as ``PRIORITY=4``, oldest first."""
        self.machine.run("journalctl", "--sync")
        text = self.machine.run(
            "journalctl", "--output=json", "--unit=skilld.service", "--no-pager", *matches, check=False
        ).stdout
        return [json.loads(line) for line in text.splitlines()]
