"""
What the host looks like, as far as a plan depends on it; and which of its paths a script must never be shown.

Owns: nothing. Blocks on the disk.

Source: hier(7); SocketMode=0777 of dstack's guest agent: whoever sees the socket may ask for keys.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from skilld.scripts.plan import PATH, PROC_MASKED, SYSTEM_DIRS, Host

# The kernel's and the services' own directories: nothing in them, and nothing that holds them.
_FORBIDDEN = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/boot",
    "/root",
    "/etc/shadow",
    "/etc/ssl/private",
    "/etc/skilld",
    "/var/lib/docker",
    "/var/lib/systemd",
)
# What the sandbox mounts something else on.
_TAKEN = ("/skill", "/work", "/tmp", "/usr", *SYSTEM_DIRS)  # noqa: S108 - names, not files
# Entries of a directory that are looked at in search of a socket.
_LIMIT_ENTRIES = 200_000


def read_host(*, shares_proc: bool = False) -> Host:
    """The facts for a sandbox with a file system of its own."""
    links = tuple((path, os.readlink(path)) for path in SYSTEM_DIRS if os.path.islink(path))
    dirs = tuple(path for path in SYSTEM_DIRS if os.path.isdir(path) and not os.path.islink(path))
    masked = tuple(path for path in PROC_MASKED if os.access(path, os.R_OK) or os.access(path, os.W_OK))
    return Host(links, dirs, shares_proc=shares_proc, masked=masked)


def find_program(name: str, visible: Iterable[str]) -> str | None:
    """
    The absolute path of a program, if it can be run and a script can see it.

    Args:
        name: A name to look up, or an absolute path.
        visible: Directories of the host that the sandbox shows, beside the system's.
    """
    shown = ("/usr", *SYSTEM_DIRS, *visible)
    candidates = [name] if name.startswith("/") else [f"{directory}/{name}" for directory in PATH.split(":")]
    for path in candidates:
        real = os.path.realpath(path)
        if os.access(path, os.X_OK) and os.path.isfile(real) and all(_below(one, shown) for one in (path, real)):
            return path
    return None


def check_shown(paths: Iterable[str], private: Iterable[str]) -> Iterator[str]:
    """
    Yield why a path must not be shown to scripts, for each one that must not.

    Args:
        paths: Absolute paths from the configuration.
        private: The daemon's own: roots, socket, cache, configuration.
    """
    paths = tuple(paths)
    forbidden = {*_FORBIDDEN, *(os.path.realpath(path) for path in private)}
    for path in paths:
        if not path.startswith("/") or os.path.normpath(path) != path or path.startswith("//"):
            yield f"{path!r} is no plain absolute path"
        elif not os.path.exists(path):
            yield f"{path!r} does not exist"
        elif os.path.realpath(path) != path:
            yield f"{path!r} is, or lies behind, a symbolic link"
        elif path == "/" or (hit := next((one for one in sorted(forbidden) if _touch(path, one)), None)):
            yield f"{path!r} would show {'everything' if path == '/' else hit}"
        elif hit := next((one for one in (*_TAKEN, *paths) if one != path and _touch(path, one)), None):
            yield f"{path!r} overlaps {hit}"
        elif path in _TAKEN:
            yield f"{path!r} is the sandbox's own"
        elif why := _special_below(path):
            yield f"{path!r} {why}"


def _touch(one: str, other: str) -> bool:
    """Whether one path is the other, lies in it or holds it."""
    return _below(one, (other,)) or _below(other, (one,))


def _below(path: str, directories: Iterable[str]) -> bool:
    return any(path == one or path.startswith(one.rstrip("/") + "/") for one in directories)


def _special_below(path: str) -> str | None:
    """Say what below a path speaks to somebody: a socket, a device, a FIFO; or that there is too much to look at."""
    pending, count = [path], 0
    while pending:
        current = pending.pop()
        try:
            state = os.lstat(current)
            if stat.S_ISSOCK(state.st_mode) or stat.S_ISFIFO(state.st_mode):
                return f"holds a socket: {current}"
            if stat.S_ISBLK(state.st_mode) or stat.S_ISCHR(state.st_mode):
                return f"holds a device: {current}"
            if stat.S_ISDIR(state.st_mode):
                children = os.listdir(current)
                count += len(children)
                if count > _LIMIT_ENTRIES:
                    return f"holds more than {_LIMIT_ENTRIES:,} files"
                pending += [f"{current}/{name}" for name in children]
        except OSError as exc:
            return f"cannot be read: {current}: {exc.strerror}"
    return None
