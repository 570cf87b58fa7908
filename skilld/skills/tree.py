"""
Directory trees by descriptor: listed, written, linked and removed without ever following a symbolic link.

Every step goes through the descriptor of the directory that it is in, so that nothing outside the tree can be reached,
whatever happens to the paths meanwhile. Names are bytes.

Owns: nothing. Blocks on the disk.

Source: openat(2), "Rationale"; link(2); fsync(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator

# No skill is nested deeper, and each level costs an open descriptor.
DEPTH_LIMIT = 64

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES = 1 << 20
# Answers of link(2) where a file system, or the owner of a file, allows no second link to it.
_NO_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EINVAL})


@contextlib.contextmanager
def opened(name: bytes, directory_fd: int) -> Iterator[int]:
    """
    Open a directory below another for as long as the context lasts.

    Raises:
        OSError: ``ENOTDIR`` where it is a symbolic link, among others.
    """
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened_parent(path: bytes, directory_fd: int, *, make: bool = False) -> Iterator[tuple[int, bytes]]:
    """
    Open the directory that holds the last component of a path; yield it and that component.

    Args:
        path: Relative to the directory.
        directory_fd: Where to start.
        make: Make directories that are missing.
    """
    *parents, name = path.split(b"/")
    with contextlib.ExitStack() as stack:
        current = directory_fd
        for parent in parents:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(parent, dir_fd=current)
            current = stack.enter_context(opened(parent, current))
        yield current, name


def list_below(directory_fd: int) -> dict[bytes, os.stat_result]:
    """
    Return everything below a directory, directories included, by path.

    Raises:
        OSError: ``ELOOP`` where it is nested deeper than ``DEPTH_LIMIT``.
    """
    found: dict[bytes, os.stat_result] = {}

    def walk(current: int, prefix: bytes, depth: int) -> None:
        for name in _names(current):
            try:
                state = found[prefix + name] = os.lstat(name, dir_fd=current)
                if stat.S_ISDIR(state.st_mode):
                    _check_depth(depth)
                    with opened(name, current) as below:
                        walk(below, prefix + name + b"/", depth + 1)
            except (FileNotFoundError, NotADirectoryError):
                found.pop(prefix + name, None)  # it went while we looked

    walk(directory_fd, b"", 1)
    return found


def read_file(directory_fd: int, name: bytes, limit_bytes: int) -> tuple[bytes, os.stat_result] | None:
    """Read a regular file whole; None where it holds more than ``limit_bytes`` or is no regular file."""
    if not stat.S_ISREG(os.lstat(name, dir_fd=directory_fd).st_mode):
        return None
    with open(os.open(name, _READ, dir_fd=directory_fd), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            return None
        content = file.read(limit_bytes + 1)
        return (content, state) if len(content) <= limit_bytes else None


def write_file(directory_fd: int, name: bytes, content: bytes, *, executable: bool, like_fd: int | None = None) -> None:
    """
    Write a new file and wait until it is on the disk.

    Args:
        directory_fd: Where.
        name: Must not be there.
        content: All of it.
        executable: Give an execute bit to everybody who may read it.
        like_fd: The file that it replaces: it gets the same mode, attributes and, where we may give files away, owner.
    """
    descriptor = os.open(name, _WRITE, 0o777 if executable else 0o666, dir_fd=directory_fd)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        if like_fd is not None:
            mode = _copy_attributes(like_fd, descriptor)
            os.fchmod(descriptor, mode | (mode & 0o444) >> 2 if executable else mode)
        os.fsync(descriptor)


def link_tree(source_fd: int, target_fd: int, leave_out: Collection[bytes]) -> set[bytes]:
    """
    Fill an empty directory with hard links to everything below another, in directories of the same modes.

    A file that cannot have a second link is copied. No directory is synced.

    Args:
        source_fd: What to link.
        target_fd: Empty.
        leave_out: Paths of files that are not linked.

    Returns:
        The paths of the files that had to be copied.

    Raises:
        OSError: ``EXDEV`` where another file system is mounted inside, among others.
    """

    copied: set[bytes] = set()

    def fill(source: int, target: int, prefix: bytes, depth: int) -> None:
        for name in _names(source):
            path = prefix + name
            if path in leave_out:
                continue
            if _is_dir(source, name):
                _check_depth(depth)
                os.mkdir(name, 0o700, dir_fd=target)
                with opened(name, source) as below, opened(name, target) as copy:
                    fill(below, copy, path + b"/", depth + 1)
                continue
            try:
                os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            except OSError as exc:
                if exc.errno not in _NO_LINK:
                    raise
                _copy(source, target, name)
                copied.add(path)
        os.fchmod(target, _copy_attributes(source, target))

    fill(source_fd, target_fd, b"", 1)
    return copied


def is_writable_below(directory_fd: int) -> bool:
    """Tell whether we may add and remove entries in a directory and in all below it."""
    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=directory_fd, effective_ids=True):
        return False
    for name in _names(directory_fd):
        if _is_dir(directory_fd, name):
            with opened(name, directory_fd) as below:
                if not is_writable_below(below):
                    return False
    return True


def sync_tree(directory_fd: int) -> None:
    """Wait until the entries of a directory and of all below it are on the disk; the files are the writer's job."""
    for name in _names(directory_fd):
        if _is_dir(directory_fd, name):
            with opened(name, directory_fd) as below:
                sync_tree(below)
    os.fsync(directory_fd)


