"""
The methods under ``skills`` that read.

Owns: nothing; each is a thin call of the registry.

Source: API, section 3.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from skilld.errors import Busy, InvalidParams
from skilld.rpc.dispatch import Method
from skilld.rpc.methods import schemas
from skilld.rpc.methods.services import Context, Services
from skilld.rpc.params import Param, array_of, integer, text
from skilld.skills.frontmatter import parse_skill_md
from skilld.skills.lenient_yaml import FrontmatterError
from skilld.skills.model import Finding, Problem, Skill
from skilld.skills.prompt import activation, available_skills
from skilld.skills.reading import check_path, read_slice
from skilld.skills.registry import Change
from skilld.skills.scanner import read_body
from skilld.skills.search import snippet

# A skill whose SKILL.md changes at every look is somebody's endless write.
READ_TRIES = 3
# The greatest slice of skills.read_file: as base64 it still fits into a message of the default size.
SLICE_LIMIT_BYTES = 7 * 1024 * 1024
WAIT_LIMIT_MS = 60_000
# As many resources as an agent can use; the rest is listed by skills.get.
PROMPT_RESOURCES = 200

_NAME = Param("name", text(min_chars=1, max_chars=4_096), required=True, doc="An id, or a name that one skill bears.")
_SYNC = Param(
    "sync_timeout_ms",
    integer(0, WAIT_LIMIT_MS),
    required=False,
    doc="Milliseconds to wait until every change made on disk before the call is indexed; busy if that is too short.",
)


async def list_skills(
    context: Context, /, *, offset: int, limit: int, root: str | None, sync_timeout_ms: int | None
) -> dict[str, Any]:
    """List skills, sorted by id, a page at a time."""
    services = context.services
    await services.sync(sync_timeout_ms)
    snapshot = services.registry.snapshot
    ids = snapshot.ids
    if root is not None:
        if root not in services.registry.roots:
            raise InvalidParams("root", f"must be one of {', '.join(services.registry.roots)}, not {root!r}")
        ids = [id for id in ids if snapshot.skills[id].root == root]
    return {
        "skills": [snapshot.skills[id].summary() for id in ids[offset : offset + limit]],
        "total": len(ids),
        "revision": snapshot.revision,
    }


async def search(context: Context, /, *, query: str, limit: int, sync_timeout_ms: int | None) -> dict[str, Any]:
    """Search skills by any text, best first."""
    services = context.services
    await services.sync(sync_timeout_ms)
    registry = services.registry
    snapshot = registry.snapshot
    results = registry.index.search(query, limit)
    reply: dict[str, Any] = {
        "skills": [
            {**snapshot.skills[hit.id].summary(), "score": hit.score, "snippet": hit.snippet} for hit in results.hits
        ],
        "total": results.total,
        "revision": snapshot.revision,
    }
    if registry.unindexed:
        reply["complete"] = False
    unmarked = [number for number, hit in enumerate(results.hits) if not hit.marked]
    if unmarked:
        skills = [snapshot.skills[results.hits[number].id] for number in unmarked]
        limit_bytes = services.settings.limits.skill_md_bytes
        passages = await asyncio.to_thread(_body_snippets, skills, query, limit_bytes)
        for number, passage in zip(unmarked, passages, strict=True):
            if passage:
                reply["skills"][number]["snippet"] = passage
    return reply


def _body_snippets(skills: list[Skill], query: str, limit_bytes: int) -> list[str | None]:
    """The best passage of each body, for hits that match nowhere else."""
    bodies = [read_body(skill, limit_bytes) for skill in skills]
    return [snippet(body, query) if body else None for body in bodies]


async def get(context: Context, /, *, name: str, sync_timeout_ms: int | None) -> dict[str, Any]:
    """Return one skill, whole."""
    await context.services.sync(sync_timeout_ms)
    skill, body = await read_skill(context.services, name)
    return skill.to_json(body)


async def read_skill(services: Services, name: str) -> tuple[Skill, str]:
    """
    Return a skill and its body as they are indexed; a SKILL.md that was just saved is indexed first.

    Raises:
        SkillNotFound: There is none.
        Busy: The file is being written again and again.
    """
    for _ in range(READ_TRIES):
        skill = services.registry.snapshot.find(name)
        body = await asyncio.to_thread(read_body, skill, services.settings.limits.skill_md_bytes)
        if body is not None:
            return skill, body
        await services.watcher.refresh(skill.root, skill.id)
    raise Busy(f"skill {name!r} is being written")


async def read_file(context: Context, /, *, name: str, path: str, offset: int, limit: int) -> dict[str, Any]:
    """Read a slice of one file of a skill."""
    await context.services.sync(None)
    try:
        check_path(path)
    except ValueError as exc:
        raise InvalidParams("path", str(exc)) from None
    skill = context.services.registry.snapshot.find(name)
    content, size = await asyncio.to_thread(read_slice, skill, path, offset, limit)
    eof = offset + len(content) >= size
    try:
        return {"content": content.decode(), "encoding": "utf-8", "size": size, "eof": eof}
    except UnicodeDecodeError:
        return {"content": base64.b64encode(content).decode(), "encoding": "base64", "size": size, "eof": eof}


async def validate(context: Context, /, *, name: str | None, content: str | None) -> dict[str, Any]:
    """Hold a skill, or the text of a SKILL.md, against the Agent Skills specification."""
    if (name is None) == (content is None):
        raise InvalidParams("name", "give either name or content")
    if name is not None:
        await context.services.sync(None)
        problems = _problems_of(context.services, name)
    else:
        assert content is not None
        problems = validate_text(content)
    return {"valid": not problems, "problems": [problem.to_json() for problem in problems]}


def validate_text(content: str) -> tuple[Problem, ...]:
    """Return everything wrong with the text of a SKILL.md; its place in a directory is not known."""
    try:
        findings: tuple[Finding, ...] = parse_skill_md(content.encode(errors="replace"), None).findings
    except FrontmatterError as exc:
        findings = (exc.finding,)
    return tuple(
        Problem("SKILL.md", finding.severity, finding.message, field=finding.field, line=finding.line)
        for finding in findings
    )


def _problems_of(services: Services, name: str) -> tuple[Problem, ...]:
    """The problems of a skill, or of an id that is not served."""
    snapshot = services.registry.snapshot
    for (_, id), problems in snapshot.problems_by_entry.items():
        if id == name and id not in snapshot.skills:
            return problems
    return snapshot.find(name).problems


async def problems(context: Context, /) -> dict[str, Any]:
    """List everything wrong with the files in all roots, errors first."""
    await context.services.sync(None)
    return {"problems": [problem.to_json() for problem in context.services.registry.snapshot.problems]}


async def prompt(
    context: Context, /, *, names: list[str] | None, query: str | None, limit: int | None
) -> dict[str, Any]:
    """Make the <available_skills> block for an agent's system prompt."""
    services = context.services
    if names is not None and query is not None:
        raise InvalidParams("query", "give either names or query")
    await services.sync(None)
    snapshot = services.registry.snapshot
    if names is not None:
        skills = [snapshot.find(name) for name in names]
    elif query is not None:
        skills = [snapshot.skills[hit.id] for hit in services.registry.index.search(query, limit or 10).hits]
    else:
        skills = [snapshot.skills[id] for id in snapshot.ids]
    return {"prompt": available_skills(skills[:limit], snapshot.ids_by_name)}


