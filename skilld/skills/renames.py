"""
Renames that never replace what they should not, and that swap two things in one step.

Owns: nothing. The edge around ``renameat2``, which the standard library does not have.

Source: renameat2(2): ``RENAME_NOREPLACE`` since Linux 3.15; ``RENAME_EXCHANGE`` needs support by the file system, and a
directory in a lower layer of overlayfs cannot be renamed at all (``EXDEV``).
"""

from __future__ import annotations

import ctypes
import errno
import os

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

# What the kernel, the C library or the file system answers where it does not know a flag.
_UNKNOWN_FLAG = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})

_libc = ctypes.CDLL(None, use_errno=True)


class Unsupported(OSError):
    """This file system cannot swap these two in one step, or cannot move this directory."""


def move(source_fd: int, source: bytes, target_fd: int, target: bytes) -> None:
    """
    Rename within one file system; whatever is there already stays.

    Where the file system does not know how (NFS), a look comes first; what appears between the look and the rename is
    replaced if it is an empty directory, or a file.

    Args:
        source_fd: The directory that holds ``source``.
        source: A name.
        target_fd: The directory that will hold ``target``.
        target: A name.

    Raises:
        FileExistsError: The target is there.
        Unsupported: The source is a directory that this file system does not move.
        OSError: Whatever else the kernel refuses.
    """
    try:
        _renameat2(source_fd, source, target_fd, target, RENAME_NOREPLACE)
    except OSError as exc:
        if exc.errno == errno.EXDEV:
            raise Unsupported(exc.errno, exc.strerror) from exc
        if exc.errno not in _UNKNOWN_FLAG:
            raise
        if exists(target_fd, target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from exc
        os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def exchange(first_fd: int, first: bytes, second_fd: int, second: bytes) -> None:
    """
    Swap two names in one step; nobody ever sees either of them missing.

    Of two directories the one that others watch comes first: inotify then tells last that something appeared there.

    Raises:
        Unsupported: Not here; nothing has happened.
        OSError: Whatever else the kernel refuses.
    """
    try:
        _renameat2(first_fd, first, second_fd, second, RENAME_EXCHANGE)
    except OSError as exc:
        if exc.errno in _UNKNOWN_FLAG or exc.errno == errno.EXDEV:
            raise Unsupported(exc.errno, exc.strerror) from exc
        raise


def exists(directory_fd: int, name: bytes) -> bool:
    """Tell whether a directory has an entry of this name, whatever it is."""
    try:
        os.lstat(name, dir_fd=directory_fd)
    except FileNotFoundError:
        return False
    return True


def _renameat2(source_fd: int, source: bytes, target_fd: int, target: bytes, flags: int) -> None:
    # The C library has it since glibc 2.28.
    function = getattr(_libc, "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if function(source_fd, source, target_fd, target, flags) != 0:
        failure = ctypes.get_errno()
        raise OSError(failure, os.strerror(failure))
