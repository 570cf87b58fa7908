"""
Staging: where a change is prepared beside its target, and what the next start makes of a change that was cut off.

A staging directory is a hidden directory of the root, so it holds no skills, and is on the file system of the skills.
It is locked for as long as the writer lives; what is found unlocked belongs to a daemon that was killed.

A directory is put in the place of another by swapping the two in one step. Where the file system cannot do that (NFS, a
lower layer of overlayfs) the old one is taken away before the new one is put there; a note in the staging directory
lets the next start finish what was begun.

Owns: nothing; the lock is the kernel's. Blocks on the disk.

Source: flock(2); renameat2(2); overlayfs, "Renaming directories".
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skilld.skills import renames, tree
from skilld.skills.model import SKILL_FILE_NAMES

log = logging.getLogger(__name__)

_PREFIX = b".skilld-staged-"
_NAME = re.compile(re.escape(_PREFIX) + rb"[0-9a-f]{16}")
# What stands in a staging directory: the new state, the old one once it is taken away, and the note.
NEW, OLD, _NOTE = b"new", b"old", b"note"


@dataclass(frozen=True)
class Staging:
    """An open, locked staging directory of a root."""

    root_fd: int
    name: bytes
    fd: int


@contextlib.contextmanager
def staged(root_fd: int) -> Iterator[Staging]:
    """
    Make a staging directory for as long as the context lasts; what is left in it then is removed.

    Raises:
        OSError: The root cannot be written.
    """
    while True:
        name = _PREFIX + secrets.token_hex(8).encode()
        os.mkdir(name, 0o700, dir_fd=root_fd)
        try:
            with tree.opened(name, root_fd) as descriptor:
                # Another daemon, cleaning up, may have been faster than our lock.
                if not _lock(descriptor) or os.fstat(descriptor).st_nlink == 0:
                    continue
                staging = Staging(root_fd, name, descriptor)
                try:
                    yield staging
                finally:
                    _remove(staging)
                return
        finally:
            with contextlib.suppress(OSError):  # it has gone already, unless it could not be opened
                os.rmdir(name, dir_fd=root_fd)


def put_in_place(staging: Staging, parent_fd: int, leaf: bytes, id: str) -> bytes | None:
    """
    Put the directory ``NEW`` of a staging directory where another is.

    Args:
        staging: Holds ``NEW``, synced.
        parent_fd: The directory that holds the old one.
        leaf: The old one's name.
        id: Its path relative to the root, for the note.

    Returns:
        What the old one is called in the staging directory; None where it could not be kept.
    """
    old: bytes | None = NEW
    try:
        renames.exchange(parent_fd, leaf, staging.fd, NEW)
    except renames.Unsupported:
        with _noted(staging, id, "replace"):
            old = _take_away(staging, parent_fd, leaf)
            renames.move(staging.fd, NEW, parent_fd, leaf)
            os.fsync(parent_fd)
    os.fsync(parent_fd)
    return old


def take_away(staging: Staging, parent_fd: int, leaf: bytes, id: str) -> bytes | None:
    """Take a directory away; return what it is called in the staging directory, None where it could not be kept."""
    old: bytes | None = OLD
    try:
        renames.move(parent_fd, leaf, staging.fd, OLD)
    except renames.Unsupported:
        with _noted(staging, id, "delete"):
            old = _take_away(staging, parent_fd, leaf)
            os.fsync(parent_fd)
    os.fsync(parent_fd)
    return old


def put_back(staging: Staging, parent_fd: int, leaf: bytes, old: bytes) -> None:
    """Undo: put the old directory back in the place of the new one; where that has gone meanwhile, it stays away."""
    with contextlib.suppress(FileNotFoundError):
        try:
            renames.exchange(parent_fd, leaf, staging.fd, old)
        except renames.Unsupported:
            os.rename(leaf, NEW, src_dir_fd=parent_fd, dst_dir_fd=staging.fd)
            renames.move(staging.fd, old, parent_fd, leaf)
    os.fsync(parent_fd)


def clean_up(root: bytes) -> None:
    """
    Remove what daemons that were killed have left in a root, or finish it where the old state is no longer whole.

    Staging directories of a daemon that lives are left alone, and those of another user.
    """
    try:
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # a root that is missing has nothing to clean up
        return
    try:
        with os.scandir(root_fd) as entries:
            names = [name for name in (os.fsencode(entry.name) for entry in entries) if _NAME.fullmatch(name)]
        for name in names:
            with contextlib.suppress(OSError), tree.opened(name, root_fd) as descriptor:
                if os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor, otherwise=False):
                    log.info("removing %s, which was left over", os.fsdecode(root + b"/" + name))
                    _remove(Staging(root_fd, name, descriptor))
    finally:
        os.close(root_fd)


def _lock(descriptor: int, *, otherwise: bool = True) -> bool:
    """Take the lock of a staging directory; False where another has it, ``otherwise`` where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # NFS locks no directories: there the litter of a kill stays
        return otherwise
    return True


