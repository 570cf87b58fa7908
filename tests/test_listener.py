"""The daemon's own socket file: bound, taken over when dead, left alone when alive."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skilld import listener as listener_module
from skilld.listener import Listener, SocketInUse

PACKAGE_DIR = Path(listener_module.__file__).parents[1]

# Waits for a line, tries to listen, tells how that went and holds on until its input ends.
CHILD = """
import sys
from skilld.listener import Listener, SocketInUse
sys.stdin.readline()
try:
    listener = Listener(sys.argv[1])
except SocketInUse as exc:
    print(exc, flush=True)
else:
    print("listening", flush=True)
    sys.stdin.readline()
    listener.close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "skilld.sock"


@contextlib.contextmanager
def listening(path: Path) -> Iterator[Listener]:
    listener = Listener(str(path))
    try:
        yield listener
    finally:
        listener.close()


@contextlib.contextmanager
def child(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that tries to listen once it gets a line."""
    command = [sys.executable, "-c", CHILD, str(path)]
    with subprocess.Popen(command, cwd=PACKAGE_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        try:
            yield made
        finally:
            made.kill()


def send_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def left_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_a_client_can_connect(path: Path) -> None:
    """The directory is made, the socket accepts, and nothing but its lock lies beside it."""
    with listening(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        accepted, _ = listener.socket.accept()
        accepted.close()
        assert left_in(path.parent) == ["skilld.sock", "skilld.sock.lock"]
        assert listener.socket.getblocking() is False
        assert os.get_inheritable(listener.socket.fileno()) is False
    assert left_in(path.parent) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_mode_does_not_depend_on_the_umask(path: Path, umask: int) -> None:
    """0660 whatever the umask, and the umask is as before."""
    path.parent.mkdir()
    before = os.umask(umask)
    try:
        with listening(path):
            mode = stat.S_IMODE(path.stat().st_mode)
    finally:
        after = os.umask(before)
    assert (oct(mode), after) == ("0o660", umask)


def test_the_socket_belongs_to_the_group_of_the_daemon(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its group is the configured one, if the daemon may give it away."""
    group = grp.getgrgid(os.getgroups()[-1] if os.getgroups() else os.getgid())
    monkeypatch.setattr(listener_module, "SOCKET_GROUP", group.gr_name)
    with listening(path):
        assert path.stat().st_gid == group.gr_gid


def test_without_the_group_the_socket_is_the_daemons_own(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing group is a warning."""
    monkeypatch.setattr(listener_module, "SOCKET_GROUP", "no-such-group")
    with listening(path):
        assert path.stat().st_gid == os.getegid()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no-such-group" in caplog.text


def test_a_dead_socket_is_taken_over(path: Path) -> None:
    """What a killed daemon left is replaced."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    (path.parent / "skilld.sock.lock").write_text("")
    with listening(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        accepted, _ = listener.socket.accept()
        with accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"


def test_a_killed_daemon_is_followed_by_the_next(path: Path) -> None:
    """Neither its socket nor its lock stands in the way."""
    with child(path) as first:
        send_line(first)
        assert read_line(first) == "listening"
        first.kill()
        first.wait()
    assert left_in(path.parent) == ["skilld.sock", "skilld.sock.lock"]
    with listening(path):
        pass
    assert left_in(path.parent) == []


def test_a_living_daemon_is_left_unharmed(path: Path) -> None:
    """A second start is refused, and clients still reach the first."""
    with listening(path) as first:
        inode = path.stat().st_ino
        with child(path) as second:
            send_line(second)
            assert read_line(second) == f"another skilld is running on {path}"
            second.communicate()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            first.socket.accept()[0].close()
        assert path.stat().st_ino == inode
        assert left_in(path.parent) == ["skilld.sock", "skilld.sock.lock"]


def test_another_program_on_the_socket_is_left_unharmed(path: Path) -> None:
    """A living socket without our lock is somebody's too, even when its backlog is full."""
    path.parent.mkdir()
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(str(path))
        other.listen(0)
        with pytest.raises(SocketInUse, match=f"another daemon answers on {path}"):
            Listener(str(path))
        while True:  # fill the backlog
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(listener_module, "PROBE_TIMEOUT_S", 0.05)
            with pytest.raises(SocketInUse, match=f"{path} is in use"):
                Listener(str(path))
        assert left_in(path.parent) == ["skilld.sock"]


def test_of_many_starts_at_once_one_wins(path: Path) -> None:
    """However close together they start, one listens, and the others say that it does."""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(child(path)) for _ in range(5)]
        for one in children:
            send_line(one)
        outcomes = sorted(read_line(one) for one in children)
        assert outcomes == [f"another skilld is running on {path}"] * 4 + ["listening"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_nobody_can_connect_before_mode_and_group_are_right(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then the socket lies under another name, closed to everybody else."""
    path.parent.mkdir()
    seen: list[tuple[bool, str]] = []
    chmod = os.chmod

    def chmod_seen(name: str, mode: int) -> None:
        seen.append((path.exists(), oct(stat.S_IMODE(os.stat(name).st_mode))))
        chmod(name, mode)

    monkeypatch.setattr("skilld.listener.os.chmod", chmod_seen)
    umask = os.umask(0)
    try:
        with listening(path):
            pass
    finally:
        os.umask(umask)
    assert seen == [(False, "0o600")]


@pytest.mark.parametrize("kind", ["file", "directory", "link to a socket", "dangling link", "FIFO", "loop"])
def test_a_path_that_is_no_socket_is_refused(path: Path, kind: str) -> None:
    """Whatever else is there stays there."""
    path.parent.mkdir()
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "FIFO":
            os.mkfifo(path)
        case "link to a socket":
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path.parent / "other.sock"))
            path.symlink_to("other.sock")
        case "dangling link":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)
    before = (left_in(path.parent), os.lstat(path))
    with pytest.raises(SocketInUse) as caught:
        Listener(str(path))
    assert str(caught.value) == f"{path} exists and is no socket"
    assert (left_in(path.parent), os.lstat(path)) == before


def test_a_datagram_socket_is_not_taken_for_a_dead_one(path: Path) -> None:
    """A socket of another type belongs to another program."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(SocketInUse, match="EPROTOTYPE"):
            Listener(str(path))


def test_a_path_too_long_for_a_socket_is_an_error(tmp_path: Path) -> None:
    """The kernel takes 107 bytes; nothing stays behind."""
    path = tmp_path / ("x" * 120)
    with pytest.raises(OSError, match="too long"):
        Listener(str(path))
    assert left_in(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """A file in the way of the socket's directory is reported as the system says it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Listener(str(tmp_path / "file" / "skilld.sock"))


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_a_lock_that_is_no_file_is_an_error(path: Path, tmp_path: Path, kind: str) -> None:
    """A link in the place of the lock is not followed: it could lead to any file."""
    lock = path.parent / "skilld.sock.lock"
    path.parent.mkdir()
    if kind == "link":
        lock.symlink_to(tmp_path / "victim")
    else:
        lock.mkdir()
    with pytest.raises(OSError):
        Listener(str(path))
    assert (left_in(path.parent), left_in(tmp_path)) == ([lock.name], ["run"])


@pytest.mark.parametrize("kind", ["file", "socket", "nothing"])
def test_at_the_end_only_the_own_socket_is_removed(path: Path, kind: str) -> None:
    """What somebody put in the socket's place stays."""
    with listening(path) as listener:
        path.unlink()
        if kind == "file":
            path.write_text("precious")
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
        listener.close()
        assert left_in(path.parent) == ([] if kind == "nothing" else ["skilld.sock"])


def test_closing_twice_harms_nobody(path: Path) -> None:
    """The second close leaves the next daemon its socket, its lock and this process its descriptors."""
    first = Listener(str(path))
    first.close()
    with listening(path):
        first.close()
        assert left_in(path.parent) == ["skilld.sock", "skilld.sock.lock"]
        with pytest.raises(SocketInUse):
            Listener(str(path))


def test_a_relative_path_is_fixed_at_the_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of directory does not keep the daemon from removing its socket."""
    path.parent.mkdir()
    monkeypatch.chdir(path.parent)
    listener = Listener("skilld.sock")
    monkeypatch.chdir("/")
    listener.close()
    assert (listener.path, left_in(path.parent)) == (str(path), [])
