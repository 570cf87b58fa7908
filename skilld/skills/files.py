"""
The files below a skill directory: listed, told apart by identity, read and hashed without ever blocking for long.

What lies in a skill directory may be anything: a FIFO, a device, a file that grows while it is read. Nothing here
follows a symbolic link below the directory, except that a SKILL.md may be one.

Owns: nothing. Blocks on the disk.

Source: inode(7), open(2); API, "Attested skills" for what a digest covers.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from skilld.skills.digest import ListedFile, skill_digest
from skilld.skills.model import Finding, Resource

# A file written less than this long ago may be written again within the same time stamp; kernels before 6.13 count
# file times in steps of 4 ms.
RACY_NS = 20_000_000

_READ_BYTES = 1 << 20
_LINK_TRIES = 10
_64_BITS = (1 << 64) - 1
# The target of a SKILL.md that is a link stands beside the listing under this path, which no file can have.
TARGET = b""
# Stands for all files beyond the limit, so that they count as a change only when the limit does.
_BEYOND = b"\0"


class FileTooLarge(Exception):
    """A file holds more than the caller wants to read."""


@dataclass(frozen=True, slots=True)
class FileState:
    """
    One file below a skill directory as a scan saw it.

    ``identity`` packs device, inode, mode, size, mtime and ctime; it is empty where the file must be read again next
    time. ``sha256`` is None for what was not hashed: over a limit, unreadable, or no regular file. ``mark`` is the
    digest's: "*", " ", "@" for a link, "?" for anything that is neither file nor link.
    """

    path: bytes
    identity: bytes
    size: int
    sha256: str | None
    mark: str


def identity_of(state: os.stat_result) -> bytes:
    """Pack what tells one state of a file from the next."""
    # Nanoseconds since 1970 leave 64 bits in 2262; file systems hold later times.
    times = (state.st_mtime_ns & _64_BITS, state.st_ctime_ns & _64_BITS)
    return struct.pack("6Q", state.st_dev, state.st_ino, state.st_mode, state.st_size, *times)


def list_files(
    children: Sequence[os.DirEntry[bytes]], limit_count: int, findings: list[Finding]
) -> Iterator[FileState]:
    """
    Yield every file below a skill directory, in a stable order, links not followed.

    Args:
        children: The directory's own entries, sorted by name.
        limit_count: At most so many, below at most as many directories; then one finding.
        findings: Gets a warning for each thing that cannot be read.
    """
    count = directory_count = 0
    pending: list[tuple[bytes, Sequence[os.DirEntry[bytes]]]] = [(b"", children)]
    while pending:
        prefix, entries = pending.pop()
        for entry in entries:
            path = prefix + entry.name
            try:
                is_directory = entry.is_dir(follow_symlinks=False)
                if (directory_count if is_directory else count) == limit_count:
                    kind = "directories" if is_directory else "files"
                    message = f"more than {limit_count:,} {kind} (limits.skill_files)"
                    findings.append(Finding("warning", message, "digest"))
                    yield FileState(_BEYOND, _BEYOND, 0, None, "?")
                    return
                if is_directory:
                    directory_count += 1
                    with os.scandir(entry.path) as listing:
                        pending.append((path + b"/", sorted(listing, key=lambda child: child.name)))
                    continue
                count += 1
                state = entry.stat(follow_symlinks=False)
            except OSError as exc:
                findings.append(Finding("warning", f"{show(path)} cannot be read: {exc.strerror}"))
                yield FileState(path, b"", 0, None, "?")
                continue
            mark = "?"
            if stat.S_ISREG(state.st_mode):
                mark = "*" if state.st_mode & 0o111 else " "
            elif stat.S_ISLNK(state.st_mode):
                mark = "@"
            yield FileState(path, identity_of(state), state.st_size, None, mark)


def hash_files(
    directory: bytes,
    files: Sequence[FileState],
    known: Sequence[FileState],
    limit_bytes: int,
    findings: list[Finding],
) -> tuple[tuple[FileState, ...], bool]:
    """
    Fill in the hashes that are missing.

    Args:
        directory: The skill directory.
        files: As listed; those with a hash keep it, within the limit.
        known: The last scan's; a file of the same identity is not read again.
        limit_bytes: Files beyond so many bytes in all stay without a hash, with a warning.
        findings: Gets a warning for each file that cannot be read.

    Returns:
        The files, and whether one of them is being written.
    """
    before = {file.path: file for file in known}
    is_racy = False
    hashed = []
    for file in files:
        if file.mark in "* ":
            limit_bytes -= file.size
        old = before.get(file.path)
        sha256, racy = file.sha256, False
        if file.mark == "?" or limit_bytes < 0:
            hashed.append(replace(file, sha256=None))
            continue
        if sha256 is not None:
            hashed.append(file)
            continue
        if old is not None and old.sha256 is not None and old.identity == file.identity:
            sha256 = old.sha256
        elif file.mark == "@":
            sha256 = _link_sha256(directory + b"/" + file.path)
        else:
            sha256, racy = _file_sha256(directory + b"/" + file.path, file.size)
        if sha256 is None:
            findings.append(Finding("warning", f"{show(file.path)} cannot be read"))
        is_racy = is_racy or racy
        # What could not be read is read again: the reason may have been a passing one, such as too many open files.
        hashed.append(replace(file, sha256=sha256, identity=b"" if racy or sha256 is None else file.identity))
    if limit_bytes < 0:
        findings.append(Finding("warning", "larger than limits.skill_bytes allows", "digest"))
    return tuple(hashed), is_racy


def digest_of(directory: bytes, files: Sequence[FileState], findings: list[Finding]) -> str | None:
    """Return the skill's digest, or None and a finding that says why it has none."""
    files = [file for file in files if file.path != TARGET]
    base = _real(directory, files)
    reasons = []
    for file in files:
        if b"\n" in file.path:
            reasons.append(f"the path {show(file.path)} holds a newline")
        elif file.mark == "@" and not _is_below(real_path(directory + b"/" + file.path), base):
            reasons.append(f"the link {show(file.path)} leads out of the skill")
        elif file.mark == "?" and file.path != _BEYOND:
            reasons.append(f"{show(file.path)} is neither a file nor a link, or cannot be read")
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        findings.append(Finding("warning", f"cannot be attested: {reasons[0]}{more}", "digest"))
    if reasons or any(file.sha256 is None for file in files):
        return None
    return skill_digest(ListedFile(file.path, file.sha256 or "", file.mark) for file in files)


