"""
The files that a caller gives for a skill: the maps ``scripts``, ``references`` and ``assets``.

Owns: nothing; values only.

Source: API, "Skill": keys are paths relative to their folder, whose own prefix is accepted and taken off.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from skilld.skills.model import Finding
from skilld.skills.scanner import ScanLimits

# What Linux takes for the name of a file; what a path below a skill may have, far below what Linux takes.
NAME_LIMIT_BYTES = 255
PATH_LIMIT_BYTES = 1_024
PARTS_LIMIT = 32

# What a file shall hold: text, ``{"base64": bytes}`` as the check of params leaves it, or None to remove the file.
Given: TypeAlias = str | Mapping[str, bytes] | None


def gather_files(
    maps: Mapping[str, Mapping[str, Given] | None],
) -> tuple[dict[str, bytes | None], list[Finding]]:
    """
    Bring the maps to paths relative to the skill directory.

    Args:
        maps: By folder; None is not given.

    Returns:
        The content of every file by its path (None removes it), and an error for every rule that a key breaks.
    """
    files: dict[str, bytes | None] = {}
    findings = []
    for folder, entries in maps.items():
        for key, given in (entries or {}).items():
            path = f"{folder}/{key.removeprefix(folder + '/')}"
            why = _check_key(path)
            if why is None and path in files:
                why = "is given twice"
            if why is not None:
                findings.append(Finding("error", f"{folder}: {key[:200]!r} {why}", folder))
                continue
            files[path] = given.encode() if isinstance(given, str) else None if given is None else given["base64"]
    return files, findings


def check_places(files: Mapping[str, bytes | None], there: Mapping[str, bool]) -> Iterator[Finding]:
    """
    Yield an error for every file that has no place beside the others.

    Args:
        files: What :func:`gather_files` returned.
        there: Every path below the skill directory now; whether it is a directory.
    """
    taken: dict[str, tuple[str, bool]] = {}
    for path, is_directory in there.items():
        if path not in files or is_directory:
            taken[_folded(path)] = (path, is_directory)
    for path, content in files.items():
        if content is None:
            continue
        folder = path.partition("/")[0]
        parts = path.split("/")
        for length in range(1, len(parts) + 1):
            part, is_directory = "/".join(parts[:length]), length < len(parts)
            other, other_is_directory = taken.setdefault(_folded(part), (part, is_directory))
            if other != part:
                yield Finding("error", f"{folder}: {path!r} differs from {other!r} in case only", folder)
                break
            if is_directory != other_is_directory:
                kind = "a directory" if other_is_directory else "a file"
                yield Finding("error", f"{folder}: {path!r} cannot be there, for {other!r} is {kind}", folder)
                break


def check_limits(
    sizes: Mapping[bytes, int], files: Mapping[bytes, bytes | None], skill_md: bytes, limits: ScanLimits
) -> Iterator[Finding]:
    """
    Yield an error for every limit that a change oversteps; a skill that is over one already may become no larger.

    Args:
        sizes: Bytes of every file that is there now, by path.
        files: What is changed.
        skill_md: The path of the SKILL.md.
        limits: How much a skill may hold.
    """
    new_md = files.get(skill_md)
    if new_md is not None and len(new_md) > limits.skill_md_bytes:
        message = f"SKILL.md would have {len(new_md):,} bytes, the limit is {limits.skill_md_bytes:,}"
        yield Finding("error", message, "body")
    after = {**sizes, **{path: len(content) for path, content in files.items() if content is not None}}
    for path, content in files.items():
        if content is None:
            after.pop(path, None)
    if len(sizes) < len(after) > limits.skill_files:
        yield Finding("error", f"the skill would have {len(after):,} files, the limit is {limits.skill_files:,}")
    if sum(sizes.values()) < sum(after.values()) > limits.skill_bytes:
        message = f"the skill would have {sum(after.values()):,} bytes, the limit is {limits.skill_bytes:,}"
        yield Finding("error", message)


def is_script(path: str, content: bytes) -> bool:
    """Tell whether a file gets execute bits: it is below scripts/ and names its interpreter."""
    return path.startswith("scripts/") and content.startswith(b"#!")


def _check_key(path: str) -> str | None:
    """Say why a path below a skill directory cannot be written; None if it can."""
    key = path.partition("/")[2]
    parts = key.split("/")
    if key.startswith("/"):
        return "must be a relative path"
    if any(part in ("", ".", "..") for part in parts):
        return "must not hold empty, '.' or '..' parts"
    # Cc: NUL, and a newline, with which no skill can be attested. Cs: what no text file system can hold.
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in key):
        return "must not hold control characters"
    if any(len(part.encode()) > NAME_LIMIT_BYTES for part in parts):
        return f"has a part of more than {NAME_LIMIT_BYTES} bytes"
    if len(path.encode()) > PATH_LIMIT_BYTES or len(parts) > PARTS_LIMIT:
        return f"is longer than {PATH_LIMIT_BYTES:,} bytes or {PARTS_LIMIT} parts"
    return None


def _folded(path: str) -> str:
    """Return what two paths share that a file system without case could not tell apart."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
