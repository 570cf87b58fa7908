"""Reading skills from disk: what is a skill, what is not, and that no bad one stops another."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from skilld.skills import files as files_module
from skilld.skills.model import Problem, Severity, Skill
from skilld.skills.scanner import FOLLOW_LIMIT, Entry, ScanLimits, read_body, scan
from tests.conftest import WriteSkill, age, as_nobody, skill_md
from tests.test_frontmatter import CASES, Case

LIMITS = ScanLimits(
    skill_md_bytes=1 << 20, skill_files=1_000, skill_bytes=1 << 26, depth=6, ignore=frozenset({"node_modules", "venv"})
)


def scanned(
    root: Path, below: str = "", known: Mapping[str, Entry] | None = None, limits: ScanLimits = LIMITS
) -> dict[str, Entry]:
    entries = list(scan(str(root), below, known or {}, limits))
    found = {entry.id: entry for entry in entries}
    assert len(found) == len(entries)
    return found


def outcomes(entries: Mapping[str, Entry]) -> dict[str, str]:
    """The description of each skill that is served, the error of each that is not."""
    return {id: entry.skill.description if entry.skill else entry.problems[0].message for id, entry in entries.items()}


def served(root: Path, below: str = "", limits: ScanLimits = LIMITS) -> list[str]:
    return [id for id, entry in scanned(root, below, limits=limits).items() if entry.skill]


def only(entries: Mapping[str, Entry]) -> Entry:
    (entry,) = entries.values()
    return entry


@pytest.fixture
def good(write_skill: WriteSkill) -> Callable[[dict[str, Entry]], None]:
    """Two good skills, one before and one after whatever else is there; the function checks that they are served."""
    before, after = write_skill("a-good"), write_skill("z/good")

    def check(entries: dict[str, Entry]) -> None:
        for id, path in (("a-good", before), ("z/good", after)):
            skill = entries[id].skill
            assert skill is not None
            assert (skill.description, skill.path, entries[id].problems) == ("Does things.", str(path), ())

    return check


# What a skill is.


def test_a_skill_is_read_whole(root: Path, write_skill: WriteSkill) -> None:
    """All of its values, those of the frontmatter and those of the disk."""
    text = (
        "---\nname: pdf\ndescription: Fill forms.\nlicense: MIT\ncompatibility: Python\nmetadata:\n  a: 1\n"
        "allowed-tools: Read Write\nx: 2026-01-05\n---\n\nSteps.\n"
    )
    directory = write_skill("team/pdf", text, files={"scripts/run.py": "print()"})
    (directory / "scripts/run.py").chmod(0o755)
    entry = only(scanned(root))
    skill = entry.skill
    assert skill is not None
    assert (entry.id, entry.is_linked, entry.is_racy) == ("team/pdf", False, False)
    assert entry.problems == skill.problems
    assert skill == Skill(
        id="team/pdf",
        name="pdf",
        description="Fill forms.",
        license="MIT",
        compatibility="Python",
        metadata={"a": 1},
        allowed_tools=("Read", "Write"),
        frontmatter={
            "name": "pdf",
            "description": "Fill forms.",
            "license": "MIT",
            "compatibility": "Python",
            "metadata": {"a": 1},
            "allowed-tools": "Read Write",
            "x": "2026-01-05",
        },
        resources=skill.resources,
        path=str(directory),
        root=str(root),
        skill_md=str(directory / "SKILL.md"),
        skill_md_sha256=skill.skill_md_sha256,
        digest=skill.digest,
        modified_ns=os.stat(directory / "SKILL.md").st_mtime_ns,
        problems=(Problem(str(directory / "SKILL.md"), "warning", "unknown field 'x'", "team/pdf", "pdf", "x"),),
    )
    assert [(resource.path, resource.executable) for resource in skill.resources] == [("scripts/run.py", True)]
    assert read_body(skill, 1_000) == "Steps.\n"


def test_no_root_is_no_skills(tmp_path: Path) -> None:
    """A root that is missing, or empty, or a file counts as empty."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert [scanned(tmp_path / name) for name in ("missing", "empty", "file", "file/below")] == [{}, {}, {}, {}]


