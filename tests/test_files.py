"""The files of a skill: listed, hashed, told apart, and never waited for."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from skilld.skills import files as files_module
from skilld.skills.files import (
    TARGET,
    FileState,
    FileTooLarge,
    digest_of,
    hash_files,
    identity_of,
    is_young,
    list_files,
    read_regular,
    real_path,
    resources_of,
    show,
)
from skilld.skills.model import Finding, Resource
from tests.conftest import WriteSkill, age, as_nobody

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="only root makes device nodes")


@pytest.fixture
def long_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment of a minute, so that a slow machine changes no verdict."""
    monkeypatch.setattr(files_module, "RACY_NS", 60 * 10**9)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def listed(directory: Path, limit_count: int = 1_000) -> tuple[list[FileState], list[str]]:
    findings: list[Finding] = []
    with os.scandir(os.fsencode(directory)) as listing:
        children = sorted(listing, key=lambda child: child.name)
    files = list(list_files(children, limit_count, findings))
    return files, [finding.message for finding in findings]


def hashed(
    directory: Path, known: tuple[FileState, ...] = (), limit_bytes: int = 1 << 20
) -> tuple[tuple[FileState, ...], bool, list[str]]:
    findings: list[Finding] = []
    files, is_racy = hash_files(os.fsencode(directory), listed(directory)[0], known, limit_bytes, findings)
    return files, is_racy, [finding.message for finding in findings]


def digest_and_reasons(directory: Path, limit_bytes: int = 1 << 20) -> tuple[str | None, list[str]]:
    findings: list[Finding] = []
    files, _, _ = hashed(directory, limit_bytes=limit_bytes)
    return digest_of(os.fsencode(directory), files, findings), [finding.message for finding in findings]


def test_every_file_is_listed_with_its_mark(write_skill: WriteSkill) -> None:
    """Hidden ones, links and pipes too; links are not followed, and directories are no files."""
    directory = write_skill("pdf", files={"a/b/c": "x", ".hidden/x": "", "run": "", "a.x": ""})
    (directory / "run").chmod(0o610)
    (directory / "link").symlink_to("a")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "empty").mkdir()
    os.mkfifo(directory / "pipe")
    files, messages = listed(directory)
    assert {(file.path, file.mark) for file in files} == {
        (b"SKILL.md", " "),
        (b"a/b/c", " "),
        (b"a.x", " "),
        (b".hidden/x", " "),
        (b"run", "*"),
        (b"link", "@"),
        (b"dangling", "@"),
        (b"pipe", "?"),
    }
    assert messages == []
    assert listed(directory) == (files, messages)


@pytest.mark.parametrize(("limit", "kind"), [(3, "files"), (4, None)])
def test_a_limit_bounds_the_files(write_skill: WriteSkill, limit: int, kind: str | None) -> None:
    """One file beyond is one finding, and the rest is not looked at."""
    directory = write_skill("pdf", files={"a": "", "b/c": "", "b/d/e": ""})
    files, messages = listed(directory, limit)
    assert messages == ([f"more than {limit} files (limits.skill_files)"] if kind else [])
    assert len(files) == 4
    assert (files[-1].path == b"\0") is bool(kind)


def test_a_limit_bounds_the_directories(write_skill: WriteSkill) -> None:
    """A tree of empty directories has no files and would be walked for ever."""
    directory = write_skill("pdf")
    for number in range(6):
        (directory / f"{number}").mkdir()
    assert listed(directory, 5)[1] == ["more than 5 directories (limits.skill_files)"]
    assert listed(directory, 6)[1] == []


def test_a_directory_deeper_than_paths_can_be_long_is_a_finding(write_skill: WriteSkill) -> None:
    """The kernel's limit on paths ends the walk there, and nowhere else."""
    directory = write_skill("pdf", files={"after": ""})
    descriptor = os.open(directory, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=descriptor)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    files, messages = listed(directory)
    assert {file.path for file in files if file.mark != "?"} == {b"SKILL.md", b"after"}
    assert len(messages) == 1
    assert messages[0].endswith("cannot be read: File name too long")