def resources_of(directory: bytes, files: Sequence[FileState], skill_md: bytes) -> Iterator[Resource]:
    """Yield what a caller can read beside the SKILL.md: files, and links that lead to files of the same skill."""
    if len(files) == 1 and files[0].path == skill_md:
        return  # nine skills out of ten
    base = _real(directory, files)
    by_path = {file.path: file for file in files}
    for file in sorted(files, key=lambda file: file.path):
        resource = file
        if file.mark == "@":
            target = real_path(directory + b"/" + file.path)
            resource = by_path.get(os.path.relpath(target, base), file) if _is_below(target, base) else file
        if resource.mark not in "* " or file.path == skill_md:
            continue
        try:
            path = file.path.decode()
        except UnicodeDecodeError:
            continue  # no JSON text can name it; the digest covers it
        yield Resource(path, resource.size, resource.sha256, resource.mark == "*")


def read_regular(path: bytes, limit_bytes: int) -> tuple[bytes, os.stat_result, bool]:
    """
    Read a regular file whole; a symbolic link is followed.

    Returns:
        The bytes, the file's state, and whether it may still be changing.

    Raises:
        OSError: It cannot be read, or is no regular file.
        FileTooLarge: It holds more than ``limit_bytes``.
    """
    # A look first: opening a device or a FIFO can act on it.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if before.st_size > limit_bytes:
            raise FileTooLarge
        content = os.read(descriptor, before.st_size + 1)
        # More only where the file grew, or hides its size as /proc does.
        while len(content) != before.st_size and (chunk := os.read(descriptor, _READ_BYTES)):
            content += chunk
            if len(content) > limit_bytes:
                raise FileTooLarge
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return content, after, identity_of(before) != identity_of(after) or len(content) != after.st_size or is_young(after)


def is_young(state: os.stat_result) -> bool:
    """Tell whether a file was written so recently that its time stamp may not tell the next write."""
    return abs(time.time_ns() - state.st_mtime_ns) < RACY_NS


def real_path(path: bytes) -> bytes:
    """
    Return where a path leads, all links followed.

    ``os.path.realpath`` raises where a link goes, or becomes something else, between its two looks at it (Python 3.11).
    A path that keeps on changing leads nowhere else.
    """
    for _ in range(_LINK_TRIES):
        try:
            return os.path.realpath(path)
        except OSError:
            continue
    return path


def show(path: bytes) -> str:
    """Return a path for a message, whatever its bytes."""
    return repr(path.decode(errors="backslashreplace"))


def _file_sha256(path: bytes, size: int) -> tuple[str | None, bool]:
    """Return the hex digest of a regular file (None where it cannot be read) and whether it is being written."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY)
    except OSError:
        return None, False
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            return None, True
        digest = hashlib.sha256()
        left = size
        # No further than the size that was listed: a file that grows for ever must not hold the scan.
        while left >= 0 and (chunk := os.read(descriptor, min(_READ_BYTES, left + 1))):
            digest.update(chunk)
            left -= len(chunk)
        after = os.fstat(descriptor)
    except OSError:
        return None, False
    finally:
        os.close(descriptor)
    return digest.hexdigest(), left != 0 or identity_of(before) != identity_of(after) or is_young(after)


def _link_sha256(path: bytes) -> str | None:
    try:
        return hashlib.sha256(os.readlink(path)).hexdigest()
    except OSError:
        return None


def _real(directory: bytes, files: Sequence[FileState]) -> bytes:
    """Resolve the skill directory, which costs a call a component, where a link among its files asks for it."""
    return real_path(directory) if any(file.mark == "@" for file in files) else directory


def _is_below(path: bytes, base: bytes) -> bool:
    return path == base or path.startswith(base + b"/")