def test_skills_lie_at_any_depth_up_to_the_limit(root: Path, write_skill: WriteSkill) -> None:
    """The id is the path below the root; one directory beyond the limit is not looked at."""
    for id in ("a", "a-team/b", "t/e/a/m/s/deep", "t/e/a/m/s/too/deep"):
        write_skill(id)
    assert served(root) == ["a", "a-team/b", "t/e/a/m/s/deep"]


def test_what_lies_in_a_skill_is_one_of_its_files(root: Path, write_skill: WriteSkill) -> None:
    """A SKILL.md deeper inside is no skill, even below one that cannot be served."""
    write_skill("pdf", files={"inner/SKILL.md": skill_md("inner")})
    write_skill("broken", "no frontmatter", files={"inner/SKILL.md": skill_md("inner")})
    entries = scanned(root)
    assert set(entries) == {"broken", "pdf"}
    assert entries["pdf"].skill
    assert [resource.path for resource in entries["pdf"].skill.resources] == ["inner/SKILL.md"]


def test_the_root_itself_is_no_skill(root: Path, write_skill: WriteSkill) -> None:
    """A SKILL.md directly in a root hides nothing."""
    (root / "SKILL.md").write_text(skill_md("skills"))
    write_skill("pdf")
    assert served(root) == ["pdf"]


def test_hidden_and_ignored_directories_hold_no_skills(root: Path, write_skill: WriteSkill) -> None:
    """At any depth; a name that only starts like an ignored one is another."""
    for id in (".git/a", "node_modules/a", "team/venv/a", "team/.hidden", "team/.x/y/z"):
        write_skill(id)
    for id in ("node_modules2/a", "team/venv-tools", "team/x.venv"):
        write_skill(id)
    assert served(root) == ["node_modules2/a", "team/venv-tools", "team/x.venv"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["SKILL.md"], "SKILL.md"),
        (["skill.md"], "skill.md"),
        (["SKILL.md", "skill.md"], "SKILL.md"),
        (["Skill.md", "SKILL.MD", "SKILL.md.txt", "SKILL"], None),
    ],
)
def test_a_skill_md_has_one_of_two_names(root: Path, names: list[str], expected: str | None) -> None:
    """Upper case wins over lower case, and no other spelling counts."""
    (root / "pdf").mkdir()
    for name in names:
        (root / "pdf" / name).write_text(skill_md("pdf", f"From {name}."))
    assert outcomes(scanned(root)) == ({"pdf": f"From {expected}."} if expected else {})


def test_a_skill_without_a_name_has_its_directorys(root: Path, write_skill: WriteSkill) -> None:
    """The last part of its id."""
    write_skill("team/pdf", "---\ndescription: d\n---\n")
    skill = only(scanned(root)).skill
    assert skill is not None
    assert (skill.id, skill.name) == ("team/pdf", "pdf")


@pytest.mark.parametrize(
    "name", ["a b", "a\nb", "a\tb", "é", "e\u0301", "技能", "a\\b", "-", "a" * 255, "'", '"', "%2F", "\x01", "<a>"]
)
def test_a_directory_may_have_any_utf_8_name(root: Path, write_skill: WriteSkill, name: str) -> None:
    """The id is that name, byte for byte."""
    write_skill(name)
    assert served(root) == [name]


def test_a_name_that_is_not_utf_8_is_a_problem(root: Path, write_skill: WriteSkill, good: Callable[..., None]) -> None:
    """No JSON can carry it; the problem shows its bytes, and a skill of the name so shown is another."""
    write_skill(os.fsdecode(b"m-\xff"))
    write_skill(os.fsdecode(b"m-\xfe/inner"))
    write_skill("m-\\xff")
    entries = scanned(root)
    good(entries)
    assert outcomes(entries) == {
        "a-good": "Does things.",
        "m-\\xff": "Does things.",
        "m-\\xfe/inner/": "the directory's name is not UTF-8",
        "m-\\xff/": "the directory's name is not UTF-8",
        "z/good": "Does things.",
    }
    assert entries["m-\\xff/"].problems == (
        Problem(f"{root}/m-\\xff", "error", "the directory's name is not UTF-8", "m-\\xff"),
    )


