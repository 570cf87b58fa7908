"""The watcher keeps the registry true to the disk, whatever is done to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from skilld import config
from skilld.errors import Busy
from skilld.skills import watcher as watcher_module
from skilld.skills.event_source import EventSource, SourceFailed, WatchesExhausted
from skilld.skills.registry import Change, Registry
from skilld.skills.rescanner import GRACE_S
from skilld.skills.scanner import scan
from skilld.skills.watcher import Watcher

SYNC_S = 20.0


def save(directory: Path, description: str) -> None:
    """Write a SKILL.md, making its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "SKILL.md").write_text(skill_md(directory.name, description))


def skill_md(name: str, description: str) -> str:
    return f"---\nname: {name}\ndescription: {description}\n---\n\nSteps.\n"


def served(registry: Registry) -> dict[str, str]:
    """What the registry serves: description by id."""
    return {id: skill.description for id, skill in registry.snapshot.skills.items()}


@contextlib.asynccontextmanager
async def watching(*roots: Path, **settings: Any) -> AsyncIterator[tuple[Registry, Watcher]]:
    """A watcher that runs; its first scan is done."""
    flags = {"skills_dir": [str(root) for root in roots], **settings}
    checked = config.resolve(flags, {}, {}, uid=os.getuid()).config
    registry = Registry(checked.skills_dir, limit_skills=1_000, limit_changes=10_000)
    watcher = Watcher(registry, checked)
    task = asyncio.create_task(watcher.run())
    try:
        async with asyncio.timeout(30):
            await watcher.ready.wait()
        yield registry, watcher
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(registry: Registry, holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait, change by change, until something holds of the registry."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await registry.wait_for_change(registry.snapshot.revision, 0.05)


async def until_mode(registry: Registry, watcher: Watcher, mode: str) -> None:
    await until(registry, lambda: watcher.state.mode == mode)


MODES = pytest.mark.parametrize(
    "settings",
    [pytest.param({}, id="inotify"), pytest.param({"watch.mode": "polling"}, id="polling")],
)


def editor_rename(directory: Path) -> None:
    (directory / ".SKILL.md.tmp").write_text(skill_md(directory.name, "new"))
    (directory / ".SKILL.md.tmp").rename(directory / "SKILL.md")


def editor_backup(directory: Path) -> None:
    (directory / "SKILL.md").rename(directory / "SKILL.md~")
    (directory / "SKILL.md").write_text(skill_md(directory.name, "new"))
    (directory / "SKILL.md~").unlink()


def editor_truncate(directory: Path) -> None:
    with (directory / "SKILL.md").open("w") as file:
        file.flush()
        file.write(skill_md(directory.name, "new"))


def editor_in_place(directory: Path) -> None:
    text = skill_md(directory.name, "new")
    with (directory / "SKILL.md").open("r+") as file:
        file.write(text)
        file.truncate(len(text))


@MODES
@pytest.mark.parametrize("edit", [editor_rename, editor_backup, editor_truncate, editor_in_place])
async def test_every_way_of_saving_is_seen(
    tmp_path: Path, settings: dict[str, Any], edit: Callable[[Path], None]
) -> None:
    """An edit is served after a sync, however the editor saves."""
    save(tmp_path / "pdf", "old")
    save(tmp_path / "csv", "stays")
    async with watching(tmp_path, **settings) as (registry, watcher):
        edit(tmp_path / "pdf")
        await watcher.sync(SYNC_S)
        assert served(registry) == {"pdf": "new", "csv": "stays"}


async def test_an_edit_in_two_steps_never_takes_the_skill_away(tmp_path: Path) -> None:
    """A SKILL.md that is renamed away for a moment stays served, and nobody is told that it went."""
    save(tmp_path / "pdf", "old")
    async with watching(tmp_path) as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        changes: list[Change] = []
        registry.subscribe(changes.append)
        (tmp_path / "pdf/SKILL.md").rename(tmp_path / "pdf/backup")
        await watcher.rescanner.drain(held_back=False)
        assert served(registry) == {"pdf": "old"}
        save(tmp_path / "pdf", "new")
        await watcher.sync(SYNC_S)
        assert [(change.added, change.updated, change.removed) for change in changes] == [((), ("pdf",), ())]


@MODES
async def test_a_skill_without_its_file_goes(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Deleting a SKILL.md takes the skill away, and a sync waits for that."""
    save(tmp_path / "pdf", "old")
    async with watching(tmp_path, **settings) as (registry, watcher):
        (tmp_path / "pdf/SKILL.md").unlink()
        await watcher.sync(SYNC_S)
        assert served(registry) == {}


async def test_a_broken_skill_goes_and_comes_back(tmp_path: Path) -> None:
    """A skill broken by an edit leaves a problem behind until it is mended."""
    save(tmp_path / "pdf", "old")
    async with watching(tmp_path) as (registry, watcher):
        (tmp_path / "pdf/SKILL.md").write_text("no frontmatter")
        await watcher.sync(SYNC_S)
        assert served(registry) == {}
        assert [(problem.id, problem.severity) for problem in registry.snapshot.problems] == [("pdf", "error")]
        save(tmp_path / "pdf", "mended")
        await watcher.sync(SYNC_S)
        assert served(registry) == {"pdf": "mended"}
        assert registry.snapshot.problems == ()


@MODES
async def test_edits_beside_the_skill_md_count(tmp_path: Path, settings: dict[str, Any]) -> None:
    """A change under scripts, references or assets, of an execute bit too, makes a new digest and a revision."""
    save(tmp_path / "pdf", "old")
    async with watching(tmp_path, **settings) as (registry, watcher):
        digests = [registry.snapshot.skills["pdf"].digest]
        script = tmp_path / "pdf/scripts/fill.py"
        script.parent.mkdir()
        for change in (
            lambda: script.write_text("print(1)"),
            lambda: script.write_text("print(2)"),
            lambda: script.chmod(0o755),
            lambda: script.unlink(),
        ):
            change()
            await watcher.sync(SYNC_S)
            digests.append(registry.snapshot.skills["pdf"].digest)
        assert len(set(digests)) == 4
        assert digests[0] == digests[-1]


async def test_touching_a_file_is_no_change(tmp_path: Path) -> None:
    """New time stamps alone make no revision."""
    save(tmp_path / "pdf", "old")
    async with watching(tmp_path) as (registry, watcher):
        await watcher.sync(SYNC_S)
        revision = registry.snapshot.revision
        os.utime(tmp_path / "pdf/SKILL.md", (1, 1))
        await watcher.sync(SYNC_S)
        assert registry.snapshot.revision == revision


def made_at_once(root: Path, other: Path) -> None:
    for number in range(200):
        save(root / f"skill-{number}", "new")


def made_nested(root: Path, other: Path) -> None:
    for number in range(200):
        save(root / f"a{number % 7}/b{number % 3}/skill-{number}", "new")


def copied(root: Path, other: Path) -> None:
    made_at_once(other, other)
    subprocess.run(["cp", "-r", f"{other}/.", root], check=True)


def moved_in(root: Path, other: Path) -> None:
    made_nested(other / "team", other)
    (other / "team").rename(root / "team")


def unpacked(root: Path, other: Path) -> None:
    made_nested(other, other)
    subprocess.run(f"tar c -C {other} . | tar x -C {root}", shell=True, check=True)


def renamed_and_written(root: Path, other: Path) -> None:
    save(root / "team-a/pdf", "old")
    (root / "team-a").rename(root / "team-b")
    save(root / "team-b/pdf", "new")


@pytest.mark.parametrize("build", [made_at_once, made_nested, copied, moved_in, unpacked, renamed_and_written])
async def test_whole_trees_are_seen(tmp_path: Path, build: Callable[[Path, Path], None]) -> None:
    """However a tree of skills comes, every one of them is served, and every later edit is seen."""
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    async with watching(root) as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        build(root, other)
        await watcher.sync(SYNC_S)
        truth = [entry.id for entry in scan(str(root), "", {}, watcher.rescanner.limits)]
        assert sorted(served(registry)) == sorted(truth)
        for id in truth[::20]:
            save(root / id, "edited later")
        await watcher.sync(SYNC_S)
        assert [served(registry)[id] for id in truth[::20]] == ["edited later"] * len(truth[::20])


async def test_git_checkout_is_seen(tmp_path: Path) -> None:
    """Switching branches adds, changes and removes skills; the repository's own files are none."""

    def git(*args: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main", *args],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip

    git("init")
    for number in range(40):
        save(tmp_path / f"skill-{number}", "main")
    git("add", "-A")
    git("commit", "-m", "main")
    git("checkout", "-b", "other")
    shutil.rmtree(tmp_path / "skill-0")
    for number in range(30, 60):
        save(tmp_path / f"skill-{number}", "other")
    git("add", "-A")
    git("commit", "-m", "other")
    on_other = {f"skill-{number}": "main" if number < 30 else "other" for number in range(1, 60)}
    on_main = {f"skill-{number}": "main" for number in range(40)}
    async with watching(tmp_path) as (registry, watcher):
        assert served(registry) == on_other
        for branch, expected in [("main", on_main), ("other", on_other), ("main", on_main)]:
            git("checkout", branch)
            await watcher.sync(SYNC_S)
            assert served(registry) == expected


async def test_moves_out_and_back_are_seen(tmp_path: Path) -> None:
    """A skill moved out is gone, moved back is there, moved aside has another id."""
    root = tmp_path / "root"
    save(root / "pdf", "old")
    async with watching(root) as (registry, watcher):
        for source, target, expected in [
            ("root/pdf", "pdf", {}),
            ("pdf", "root/pdf", {"pdf": "old"}),
            ("root/pdf", "root/doc", {"doc": "old"}),
        ]:
            (tmp_path / source).rename(tmp_path / target)
            await watcher.sync(SYNC_S)
            assert served(registry) == expected


async def test_a_skill_md_above_takes_in_the_skills_below(tmp_path: Path) -> None:
    """A directory that becomes a skill makes the skills inside it files of its own, until it is none again."""
    save(tmp_path / "team/a", "a")
    save(tmp_path / "team/b", "b")
    async with watching(tmp_path) as (registry, watcher):
        save(tmp_path / "team", "team")
        await watcher.sync(SYNC_S)
        assert served(registry) == {"team": "team"}
        (tmp_path / "team/SKILL.md").unlink()
        await watcher.sync(SYNC_S)
        assert served(registry) == {"team/a": "a", "team/b": "b"}


@MODES
async def test_a_root_that_is_not_there_yet(tmp_path: Path, settings: dict[str, Any]) -> None:
    """A missing root counts as empty; once it is made, its skills are served and its edits seen."""
    root = tmp_path / "later/skills"
    async with watching(root, **settings) as (registry, watcher):
        assert served(registry) == {}
        save(root / "pdf", "first")
        await until(registry, lambda: served(registry) == {"pdf": "first"})
        save(root / "pdf", "second")
        await watcher.sync(SYNC_S)
        assert served(registry) == {"pdf": "second"}


async def test_a_root_deleted_and_made_again(tmp_path: Path) -> None:
    """Deleting the root empties the registry; a new root of the same name is followed."""
    root = tmp_path / "skills"
    save(root / "pdf", "old")
    async with watching(root) as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        shutil.rmtree(root)
        await until(registry, lambda: served(registry) == {})
        save(root / "csv", "new")
        await until(registry, lambda: served(registry) == {"csv": "new"})
        save(root / "csv", "newer")
        await watcher.sync(SYNC_S)
        assert served(registry) == {"csv": "newer"}


async def test_a_root_replaced_by_rename(tmp_path: Path) -> None:
    """Another directory under the root's name is what counts, and the old one no longer does."""
    root, staged, old = tmp_path / "skills", tmp_path / "staged", tmp_path / "old"
    save(root / "pdf", "old")
    save(staged / "pdf", "new")
    async with watching(root) as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        root.rename(old)
        staged.rename(root)
        await until(registry, lambda: served(registry) == {"pdf": "new"})
        save(old / "pdf", "nobody should see this")
        save(root / "csv", "new too")
        await until(registry, lambda: "csv" in served(registry))
        await watcher.sync(SYNC_S)
        assert served(registry) == {"pdf": "new", "csv": "new too"}


async def test_a_root_that_is_a_link_is_swapped(tmp_path: Path) -> None:
    """git-sync's way: the root is a link to a work tree, and is pointed at another one by rename."""
    for number in (1, 2, 3):
        save(tmp_path / f"tree-{number}/pdf", f"version {number}")
    root = tmp_path / "current"
    root.symlink_to("tree-1")
    async with watching(root) as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        for number in (2, 3):
            (tmp_path / "next").symlink_to(f"tree-{number}")
            (tmp_path / "next").rename(root)
            expected = {"pdf": f"version {number}"}
            await until(registry, lambda expected=expected: served(registry) == expected)  # type: ignore[misc]
        await until_mode(registry, watcher, "inotify")
        save(tmp_path / "tree-3/pdf", "edited")
        await until(registry, lambda: served(registry) == {"pdf": "edited"})


@pytest.mark.parametrize("place", ["", "pdf"])
async def test_a_kubernetes_volume_is_swapped(tmp_path: Path, place: str) -> None:
    """A ConfigMap is updated by swapping its ..data link, be it the root itself or one skill; twice in a row."""
    volume = tmp_path / place if place else tmp_path
    volume.mkdir(exist_ok=True)

    def publish(number: int) -> None:
        stamp = f"..2026_11_27_{number}"
        content = volume / stamp if place else volume / stamp / "pdf"
        save(content, f"version {number}")
        (volume / "..data_tmp").symlink_to(stamp)
        (volume / "..data_tmp").rename(volume / "..data")
        if number > 1:
            shutil.rmtree(volume / f"..2026_11_27_{number - 1}")

    publish(1)
    if place:
        (volume / "SKILL.md").symlink_to("..data/SKILL.md")
    else:
        (volume / "pdf").symlink_to("..data/pdf")
    async with watching(tmp_path) as (registry, watcher):
        assert served(registry) == {"pdf": "version 1"}
        for number in (2, 3):
            publish(number)
            await watcher.sync(SYNC_S)
            assert served(registry) == {"pdf": f"version {number}"}


async def test_edits_behind_links_are_seen(tmp_path: Path) -> None:
    """A skill directory or a SKILL.md that is a link is followed, also when the link is new or is pointed elsewhere."""
    root, shared = tmp_path / "root", tmp_path / "shared"
    save(shared / "pdf", "old")
    save(shared / "csv", "old")
    (root / "csv").mkdir(parents=True)
    async with watching(root) as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        (root / "pdf").symlink_to(shared / "pdf")
        (root / "csv/SKILL.md").symlink_to(shared / "csv/SKILL.md")
        await watcher.sync(SYNC_S)
        assert served(registry) == {"pdf": "old", "csv": "old"}
        save(shared / "pdf", "new")
        save(shared / "csv", "new")
        await until(registry, lambda: served(registry) == {"pdf": "new", "csv": "new"})
        save(shared / "pdf", "newer")
        await watcher.sync(SYNC_S)
        assert served(registry) == {"pdf": "newer", "csv": "new"}


async def test_file_names_that_are_not_utf8_stop_nothing(tmp_path: Path) -> None:
    """Such a name kills notify's events; skills are followed all the same."""
    save(tmp_path / "pdf", "old")
    async with watching(tmp_path, **{"watch.poll_interval_s": 0.1}) as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        for number in range(4):
            with open(os.fsencode(tmp_path) + b"/pdf/\xff%d" % number, "w"):
                pass
            save(tmp_path / "pdf", f"version {number}")
            await watcher.sync(SYNC_S)
            assert served(registry) == {"pdf": f"version {number}"}
        save(tmp_path / "csv", "new")
        await until(registry, lambda: "csv" in served(registry))
        assert watcher.is_alive


async def test_two_roots(tmp_path: Path) -> None:
    """The earlier root wins a collision of ids; the other skill is a problem, and appears once the first is gone."""
    first, second = tmp_path / "first", tmp_path / "second"
    save(first / "pdf", "first")
    save(second / "pdf", "second")
    save(second / "csv", "second")
    async with watching(first, second) as (registry, watcher):
        assert served(registry) == {"pdf": "first", "csv": "second"}
        assert [problem.path for problem in registry.snapshot.problems] == [f"{second}/pdf"]
        shutil.rmtree(first / "pdf")
        await watcher.sync(SYNC_S)
        assert served(registry) == {"pdf": "second", "csv": "second"}
        assert registry.snapshot.problems == ()


@pytest.mark.parametrize("left", [["first"], ["second"], ["third", "second"]])
async def test_a_reload_in_the_middle_of_edits(tmp_path: Path, left: list[str]) -> None:
    """Roots may come and go while edits are being scanned and skills are held back; what is left is followed on."""
    for root in ("first", "second"):
        save(tmp_path / root / "pdf", root)
        save(tmp_path / root / root, root)
    async with watching(tmp_path / "first", tmp_path / "second") as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        for root in ("first", "second"):
            save(tmp_path / root / "new", "racy, so that another look is planned")
            (tmp_path / root / "pdf/SKILL.md").unlink()  # held back for a moment
        await watcher.rescanner.drain(held_back=False)
        flags = {"skills_dir": [str(tmp_path / root) for root in left]}
        watcher.rescanner.mark_all()
        await asyncio.sleep(0)  # the scan of the old roots is on its way
        watcher.reload(config.resolve(flags, {}, {}, uid=os.getuid()).config)
        await watcher.sync(SYNC_S)
        kept = left[-1]
        assert served(registry) == {kept: kept, "new": "racy, so that another look is planned"}
        save(tmp_path / kept / "later", "later")
        await asyncio.sleep(2 * GRACE_S)  # every look that was planned before has been taken
        await watcher.sync(SYNC_S)
        assert served(registry)["later"] == "later"
        assert watcher.is_alive


async def test_search_follows_the_root_that_wins(tmp_path: Path) -> None:
    """Search knows the words of the skill that is served, not of the one that is hidden by it."""
    first, second = tmp_path / "first", tmp_path / "second"
    save(first / "pdf", "quokka")
    save(second / "pdf", "wombat")
    async with watching(first, second) as (registry, watcher):
        assert [registry.index.search(word, 5).total for word in ("quokka", "wombat")] == [1, 0]
        save(second / "pdf", "numbat")
        await watcher.sync(SYNC_S)
        assert [registry.index.search(word, 5).total for word in ("quokka", "numbat")] == [1, 0]


async def test_ignored_directories_make_no_work(tmp_path: Path) -> None:
    """What happens in hidden and ignored directories marks nothing as stale."""
    for name in (".git", "node_modules"):
        (tmp_path / name).mkdir()
    async with watching(tmp_path) as (registry, watcher):
        assert watcher._unit_of(0, ".git/index.lock") is None
        assert watcher._unit_of(0, "node_modules/x/SKILL.md") is None
        save(tmp_path / "node_modules/x", "no skill")
        save(tmp_path / ".git/x", "no skill")
        await watcher.sync(SYNC_S)
        assert served(registry) == {}


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("pdf/SKILL.md", "pdf"),
        ("pdf/scripts/deep/x.py", "pdf"),
        ("team/deploy/SKILL.md", "team/deploy"),
        ("team/new/SKILL.md", "team/new"),
        ("team/SKILL.md", "team"),
        ("team", "team"),
        ("new/a/b", "new"),
        ("..data", ""),
        ("SKILL.md", "SKILL.md"),
    ],
)
async def test_unit_of_a_path(tmp_path: Path, path: str, unit: str) -> None:
    """An event marks the skill directory around its path, else the highest directory without known skills."""
    save(tmp_path / "pdf", "x")
    save(tmp_path / "team/deploy", "x")
    async with watching(tmp_path) as (_, watcher):
        assert watcher._unit_of(0, path) == unit


async def test_sync_says_when_it_is_too_short(tmp_path: Path) -> None:
    """A sync that cannot be done in time is busy, never a stale answer."""
    async with watching(tmp_path) as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        with pytest.raises(Busy, match="within 0 ms"):
            await watcher.sync(0.0)


async def test_too_many_directories_are_polled(tmp_path: Path) -> None:
    """Beyond the limit of directories the watcher polls, says why, and still sees edits."""
    save(tmp_path / "pdf", "old")
    for number in range(8):
        (tmp_path / f"pdf/assets/{number}").mkdir(parents=True)
    async with watching(tmp_path, **{"watch.max_directories": 5, "watch.poll_interval_s": 0.05}) as (registry, watcher):
        await until_mode(registry, watcher, "polling")
        assert watcher.state.reason == "more than 5 directories below the roots (watch.max_directories)"
        save(tmp_path / "pdf", "new")
        await until(registry, lambda: served(registry) == {"pdf": "new"})


async def test_a_sweep_finds_what_events_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit without an event is found by the next sweep, counted, and the watch is built anew."""
    save(tmp_path / "pdf", "old")
    os.utime(tmp_path / "pdf/SKILL.md", (1, 1))  # a young file is looked at twice
    monkeypatch.setattr(watcher_module, "EVENT_SLACK_S", 0.0)
    async with watching(tmp_path, **{"watch.sweep_interval_s": 0.1}) as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        await watcher.sync(SYNC_S)
        monkeypatch.setattr(watcher, "_unit_of", lambda number, path: None)  # as if the kernel had dropped it
        save(tmp_path / "pdf", "new")
        await until(registry, lambda: served(registry) == {"pdf": "new"})
        await until(registry, lambda: watcher.state.missed_events == 1)
        await until_mode(registry, watcher, "inotify")
        assert served(registry) == {"pdf": "new"}


async def test_a_dead_source_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When watching fails it is tried again; a third failure in a row makes the watcher poll."""
    save(tmp_path / "pdf", "old")
    opened = []

    async def refuse(self: EventSource) -> None:
        opened.append(self)
        raise SourceFailed("no luck")

    monkeypatch.setattr(EventSource, "open", refuse)
    async with watching(tmp_path, **{"watch.poll_interval_s": 0.05}) as (registry, watcher):
        await until_mode(registry, watcher, "polling")
        assert (len(opened), watcher.state.reason) == (watcher_module.FAILURE_LIMIT, "no luck")
        save(tmp_path / "pdf", "new")
        await watcher.sync(SYNC_S)
        assert served(registry) == {"pdf": "new"}


def test_exhausted_watches_make_it_poll(tmp_path: Path) -> None:
    """Where the kernel gives out no more watches, at the start or later, edits are still seen."""
    code = textwrap.dedent("""
        import asyncio, pathlib, sys
        from tests.test_watcher import SYNC_S, save, served, until_mode, watching

        async def main(root):
            pathlib.Path("/proc/sys/user/max_inotify_watches").write_text("20")
            async with watching(root) as (registry, watcher):
                await until_mode(registry, watcher, "inotify")
                for number in range(40):
                    save(root / f"skill-{number}", "old")
                await watcher.sync(SYNC_S)
                assert len(served(registry)) == 40
                for number in range(40):
                    save(root / f"skill-{number}", "edited")
                await watcher.sync(SYNC_S)
                assert set(served(registry).values()) == {"edited"}
            async with watching(root) as (registry, watcher):
                await until_mode(registry, watcher, "polling")
                assert watcher.state.reason.startswith("inotify watches are exhausted"), watcher.state
                save(root / "skill-39", "new")
                await watcher.sync(SYNC_S)
                assert served(registry)["skill-39"] == "new"

        asyncio.run(main(pathlib.Path(sys.argv[1])))
    """)
    if subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not available here")
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_watches_exhausted_is_told_apart() -> None:
    """A want of watches is a failure of its own kind."""
    assert issubclass(WatchesExhausted, SourceFailed)


@pytest.mark.parametrize("seed", range(2))
async def test_random_changes_are_all_seen(tmp_path: Path, seed: int) -> None:
    """After a sync the registry equals a fresh scan, whatever was made, moved, copied and deleted before it."""
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    chance = random.Random(seed)
    async with watching(root) as (registry, watcher):
        await until_mode(registry, watcher, "inotify")
        for _ in range(30):
            for _ in range(chance.randrange(1, 30)):
                change_something(chance, root, other)
                if chance.random() < 0.2:
                    await asyncio.sleep(chance.random() * 0.01)
            await watcher.sync(SYNC_S)
            truth = {
                entry.id: entry.skill.digest
                for entry in scan(str(root), "", {}, watcher.rescanner.limits)
                if entry.skill is not None
            }
            assert {id: skill.digest for id, skill in registry.snapshot.skills.items()} == truth


def change_something(chance: random.Random, root: Path, other: Path) -> None:
    """Do one of the things that people and programs do to a library of skills; what cannot be done is left."""

    def place() -> Path:
        return root / chance.choice(["", "g1", "g2/sub"]) / f"s{chance.randrange(12)}"

    target = place()
    with contextlib.suppress(OSError, shutil.Error):
        match chance.randrange(10):
            case 0 | 1 | 2:
                save(target, f"version {chance.random()}")
            case 3:
                shutil.rmtree(target)
            case 4:
                target.rename(place())
            case 5:
                (target / "new").write_text(skill_md("x", f"version {chance.random()}"))
                (target / "new").rename(target / "SKILL.md")
            case 6:
                (target / "scripts").mkdir(exist_ok=True)
                (target / "scripts/a.py").write_text(str(chance.random()))
            case 7:
                outside = other / f"s{chance.randrange(12)}"
                source, goal = (outside, target) if outside.exists() else (target, outside)
                source.rename(goal)
            case 8:
                (target / "SKILL.md").unlink()
            case 9:
                (root / chance.choice(["g1", "g2"])).rename(root / chance.choice(["g1", "g2", "g3"]))