def _take_away(staging: Staging, parent_fd: int, leaf: bytes) -> bytes | None:
    """Move a directory to ``OLD`` or, where it cannot be moved, remove it, its SKILL.md first."""
    try:
        os.rename(leaf, OLD, src_dir_fd=parent_fd, dst_dir_fd=staging.fd)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        with tree.opened(leaf, parent_fd) as descriptor:
            for name in SKILL_FILE_NAMES:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=descriptor)
            os.fsync(descriptor)
        tree.remove_tree(parent_fd, leaf, staging.fd)
        return None
    return OLD


@contextlib.contextmanager
def _noted(staging: Staging, id: str, action: str) -> Iterator[None]:
    """Leave a note for as long as a skill may be missing from its place."""
    text = json.dumps({"id": id, "action": action}).encode()
    tree.write_file(staging.fd, b"note~", text, executable=False)
    os.rename(b"note~", _NOTE, src_dir_fd=staging.fd, dst_dir_fd=staging.fd)
    os.fsync(staging.fd)
    os.fsync(staging.root_fd)
    yield
    os.unlink(_NOTE, dir_fd=staging.fd)


def _finish(staging: Staging) -> None:
    """
    Do what a note says that is still there, unless a whole skill is in the place: the old one, or somebody's new one.

    Raises:
        OSError, ValueError: That cannot be done.
    """
    read = tree.read_file(staging.fd, _NOTE, 1 << 16) if renames.exists(staging.fd, _NOTE) else None
    if read is None:
        return
    note: Any = json.loads(read[0])
    if not isinstance(note, dict):
        raise ValueError("the note is not one of ours")
    id = str(note.get("id", "")).encode()
    if any(part in (b"", b".", b"..") for part in id.split(b"/")):
        raise ValueError(f"the note names {id!r}")
    with tree.opened_parent(id, staging.root_fd) as (parent_fd, leaf):
        if renames.exists(parent_fd, leaf):
            with tree.opened(leaf, parent_fd) as descriptor:
                if any(renames.exists(descriptor, name) for name in SKILL_FILE_NAMES):
                    return
            if renames.exists(staging.fd, OLD):
                raise ValueError(f"{id!r} is in two places")
            tree.remove_tree(parent_fd, leaf, staging.fd)
        if note.get("action") == "replace" and renames.exists(staging.fd, NEW):
            renames.move(staging.fd, NEW, parent_fd, leaf)
        os.fsync(parent_fd)
    log.warning("finished a change of %s that was cut off", os.fsdecode(id))


def _remove(staging: Staging) -> None:
    """
    Remove a staging directory, unless it holds what cannot be finished now: then the next start tries again.

    A directory in which a script runs is left alone, so that the script goes on seeing all its files; who locked it
    cleans up.
    """
    try:
        _finish(staging)
        with contextlib.ExitStack() as stack:
            for name in (NEW, OLD):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    if not _lock(stack.enter_context(tree.opened(name, staging.fd))):
                        return
            # Locked until it is gone, so that nobody begins to use it.
            tree.remove_below(staging.fd)
        os.rmdir(staging.name, dir_fd=staging.root_fd)
    except (OSError, ValueError) as exc:
        log.warning("cannot remove %s: %s", os.fsdecode(staging.name), exc)
