"""Changing skills on the disk, whoever else does so at the same time."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from skilld.errors import (
    Busy,
    Conflict,
    FileNotFound,
    ReadOnly,
    SkilldError,
    SkillInvalid,
    SkillNotFound,
    Storage,
)
from skilld.skills import renames, updating
from skilld.skills.edit import Fields
from skilld.skills.filemap import gather_files
from skilld.skills.ondisk import Place, stamp
from skilld.skills.scanner import ScanLimits, scan
from skilld.skills.staging import clean_up
from skilld.skills.updating import Change, update_skill
from tests.conftest import WriteSkill, age, skill_md
from tests.isolation import DISKS, as_nobody, count_steps, imitate, killed_at, run_with_mounts

LIMITS = ScanLimits(skill_md_bytes=1 << 20, skill_files=1_000, skill_bytes=1 << 20, depth=6, ignore=frozenset())
FILES = {"scripts/a": "#!/bin/sh\n", "scripts/b": "b", "references/deep/r.md": "r", "notes": "n"}


def change(if_digest: str | None = None, scripts: Mapping[str, Any] | None = None, **values: Any) -> Change:
    files, findings = gather_files({"scripts": scripts, "references": values.pop("references", None)})
    return Change(Fields(**values), files, findings, if_digest)


def texts(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text() for path in sorted(directory.rglob("*")) if path.is_file()
    }


def digest_of(root: Path, id: str) -> str | None:
    (entry,) = scan(str(root), id, {}, LIMITS)
    assert entry.skill is not None
    return entry.skill.digest


@pytest.fixture
def directory(write_skill: WriteSkill) -> Path:
    """A skill with some files."""
    return write_skill("pdf", files=FILES)


@pytest.fixture
def place(root: Path) -> Place:
    return Place(str(root), "pdf")


NEW_MD = skill_md("pdf", "new")


def test_a_change_of_the_skill_md_touches_that_file_alone(root: Path, directory: Path, place: Place) -> None:
    """The directory stays the same one, the file keeps its mode; nothing is left beside it."""
    (directory / "SKILL.md").chmod(0o640)
    before = directory.stat().st_ino
    made = update_skill(place, change(description="new"), LIMITS)
    assert texts(directory) == {**FILES, "SKILL.md": NEW_MD}
    state = (directory / "SKILL.md").stat()
    assert (directory.stat().st_ino, stat.S_IMODE(state.st_mode), made) == (before, 0o640, stamp(state))
    assert os.listdir(root) == ["pdf"]


@pytest.mark.parametrize(
    ("scripts", "expected"),
    [
        ({"b": "new"}, {"scripts/b": "new"}),
        ({"c": "new"}, {"scripts/c": "new"}),
        ({"b": None}, {"scripts/b": None}),
        ({"a": None, "b": None}, {"scripts/a": None, "scripts/b": None}),
        ({"x/y/z": "new"}, {"scripts/x/y/z": "new"}),
        ({"b": None, "c": "1", "d/e": {"base64": b"2"}}, {"scripts/b": None, "scripts/c": "1", "scripts/d/e": "2"}),
    ],
)
@pytest.mark.parametrize("description", [None, "new"])
def test_files_are_written_replaced_and_removed(
    root: Path,
    directory: Path,
    place: Place,
    scripts: dict[str, Any],
    expected: dict[str, str | None],
    description: str | None,
) -> None:
    """With the SKILL.md or without; all other files stay the same ones; directories that are empty then go."""
    inodes = {path: (directory / path).stat().st_ino for path in FILES if path not in expected}
    update_skill(place, change(scripts=scripts, description=description), LIMITS)
    merged = {**FILES, "SKILL.md": NEW_MD if description else skill_md("pdf"), **expected}
    assert texts(directory) == {path: text for path, text in merged.items() if text is not None}
    assert {path: (directory / path).stat().st_ino for path in inodes} == inodes
    assert all(any(path.iterdir()) for path in directory.rglob("*") if path.is_dir())
    assert os.listdir(root) == ["pdf"]


def test_nothing_is_written_where_nothing_changes(directory: Path, place: Place) -> None:
    """Every file stays as it is, to its time stamps."""
    before = {path: (stamp(path.lstat()), path.lstat().st_ctime_ns) for path in directory.rglob("*")}
    update_skill(place, change(), LIMITS)
    update_skill(place, change(description="Does things.", body="Steps.\n", scripts={"b": "b"}), LIMITS)
    assert {path: (stamp(path.lstat()), path.lstat().st_ctime_ns) for path in directory.rglob("*")} == before


def test_a_script_gets_its_execute_bits(directory: Path, place: Place) -> None:
    """New, replaced, or unchanged in its bytes; a mode that somebody gave it stays otherwise."""
    (directory / "scripts/b").chmod(0o640)
    update_skill(place, change(scripts={"a": FILES["scripts/a"], "b": "#!/bin/sh\n", "c": "#!x", "d": "x"}), LIMITS)
    modes = {name: stat.S_IMODE((directory / "scripts" / name).stat().st_mode) & 0o111 for name in "abcd"}
    umask = os.umask(0o022)
    os.umask(umask)
    assert modes == {"a": 0o111 & ~umask, "b": 0o110, "c": 0o111 & ~umask, "d": 0}
    update_skill(place, change(scripts={"b": "now data"}), LIMITS)
    assert stat.S_IMODE((directory / "scripts/b").stat().st_mode) == 0o750


def test_rights_do_not_pass_to_other_content(directory: Path, place: Place) -> None:
    """Whoever may write a skill gets no more rights by replacing a file that has them."""
    (directory / "scripts/a").chmod(0o6755)
    (directory / "scripts").chmod(0o2755)
    for scripts in ({"a": "evil"}, {"a": "more evil", "b": "x"}):
        update_skill(place, change(scripts=scripts), LIMITS)
        assert stat.S_IMODE((directory / "scripts/a").stat().st_mode) == 0o755
        (directory / "scripts/a").chmod(0o6755)
    assert stat.S_IMODE((directory / "scripts").stat().st_mode) == 0o2755


def test_a_skill_md_in_lower_case_is_one(root: Path, directory: Path, place: Place) -> None:
    """It keeps its name."""
    (directory / "SKILL.md").rename(directory / "skill.md")
    update_skill(place, change(description="new"), LIMITS)
    update_skill(place, change(license="MIT", scripts={"b": "x"}), LIMITS)
    assert sorted(texts(directory)) == sorted([*FILES, "skill.md"])
    assert (directory / "skill.md").read_text() == skill_md("pdf", "new\nlicense: MIT")


def test_the_digest_is_that_of_the_disk(root: Path, directory: Path, place: Place) -> None:
    """An edit that nobody has seen yet is a conflict; so is a skill that has no digest."""
    digest = digest_of(root, "pdf")
    update_skill(place, change(digest, description="new"), LIMITS)
    (directory / "notes").write_text("by hand")
    age(directory / "notes")
    with pytest.raises(Conflict) as caught:
        update_skill(place, change(digest, description="newer"), LIMITS)
    assert caught.value.facts == {"expected": digest, "actual": digest_of(root, "pdf")}
    (directory / "link").symlink_to("/etc/passwd")
    with pytest.raises(Conflict) as caught:
        update_skill(place, change(digest, description="newer"), LIMITS)
    assert caught.value.facts["actual"] is None
    assert (directory / "SKILL.md").read_text() == NEW_MD


def test_every_violation_is_listed(directory: Path, place: Place, root: Path) -> None:
    """Of fields, keys, places and limits; nothing has changed."""
    before = texts(directory)
    limits = ScanLimits(skill_md_bytes=200, skill_files=6, skill_bytes=1_000, depth=6, ignore=frozenset())
    with pytest.raises(SkillInvalid) as caught:
        update_skill(
            place,
            change(description="", compatibility="x" * 501, scripts={"../x": "", "A": "", "c": "", "d": "x" * 1_000}),
            limits,
        )
    problems = caught.value.facts["problems"]
    assert [(problem.get("field"), problem["path"], problem["id"]) for problem in problems] == [
        (field, str(directory), "pdf") for field in ("scripts", "description", "compatibility", "scripts", None, None)
    ]
    with pytest.raises(SkillInvalid, match="would have"):
        update_skill(place, change(body="x" * 200), limits)
    assert texts(directory) == before


def test_what_is_not_there_cannot_be_removed(directory: Path, place: Place) -> None:
    """A file that is missing, and a directory."""
    for key in ("nothing", "a/b"):
        with pytest.raises(FileNotFound) as caught:
            update_skill(place, change(scripts={key: None, "b": None}), LIMITS)
        assert caught.value.facts == {"name": "pdf", "path": f"scripts/{key}"}
    with pytest.raises(FileNotFound):
        update_skill(place, change(references={"deep": None}), LIMITS)
    assert set(texts(directory)) == {*FILES, "SKILL.md"}


@pytest.mark.parametrize("what", ["skill", "parent", "SKILL.md", "file", "folder"])
def test_nothing_is_written_through_a_link(root: Path, tmp_path: Path, write_skill: WriteSkill, what: str) -> None:
    """Whatever the link is, and wherever it leads: the skill is read-only, and what is behind it stays."""
    shared = write_skill("pdf", files=FILES, into=tmp_path / "shared")
    place = Place(str(root), "pdf")
    match what:
        case "skill":
            (root / "pdf").symlink_to(shared)
        case "parent":
            (root / "team").symlink_to(shared.parent)
            place = Place(str(root), "team/pdf")
        case _:
            own = write_skill("pdf", files={"scripts/b": "b"})
            name = {"SKILL.md": "SKILL.md", "file": "scripts/b", "folder": "scripts"}[what]
            (own / name).rename(tmp_path / "away")
            (own / name).symlink_to(shared / name)
    before = texts(shared)
    with pytest.raises(ReadOnly) as caught:
        update_skill(place, change(description="new", scripts={"b": "new"}), LIMITS)
    assert caught.value.facts == {"name": place.id, "root": str(root)}
    assert texts(shared) == before


def test_a_link_may_be_removed(directory: Path, place: Place, tmp_path: Path) -> None:
    """The link goes, what it leads to stays."""
    (tmp_path / "kept").write_text("x")
    (directory / "scripts/link").symlink_to(tmp_path / "kept")
    update_skill(place, change(scripts={"link": None}), LIMITS)
    assert not os.path.lexists(directory / "scripts/link")
    assert (tmp_path / "kept").exists()


def test_a_skill_that_has_gone_is_not_found(directory: Path, place: Place, root: Path) -> None:
    """Its directory, or its SKILL.md for longer than an editor takes."""
    with pytest.raises(SkillNotFound):
        update_skill(Place(str(root), "csv"), change(description="new"), LIMITS)
    (directory / "SKILL.md").unlink()
    with pytest.raises(SkillNotFound):
        update_skill(place, change(description="new"), LIMITS)


def test_a_broken_skill_md_is_not_touched(directory: Path, place: Place) -> None:
    """Too large, no file, no frontmatter."""
    for text in ("no frontmatter", "x" * (LIMITS.skill_md_bytes + 1)):
        (directory / "SKILL.md").write_text(text)
        age(directory / "SKILL.md")
        with pytest.raises(SkillInvalid):
            update_skill(place, change(description="new"), LIMITS)
        assert (directory / "SKILL.md").read_text() == text
    (directory / "SKILL.md").unlink()
    (directory / "SKILL.md").mkdir()
    with pytest.raises(SkillInvalid):
        update_skill(place, change(description="new"), LIMITS)


def save(path: Path, text: str) -> None:
    """Save as editors do."""
    path.with_name("." + path.name).write_text(text)
    path.with_name("." + path.name).rename(path)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def replace(path: Path) -> None:
    """Put an edited copy of a directory in its place, as rsync and people do."""
    shutil.move(path, path.parent.parent / f"{path.name}.bak")
    shutil.copytree(path.parent.parent / f"{path.name}.bak", path)
    (path / "notes").write_text("by hand")


BY_HAND = skill_md("pdf", "by hand", "By hand.\n")

EDITS: dict[str, Callable[[Path], None]] = {
    "SKILL.md saved": lambda path: save(path / "SKILL.md", skill_md("pdf", body="By hand.\n")),
    "SKILL.md grown": lambda path: append(path / "SKILL.md", "By hand.\n"),
    "the changed file saved": lambda path: save(path / "scripts/b", "by hand"),
    "another file saved": lambda path: save(path / "notes", "by hand"),
    "another file grown": lambda path: append(path / "notes", "by hand"),
    "a file added": lambda path: save(path / "references/new", "by hand"),
    "a file removed": lambda path: (path / "notes").unlink(),
    "the directory replaced": replace,
    "a mode changed": lambda path: (path / "notes").chmod(0o600),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("scripts", [None, {"b": "new", "c": "new"}])
@pytest.mark.parametrize("when", ["before the exchange", "before the staging"])
def test_an_edit_by_hand_in_the_last_moment_is_kept(
    directory: Path,
    place: Place,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit: str,
    scripts: dict[str, Any] | None,
    when: str,
) -> None:
    """The change is made anew of what the editor saved, and both are there in the end."""
    module, name = {"before the exchange": (renames, "exchange"), "before the staging": (updating, "_plan")}[when]
    real = getattr(module, name)
    edited: list[bool] = []

    def late(*args: Any) -> Any:
        result = real(*args) if when == "before the staging" else None
        if not edited:
            edited.append(True)
            EDITS[edit](directory)
        return result if when == "before the staging" else real(*args)

    monkeypatch.setattr(module, name, late)
    update_skill(place, change(description="new", scripts=scripts), LIMITS)
    expected = directory.parent / "expected"
    for path, text in {**FILES, "SKILL.md": skill_md("pdf")}.items():
        (expected / path).parent.mkdir(parents=True, exist_ok=True)
        (expected / path).write_text(text)
    EDITS[edit](expected)
    merged = texts(expected)
    merged["SKILL.md"] = merged["SKILL.md"].replace("Does things.", "new")
    assert texts(directory) == {**merged, **{f"scripts/{key}": text for key, text in (scripts or {}).items()}}
    assert sorted(os.listdir(root)) == ["expected", "pdf"]


@pytest.mark.parametrize(
    "one",
    [
        change(description="x"),
        change(scripts={"c": "x"}),
        change(scripts={"b": None}),
        change(scripts={"b": "", "c": ""}),
    ],
)
def test_a_skill_that_goes_meanwhile_stays_away_as_it_was(
    directory: Path, place: Place, root: Path, monkeypatch: pytest.MonkeyPatch, one: Change
) -> None:
    """Nothing of the change is left, neither here nor in the directory that was moved away."""
    away = root.parent / "away"
    before = texts(directory)

    def late(real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            if directory.exists():
                directory.rename(away)
            real(*args)

        return call

    for function in ("exchange", "move"):
        monkeypatch.setattr(renames, function, late(getattr(renames, function)))
    with pytest.raises(SkillNotFound):
        update_skill(place, one, LIMITS)
    assert os.listdir(root) == []
    assert texts(away) == before


@pytest.mark.parametrize("scripts", [None, {"b": "new", "c": "new"}])
def test_a_skill_that_is_edited_without_end_is_busy(
    directory: Path, place: Place, monkeypatch: pytest.MonkeyPatch, scripts: dict[str, Any] | None
) -> None:
    """Tries are bounded, and the last edit is there."""
    real = renames.exchange
    count = 0

    def late(*args: Any) -> None:
        nonlocal count
        count += 1
        (directory / "SKILL.md").write_text(skill_md("pdf", f"edit {count}"))
        age(directory / "SKILL.md")
        real(*args)

    monkeypatch.setattr(renames, "exchange", late)
    with pytest.raises(Busy):
        update_skill(place, change(body="new", scripts=scripts), LIMITS)
    assert "new" not in (directory / "SKILL.md").read_text()
    assert (directory / "scripts/b").read_text() == "b"


def test_an_unfinished_save_is_waited_for(directory: Path, place: Place) -> None:
    """A SKILL.md that has just been cut to nothing, or renamed away, is not what the author wants."""
    for begin in (lambda: (directory / "SKILL.md").write_text(""), lambda: (directory / "SKILL.md").unlink()):
        begin()
        writer = threading.Timer(0.05, lambda: save(directory / "SKILL.md", BY_HAND))
        writer.start()
        update_skill(place, change(license="MIT"), LIMITS)
        writer.join()
        assert (directory / "SKILL.md").read_text() == BY_HAND.replace("by hand\n", "by hand\nlicense: MIT\n")


def test_what_we_wrote_ourselves_is_not_waited_for(
    directory: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One update can follow another at once."""
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waited"))
    own = update_skill(place, change(description="one"), LIMITS)
    own = update_skill(place, change(description="two", scripts={"b": "x", "c": "y"}), LIMITS, own)
    own = update_skill(place, change(scripts={"b": "z"}), LIMITS, own)
    update_skill(place, change(description="three"), LIMITS, own)


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("scripts", [None, {"b": "new", "c": "new", "a": None}])
def test_a_kill_at_any_step_leaves_the_old_or_the_new(
    root: Path,
    directory: Path,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    disk: str,
    scripts: dict[str, Any] | None,
) -> None:
    """Whole, after the next start, on any disk, with nothing beside it."""
    imitate(monkeypatch, disk, lower=(b"pdf", b"references", b"deep"))
    old = texts(directory)
    seen = set()
    step = 1
    new: dict[str, str] = {}
    while killed_at(step, lambda: update_skill(place, change(description="new", scripts=scripts), LIMITS)):
        clean_up(place.root_path)
        now = texts(directory)
        is_old = now == old
        if not is_old:
            new = new or now
            assert now == new
            for path, text in old.items():
                (directory / path).write_text(text)
                age(directory / path)
            for path in new.keys() - old.keys():
                (directory / path).unlink()
        seen.add(is_old)
        assert os.listdir(root) == ["pdf"]
        step += 1
    assert seen == {True, False}
    assert new["SKILL.md"] == NEW_MD
    assert (new.get("scripts/b"), new.get("scripts/c"), "scripts/a" in new) == (
        ("new", "new", False) if scripts else ("b", None, True)
    )


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("scripts", [None, {"b": "new", "c": "new", "a": None}])
def test_a_failure_at_any_step_leaves_the_old_or_the_new(
    root: Path,
    directory: Path,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    disk: str,
    scripts: dict[str, Any] | None,
) -> None:
    """Whole and at once, on any disk, with an error of its own."""
    imitate(monkeypatch, disk, lower=(b"pdf", b"references", b"deep"))
    old = texts(directory)
    refused: list[str] = []
    states = []
    at = 0
    while len(refused) == at:
        at += 1

        def on_step(number: int, name: str, at: int = at) -> None:
            if number == at:
                refused.append(name)
                raise OSError(errno.EIO, "I/O error")

        with monkeypatch.context() as patch:
            count_steps(patch, on_step)
            try:
                update_skill(place, change(description="new", scripts=scripts), LIMITS)
            except SkilldError as exc:
                assert isinstance(exc, Storage)
        clean_up(place.root_path)  # of a refusal to clean up
        now = texts(directory)
        if now != old:
            states.append(now)
            for path, text in old.items():
                (directory / path).parent.mkdir(exist_ok=True, parents=True)
                (directory / path).write_text(text)
                age(directory / path)
            for path in now.keys() - old.keys():
                (directory / path).unlink()
    assert len(refused) > 8
    assert all(state == states[0] for state in states)
    assert states[0]["SKILL.md"] == NEW_MD
    assert states[0].get("scripts/b") == ("new" if scripts else "b")


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    """ENOSPC by name, for one file and for several."""
    printed = run_with_mounts(
        'mount -t tmpfs -o size=128k none "$D"',
        """
        import os, sys
        from skilld.errors import Storage
        from skilld.skills.making import create_skill
        from skilld.skills.ondisk import Place
        from skilld.skills.updating import update_skill
        from tests.test_updating import LIMITS, change
        place = Place(sys.argv[1], "pdf")
        text = b"---\\nname: pdf\\ndescription: b\\n---\\n"
        create_skill(place, {"SKILL.md": text, "scripts/a": b"a"})
        for scripts in (None, {"a": "b", "b": "x" * 50_000}):
            try:
                update_skill(place, change(body="x" * 200_000, scripts=scripts), LIMITS)
            except Storage as exc:
                print(exc.facts)
            print(os.listdir(sys.argv[1]), open(sys.argv[1] + "/pdf/SKILL.md", "rb").read() == text)
        """,
        tmp_path,
    )
    line = "{'errno': 'ENOSPC', 'operation': 'writing SKILL.md'}\n['pdf'] True\n"
    assert printed == line * 2


