"""The shipped units, as systemd's own tools see them. No root and no namespaces are needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.systemd.conftest import UNITS

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@pytest.fixture
def unit_dir(tmp_path: Path) -> Path:
    """The units where systemd finds them, with a program that is there and a docker.service for its drop-in."""
    for name in ("skilld.socket", "skilld.service"):
        text = (UNITS / name).read_text()
        (tmp_path / name).write_text(text.replace("ExecStart=skilld serve", "ExecStart=true"))
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=true\n")
    shutil.copytree(UNITS / "docker.service.d", tmp_path / "docker.service.d")
    return tmp_path


def add_drop_in(unit_dir: Path, path: str) -> None:
    target = unit_dir / path
    target.parent.mkdir(exist_ok=True)
    shutil.copy(UNITS / path, target)


@pytest.mark.parametrize("drop_in", ["", "skilld.service.d/hardened.conf", "skilld.socket.d/everybody.conf"])
def test_systemd_finds_nothing_to_say(unit_dir: Path, drop_in: str) -> None:
    """No key is unknown, no value is wrong: verify is silent."""
    if drop_in:
        add_drop_in(unit_dir, drop_in)
    units = [unit_dir / name for name in ("skilld.socket", "skilld.service", "docker.service")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout, done.returncode) == ("", "", 0)


@pytest.mark.parametrize(("drop_in", "limit"), [("", 3.0), ("skilld.service.d/hardened.conf", 1.5)])
def test_exposure(unit_dir: Path, drop_in: str, limit: float) -> None:
    """What systemd-analyze security gives: 0 is closed, 10 is open."""
    if drop_in:
        add_drop_in(unit_dir, drop_in)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={limit * 10:.0f}", unit_dir / "skilld.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    level = re.search(r"Overall exposure level for skilld\.service: ([0-9.]+)", done.stdout)
    assert level, done.stderr
    assert 0 < float(level[1]) <= limit
    assert done.returncode == 0


def test_a_change_for_the_worse_is_seen(unit_dir: Path) -> None:
    """Without its lines of hardening the unit is over the limit, and an unknown key is told."""
    service = unit_dir / "skilld.service"
    lines = service.read_text().splitlines()
    kept = [line for line in lines if not re.match(r"(Protect|Private|Restrict|SystemCall|Capability)", line)]
    service.write_text("\n".join([*kept, "[Service]", "NoSuchKey=yes"]))
    threshold = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(service)]
    assert subprocess.run(threshold, capture_output=True, check=False).returncode == 1
    verified = subprocess.run(["systemd-analyze", "verify", service], capture_output=True, text=True, check=False)
    assert "NoSuchKey" in verified.stderr


# What systemd 252, the oldest that the units are for, does not know: it would warn of it.
TOO_NEW = ("notify-reload", "RestartSteps=", "RestartMaxDelaySec=", "PollLimit", "DelegateSubgroup=", "OpenFile=", "%D")


@pytest.mark.parametrize(
    "path", sorted(path.relative_to(UNITS) for path in UNITS.rglob("*.*") if path.is_file()), ids=str
)
def test_no_file_asks_for_a_newer_systemd(path: Path) -> None:
    """Nothing that came after version 252 is used."""
    assert [word for word in TOO_NEW if word in (UNITS / path).read_text()] == []
