"""
What a skill is: its values, and the rules of the Agent Skills specification.

Reading is lenient, so the rules here are a report: a skill that breaks one is served with a warning. What cannot be
served at all is a problem of severity "error". Writing (create, update) holds callers to the same rules.

Owns: nothing; values only.

Source: Agent Skills specification; ``skills-ref validate`` 0.1 for the exact reading of each rule.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

Json: TypeAlias = Any  # what json.loads can return

SKILL_FILE_NAMES = (b"SKILL.md", b"skill.md")  # in order of preference

NAME_LIMIT_CHARS = 64
DESCRIPTION_LIMIT_CHARS = 1_024
COMPATIBILITY_LIMIT_CHARS = 500
FIELDS = ("name", "description", "license", "compatibility", "allowed-tools", "metadata")
TEXT_FIELDS = ("name", "description", "license", "compatibility")

# REST routes below /skills/ that an id of this name would hide (API: create refuses them).
RESERVED_NAMES = ("search", "problems", "prompt", "changes", "validate", "attest")

# The folders that the specification names; each has a list of its own in a Skill.
FOLDERS = ("scripts", "references", "assets")

_FIRST_SECOND = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a SKILL.md text. ``line`` counts from 1 in the file."""

    severity: Severity
    message: str
    field: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding and where it is; ``path`` is absolute. An "error" means that the skill is not served."""

    path: str
    severity: Severity
    message: str
    id: str | None = None
    name: str | None = None
    field: str | None = None
    line: int | None = None

    def to_json(self) -> dict[str, Json]:
        """The ``Problem`` of the API; members without a value are left out."""
        members = {
            "path": self.path,
            "id": self.id,
            "name": self.name,
            "field": self.field,
            "severity": self.severity,
            "message": self.message,
            "line": self.line,
        }
        return {key: value for key, value in members.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Resource:
    """
    One file of a skill beside its SKILL.md.

    ``path`` is relative to the skill directory; ``size`` in bytes; ``sha256`` is bare lower-case hex, or None where the
    skill is over its size limit or the file could not be read.
    """

    path: str
    size: int
    sha256: str | None
    executable: bool

    def to_json(self) -> dict[str, Json]:
        """The entry of ``resources`` in the API's ``Skill``."""
        return {
            "path": self.path,
            "size": self.size,
            "sha256": self.sha256,
            "executable": self.executable,
        }


