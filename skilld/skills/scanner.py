"""
Reading skills from disk: which directories are skills, and what each one holds.

A scan is level-triggered: it looks at what is there now and never trusts an event. A skill directory whose files all
have the identity of the last look is not read again. Nothing that lies on the disk stops a scan: what cannot be read
becomes a problem.

Owns: nothing. It blocks on the disk, so the daemon calls it from a thread.

Source: API, "What is a skill"; path_resolution(7).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from skilld.skills.files import (
    TARGET,
    FileState,
    FileTooLarge,
    digest_of,
    hash_files,
    identity_of,
    is_young,
    list_files,
    read_regular,
    resources_of,
)
from skilld.skills.frontmatter import body_of, parse_skill_md
from skilld.skills.lenient_yaml import FrontmatterError
from skilld.skills.model import SKILL_FILE_NAMES, Finding, Problem, Skill


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """What a scan is bounded by; see ``config.Limits``. ``ignore`` holds directory names."""

    skill_md_bytes: int
    skill_files: int
    skill_bytes: int
    depth: int
    ignore: frozenset[str]


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One skill directory as a scan saw it; the unit that the registry keeps.

    ``skill`` is None where it cannot be served. ``is_linked`` says that a symbolic link leads to the directory or its
    SKILL.md, so that inotify may not see edits behind it. ``is_racy`` says that a file was being written, so that
    another look is due.
    """

    id: str
    files: tuple[FileState, ...]
    skill: Skill | None
    problems: tuple[Problem, ...]
    is_linked: bool
    is_racy: bool


def scan(root: str, below: str, known: Mapping[str, Entry], limits: ScanLimits) -> Iterator[Entry]:
    """
    Yield an entry for every skill directory in a part of a root.

    Args:
        root: The root's path as configured; one that is missing holds no skills.
        below: Where to look, relative to the root: "" is all of it, "team-a/deploy" one directory.
        known: Entries of the last scan by id; those whose files are unchanged are yielded as they are.
        limits: Bounds.
    """
    walk = _Walk(root, os.fsencode(os.path.abspath(root)), known, limits)
    parts = [part for part in os.fsencode(below).split(b"/") if part]
    if any(walk.skips(part) for part in parts) or len(parts) > limits.depth:
        return
    path, crossed = walk.root_path, _cross((), walk.root_path)
    for part in parts:
        # What lies inside a skill is one of its files.
        if path != walk.root_path and any(os.path.lexists(path + b"/" + name) for name in SKILL_FILE_NAMES):
            return
        path += b"/" + part
        if os.path.islink(path):
            if _is_loop(crossed, path):
                return
            crossed = _cross(crossed, path)
    yield from walk.directory(b"/".join(parts), crossed)


def read_body(skill: Skill, limit_bytes: int) -> str | None:
    """
    Return the body of a skill, or None where its SKILL.md is no longer the one that was indexed.

    Args:
        skill: An indexed skill.
        limit_bytes: The most that a SKILL.md may hold.
    """
    try:
        content, _, _ = read_regular(os.fsencode(skill.skill_md), limit_bytes)
    except (OSError, FileTooLarge):
        return None
    if hashlib.sha256(content).hexdigest() != skill.skill_md_sha256:
        return None
    return body_of(content)


def _cross(crossed: tuple[bytes, ...], path: bytes) -> tuple[bytes, ...]:
    """Note the real path of the directory that holds a link, or of the root: what a loop would lead back to."""
    return (*crossed, os.path.realpath(os.path.dirname(path)))


def _is_loop(crossed: tuple[bytes, ...], path: bytes) -> bool:
    """Tell whether a link leads back to a directory that the walk is in."""
    target = os.path.realpath(path)
    above = (*crossed[1:], os.path.realpath(os.path.dirname(path)))
    return any(place == target or place.startswith(target + b"/") for place in above)


