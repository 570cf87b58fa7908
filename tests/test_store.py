"""The writing side: what was written is served, and nobody's work is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from skilld.errors import (
    Busy,
    Conflict,
    ReadOnly,
    ShuttingDown,
    SkilldError,
    SkillExists,
    SkillInvalid,
    SkillNotFound,
)
from skilld.skills import making
from skilld.skills.edit import Fields
from skilld.skills.registry import Registry
from skilld.skills.store import Store
from skilld.skills.watcher import Watcher
from tests.conftest import WriteSkill, skill_md
from tests.test_watcher import watching

STRESS_S = 3.0


@contextlib.asynccontextmanager
async def storing(*roots: Path, **settings: Any) -> AsyncIterator[tuple[Store, Registry, Watcher]]:
    """A store on roots that are being watched."""
    async with watching(*roots, **settings) as (registry, watcher):
        store = Store(registry, watcher)
        try:
            yield store, registry, watcher
        finally:
            await store.close()


async def test_what_is_written_is_served_at_once(root: Path) -> None:
    """By id, in search and in the digest, without waiting for the watcher."""
    async with storing(root) as (store, registry, _):
        skill = await store.create("pdf", Fields("Fill forms.", body="Use quokka."), {"scripts": {"a.py": "x"}})
        assert registry.snapshot.skills == {"pdf": skill}
        assert [hit.id for hit in registry.index.search("quokka", 5).hits] == ["pdf"]
        assert skill.files_in("scripts") == ["scripts/a.py"]
        skill = await store.update("pdf", Fields(description="Read wombats."), {"assets": {"b": "y"}})
        assert registry.snapshot.skills == {"pdf": skill}
        assert (skill.description, skill.files_in("assets")) == ("Read wombats.", ["assets/b"])
        assert [hit.id for hit in registry.index.search("wombats", 5).hits] == ["pdf"]
        await store.delete("pdf", skill.digest)
        assert registry.snapshot.skills == {}
        assert registry.index.search("wombats", 5).hits == ()
    assert os.listdir(root) == []


async def test_update_and_delete_work_where_the_skill_lives(
    root: Path, write_skill: WriteSkill, tmp_path: Path
) -> None:
    """By id or by name, in the root that has it; create works in the first root."""
    other = tmp_path / "other"
    write_skill("team/deploy", skill_md("ship"), into=other)
    async with storing(root, other) as (store, registry, _):
        skill = await store.update("ship", Fields(license="MIT"), {})
        assert (skill.id, skill.root, skill.license) == ("team/deploy", str(other), "MIT")
        assert (await store.create("pdf", Fields("x"), {})).root == str(root)
        await store.delete("ship")
        assert list(registry.snapshot.skills) == ["pdf"]
    assert os.listdir(other / "team") == []


async def test_every_violation_of_a_new_skill_is_listed(root: Path) -> None:
    """Each names its field; nothing is written."""
    async with storing(root, **{"limits.skill_bytes": 1_024, "limits.skill_files": 1}) as (store, _, _):
        with pytest.raises(SkillInvalid) as caught:
            await store.create(
                "Bad--Name",
                Fields("", compatibility="x" * 501, allowed_tools=("a b",), metadata={"a": 1}),
                {"scripts": {"../x": "", "a": "x" * 2_000}, "assets": {"b": ""}},
            )
        fields = [problem.get("field") for problem in caught.value.facts["problems"]]
        assert fields == [
            "name", "name", "allowed_tools", "description", "compatibility", "metadata", "scripts", None, None,
        ]  # fmt: skip
        with pytest.raises(SkillInvalid, match="lower case"):
            await store.create("A", Fields("x"), {})
    assert os.listdir(root) == []


@pytest.mark.parametrize("name", ["venv", "search", "problems", "prompt", "changes", "validate", "attest"])
async def test_names_that_could_not_be_served_are_refused(root: Path, name: str) -> None:
    """Ignored directories and the routes below /skills."""
    async with storing(root) as (store, _, _):
        with pytest.raises(SkillInvalid):
            await store.create(name, Fields("x"), {})


async def test_a_name_that_is_taken_is_refused(root: Path, write_skill: WriteSkill, tmp_path: Path) -> None:
    """By a skill of any root, served or broken, or by anything on the disk; a label of another skill may be an id."""
    other = tmp_path / "other"
    write_skill("pdf", into=other)
    write_skill("broken", "no frontmatter", into=other)
    write_skill("team/deploy", skill_md("ship"))
    async with storing(root, other) as (store, _, _):
        (root / "plain").mkdir()
        for name in ("pdf", "broken", "team", "plain"):
            with pytest.raises(SkillExists):
                await store.create(name, Fields("x"), {})
        assert [store.is_taken(name) for name in ("pdf", "broken", "ship", "venv", "free")] == [True] * 4 + [False]
        assert (await store.create("ship", Fields("x"), {})).id == "ship"


async def test_the_limit_of_skills_holds(root: Path) -> None:
    """A skill that would not be served is not made."""
    async with storing(root) as (store, registry, _):
        registry.limit_skills = 1
        await store.create("one", Fields("x"), {})
        with pytest.raises(SkillInvalid, match="skills already"):
            await store.create("two", Fields("x"), {})
    assert os.listdir(root) == ["one"]


async def test_an_edit_that_nobody_has_seen_is_not_lost(root: Path) -> None:
    """An update is made of what is on the disk, not of what the registry knows."""
    async with storing(root, **{"watch.mode": "polling", "watch.poll_interval_s": 1_000}) as (store, registry, _):
        first = await store.create("pdf", Fields("x", body="old\n"), {})
        (root / "pdf/SKILL.md").write_text(skill_md("pdf", "by hand", "by hand\n"))
        assert registry.snapshot.skills["pdf"] is first
        with pytest.raises(Conflict):
            await store.update("pdf", Fields(license="MIT"), {}, first.digest)
        assert registry.snapshot.skills["pdf"].description == "by hand"
        await store.update("pdf", Fields(license="MIT"), {})
        assert (root / "pdf/SKILL.md").read_text() == skill_md("pdf", "by hand\nlicense: MIT", "by hand\n")
        shutil.rmtree(root / "pdf")
        with pytest.raises(SkillNotFound):
            await store.update("pdf", Fields(license="BSD"), {})
        assert registry.snapshot.skills == {}


async def test_edits_after_a_change_of_several_files_are_seen(root: Path) -> None:
    """The directory is another one now, and it is watched."""
    async with storing(root) as (store, registry, watcher):
        await store.create("pdf", Fields("x"), {"scripts": {"a": "1"}})
        for number in range(3):
            await store.update(
                "pdf", Fields(f"v{number}"), {"scripts": {"a": f"{number}"}, "assets": {f"{number}": ""}}
            )
            await watcher.sync(20)
            revision = registry.snapshot.revision
            (root / "pdf/scripts/b").write_text(f"by hand {number}")
            async with asyncio.timeout(5):
                while registry.snapshot.skills["pdf"].files_in("scripts") != ["scripts/a", "scripts/b"] or (
                    registry.snapshot.revision == revision
                ):
                    await registry.wait_for_change(registry.snapshot.revision, 5)
        assert watcher.state.missed_events == 0


async def test_a_caller_that_goes_away_does_not_undo(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun is finished and served."""
    began, go = threading.Event(), threading.Event()
    real = making._open_root

    def slow(path: bytes) -> int:
        began.set()
        go.wait(20)
        return real(path)

    monkeypatch.setattr(making, "_open_root", slow)
    async with storing(root) as (store, registry, _):
        caller = asyncio.create_task(store.create("pdf", Fields("x"), {}))
        await asyncio.to_thread(began.wait, 20)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        go.set()
        await store.create("csv", Fields("x"), {})
        assert set(registry.snapshot.skills) == {"pdf", "csv"}