# What may lie in the place of a skill, beside good ones.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_bad_skill_md_stops_no_other(
    root: Path, write_skill: WriteSkill, good: Callable[..., None], case: Case
) -> None:
    """Each fixture is served or one problem, which names the file; the skills around it are served."""
    directory = write_skill("m/fixture", case.content)
    if case.file_name != "SKILL.md":
        (directory / "SKILL.md").rename(directory / case.file_name)
    entries = scanned(root)
    good(entries)
    entry = entries["m/fixture"]
    name = case.name or "fixture"
    severity: Severity = "warning" if case.description is not None else "error"
    path = str(directory / case.file_name)
    assert entry.problems == tuple(
        Problem(path, severity, message, "m/fixture", name if entry.skill else None, field, line)
        for message, field, line in case.findings
    )
    served_as = (entry.skill.name, entry.skill.description) if entry.skill else None
    assert served_as == ((name, case.description) if case.description is not None else None)


def test_all_bad_skills_together_stop_no_other(root: Path, write_skill: WriteSkill, good: Callable[..., None]) -> None:
    """One root that holds them all: the served are served, the others listed."""
    for case in CASES:
        directory = write_skill(f"m/{case.id}/fixture", case.content)
        (directory / "SKILL.md").rename(directory / case.file_name)
    entries = scanned(root)
    good(entries)
    expected = {f"m/{case.id}/fixture": case.description or case.findings[0][0] for case in CASES}
    assert outcomes(entries) == {**expected, "a-good": "Does things.", "z/good": "Does things."}


NOT_A_FILE = "cannot be read: not a regular file"


def make_sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)


KINDS: list[tuple[str, Callable[[Path], object], str]] = [
    ("directory", lambda path: path.mkdir(), NOT_A_FILE),
    ("FIFO", lambda path: os.mkfifo(path), NOT_A_FILE),
    ("link to zero", lambda path: path.symlink_to("/dev/zero"), NOT_A_FILE),
    ("link to a directory", lambda path: path.symlink_to("/"), NOT_A_FILE),
    ("dangling link", lambda path: path.symlink_to("nowhere"), "cannot be read: No such file or directory"),
    ("link loop", lambda path: path.symlink_to("SKILL.md"), "cannot be read: Too many levels of symbolic links"),
    ("link through a file", lambda path: path.symlink_to("/etc/passwd/x"), "cannot be read: Not a directory"),
    (
        "link to a foreign file",
        lambda path: path.symlink_to("/etc/passwd"),
        "no frontmatter: the first line must be '---'",
    ),
    ("empty", lambda path: path.write_bytes(b""), "no frontmatter: the first line must be '---'"),
    (
        "too large",
        lambda path: path.write_bytes(b"x" * (LIMITS.skill_md_bytes + 1)),
        "larger than 1,048,576 bytes (limits.skill_md_bytes)",
    ),
    (
        "sparse",
        make_sparse,
        "larger than 1,048,576 bytes (limits.skill_md_bytes)",
    ),
    ("binary", lambda path: shutil.copy("/proc/self/exe", path), "larger than 1,048,576 bytes (limits.skill_md_bytes)"),
]


@pytest.mark.parametrize(("kind", "make", "message"), KINDS, ids=[kind for kind, _, _ in KINDS])
def test_an_odd_file_in_the_place_of_a_skill_md_is_a_problem(
    root: Path, good: Callable[..., None], kind: str, make: Callable[[Path], object], message: str
) -> None:
    """It is neither opened nor waited for, and the skills around it are served."""
    if kind == "binary" and os.path.getsize(os.path.realpath(sys.executable)) <= LIMITS.skill_md_bytes:
        message = "no frontmatter: the first line must be '---'"
    path = root / "m" / "SKILL.md"
    path.parent.mkdir()
    make(path)
    entries = scanned(root)
    good(entries)
    assert entries["m"].problems == (
        Problem(str(path), "error", message, "m", line=1 if message.startswith("no front") else None),
    )
    assert entries["m"].skill is None


