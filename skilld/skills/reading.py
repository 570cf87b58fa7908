"""
Reading single files of a skill on behalf of a caller.

Every component of a path is opened beneath the skill directory without following links, so that no file outside can be
read, whatever happens on the disk meanwhile. A link to a file of the same skill is read as that file.

Owns: nothing. Blocks on the disk.

Source: openat(2), "Rationale"; API, ``skills.read_file``.
"""

from __future__ import annotations

import os
import stat

from skilld.errors import FileNotFound, quote
from skilld.skills.model import Skill


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
        The bytes, cut back to a whole UTF-8 character where the slice would end in the middle of one; and the file's
        size.

    Raises:
        FileNotFound: No such file, or it is not a regular file inside the skill.
    """
    try:
        descriptor = _open_below(skill.path, path)
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise OSError("not a regular file")
            content = os.pread(descriptor, limit, offset)
        finally:
            os.close(descriptor)
    # ValueError: the path is no text that the file system can hold.
    except (OSError, ValueError) as exc:
        raise FileNotFound(skill.id, path) from exc
    size = max(state.st_size, offset + len(content)) if content else state.st_size
    return (content if offset + len(content) >= size else _whole_characters(content)), size


def _open_below(directory: str, path: str) -> int:
    """Open a file below a directory; only its SKILL.md may be a link that leads out."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    full = f"{directory}/{path}"
    if path in ("SKILL.md", "skill.md"):
        if not stat.S_ISREG(os.stat(full).st_mode):
            raise OSError("not a regular file")
        return os.open(full, flags)
    base = os.path.realpath(directory)
    real = os.path.realpath(full)
    if not real.startswith(base + "/"):
        raise OSError("leads out of the skill")
    current = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *parents, name = os.path.relpath(real, base).split("/")
        for parent in parents:
            below = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = below
        if not stat.S_ISREG(os.stat(name, dir_fd=current, follow_symlinks=False).st_mode):
            raise OSError("not a regular file")
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=current)
    finally:
        os.close(current)


def _whole_characters(content: bytes) -> bytes:
    """Cut an unfinished UTF-8 character off the end, where there is a whole one before it."""
    for length in range(1, min(4, len(content))):
        lead = content[-length]
        if lead & 0xC0 == 0x80:
            continue  # a byte that continues a character
        needed = 2 if lead & 0xE0 == 0xC0 else 3 if lead & 0xF0 == 0xE0 else 4 if lead & 0xF8 == 0xF0 else 1
        return content[:-length] if length < needed and length < len(content) else content
    return content