def remove_empty_above(directory_fd: int, path: bytes) -> None:
    """Remove the directories above a path that are empty, below and without the given one."""
    parents = path.split(b"/")[:-1]
    while parents:
        try:
            with opened_parent(b"/".join(parents), directory_fd) as (parent_fd, name):
                os.rmdir(name, dir_fd=parent_fd)
        except OSError:  # not empty, above all
            return
        parents.pop()


def remove_tree(directory_fd: int, name: bytes, spare_fd: int) -> None:
    """
    Remove a file, or a directory with all below, however deep.

    Args:
        directory_fd: The directory that holds it.
        name: What to remove.
        spare_fd: A directory of ours on the same file system: directories are moved there before they are emptied, so
            that no depth costs descriptors. A file system that does not move them has them emptied where they are.
    """
    pending = [(directory_fd, name)]
    while pending:
        holder, current = pending.pop()
        if not _is_dir(holder, current):
            os.unlink(current, dir_fd=holder)
            continue
        with opened(current, holder) as below:
            for child in _names(below):
                if not _is_dir(below, child):
                    os.unlink(child, dir_fd=below)
                    continue
                moved = secrets.token_hex(8).encode()
                try:
                    os.rename(child, moved, src_dir_fd=below, dst_dir_fd=spare_fd)
                    pending.append((spare_fd, moved))
                except OSError as exc:
                    if exc.errno != errno.EXDEV:
                        raise
                    remove_tree(below, child, spare_fd)
        os.rmdir(current, dir_fd=holder)


def remove_below(directory_fd: int) -> None:
    """Empty a directory of ours."""
    for name in _names(directory_fd):
        remove_tree(directory_fd, name, directory_fd)


def _names(directory_fd: int) -> list[bytes]:
    with os.scandir(directory_fd) as entries:
        return [os.fsencode(entry.name) for entry in entries]


def _is_dir(directory_fd: int, name: bytes) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=directory_fd).st_mode)


def _check_depth(depth: int) -> None:
    if depth >= DEPTH_LIMIT:
        raise OSError(errno.ENAMETOOLONG, f"nested deeper than {DEPTH_LIMIT} directories")


def _copy_attributes(source_fd: int, target_fd: int) -> int:
    """
    Copy owner, access list and user attributes as far as we may; return the mode, for ``fchmod`` to come last.

    What gives a program more rights than its user has (set-id bits, capabilities) never passes to other content.
    """
    state = os.fstat(source_fd)
    ours = os.fstat(target_fd)
    if (state.st_uid, state.st_gid) != (ours.st_uid, ours.st_gid):
        for owner in ((state.st_uid, state.st_gid), (-1, state.st_gid)):
            with contextlib.suppress(OSError):
                os.fchown(target_fd, *owner)
                break
    with contextlib.suppress(OSError):
        for attribute in os.listxattr(source_fd):
            if attribute.startswith(("user.", "system.posix_acl_")):
                with contextlib.suppress(OSError):
                    os.setxattr(target_fd, attribute, os.getxattr(source_fd, attribute))
    return stat.S_IMODE(state.st_mode) & (0o7777 if stat.S_ISDIR(state.st_mode) else 0o777)


def _copy(source_fd: int, target_fd: int, name: bytes) -> None:
    """Copy a regular file with its attributes and times, or a symbolic link."""
    state = os.lstat(name, dir_fd=source_fd)
    if stat.S_ISLNK(state.st_mode):
        os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
        return
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EPERM, "neither a file nor a link")
    with (
        open(os.open(name, _READ, dir_fd=source_fd), "rb") as source,
        open(os.open(name, _WRITE, 0o600, dir_fd=target_fd), "wb") as target,
    ):
        shutil.copyfileobj(source, target, _READ_BYTES)
        target.flush()
        os.fchmod(target.fileno(), _copy_attributes(source.fileno(), target.fileno()))
        os.utime(target.fileno(), ns=(state.st_atime_ns, state.st_mtime_ns))
        os.fsync(target.fileno())
