"""
What a daemon knew when it ended, kept on disk so that the next one starts in a fraction of the time.

The cache holds the entries of the last scan and the search index that was made of them. It can never serve what is no
longer there: the first scan compares every file's identity with the entry's, as every later scan does, and reads what
differs. A cache that is damaged, or of another version, configuration or library, counts as none.

Owns: the cache file. Blocks on the disk.

Source: API, "Configuration"; measured: 10 us a skill instead of 450.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import marshal
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import skilld
from skilld.skills.files import FileState
from skilld.skills.model import Problem, Resource, Skill
from skilld.skills.scanner import Entry, ScanLimits
from skilld.skills.search import PREPARED_VERSION, Index

log = logging.getLogger(__name__)

FORMAT = 1
# marshal holds the interpreter; a slice of so many entries takes some milliseconds.
SLICE = 250
_PAUSE_S = 0.001


@dataclass(frozen=True)
class Cached:
    """The entries of every root by id, and the index of the skills that they served."""

    entries: tuple[dict[str, Entry], ...]
    index: Index


def cache_key(roots: tuple[str, ...], limits: ScanLimits) -> str:
    """Return what a cache must have been made with to be of any use: this very code, roots and limits."""
    parts = (FORMAT, PREPARED_VERSION, skilld.__version__, _code(), sys.version, sys.byteorder, roots, limits.key())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _code() -> list[tuple[str, int, int]]:
    """Name, size and time stamp of every module that has a say in what a skill is read as."""
    with os.scandir(os.path.dirname(__file__)) as listing:
        states = [(entry.name, entry.stat()) for entry in listing if entry.name.endswith(".py")]
    return sorted((name, state.st_size, state.st_mtime_ns) for name, state in states)


def save_cache(directory: str, key: str, entries: tuple[dict[str, Entry], ...], index_state: tuple[Any, ...]) -> None:
    """
    Write the cache, in one step.

    Args:
        directory: Made where it is missing.
        key: What :func:`cache_key` returned.
        entries: Of every root, by id.
        index_state: The dump of the index of just the skills that they serve.

    Raises:
        OSError: The directory cannot be made or written.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    descriptor, path = tempfile.mkstemp(prefix=".cache-", dir=directory)
    try:
        with open(descriptor, "wb") as file:
            checksum = hashlib.sha256()
            file.write(_header(key, b"\0" * 32))
            for part in _parts(entries, index_state):
                text = marshal.dumps(part)
                framed = len(text).to_bytes(8, "big") + text
                checksum.update(framed)
                file.write(framed)
                time.sleep(_PAUSE_S)  # others wait for the interpreter
            file.seek(0)
            file.write(_header(key, checksum.digest()))
        os.replace(path, _path(directory))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def load_cache(directory: str, key: str) -> Cached | None:
    """Read the cache; None where there is none of any use."""
    try:
        with open(_path(directory), "rb") as file:
            # Whoever can write the file could make us believe anything, and marshal is not made for enemies.
            state = os.fstat(file.fileno())
            if state.st_uid != os.geteuid() or state.st_mode & 0o022:
                log.warning("the cache %s is not ours alone to write; ignored", _path(directory))
                return None
            content = file.read()
        header, body = content[: len(_header(key, b"\0" * 32))], memoryview(content)[len(_header(key, b"\0" * 32)) :]
        if header != _header(key, hashlib.sha256(body).digest()):
            return None
        parts = []
        while body:
            length = int.from_bytes(body[:8], "big")
            parts.append(marshal.loads(body[8 : 8 + length]))  # noqa: S302 - only we can have written it
            body = body[8 + length :]
        count, index_state, *slices = parts
        entries: tuple[dict[str, Entry], ...] = tuple({} for _ in range(count))
        for root_number, plain in slices:
            for fields in plain:
                entry = _to_entry(fields)
                entries[root_number][entry.id] = entry
        return Cached(entries, Index.load(index_state))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, EOFError, IndexError, KeyError) as exc:
        log.info("the cache is not usable: %s", exc)
        return None


def _path(directory: str) -> str:
    return os.path.join(directory, "skills.cache")


def _header(key: str, checksum: bytes) -> bytes:
    return b"skilld cache\n" + key.encode() + b"\n" + checksum


def _parts(entries: tuple[dict[str, Entry], ...], index_state: tuple[Any, ...]) -> Iterator[Any]:
    yield len(entries)
    yield index_state
    for root_number, known in enumerate(entries):
        every = list(known.values())
        for start in range(0, len(every), SLICE):
            yield root_number, [_from_entry(entry) for entry in every[start : start + SLICE]]


def _from_entry(entry: Entry) -> tuple[Any, ...]:
    skill = entry.skill
    return (
        entry.id,
        tuple((file.path, file.identity, file.size, file.sha256, file.mark) for file in entry.files),
        skill and _from_skill(skill),
        tuple(_from_problem(problem) for problem in entry.problems),
        entry.is_linked,
    )


def _to_entry(fields: tuple[Any, ...]) -> Entry:
    id, files, skill, problems, is_linked = fields
    found = tuple(Problem(*problem) for problem in problems)
    return Entry(
        id,
        tuple(FileState(*file) for file in files),
        skill and _to_skill(skill, found),
        found,
        is_linked,
        False,
    )


def _from_problem(problem: Problem) -> tuple[Any, ...]:
    return (
        problem.path, problem.severity, problem.message, problem.id, problem.name, problem.field, problem.line,
    )  # fmt: skip


def _from_skill(skill: Skill) -> tuple[Any, ...]:
    return (
        skill.id, skill.name, skill.description, skill.license, skill.compatibility, skill.metadata,
        skill.allowed_tools, dict(skill.frontmatter),
        tuple((resource.path, resource.size, resource.sha256, resource.executable) for resource in skill.resources),
        skill.path, skill.root, skill.skill_md, skill.skill_md_sha256, skill.digest, skill.modified_ns,
    )  # fmt: skip


def _to_skill(fields: tuple[Any, ...], problems: tuple[Problem, ...]) -> Skill:
    values: list[Any] = [*fields, problems]
    values[8] = tuple(Resource(*resource) for resource in fields[8])
    return Skill(*values)
