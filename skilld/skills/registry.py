"""
The registry: which skills there are now, and what changed since any revision.

Readers take :attr:`Registry.snapshot`, an immutable value. A change builds the next snapshot and swaps it in one
synchronous step, together with the search index; then subscribers are told. So nobody ever sees half a change, and a
search never answers with what a visible revision has replaced.

Owns: the snapshot, the entries of every root, the search index, the history of changes, the subscribers. Lives on the
event loop; nothing here blocks.

Source: API, "Identity", sections 3 and 5.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import secrets
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from skilld.errors import SkillNotFound, quote
from skilld.skills.digest import manifest, manifest_digest
from skilld.skills.model import Finding, Problem, Skill
from skilld.skills.scanner import Entry
from skilld.skills.search import Index, Prepared

if TYPE_CHECKING:
    from skilld.skills.cache import Cached

log = logging.getLogger(__name__)

SUGGESTION_LIMIT = 5


@dataclass(frozen=True, slots=True)
class Change:
    """
    What one revision changed, or several together: sorted ids.

    ``is_complete`` is False where the history does not reach back to the revision that was asked for; then the lists
    are empty and the caller must list again.
    """

    revision: str
    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    is_complete: bool = True


@dataclass(frozen=True)
class Snapshot:
    """
    All skills at one revision.

    ``skills`` is by id; ``ids_by_name`` lists the ids that bear a name; ``problems_by_entry`` the problems by root
    number and id. None of them is changed once a snapshot is made.
    """

    revision: str
    skills: Mapping[str, Skill]
    ids_by_name: Mapping[str, tuple[str, ...]]
    problems_by_entry: Mapping[tuple[int, str], tuple[Problem, ...]]
    # What the snapshot before this one had sorted; saves most of the work.
    _sorted_ids: list[str] = field(default_factory=list, repr=False)

    @property
    def ids(self) -> Sequence[str]:
        """All ids, sorted."""
        return self._sorted_ids

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """All problems, those of severity error first, then by path and line."""
        every = [problem for problems in self.problems_by_entry.values() for problem in problems]
        return tuple(sorted(every, key=lambda problem: (problem.severity, problem.path, problem.line or 0)))

    @cached_property
    def manifest(self) -> str:
        """The skill-set manifest of this snapshot (canonical JSON text)."""
        return manifest((id, skill.digest) for id, skill in self.skills.items())

    @cached_property
    def digest(self) -> str:
        """The registry digest, ``sha256:<hex>``."""
        return manifest_digest(self.manifest)

    def find(self, name: str) -> Skill:
        """
        Return the skill of an id, or of a name that only one skill bears.

        Raises:
            SkillNotFound: None, with the nearest ids; or several bear the name, with theirs.
        """
        skill = self.skills.get(name)
        if skill is not None:
            return skill
        ids = self.ids_by_name.get(name, ())
        if len(ids) == 1:
            return self.skills[ids[0]]
        if ids:
            raise SkillNotFound(name, ids[:SUGGESTION_LIMIT], ambiguous=True)
        raise SkillNotFound(name, self._nearest(name))

    def _nearest(self, name: str) -> tuple[str, ...]:
        wanted = name.lower()[:100]
        last = wanted.rpartition("/")[2]
        # difflib is quadratic; a first look keeps its work small in a large library.
        near = [id for id in self.ids if id[:1].lower() == wanted[:1] or (last and last in id.lower())][:2_000]
        return tuple(difflib.get_close_matches(wanted, near, SUGGESTION_LIMIT, 0.6))


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scan of one part of a root found: all entries at or below ``below`` ("" is the whole root)."""

    root_number: int
    below: str
    entries: tuple[Entry, ...]


