"""The cache on disk: a fast start that never serves what is no longer there."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skilld import config
from skilld.skills.cache import Cached, cache_key, load_cache, save_cache
from skilld.skills.indexer import fill_index
from skilld.skills.registry import Registry
from skilld.skills.scanner import ScanLimits
from skilld.skills.watcher import Watcher

LIMITS = ScanLimits(1 << 20, 100, 1 << 20, 6, frozenset({"node_modules"}))
# Files that are younger are read again anyway.
LONG_AGO = 1_700_000_000


def save(directory: Path, description: str, body: str = "quokka") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "SKILL.md").write_text(f"---\nname: x\ndescription: {description}\ndate: 2026-01-05\n---\n{body}\n")
    os.utime(directory / "SKILL.md", (LONG_AGO, LONG_AGO))


@contextlib.asynccontextmanager
async def daemon(cache_dir: Path, *roots: Path) -> AsyncIterator[tuple[Registry, list[str]]]:
    """A registry that starts from the cache and is saved at its end; and the ids that had to be indexed."""
    settings = config.resolve({"skills_dir": [str(root) for root in roots]}, {}, {}, uid=0).config
    registry = Registry(settings.skills_dir, limit_skills=100, limit_changes=100)
    watcher = Watcher(registry, settings)
    key = cache_key(registry.roots, watcher.rescanner.limits)
    cached = load_cache(str(cache_dir), key)
    if cached is not None:
        registry.remember(cached)
    task = asyncio.create_task(watcher.run())
    await watcher.ready.wait()
    indexed = sorted(registry.unindexed)
    filling = asyncio.create_task(fill_index(registry, 1 << 20))
    await registry.is_indexed.wait()
    yield registry, indexed
    for part in (task, filling):
        part.cancel()
    await asyncio.gather(task, filling, return_exceptions=True)
    save_cache(str(cache_dir), key, tuple(dict(known) for known in registry.entries), registry.index.dump())


def found(registry: Registry, query: str) -> list[str]:
    return [hit.id for hit in registry.index.search(query, 10).hits]


async def test_an_unchanged_library_is_served_from_the_cache(tmp_path: Path) -> None:
    """Skills, problems, resources and search are the same, and nothing is read or indexed again."""
    root = tmp_path / "root"
    for number in range(40):
        save(root / f"skill-{number}", f"number {number}")
    (root / "skill-0/scripts").mkdir()
    (root / "skill-0/scripts/a.sh").write_text("echo")
    os.utime(root / "skill-0/scripts/a.sh", (LONG_AGO, LONG_AGO))
    save(root / "broken", "")
    async with daemon(tmp_path / "cache", root) as (first, indexed):
        assert len(indexed) == 40
    async with daemon(tmp_path / "cache", root) as (second, indexed):
        assert indexed == []
        assert second.snapshot.skills == first.snapshot.skills
        assert second.snapshot.problems == first.snapshot.problems
        assert found(second, "number 7") == found(first, "number 7")
        assert second.index.search("quokka", 100).total == 40
        assert second.snapshot.revision != first.snapshot.revision


async def test_what_changed_meanwhile_is_read_anew(tmp_path: Path) -> None:
    """Edited, new and deleted skills are what the disk says, in the registry and in search."""
    root = tmp_path / "root"
    for number in range(40):
        save(root / f"skill-{number}", "old")
    async with daemon(tmp_path / "cache", root):
        pass
    for number in range(34):
        save(root / f"skill-{number}", "edited", "wombat")
    (root / "skill-39/SKILL.md").unlink()
    save(root / "fresh", "brand", "numbat")
    async with daemon(tmp_path / "cache", root) as (registry, indexed):
        assert indexed == sorted([*(f"skill-{number}" for number in range(34)), "fresh"])
        assert sorted(registry.snapshot.skills) == sorted([*(f"skill-{number}" for number in range(39)), "fresh"])
        assert registry.index.search("wombat", 100).total == 34
        assert sorted(found(registry, "quokka")) == [f"skill-{number}" for number in range(34, 39)]
        assert found(registry, "numbat") == ["fresh"]


async def test_a_hidden_skill_is_indexed_when_it_appears(tmp_path: Path) -> None:
    """The index knows the winner of a collision; when that is gone, the other one is indexed."""
    first, second = tmp_path / "first", tmp_path / "second"
    save(first / "pdf", "first", "quokka")
    save(second / "pdf", "second", "wombat")
    async with daemon(tmp_path / "cache", first, second) as (registry, _):
        assert (found(registry, "quokka"), found(registry, "wombat")) == (["pdf"], [])
    (first / "pdf/SKILL.md").unlink()
    (first / "pdf").rmdir()
    async with daemon(tmp_path / "cache", first, second) as (registry, _):
        assert (found(registry, "quokka"), found(registry, "wombat")) == ([], ["pdf"])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A cache of nothing, under the key "k"."""
    registry = Registry(("/r",), limit_skills=1, limit_changes=1)
    save_cache(str(tmp_path / "cache"), "k", ({},), registry.index.dump())
    return tmp_path / "cache/skills.cache"


def test_a_cache_is_found_by_its_key(saved: Path) -> None:
    """Another key finds none, and neither does another directory."""
    assert isinstance(load_cache(str(saved.parent), "k"), Cached)
    assert load_cache(str(saved.parent), "l") is None
    assert load_cache(str(saved.parent / "none"), "k") is None


def test_every_damage_is_noticed(saved: Path) -> None:
    """A cache with any byte changed, cut short or empty counts as none."""
    content = saved.read_bytes()
    for position in range(len(content)):
        saved.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert load_cache(str(saved.parent), "k") is None, position
    for length in range(len(content)):
        saved.write_bytes(content[:length])
        assert load_cache(str(saved.parent), "k") is None, length


def test_a_cache_that_others_can_write_is_ignored(saved: Path) -> None:
    """What somebody else may have written is not trusted."""
    saved.chmod(0o622)
    assert load_cache(str(saved.parent), "k") is None


def test_the_key_tells_configurations_apart() -> None:
    """Other roots, their order and other limits make another key; the same ones the same."""
    limits = ScanLimits(1 << 20, 100, 1 << 20, 6, frozenset({"b", "a"}))
    keys = [cache_key(("/a", "/b"), LIMITS), cache_key(("/b", "/a"), LIMITS), cache_key(("/a", "/b"), limits)]
    assert len(set(keys)) == 3
    assert cache_key(("/a", "/b"), ScanLimits(1 << 20, 100, 1 << 20, 6, frozenset({"a", "b"}))) == keys[2]


def test_saving_leaves_no_litter(tmp_path: Path) -> None:
    """A cache that cannot be written leaves the old one and no temporary file."""
    registry = Registry(("/r",), limit_skills=1, limit_changes=1)
    save_cache(str(tmp_path), "k", ({},), registry.index.dump())
    with pytest.raises(ValueError, match="unmarshallable"):
        save_cache(str(tmp_path), "k", ({},), (object(),))
    assert [path.name for path in tmp_path.iterdir()] == ["skills.cache"]
    assert load_cache(str(tmp_path), "k") is not None