def test_an_unreadable_directory_is_a_finding(open_root: Path, write_skill: WriteSkill) -> None:
    """The files beside it are listed."""
    directory = write_skill("pdf", files={"closed/x": "", "open/x": ""}, into=open_root)
    (directory / "closed").chmod(0)
    with as_nobody():
        files, messages = listed(directory)
    assert {file.path: file.mark for file in files} == {b"SKILL.md": " ", b"closed": "?", b"open/x": " "}
    assert messages == ["'closed' cannot be read: Permission denied"]


def test_files_are_hashed(write_skill: WriteSkill) -> None:
    """A file by its bytes, a link by its target's text, a pipe not at all."""
    directory = write_skill("pdf", files={"a": b"\0\xff", "empty": ""})
    (directory / "link").symlink_to("a/b\udcff")
    os.mkfifo(directory / "pipe")
    files, is_racy, messages = hashed(directory)
    assert {file.path: file.sha256 for file in files} == {
        b"SKILL.md": sha256((directory / "SKILL.md").read_bytes()),
        b"a": sha256(b"\0\xff"),
        b"empty": sha256(b""),
        b"link": sha256(b"a/b\xff"),
        b"pipe": None,
    }
    assert (is_racy, messages) == (False, [])


def test_a_known_file_is_not_read_again(write_skill: WriteSkill) -> None:
    """Its identity vouches for its hash; another identity does not."""
    directory = write_skill("pdf", files={"a": "a", "b": "b"})
    known = tuple(replace(file, sha256="known") for file in listed(directory)[0])
    (directory / "b").write_text("new")
    age(directory / "b")
    files, _, _ = hashed(directory, known)
    assert {file.path: file.sha256 for file in files} == {b"SKILL.md": "known", b"a": "known", b"b": sha256(b"new")}


def test_a_file_of_this_moment_is_read_again_next_time(write_skill: WriteSkill, long_moment: None) -> None:
    """A second write within one tick of the clock would not change its time stamp."""
    directory = write_skill("pdf")
    os.utime(directory / "SKILL.md")
    (file,), is_racy, _ = hashed(directory)
    assert (file.sha256 is not None, file.identity, is_racy) == (True, b"", True)


@pytest.mark.parametrize("grows", [True, False], ids=["grown", "shrunk"])
def test_a_file_that_changed_since_it_was_listed_is_racy(write_skill: WriteSkill, grows: bool) -> None:
    """No more is read than was listed, so that a file that grows for ever holds nobody."""
    directory = write_skill("pdf", files={"log": "x" * 100})
    listing = listed(directory)[0]
    (directory / "log").write_text("x" * (1_000 if grows else 10))
    age(directory / "log")
    files, is_racy = hash_files(os.fsencode(directory), listing, (), 1 << 20, [])
    assert is_racy
    assert {file.path for file in files if not file.identity} == {b"log"}
    assert {file.sha256 for file in files if file.path == b"log"} == {sha256(b"x" * (101 if grows else 10))}


@pytest.mark.parametrize("kind", ["link", "FIFO", "directory", "nothing"])
def test_a_file_that_became_something_else_is_not_read(write_skill: WriteSkill, tmp_path: Path, kind: str) -> None:
    """Not through a link, not from a pipe; the next look tells what it is."""
    directory = write_skill("pdf", files={"a": "a"})
    listing = listed(directory)[0]
    path = directory / "a"
    path.unlink()
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to("/etc/passwd"),
        "FIFO": lambda: os.mkfifo(path),
        "directory": path.mkdir,
        "nothing": lambda: None,
    }
    make[kind]()
    findings: list[Finding] = []
    files, _ = hash_files(os.fsencode(directory), listing, (), 1 << 20, findings)
    assert {file.path: (file.sha256, file.identity) for file in files}[b"a"] == (None, b"")
    assert [finding.message for finding in findings] == ["'a' cannot be read"]


