"""Which paths of the host scripts may be shown."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skilld.scripts.host import check_shown, find_program, read_host


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory outside /tmp, which the sandbox has for itself."""
    path = Path(tempfile.mkdtemp(prefix="skilld-", dir="/var/tmp"))
    yield path.resolve()
    shutil.rmtree(path)


def refusals(*paths: Path | str, private: tuple[str, ...] = ()) -> list[str]:
    return list(check_shown([str(path) for path in paths], private))


@pytest.mark.parametrize(
    "path", ["/", "/run", "/var/run", "/proc", "/proc/1", "/sys", "/dev", "/dev/shm", "/etc", "/root", "/var", "/tmp",
             "/tmp/x", "/usr", "/usr/lib", "/skill", "relative", "/a/../b", "//run", "/nowhere", "/run/dstack.sock", ""]
)  # fmt: skip
def test_paths_that_are_never_shown(path: str) -> None:
    """The kernel's, the services', the sandbox's own, and what is no plain path."""
    (why,) = refusals(path)
    assert why.startswith(repr(path))


def test_the_daemons_own(directory: Path) -> None:
    """A root, or what holds or lies in one."""
    root = directory / "skills"
    (root / "pdf").mkdir(parents=True)
    (directory / "data").mkdir()
    for path in (directory, root, root / "pdf"):
        assert refusals(path, private=(str(root),)) == [f"{str(path)!r} would show {root}"]
    assert refusals(directory / "data", private=(str(root),)) == []


def test_what_speaks_to_somebody(directory: Path) -> None:
    """A socket or a FIFO however deep; a link in place of a directory; one directory in another."""
    (directory / "a/b").mkdir(parents=True)
    assert refusals(directory / "a") == []
    assert len(refusals(directory / "a", directory / "a/b")) == 2
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "a/b/s"))
    assert refusals(directory / "a") == [f"{str(directory / 'a')!r} holds a socket: {directory / 'a/b/s'}"]
    assert len(refusals(directory / "a/b/s")) == 1
    (directory / "link").symlink_to("a")
    assert "symbolic link" in refusals(directory / "link")[0]
    (directory / "c").mkdir()
    os.mkfifo(directory / "c/fifo")
    assert "holds a socket" in refusals(directory / "c")[0]


def test_programs_that_a_script_can_see(directory: Path) -> None:
    """By name in the usual places, or by a path that is shown."""
    assert find_program("sh", ()) in ("/usr/bin/sh", "/bin/sh")
    assert find_program("no-such-program", ()) is None
    program = directory / "tool"
    program.write_text("#!/bin/sh\n")
    assert find_program(str(program), (str(directory),)) is None
    program.chmod(0o755)
    assert find_program(str(program), (str(directory),)) == str(program)
    assert find_program(str(program), ()) is None
    (directory / "sh").symlink_to("/bin/sh")
    assert find_program(str(directory / "sh"), (str(directory),)) == str(directory / "sh")


def test_the_host_is_read() -> None:
    """Every top-level directory of the system is a link or a directory, not both."""
    host = read_host()
    assert {path for path, _ in host.links}.isdisjoint(host.dirs)
    assert "/proc/keys" in host.masked or not os.path.exists("/proc/keys")
