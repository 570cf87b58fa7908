"""Making and deleting skills on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from skilld.errors import Busy, Conflict, ReadOnly, SkillExists, SkillNotFound, Storage
from skilld.skills import renames
from skilld.skills.making import create_skill, delete_skill
from skilld.skills.ondisk import Place, stamp
from skilld.skills.scanner import ScanLimits, scan
from skilld.skills.staging import clean_up
from tests.conftest import WriteSkill, skill_md
from tests.isolation import as_nobody, count_steps, killed_at, run_with_mounts

LIMITS = ScanLimits(skill_md_bytes=1 << 20, skill_files=1_000, skill_bytes=1 << 20, depth=6, ignore=frozenset())
FILES = {"SKILL.md": skill_md("pdf").encode(), "scripts/sub/run": b"#!/bin/sh\n", "assets/x": b"\0"}


def digest_of(root: Path, id: str) -> str | None:
    (entry,) = scan(str(root), id, {}, LIMITS)
    assert entry.skill is not None
    return entry.skill.digest


def names(root: Path) -> list[str]:
    return sorted(os.listdir(root))


def test_a_skill_is_made_with_its_files(root: Path) -> None:
    """Scripts can be run; nothing is left beside it; the stamp is that of the SKILL.md."""
    made = create_skill(Place(str(root), "pdf"), FILES)
    assert made == stamp((root / "pdf/SKILL.md").stat())
    assert {name: (root / "pdf" / name).read_bytes() for name in FILES} == FILES
    modes = {name: bool((root / "pdf" / name).stat().st_mode & stat.S_IXUSR) for name in FILES}
    assert modes == {"SKILL.md": False, "scripts/sub/run": True, "assets/x": False}
    assert names(root) == ["pdf"]


def test_a_missing_root_is_made(tmp_path: Path) -> None:
    """With the directories above it, and through links in what was configured."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    create_skill(Place(str(tmp_path / "link/a/b"), "pdf"), FILES)
    assert (tmp_path / "there/a/b/pdf/SKILL.md").is_file()


@pytest.mark.parametrize("what", ["skill", "directory", "empty directory", "file", "dangling link"])
def test_whatever_bears_the_name_is_not_replaced(root: Path, what: str) -> None:
    """Not even what is no skill."""
    match what:
        case "dangling link":
            (root / "pdf").symlink_to("nowhere")
        case "file":
            (root / "pdf").write_text("x")
        case _:
            (root / "pdf").mkdir()
            if what != "empty directory":
                (root / "pdf" / ("SKILL.md" if what == "skill" else "x")).write_text("x")
    with pytest.raises(SkillExists):
        create_skill(Place(str(root), "pdf"), FILES)
    assert names(root) == ["pdf"]


def test_of_two_that_make_the_same_skill_one_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other is told, however late it is noticed."""
    move = renames.move

    def late(*args: Any) -> None:
        with contextlib.suppress(FileExistsError):
            (root / "pdf").mkdir()
        move(*args)

    monkeypatch.setattr(renames, "move", late)
    with pytest.raises(SkillExists):
        create_skill(Place(str(root), "pdf"), FILES)
    assert names(root) == ["pdf"]
    assert names(root / "pdf") == []


def test_a_root_that_is_no_directory_is_an_error(tmp_path: Path) -> None:
    """With the errno's name and what was tried."""
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(Storage) as caught:
        create_skill(Place(str(tmp_path / "file"), "pdf"), FILES)
    assert caught.value.facts == {"errno": "ENOTDIR", "operation": "opening the root"}
    with pytest.raises(ReadOnly, match="its root is a symbolic link"):
        create_skill(Place(str(tmp_path / "dangling"), "pdf"), FILES)


def test_a_skill_is_deleted_with_all_that_is_in_it(root: Path, write_skill: WriteSkill, tmp_path: Path) -> None:
    """What its links lead to stays, and so does everything else in the root."""
    (tmp_path / "kept").write_text("x")
    directory = write_skill("team/pdf", files={"scripts/a": "x", "deep/er/b": "y"})
    (directory / "link").symlink_to(tmp_path)
    os.mkfifo(directory / "fifo")
    write_skill("csv")
    delete_skill(Place(str(root), "team/pdf"), None, LIMITS)
    assert names(root) == ["csv", "team"]
    assert names(root / "team") == []
    assert (tmp_path / "kept").exists()