class Registry:
    """
    The live set of skills of some roots.

    Args:
        roots: Paths, the one that wins a collision of ids first.
        limit_skills: More skills than this are not served.
        limit_changes: Ids that the history remembers.
    """

    def __init__(self, roots: tuple[str, ...], *, limit_skills: int, limit_changes: int) -> None:
        # Settings.
        self.roots = roots
        self.limit_skills = limit_skills
        self.limit_changes = limit_changes
        # State, replaced as a whole.
        self.run_id = secrets.token_hex(6)
        self.snapshot = Snapshot(f"{self.run_id}:0", {}, {}, {})
        # State, changed in one step with the snapshot.
        self.entries: list[dict[str, Entry]] = [{} for _ in roots]
        self.index = Index()
        self.unindexed: dict[str, Skill] = {}
        # What an earlier daemon knew, until the first scan has shown what of it still holds.
        self.remembered: Cached | None = None
        # Set while search knows every skill.
        self.is_indexed = asyncio.Event()
        self._entry_ids: list[list[str]] = [[] for _ in roots]
        # Ids that would be served if there were fewer skills.
        self._left_out: dict[str, None] = {}
        self._counter = 0
        self._history: deque[Change] = deque()
        self._history_ids = 0
        self._subscribers: set[Callable[[Change], None]] = set()
        self._changed = asyncio.Event()

    def ids_below(self, root_number: int, below: str) -> list[str]:
        """Return the ids of a root's entries at or below a relative path; "" is all."""
        ids = self._entry_ids[root_number]
        if not below:
            return list(ids)
        found = [below] if below in self.entries[root_number] else []
        # "/" sorts before every character that may follow it in a path below; "0" is the next one.
        return found + ids[bisect_left(ids, below + "/") : bisect_left(ids, below + "0")]

    def apply(self, results: Iterable[Scanned], prepared: Mapping[tuple[str, str], Prepared]) -> Change | None:
        """
        Make what a scan found the truth, in one step.

        Args:
            results: What was scanned; every known entry in a scanned part that is not among its entries is gone.
            prepared: Search documents of changed skills by root and id; changed skills without one go to
                ``unindexed``.

        Returns:
            The change, which subscribers have been told; None where no skill changed.
        """
        touched: dict[str, None] = {}
        for result in results:
            known = self.entries[result.root_number]
            found = {entry.id: entry for entry in result.entries}
            for id in self.ids_below(result.root_number, result.below):
                if id not in found:
                    del known[id]
                    touched[id] = None
            for id, entry in found.items():
                if known.get(id) is not entry:
                    known[id] = entry
                    touched[id] = None
            self._sort_entry_ids(result.root_number, result.below, found)
        if not touched:
            return None
        return self._swap(touched, prepared)

    def _sort_entry_ids(self, root_number: int, below: str, found: Mapping[str, Entry]) -> None:
        ids = self._entry_ids[root_number]
        if not below:
            ids[:] = sorted(found)
            return
        start, end = bisect_left(ids, below + "/"), bisect_left(ids, below + "0")
        ids[start:end] = sorted(id for id in found if id != below)
        position = bisect_left(ids, below)
        is_there = position < len(ids) and ids[position] == below
        if is_there and below not in found:
            del ids[position]
        elif below in found and not is_there:
            insort(ids, below)

    def _swap(self, touched: Mapping[str, None], prepared: Mapping[tuple[str, str], Prepared]) -> Change | None:
        old = self.snapshot
        skills, names, problems = dict(old.skills), dict(old.ids_by_name), dict(old.problems_by_entry)
        sorted_ids = list(old.ids)
        added: list[str] = []
        updated: list[str] = []
        removed: list[str] = []
        for id in {**touched, **self._left_out}:
            skill = self._settle(id, problems, len(skills) - (id in skills) >= self.limit_skills)
            before = skills.get(id)
            if skill == before:
                continue
            if before is not None:
                left = tuple(other for other in names[before.name] if other != id)
                names[before.name] = left
                if not left:
                    del names[before.name]
            if skill is None:
                del skills[id]
                removed.append(id)
            else:
                skills[id] = skill
                names[skill.name] = tuple(sorted((*names.get(skill.name, ()), id)))
                (added if before is None else updated).append(id)
        changed_count = len(added) + len(updated) + len(removed)
        if not changed_count:
            self.snapshot = replace(old, problems_by_entry=problems)
            return None
        if len(added) + len(removed) > 100:
            sorted_ids = sorted(skills)
        else:
            for id in removed:
                del sorted_ids[bisect_left(sorted_ids, id)]
            for id in added:
                insort(sorted_ids, id)
        self._counter += 1
        change = Change(
            f"{self.run_id}:{self._counter}", tuple(sorted(added)), tuple(sorted(updated)), tuple(sorted(removed))
        )
        self._index(change, skills, prepared)
        self.snapshot = Snapshot(change.revision, skills, names, problems, sorted_ids)
        self._remember(change)
        log.info(
            "revision %s: %d added, %d updated, %d removed%s",
            change.revision,
            len(added),
            len(updated),
            len(removed),
            # An id may hold a newline, which must not begin a line of the log.
            f" ({', '.join(map(quote, added + updated + removed))})" if changed_count <= 5 else "",
            extra={"revision": change.revision, "skill": (*change.added, *change.updated, *change.removed)},
        )
        self._tell(change)
        return change

    def _settle(self, id: str, problems: dict[tuple[int, str], tuple[Problem, ...]], is_full: bool) -> Skill | None:
        """Return the skill that an id stands for now, and write down its entries' problems."""
        winner: Entry | None = None
        winner_root = ""
        self._left_out.pop(id, None)
        for number, known in enumerate(self.entries):
            entry = known.get(id)
            problems.pop((number, id), None)
            if entry is None:
                continue
            found = list(entry.problems)
            path = f"{self.roots[number]}/{id}"
            name = entry.skill.name if entry.skill else None
            if winner is not None:
                message = f"hidden by the skill of the same id in {winner_root}"
                found.append(_problem_of(path, id, name, Finding("error", message)))
            elif entry.skill is not None and is_full:
                self._left_out[id] = None
                message = f"not served: there are {self.limit_skills:,} skills already (limits.skills)"
                found.append(_problem_of(path, id, name, Finding("error", message)))
            if winner is None:
                winner, winner_root = entry, self.roots[number]
            if found:
                problems[number, id] = tuple(found)
        return None if winner is None or is_full else winner.skill

    def _index(self, change: Change, skills: Mapping[str, Skill], prepared: Mapping[tuple[str, str], Prepared]) -> None:
        for id in (*change.updated, *change.removed):
            self.unindexed.pop(id, None)
            self.index.remove(id)
        for id in (*change.added, *change.updated):
            document = prepared.get((skills[id].root, id))
            if document is not None:
                self.index.add(document)
            elif not self._is_remembered(skills[id]):
                self.unindexed[id] = skills[id]
        self._note_indexed()

    def _note_indexed(self) -> None:
        if self.unindexed:
            self.is_indexed.clear()
        else:
            self.is_indexed.set()

    def _is_remembered(self, skill: Skill) -> bool:
        """Tell whether the index that was taken over was made of this very skill."""
        if self.remembered is None or skill.id not in self.index:
            return False
        # Only the entry that won when the cache was made is in the index.
        winner = next((entries[skill.id] for entries in self.remembered.entries if skill.id in entries), None)
        return winner is not None and winner.skill is skill

    def set_roots(self, roots: tuple[str, ...]) -> None:
        """Take other roots; what is known of those that stay is kept, the rest waits for a scan."""
        if self.remembered is not None:
            self.remembered, self.index = None, Index()
        known = dict(zip(self.roots, self.entries, strict=True))
        touched = {id: None for entries in self.entries for id in entries}
        self.roots = roots
        self.entries = [known.get(root, {}) for root in roots]
        self._entry_ids = [sorted(entries) for entries in self.entries]
        # Problems are kept by root number, and the numbers have changed.
        self.snapshot = replace(self.snapshot, problems_by_entry={})
        self._swap(touched, {})

    def remember(self, cached: Cached) -> None:
        """Take what an earlier daemon knew, before the first scan; nothing of it is served until a scan confirms it."""
        self.remembered = cached
        self.index = cached.index

    def known(self, root_number: int) -> Mapping[str, Entry]:
        """Return the entries of a root that a scan need not read again where nothing changed."""
        if self.remembered is not None:
            return self.remembered.entries[root_number]
        return self.entries[root_number]

    def forget_remembered(self) -> None:
        """The first scan is done: drop what it did not confirm."""
        if self.remembered is None:
            return
        self.remembered = None
        for id in [id for id in self.index.ids() if id not in self.snapshot.skills or id in self.unindexed]:
            self.index.remove(id)

    def add_to_index(self, skill: Skill, document: Prepared | None) -> None:
        """Take a document that was prepared in the background; drop it where the skill has changed since."""
        if self.unindexed.get(skill.id) is skill:
            del self.unindexed[skill.id]
            if document is not None:
                self.index.add(document)
            self._note_indexed()

    def _remember(self, change: Change) -> None:
        self._history.append(change)
        self._history_ids += len(change.added) + len(change.updated) + len(change.removed)
        while self._history_ids > self.limit_changes and len(self._history) > 1:
            oldest = self._history.popleft()
            self._history_ids -= len(oldest.added) + len(oldest.updated) + len(oldest.removed)

    def _tell(self, change: Change) -> None:
        for callback in tuple(self._subscribers):
            try:
                callback(change)
            except Exception:
                log.exception("a subscriber failed")
        self._changed.set()
        self._changed = asyncio.Event()

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call ``callback`` with every change from now on, in order; the returned function ends it."""
        self._subscribers.add(callback)
        return lambda: self._subscribers.discard(callback)

    def changes_since(self, revision: str | None) -> Change:
        """
        Return all that changed after a revision, as one change up to now.

        Args:
            revision: Of this run; None means from the beginning: every skill is added.
        """
        now = self.snapshot.revision
        if revision is None:
            return Change(now, added=tuple(self.snapshot.ids))
        run_id, _, counter = revision.rpartition(":")
        oldest = self._counter - len(self._history)
        if (
            run_id != self.run_id
            or not (counter.isascii() and counter.isdigit())
            or not oldest <= int(counter) <= self._counter
        ):
            return Change(now, is_complete=False)
        before: dict[str, bool] = {}  # was the skill there at the revision?
        for change in list(self._history)[int(counter) - oldest :]:
            for id in change.added:
                before.setdefault(id, False)
            for id in (*change.updated, *change.removed):
                before.setdefault(id, True)
        there = self.snapshot.skills
        return Change(
            now,
            added=tuple(sorted(id for id, was in before.items() if not was and id in there)),
            updated=tuple(sorted(id for id, was in before.items() if was and id in there)),
            removed=tuple(sorted(id for id, was in before.items() if was and id not in there)),
        )

    async def wait_for_change(self, revision: str, timeout_s: float) -> None:
        """Return when the registry has left a revision, or after ``timeout_s`` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.snapshot.revision == revision:
                    await self._changed.wait()
        except TimeoutError:
            pass


def _problem_of(path: str, id: str, name: str | None, finding: Finding) -> Problem:
    return Problem(path, finding.severity, finding.message, id, name)