async def test_a_closed_store_has_written_everything(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun is on the disk; nothing more is begun, even if the watcher scans no more."""

    async def never(root: str, id: str) -> None:
        await asyncio.Event().wait()

    async with storing(root) as (store, _, watcher):
        monkeypatch.setattr(watcher, "refresh", never)
        callers = [asyncio.create_task(store.create(f"s{number}", Fields("x"), {})) for number in range(3)]
        await asyncio.sleep(0)
        await store.close()
        results = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(result) for result in results] == [ShuttingDown] * 3
        assert len(os.listdir(root)) == 3
        with pytest.raises(ShuttingDown):
            await store.create("s9", Fields("x"), {})
        await store.close()


async def test_litter_is_removed_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    """In every root, whether it is there or not."""
    (root / ".skilld-staged-0123456789abcdef/new").mkdir(parents=True)
    async with storing(root, tmp_path / "nothing") as (store, _, _):
        store.clean_up()
        await store.create("pdf", Fields("x"), {})
    assert os.listdir(root) == ["pdf"]


async def test_read_only_roots_say_so(root: Path, write_skill: WriteSkill, tmp_path: Path) -> None:
    """A linked skill is served, and not written."""
    shared = write_skill("pdf", into=tmp_path / "shared")
    (root / "pdf").symlink_to(shared)
    async with storing(root) as (store, registry, _):
        assert list(registry.snapshot.skills) == ["pdf"]
        for call in (store.update("pdf", Fields("new"), {}), store.delete("pdf")):
            with pytest.raises(ReadOnly) as caught:
                await call
            assert caught.value.facts == {"name": "pdf", "root": str(root)}
    assert (shared / "SKILL.md").read_text() == skill_md("pdf")


def run_until(stop: threading.Event, failures: list[BaseException], act: Callable[[int], None]) -> threading.Thread:
    """A thread that acts again and again."""

    def run() -> None:
        number = 0
        try:
            while not stop.is_set():
                act(number)
                number += 1
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def whole_text(author: str, number: int) -> str:
    """A text that shows when a part of it is missing or of another."""
    return f"{author} {number} begins\n" + f"{author} {number}\n" * 200 + f"{author} {number} ends\n"


def check_whole(text: str) -> None:
    first = text.partition(" begins\n")[0].strip()
    author, number = first.split()
    assert text.strip() == whole_text(author, int(number)).strip()


async def test_nobody_reads_or_keeps_a_skill_that_nobody_wrote(root: Path, write_skill: WriteSkill) -> None:
    """Two daemons, an editor and a git checkout write the same skill at once: every state is of whole pieces."""
    directory = write_skill("pdf", skill_md("pdf", "git 0", whole_text("git", 0)), files={"assets/own": "first"})
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@x", "-c", "gc.auto=0"]

    def run_git(*args: str) -> None:
        subprocess.run([*git, *args], check=True, capture_output=True)

    run_git("init", "-q", "-b", "zero")
    for branch in ("zero", "one"):
        if branch == "one":
            run_git("checkout", "-q", "-b", "one")
            (directory / "SKILL.md").write_text(skill_md("pdf", "git 1", whole_text("git", 1)))
            (directory / "assets/g").write_text(whole_text("git", 1))
        run_git("add", "-A", "pdf")
        run_git("commit", "-qm", branch)
    stop, failures = threading.Event(), list[BaseException]()
    saved = {"hand": ""}

    def edit_by_hand(number: int) -> None:
        # This file is the editor's own: nobody else writes it, so the last save must be there in the end.
        with contextlib.suppress(FileNotFoundError):
            (directory / "assets/.own").write_text(f"hand {number}")
            (directory / "assets/.own").rename(directory / "assets/own")
            saved["hand"] = f"hand {number}"
        if number % 5 == 0:
            with contextlib.suppress(FileNotFoundError):
                (directory / ".SKILL.md").write_text(skill_md("pdf", f"hand {number}", whole_text("hand", number)))
                (directory / ".SKILL.md").rename(directory / "SKILL.md")
        stop.wait(random.random() / 25)

    def check_out(number: int) -> None:
        (root / ".git/index.lock").unlink(missing_ok=True)
        subprocess.run([*git, "checkout", "-qf", ("zero", "one")[number % 2], "--", "pdf/SKILL.md"], check=False)
        stop.wait(random.random() / 5)

    def look(number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            text = (directory / "SKILL.md").read_text()
            if text:  # git writes where it stands
                assert text.startswith("---\nname: pdf\ndescription: ")
        stop.wait(0.001)

    done = 0

    async def write(store: Store, author: str) -> None:
        nonlocal done
        number = 0
        while not stop.is_set():
            number += 1
            body = whole_text(author, number) if number % 2 else None
            files = {"assets": {author: whole_text(author, number)}} if number % 3 else {}
            try:
                await store.update("pdf", Fields(f"{author} {number}", body=body), files)
                done += 1
            except (Busy, SkillNotFound, SkillInvalid):
                await asyncio.sleep(0)

    async with storing(root) as (one, registry, watcher), storing(root) as (two, _, _):
        threads = [run_until(stop, failures, act) for act in (edit_by_hand, check_out, look)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write(one, "one"))
            tasks.create_task(write(two, "two"))
            await asyncio.sleep(STRESS_S)
            stop.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        if failures:
            raise failures[0]
        assert done > 10
        await watcher.sync(20)
        final = await one.update("pdf", Fields(license="MIT"), {})
        text = (directory / "SKILL.md").read_text()
        author, number = final.description.split()
        assert author in ("one", "two", "hand", "git")
        assert int(number) >= 0
        check_whole(text.split("---\n", 2)[2])
        for path in (directory / "assets").iterdir():
            if path.name in ("one", "two", "g"):
                check_whole(path.read_text())
        assert (directory / "assets/own").read_text() == saved["hand"]
        assert registry.snapshot.skills["pdf"].digest == final.digest
    assert sorted(name for name in os.listdir(root) if name != ".git") == ["pdf"]


async def test_calls_are_done_one_after_the_other(root: Path) -> None:
    """Of many that make, change and delete the same skill, each sees a whole one."""
    async with storing(root) as (store, registry, _):

        async def act(number: int) -> str:
            try:
                match number % 3:
                    case 0:
                        await store.create("pdf", Fields(f"{number}"), {"assets": {"n": f"{number}"}})
                    case 1:
                        await store.update("pdf", Fields(f"{number}"), {"assets": {"n": f"{number}"}})
                    case _:
                        await store.delete("pdf")
            except SkilldError as exc:
                return exc.reason
            return "done"

        outcomes = await asyncio.gather(*(act(number) for number in range(60)))
        assert set(outcomes) == {"done", "skill-exists", "skill-not-found"}
        if skill := registry.snapshot.skills.get("pdf"):
            assert (root / "pdf/assets/n").read_text() == skill.description
    assert set(os.listdir(root)) <= {"pdf"}