def test_a_socket_in_the_place_of_a_skill_md_is_a_problem(root: Path, good: Callable[..., None]) -> None:
    """A living one too."""
    (root / "m").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "m" / "SKILL.md"))
        bound.listen()
        entries = scanned(root)
    good(entries)
    assert outcomes(entries)["m"] == NOT_A_FILE


@pytest.mark.parametrize(
    "target", ["/proc/kmsg", "/proc/self/mem", "/proc/self/maps", "/dev/stdin", "/dev/fd/0", "/dev/full", "/sys"]
)
def test_a_link_into_the_kernel_holds_nobody(root: Path, good: Callable[..., None], target: str) -> None:
    """Whatever it leads to on this machine is a problem, and is not waited for."""
    (root / "m").mkdir()
    (root / "m" / "SKILL.md").symlink_to(target)
    entries = scanned(root)
    good(entries)
    assert entries["m"].skill is None
    assert [problem.severity for problem in entries["m"].problems] == ["error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_in_the_place_of_a_skill_md_is_a_problem(root: Path, good: Callable[..., None]) -> None:
    """A device without an end is not read."""
    (root / "m").mkdir()
    try:
        os.mknod(root / "m" / "SKILL.md", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this container makes no device nodes")
    entries = scanned(root)
    good(entries)
    assert outcomes(entries)["m"] == NOT_A_FILE


def test_what_may_not_be_read_is_a_problem_while_that_lasts(open_root: Path, write_skill: WriteSkill) -> None:
    """A directory or a SKILL.md without permission; once it may be read, it is served, although no file changed."""
    closed_dir = write_skill("closed-dir/pdf", into=open_root).parent
    closed_file = write_skill("closed-file", into=open_root) / "SKILL.md"
    write_skill("good", into=open_root)
    closed_dir.chmod(0)
    closed_file.chmod(0)
    with as_nobody():
        before = scanned(open_root)
        again = scanned(open_root, known=before)
    assert outcomes(before) == {
        "closed-dir": "cannot be read: Permission denied",
        "closed-file": "cannot be read: Permission denied",
        "good": "Does things.",
    }
    assert before["closed-file"].problems[0].path == str(closed_file)
    assert before["closed-dir"].problems[0].path == str(closed_dir)
    assert all(again[id] is before[id] for id in ("closed-file", "good"))
    if os.geteuid() != 0:
        closed_dir.chmod(0o755)
        closed_file.chmod(0o644)
    assert outcomes(scanned(open_root, known=before)) == dict.fromkeys(
        ("closed-dir/pdf", "closed-file", "good"), "Does things."
    )


def test_a_file_that_may_not_be_read_costs_the_digest_alone(open_root: Path, write_skill: WriteSkill) -> None:
    """The skill is served, and stays the same entry for as long as nothing changes."""
    directory = write_skill("pdf", files={"secret": "x"}, into=open_root)
    (directory / "secret").chmod(0)
    with as_nobody():
        before = scanned(open_root)
        assert scanned(open_root, known=before)["pdf"] is before["pdf"]
    skill = before["pdf"].skill
    assert skill is not None
    assert skill.digest is None
    assert [problem.message for problem in skill.problems] == ["'secret' cannot be read"]


def test_an_unreadable_root_is_a_problem(open_root: Path) -> None:
    """Its id is empty: the problem is the root's."""
    path = open_root / "skills"
    path.mkdir(mode=0)
    with as_nobody():
        entries = scanned(path)
    assert only(entries).problems == (Problem(f"{path}/", "error", "cannot be read: Permission denied", ""),)


@pytest.mark.parametrize("seconds", [-(10**10), 0, 2**33, 10**11, 10**13])
def test_a_time_stamp_from_anywhere_stops_nothing(
    root: Path, write_skill: WriteSkill, good: Callable[..., None], seconds: int
) -> None:
    """A file of the year 300,000 is served, its time as near as can be written."""
    os.utime(write_skill("m") / "SKILL.md", (seconds, seconds))
    entries = scanned(root)
    good(entries)
    skill = entries["m"].skill
    assert skill is not None
    assert skill.to_json("")["modified"].endswith("Z")
    assert scanned(root, known=entries)["m"] is entries["m"]


def test_problems_of_files_are_the_skills(root: Path, write_skill: WriteSkill) -> None:
    """What keeps a skill from being attested is told with its directory; the skill is served."""
    directory = write_skill("pdf")
    os.mkfifo(directory / "pipe")
    entry = only(scanned(root))
    message = "cannot be attested: 'pipe' is neither a file nor a link, or cannot be read"
    assert entry.problems == (Problem(str(directory), "warning", message, "pdf", "pdf", "digest"),)
    assert entry.skill
    assert entry.skill.digest is None


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ScanLimits(1 << 20, 2, 1 << 20, 6, frozenset()), "more than 2 files (limits.skill_files)"),
        (ScanLimits(1 << 20, 9, 2_000, 6, frozenset()), "larger than limits.skill_bytes allows"),
    ],
)
def test_a_skill_over_a_limit_is_served_without_a_digest(
    root: Path, write_skill: WriteSkill, limits: ScanLimits, message: str
) -> None:
    """The problem names the limit."""
    directory = write_skill("pdf", files={"a": "x" * 1_500, "b": "x" * 1_500})
    entry = only(scanned(root, limits=limits))
    assert entry.problems == (Problem(str(directory), "warning", message, "pdf", "pdf", "digest"),)
    assert entry.skill
    assert entry.skill.digest is None
    assert only(scanned(root, known={"pdf": entry}, limits=limits)) is entry


