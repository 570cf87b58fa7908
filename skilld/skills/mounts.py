"""
Whether inotify can be relied upon for a directory tree.

Owns: nothing; reads the mount table and walks directories, so it blocks.

Source: proc_pid_mountinfo(5); inotify(7), "Limitations and caveats".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

# File systems whose other users' edits make no event here.
REMOTE_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "glusterfs", "afs", "lustre")


def reason_to_poll(directories: Iterable[str], mountinfo: str = "/proc/self/mountinfo") -> str | None:
    """Return why edits below one of the (real) directories may make no event, or None."""
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            table = parse_mountinfo(file)
    except OSError:
        return None
    for directory in directories:
        kind = file_system_of(directory, table)
        if kind in REMOTE_FILE_SYSTEMS or kind.startswith("fuse."):
            return f"{directory} is on {kind}, which does not report the edits of others"
    return None


def parse_mountinfo(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Return (mount point, file system type) in the order of the table; a later mount hides an earlier one."""
    table = []
    for line in lines:
        fields, _, rest = line.partition(" - ")
        # The kernel writes space, tab, newline and backslash as octal escapes.
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields.split(" ")[4])
        table.append((point, rest.split(" ")[0]))
    return table


def file_system_of(path: str, table: Sequence[tuple[str, str]]) -> str:
    """Return the file system type of the mount that holds an absolute, real path."""
    best, kind = "", ""
    for point, found in table:
        inside = point == "/" or path == point or path.startswith(point + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def count_directories(directories: Iterable[str], limit: int) -> int:
    """
    Count the directories that a recursive watch would watch, links followed as notify follows them.

    Stops once the count exceeds ``limit``.
    """
    count = 0
    pending = [(os.fsencode(directory), frozenset[tuple[int, int]]()) for directory in directories]
    while pending and count <= limit:
        path, above = pending.pop()
        count += 1
        try:
            with os.scandir(path) as listing:
                for child in listing:
                    if not _is_dir(child):
                        continue
                    if not child.is_symlink():
                        pending.append((child.path, above))
                        continue
                    state = child.stat()
                    identity = (state.st_dev, state.st_ino)
                    if identity not in above:  # a loop is entered once, where notify stops at once
                        pending.append((child.path, above | {identity}))
        except OSError:
            continue
    return count


def _is_dir(child: os.DirEntry[bytes]) -> bool:
    try:
        return child.is_dir()
    except OSError:  # a link that loops
        return False