@dataclass(frozen=True, slots=True)
class _Walk:
    """
    One walk through a root. A method's ``crossed`` holds the real paths of the directories in which the links stood
    that led to it, the root's parent first.
    """

    root: str
    root_path: bytes
    known: Mapping[str, Entry]
    limits: ScanLimits

    def skips(self, name: bytes) -> bool:
        return name.startswith(b".") or os.fsdecode(name) in self.limits.ignore

    def directory(self, relative: bytes, crossed: tuple[bytes, ...]) -> Iterator[Entry]:
        path = self.root_path + b"/" + relative if relative else self.root_path
        try:
            with os.scandir(path) as listing:
                children = sorted(listing, key=lambda child: child.name)
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
                finding = Finding("error", f"cannot be read: {exc.strerror}")
                yield self.broken(relative, finding, len(crossed) > 1)
            return
        if relative:
            names = {child.name for child in children}
            for skill_md in SKILL_FILE_NAMES:
                if skill_md in names:
                    yield self.skill(relative, skill_md, children, len(crossed) > 1)
                    return
            if relative.count(b"/") + 1 == self.limits.depth:
                return
        for child in children:
            if not _is_dir(child) or self.skips(child.name):
                continue
            below = relative + b"/" + child.name if relative else child.name
            if not child.is_symlink():
                yield from self.directory(below, crossed)
            elif not _is_loop(crossed, child.path):
                yield from self.directory(below, _cross(crossed, child.path))

    def broken(self, relative: bytes, finding: Finding, is_linked: bool) -> Entry:
        """An entry that is not served, for what could not even be listed."""
        id = relative.decode(errors="backslashreplace")
        problem = _problem(self.root_path + b"/" + relative, id, None, finding)
        return Entry(id, (), None, (problem,), is_linked, False)

    def skill(self, relative: bytes, skill_md: bytes, children: Sequence[os.DirEntry[bytes]], is_linked: bool) -> Entry:
        """Read one skill directory, or return the known entry where nothing changed."""
        directory = self.root_path + b"/" + relative
        path = directory + b"/" + skill_md
        try:
            id = relative.decode()
        except UnicodeDecodeError:
            return self.broken(relative, Finding("error", "the directory's name is not UTF-8"), is_linked)
        findings: list[Finding] = []
        files = list(list_files(children, self.limits.skill_files, findings))
        if any(file.path == skill_md and file.mark == "@" for file in files):
            is_linked = True
            # The listing holds the link; what is served are the bytes of its target.
            files.append(FileState(TARGET, _target_identity(path), 0, None, "?"))
        known = self.known.get(id)
        if known is not None and _same_files(known.files, files):
            return known
        try:
            content, state, is_racy = read_regular(path, self.limits.skill_md_bytes)
            text = parse_skill_md(content, os.path.basename(id))
        except FileTooLarge:
            error = Finding("error", f"larger than {self.limits.skill_md_bytes:,} bytes (limits.skill_md_bytes)")
        except OSError as exc:
            error = Finding("error", f"cannot be read: {exc.strerror}")
        except FrontmatterError as exc:
            error = exc.finding
        else:
            sha256 = hashlib.sha256(content).hexdigest()
            if not is_linked or files[-1].path != TARGET:
                files = [replace(file, sha256=sha256) if file.path == skill_md else file for file in files]
            known_files = known.files if known else ()
            hashed, racy_file = hash_files(directory, files, known_files, self.limits.skill_bytes, findings)
            digest = digest_of(directory, hashed, findings)
            name = text.name or os.path.basename(id)
            skill = Skill(
                id=id,
                name=name,
                description=text.description,
                license=text.license,
                compatibility=text.compatibility,
                metadata=text.metadata,
                allowed_tools=text.allowed_tools,
                frontmatter=text.frontmatter,
                resources=tuple(resources_of(directory, hashed, skill_md)),
                path=os.fsdecode(directory),
                root=self.root,
                skill_md=os.fsdecode(path),
                skill_md_sha256=sha256,
                digest=digest,
                modified_ns=state.st_mtime_ns,
                problems=(
                    *(_problem(path, id, name, finding) for finding in text.findings),
                    *(_problem(directory, id, name, finding) for finding in findings),
                ),
            )
            if known is not None and known.skill is not None and _same_content(skill, known.skill):
                skill = known.skill  # touched, not changed
            if is_racy:
                hashed = _forget(hashed, skill_md)
            return Entry(id, hashed, skill, skill.problems, is_linked, is_racy or racy_file)
        is_racy = _is_recent(path)
        problem = _problem(path, id, None, error)
        return Entry(id, _forget(files, skill_md) if is_racy else tuple(files), None, (problem,), is_linked, is_racy)


def _is_dir(child: os.DirEntry[bytes]) -> bool:
    try:
        return child.is_dir()
    except OSError:  # a link that loops
        return False


def _same_files(known: Sequence[FileState], listed: Sequence[FileState]) -> bool:
    return len(known) == len(listed) and all(
        old.path == new.path and old.identity == new.identity for old, new in zip(known, listed, strict=True)
    )


def _same_content(skill: Skill, known: Skill) -> bool:
    return replace(skill, modified_ns=known.modified_ns) == known


def _forget(files: Sequence[FileState], skill_md: bytes) -> tuple[FileState, ...]:
    """Drop the SKILL.md's identity, so that the next scan reads it again."""
    return tuple(replace(file, identity=b"") if file.path in (skill_md, TARGET) else file for file in files)


def _problem(path: bytes, id: str, name: str | None, finding: Finding) -> Problem:
    return Problem(
        path.decode(errors="backslashreplace"), finding.severity, finding.message, id, name, finding.field, finding.line
    )


def _target_identity(path: bytes) -> bytes:
    try:
        return identity_of(os.stat(path))
    except OSError:
        return b"missing"


def _is_recent(path: bytes) -> bool:
    try:
        return is_young(os.stat(path))
    except OSError:
        return False
