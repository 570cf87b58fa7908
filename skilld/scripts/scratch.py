"""
Fresh directories on the disk, for a run that has no file system of its own and for the canary, and their removal.

A script may leave anything there: links, directories a thousand deep, directories that nobody may enter. Nothing of it
is followed, and all of it goes.

Owns: each scratch owns its directory, locked for as long as the daemon lives.

Source: openat(2), "Rationale"; flock(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from skilld.skills import tree

_RUN, CANARY = "skilld-run-", "skilld-canary-"
_PARTS = ("work", "tmp")


@dataclass(frozen=True)
class Scratch:
    """A run's directories: their paths and descriptors."""

    work_dir: str
    tmp_dir: str
    work_fd: int
    tmp_fd: int

    def remove_empty(self) -> bool:
        """Remove the directories at once where the script has left nothing in them; whether that was so."""
        try:
            os.rmdir(self.work_dir)
            os.rmdir(self.tmp_dir)
            os.rmdir(os.path.dirname(self.work_dir))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def scratch() -> Iterator[Scratch]:
    """Make a run's directories for as long as the context lasts. Blocks on the disk at its end."""
    with fresh_directory(_RUN) as path, contextlib.ExitStack() as stack:
        for part in _PARTS:
            os.mkdir(f"{path}/{part}", 0o700)
        work_dir, tmp_dir = (f"{path}/{part}" for part in _PARTS)
        yield Scratch(work_dir, tmp_dir, _open(work_dir, stack), _open(tmp_dir, stack))


@contextlib.contextmanager
def fresh_directory(prefix: str) -> Iterator[str]:
    """
    Make a directory for as long as the context lasts, and yield its path; a daemon that is killed leaves it behind.

    Args:
        prefix: Of its name; one that :func:`remove_left_over` knows.
    """
    path = tempfile.mkdtemp(prefix=prefix)
    with contextlib.ExitStack() as stack:
        directory_fd = _open(path, stack)
        with contextlib.suppress(OSError):
            fcntl.flock(directory_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stack.callback(_remove, path, directory_fd)
        yield path


def remove_left_over() -> None:
    """Remove what a daemon of this user that was killed has left."""
    base = tempfile.gettempdir()
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(base) if name.startswith((_RUN, CANARY))]
    for name in names:
        path = f"{base}/{name}"
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            if os.lstat(path).st_uid == os.geteuid():
                directory_fd = _open(path, stack)
                fcntl.flock(directory_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path, directory_fd)


def _open(path: str, stack: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _remove(path: str, directory_fd: int) -> None:
    """Remove a directory with all below, whatever the modes and the depth."""
    pending = os.listdir(directory_fd)
    while pending:
        name = pending.pop()
        if not _is_dir(directory_fd, name):
            os.unlink(name, dir_fd=directory_fd)
            continue
        os.chmod(name, 0o700, dir_fd=directory_fd)
        with tree.opened(os.fsencode(name), directory_fd) as below:
            for child in os.listdir(below):
                if not _is_dir(below, child):
                    os.unlink(child, dir_fd=below)
                    continue
                # Moved up before it is emptied, so that no depth costs descriptors; that takes the right to write.
                os.chmod(child, 0o700, dir_fd=below)
                moved = secrets.token_hex(8)
                os.rename(child, moved, src_dir_fd=below, dst_dir_fd=directory_fd)
                pending.append(moved)
        os.rmdir(name, dir_fd=directory_fd)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def _is_dir(directory_fd: int, name: str) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=directory_fd).st_mode)
