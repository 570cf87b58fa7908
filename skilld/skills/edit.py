"""
Writing a SKILL.md: a new one from its fields, or changes to the text that an author wrote.

A change replaces the values that it is about and nothing else: comments, the order of keys, quoting, unknown fields
and line ends stay byte for byte. What comes out is parsed again, and is given back only if it shows exactly what was
asked for and everything else as before.

Owns: nothing; values only.

Source: Agent Skills specification, "SKILL.md format"; ``skills-ref`` 0.1 for what strict readers take.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from skilld.skills import splicing
from skilld.skills.frontmatter import SkillText, parse_skill_md, split
from skilld.skills.lenient_yaml import FrontmatterError
from skilld.skills.model import (
    FIELDS,
    RESERVED_NAMES,
    TEXT_FIELDS,
    Finding,
    Json,
    check_compatibility,
    check_description,
    check_name,
    parse_allowed_tools,
)
from skilld.skills.splicing import Wanted
from skilld.skills.yaml_spans import write_scalar

# What Linux takes for the name of a directory or file.
NAME_LIMIT_BYTES = 255
# A key on the line of its value has at most 1,024 characters (YAML 1.1, section 9.3.2), as it is written.
KEY_LIMIT_CHARS = 1_000

_BOM = b"\xef\xbb\xbf"
_LEADING_BLANK_LINES = re.compile(r"\A(?:[ \t]*\r?\n)+")


class EditRefused(Exception):
    """The result would not be a valid skill; ``findings`` says why."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(findings[0].message)
        self.findings = findings


@dataclass(frozen=True)
class Fields:
    """
    What a caller gives of a SKILL.md. None is not given; an empty text, list or map takes an optional field away.

    White space around a text and blank lines before the body are dropped, as reading drops them.
    """

    description: str | None = None
    license: str | None = None
    compatibility: str | None = None
    allowed_tools: tuple[str, ...] | None = None
    metadata: Mapping[str, Json] | None = None
    body: str | None = None

    def wanted(self) -> dict[str, Wanted]:
        """The given ones by their YAML keys, in the specification's order."""
        values: dict[str, Wanted] = {}
        for key in TEXT_FIELDS:
            text = getattr(self, key, None)
            if text is not None:
                values[key] = text.strip() or None
        if self.allowed_tools is not None:
            values["allowed-tools"] = " ".join(self.allowed_tools) or None
        if self.metadata is not None:
            values["metadata"] = dict(self.metadata) or None
        return values


def check_new_name(name: str, ignored: Collection[str] = ()) -> Iterator[Finding]:
    """
    Yield an error for every rule that the name of a new skill breaks.

    Args:
        name: Also the name of its directory.
        ignored: Names of directories that are never searched for skills.
    """
    for message in check_name(name):
        yield Finding("error", message, "name")
    if name.strip() and name != unicodedata.normalize("NFKC", name.strip()):
        yield Finding(
            "error", f"name {name!r} has blanks around it or letters that are not in normal form NFKC", "name"
        )
    if len(name.encode(errors="replace")) > NAME_LIMIT_BYTES:
        yield Finding("error", f"name takes more than {NAME_LIMIT_BYTES} bytes", "name")
    if name in RESERVED_NAMES:
        yield Finding("error", f"name {name!r} is reserved for skilld itself", "name")
    if name in ignored:
        yield Finding("error", f"name {name!r} is that of a directory which holds no skills (ignore)", "name")


def check_fields(wanted: Mapping[str, Wanted]) -> Iterator[Finding]:
    """Yield an error for every rule of the specification that values to be written break."""
    if "description" in wanted:
        for message in check_description(_text(wanted["description"])):
            yield Finding("error", message, "description")
    if "compatibility" in wanted:
        for message in check_compatibility(_text(wanted["compatibility"])):
            yield Finding("error", message, "compatibility")
    for key, value in _map(wanted.get("metadata")).items():
        if not isinstance(value, str):
            yield Finding("error", f"metadata {key!r} must be text", "metadata")
        if not key.strip() or len(write_scalar(key)) > KEY_LIMIT_CHARS:
            yield Finding("error", f"metadata has a key that is blank or too long: {key[:100]!r}", "metadata")


def check_tools(tools: tuple[str, ...]) -> Iterator[Finding]:
    """Yield an error for every entry of ``allowed_tools`` that would not be read back as one tool."""
    for tool in tools:
        if parse_allowed_tools(tool) != (tool,) or tool.count("(") != tool.count(")"):
            yield Finding("error", f"allowed_tools: {tool!r} is not one tool", "allowed_tools")


