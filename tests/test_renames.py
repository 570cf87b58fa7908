"""Renames that replace nothing, and swaps."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from skilld.skills import renames
from skilld.skills.renames import Unsupported, exchange, move
from tests.isolation import run_with_mounts


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """An open directory with a file, an empty directory and a full one."""
    (tmp_path / "file").write_text("file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("x")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def no_flags(monkeypatch: pytest.MonkeyPatch, failure: int) -> None:
    """Make the kernel one that does not know the flags."""

    def refuse(*args: object) -> None:
        raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(renames, "_renameat2", refuse)


@pytest.mark.parametrize("unknown", [None, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("target", ["file", "empty", "full", "dangling"])
def test_a_move_replaces_nothing(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, unknown: int | None
) -> None:
    """Not a file, a directory or a dangling link, whether or not the file system knows how; what is free is taken."""
    if unknown is not None:
        no_flags(monkeypatch, unknown)
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FileExistsError):
        move(directory, b"full", directory, target.encode())
    assert sorted(os.listdir(tmp_path)) == before
    move(directory, b"full", directory, b"free")
    assert (tmp_path / "free/x").read_text() == "x"


def test_an_exchange_swaps_two_names(directory: int, tmp_path: Path) -> None:
    """Two of the same kind or of different kinds."""
    exchange(directory, b"file", directory, b"full")
    assert (tmp_path / "full").read_text() == "file"
    assert (tmp_path / "file/x").read_text() == "x"
    with pytest.raises(FileNotFoundError):
        exchange(directory, b"file", directory, b"nothing")


@pytest.mark.parametrize("failure", [errno.EINVAL, errno.ENOSYS, errno.EXDEV])
def test_a_file_system_that_cannot_swap_says_so(directory: int, monkeypatch: pytest.MonkeyPatch, failure: int) -> None:
    """Whoever calls can then do the next best; other failures are what they are."""
    no_flags(monkeypatch, failure)
    with pytest.raises(Unsupported) as caught:
        exchange(directory, b"file", directory, b"full")
    assert caught.value.errno == failure
    no_flags(monkeypatch, errno.EACCES)
    with pytest.raises(PermissionError):
        exchange(directory, b"file", directory, b"full")
    with pytest.raises(PermissionError):
        move(directory, b"file", directory, b"free")


def test_an_old_c_library_counts_as_an_old_kernel(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without renameat2 a move still works and a swap is unsupported."""
    monkeypatch.setattr(renames, "_libc", object())
    move(directory, b"file", directory, b"free")
    assert (tmp_path / "free").read_text() == "file"
    with pytest.raises(Unsupported):
        exchange(directory, b"free", directory, b"full")


def test_a_lower_layer_of_an_overlay_cannot_be_moved(tmp_path: Path) -> None:
    """A directory that comes with a container's image is an example."""
    printed = run_with_mounts(
        """
        mount -t tmpfs none "$D"
        mkdir -p "$D/lower/pdf" "$D/upper" "$D/work" "$D/merged"
        mount -t overlay none -o "lowerdir=$D/lower,upperdir=$D/upper,workdir=$D/work" "$D/merged"
        mkdir "$D/merged/new"
        """,
        """
        import os, sys
        from skilld.skills import renames
        directory = os.open(sys.argv[1] + "/merged", os.O_RDONLY)
        for call, target in ((renames.exchange, b"new"), (renames.move, b"free")):
            try:
                call(directory, b"pdf", directory, target)
            except renames.Unsupported as exc:
                print("unsupported")
        """,
        tmp_path,
    )
    assert printed == "unsupported\n" * 2