async def activate(context: Context, /, *, name: str) -> dict[str, Any]:
    """Make the <skill_content> block that gives an agent one skill's instructions."""
    await context.services.sync(None)
    skill, body = await read_skill(context.services, name)
    return {"prompt": activation(skill, body, PROMPT_RESOURCES)}


async def changes(context: Context, /, *, since: str | None, wait_ms: int) -> dict[str, Any]:
    """Tell what changed since a revision, waiting for a change if asked to."""
    await context.services.sync(None)
    registry = context.services.registry
    if wait_ms and since is not None:
        await context.services.wait_for_change(since, wait_ms / 1000)
    return change_to_json(registry.changes_since(since))


def change_to_json(change: Change) -> dict[str, Any]:
    """The reply of ``skills.changes``."""
    return {
        "revision": change.revision,
        "added": list(change.added),
        "updated": list(change.updated),
        "removed": list(change.removed),
        "complete": change.is_complete,
    }


async def subscribe(context: Context, /) -> dict[str, Any]:
    """Send a skills.changed notification for every revision from now on."""
    await context.services.sync(None)
    assert context.connection is not None
    context.connection.subscribe()
    return {"revision": context.services.registry.snapshot.revision}


async def unsubscribe(context: Context, /) -> dict[str, Any]:
    """Send no more notifications."""
    assert context.connection is not None
    context.connection.unsubscribe()
    return {"revision": context.services.registry.snapshot.revision}