def test_a_digest_guards_against_deleting_another_state(root: Path, write_skill: WriteSkill) -> None:
    """It is that of the disk now."""
    write_skill("pdf", files={"scripts/a": "x"})
    before = digest_of(root, "pdf")
    assert before is not None
    (root / "pdf/scripts/b").write_text("y")
    with pytest.raises(Conflict) as caught:
        delete_skill(Place(str(root), "pdf"), before, LIMITS)
    assert caught.value.facts == {"expected": before, "actual": digest_of(root, "pdf")}
    (root / "pdf/scripts/b").unlink()
    delete_skill(Place(str(root), "pdf"), before, LIMITS)
    assert names(root) == []


@pytest.mark.parametrize("times", [1, 1_000])
def test_an_edit_in_the_last_moment_brings_the_skill_back(
    root: Path, write_skill: WriteSkill, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """If the caller named a digest: the next look finds that it is another one."""
    write_skill("pdf")
    digest = digest_of(root, "pdf")
    move = renames.move

    def edit(source_fd: int, source: bytes, *rest: Any) -> None:
        if source == b"pdf":
            (root / "pdf/new").write_text("by hand")
        move(source_fd, source, *rest)

    monkeypatch.setattr(renames, "move", edit)
    with pytest.raises(Conflict):
        delete_skill(Place(str(root), "pdf"), digest, LIMITS)
    assert names(root) == ["pdf"]
    assert (root / "pdf/new").read_text() == "by hand"


def test_what_is_no_skill_any_more_is_not_deleted(root: Path, write_skill: WriteSkill) -> None:
    """Gone, or a directory whose SKILL.md has gone."""
    (write_skill("pdf", files={"notes": "mine"}) / "SKILL.md").unlink()
    for id in ("pdf", "csv", "pdf/notes"):
        with pytest.raises(SkillNotFound):
            delete_skill(Place(str(root), id), None, LIMITS)
    assert (root / "pdf/notes").read_text() == "mine"
    with pytest.raises(SkillNotFound):
        delete_skill(Place(str(root / "nothing"), "pdf"), None, LIMITS)


def test_nothing_is_deleted_through_a_link(root: Path, write_skill: WriteSkill, tmp_path: Path) -> None:
    """Neither a linked skill nor one in a linked directory; what is linked to stays."""
    write_skill("team/pdf", into=tmp_path / "shared")
    (root / "pdf").symlink_to(tmp_path / "shared/team/pdf")
    (root / "team").symlink_to(tmp_path / "shared/team")
    for id in ("pdf", "team/pdf"):
        with pytest.raises(ReadOnly):
            delete_skill(Place(str(root), id), None, LIMITS)
    assert (tmp_path / "shared/team/pdf/SKILL.md").exists()
    assert (root / "pdf").is_symlink()


def test_a_skill_that_is_always_written_is_busy(
    root: Path, write_skill: WriteSkill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries are bounded."""
    write_skill("pdf")

    def gone(*args: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr(renames, "move", gone)
    with pytest.raises(Busy):
        delete_skill(Place(str(root), "pdf"), None, LIMITS)


def test_an_unprivileged_daemon_says_what_it_may_not(open_root: Path) -> None:
    """A root or a directory that is not ours to write is read-only, and nothing has changed."""
    root = open_root / "root"
    (root / "pdf/sub").mkdir(parents=True)
    (root / "pdf/SKILL.md").write_text(skill_md("pdf"))
    (root / "pdf/sub/x").write_text("x")
    if os.geteuid() != 0:
        root.chmod(0o555)

    def refused() -> list[str]:
        found = []
        for call in (
            lambda: create_skill(Place(str(root), "csv"), FILES),
            lambda: create_skill(Place(str(root / "new"), "csv"), FILES),
            lambda: delete_skill(Place(str(root), "pdf"), None, LIMITS),
        ):
            try:
                call()
            except ReadOnly as exc:
                found.append(exc.facts["name"])
        return found

    try:
        assert as_nobody(refused) == ["csv", "csv", "pdf"]
        if os.geteuid() == 0:
            # The root is ours to write, a directory of the skill is not.
            root.chmod(0o777)
            (root / "pdf").chmod(0o777)
            assert as_nobody(refused) == ["pdf"]
            assert (root / "pdf/sub/x").exists()
    finally:
        root.chmod(0o755)
    assert not [name for name in names(root) if name.startswith(".")]


@pytest.mark.parametrize("operation", ["create", "delete"])
def test_a_kill_at_any_step_leaves_all_or_nothing(root: Path, operation: str) -> None:
    """Whole after the next start, with nothing beside it."""
    place = Place(str(root), "pdf")
    seen = set()
    step = 1
    while killed_at(
        step,
        lambda: create_skill(place, FILES) if operation == "create" else delete_skill(place, None, LIMITS),
    ):
        clean_up(place.root_path)
        is_there = names(root) == ["pdf"]
        assert names(root) in ([], ["pdf"])
        if is_there:
            assert {name: (root / "pdf" / name).read_bytes() for name in FILES} == FILES
        seen.add(is_there)
        if operation == "create" and is_there:
            delete_skill(place, None, LIMITS)
        elif operation == "delete" and not is_there:
            create_skill(place, FILES)
        step += 1
        if step == 2 and operation == "delete" and not is_there:
            step = 1  # the first skill had to be made
    assert seen == {True, False}


@pytest.mark.parametrize("failure", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_failure_at_any_step_leaves_no_half_skill(root: Path, monkeypatch: pytest.MonkeyPatch, failure: int) -> None:
    """Whatever the disk refuses, the error names it."""
    place = Place(str(root), "pdf")
    refused: list[str] = []
    at = 0
    while len(refused) == at:
        at += 1

        def on_step(number: int, name: str, at: int = at) -> None:
            if number == at:
                refused.append(name)
                raise OSError(failure, os.strerror(failure))

        with monkeypatch.context() as patch:
            count_steps(patch, on_step)
            try:
                create_skill(place, FILES)
            except Storage as exc:
                assert exc.facts["errno"] == errno.errorcode[failure]
            except ReadOnly:
                assert failure == errno.EROFS
        clean_up(place.root_path)  # of a refusal to clean up
        assert names(root) in ([], ["pdf"])
        if names(root):
            assert {name: (root / "pdf" / name).read_bytes() for name in FILES} == FILES
            delete_skill(place, None, LIMITS)
    assert {"mkdir", "open", "fsync", "renameat2"} <= set(refused)


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    """ENOSPC by name; what was there is there, and nothing else."""
    printed = run_with_mounts(
        'mount -t tmpfs -o size=64k none "$D"',
        """
        import os, sys
        from skilld.errors import Storage
        from skilld.skills.making import create_skill
        from skilld.skills.ondisk import Place
        text = b"---\\nname: a\\ndescription: b\\n---\\n"
        create_skill(Place(sys.argv[1], "one"), {"SKILL.md": text})
        try:
            create_skill(Place(sys.argv[1], "two"), {"SKILL.md": text, "assets/x": bytes(100_000)})
        except Storage as exc:
            print(exc.facts)
        print(os.listdir(sys.argv[1]), open(sys.argv[1] + "/one/SKILL.md", "rb").read() == text)
        """,
        tmp_path,
    )
    assert printed == "{'errno': 'ENOSPC', 'operation': 'writing assets/x'}\n['one'] True\n"


def test_a_read_only_file_system_is_read_only(tmp_path: Path) -> None:
    """For a new skill and for one that is there."""
    printed = run_with_mounts(
        """
        mount -t tmpfs none "$D"
        mkdir "$D/pdf"
        echo x > "$D/pdf/SKILL.md"
        mount -o remount,ro "$D"
        """,
        """
        import sys
        from skilld.errors import ReadOnly
        from skilld.skills.making import create_skill, delete_skill
        from skilld.skills.ondisk import Place
        from tests.test_making import LIMITS
        for call in (lambda: create_skill(Place(sys.argv[1], "a"), {"SKILL.md": b""}),
                     lambda: delete_skill(Place(sys.argv[1], "pdf"), None, LIMITS)):
            try:
                call()
            except ReadOnly as exc:
                print(exc.facts["name"])
        """,
        tmp_path,
    )
    assert printed == "a\npdf\n"
