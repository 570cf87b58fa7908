"""
Filling the search index in the background.

After a start, or after very many changes at once, the registry publishes skills that search does not know yet. The
indexer reads and prepares them in a thread, a few at a time, and hands each to the registry on the event loop.

Owns: the thread that prepares.
"""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from skilld.skills.model import Skill
from skilld.skills.scanner import read_body
from skilld.skills.search import Document, Prepared, prepare, tags_of

if TYPE_CHECKING:
    from skilld.skills.registry import Registry

# Small enough that adding a slice holds the event loop for a few milliseconds at the most.
SLICE = 16


def prepare_skill(skill: Skill, limit_bytes: int) -> Prepared | None:
    """Read a skill's body and prepare its search document; None where its SKILL.md has changed since. Blocks."""
    body = read_body(skill, limit_bytes)
    if body is None:
        return None
    return prepare(Document(skill.id, skill.name, skill.description, tags_of(skill.frontmatter), body))


async def fill_index(registry: Registry, limit_bytes: int) -> None:
    """Prepare whatever the registry has not indexed, until cancelled."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1, "skilld-index")
    try:
        while True:
            if not registry.unindexed:
                await registry.wait_for_change(registry.snapshot.revision, 60.0)
                continue
            skills = list(itertools.islice(registry.unindexed.values(), SLICE))
            documents = await loop.run_in_executor(executor, _prepare_all, skills, limit_bytes)
            for skill, document in zip(skills, documents, strict=True):
                registry.add_to_index(skill, document)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _prepare_all(skills: list[Skill], limit_bytes: int) -> list[Prepared | None]:
    return [prepare_skill(skill, limit_bytes) for skill in skills]
