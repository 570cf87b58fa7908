"""
Learning that something on disk may have changed.

An event only marks the unit that may be stale; the scan of that unit finds the truth. A unit is a skill directory or,
where there is none yet, the highest directory that holds no known skill. What events cannot tell is found by looking:
sweeps compare every file's identity, linked skills are looked at every second, and so are the roots themselves. Where
inotify cannot be had, sweeps do it all (polling).

Owns: the source of events, and what is known of how reliable it is.

Source: measured behaviour of watchfiles and notify; Watchman's design (cookies, recrawl).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from skilld import config
from skilld.errors import Busy
from skilld.skills.event_source import EventSource, SourceFailed, WatchesExhausted
from skilld.skills.model import SKILL_FILE_NAMES
from skilld.skills.mounts import count_directories, reason_to_poll
from skilld.skills.registry import Registry
from skilld.skills.rescanner import Rescanner, Unit
from skilld.skills.scanner import ScanLimits

log = logging.getLogger(__name__)

# How often the roots are checked for having been replaced.
ROOT_CHECK_S = 0.25
# A batch with so many paths may have been cut short: the kernel's queue holds 16,384 events by default, a new file
# makes three or four of them, and watchfiles does not report an overflow.
BURST_PATHS = 3_000
# A sweep, or a look at the linked skills, takes at most one part in so many of the time; polling, one in so many.
IDLE_SHARE = 100
POLLING_SHARE = 10
# Failures in a row that make the watcher poll, and for how long before it tries inotify again.
FAILURE_LIMIT = 3
RETRY_INOTIFY_S = 60.0
# Seconds within which a source that works delivers its first event.
FIRST_COOKIE_S = 3.0
# An event may reach us so long after the sweep that was first to see its edit, or so long before.
EVENT_SLACK_S = 2.0
# Events older than this explain no sweep.
EVENT_MEMORY_S = 60.0


@dataclass(frozen=True)
class WatchState:
    """What ``skilld.status`` tells. ``reason`` says why it polls; ``missed_events`` counts edits only sweeps saw."""

    mode: str = "starting"
    reason: str | None = None
    last_event: datetime | None = None
    missed_events: int = 0


class Watcher:
    """
    Follows the roots of a registry until cancelled.

    Args:
        registry: What to keep true to the disk.
        settings: The configuration.

    Attributes:
        state: How it is doing.
        is_alive: Whether it runs.
    """

    def __init__(self, registry: Registry, settings: config.Config) -> None:
        # Settings.
        self.registry = registry
        self.settings = settings
        # State that others see.
        self.state = WatchState()
        self.is_alive = False
        # The part that scans.
        self.rescanner = Rescanner(registry, _scan_limits(settings))
        self.ready = self.rescanner.ready
        # The source of events, None while there is none; and what it watches.
        self._source: EventSource | None = None
        self._real_roots: tuple[tuple[str, int, int] | None, ...] = ()
        self._rebuild = asyncio.Event()
        # Units that may have directories which are not watched yet.
        self._new_units: set[Unit] = set()
        self._settling: set[Unit] = set()
        self._has_new = asyncio.Event()
        # When an event last named a unit, to tell what a sweep should have known.
        self._named_at: dict[Unit, float] = {}

    async def run(self) -> None:
        """Scan the roots, then follow their changes, until cancelled."""
        self.is_alive = True
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.rescanner.run())
                # To watch takes a while in a large library; what changes before is found by the scan after it.
                self.rescanner.mark_all()
                await self.ready.wait()
                tasks.create_task(self._look_at_linked())
                tasks.create_task(self._follow())
        finally:
            self.is_alive = False

    async def sync(self, timeout_s: float) -> None:
        """
        Return when every change made on disk before the call is in the registry.

        Raises:
            Busy: That took longer than ``timeout_s`` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.ready.wait()
                try:
                    source = self._source
                    if source is None or await self._roots_changed():
                        raise SourceFailed("a root was replaced and is not watched yet")
                    await source.cookie()
                    if self._source is not source or self._rebuild.is_set():
                        raise SourceFailed("a root was replaced meanwhile")
                    self._mark_linked()
                    self.rescanner.mark(self._new_units | self._settling)
                except SourceFailed:
                    self.rescanner.mark_all()
                await self.rescanner.drain()
        except TimeoutError:
            raise Busy(f"changes on disk were not indexed within {timeout_s * 1000:.0f} ms") from None

    async def refresh(self, root: str, id: str) -> None:
        """Scan one skill directory now, whatever its events say, and wait until the registry shows it."""
        self.rescanner.mark([(number, id) for number, path in enumerate(self.registry.roots) if path == root])
        await self.rescanner.drain()

    def reload(self, settings: config.Config) -> None:
        """Take other roots, limits and ways of watching; scan everything again. Returns at once."""
        self.settings = settings
        self.registry.set_roots(settings.skills_dir)
        # Units of the old roots mean nothing any more.
        self._real_roots = ()
        self._new_units, self._settling, self._named_at = set(), set(), {}
        self._rebuild.set()
        self.rescanner.reload(_scan_limits(settings))

    # Where events come from.

    async def _follow(self) -> None:
        """Watch through inotify as long as that works; poll where it does not."""
        failures = 0
        while True:
            self._rebuild.clear()
            reason = await self._why_poll()
            if reason is None:
                began = time.monotonic()
                try:
                    await self._watch()
                    failures = 0
                    continue
                except SourceFailed as exc:
                    failures = failures + 1 if time.monotonic() - began < RETRY_INOTIFY_S else 1
                    reason = str(exc)
                    if failures < FAILURE_LIMIT and not isinstance(exc, WatchesExhausted):
                        log.warning("watching failed, trying again: %s", reason)
                        await asyncio.sleep(0.1 * failures)
                        continue
            log.warning("polling the skill directories: %s", reason)
            await self._poll(reason)
            failures = 0

    async def _why_poll(self) -> str | None:
        """Return why inotify cannot be relied upon here, or None; note what the roots are now."""
        if self.settings.watch.mode == "polling":
            return "watch.mode is polling"
        self._real_roots = await asyncio.to_thread(_identify_roots, self.registry.roots)
        real = [identity[0] for identity in self._real_roots if identity is not None]
        return await asyncio.to_thread(_reason_to_poll, real, self.settings.watch.max_directories)

    async def _watch(self) -> None:
        """
        Follow events until the watch must be built anew.

        Raises:
            SourceFailed: The source cannot be opened or died.
        """
        real = [identity[0] for identity in self._real_roots if identity is not None]
        source = EventSource(list(dict.fromkeys(real)), self._on_events)
        try:
            await source.open()
            # Only what changes from the first cookie on makes events, so a scan of everything comes after it. When
            # watches run out, the cookies' directory is the first to go without.
            await source.cookie(FIRST_COOKIE_S)
            self._source = source
            self.state = replace(self.state, mode="inotify", reason=None)
            self.rescanner.mark_all()
            await _first_of(
                source.ended.wait(),
                self._rebuild.wait(),
                self._until_root_changes(),
                self._sweep(source),
                self._settle_new(source),
            )
            if source.failure is not None:
                raise source.failure
        finally:
            self._source = None
            await source.close()

    async def _poll(self, reason: str) -> None:
        """Sweep again and again: for ever where polling was asked for, else until inotify is worth another try."""
        self.state = replace(self.state, mode="polling", reason=reason)
        until = time.monotonic() + RETRY_INOTIFY_S
        while not self._rebuild.is_set() and (self.settings.watch.mode == "polling" or time.monotonic() < until):
            self.rescanner.mark_all()
            await self.rescanner.drain(held_back=False)
            pause_s = max(self.settings.watch.poll_interval_s, POLLING_SHARE * self.rescanner.full_scan_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._rebuild.wait(), pause_s)

    async def _until_root_changes(self) -> None:
        """Return when a root is no longer the directory that is being watched: replaced, gone, or there at last."""
        while True:
            if await self._roots_changed():
                return
            await asyncio.sleep(ROOT_CHECK_S)

    async def _roots_changed(self) -> bool:
        return await asyncio.to_thread(_identify_roots, self.registry.roots) != self._real_roots

    async def _sweep(self, source: EventSource) -> None:
        """Look now and then for edits that no event told of; return when there was one."""
        while True:
            await asyncio.sleep(max(self.settings.watch.sweep_interval_s, IDLE_SHARE * self.rescanner.full_scan_s))
            began = time.monotonic()
            self.rescanner.mark_all()
            await self.rescanner.drain(held_back=False)
            found = self.rescanner.last_found
            if not found:
                continue
            # The events of what the sweep was first to see may still be on their way.
            await source.cookie()
            if any(self._is_unannounced(id, began - EVENT_SLACK_S) for id in found):
                self.state = replace(self.state, missed_events=self.state.missed_events + 1)
                log.warning("a sweep found an edit that no event told of; watching anew")
                return

    def _is_unannounced(self, id: str, since: float) -> bool:
        """Tell whether no event since a moment named a skill, or a directory above it."""
        for number, known in enumerate(self.registry.entries):
            entry = known.get(id)
            if entry is not None and entry.is_linked:
                return False
            parts = id.split("/")
            for length in range(len(parts) + 1):
                if self._named_at.get((number, "/".join(parts[:length])), 0.0) >= since:
                    return False
        return True

    async def _settle_new(self, source: EventSource) -> None:
        """
        Look again at what is new, once its directories are watched.

        notify adds a watch to a new directory after it has reported it; a write between a scan and that moment makes
        no event.
        """
        while True:
            await self._has_new.wait()
            self._has_new.clear()
            self._settling, self._new_units = self._new_units, set()
            await source.barrier()
            self.rescanner.mark(self._settling)
            self._settling = set()

    async def _look_at_linked(self) -> None:
        """Look at skills behind symbolic links every second: not all that happens there makes an event."""
        while True:
            await asyncio.sleep(self.settings.watch.poll_interval_s)
            began = time.monotonic()
            if self._source is not None and self._mark_linked():
                await self.rescanner.drain(held_back=False)
                await asyncio.sleep((time.monotonic() - began) * IDLE_SHARE)

    def _mark_linked(self) -> bool:
        """Mark every skill that a symbolic link leads to; tell whether there are any."""
        units = [
            (number, id)
            for number, known in enumerate(self.registry.entries)
            for id, entry in known.items()
            if entry.is_linked
        ]
        if units:
            self.rescanner.mark(units)
        return bool(units)

    # Events.

    def _on_events(self, paths: list[str], has_new: bool) -> None:
        now = time.monotonic()
        self.state = replace(self.state, last_event=datetime.now(UTC))
        units: set[Unit] = set()
        for number, identity in enumerate(self._real_roots):
            if identity is None:
                continue
            prefix = identity[0].rstrip("/") + "/"
            for path in paths:
                if path == identity[0]:
                    # Gone, perhaps, and made again with the same inode number, which only this event tells.
                    units.add((number, ""))
                    self._rebuild.set()
                elif path.startswith(prefix):
                    below = self._unit_of(number, path[len(prefix) :])
                    if below is not None:
                        units.add((number, below))
        self.rescanner.mark(units)
        if len(self._named_at) > 10_000:
            self._named_at = {unit: at for unit, at in self._named_at.items() if now - at < EVENT_MEMORY_S}
        self._named_at.update(dict.fromkeys(units, now))
        if has_new:
            self._new_units |= units
            self._has_new.set()
        if len(paths) >= BURST_PATHS:
            log.info("%d paths changed at once; events may be lost, watching anew", len(paths))
            self._rebuild.set()

    def _unit_of(self, root_number: int, relative: str) -> str | None:
        """
        Return the unit that a path below a root may have made stale, or None where it cannot matter.

        That is the skill directory around the path; else the highest directory above it that holds no known skill.
        """
        known = self.registry.entries[root_number]
        parts = relative.split("/")
        if os.fsencode(parts[-1]) in SKILL_FILE_NAMES and len(parts) > 1:
            parts.pop()
        for length, part in enumerate(parts, 1):
            unit = "/".join(parts[:length])
            if unit in known:
                return unit
            if part.startswith(".."):
                # Kubernetes swaps a whole volume by the link ..data.
                return ""
            if part.startswith(".") or part in self.settings.ignore or length > self.settings.limits.depth:
                return None
            if not self.registry.ids_below(root_number, unit):
                return unit
        return "/".join(parts)


def _scan_limits(settings: config.Config) -> ScanLimits:
    limits = settings.limits
    return ScanLimits(
        limits.skill_md_bytes, limits.skill_files, limits.skill_bytes, limits.depth, frozenset(settings.ignore)
    )


def _identify_roots(roots: Iterable[str]) -> tuple[tuple[str, int, int] | None, ...]:
    """Return real path, device and inode of each root; None for one that is no directory."""
    identities: list[tuple[str, int, int] | None] = []
    for root in roots:
        try:
            real = os.path.realpath(root, strict=True)
            state = os.stat(real)
            identities.append((real, state.st_dev, state.st_ino) if os.path.isdir(real) else None)
        except OSError:
            identities.append(None)
    return tuple(identities)


def _reason_to_poll(real_roots: list[str], limit: int) -> str | None:
    reason = reason_to_poll(real_roots)
    if reason is None and count_directories(real_roots, limit) > limit:
        reason = f"more than {limit:,} directories below the roots (watch.max_directories)"
    return reason


async def _first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    """Return when the first of several waits has ended; the others are cancelled; an exception is passed on."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
