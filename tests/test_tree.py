"""Trees by descriptor: nothing follows a link, nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skilld.skills import tree


@contextlib.contextmanager
def at(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of everything that a directory can hold."""
    path = tmp_path / "source"
    (path / "sub/deep").mkdir(parents=True)
    (path / "file").write_text("file")
    (path / "sub/run").write_text("run")
    (path / "sub/run").chmod(0o754)
    (path / "sub/deep/x").write_text("x")
    (path / "sub").chmod(0o750)
    (path / "link").symlink_to("sub/run")
    (path / "outside").symlink_to(tmp_path)
    os.mkfifo(path / "fifo")
    (path / os.fsdecode(b"\xff\xfe")).write_text("no UTF-8")
    return path


def listed(path: Path) -> dict[bytes, tuple[int, int]]:
    """Inode and mode of everything but directories; of those the mode."""
    with at(path) as descriptor:
        return {
            name: (0 if stat.S_ISDIR(state.st_mode) else state.st_ino, state.st_mode)
            for name, state in tree.list_below(descriptor).items()
        }


def test_a_listing_has_everything_and_follows_nothing(source: Path) -> None:
    """Directories, links, special files, names that are not UTF-8."""
    assert sorted(listed(source)) == [
        b"fifo", b"file", b"link", b"outside", b"sub", b"sub/deep", b"sub/deep/x", b"sub/run", b"\xff\xfe",
    ]  # fmt: skip


def test_a_linked_tree_shares_every_file(source: Path, tmp_path: Path) -> None:
    """Its directories have the modes of the old ones; what is left out is left out."""
    target = tmp_path / "target"
    target.mkdir()
    source.chmod(0o711)
    with at(source) as old, at(target) as new:
        assert tree.link_tree(old, new, [b"sub/run"]) == set()
        tree.sync_tree(new)
    expected = listed(source)
    del expected[b"sub/run"]
    assert listed(target) == expected
    assert stat.S_IMODE(target.stat().st_mode) == 0o711


def test_what_cannot_be_linked_is_copied(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With mode and times; what can be neither fails."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EMLINK, "too many links")

    monkeypatch.setattr(os, "link", refuse)
    os.utime(source / "sub/run", ns=(1, 2))
    target = tmp_path / "target"
    target.mkdir()
    with at(source) as old, at(target) as new:
        with pytest.raises(OSError, match="neither a file nor a link"):
            tree.link_tree(old, new, [])
        tree.remove_below(new)
        copied = tree.link_tree(old, new, [b"fifo"])
    assert copied == {b"file", b"link", b"outside", b"sub/deep/x", b"sub/run", b"\xff\xfe"}
    assert (target / "sub/run").read_text() == "run"
    assert (target / "sub/run").stat().st_mode == (source / "sub/run").stat().st_mode
    assert (target / "sub/run").stat().st_mtime_ns == 2
    assert os.readlink(target / "link") == "sub/run"


def test_nothing_is_opened_through_a_link(source: Path) -> None:
    """Not as a directory on the way, and not as the file."""
    with at(source) as descriptor:
        for path in (b"outside/source/file", b"link/x"):
            with pytest.raises(NotADirectoryError), tree.opened_parent(path, descriptor, make=True):
                pass
        assert tree.read_file(descriptor, b"link", 100) is None
        with pytest.raises(FileExistsError):
            tree.write_file(descriptor, b"outside", b"", executable=False)


def test_a_file_is_written_with_the_right_mode(tmp_path: Path) -> None:
    """That of the umask, or of the file that it replaces; execute bits only where one may read."""
    umask = os.umask(0o027)
    try:
        with at(tmp_path) as descriptor:
            tree.write_file(descriptor, b"plain", b"x", executable=False)
            tree.write_file(descriptor, b"script", b"x", executable=True)
            (tmp_path / "old").write_text("old")
            (tmp_path / "old").chmod(0o604)
            with contextlib.suppress(OSError):  # not every file system has attributes
                os.setxattr(tmp_path / "old", "user.note", b"kept")
            with at(tmp_path / "old") as old:
                tree.write_file(descriptor, b"new", b"x", executable=True, like_fd=old)
                assert os.listxattr(tmp_path / "new") == os.listxattr(old)
    finally:
        os.umask(umask)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "script", "new")}
    assert modes == {"plain": 0o640, "script": 0o750, "new": 0o705}


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    """Far deeper than descriptors or a path could reach; what links lead to stays."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/x").write_text("x")
    (tmp_path / "victim").mkdir()
    with at(tmp_path) as descriptor:
        current = os.open(tmp_path / "victim", os.O_RDONLY)
        for _ in range(1_200):
            os.symlink(tmp_path / "kept", "link", dir_fd=current)
            os.mkdir("d" * 200, dir_fd=current)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=current)
            os.close(current)
            current = below
        os.close(current)
        with pytest.raises(OSError, match="nested deeper than 64"):
            tree.list_below(descriptor)
        tree.remove_tree(descriptor, b"victim", descriptor)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["kept", "kept/x"]


def test_directories_that_cannot_be_moved_are_emptied_where_they_are(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a lower layer of overlayfs."""

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(errno.EXDEV, "cross-device link")

    monkeypatch.setattr(os, "rename", refuse)
    with at(source) as descriptor:
        tree.remove_below(descriptor)
    assert list(source.iterdir()) == []


def test_empty_directories_above_a_path_go(tmp_path: Path) -> None:
    """Up to the first that holds something; the top stays."""
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "x/y").mkdir(parents=True)
    with at(tmp_path) as descriptor:
        (tmp_path / "a/keep").write_text("")
        tree.remove_empty_above(descriptor, b"a/b/c/file")
        tree.remove_empty_above(descriptor, b"x/y/file")
        tree.remove_empty_above(descriptor, b"file")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/keep"]