@dataclass(frozen=True, slots=True)
class Skill:
    """
    A skill as it is served: everything but the body, which stays on disk.

    ``id`` is the directory relative to ``root``. ``frontmatter`` holds every field, JSON-safe. ``skill_md`` is the
    absolute path of the SKILL.md and ``skill_md_sha256`` the hex digest of the bytes that were parsed, so that a
    reader of the body can tell whether it is still the indexed one. ``digest`` is ``sha256:<hex>`` or None where the
    skill cannot be attested. ``modified_ns`` is the SKILL.md's time stamp, Unix nanoseconds.
    """

    id: str
    name: str
    description: str
    license: str | None
    compatibility: str | None
    metadata: Json
    allowed_tools: tuple[str, ...] | None
    frontmatter: Mapping[str, Json]
    resources: tuple[Resource, ...]
    path: str
    root: str
    skill_md: str
    skill_md_sha256: str
    digest: str | None
    modified_ns: int
    problems: tuple[Problem, ...]

    def summary(self) -> dict[str, Json]:
        """The ``Summary`` of the API."""
        return {"id": self.id, "name": self.name, "description": self.description}

    def files_in(self, folder: str) -> list[str]:
        """Sorted paths of the resources below ``folder`` ("scripts")."""
        return [resource.path for resource in self.resources if resource.path.startswith(folder + "/")]

    def to_json(self, body: str) -> dict[str, Json]:
        """The ``Skill`` of the API; optional fields that the author did not set are left out."""
        optional = {
            "license": self.license,
            "compatibility": self.compatibility,
            "metadata": self.metadata,
            "allowed_tools": None if self.allowed_tools is None else list(self.allowed_tools),
        }
        seconds, nanoseconds = divmod(self.modified_ns, 10**9)
        # Some file systems hold years that RFC 3339 cannot write.
        modified = datetime.fromtimestamp(min(max(seconds, _FIRST_SECOND), _LAST_SECOND), UTC)
        modified = modified.replace(microsecond=nanoseconds // 1_000)
        return {
            **self.summary(),
            **{key: value for key, value in optional.items() if value is not None},
            "frontmatter": self.frontmatter,
            "body": body,
            **{folder: self.files_in(folder) for folder in FOLDERS},
            "resources": [resource.to_json() for resource in self.resources],
            "path": self.path,
            "root": self.root,
            "digest": self.digest,
            "modified": modified.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "problems": [problem.to_json() for problem in self.problems],
        }


def check_name(name: str, dir_name: str | None = None) -> Iterator[str]:
    """Yield a message for every rule of the specification that ``name`` breaks."""
    name = unicodedata.normalize("NFKC", name.strip())
    if not name:
        yield "name is empty"
        return
    if len(name) > NAME_LIMIT_CHARS:
        yield f"name has {len(name)} characters, the limit is {NAME_LIMIT_CHARS}"
    if name != name.lower():
        yield f"name {name!r} must be lower case"
    if name.startswith("-") or name.endswith("-"):
        yield f"name {name!r} must not start or end with a hyphen"
    if "--" in name:
        yield f"name {name!r} must not hold two hyphens in a row"
    if not all(char.isalnum() or char == "-" for char in name):
        yield f"name {name!r} may hold letters, digits and hyphens only"
    if dir_name is not None and unicodedata.normalize("NFKC", dir_name) != name:
        yield f"name {name!r} differs from the directory's name {dir_name!r}"


def check_description(description: str) -> Iterator[str]:
    """Yield a message for every rule that ``description`` breaks."""
    if not description.strip():
        yield "description is empty"
    elif len(description) > DESCRIPTION_LIMIT_CHARS:
        yield f"description has {len(description)} characters, the limit is {DESCRIPTION_LIMIT_CHARS}"


def check_compatibility(compatibility: str) -> Iterator[str]:
    """Yield a message for every rule that ``compatibility`` breaks."""
    if len(compatibility) > COMPATIBILITY_LIMIT_CHARS:
        yield f"compatibility has {len(compatibility)} characters, the limit is {COMPATIBILITY_LIMIT_CHARS}"


def check_metadata(metadata: Json) -> Iterator[str]:
    """Yield a message where ``metadata`` is not the map of the specification."""
    if not isinstance(metadata, Mapping):
        yield "metadata must be a map"


def check_fields(frontmatter: Mapping[str, Json], texts: Mapping[str, str], dir_name: str | None) -> Iterator[Finding]:
    """
    Yield a warning for every rule of the specification that a frontmatter breaks.

    Args:
        frontmatter: Every field, JSON-safe.
        texts: The text fields as written (``name: 1.0`` is "1.0").
        dir_name: The skill directory's own name, or None where there is none.
    """
    for field in frontmatter:
        if field not in FIELDS:
            yield Finding("warning", f"unknown field {field!r}", field)
    if "name" not in texts:
        yield Finding("warning", "name is missing; the directory's name is used", "name")
    checks = {
        "name": lambda text: check_name(text, dir_name),
        "description": check_description,
        "compatibility": check_compatibility,
    }
    for field in [field for field in checks if field in texts]:
        for message in checks[field](texts[field]):
            yield Finding("warning", message, field)
    if frontmatter.get("metadata") is not None:
        for message in check_metadata(frontmatter["metadata"]):
            yield Finding("warning", message, "metadata")


def parse_allowed_tools(value: Json) -> tuple[str, ...] | None:
    """
    Read ``allowed-tools`` in any of its three habits: separated by space, by comma, or a list.

    Separators inside parentheses belong to the tool, as in ``Bash(git add:*)``.

    Returns:
        The tools in order, or None where the field is absent or no text.
    """
    if isinstance(value, list):
        return tuple(str(tool).strip() for tool in value if str(tool).strip())
    if not isinstance(value, str):
        return None
    tools, depth, start = [], 0, 0
    for position, char in enumerate(value + " "):
        if char == "(":
            depth += 1
        elif char == ")":
            depth = max(0, depth - 1)
        elif (char == "," or char.isspace()) and depth == 0:
            tools.append(value[start:position])
            start = position + 1
    tools.append(value[start:])  # an unclosed parenthesis keeps its text
    return tuple(tool.strip() for tool in tools if tool.strip())
