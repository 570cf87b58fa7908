"""
System calls that Python has no function for.

Owns: nothing.

Source: openat2(2), landlock(7), prctl(2), close_range(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

# From 424 on all machines have the same numbers.
_OPENAT2, _LANDLOCK_CREATE_RULESET = 437, 444
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x01, 0x02, 0x04, 0x08
_LANDLOCK_CREATE_RULESET_VERSION = 1
_PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)


def open_beneath(directory_fd: int, path: str) -> int:
    """
    Open a file for reading, strictly beneath a directory: no link, no other mount, whatever others do to the path.

    Args:
        directory_fd: The directory; ``O_PATH`` is enough.
        path: Relative to it. A NUL would end it in the kernel's eyes; the caller has refused one.

    Raises:
        OSError: It is not there, or any part of the path is a symbolic link or a mount point.
        ValueError: The path holds NUL or is no text that the file system can hold.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("a path holds no NUL")
    resolve = _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
    how = struct.pack("=QQQ", flags, 0, resolve)
    descriptor = _libc.syscall(
        ctypes.c_long(_OPENAT2), ctypes.c_int(directory_fd), name, how, ctypes.c_size_t(len(how))
    )
    if descriptor >= 0:
        return int(descriptor)
    code = ctypes.get_errno()
    # EPERM: a container's filter that does not know the call.
    if code not in (errno.ENOSYS, errno.EPERM):
        raise OSError(code, os.strerror(code), path)
    return _open_step_by_step(directory_fd, name, flags)


def _open_step_by_step(directory_fd: int, path: bytes, flags: int) -> int:
    """Likewise, where the kernel (before 5.6) cannot do it in one call."""
    *parents, name = path.split(b"/")
    if any(part in (b"", b".", b"..") for part in (*parents, name)):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    current = os.dup(directory_fd)
    try:
        for parent in parents:
            below = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = below
        return os.open(name, flags, dir_fd=current)
    finally:
        os.close(current)


def landlock_abi() -> int:
    """The version of Landlock's interface; 0 where the kernel has none or it is switched off."""
    version = _libc.syscall(
        ctypes.c_long(_LANDLOCK_CREATE_RULESET),
        ctypes.c_void_p(None),
        ctypes.c_size_t(0),
        ctypes.c_uint(_LANDLOCK_CREATE_RULESET_VERSION),
    )
    return max(int(version), 0)


def hide_process() -> None:
    """Let no process of the same user read this one's memory, environment or descriptors, nor trace it."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
