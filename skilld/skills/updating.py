"""
Changing a skill on the disk: all of a change, or nothing of it.

A change is made of what is on the disk now, never of what the registry remembers. It is prepared in a staging
directory and put in place in one step; then what it took the place of is compared with what it was made of, and if
somebody else was faster, theirs is put back and the change is made anew of it. A change of one file swaps that file;
one of several swaps the directory, in which all other files are hard links to the old ones.

Owns: nothing. Blocks on the disk; one thread calls it.

Source: API, sections 2 and 3; rename(2), link(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skilld.errors import Busy, FileNotFound, ReadOnly
from skilld.skills import renames, staging, tree
from skilld.skills.edit import EditRefused, Fields, splice_skill_md
from skilld.skills.filemap import check_limits, check_places, is_script
from skilld.skills.making import TRIES
from skilld.skills.model import Finding
from skilld.skills.ondisk import (
    RACES,
    Base,
    Changed,
    OpenSkill,
    Place,
    Stamp,
    check_digest,
    invalid,
    is_in_place,
    is_same,
    opened_skill,
    read_base,
    reporting,
    reporting_file,
    require_writable,
    stamp,
)
from skilld.skills.scanner import ScanLimits


@dataclass(frozen=True)
class Change:
    """What to change. ``files`` by path relative to the skill directory, None removes one; ``findings`` against it."""

    fields: Fields
    files: Mapping[str, bytes | None]
    findings: Sequence[Finding] = ()
    if_digest: str | None = None


def update_skill(place: Place, change: Change, limits: ScanLimits, own: Stamp | None = None) -> Stamp:
    """
    Change a skill.

    Args:
        place: Where it is.
        change: What is so already stays untouched.
        limits: How much a skill may hold.
        own: What this function returned last for the skill: a SKILL.md in this state is nobody's unfinished work.

    Returns:
        The stamp of the SKILL.md.

    Raises:
        SkillNotFound: It is not on the disk any more.
        FileNotFound: A file to be removed is not there.
        Conflict: Its digest is not the one that the change demands.
        SkillInvalid: The result would break a rule; lists all problems.
        ReadOnly: A link leads to it or to a file to be written, or it cannot be written.
        Storage: The disk refused.
        Busy: Others write it again and again.
    """
    for _ in range(TRIES):
        with contextlib.suppress(Changed), opened_skill(place) as skill:
            base = read_base(skill, limits, own)
            if change.if_digest is not None:
                check_digest(skill, change.if_digest, limits)
            files = _plan(skill, base, change, limits)
            if not files:
                return stamp(base.below[base.name])
            with reporting(place, "changing the skill"), staging.staged(skill.root_fd) as staged:
                try:
                    if len(files) == 1 and _has_parent(base, *files):
                        return _change_one(staged, skill, base, *next(iter(files.items())))
                    return _change_all(staged, skill, base, files)
                except RACES as exc:
                    raise Changed from exc
    raise Busy(f"skill {place.id!r} is being written by others")


def _plan(skill: OpenSkill, base: Base, change: Change, limits: ScanLimits) -> dict[bytes, bytes | None]:
    """Return the files that would really change, by path; raise all that speaks against it."""
    findings = [*change.findings]
    files: dict[bytes, bytes | None] = {}
    try:
        content = splice_skill_md(base.skill_md, change.fields)
        if content != base.skill_md:
            files[base.name] = content
    except EditRefused as exc:
        findings += exc.findings
    there = {path.decode(errors="surrogateescape"): stat.S_ISDIR(state.st_mode) for path, state in base.below.items()}
    findings += check_places(change.files, there)
    for path, new in change.files.items():
        if new is None:
            if there.get(path, True):
                raise FileNotFound(skill.place.id, path)
        else:
            _refuse_links(skill.place, base, path)
        if new is None or not _holds(skill, base, path, new):
            files[path.encode()] = new
    sizes = {path: state.st_size for path, state in base.below.items() if not stat.S_ISDIR(state.st_mode)}
    findings += check_limits(sizes, files, base.name, limits)
    if findings:
        raise invalid(skill.place, findings)
    return files


def _refuse_links(place: Place, base: Base, path: str) -> None:
    """Raise ReadOnly where a file to be written is a symbolic link, or lies behind one."""
    parts = path.encode().split(b"/")
    for length in range(1, len(parts) + 1):
        part = b"/".join(parts[:length])
        if part in base.below and stat.S_ISLNK(base.below[part].st_mode):
            raise ReadOnly(place.id, place.root, f"{part.decode()!r} in it is a symbolic link")


def _holds(skill: OpenSkill, base: Base, path: str, content: bytes) -> bool:
    """Tell whether a file holds this content already, with the execute bits that it should have."""
    state = base.below.get(path.encode())
    if state is None or not stat.S_ISREG(state.st_mode) or state.st_size != len(content):
        return False
    if is_script(path, content) and not state.st_mode & 0o111:
        return False
    try:
        with tree.opened_parent(path.encode(), skill.fd) as (parent_fd, name):
            read = tree.read_file(parent_fd, name, len(content))
    except OSError:  # then it is written, and that says why it cannot be
        return False
    return read is not None and read[0] == content


def _has_parent(base: Base, path: bytes) -> bool:
    parent = path.rpartition(b"/")[0]
    return not parent or parent in base.below


def _change_one(staged: staging.Staging, skill: OpenSkill, base: Base, path: bytes, content: bytes | None) -> Stamp:
    """Write, replace or remove one file, whose directory is there, by one rename."""
    before = base.below.get(path)
    result = stamp(base.below[base.name])
    with tree.opened_parent(path, skill.fd) as (parent_fd, name):
        if content is not None:
            _write(staged.fd, staging.NEW, path, content, skill, before)
            if path == base.name:
                result = stamp(os.lstat(staging.NEW, dir_fd=staged.fd))
        if content is None or before is None:
            # A file that goes, or one that comes.
            here, there = (parent_fd, name), (staged.fd, staging.NEW)
            source, target = (here, there) if content is None else (there, here)
            renames.move(*source, *target)
            if not is_in_place(skill) or (before and stamp(os.lstat(target[1], dir_fd=target[0])) != stamp(before)):
                renames.move(*target, *source)
                raise Changed
        else:
            _replace(staged, skill, parent_fd, name, before, base.skill_md if path == base.name else None)
        os.fsync(parent_fd)
    if content is None:
        tree.remove_empty_above(skill.fd, path)
    return result


def _replace(
    staged: staging.Staging,
    skill: OpenSkill,
    parent_fd: int,
    name: bytes,
    before: os.stat_result,
    content: bytes | None,
) -> None:
    """Put ``NEW`` in the place of a file in this state and, if given, of this content."""
    if stamp(os.lstat(name, dir_fd=parent_fd)) != stamp(before):
        raise Changed
    try:
        renames.exchange(parent_fd, name, staged.fd, staging.NEW)
    except renames.Unsupported as exc:
        if exc.errno == errno.EXDEV:  # the skill is mounted from another file system than its root
            raise
        # What somebody writes between the look and this rename is lost.
        os.rename(staging.NEW, name, src_dir_fd=staged.fd, dst_dir_fd=parent_fd)
        return
    is_fine = is_in_place(skill) and stamp(os.lstat(staging.NEW, dir_fd=staged.fd)) == stamp(before)
    if is_fine and content is not None:
        # A second write within the same tick of the clock leaves the stamp as it was.
        read = tree.read_file(staged.fd, staging.NEW, len(content))
        is_fine = read is not None and read[0] == content
    if not is_fine:
        renames.exchange(parent_fd, name, staged.fd, staging.NEW)
        raise Changed


def _change_all(staged: staging.Staging, skill: OpenSkill, base: Base, files: Mapping[bytes, bytes | None]) -> Stamp:
    """Make a new directory of the old one's files and the changed ones, and swap the two."""
    require_writable(skill)
    os.mkdir(staging.NEW, 0o700, dir_fd=staged.fd)
    with tree.opened(staging.NEW, staged.fd) as new_fd:
        copied = tree.link_tree(skill.fd, new_fd, files.keys())
        for path, content in files.items():
            if content is None:
                tree.remove_empty_above(new_fd, path)
                continue
            with tree.opened_parent(path, new_fd, make=True) as (parent_fd, name):
                _write(parent_fd, name, path, content, skill, base.below.get(path))
        tree.sync_tree(new_fd)
        result = stamp(os.lstat(base.name, dir_fd=new_fd))
    replaced = dict.fromkeys((*files, *copied))
    if not is_in_place(skill) or not is_same(skill.fd, base, replaced):
        raise Changed
    old = staging.put_in_place(staged, skill.parent_fd, skill.leaf, skill.place.id)
    if old is not None:
        with tree.opened(old, staged.fd) as old_fd:
            if is_same(old_fd, base, replaced):
                return result
        staging.put_back(staged, skill.parent_fd, skill.leaf, old)
        raise Changed
    return result


def _write(
    directory_fd: int, name: bytes, path: bytes, content: bytes, skill: OpenSkill, before: os.stat_result | None
) -> None:
    """Write a file on its way to a path of a skill, with the mode and owner of the one that is there now."""
    with contextlib.ExitStack() as stack, reporting_file(skill.place, path):
        old_fd = None
        if before is not None and stat.S_ISREG(before.st_mode):
            parent_fd, old_name = stack.enter_context(tree.opened_parent(path, skill.fd))
            old_fd = os.open(old_name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent_fd)
            stack.callback(os.close, old_fd)
        tree.write_file(directory_fd, name, content, executable=is_script(path.decode(), content), like_fd=old_fd)