def test_what_cannot_be_read_is_tried_again(open_root: Path, write_skill: WriteSkill) -> None:
    """The reason may pass, such as too many open files, without a change of the file."""
    directory = write_skill("pdf", files={"secret": "x"}, into=open_root)
    (directory / "secret").chmod(0)
    with as_nobody():
        files, _, messages = hashed(directory)
        assert messages == ["'secret' cannot be read"]
        assert {file.path: file.identity for file in files}[b"secret"] == b""
    again, _, messages = hashed(directory, files)
    if is_root:
        assert ({file.path: file.sha256 for file in again}[b"secret"], messages) == (sha256(b"x"), [])


@pytest.mark.parametrize(
    ("limit_bytes", "unhashed"), [(30, set()), (29, {b"c"}), (10, {b"b", b"c"}), (9, {b"a", b"b", b"c"})]
)
def test_a_limit_bounds_the_bytes(root: Path, limit_bytes: int, unhashed: set[bytes]) -> None:
    """What goes beyond is not read, and says so; a skill without its hashes has no digest."""
    for name in "abc":
        (root / name).write_text("x" * 10)
        age(root / name)
    files, _, messages = hashed(root, limit_bytes=limit_bytes)
    assert {file.path for file in files if file.sha256 is None} == unhashed
    assert messages == (["larger than limits.skill_bytes allows"] if unhashed else [])
    assert (digest_and_reasons(root, limit_bytes)[0] is None) is bool(unhashed)


def test_a_hash_that_is_there_already_counts_against_the_limit(root: Path) -> None:
    """The SKILL.md comes with its hash; a skill over the limit has no digest all the same."""
    (root / "SKILL.md").write_text("x" * 10)
    age(root / "SKILL.md")
    files = [replace(file, sha256="there") for file in listed(root)[0]]
    directory = os.fsencode(root)
    assert [file.sha256 for file in hash_files(directory, files, (), 10, [])[0]] == ["there"]
    assert [file.sha256 for file in hash_files(directory, files, (), 9, [])[0]] == [None]


def test_a_sparse_giant_is_not_read(root: Path) -> None:
    """A terabyte of nothing is over the limit by its size alone."""
    with open(root / "giant", "wb") as file:
        file.truncate(1 << 40)
    age(root / "giant")
    files, is_racy, messages = hashed(root)
    assert [(file.path, file.size, file.sha256) for file in files] == [(b"giant", 1 << 40, None)]
    assert (is_racy, messages) == (False, ["larger than limits.skill_bytes allows"])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda skill: None, None),
        (lambda skill: (skill / "l").symlink_to("SKILL.md"), None),
        (lambda skill: (skill / "l").symlink_to("."), None),
        (lambda skill: (skill / "l").symlink_to(skill), None),
        (lambda skill: (skill / "l").symlink_to("nowhere"), None),
        (lambda skill: (skill / "l").symlink_to("l"), None),
        (lambda skill: (skill / "l").symlink_to("../pdf/SKILL.md"), None),
        (lambda skill: (skill / "l").symlink_to(".."), "the link 'l' leads out of the skill"),
        (lambda skill: (skill / "l").symlink_to("../nowhere"), "the link 'l' leads out of the skill"),
        (lambda skill: (skill / "l").symlink_to("/etc/passwd"), "the link 'l' leads out of the skill"),
        (lambda skill: (skill / "l").symlink_to("../pdf-2/x"), "the link 'l' leads out of the skill"),
        (lambda skill: (skill / "l").symlink_to("/proc/self/cwd"), "the link 'l' leads out of the skill"),
        (lambda skill: (skill / "a\nb").write_text(""), "the path 'a\\nb' holds a newline"),
        (lambda skill: os.mkfifo(skill / "p"), "'p' is neither a file nor a link, or cannot be read"),
    ],
)
def test_what_cannot_be_attested_says_why(
    write_skill: WriteSkill, make: Callable[[Path], object], reason: str | None
) -> None:
    """A link may go anywhere inside; a way out, a newline and what is no file take the digest away."""
    directory = write_skill("pdf")
    make(directory)
    digest, reasons = digest_and_reasons(directory)
    assert (digest is None, reasons) == (bool(reason), [f"cannot be attested: {reason}"] if reason else [])


