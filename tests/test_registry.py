"""The registry: immutable snapshots, revisions, precedence of roots, changes since any revision."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.errors import SkillNotFound
from skilld.skills.indexer import prepare_skill
from skilld.skills.model import Skill
from skilld.skills.registry import Change, Registry, Scanned
from skilld.skills.scanner import Entry

SKILL = Skill(
    id="",
    name="",
    description="d",
    license=None,
    compatibility=None,
    metadata=None,
    allowed_tools=None,
    frontmatter={},
    resources=(),
    path="",
    root="/r",
    skill_md="",
    skill_md_sha256="",
    digest="sha256:0",
    modified_ns=0,
    problems=(),
)


def entry(id: str, description: str = "d", name: str | None = None) -> Entry:
    """An entry as the scanner makes them; without a description it is broken."""
    skill = replace(SKILL, id=id, name=name or id.rpartition("/")[2], description=description)
    return Entry(id, (), skill if description else None, (), False, False)


def registry_of(*roots: str, limit_skills: int = 100, limit_changes: int = 100) -> Registry:
    return Registry(roots or ("/r",), limit_skills=limit_skills, limit_changes=limit_changes)


def put(registry: Registry, *entries: Entry, below: str = "", root_number: int = 0) -> Change | None:
    return registry.apply([Scanned(root_number, below, entries)], {})


def test_a_scan_replaces_what_it_covered() -> None:
    """A known skill that a scan of its part did not find is gone; the rest stays."""
    registry = registry_of()
    put(registry, entry("a"), entry("team/b"), entry("team/c"), entry("team-z"), entry("z"))
    change = put(registry, entry("team/c", "new"), entry("team/d"), below="team")
    assert change == Change(f"{registry.run_id}:2", ("team/d",), ("team/c",), ("team/b",))
    assert list(registry.snapshot.ids) == ["a", "team-z", "team/c", "team/d", "z"]


def test_a_snapshot_never_changes() -> None:
    """Who took a snapshot keeps it, whatever the registry does."""
    registry = registry_of()
    put(registry, entry("a"), entry("b"))
    before = registry.snapshot
    put(registry, entry("a", "new"), entry("c"))
    assert (list(before.ids), before.find("a").description) == (["a", "b"], "d")
    assert (list(registry.snapshot.ids), registry.snapshot.find("a").description) == (["a", "c"], "new")


def test_a_scan_that_finds_nothing_new_makes_no_revision() -> None:
    """The counter grows with changes only."""
    registry = registry_of()
    entries = [entry("a"), entry("b")]
    put(registry, *entries)
    assert put(registry, *entries) is None
    assert put(registry, replace(entries[0], is_racy=True), entries[1]) is None
    assert registry.snapshot.revision == f"{registry.run_id}:1"


def test_two_registries_never_share_revisions() -> None:
    """A revision of another run is told apart."""
    first, second = registry_of(), registry_of()
    put(first, entry("a"))
    put(second, entry("a"))
    assert first.snapshot.revision != second.snapshot.revision
    assert second.changes_since(first.snapshot.revision) == Change(second.snapshot.revision, is_complete=False)


@pytest.mark.parametrize("broken", [False, True])
def test_the_earlier_root_wins(broken: bool) -> None:
    """An id in two roots is the first one's, broken or not; the other is a problem until the first is gone."""
    registry = registry_of("/one", "/two")
    put(registry, entry("a", "" if broken else "first"))
    put(registry, entry("a", "second"), root_number=1)
    assert [skill.description for skill in registry.snapshot.skills.values()] == ([] if broken else ["first"])
    assert [(problem.path, problem.message) for problem in registry.snapshot.problems] == [
        ("/two/a", "hidden by the skill of the same id in /one")
    ]
    put(registry)
    assert registry.snapshot.find("a").description == "second"
    assert registry.snapshot.problems == ()


