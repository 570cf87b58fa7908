"""
Who is on the other side of a Unix socket, by the kernel's word.

Owns: nothing; the edge around ``SO_PEERCRED`` and ``SO_PEERGROUPS``.

Source: unix(7); socket(7); ``SO_PEERGROUPS`` since Linux 4.13.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

from skilld.rpc.access import AccessPolicy, Peer, roles_of

# asm-generic/socket.h; the socket module has no name for it.
SO_PEERGROUPS = 59

# struct ucred: pid, uid, gid.
_UCRED = struct.Struct("=iII")

# A first guess; the kernel says how many there are if they are more.
_GROUPS_GUESS = 64

_libc = ctypes.CDLL(None, use_errno=True)


def read_peer(descriptor: int, policy: AccessPolicy) -> Peer:
    """
    Return the peer of a connected Unix socket, as it was when it connected, with its roles.

    Args:
        descriptor: The socket's file descriptor; stays open.
        policy: Which users and groups have which role.

    Raises:
        OSError: The descriptor is no connected Unix socket.
    """
    pid, uid, gid = _UCRED.unpack(_read_option(descriptor, socket.SO_PEERCRED, _UCRED.size))
    raw = _read_option(descriptor, SO_PEERGROUPS, 4 * _GROUPS_GUESS)
    groups = struct.unpack(f"={len(raw) // 4}I", raw)
    return Peer(uid, gid, pid, groups, roles_of(uid, gid, groups, policy=policy))


def _read_option(descriptor: int, option: int, size: int) -> bytes:
    # socket.getsockopt reads 1,024 bytes at most, which is 256 groups; a process may have 65,536.
    for _ in range(2):
        buffer = ctypes.create_string_buffer(size)
        length = ctypes.c_uint(size)
        if _libc.getsockopt(descriptor, socket.SOL_SOCKET, option, buffer, ctypes.byref(length)) == 0:
            return buffer.raw[: length.value]
        failure = ctypes.get_errno()
        if failure != errno.ERANGE:
            break
        size = length.value
    raise OSError(failure, os.strerror(failure))