def test_all_reasons_are_counted(write_skill: WriteSkill) -> None:
    """One is named, and how many more there are."""
    directory = write_skill("pdf")
    for name in "abc":
        os.mkfifo(directory / name)
    message = "cannot be attested: 'a' is neither a file nor a link, or cannot be read (and 2 more)"
    assert digest_and_reasons(directory) == (None, [message])


def resources(directory: Path) -> list[Resource]:
    files, _, _ = hashed(directory)
    return list(resources_of(os.fsencode(directory), files, b"SKILL.md"))


def test_resources_are_what_a_caller_can_read(write_skill: WriteSkill) -> None:
    """Sorted by path bytes: files, and links to files of the skill with what these hold."""
    directory = write_skill(
        "pdf", files={"scripts/run.py": "run", "B": "", "a/x": "x", "SKILL.md.bak": "", "new\nline": ""}
    )
    (directory / "scripts/run.py").chmod(0o755)
    links = {
        "to-script": "scripts/run.py",
        "to-link": "to-script",
        "to-skill-md": "SKILL.md",
        "to-directory": "a",
        "out": "/etc/passwd",
        "dangling": "nowhere",
        "loop": "loop",
        "here": ".",
    }
    for name, target in links.items():
        (directory / name).symlink_to(target)
    os.mkfifo(directory / "pipe")
    (directory / os.fsdecode(b"not-\xff-utf-8")).write_text("")
    skill_md = (directory / "SKILL.md").read_bytes()
    assert resources(directory) == [
        Resource("B", 0, sha256(b""), False),
        Resource("SKILL.md.bak", 0, sha256(b""), False),
        Resource("a/x", 1, sha256(b"x"), False),
        Resource("new\nline", 0, sha256(b""), False),
        Resource("scripts/run.py", 3, sha256(b"run"), True),
        Resource("to-link", 3, sha256(b"run"), True),
        Resource("to-script", 3, sha256(b"run"), True),
        Resource("to-skill-md", len(skill_md), sha256(skill_md), False),
    ]


def test_a_skill_of_one_file_has_no_resources(write_skill: WriteSkill) -> None:
    """The SKILL.md is no resource of itself."""
    assert resources(write_skill("pdf")) == []


