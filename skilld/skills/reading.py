"""
Reading single files of a skill on behalf of a caller.

Every component of a path is opened beneath the skill directory without following links, so that no file outside can be
read, whatever happens on the disk meanwhile. A link to a file of the same skill is read as that file.

Owns: nothing. Blocks on the disk.

Source: openat(2), "Rationale"; API, ``skills.read_file``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat

from skilld.errors import FileNotFound, quote
from skilld.skills.model import Skill

# Far above any limit on a SKILL.md; keeps the look at one from taking long.
LINKED_LIMIT_BYTES = 64 * 1024 * 1024


def check_path(path: str) -> None:
    """Raise ValueError, naming the path, where it cannot name a file below a skill directory."""
    if "\0" in path:
        raise ValueError(f"must not hold NUL: {quote(path)}")
    if path.startswith("/"):
        raise ValueError(f"must be relative to the skill directory, not {quote(path)}")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"must not hold empty, '.' or '..' parts: {quote(path)}")


def read_slice(skill: Skill, path: str, offset: int, limit: int) -> tuple[bytes, int]:
    """
    Read a slice of one file of a skill.

    Args:
        skill: An indexed skill.
        path: Relative to the skill directory; :func:`check_path` accepts it.
        offset: Bytes to pass over.
        limit: Bytes to read at most.

    Returns:
        The bytes, cut back to a whole character where UTF-8 text would end in the middle of one; and the file's size.

    Raises:
        FileNotFound: No such file, or it is not a regular file inside the skill.
    """
    try:
        descriptor = _open_below(skill, path)
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            content = os.pread(descriptor, limit, offset) if offset <= state.st_size else b""
        finally:
            os.close(descriptor)
    # ValueError: the path is no text that the file system can hold.
    except (OSError, ValueError) as exc:
        raise FileNotFound(skill.id, path) from exc
    size = max(state.st_size, offset + len(content)) if content else state.st_size
    return (content if offset + len(content) >= size else _whole_characters(content)), size


def _open_below(skill: Skill, path: str) -> int:
    """Open a file below a skill directory; only its SKILL.md may be a link that leads out."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    base = os.path.realpath(skill.path)
    real = os.path.realpath(f"{skill.path}/{path}")
    if not real.startswith(base.rstrip("/") + "/"):
        if path != os.path.basename(skill.skill_md):
            raise OSError(errno.EXDEV, "leads out of the skill")
        return _open_linked_skill_md(skill, flags)
    current = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *parents, name = os.path.relpath(real, base).split("/")
        for parent in parents:
            below = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = below
        if not stat.S_ISREG(os.stat(name, dir_fd=current, follow_symlinks=False).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=current)
    finally:
        os.close(current)


def _open_linked_skill_md(skill: Skill, flags: int) -> int:
    """Open a SKILL.md outside the skill directory, if it holds what was indexed: the link may lead elsewhere by now."""
    if not stat.S_ISREG(os.stat(skill.skill_md).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    descriptor = os.open(skill.skill_md, flags)
    try:
        if os.fstat(descriptor).st_size > LINKED_LIMIT_BYTES:
            raise OSError(errno.EFBIG, "too large to be a SKILL.md")
        with open(descriptor, "rb", closefd=False) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != skill.skill_md_sha256:
                raise OSError(errno.ESTALE, "not the SKILL.md that was indexed")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _whole_characters(content: bytes) -> bytes:
    """Cut an unfinished character off the end of UTF-8 text, where there is a whole one before it."""
    try:
        content.decode()
    except UnicodeDecodeError as exc:
        if exc.reason == "unexpected end of data" and exc.start > 0:
            return content[: exc.start]
    return content