def test_skills_of_an_image_can_be_changed_and_deleted(tmp_path: Path) -> None:
    """Their directories lie in a lower layer of overlayfs, which moves none of them."""
    printed = run_with_mounts(
        """
        mount -t tmpfs none "$D"
        mkdir -p "$D/lower/pdf/scripts" "$D/upper" "$D/work" "$D/merged"
        printf -- '---\\nname: pdf\\ndescription: b\\n---\\n' > "$D/lower/pdf/SKILL.md"
        echo a > "$D/lower/pdf/scripts/a"
        mount -t overlay none -o "lowerdir=$D/lower,upperdir=$D/upper,workdir=$D/work" "$D/merged"
        """,
        """
        import os, pathlib, sys
        from skilld.skills.making import delete_skill
        from skilld.skills.ondisk import Place
        from skilld.skills.updating import update_skill
        from tests.test_updating import LIMITS, change, texts
        root = sys.argv[1] + "/merged"
        place = Place(root, "pdf")
        update_skill(place, change(license="MIT"), LIMITS)
        update_skill(place, change(description="new", scripts={"a": None, "b": "b"}), LIMITS)
        print(texts(pathlib.Path(root)))
        delete_skill(place, None, LIMITS)
        print(os.listdir(root))
        """,
        tmp_path,
    )
    text = "---\nname: pdf\ndescription: new\nlicense: MIT\n---\n"
    assert printed == f"{ ({'pdf/SKILL.md': text, 'pdf/scripts/b': 'b'}) }\n[]\n"


