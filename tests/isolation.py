"""Running a piece of Python where the disk is another one, or as another user."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skilld.skills import renames

PROJECT_DIR = Path(__file__).parent.parent
NOBODY = 65_534


def run_with_mounts(mounts: str, code: str, directory: Path) -> str:
    """
    Run Python in a mount namespace of its own and return what it prints; skip the test where that is not allowed.

    Args:
        mounts: Shell commands; ``$D`` is the directory.
        code: Python; ``sys.argv[1]`` is the directory.
        directory: Where to mount.
    """
    shell = f'set -e\nD="$1"\n{textwrap.dedent(mounts)}\necho mounted >&2\nexec "$2" -c "$3" "$D"'
    command = ["unshare", "-m", "bash", "-c", shell, "bash", str(directory), sys.executable, textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT_DIR, timeout=120)
    if not done.stderr.startswith("mounted"):
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_nobody(function: Callable[[], Any]) -> Any:
    """Call a function as an unprivileged user, in a child process; its result as JSON carries it."""
    if os.geteuid() != 0:
        return function()
    reading, writing = os.pipe()
    child = _fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writing, json.dumps(function()).encode())
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    os.close(writing)
    with open(reading) as pipe:
        text = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(text)


def _fork() -> int:
    with warnings.catch_warnings():
        # From Python 3.12 on; the threads of others, such as numpy's, do nothing that the child needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


# What changes a disk, or waits for it.
STEPS = ("mkdir", "rename", "link", "symlink", "unlink", "rmdir", "fsync", "fchmod", "open")


def count_steps(monkeypatch: pytest.MonkeyPatch, on_step: Callable[[int, str], None]) -> None:
    """Call a function with the number and name of every step that the disk is asked to do, before it is done."""
    count = 0

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            on_step(count, name)
            return real(*args, **options)

        return step

    for name in STEPS:
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    monkeypatch.setattr(renames, "_renameat2", counted("renameat2", renames._renameat2))


def killed_at(step: int, function: Callable[[], Any]) -> bool:
    """Call a function in a child process that is gone before its n-th step; False where it has fewer."""
    child = _fork()
    if child == 0:

        def on_step(number: int, name: str) -> None:
            if number == step:
                os._exit(9)

        try:
            count_steps(pytest.MonkeyPatch(), on_step)
            function()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


# File systems: one that swaps; one without the flags of renameat2; one that moves no directory of a lower layer.
DISKS = ("swaps", "no flags", "layers")


def imitate(monkeypatch: pytest.MonkeyPatch, disk: str, lower: tuple[bytes, ...] = ()) -> None:
    """
    Make the disk behave as one of ``DISKS``.

    Args:
        monkeypatch: Undoes it.
        disk: Which one.
        lower: Names of directories in the lower layer.
    """
    rename, renameat2 = os.rename, renames._renameat2

    def rename_layers(source: bytes, target: bytes, **options: int) -> None:
        if source in lower:
            raise OSError(errno.EXDEV, "cross-device link")
        rename(source, target, **options)

    def renameat2_layers(source_fd: int, source: bytes, target_fd: int, target: bytes, flags: int) -> None:
        if source in lower or (flags == renames.RENAME_EXCHANGE and target in lower):
            raise OSError(errno.EXDEV, "cross-device link")
        renameat2(source_fd, source, target_fd, target, flags)

    def no_flags(*args: object) -> None:
        raise OSError(errno.EINVAL, "invalid argument")

    if disk == "no flags":
        monkeypatch.setattr(renames, "_renameat2", no_flags)
    elif disk == "layers":
        monkeypatch.setattr(os, "rename", rename_layers)
        monkeypatch.setattr(renames, "_renameat2", renameat2_layers)
