"""
From the bytes of a SKILL.md to its fields and its body.

Lenient in, exact out: a byte order mark, blank lines before the frontmatter, CRLF and a missing last newline are read
as their author meant them, each with a warning; so is YAML that YAML refuses (``lenient_yaml``).

Owns: nothing; values only.

Source: Agent Skills specification, "SKILL.md format".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from skilld.skills.lenient_yaml import FrontmatterError, kind_of, parse_yaml
from skilld.skills.model import TEXT_FIELDS, Finding, Json, check_fields, parse_allowed_tools


@dataclass(frozen=True, slots=True)
class SkillText:
    """
    A parsed SKILL.md.

    ``texts`` holds the text fields as written, stripped, those that are there; ``findings`` every warning. ``name`` is
    None where the frontmatter has none.
    """

    name: str | None
    description: str
    license: str | None
    compatibility: str | None
    metadata: Json
    allowed_tools: tuple[str, ...] | None
    frontmatter: Mapping[str, Json]
    body: str
    findings: tuple[Finding, ...]


def parse_skill_md(content: bytes, dir_name: str | None) -> SkillText:
    """
    Parse a SKILL.md.

    Args:
        content: The file's bytes.
        dir_name: The skill directory's own name, which the specification wants ``name`` to equal.

    Raises:
        FrontmatterError: No frontmatter, not closed, YAML that cannot be rescued, or no description.
    """
    text, findings = decode(content)
    parts = split(text)
    if parts.first_line > 1:
        findings.append(Finding("warning", "blank lines before the opening '---'", line=1))
    fields, written, more = parse_yaml(parts.yaml, parts.first_line + 1)
    findings += more
    for field in TEXT_FIELDS:
        if fields.get(field) is not None and field not in written:
            if field == "description":
                raise FrontmatterError(f"description must be text, not {kind_of(fields[field])}", None, field)
            findings.append(Finding("warning", f"{field} must be text, not {kind_of(fields[field])}", field))
    texts = {field: written[field].strip() for field in TEXT_FIELDS if written.get(field, "").strip()}
    if "description" not in texts:
        raise FrontmatterError("description is missing", parts.first_line, "description")
    # The specification's limits count blanks at the ends too.
    findings += check_fields(fields, {field: written[field] for field in texts}, dir_name)
    return SkillText(
        name=texts.get("name"),
        description=texts["description"],
        license=texts.get("license"),
        compatibility=texts.get("compatibility"),
        metadata=fields.get("metadata"),
        allowed_tools=parse_allowed_tools(fields.get("allowed-tools")),
        frontmatter=fields,
        body=parts.body,
        findings=tuple(findings),
    )


def body_of(content: bytes) -> str:
    """Return the body of a SKILL.md that :func:`parse_skill_md` accepted, without parsing its YAML again."""
    return split(decode(content)[0]).body


def decode(content: bytes) -> tuple[str, list[Finding]]:
    """Decode UTF-8; a byte order mark is dropped and bad bytes become U+FFFD, each with a warning."""
    findings = []
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
        findings.append(Finding("warning", "the file starts with a byte order mark", line=1))
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FrontmatterError("the file is UTF-16, it must be UTF-8", 1)
    try:
        return content.decode(), findings
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        findings.append(
            Finding("warning", f"not UTF-8: byte 0x{content[exc.start]:02x} at offset {exc.start}", line=line)
        )
        return content.decode(errors="replace"), findings


@dataclass(frozen=True, slots=True)
class Parts:
    """A SKILL.md cut in three; ``first_line`` is the number of the opening ``---``."""

    yaml: str
    body: str
    first_line: int


def split(text: str) -> Parts:
    """
    Cut a SKILL.md at the two lines that are ``---``.

    Only a whole line closes the frontmatter: ``description: a --- b`` does not. Blank lines may stand before the
    opening line, trailing white space after either; the body loses its leading blank lines.

    Raises:
        FrontmatterError: No frontmatter, or it is not closed.
    """
    opening = re.match(r"(?:[ \t]*\r?\n)*---[ \t]*(?:\r?\n|\Z)", text)
    if opening is None:
        raise FrontmatterError("no frontmatter: the first line must be '---'", 1)
    first_line = opening.group().rstrip("\r\n").count("\n") + 1
    closing = re.compile(r"^---[ \t]*\r?$\n?", re.MULTILINE).search(text, opening.end())
    if closing is None:
        raise FrontmatterError("the frontmatter is not closed by a line '---'", first_line)
    body = re.sub(r"\A(?:[ \t]*\r?\n)+", "", text[closing.end() :])
    return Parts(text[opening.end() : closing.start()], body, first_line)