def test_a_skill_mounted_from_elsewhere_is_a_clear_error(tmp_path: Path) -> None:
    """A bind mount in the root is another file system; nothing is staged there."""
    printed = run_with_mounts(
        """
        mkdir -p "$D/root/pdf" "$D/other/scripts"
        mount -t tmpfs none "$D/other"
        printf -- '---\\nname: pdf\\ndescription: b\\n---\\n' > "$D/other/SKILL.md"
        mount --bind "$D/other" "$D/root/pdf"
        """,
        """
        import os, sys
        from skilld.errors import Storage
        from skilld.skills.making import delete_skill
        from skilld.skills.ondisk import Place
        from skilld.skills.updating import update_skill
        from tests.test_updating import LIMITS, change
        place = Place(sys.argv[1] + "/root", "pdf")
        for call in (lambda: update_skill(place, change(description="new"), LIMITS),
                     lambda: update_skill(place, change(description="new", scripts={"a": "b"}), LIMITS),
                     lambda: delete_skill(place, None, LIMITS)):
            try:
                call()
            except Storage as exc:
                print(exc.facts["errno"])
        print(os.listdir(place.root), os.listdir(place.root + "/pdf"))
        """,
        tmp_path,
    )
    assert printed == "EXDEV\nEBUSY\nEBUSY\n['pdf'] ['SKILL.md']\n"