# Links.


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere"
    path.mkdir()
    return path


def test_links_to_skills_are_followed_wherever_they_lead(root: Path, elsewhere: Path, write_skill: WriteSkill) -> None:
    """A skill, a directory of skills, or a SKILL.md behind a link is served under its place in the root."""
    shared = write_skill("pdf", into=elsewhere)
    write_skill("team/deep/excel", into=elsewhere)
    write_skill("word")
    (root / "pdf").symlink_to(shared)
    (root / "again").symlink_to("pdf")
    (root / "team").symlink_to(elsewhere / "team")
    (root / "file").mkdir()
    (root / "file" / "SKILL.md").symlink_to(shared / "SKILL.md")
    entries = scanned(root)
    assert {id: entry.is_linked for id, entry in entries.items()} == {
        "again": True,
        "file": True,
        "pdf": True,
        "team/deep/excel": True,
        "word": False,
    }
    paths = {id: entry.skill.path for id, entry in entries.items() if entry.skill}
    assert paths == {id: f"{root}/{id}" for id in entries}
    linked = entries["file"].skill
    assert linked is not None
    assert linked.digest is None
    assert linked.problems[-1].message == "cannot be attested: the link 'SKILL.md' leads out of the skill"
    assert read_body(linked, 1_000) == "Steps.\n"


def test_a_root_may_be_a_link(root: Path, tmp_path: Path, write_skill: WriteSkill) -> None:
    """Its skills keep the paths that the user knows, and are not linked themselves."""
    write_skill("pdf")
    (tmp_path / "link").symlink_to(root)
    entry = only(scanned(tmp_path / "link"))
    assert entry.skill
    assert (entry.skill.path, entry.skill.root, entry.is_linked) == (f"{tmp_path}/link/pdf", f"{tmp_path}/link", False)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("loop", "loop"),
        ("self", "."),
        ("up", ".."),
        ("team/up", ".."),
        ("team/self", "."),
        ("team/sub/up", "../.."),
        ("slash", "/"),
        ("absolute", "{root}"),
        ("parent", "{root}/.."),
        ("cwd", "/proc/self/root{root}"),
        ("dangling", "nowhere"),
        ("file", "team/pdf/SKILL.md"),
    ],
)
def test_a_link_that_leads_back_ends(root: Path, write_skill: WriteSkill, link: str, target: str) -> None:
    """The skills around it are served once, and nothing twice."""
    write_skill("a")
    write_skill("team/pdf")
    (root / "team" / "sub").mkdir()
    (root / link).symlink_to(target.format(root=root))
    assert outcomes(scanned(root)) == {"a": "Does things.", "team/pdf": "Does things."}