def test_names_find_skills() -> None:
    """An id is found first, then a name that one skill bears; a shared name lists its ids, a typo the nearest."""
    registry = registry_of()
    put(registry, entry("pdf"), entry("x/deploy"), entry("y/deploy"), entry("team/csv"), entry("odd", name="pdf"))
    snapshot = registry.snapshot
    assert snapshot.find("pdf").id == "pdf"
    assert snapshot.find("csv").id == "team/csv"
    for name, candidates in [("deploy", ["x/deploy", "y/deploy"]), ("pfd", ["pdf"]), ("", []), ("日本語", [])]:
        with pytest.raises(SkillNotFound) as caught:
            snapshot.find(name)
        assert caught.value.data == {"reason": "skill-not-found", "name": name, "did_you_mean": candidates}


def test_skills_beyond_the_limit_are_not_served() -> None:
    """One skill too many is a problem that names the limit."""
    registry = registry_of(limit_skills=2)
    put(registry, entry("a"), entry("b"), entry("c"))
    assert list(registry.snapshot.ids) == ["a", "b"]
    assert [problem.message for problem in registry.snapshot.problems] == [
        "not served: there are 2 skills already (limits.skills)"
    ]


def test_a_skill_beyond_the_limit_is_served_when_there_is_room() -> None:
    """What was left out takes the place of a skill that goes, and its problem goes with it."""
    registry = registry_of(limit_skills=2)
    entries = [entry("a"), entry("b"), entry("c")]
    put(registry, *entries)
    put(registry, below="a")
    assert list(registry.snapshot.ids) == ["b", "c"]
    assert registry.snapshot.problems == ()


def test_changes_since_a_revision_are_netted() -> None:
    """A skill that came and went in between is not mentioned; one that went and came back is updated."""
    registry = registry_of()
    put(registry, entry("stays"), entry("goes"), entry("returns"), entry("edited"))
    since = registry.snapshot.revision
    put(registry, entry("stays"), entry("passing"), entry("edited", "once"))
    put(registry, entry("stays"), entry("returns"), entry("edited", "twice"), entry("new"))
    assert registry.changes_since(since) == Change(
        registry.snapshot.revision, ("new",), ("edited", "returns"), ("goes",)
    )
    assert registry.changes_since(registry.snapshot.revision) == Change(registry.snapshot.revision)


def test_changes_without_a_revision_are_everything() -> None:
    """From the beginning, every skill is added."""
    registry = registry_of()
    put(registry, entry("b"), entry("a"))
    assert registry.changes_since(None) == Change(registry.snapshot.revision, ("a", "b"))


@pytest.mark.parametrize("since", ["", "x", ":1", "{run}:", "{run}:-1", "{run}:99", "{run}:0", "{run}:٣"])
def test_changes_since_what_is_not_remembered(since: str) -> None:
    """A revision that is forgotten, of the future or none at all is answered as incomplete."""
    registry = registry_of(limit_changes=3)
    for number in range(6):
        put(registry, entry("a", f"{number}"))
    change = registry.changes_since(since.format(run=registry.run_id))
    assert change == Change(registry.snapshot.revision, is_complete=False)


def test_history_keeps_as_much_as_it_may() -> None:
    """The history remembers up to its limit of ids."""
    registry = registry_of(limit_changes=3)
    for number in range(6):
        put(registry, entry("a", f"{number}"))
    assert registry.changes_since(f"{registry.run_id}:3").is_complete
    assert not registry.changes_since(f"{registry.run_id}:2").is_complete


def test_subscribers_are_told_every_revision_in_order() -> None:
    """The new snapshot is in place when they are told; one that fails does not keep it from the others."""
    registry = registry_of()
    told: list[tuple[Change, str]] = []

    def fail(change: Change) -> None:
        raise RuntimeError

    registry.subscribe(fail)
    stop = registry.subscribe(lambda change: told.append((change, registry.snapshot.revision)))
    changes = [put(registry, entry("a")), put(registry, entry("a"), entry("b"))]
    stop()
    put(registry)
    assert [change for change, _ in told] == changes
    assert [revision for _, revision in told] == [f"{registry.run_id}:1", f"{registry.run_id}:2"]


