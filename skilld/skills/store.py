"""
The writing side of the library: skills are created, changed and deleted here, one after the other.

A call returns when the change is on the disk *and* in the registry and the index, so that its caller, and everybody
else, reads what was written.

Owns: the one thread that writes to the roots, and what it wrote last.

Source: API, ``skills.create``, ``skills.update``, ``skills.delete``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from skilld.errors import ShuttingDown, SkillExists, SkillNotFound
from skilld.skills.edit import EditRefused, Fields, check_fields, check_new_name, check_tools, render_skill_md
from skilld.skills.filemap import Given, check_limits, check_places, gather_files
from skilld.skills.making import create_skill, delete_skill
from skilld.skills.model import Finding, Skill
from skilld.skills.ondisk import Place, Stamp, invalid
from skilld.skills.registry import Registry
from skilld.skills.staging import clean_up
from skilld.skills.updating import Change, update_skill
from skilld.skills.watcher import Watcher

T = TypeVar("T")
Files = Mapping[str, Mapping[str, Given] | None]

# Stamps remembered: for a skill that is written again within moments.
OWN_LIMIT = 1_000


class Store:
    """
    Writes skills.

    Args:
        registry: Knows the roots and which skill is where.
        watcher: Scans what was written; it must be running.
    """

    def __init__(self, registry: Registry, watcher: Watcher) -> None:
        # Settings.
        self._registry = registry
        self._watcher = watcher
        # State: the stamps of the SKILL.md files that we wrote last, by root and id; the writing thread's alone.
        self._own: dict[tuple[str, str], Stamp] = {}
        self._is_closed = False
        # Tasks.
        self._thread = ThreadPoolExecutor(1, "skilld-write")
        self._running: set[asyncio.Task[None]] = set()

    def clean_up(self) -> None:
        """Remove what killed daemons left in the roots, before anything else is written. Returns at once."""
        for root in self._registry.roots:
            self._thread.submit(clean_up, Place(root, "").root_path)

    def clean_up_after(self, root: str) -> None:
        """Remove what a change left in a root because a script ran in it, now that it has ended. Returns at once."""
        if not self._is_closed:
            self._thread.submit(clean_up, Place(root, "").root_path)

    async def create(self, name: str, fields: Fields, files: Files) -> Skill:
        """
        Create a skill in the first root.

        Args:
            name: Also its id and its directory.
            fields: At least the description.
            files: The maps by folder.

        Raises:
            SkillInvalid: Rules are broken; lists all of them.
            SkillExists: A skill, or anything else, is there under this name.
            ReadOnly: The first root cannot be written.
            Storage: The disk refused.
        """
        registry, limits = self._registry, self._watcher.rescanner.limits
        place = Place(registry.roots[0], name)
        given, findings = gather_files(files)
        contents = {path: content for path, content in given.items() if content is not None}
        findings = [
            *check_new_name(name, limits.ignore),
            *check_tools(fields.allowed_tools or ()),
            *check_fields({"description": None, **fields.wanted()}),
            *findings,
            *check_places(given, {}),
        ]
        if not findings:
            try:
                contents = {"SKILL.md": render_skill_md(name, fields), **contents}
            except EditRefused as exc:
                findings += exc.findings
        findings += check_limits(
            {}, {path.encode(): content for path, content in contents.items()}, b"SKILL.md", limits
        )
        if len(registry.snapshot.skills) >= registry.limit_skills:
            findings.append(Finding("error", f"there are {registry.limit_skills:,} skills already (limits.skills)"))
        if findings:
            raise invalid(place, findings)
        # Another root's skill would be hidden; the disk knows about this one.
        if any(name in entries for entries in registry.entries):
            raise SkillExists(name)
        await self._write(place, lambda: self._remember(place, create_skill(place, contents)))
        return self._served(name)

    async def update(self, name: str, fields: Fields, files: Files, if_digest: str | None = None) -> Skill:
        """
        Change what is given of a skill, in the root where it lives.

        Args:
            name: An id, or a name that one skill bears.
            fields: What to change in its SKILL.md.
            files: The maps by folder; None removes a file.
            if_digest: Only if this is its digest on the disk now.

        Raises:
            SkillNotFound, FileNotFound, Conflict, SkillInvalid, ReadOnly, Storage, Busy: See ``updating``.
        """
        place = self._find(name)
        change, limits = Change(fields, *gather_files(files), if_digest), self._watcher.rescanner.limits

        def write() -> None:
            own = self._own.pop((place.root, place.id), None)
            self._remember(place, update_skill(place, change, limits, own))

        await self._write(place, write)
        return self._served(place.id)

    async def delete(self, name: str, if_digest: str | None = None) -> None:
        """
        Delete a skill.

        Args:
            name: An id, or a name that one skill bears.
            if_digest: Only if this is its digest on the disk now.

        Raises:
            SkillNotFound, Conflict, ReadOnly, Storage, Busy: See ``making``.
        """
        place = self._find(name)
        limits = self._watcher.rescanner.limits
        await self._write(place, lambda: delete_skill(place, if_digest, limits))

    def is_taken(self, name: str) -> bool:
        """Tell whether a new skill cannot or should not be called so: one bears the name, or it is ignored."""
        registry = self._registry
        return (
            name in registry.snapshot.ids_by_name
            or any(name in entries for entries in registry.entries)
            or name in self._watcher.rescanner.limits.ignore
        )

    async def close(self) -> None:
        """Wait until everything that was begun is on the disk; nothing more is written. Idempotent."""
        self._is_closed = True
        await asyncio.to_thread(self._thread.shutdown)
        # Nobody waits for their scans any more, and the watcher may have died.
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _find(self, name: str) -> Place:
        skill = self._registry.snapshot.find(name)
        number = self._registry.roots.index(skill.root)
        return Place(skill.root, skill.id, self._registry.entries[number][skill.id].files)

    def _remember(self, place: Place, stamp: Stamp) -> None:
        self._own[place.root, place.id] = stamp
        if len(self._own) > OWN_LIMIT:
            del self._own[next(iter(self._own))]

    def _served(self, id: str) -> Skill:
        skill = self._registry.snapshot.skills.get(id)
        if skill is None:  # deleted again by somebody else
            raise SkillNotFound(id)
        return skill

    async def _write(self, place: Place, write: Callable[[], None]) -> None:
        """Write in the writing thread, then scan; to the end even where the caller goes away."""

        if self._is_closed:
            raise ShuttingDown
        written = asyncio.get_running_loop().run_in_executor(self._thread, write)

        async def finish() -> None:
            try:
                await written
            finally:
                await self._watcher.refresh(place.root, place.id)

        task = asyncio.create_task(finish(), name=f"write {place.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # not the caller went away: we are closing
                raise ShuttingDown from None
            raise
