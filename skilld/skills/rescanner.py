"""
Scanning what is stale, and publishing what was found.

Anybody may mark a unit as stale, as often as they like. One task takes all marks together, scans in a thread of its
own and hands the result to the registry, so that a burst of marks becomes one revision.

Owns: the marks, the scanning thread, and the skills that are held back for a moment.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeAlias

from skilld.skills.indexer import prepare_skill
from skilld.skills.registry import Registry, Scanned
from skilld.skills.scanner import Entry, ScanLimits, scan
from skilld.skills.search import Prepared

# How long a skill that an edit took away is kept, if its directory is still there: editors rename the old file away
# before they write the new one, and rsync and slow writers leave a half file for a moment.
GRACE_S = 0.2
# When to look again at a file that was being written while it was read.
LOOK_AGAIN_S = 0.05
# Search documents of at most so many changed skills are made before a change is published; more go to the background.
PREPARE_LIMIT = 32

# A part of a root: the root's number and a path relative to it ("" is the whole root).
Unit: TypeAlias = tuple[int, str]


@dataclass(frozen=True)
class _Job:
    """
    One unit to scan, with all that the scanning thread may know of the registry, which may get other roots meanwhile.

    ``served`` are the ids at or below the unit that are served now.
    """

    unit: Unit
    root: str
    known: Mapping[str, Entry]
    served: frozenset[str]


@dataclass(frozen=True)
class _Found:
    """What the scanning thread brings back; ``still_there`` are directories whose skill is gone or broken."""

    results: list[Scanned]
    prepared: dict[tuple[str, str], Prepared]
    still_there: set[Unit]


class Rescanner:
    """
    Keeps a registry true to whatever is marked.

    Args:
        registry: Where scans are published.
        limits: Bounds of a scan.

    Attributes:
        ready: Set after the first scan of everything.
        last_full_scan: When the last scan of everything ended.
        full_scan_s: How long it took, in seconds.
        last_found: Ids that the last scan of everything added, updated or removed.
    """

    def __init__(self, registry: Registry, limits: ScanLimits) -> None:
        # Settings.
        self.registry = registry
        self.limits = limits
        # State that others see.
        self.ready = asyncio.Event()
        self.last_full_scan: datetime | None = None
        self.full_scan_s = 0.0
        self.last_found: tuple[str, ...] = ()
        # Marks, numbered; what is marked and not yet scanned; until when a skill that seems to go is kept.
        self._stale: set[Unit] = set()
        self._marked = 0
        self._settled = 0
        self._wake = asyncio.Event()
        self._scanned = asyncio.Condition()
        self._grace: dict[Unit, float] = {}
        self._executor = ThreadPoolExecutor(1, "skilld-scan")

    def mark(self, units: Iterable[Unit]) -> None:
        """Say that units may be stale; they are scanned soon."""
        self._stale.update(units)
        self._marked += 1
        self._wake.set()

    def mark_all(self) -> None:
        """Say that everything may be stale."""
        self.mark((number, "") for number in range(len(self.registry.roots)))

    def reload(self, limits: ScanLimits) -> None:
        """Scan everything with other limits, for roots that may be others too; nothing is held back any more."""
        self.limits = limits
        self._grace.clear()
        self.mark_all()

    async def drain(self, *, held_back: bool = True) -> None:
        """Wait until all that is marked now has been scanned and, unless told otherwise, nothing is held back."""
        async with self._scanned:
            target = self._marked
            await self._scanned.wait_for(lambda: self._settled >= target and not (held_back and self._grace))

    async def run(self) -> None:
        """Scan whatever is marked, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                await self._scan_marked()
        finally:
            self._executor.shutdown(wait=True, cancel_futures=True)

    async def _scan_marked(self) -> None:
        loop = asyncio.get_running_loop()
        self._wake.clear()
        taken, self._stale, marked = self._stale, set(), self._marked
        roots = self.registry.roots
        # A mark may be older than a reload that took its root away.
        taken = {unit for unit in taken if unit[0] < len(roots)}
        whole = {number for number, below in taken if not below}
        units = sorted(unit for unit in taken if unit[0] not in whole or not unit[1])
        began = loop.time()
        found = await loop.run_in_executor(self._executor, self._scan, [self._job(unit) for unit in units])
        # After a reload the numbers mean other roots; it has marked everything.
        if self.registry.roots is roots:
            self._publish(found, whole, loop.time() - began)
        async with self._scanned:
            self._settled = marked
            self._scanned.notify_all()

    def _job(self, unit: Unit) -> _Job:
        number, below = unit
        registry = self.registry
        entries = registry.entries[number]
        served = frozenset(id for id in registry.ids_below(number, below) if entries[id].skill is not None)
        return _Job(unit, registry.roots[number], registry.known(number), served)

    def _publish(self, found: _Found, whole: set[int], seconds: float) -> None:
        results = [self._hold_back(result, found.still_there) for result in found.results]
        change = self.registry.apply(results, found.prepared)
        if len(whole) == len(self.registry.roots):
            self.full_scan_s = seconds
            self.last_full_scan = datetime.now(UTC)
            self.registry.forget_remembered()
            self.last_found = (*change.added, *change.updated, *change.removed) if change else ()
            self.ready.set()

    def _scan(self, jobs: list[_Job]) -> _Found:
        """In the scanning thread: scan units, and make the search documents of a few changed skills at once."""
        results = []
        changed: list[Entry] = []
        still_there: set[Unit] = set()
        for job in jobs:
            number, below = job.unit
            entries = tuple(scan(job.root, below, job.known, self.limits))
            results.append(Scanned(number, below, entries))
            changed += [entry for entry in entries if job.known.get(entry.id) is not entry]
            left = job.served.difference(entry.id for entry in entries if entry.skill is not None)
            still_there.update((number, id) for id in left if os.path.isdir(f"{job.root}/{id}"))
        prepared = {}
        skills = [entry.skill for entry in changed if entry.skill is not None]
        for skill in skills if len(skills) <= PREPARE_LIMIT else ():
            document = prepare_skill(skill, self.limits.skill_md_bytes)
            if document is not None:
                prepared[skill.root, skill.id] = document
        return _Found(results, prepared, still_there)

    def _hold_back(self, result: Scanned, still_there: set[Unit]) -> Scanned:
        """Keep skills that an edit may take away for a moment only; plan another look at what is being written."""
        loop = asyncio.get_running_loop()
        known = self.registry.entries[result.root_number]
        found = {entry.id: entry for entry in result.entries}
        kept: dict[str, Entry] = {}
        for id in self.registry.ids_below(result.root_number, result.below):
            unit = (result.root_number, id)
            if unit not in still_there:
                self._grace.pop(unit, None)
            elif loop.time() < self._grace.setdefault(unit, loop.time() + GRACE_S):
                kept[id] = known[id]
                loop.call_at(self._grace[unit] + 0.001, self.mark, (unit,))
            else:
                del self._grace[unit]
        for entry in result.entries:
            if entry.is_racy:
                loop.call_later(LOOK_AGAIN_S, self.mark, ((result.root_number, entry.id),))
        return replace(result, entries=tuple((found | kept).values())) if kept else result
