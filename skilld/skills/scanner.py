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
from dataclasses import dataclass, field, replace

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
    real_path,
    resources_of,
    show,
)
from skilld.skills.frontmatter import body_of, parse_skill_md
from skilld.skills.lenient_yaml import FrontmatterError
from skilld.skills.model import SKILL_FILE_NAMES, Finding, Problem, Skill

# How often links behind links may lead to one directory: twenty directories, each with links to all the others, make
# millions of paths of six parts.
FOLLOW_LIMIT = 64


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """What a scan is bounded by; see ``config.Limits``. ``ignore`` holds directory names."""

    skill_md_bytes: int
    skill_files: int
    skill_bytes: int
    depth: int
    ignore: frozenset[str]

    def key(self) -> tuple[object, ...]:
        """What two scans with the same results share, in a form that is the same in every process."""
        return (self.skill_md_bytes, self.skill_files, self.skill_bytes, self.depth, tuple(sorted(self.ignore)))


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One skill directory as a scan saw it; the unit that the registry keeps.

    ``skill`` is None where it cannot be served. ``is_linked`` says that a symbolic link leads to the directory or its
    SKILL.md, so that inotify may not see edits behind it. ``is_racy`` says that a file was being written, so that
    another look is due.
    """

    id: str  # ends in "/" where the path is not UTF-8, so that it is no skill's
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
    path, place = walk.root_path, _Place(real_path(walk.root_path))
    for part in parts:
        # What lies inside a skill is one of its files.
        if path != walk.root_path and any(os.path.lexists(path + b"/" + name) for name in SKILL_FILE_NAMES):
            return
        path += b"/" + part
        below_place = place.behind_link(part) if os.path.islink(path) else place.below(part)
        if below_place is None:
            return
        place = below_place
    yield from walk.directory(b"/".join(parts), place)


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


@dataclass(frozen=True, slots=True)
class _Place:
    """
    Where a walk is: the directory's real path, and those of the directories in which the links stood that led to it.
    """

    real: bytes
    crossed: tuple[bytes, ...] = ()

    @property
    def is_linked(self) -> bool:
        return bool(self.crossed)

    def below(self, name: bytes) -> _Place:
        return _Place(self.real.rstrip(b"/") + b"/" + name, self.crossed)

    def behind_link(self, name: bytes) -> _Place | None:
        """Return where a link in this directory leads; None where that is a directory that the walk is in."""
        target = real_path(self.real + b"/" + name)
        inside = target.rstrip(b"/") + b"/"
        crossed = (*self.crossed, self.real)
        if any((place + b"/").startswith(inside) for place in crossed):
            return None
        return _Place(target, crossed)


@dataclass(frozen=True, slots=True)
class _Walk:
    """One walk through a root; ``followed`` counts how often links behind links have led to a real path."""

    root: str
    root_path: bytes
    known: Mapping[str, Entry]
    limits: ScanLimits
    followed: dict[bytes, int] = field(default_factory=dict)

    def skips(self, name: bytes) -> bool:
        return name.startswith(b".") or os.fsdecode(name) in self.limits.ignore

    def directory(self, relative: bytes, place: _Place) -> Iterator[Entry]:
        path = self.root_path + b"/" + relative if relative else self.root_path
        try:
            with os.scandir(path) as listing:
                children = sorted(listing, key=lambda child: child.name)
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
                finding = Finding("error", f"cannot be read: {exc.strerror}")
                yield self.broken(relative, finding, place.is_linked)
            return
        if relative:
            names = {child.name for child in children}
            for skill_md in SKILL_FILE_NAMES:
                if skill_md in names:
                    yield self.skill(relative, skill_md, children, place.is_linked)
                    return
            if relative.count(b"/") + 1 == self.limits.depth:
                return
        for child in children:
            if not _is_dir(child) or self.skips(child.name):
                continue
            below = relative + b"/" + child.name if relative else child.name
            if not child.is_symlink():
                yield from self.directory(below, place.below(child.name))
            elif behind := place.behind_link(child.name):
                yield from self.link(below, behind)

    def link(self, relative: bytes, place: _Place) -> Iterator[Entry]:
        """Follow a link to a directory, unless it leads once too often to the same place."""
        count = 0
        if len(place.crossed) > 1:
            count = self.followed[place.real] = self.followed.get(place.real, 0) + 1
        if count <= FOLLOW_LIMIT:
            yield from self.directory(relative, place)
        elif count == FOLLOW_LIMIT + 1:
            message = f"not followed: more than {FOLLOW_LIMIT} paths lead through links to {show(place.real)}"
            yield self.broken(relative, Finding("error", message), True)

    def broken(self, relative: bytes, finding: Finding, is_linked: bool) -> Entry:
        """An entry that is not served, for what could not even be listed."""
        shown = relative.decode(errors="backslashreplace")
        problem = _problem(self.root_path + b"/" + relative, shown, None, finding)
        id = shown if _is_utf8(relative) else shown + "/"
        return Entry(id, (), None, (problem,), is_linked, False)

    def skill(self, relative: bytes, skill_md: bytes, children: Sequence[os.DirEntry[bytes]], is_linked: bool) -> Entry:
        """Read one skill directory, or return the known entry where nothing changed."""
        directory = self.root_path + b"/" + relative
        path = directory + b"/" + skill_md
        if not _is_utf8(relative):
            return self.broken(relative, Finding("error", "the directory's name is not UTF-8"), is_linked)
        id = relative.decode()
        findings: list[Finding] = []
        files = list(list_files(children, self.limits.skill_files, findings))
        if any(file.path == skill_md and file.mark == "@" for file in files):
            is_linked = True
            # The listing holds the link; what is served are the bytes of its target.
            files.append(FileState(TARGET, _target_identity(path), 0, None, "?"))
        known = self.known.get(id)
        is_passing = False
        if known is not None and known.is_linked == is_linked and _same_files(known.files, files):
            return known
        try:
            content, state, is_racy = read_regular(path, self.limits.skill_md_bytes)
            text = parse_skill_md(content, os.path.basename(id))
        except FileTooLarge:
            error = Finding("error", f"larger than {self.limits.skill_md_bytes:,} bytes (limits.skill_md_bytes)")
        except OSError as exc:
            error = Finding("error", f"cannot be read: {exc.strerror}")
            is_passing = True  # perhaps: too many open files, a network that is down
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
            entry = Entry(id, hashed, skill, skill.problems, is_linked, is_racy or racy_file)
            return known if known == entry else entry
        is_racy = _is_recent(path)
        problem = _problem(path, id, None, error)
        files_seen = _forget(files, skill_md) if is_racy or is_passing else tuple(files)
        entry = Entry(id, files_seen, None, (problem,), is_linked, is_racy)
        return known if known == entry else entry


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


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
