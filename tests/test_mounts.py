"""Whether inotify can be relied upon: the mount table, and how many directories there are to watch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skilld.skills.mounts import (
    REMOTE_FILE_SYSTEMS,
    count_directories,
    file_system_of,
    parse_mountinfo,
    reason_to_poll,
)
from tests.conftest import as_nobody

# proc_pid_mountinfo(5); optional fields before the hyphen come in any number.
TABLE = r"""
22 1 252:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
40 22 0:35 / /home rw shared:20 master:3 propagate_from:2 - nfs4 server:/home rw
41 40 252:1 / /home/local rw - xfs /dev/vdb rw
42 22 0:36 / /mnt/with\040blank rw - cifs //server/share rw
43 22 0:37 / /mnt/tab\011nl\012back\134slash rw - 9p host rw
44 22 0:38 / /over rw - tmpfs tmpfs rw
45 44 0:39 / /over rw - fuse.sshfs user@host: rw
46 22 0:40 /deep/dir /bind rw - btrfs /dev/vdc rw,subvol=/ - odd
47 22 0:41 / /mnt/größe rw - virtiofs tag rw
""".strip().splitlines()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/srv/skills", "ext4"),
        ("/home", "nfs4"),
        ("/home/ada/.skills", "nfs4"),
        ("/homes/ada", "ext4"),
        ("/home/local", "xfs"),
        ("/home/local/skills", "xfs"),
        ("/home/locals", "nfs4"),
        ("/mnt/with blank/x", "cifs"),
        ("/mnt/tab\tnl\nback\\slash", "9p"),
        ("/over/skills", "fuse.sshfs"),
        ("/bind/x", "btrfs"),
        ("/mnt/größe", "virtiofs"),
    ],
)
def test_a_path_is_on_the_deepest_and_last_mount(path: str, kind: str) -> None:
    """Escapes are undone, a later mount hides an earlier one, and a common start of names is no mount."""
    assert file_system_of(path, parse_mountinfo(TABLE)) == kind


def test_a_table_without_the_path_knows_nothing() -> None:
    """No mount, no file system."""
    assert file_system_of("/x", []) == ""


@pytest.mark.parametrize(
    ("kind", "polls"),
    [
        *((kind, True) for kind in REMOTE_FILE_SYSTEMS),
        ("fuse.sshfs", True),
        *((kind, False) for kind in ("ext4", "tmpfs", "overlay", "fuseblk", "btrfs")),
    ],
)
def test_file_systems_of_others_are_polled(tmp_path: Path, kind: str, polls: bool) -> None:
    """Edits made on another machine make no event on this one."""
    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /skills rw - {kind} x rw\n")
    reason = reason_to_poll(["/elsewhere", "/skills/team"], str(table))
    assert reason == (f"/skills/team is on {kind}, which does not report the edits of others" if polls else None)


def test_a_machine_without_a_mount_table_is_trusted(tmp_path: Path) -> None:
    """No /proc, no reason."""
    assert reason_to_poll(["/"], str(tmp_path / "missing")) is None


def test_the_table_of_this_machine_can_be_read(tmp_path: Path) -> None:
    """Every line of it, and each directory has a file system."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        table = parse_mountinfo(file)
    assert file_system_of(os.path.realpath(tmp_path), table)


@pytest.mark.parametrize(
    ("directories", "links", "count"),
    [
        ([], {}, 1),
        (["a", "b/c"], {}, 4),
        ([".git/objects"], {}, 3),
        (["a/b"], {"link": "a"}, 5),
        (["a"], {"loop": "."}, 4),
        (["a"], {"00-self": "00-self"}, 2),
        (["a"], {"dangling": "nowhere"}, 2),
        (["a"], {"a/up": ".."}, 4),
    ],
)
def test_directories_are_counted_as_they_are_watched(
    tmp_path: Path, directories: list[str], links: dict[str, str], count: int
) -> None:
    """Links to directories are followed, a loop is entered once, and a link to itself hides nothing beside it."""
    root = tmp_path / "root"
    root.mkdir()
    for directory in directories:
        (root / directory).mkdir(parents=True)
    for link, target in links.items():
        (root / link).symlink_to(target)
    (root / "file").write_text("")
    assert count_directories([str(root)], 1_000) == count


def test_counting_ends_beyond_the_limit(tmp_path: Path) -> None:
    """A link to everything is not walked to its end."""
    (tmp_path / "all").symlink_to("/")
    assert count_directories([str(tmp_path)], 50) == 51
    assert count_directories([str(tmp_path / "missing")], 50) == 1


def test_what_may_not_be_read_is_passed_over(open_root: Path) -> None:
    """It counts for one, and the rest is counted."""
    (open_root / "closed" / "inner").mkdir(parents=True)
    (open_root / "open" / "inner").mkdir(parents=True)
    (open_root / "closed").chmod(0)
    with as_nobody():
        count = count_directories([str(open_root)], 100)
    (open_root / "closed").chmod(0o755)
    assert count == 4