def test_links_to_each_other_end(root: Path, elsewhere: Path, write_skill: WriteSkill) -> None:
    """Two directories outside that link to each other and back are walked once each way."""
    write_skill("one/pdf", into=elsewhere)
    write_skill("two/excel", into=elsewhere)
    (elsewhere / "one" / "two").symlink_to("../two")
    (elsewhere / "two" / "one").symlink_to("../one")
    (elsewhere / "two" / "root").symlink_to(root)
    (root / "one").symlink_to(elsewhere / "one")
    assert served(root) == ["one/pdf", "one/two/excel"]


def test_links_among_directories_do_not_multiply(root: Path, good: Callable[..., None]) -> None:
    """Twelve directories, each with a link to all others, make half a million paths: problems say where it ended."""
    for one in range(12):
        (root / f"m{one:02}").mkdir()
        for other in range(12):
            if one != other:
                (root / f"m{one:02}" / f"l{other:02}").symlink_to(f"../m{other:02}")
    entries = scanned(root)
    good(entries)
    problems = [entry.problems[0] for entry in entries.values() if not entry.skill]
    assert {problem.message for problem in problems} == {
        f"not followed: more than {FOLLOW_LIMIT} paths lead through links to '{root}/m{number:02}'"
        for number in range(12)
    }


def test_a_directory_is_shared_as_often_as_it_is_linked(root: Path, elsewhere: Path, write_skill: WriteSkill) -> None:
    """Links that lie in the root itself are not limited."""
    shared = write_skill("pdf", into=elsewhere)
    for number in range(FOLLOW_LIMIT + 5):
        (root / f"{number:03}").symlink_to(shared)
    assert len(served(root)) == FOLLOW_LIMIT + 5


def test_links_inside_a_skill_are_not_followed(root: Path, elsewhere: Path, write_skill: WriteSkill) -> None:
    """Its resources are its own files."""
    write_skill("secret", into=elsewhere, files={"key": "x"})
    directory = write_skill("pdf", files={"a": ""})
    (directory / "out").symlink_to(elsewhere)
    skill = only(scanned(root)).skill
    assert skill is not None
    assert [resource.path for resource in skill.resources] == ["a"]


# A part of a root.


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        ("", ["a", "linked/pdf", "team/b", "team/sub/c"]),
        ("a", ["a"]),
        ("team", ["team/b", "team/sub/c"]),
        ("team/", ["team/b", "team/sub/c"]),
        ("/team", ["team/b", "team/sub/c"]),
        ("team/sub", ["team/sub/c"]),
        ("linked", ["linked/pdf"]),
        ("linked/pdf", ["linked/pdf"]),
        ("missing", []),
        ("missing/deeper", []),
        ("file", []),
        ("a/inner", []),
        ("a/inner/deeper", []),
        ("dangling-md/inner", []),
        (".hidden", []),
        (".hidden/x", []),
        ("team/node_modules/x", []),
        ("back", []),
        ("back/team", []),
        ("slash/etc", []),
        ("dangling", []),
        ("1/2/3/4/5/6", ["1/2/3/4/5/6"]),
        ("1/2/3/4/5/6/7", []),
    ],
)
def test_a_part_of_a_root_is_read_as_in_the_whole(
    root: Path, elsewhere: Path, write_skill: WriteSkill, below: str, expected: list[str]
) -> None:
    """The same skills with the same ids, and none that the whole has not."""
    for id in ("a", "team/b", "team/sub/c", ".hidden/x", "team/node_modules/x"):
        write_skill(id)
    write_skill("a/inner")
    write_skill("pdf", into=elsewhere)
    (root / "linked").symlink_to(elsewhere)
    (root / "back").symlink_to(".")
    (root / "slash").symlink_to("/")
    (root / "dangling").symlink_to("nowhere")
    (root / "file").write_text("")
    (root / "dangling-md" / "inner").mkdir(parents=True)
    (root / "dangling-md" / "SKILL.md").symlink_to("nowhere")
    write_skill("dangling-md/inner")
    if below.startswith("1/"):
        write_skill("1/2/3/4/5/6", files={"7/SKILL.md": skill_md("7")})
    assert served(root, below) == expected
    whole = scanned(root)
    assert {id: whole[id].skill for id in expected} == {
        id: entry.skill for id, entry in scanned(root, below).items() if entry.skill
    }