async def test_waiting_ends_with_a_change_or_the_time() -> None:
    """A waiter returns at the next revision, at once where it is there, and after its time otherwise."""
    registry = registry_of()
    first = registry.snapshot.revision
    waiter = asyncio.create_task(registry.wait_for_change(first, 10))
    await asyncio.sleep(0)
    assert not waiter.done()
    put(registry, entry("a"))
    await waiter
    await registry.wait_for_change(first, 10)
    await registry.wait_for_change(registry.snapshot.revision, 0.01)


def test_other_roots_keep_what_is_known() -> None:
    """After a reload with other roots, skills of a root that stays are served on, the others are gone."""
    registry = registry_of("/one", "/two")
    put(registry, entry("a", "one"))
    put(registry, entry("a", "two"), entry("b", "two"), root_number=1)
    registry.set_roots(("/three", "/two"))
    assert {id: skill.description for id, skill in registry.snapshot.skills.items()} == {"a": "two", "b": "two"}
    assert registry.snapshot.problems == ()


def test_search_never_answers_with_what_is_replaced(tmp_path: Path) -> None:
    """A skill leaves the index in the step that removes or changes it, and waits to be indexed anew."""
    (tmp_path / "SKILL.md").write_text("---\nname: a\ndescription: d\n---\nquokka\n")
    registry = registry_of()
    first = entry("a")
    assert first.skill is not None
    skill = replace(first.skill, skill_md=str(tmp_path / "SKILL.md"))

    skill = replace(skill, skill_md_sha256=hashlib.sha256((tmp_path / "SKILL.md").read_bytes()).hexdigest())
    document = prepare_skill(skill, 1_000)
    assert document is not None
    registry.apply([Scanned(0, "", (replace(first, skill=skill),))], {("/r", "a"): document})
    assert [hit.id for hit in registry.index.search("quokka", 10).hits] == ["a"]
    put(registry, entry("a", "new"))
    assert registry.index.search("quokka", 10).hits == ()
    assert list(registry.unindexed) == ["a"]
    registry.add_to_index(skill, document)
    assert registry.index.search("quokka", 10).hits == ()  # it was prepared from what is no longer there


IDS = st.sampled_from(["a", "b", "a/x", "a/y", "a/x/z", "a-b", "a0", "b/c", "ab"])


@given(st.lists(st.tuples(st.integers(0, 1), IDS | st.just(""), st.sets(IDS), st.text("xyz", max_size=1)), max_size=12))
def test_any_order_of_scans_gives_the_state_of_the_last_ones(
    scans: list[tuple[int, str, set[str], str]],
) -> None:
    """Whatever parts are scanned, the registry equals a plain model of it, and the changes add up."""
    registry = registry_of("/one", "/two")
    model: list[dict[str, str]] = [{}, {}]
    seen: dict[str, str] = {}
    since = registry.snapshot.revision
    for root_number, below, ids, description in scans:
        found = {id for id in ids if not below or id == below or id.startswith(below + "/")}
        put(registry, *(entry(id, description) for id in found), below=below, root_number=root_number)
        model[root_number] = {
            id: text
            for id, text in model[root_number].items()
            if below and id != below and not id.startswith(below + "/")
        } | dict.fromkeys(found, description)
        expected = {id: text for id, text in (model[1] | model[0]).items() if text}
        assert {id: skill.description for id, skill in registry.snapshot.skills.items()} == expected
        assert list(registry.snapshot.ids) == sorted(expected)
        assert sorted(id for ids in registry.snapshot.ids_by_name.values() for id in ids) == sorted(expected)
        change = registry.changes_since(since)
        assert set(change.added) == expected.keys() - seen.keys()
        assert set(change.removed) == seen.keys() - expected.keys()
        assert {id for id in expected.keys() & seen.keys() if expected[id] != seen[id]} <= set(change.updated)
        since, seen = registry.snapshot.revision, expected
