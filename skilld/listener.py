"""
The daemon's own socket file: bound once, taken over when dead, never taken from a living daemon.

Owns: the lock beside the socket, and the file itself until :meth:`Listener.close`.

Source: API, sections 1 and 4; unix(7). A lock file decides between two daemons that start together, which a look at
the socket alone cannot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import logging
import os
import socket
import stat

log = logging.getLogger(__name__)

SOCKET_MODE = 0o660
SOCKET_GROUP = "skilld"
BACKLOG = 1_024
# What fits into sun_path beside its final zero byte.
ADDRESS_LIMIT_BYTES = 107
# How long a look at a socket that is there already waits for it to accept.
PROBE_TIMEOUT_S = 1.0


class SocketInUse(Exception):
    """Another daemon answers on the socket, or the path is something else; the text names it."""


class Listener:
    """
    A bound, listening Unix stream socket at a path.

    Raises:
        SocketInUse: The path is not ours to take.
        OSError: It cannot be bound.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        directory = os.path.dirname(self.path)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        self._lock: int | None = self._take_lock()
        try:
            self._check_path()
            self.socket = self._bind()
        except BaseException:
            self._drop_lock()
            raise
        state = os.stat(self.path)
        self._identity = (state.st_dev, state.st_ino)

    def close(self) -> None:
        """Close the socket and remove its file, if it is still the one that was bound. A second call does nothing."""
        if self._lock is None:
            return
        self.socket.close()
        with contextlib.suppress(OSError):
            state = os.stat(self.path, follow_symlinks=False)
            if (state.st_dev, state.st_ino) == self._identity:
                os.unlink(self.path)
        self._drop_lock()

    def _drop_lock(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path + ".lock")
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> int:
        path = self.path + ".lock"
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A daemon that just ended may have removed the file between our open and our lock.
                if os.fstat(lock).st_nlink and os.path.samestat(os.fstat(lock), os.stat(path)):
                    return lock
            except BlockingIOError:
                os.close(lock)
                raise SocketInUse(f"another skilld is running on {self.path}") from None
            except FileNotFoundError:
                pass
            os.close(lock)

    def _check_path(self) -> None:
        """Refuse a path at which anything but a dead socket is."""
        try:
            state = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(state.st_mode):
            raise SocketInUse(f"{self.path} exists and is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(PROBE_TIMEOUT_S)
            try:
                probe.connect(self.path)
            except ConnectionRefusedError:
                return  # dead: what is bound takes its place
            except OSError as exc:
                # A full backlog (EAGAIN) or a slow peer is a living one.
                raise SocketInUse(f"{self.path} is in use ({errno.errorcode.get(exc.errno or 0, exc)})") from exc
        raise SocketInUse(f"another daemon answers on {self.path}")

    def _bind(self) -> socket.socket:
        """Make the socket under another name, so that it appears at its path ready: listening, with mode and group."""
        if len(os.fsencode(self.path)) > ADDRESS_LIMIT_BYTES:
            raise OSError(errno.ENAMETOOLONG, "AF_UNIX path too long", self.path)
        # Shorter than most names, so that it fits where the socket's own does.
        staged = os.path.join(os.path.dirname(self.path), f".{os.getpid():x}")
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)
        try:
            umask = os.umask(0o177)
            try:
                bound.bind(staged)
            finally:
                os.umask(umask)
            try:
                os.chown(staged, -1, grp.getgrnam(SOCKET_GROUP).gr_gid)
            except (KeyError, PermissionError):
                log.warning("no group %s to give the socket to: it belongs to the daemon's own group", SOCKET_GROUP)
            os.chmod(staged, SOCKET_MODE)
            bound.listen(BACKLOG)
            os.rename(staged, self.path)
        except BaseException:
            bound.close()
            with contextlib.suppress(OSError):
                os.unlink(staged)
            raise
        return bound
