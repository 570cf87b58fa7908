"""The kernel's word about the process on the other side."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from skilld.config import Access
from skilld.rpc.access import build_policy
from skilld.rpc.peer import read_peer

POLICY = build_policy(Access(), daemon_uid=os.geteuid(), socket_gid=880)

# Takes another user and many groups, connects, and waits to be let go.
CLIENT = """
import os, socket, sys
os.setgroups([880, *range(5_000, 5_000 + int(sys.argv[2]))])
os.setgid(70_001)
os.setuid(70_000)
sock = socket.socket(socket.AF_UNIX)
sock.connect(chr(0) + sys.argv[1])
sys.stdin.read()
"""


def test_own_process() -> None:
    """A socket pair has this process on both sides."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = read_peer(ours.fileno(), POLICY)
    assert (peer.uid, peer.gid, peer.pid) == (os.geteuid(), os.getegid(), os.getpid())
    assert set(peer.groups) == set(os.getgroups())
    assert peer.roles == {"read", "write", "run", "tee"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("more_groups", [0, 63, 64, 300, 5_000])
def test_other_user_with_many_groups(more_groups: int) -> None:
    """All supplementary groups count, however many there are."""
    with socket.socket(socket.AF_UNIX) as listener:
        # An abstract name: no file, and so no permissions in the way.
        listener.bind("")
        listener.listen()
        name = listener.getsockname()[1:].decode()
        client = subprocess.Popen([sys.executable, "-c", CLIENT, name, str(more_groups)], stdin=subprocess.PIPE)
        with client, listener.accept()[0] as sock:
            peer = read_peer(sock.fileno(), POLICY)
            assert client.stdin is not None
            client.stdin.close()
    assert (peer.uid, peer.gid, peer.pid) == (70_000, 70_001, client.pid)
    assert sorted(peer.groups) == [880, *range(5_000, 5_000 + more_groups)]
    assert peer.roles == {"read", "write", "run", "tee"}


def test_no_unix_socket_is_an_error() -> None:
    """A descriptor that is no socket has no peer."""
    with open(os.devnull, "rb") as file, pytest.raises(OSError, match="socket"):
        read_peer(file.fileno(), POLICY)