METHODS = (
    Method(
        "skills.list",
        "read",
        (
            Param("offset", integer(0), required=False, default=0, doc="Skills to pass over."),
            Param("limit", integer(1, 1_000), required=False, default=1_000, doc="Skills to return at most."),
            Param("root", text(), required=False, doc="Only the skills of this root."),
            _SYNC,
        ),
        list_skills,
        schemas.SKILL_LIST,
        ("GET", "/skills"),
    ),
    Method(
        "skills.search",
        "read",
        (
            Param("query", text(), required=True, doc="Any text: words, a task, a log."),
            Param("limit", integer(1, 100), required=False, default=10, doc="Hits to return at most."),
            _SYNC,
        ),
        search,
        schemas.HIT_LIST,
        ("GET", "/skills/search"),
    ),
    Method("skills.get", "read", (_NAME, _SYNC), get, schemas.SKILL, ("GET", "/skills/{name}")),
    Method(
        "skills.read_file",
        "read",
        (
            _NAME,
            Param("path", text(min_chars=1, max_chars=4_096), required=True, doc="Relative to the skill directory."),
            Param("offset", integer(0), required=False, default=0, doc="Bytes to pass over."),
            Param(
                "limit",
                integer(1, SLICE_LIMIT_BYTES),
                required=False,
                default=1024 * 1024,
                doc="Bytes to return at most; a slice of text ends with a whole character.",
            ),
        ),
        read_file,
        schemas.FILE,
        ("GET", "/skills/{name}/files/{path}"),
    ),
    Method(
        "skills.validate",
        "read",
        (
            Param("name", text(min_chars=1, max_chars=4_096), required=False, doc="An id or a name."),
            Param("content", text(), required=False, doc="The text of a SKILL.md."),
        ),
        validate,
        schemas.VALIDATION,
        ("POST", "/skills/validate"),
    ),
    Method("skills.problems", "read", (), problems, schemas.PROBLEM_LIST, ("GET", "/skills/problems")),
    Method(
        "skills.prompt",
        "read",
        (
            Param("names", array_of(text(min_chars=1), 1_000), required=False, doc="These skills."),
            Param("query", text(), required=False, doc="The best hits of a search."),
            Param("limit", integer(1, 1_000), required=False, doc="Skills at most; 10 with query, else all."),
        ),
        prompt,
        schemas.PROMPT,
        ("GET", "/skills/prompt"),
    ),
    Method("skills.activate", "read", (_NAME,), activate, schemas.PROMPT, ("GET", "/skills/{name}/prompt")),
    Method(
        "skills.changes",
        "read",
        (
            Param("since", text(max_chars=100), required=False, doc="A revision; without it every skill is new."),
            Param(
                "wait_ms",
                integer(0, WAIT_LIMIT_MS),
                required=False,
                default=0,
                doc="Milliseconds to wait for a change where there is none yet.",
            ),
        ),
        changes,
        schemas.CHANGES,
        ("GET", "/skills/changes"),
    ),
    Method("skills.subscribe", "read", (), subscribe, schemas.REVISION, framing="ndjson"),
    Method("skills.unsubscribe", "read", (), unsubscribe, schemas.REVISION, framing="ndjson"),
)