def render_skill_md(name: str, fields: Fields) -> bytes:
    """
    Write a new SKILL.md: block style, quoted where strict parsers need it, a blank line, the body.

    Args:
        name: A valid name.
        fields: All that the skill has; at least the description.

    Raises:
        EditRefused: A rule is broken, or the values would not be read back as they are; names every field.
    """
    wanted: dict[str, Wanted] = {"name": name, **fields.wanted()}
    findings = [*check_tools(fields.allowed_tools or ()), *check_fields({"description": None, **wanted})]
    if findings:
        raise EditRefused(*findings)
    lines = ["---"]
    for key in FIELDS:
        if wanted.get(key) is not None:
            lines.append(splicing.write_entry(key, wanted[key], 0, "\n"))
    body = _LEADING_BLANK_LINES.sub("", fields.body or "")
    content = "\n".join([*lines, "---", *(["", body] if body else [""])]).encode()
    try:
        _require(content, None, wanted, body)
    except FrontmatterError as exc:
        raise EditRefused(exc.finding) from None
    return content


def splice_skill_md(content: bytes, fields: Fields) -> bytes:
    """
    Change what is asked for in a SKILL.md, and nothing else.

    A field whose value is shown already is left as it stands, whatever rule it breaks.

    Args:
        content: The file as it is; anything that reading accepts.
        fields: What to change.

    Returns:
        The same bytes where nothing changes.

    Raises:
        EditRefused: The file cannot be read, a rule is broken, or the text cannot be changed without changing more;
            names every field.
    """
    try:
        before = parse_skill_md(content, None)
    except FrontmatterError as exc:
        raise EditRefused(exc.finding) from None
    wanted = {key: value for key, value in fields.wanted().items() if not _shows(before, key, value)}
    body = None if fields.body is None else _LEADING_BLANK_LINES.sub("", fields.body)
    if body == before.body:
        body = None
    tools = fields.allowed_tools if "allowed-tools" in wanted and fields.allowed_tools else ()
    findings = [*check_tools(tools), *check_fields(wanted)]
    if findings:
        raise EditRefused(*findings)
    if not wanted and body is None:
        return content
    bom, text = (_BOM, content[3:]) if content.startswith(_BOM) else (b"", content)
    raw = text.decode(errors="surrogateescape")
    for splice in splicing.WAYS:
        changed = splice(raw, wanted, before.frontmatter) if wanted else raw
        if changed is None:
            continue
        try:
            changed = changed if body is None else _replace_body(changed, body)
            result = bom + changed.encode(errors="surrogateescape")
            _require(result, before, wanted, body)
        except (FrontmatterError, EditRefused):
            continue
        return result
    why = "cannot be changed in this SKILL.md without changing more"
    raise EditRefused(
        *(Finding("error", f"{key} {why}", key) for key in (*wanted, *(() if body is None else ("body",))))
    )


def _replace_body(text: str, body: str) -> str:
    """Put another body behind the closing line and the blank lines that follow it."""
    parts = split(splicing.readable(text))
    head = text[: len(text) - len(parts.body)]
    eol = splicing.line_end(text)
    if not head.endswith("\n"):
        head += eol
    if body and not re.search(r"\n[ \t]*\r?\n\Z", head) and not parts.body:
        head += eol
    return head + body


def _shows(text: SkillText, key: str, value: Wanted) -> bool:
    """Tell whether a SKILL.md shows this value for a key."""
    if value is None:
        return text.frontmatter.get(key) is None
    if key == "allowed-tools":
        return text.allowed_tools == parse_allowed_tools(value)
    if key == "metadata":
        return bool(text.metadata == value)
    return bool(getattr(text, key) == value)


def _require(content: bytes, before: SkillText | None, wanted: Mapping[str, Wanted], body: str | None) -> None:
    """
    Raise where a written SKILL.md does not show what was asked for, or shows anything else otherwise than before.

    Raises:
        EditRefused: Names the first such field.
        FrontmatterError: It cannot even be read.
    """
    after = parse_skill_md(content, None)
    for key, value in wanted.items():
        as_written = after.frontmatter.get(key)
        if not _shows(after, key, value) or (isinstance(value, str) and as_written != value):
            raise EditRefused(Finding("error", f"{key} would not be read back as it is given", key))
    if body is not None and after.body != body:
        raise EditRefused(Finding("error", "body would not be read back as it is given", "body"))
    if before is None:
        return
    for key in FIELDS:
        if key not in wanted and _value(after, key) != _value(before, key):
            raise EditRefused(Finding("error", f"{key} would change as well", key))
    if _others(after, wanted) != _others(before, wanted):
        raise EditRefused(Finding("error", "other fields would change as well"))
    if body is None and after.body != before.body:
        raise EditRefused(Finding("error", "body would change as well", "body"))


def _value(text: SkillText, key: str) -> Json:
    return getattr(text, key.replace("-", "_"))


def _others(text: SkillText, wanted: Mapping[str, Wanted]) -> list[tuple[str, Json]]:
    return [(key, value) for key, value in text.frontmatter.items() if key not in wanted]


def _text(value: Wanted) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Wanted) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}
