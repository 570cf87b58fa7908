"""
The methods under ``skills`` that write.

Owns: nothing; each is a thin call of the store.

Source: API, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skilld.config import MIB
from skilld.errors import Conflict, FileNotFound, ReadOnly, SkillExists, SkillInvalid, SkillNotFound, Storage
from skilld.rpc.dispatch import Method
from skilld.rpc.methods import schemas
from skilld.rpc.methods.services import Context
from skilld.rpc.methods.skills import read_skill
from skilld.rpc.params import (
    Kind,
    Param,
    any_json,
    array_of,
    base64_text,
    mapping_of,
    nullable,
    record,
    text,
    text_or,
)
from skilld.skills.edit import Fields
from skilld.skills.filemap import Given
from skilld.skills.model import FOLDERS, parse_allowed_tools

# A message of the default size holds far less; the limits of a skill are checked with its other rules.
FILE_LIMIT_BYTES = 256 * MIB

Files = Mapping[str, Mapping[str, Given] | None]


async def create(context: Context, /, *, name: str, **values: Any) -> dict[str, Any]:
    """Create a skill in the first root."""
    await context.services.sync(None)
    skill = await context.services.store.create(name, *_split(values))
    skill, body = await read_skill(context.services, skill.id)
    return skill.to_json(body)


async def update(context: Context, /, *, name: str, if_digest: str | None, **values: Any) -> dict[str, Any]:
    """Change what is given of a skill, and nothing else: all of it at once, or nothing."""
    await context.services.sync(None)
    skill = await context.services.store.update(name, *_split(values), if_digest)
    skill, body = await read_skill(context.services, skill.id)
    return skill.to_json(body)


async def delete(context: Context, /, *, name: str, if_digest: str | None) -> dict[str, Any]:
    """Delete a skill with all its files."""
    await context.services.sync(None)
    await context.services.store.delete(name, if_digest)
    return {"deleted": name}


def _split(values: dict[str, Any]) -> tuple[Fields, Files]:
    """Tell the fields of a SKILL.md from the maps of files."""
    files = {folder: values.pop(folder) for folder in FOLDERS}
    tools = values.pop("allowed_tools")
    if isinstance(tools, str):
        tools = parse_allowed_tools(tools)
    return Fields(**values, allowed_tools=None if tools is None else tuple(tools)), files


def _fields(*, is_new: bool) -> tuple[Param, ...]:
    content: Kind = text_or(text(), record(base64=base64_text(max_bytes=FILE_LIMIT_BYTES)))
    removes = "" if is_new else "; null removes one"
    empties = "" if is_new else " Empty takes it away."
    return (
        Param("description", text(), required=is_new, doc="What the skill does and when to use it."),
        Param("body", text(), required=is_new, doc="The Markdown below the frontmatter."),
        Param("license", text(), required=False, doc=f"A license's name, or a file's.{empties}"),
        Param("compatibility", text(), required=False, doc=f"What the skill needs of its environment.{empties}"),
        # An update may give back what is there, whatever its author has made of it.
        Param("metadata", mapping_of(text() if is_new else any_json()), required=False, doc=f"Texts by name.{empties}"),
        Param(
            "allowed_tools",
            text_or(text(), array_of(text(), 1_000)),
            required=False,
            doc=f"Tools that may be used without asking.{empties}",
        ),
        *(
            Param(
                folder,
                mapping_of(content if is_new else nullable(content)),
                required=False,
                doc=f"Files by their path below {folder}/: text, or an object with base64{removes}.",
            )
            for folder in FOLDERS
        ),
    )


_NAME = Param("name", text(min_chars=1, max_chars=4_096), required=True, doc="An id, or a name that one skill bears.")
_IF_DIGEST = Param(
    "if_digest",
    text(pattern="sha256:[0-9a-f]{64}", rule="sha256: and 64 hexadecimal digits in lower case"),
    required=False,
    doc="Do it only if this is the skill's digest on the disk now.",
)
_ERRORS = (SkillNotFound, Conflict, ReadOnly, Storage)

METHODS = (
    Method(
        "skills.create",
        "write",
        (
            Param("name", text(max_chars=4_096), required=True, doc="Lower-case letters, digits and hyphens."),
            *_fields(is_new=True),
        ),
        create,
        schemas.SKILL,
        ("POST", "/skills"),
        status=201,
        errors=(SkillExists, SkillInvalid, ReadOnly, Storage),
    ),
    Method(
        "skills.update",
        "write",
        (_NAME, *_fields(is_new=False), _IF_DIGEST),
        update,
        schemas.SKILL,
        ("PUT", "/skills/{name}"),
        errors=(SkillInvalid, FileNotFound, *_ERRORS),
    ),
    Method(
        "skills.delete",
        "write",
        (_NAME, _IF_DIGEST),
        delete,
        schemas.obj({"deleted": schemas.TEXT}),
        ("DELETE", "/skills/{name}"),
        errors=_ERRORS,
    ),
)