def test_a_regular_file_is_read_whole(tmp_path: Path, long_moment: None) -> None:
    """Through a link too; one that was not just written is not racy."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    age(path)
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        content, state, is_racy = read_regular(os.fsencode(tmp_path / name), 3_000_000)
        assert (content, state.st_size, is_racy) == (b"x" * 3_000_000, 3_000_000, False)
    os.utime(path)
    assert read_regular(os.fsencode(path), 3_000_000)[2] is True


@pytest.mark.parametrize("size", [11, 1 << 40])
def test_a_file_over_the_limit_is_not_read(tmp_path: Path, size: int) -> None:
    """Its size is enough to refuse it."""
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.truncate(size)
    with pytest.raises(FileTooLarge):
        read_regular(os.fsencode(path), 10)


def test_a_file_that_hides_its_size_is_read_to_its_end(tmp_path: Path) -> None:
    """Files of /proc have size 0; they are bounded by the limit like others, and never taken for settled."""
    content, _, is_racy = read_regular(b"/proc/self/mounts", 1 << 20)
    assert (content, is_racy) == (Path("/proc/self/mounts").read_bytes(), True)
    with pytest.raises(FileTooLarge):
        read_regular(b"/proc/self/mounts", 10)


def test_a_file_that_never_ends_is_given_up(tmp_path: Path) -> None:
    """What a file grows beyond the limit while it is read is too large."""
    with pytest.raises(FileTooLarge):
        read_regular(b"/proc/self/smaps", 100)


@pytest.mark.parametrize(
    "kind", ["FIFO", "socket", "directory", "/dev/zero", "/dev/stdin", "link to FIFO", "loop", "dangling"]
)
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    """Neither a pipe without a writer nor a device without an end holds anybody."""
    path = tmp_path / "odd"
    with socket.socket(socket.AF_UNIX) as bound:
        match kind:
            case "FIFO":
                os.mkfifo(path)
            case "socket":
                bound.bind(str(path))
            case "directory":
                path.mkdir()
            case "link to FIFO":
                os.mkfifo(tmp_path / "pipe")
                path.symlink_to("pipe")
            case "loop":
                path.symlink_to("odd")
            case "dangling":
                path.symlink_to("nowhere")
            case _:
                path.symlink_to(kind)
        if kind == "/dev/stdin" and stat.S_ISREG(os.stat(0).st_mode):
            pytest.skip("standard input is a file here")
        with pytest.raises(OSError):
            read_regular(os.fsencode(path), 1 << 20)


@needs_root
@pytest.mark.parametrize("device", [os.makedev(1, 5), os.makedev(1, 8)], ids=["zero", "random"])
def test_a_device_node_is_not_opened(tmp_path: Path, device: int) -> None:
    """A device that lies in the skill itself is no file either."""
    try:
        os.mknod(tmp_path / "device", stat.S_IFCHR | 0o666, device)
    except PermissionError:
        pytest.skip("this container makes no device nodes")
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(os.fsencode(tmp_path / "device"), 1 << 20)
    files, _, _ = hashed(tmp_path)
    assert [(file.mark, file.sha256) for file in files] == [("?", None)]


@pytest.mark.parametrize("seconds", [0, -1, -(10**10), 2**33, 10**11, 10**13])
def test_any_time_stamp_has_an_identity(tmp_path: Path, seconds: int) -> None:
    """File systems hold times before 1970 and after 2262, and a file from there stops nothing."""
    path = tmp_path / "file"
    path.write_text("")
    os.utime(path, (seconds, seconds))
    state = os.stat(path)
    assert len(identity_of(state)) == 48
    assert is_young(state) is False
    assert listed(tmp_path)[0][0].identity == identity_of(state)


def test_only_the_last_moments_are_young(tmp_path: Path, long_moment: None) -> None:
    """A time stamp in the future is as good as one in the past."""
    path = tmp_path / "file"
    path.write_text("")
    now = time.time_ns()
    verdicts = []
    for offset in (-(10**11), 10**11):
        os.utime(path, ns=(now + offset, now + offset))
        verdicts.append(is_young(os.stat(path)))
    os.utime(path)
    assert [*verdicts, is_young(os.stat(path))] == [False, False, True]


@pytest.mark.parametrize(
    ("path", "text"),
    [(b"a b", "'a b'"), (b"a\nb", "'a\\nb'"), (b"\xff", "'\\\\xff'"), ("é".encode(), "'é'"), (b"'", '"\'"')],
)
def test_a_path_is_shown_on_one_line(path: bytes, text: str) -> None:
    """Whatever its bytes."""
    assert show(path) == text


def test_no_file_has_the_path_of_the_target() -> None:
    """The state of a linked SKILL.md stands beside the listing under a path that no file can have."""
    assert TARGET == b""


def test_a_link_that_goes_while_it_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is followed once more; one that never holds still leads nowhere else."""
    target, link = os.fsencode(tmp_path / "target"), os.fsencode(tmp_path / "link")
    os.symlink(target, link)
    real, failures = os.readlink, 1

    def readlink(path: bytes, **options: int) -> bytes:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise FileNotFoundError(path)
        return real(path, **options)

    monkeypatch.setattr(os, "readlink", readlink)
    assert real_path(link) == os.path.realpath(target)
    failures = 1_000
    assert real_path(link) == link
