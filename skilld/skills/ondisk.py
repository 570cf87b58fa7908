"""
A skill on the disk as a change finds it: opened without following a link, read once it holds still.

Owns: nothing. Blocks on the disk.

Source: API, sections 2 and 3; openat(2), "Rationale"; path_resolution(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from skilld.errors import Busy, Conflict, ReadOnly, SkillInvalid, SkillNotFound, Storage
from skilld.skills import tree
from skilld.skills.files import RACY_NS, FileState, digest_of, hash_files, is_young, list_files
from skilld.skills.frontmatter import parse_skill_md
from skilld.skills.lenient_yaml import FrontmatterError
from skilld.skills.model import SKILL_FILE_NAMES, Finding, Problem
from skilld.skills.scanner import ScanLimits

# How often, a racy moment apart, a file that is being written or renamed is looked at again.
SETTLE_TRIES = 15

_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})

# A SKILL.md that cannot be read may be half a file if it was written less than this long ago.
UNFINISHED_NS = 200_000_000

# What the kernel says where something has gone, or come, since we looked.
RACES = (FileNotFoundError, FileExistsError, NotADirectoryError)

# What tells one state of a file from the next, however many links it has: device, inode, mode, size, mtime.
Stamp = tuple[int, int, int, int, int]


class Changed(Exception):
    """Somebody else changed the skill meanwhile."""


@dataclass(frozen=True)
class Place:
    """
    Where a skill is, or shall be.

    ``root`` is as configured. ``known`` are the files that the registry knows, whose hashes need not be made again.
    """

    root: str
    id: str
    known: Sequence[FileState] = ()

    @property
    def root_path(self) -> bytes:
        """The absolute path of the root."""
        return os.fsencode(os.path.abspath(self.root))

    @property
    def path(self) -> bytes:
        """The absolute path of the skill directory."""
        return self.root_path + b"/" + self.id.encode()


@dataclass(frozen=True)
class OpenSkill:
    """A skill directory, open, and the directories that hold it: its root, its parent."""

    place: Place
    root_fd: int
    parent_fd: int
    leaf: bytes
    fd: int


@dataclass(frozen=True)
class Base:
    """What a change is made of: the SKILL.md, by the name that it has, and the state of all below the directory."""

    name: bytes
    skill_md: bytes
    below: Mapping[bytes, os.stat_result]


@contextlib.contextmanager
def reporting(place: Place, operation: str) -> Iterator[None]:
    """Turn what the kernel refuses into :class:`ReadOnly` or, naming the operation, :class:`Storage`."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _READ_ONLY:
            raise ReadOnly(place.id, place.root, f"{operation} failed: {exc.strerror}") from exc
        raise Storage(errno.errorcode.get(exc.errno or 0, "unknown"), operation) from exc


@contextlib.contextmanager
def reporting_file(place: Place, path: bytes) -> Iterator[None]:
    """Likewise, naming the file that is written; what races others is left to the caller."""
    try:
        yield
    except RACES:
        raise
    except OSError:
        with reporting(place, f"writing {path.decode()}"):
            raise


def invalid(place: Place, findings: Sequence[Finding]) -> SkillInvalid:
    """Return the error that lists findings."""
    path = f"{os.fsdecode(place.root_path)}/{place.id}"
    problems = [Problem(path, "error", one.message, place.id, None, one.field, one.line) for one in findings]
    return SkillInvalid([problem.to_json() for problem in problems])


def check_root(place: Place) -> None:
    """Raise ReadOnly where the root is a symbolic link: readers follow it, writers do not."""
    if os.path.islink(place.root_path):
        raise ReadOnly(place.id, place.root, "its root is a symbolic link")


@contextlib.contextmanager
def opened_skill(place: Place) -> Iterator[OpenSkill]:
    """
    Open a skill directory for as long as the context lasts.

    Raises:
        SkillNotFound: It is not there.
        ReadOnly: A symbolic link leads to it, be it the root itself, or it cannot be opened.
        Storage: The disk refused.
    """
    *parents, leaf = place.id.encode().split(b"/")
    check_root(place)
    with contextlib.ExitStack() as stack:
        with reporting(place, "opening the skill"):
            try:
                root_fd = os.open(place.root_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, root_fd)
                parent_fd = root_fd
                for parent in parents:
                    parent_fd = stack.enter_context(_opened_real(place, parent, parent_fd))
                fd = stack.enter_context(_opened_real(place, leaf, parent_fd))
            except (FileNotFoundError, NotADirectoryError):
                raise SkillNotFound(place.id) from None
        yield OpenSkill(place, root_fd, parent_fd, leaf, fd)


