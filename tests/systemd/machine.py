"""
A real systemd that boots in half a second, in namespaces, and is gone with the test run.

Units of its own are all that it has: what it boots is no machine but a place for the units under test. Files are
those of this machine; what is written to them is forgotten. Root, cgroup2 and overlayfs are needed.

Owns: the process that holds the namespaces, and its cgroup.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")
BOOT = Path(__file__).with_name("boot.sh")
BOOT_TIMEOUT_S = 30.0
PATIENCE_S = 20.0

# Targets that units are ordered by, without what they do on a machine.
TARGETS = (
    *("basic", "sockets", "sysinit", "shutdown", "umount", "network", "local-fs", "swap", "timers", "paths", "slices"),
    *("cryptsetup", "integritysetup", "veritysetup", "local-fs-pre", "time-set"),
)
JOURNAL = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")


def why_not() -> str | None:
    """Return why no systemd can be booted here, or None."""
    if os.geteuid() != 0:
        return "not root"
    if not SYSTEMD.exists():
        return "systemd is not installed"
    if "\toverlay" not in Path("/proc/filesystems").read_text():
        return "no overlayfs"
    if _cgroup2() is None:
        return "no cgroup2"
    if missing := [tool for tool in ("unshare", "nsenter", "setpriv", "pivot_root") if shutil.which(tool) is None]:
        return f"no {', '.join(missing)} (util-linux)"
    kinds = ("--mount", "--pid", "--cgroup", "--ipc", "--uts", "--net")
    tried = subprocess.run(
        ["unshare", "--fork", *kinds, "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode else None


class Machine:
    """
    A booted systemd.

    Args:
        directory: Where to put what the boot needs.
        units: Unit files by name, beside stubs of the usual targets and the journal.
        shown: Directories of this machine, and where the booted one shows them.

    Attributes:
        pid: Its PID 1, as seen from here.
    """

    def __init__(self, directory: Path, units: Mapping[str, str], shown: Mapping[Path, Path]) -> None:
        unit_dir = directory / "units"
        wants = unit_dir / "sockets.target.wants"
        wants.mkdir(parents=True)
        (directory / "disk").mkdir()
        for target in TARGETS:
            (unit_dir / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        (unit_dir / "default.target").write_text("[Unit]\nRequires=basic.target sockets.target\nAfter=basic.target\n")
        (unit_dir / "multi-user.target").write_text("[Unit]\nRequires=basic.target\nAfter=basic.target\n")
        for name in JOURNAL:
            shutil.copy(SYSTEMD.parent / "system" / name, unit_dir)
            if name.endswith(".socket"):
                (wants / name).symlink_to(f"../{name}")
        for name, text in units.items():
            (unit_dir / name).write_text(text)
        mount = _cgroup2()
        assert mount is not None
        self._cgroup = mount / f"skilld-test-{os.getpid()}"
        self._cgroup.mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            ear.bind(str(directory / "notify"))
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            # If the test run is killed, so is the machine.
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "sh", BOOT, self._cgroup, directory),
                    *(f"{here}:{there}" for here, there in shown.items()),
                ],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                self.pid = self._wait_until_booted(ear)
            except BaseException:
                self.close()
                raise

    def _wait_until_booted(self, ear: socket.socket) -> int:
        """Return the pid of the systemd that says that it is ready, as seen from here."""
        ear.settimeout(0.2)
        end = time.monotonic() + BOOT_TIMEOUT_S
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(TimeoutError):
                text, ancillary, _, _ = ear.recvmsg(4_096, socket.CMSG_SPACE(12))
                if b"READY=1" in text.split(b"\n"):
                    pid, _, _ = struct.unpack("=iII", ancillary[0][2])
                    return int(pid)
        raise RuntimeError("systemd did not boot; what it said is on standard error")

    def close(self) -> None:
        """End it with all its processes."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        end = time.monotonic() + PATIENCE_S
        while self._cgroup.exists() and time.monotonic() < end:
            for directory, _, _ in os.walk(self._cgroup, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
            time.sleep(0.005)

    def path(self, inside: str) -> Path:
        """Where a path of the machine is from here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def run(self, *command: str | Path, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root."""
        entered = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup"]
        done = subprocess.run(
            [*entered, "--root", "--wd", *command],
            capture_output=True, text=True, check=False, input=stdin, timeout=BOOT_TIMEOUT_S + PATIENCE_S,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """Run systemctl inside and return what it prints."""
        return self.run("systemctl", *arguments, check=check).stdout.strip()

    def show(self, unit: str, *names: str) -> list[str]:
        """Return properties of a unit."""
        text = self.systemctl("show", unit, *(f"--property={name}" for name in names))
        found = dict(line.split("=", 1) for line in text.splitlines())
        return [found[name] for name in names]

    def pids(self, unit: str) -> list[int]:
        """The processes of a service now, as seen from here."""
        try:
            return [
                int(pid) for pid in self.path(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs").read_text().split()
            ]
        except OSError:  # gone, or going at this moment
            return []

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file, making its directory."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)


def _cgroup2() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None
