"""
Skills on this machine's disk, read without a daemon, to be compared with what one says.

Owns: nothing. Reads the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from skilld.config import IGNORED_DIRS, Limits
from skilld.skills.model import Skill
from skilld.skills.scanner import Entry, ScanLimits, scan


def read_skills(directories: Iterable[str]) -> list[Skill]:
    """Return the skills below some roots as a daemon with the default limits serves them; the earlier root wins."""
    entries: dict[str, Entry] = {}
    for directory in directories:
        for entry in scan(os.path.abspath(directory), "", {}, _bounds()):
            entries.setdefault(entry.id, entry)
    return [entry.skill for entry in entries.values() if entry.skill is not None]


def read_entry(directory: str) -> Entry | None:
    """Return what one skill directory holds; None where it is hidden."""
    return next(iter(scan(os.path.dirname(directory), os.path.basename(directory), {}, _bounds())), None)


def _bounds() -> ScanLimits:
    limits = Limits()
    return ScanLimits(
        limits.skill_md_bytes, limits.skill_files, limits.skill_bytes, limits.depth, frozenset(IGNORED_DIRS)
    )