@contextlib.contextmanager
def _opened_real(place: Place, name: bytes, directory_fd: int) -> Iterator[int]:
    if stat.S_ISLNK(os.lstat(name, dir_fd=directory_fd).st_mode):
        raise ReadOnly(place.id, place.root, "a symbolic link leads to it")
    with tree.opened(name, directory_fd) as descriptor:
        yield descriptor


def read_base(skill: OpenSkill, limits: ScanLimits, own: Stamp | None) -> Base:
    """
    Read what a change is to be made of, once nobody seems to be writing it.

    Args:
        skill: The skill.
        limits: How large a SKILL.md may be.
        own: The stamp of the SKILL.md that we wrote last, which needs no time to settle.

    Raises:
        SkillNotFound: There is no SKILL.md.
        SkillInvalid: The SKILL.md is too large or no regular file.
        ReadOnly: The SKILL.md is a symbolic link, or cannot be read.
        Busy: It is being written again and again.
        Storage: The disk refused.
    """
    place, name = skill.place, None
    for _ in range(SETTLE_TRIES):
        with reporting(place, "reading the skill"), contextlib.suppress(FileNotFoundError):
            below = tree.list_below(skill.fd)
            name = next((name for name in SKILL_FILE_NAMES if name in below), None)
            if name is not None:
                if stat.S_ISLNK(below[name].st_mode):
                    raise ReadOnly(place.id, place.root, "its SKILL.md is a symbolic link")
                read = tree.read_file(skill.fd, name, limits.skill_md_bytes)
                if read is None:
                    message = f"SKILL.md is no file, or larger than {limits.skill_md_bytes:,} bytes"
                    raise invalid(place, [Finding("error", message)])
                content, below[name] = read
                if stamp(below[name]) == own or not _may_be_unfinished(content, below[name]):
                    return Base(name, content, below)
        # Editors rename the old file away first, or write in steps.
        time.sleep(RACY_NS / 1e9)
    if name is None:
        raise SkillNotFound(place.id)
    raise Busy(f"skill {place.id!r} is being written")


def _may_be_unfinished(content: bytes, state: os.stat_result) -> bool:
    if is_young(state):
        return True
    if abs(time.time_ns() - state.st_mtime_ns) < UNFINISHED_NS:
        try:
            parse_skill_md(content, None)
        except FrontmatterError:
            return True
    return False


def is_in_place(skill: OpenSkill) -> bool:
    """Tell whether the skill's path still leads to the directory that is open."""
    try:
        now = os.lstat(skill.place.path)
    except OSError:
        return False
    return os.path.samestat(now, os.fstat(skill.fd))


def check_digest(skill: OpenSkill, expected: str, limits: ScanLimits) -> None:
    """
    Compare the digest of what is on the disk now.

    Raises:
        Conflict: It is another one, or there is none.
        Changed: The skill has gone.
        Storage: The disk refused.
    """
    place = skill.place
    path = place.path
    for _ in range(SETTLE_TRIES):
        findings: list[Finding] = []
        with reporting(place, "reading the skill"):
            try:
                with os.scandir(path) as entries:
                    children = sorted(entries, key=lambda child: child.name)
            except FileNotFoundError:
                raise Changed from None
        listed = list(list_files(children, limits.skill_files, findings))
        hashed, is_racy = hash_files(path, listed, place.known, limits.skill_bytes, findings)
        actual = digest_of(path, hashed, findings)
        if not is_racy or actual == expected:
            break
        time.sleep(RACY_NS / 1e9)
    if actual != expected:
        raise Conflict(expected, actual)


def require_writable(skill: OpenSkill) -> None:
    """Raise ReadOnly where a directory of the skill is protected: what is taken away could not be removed then."""
    if not tree.is_writable_below(skill.fd):
        raise ReadOnly(skill.place.id, skill.place.root, "a directory of it cannot be written")


def stamp(state: os.stat_result) -> Stamp:
    """Return what tells one state of a file from the next."""
    return state.st_dev, state.st_ino, state.st_mode, state.st_size, state.st_mtime_ns


def is_same(directory_fd: int, base: Base, replaced: Mapping[bytes, object] | None = None) -> bool:
    """
    Tell whether a skill directory still holds what a change was made of.

    Args:
        directory_fd: The directory, wherever it is by now.
        base: What the change was made of.
        replaced: Files whose content matters; of all others it is shared with the new directory. None is all files.
    """
    now = tree.list_below(directory_fd)
    if now.keys() != base.below.keys():
        return False
    for path, before in base.below.items():
        is_file = not stat.S_ISDIR(before.st_mode)
        length = 5 if is_file and (replaced is None or path in replaced) else 3
        if stamp(now[path])[:length] != stamp(before)[:length]:
            return False
    if replaced is None or base.name in replaced:
        # A second write within the same tick of the clock leaves the stamp as it was.
        read = tree.read_file(directory_fd, base.name, len(base.skill_md))
        return read is not None and read[0] == base.skill_md
    return True
