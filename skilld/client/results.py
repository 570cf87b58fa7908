"""
What the methods return, as frozen values; :mod:`skilld.client.parse` makes them of a reply's JSON.

Owns: nothing; values only.

Source: the interface of skilld, section 3.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from skilld.client.errors import BadReply
from skilld.errors import quote


@dataclass(frozen=True)
class Summary:
    """A skill in a list. ``id`` is its directory relative to its root, ``name`` what its author calls it."""

    id: str
    name: str
    description: str


@dataclass(frozen=True)
class Hit(Summary):
    """A skill that a search found; a higher ``score`` is better, ``snippet`` marks the matches with ``[`` ``]``."""

    score: float
    snippet: str


@dataclass(frozen=True)
class Listing:
    """Skills sorted by id, all of one ``revision``; ``subscribe(since=listing.revision)`` goes on from there."""

    skills: tuple[Summary, ...]
    total: int
    revision: str

    def __iter__(self) -> Iterator[Summary]:
        return iter(self.skills)

    def __len__(self) -> int:
        return len(self.skills)


@dataclass(frozen=True)
class SearchResult:
    """The best hits, best first, of ``total``; ``complete`` is false while skills are still being indexed."""

    skills: tuple[Hit, ...]
    total: int
    revision: str
    complete: bool = True

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.skills)

    def __len__(self) -> int:
        return len(self.skills)


@dataclass(frozen=True)
class Problem:
    """Something wrong at an absolute ``path``; where ``severity`` is "error", the skill is not served."""

    path: str
    severity: str
    message: str
    id: str | None = None
    name: str | None = None
    field: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class Problems:
    """Everything that is wrong, errors first."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Resource:
    """A file of a skill beside its SKILL.md; ``sha256`` is bare hex, or None where it could not be taken."""

    path: str
    size: int
    sha256: str | None
    executable: bool


@dataclass(frozen=True)
class Skill(Summary):
    """A whole skill. ``modified`` is RFC 3339; ``frontmatter`` holds every field as its author wrote it."""

    frontmatter: Mapping[str, Any]
    body: str
    scripts: tuple[str, ...]
    references: tuple[str, ...]
    assets: tuple[str, ...]
    resources: tuple[Resource, ...]
    path: str
    root: str
    digest: str | None
    modified: str
    problems: tuple[Problem, ...]
    license: str | None = None
    compatibility: str | None = None
    metadata: Any = None
    allowed_tools: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Validation:
    """Whether a skill keeps every rule of the specification, and which it breaks."""

    valid: bool
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Prompt:
    """A text for an agent's prompt."""

    prompt: str


@dataclass(frozen=True)
class Revision:
    """The revision from which on a subscriber is told of changes."""

    revision: str


@dataclass(frozen=True)
class Changes:
    """
    The ids that changed up to ``revision``.

    Where ``complete`` is false the daemon cannot tell what happened: list the skills again.
    """

    revision: str
    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    complete: bool = True


@dataclass(frozen=True)
class FileContent:
    """A slice of a file of ``size`` bytes: text, or base64 as ``encoding`` says; ``eof`` if it reaches the end."""

    content: str
    encoding: str
    size: int
    eof: bool

    @property
    def data(self) -> bytes:
        """The slice's bytes."""
        return decode(self.content, self.encoding)


@dataclass(frozen=True)
class RootStatus:
    """One root and how many skills it holds."""

    path: str
    skills: int
    writable: bool


@dataclass(frozen=True)
class WatcherStatus:
    """How changes on disk are noticed; ``reason`` says why the mode is not the one that was asked for."""

    mode: str
    alive: bool
    last_event: str | None = None
    last_full_scan: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class IndexStatus:
    """The search index."""

    documents: int
    bytes: int
    complete: bool


@dataclass(frozen=True)
class TeeStatus:
    """Whether a guest agent is there."""

    available: bool
    endpoint: str | None = None


@dataclass(frozen=True)
class Status:
    """How the daemon is doing; ``problems`` is a count, ``digest`` that of all skills together."""

    version: str
    uptime_s: float
    pid: int
    roots: tuple[RootStatus, ...]
    revision: str
    digest: str | None
    problems: int
    watcher: WatcherStatus
    index: IndexStatus
    connections: int
    tee: TeeStatus
    sandbox: Any = None
    limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunResult:
    """
    What a script did. ``stdout`` and ``stderr`` are text as ``encoding`` says: "utf-8", or "base64" of the bytes.

    ``exit_code`` is the script's own, 137 after SIGKILL; ``bytes`` counts what it wrote, also what was cut off.
    """

    stdout: str
    stderr: str
    exit_code: int
    encoding: Mapping[str, Any]
    truncated: Mapping[str, Any]
    bytes: Mapping[str, Any]
    timed_out: bool
    duration_ms: float
    queued_ms: float
    interpreter: str
    sandbox: Mapping[str, Any]
    signal: Any = None
    receipt: Mapping[str, Any] | None = None

    @property
    def stdout_bytes(self) -> builtin_bytes:
        """Standard output as the script wrote it."""
        return decode(self.stdout, self.encoding.get("stdout"))

    @property
    def stderr_bytes(self) -> builtin_bytes:
        """Standard error as the script wrote it."""
        return decode(self.stderr, self.encoding.get("stderr"))


@dataclass(frozen=True)
class FactoryResponse:
    """Where the dialogue stands; ``preview`` is the SKILL.md at step "confirm", ``skill`` what came out."""

    session_id: str
    step: str
    prompt: str
    done: bool
    skill: Summary | None = None
    preview: str | None = None


@dataclass(frozen=True)
class TriggerCheck:
    """Whether an input asks for the factory, and by which phrases."""

    triggers_factory: bool
    matched_phrases: tuple[str, ...]


builtin_bytes = bytes  # RunResult has a member of this name


def decode(content: str, encoding: Any) -> bytes:
    """
    Return the bytes of a content member.

    Raises:
        BadReply: The encoding is unknown, or the content is not what it says.
    """
    try:
        if encoding == "utf-8":
            return content.encode()
        if encoding == "base64":
            return base64.b64decode(content, validate=True)
    except ValueError as exc:
        raise BadReply(f"content is not {encoding}: {exc}") from exc
    raise BadReply(f"encoding is {quote(encoding)}, not 'utf-8' or 'base64'")