# What did not change, and what did.


def test_what_did_not_change_is_the_same_entry(root: Path, elsewhere: Path, write_skill: WriteSkill) -> None:
    """Served, broken or linked: the entry of the last scan comes back as it is, in whole and in part."""
    write_skill("good", files={"scripts/run.py": ""})
    write_skill("broken", "no frontmatter")
    (root / "linked").symlink_to(write_skill("linked", into=elsewhere))
    (root / "dangling").mkdir()
    (root / "dangling" / "SKILL.md").symlink_to("nowhere")
    (root / "odd").mkdir()
    (root / "odd" / "SKILL.md").mkdir()
    known = scanned(root)
    assert set(known) == {"broken", "dangling", "good", "linked", "odd"}
    for below in ("", *known):
        assert all(entry is known[id] for id, entry in scanned(root, below, known).items())


def replace_text(path: Path, description: str) -> None:
    path.write_text(skill_md("pdf", description))
    age(path)


def rename_in(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    age(path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def write_below(skill: Path) -> None:
    (skill / "sub").mkdir()
    (skill / "sub" / "new").write_text("")


def link_anew(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


CHANGES: list[tuple[str, Callable[[Path], object]]] = [
    ("text", lambda skill: replace_text(skill / "SKILL.md", "Does more.")),
    ("same size and time", lambda skill: replace_text(skill / "SKILL.md", "Did  things.")),
    ("same size and time, renamed in", lambda skill: rename_in(skill / "SKILL.md", skill_md("pdf", "Did  things."))),
    ("script", lambda skill: replace_text(skill / "run.py", "other")),
    ("script's mode", lambda skill: (skill / "run.py").chmod(0o755)),
    ("new file", lambda skill: (skill / "new").write_text("")),
    ("new file in a new directory", write_below),
    ("file removed", lambda skill: (skill / "run.py").unlink()),
    ("file renamed", lambda skill: (skill / "run.py").rename(skill / "walk.py")),
    ("link's target", lambda skill: link_anew(skill / "link", "SKILL.md")),
]


@pytest.mark.parametrize("change", [change for _, change in CHANGES], ids=[name for name, _ in CHANGES])
def test_a_change_of_any_file_is_noticed(root: Path, write_skill: WriteSkill, change: Callable[[Path], object]) -> None:
    """Sizes and time stamps that stayed the same hide nothing; the skill beside it keeps its entry."""
    directory = write_skill("pdf", files={"run.py": "print()"})
    (directory / "link").symlink_to("run.py")
    write_skill("other")
    known = scanned(root)
    change(directory)
    now = scanned(root, known=known)
    assert now["other"] is known["other"]
    assert now["pdf"].skill != known["pdf"].skill
    assert outcomes(now) == outcomes(scanned(root))


def test_a_touched_file_is_no_change_of_the_skill(root: Path, write_skill: WriteSkill) -> None:
    """A new time stamp alone makes a new entry with the skill of the old."""
    directory = write_skill("pdf", files={"run.py": ""})
    known = scanned(root)
    for name in ("SKILL.md", "run.py"):
        os.utime(directory / name, (1_600_000_000, 1_600_000_000))
    now = scanned(root, known=known)["pdf"]
    assert now is not known["pdf"]
    assert now.skill is known["pdf"].skill


def test_an_edit_behind_a_link_is_noticed(root: Path, elsewhere: Path, write_skill: WriteSkill) -> None:
    """The target of a SKILL.md counts, not the link alone."""
    target = write_skill("pdf", into=elsewhere) / "SKILL.md"
    (root / "pdf").mkdir()
    (root / "pdf" / "SKILL.md").symlink_to(target)
    known = scanned(root)
    replace_text(target, "Did  things.")
    known = scanned(root, known=known)
    assert outcomes(known) == {"pdf": "Did  things."}
    target.unlink()
    known = scanned(root, known=known)
    assert outcomes(known) == {"pdf": "cannot be read: No such file or directory"}
    replace_text(target, "Back.")
    assert outcomes(scanned(root, known=known)) == {"pdf": "Back."}


def test_a_directory_that_became_a_link_is_linked(root: Path, elsewhere: Path, write_skill: WriteSkill) -> None:
    """Moving a skill away and linking to it changes no file, but the events that reach its watcher."""
    directory = write_skill("pdf")
    known = scanned(root)
    directory.rename(elsewhere / "pdf")
    directory.symlink_to(elsewhere / "pdf")
    now = scanned(root, known=known)
    assert (now["pdf"].is_linked, now["pdf"].skill is known["pdf"].skill) == (True, True)
    directory.unlink()
    (elsewhere / "pdf").rename(directory)
    assert scanned(root, known=now)["pdf"].is_linked is False


def test_a_file_of_this_moment_is_looked_at_again(
    root: Path, write_skill: WriteSkill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its time stamp is old enough to tell the next write, every scan reads it, served or broken."""
    monkeypatch.setattr(files_module, "RACY_NS", 60 * 10**9)
    os.utime(write_skill("pdf") / "SKILL.md")
    os.utime(write_skill("half", "---\nname: half\n") / "SKILL.md")
    os.utime(write_skill("script", files={"run.py": ""}) / "run.py")
    known = scanned(root)
    assert {id: entry.is_racy for id, entry in known.items()} == {"half": True, "pdf": True, "script": True}
    stamp = os.stat(root / "half" / "SKILL.md")
    (root / "half" / "SKILL.md").write_text(skill_md("half"))
    os.utime(root / "half" / "SKILL.md", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    now = scanned(root, known=known)
    assert outcomes(now)["half"] == "Does things."
    monkeypatch.setattr(files_module, "RACY_NS", 0)
    settled = scanned(root, known=now)
    assert {id: entry.is_racy for id, entry in settled.items()} == {"half": False, "pdf": False, "script": False}
    assert all(entry is settled[id] for id, entry in scanned(root, known=settled).items())


def test_a_skill_that_goes_and_comes_back_is_found(root: Path, write_skill: WriteSkill) -> None:
    """What was known of it does not stand in the way."""
    directory = write_skill("pdf")
    known = scanned(root)
    (directory / "SKILL.md").rename(directory / "SKILL.md~")
    gone = scanned(root, known=known)
    (directory / "SKILL.md~").rename(directory / "SKILL.md")
    assert (gone, outcomes(scanned(root, known=gone))) == ({}, {"pdf": "Does things."})


# Its body.


def test_a_body_is_of_the_skill_md_that_was_indexed(root: Path, write_skill: WriteSkill) -> None:
    """Another content, another kind of file or none at all is no body: the caller asks for the skill again."""
    path = write_skill("pdf") / "SKILL.md"
    skill = only(scanned(root)).skill
    assert skill is not None
    assert read_body(skill, 1_000) == "Steps.\n"
    assert read_body(skill, 10) is None
    replace_text(path, "Changed.")
    assert read_body(skill, 1_000) is None
    path.unlink()
    assert read_body(skill, 1_000) is None
    os.mkfifo(path)
    assert read_body(skill, 1_000) is None


# Real skills.


def corpus_dirs() -> Iterator[str]:
    yield from filter(None, os.environ.get("SKILLD_CORPUS", "").split(":"))


@pytest.mark.skipif(
    not all(map(os.path.isdir, corpus_dirs())) or not list(corpus_dirs()), reason="reference data not present"
)
def test_almost_everything_real_loads() -> None:
    """At least 98.5 % of the skills that people published are served, and every other has a problem with a place."""
    entries = [entry for root in corpus_dirs() for entry in scan(root, "", {}, LIMITS)]
    refused = [entry for entry in entries if entry.skill is None]
    assert entries
    assert len(refused) / len(entries) <= 0.015
    assert all(problem.severity == "error" and problem.message for entry in refused for problem in entry.problems)
