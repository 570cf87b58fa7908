"""
Making a new skill on the disk, and deleting one: all or nothing.

Owns: nothing. Blocks on the disk; one thread calls it.

Source: API, sections 2 and 3; rename(2).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from skilld.errors import Busy, SkillExists, SkillNotFound
from skilld.skills import renames, staging, tree
from skilld.skills.filemap import is_script
from skilld.skills.model import SKILL_FILE_NAMES
from skilld.skills.ondisk import (
    Changed,
    Place,
    Stamp,
    check_digest,
    check_root,
    is_same,
    opened_skill,
    read_base,
    reporting,
    reporting_file,
    require_writable,
    stamp,
)
from skilld.skills.scanner import ScanLimits

# How often a change is made anew because somebody else was faster.
TRIES = 10


def create_skill(place: Place, files: Mapping[str, bytes]) -> Stamp:
    """
    Write a new skill.

    Args:
        place: Its id is one path component. A root that is missing is made.
        files: Content by path, the SKILL.md among them.

    Returns:
        The stamp of the SKILL.md.

    Raises:
        SkillExists: Something of this name is there, whatever it is.
        ReadOnly: The root is a symbolic link, or cannot be written.
        Storage: The disk refused.
    """
    leaf = place.id.encode()
    check_root(place)
    with contextlib.ExitStack() as stack:
        with reporting(place, "opening the root"):
            root_fd = _open_root(place.root_path)
            stack.callback(os.close, root_fd)
        stack.enter_context(reporting(place, "creating the skill"))
        if renames.exists(root_fd, leaf):
            raise SkillExists(place.id)
        with staging.staged(root_fd) as staged:
            os.mkdir(staging.NEW, dir_fd=staged.fd)
            with tree.opened(staging.NEW, staged.fd) as new_fd:
                for path, content in files.items():
                    with (
                        reporting_file(place, path.encode()),
                        tree.opened_parent(path.encode(), new_fd, make=True) as (parent_fd, name),
                    ):
                        tree.write_file(parent_fd, name, content, executable=is_script(path, content))
                tree.sync_tree(new_fd)
                result = stamp(os.lstat(SKILL_FILE_NAMES[0], dir_fd=new_fd))
            try:
                renames.move(staged.fd, staging.NEW, root_fd, leaf)
            except FileExistsError:
                raise SkillExists(place.id) from None
            os.fsync(root_fd)
            return result


def delete_skill(place: Place, if_digest: str | None, limits: ScanLimits) -> None:
    """
    Delete a skill, its directory with all that is in it.

    Args:
        place: Where it is.
        if_digest: Only if this is its digest.
        limits: Bounds of a digest.

    Raises:
        SkillNotFound: It is not on the disk any more.
        Conflict: Its digest is another one.
        ReadOnly: A link leads to it, or it cannot be removed whole.
        Storage: The disk refused.
        Busy: Others write it again and again.
    """
    for _ in range(TRIES):
        with contextlib.suppress(Changed):
            _try_to_delete(place, if_digest, limits)
            return
    raise Busy(f"skill {place.id!r} is being written by others")


def _try_to_delete(place: Place, if_digest: str | None, limits: ScanLimits) -> None:
    with opened_skill(place) as skill, reporting(place, "deleting the skill"):
        base = None
        if if_digest is not None:
            base = read_base(skill, limits, None)
            check_digest(skill, if_digest, limits)
        elif not any(renames.exists(skill.fd, name) for name in SKILL_FILE_NAMES):
            raise SkillNotFound(place.id)
        require_writable(skill)
        with staging.staged(skill.root_fd) as staged:
            try:
                old = staging.take_away(staged, skill.parent_fd, skill.leaf, place.id)
            except FileNotFoundError:
                raise Changed from None
            if old is not None and base is not None:
                with tree.opened(old, staged.fd) as old_fd:
                    if is_same(old_fd, base):
                        return
                with contextlib.suppress(FileExistsError):
                    renames.move(staged.fd, old, skill.parent_fd, skill.leaf)
                raise Changed


def _open_root(path: bytes) -> int:
    """Open a root; one that is missing is made, and its entry is on the disk before anything in it is."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    above = os.path.dirname(path)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    os.makedirs(path, exist_ok=True)
    made = os.path.dirname(path)
    while True:
        descriptor = os.open(made, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if made == above:
            return os.open(path, flags)
        made = os.path.dirname(made)