def test_an_unprivileged_daemon_says_what_it_may_not(open_root: Path) -> None:
    """Nothing of a change of several files happens where one of the directories is protected."""
    root = open_root / "root"
    (root / "pdf/scripts").mkdir(parents=True)
    (root / "pdf/SKILL.md").write_text(skill_md("pdf"))
    (root / "pdf/scripts/a").write_text("a")
    for path in (root / "pdf/SKILL.md", root / "pdf/scripts/a"):
        age(path)
        path.chmod(0o644)
    root.chmod(0o777)
    (root / "pdf").chmod(0o777)
    (root / "pdf/scripts").chmod(0o555)

    def outcomes() -> list[str]:
        found = []
        for one in (
            change(scripts={"a": "x"}),
            change(description="new", scripts={"b": "x"}),
            change(description="ok"),
        ):
            try:
                update_skill(Place(str(root), "pdf"), one, LIMITS)
                found.append("done")
            except ReadOnly:
                found.append("read-only")
        return found

    try:
        assert as_nobody(outcomes) == ["read-only", "read-only", "done"]
    finally:
        (root / "pdf/scripts").chmod(0o777)
    assert texts(root) == {"pdf/SKILL.md": skill_md("pdf", "ok"), "pdf/scripts/a": "a"}
    # Whoever may write the directories may replace files of others, and copy those that it may not link.
    (root / "pdf/notes").write_text("n")
    assert as_nobody(outcomes) == ["done"] * 3
    assert texts(root) == {
        "pdf/SKILL.md": skill_md("pdf", "ok"), "pdf/scripts/a": "x", "pdf/scripts/b": "x", "pdf/notes": "n",
    }  # fmt: skip
