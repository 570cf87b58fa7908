"""
What systemd and skilld tell each other: inherited sockets, and notifications of state.

Owns: nothing. The one module that knows ``LISTEN_FDS`` and ``NOTIFY_SOCKET``.

Source: sd_listen_fds(3), sd_notify(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

FIRST_FD = 3
SOCKET_NAME = "rpc"
NOTIFY_TIMEOUT_S = 1.0


def take_socket(environ: MutableMapping[str, str], pid: int) -> socket.socket | None:
    """
    Return the listening socket that systemd passed to this process, or None.

    That is the one named "rpc", else the first. The variables are taken out of the environment, so that no child
    believes they are meant for it.

    Raises:
        ValueError: What was passed is no listening Unix stream socket at a path.
    """
    listen_pid, count, names = (environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if listen_pid != str(pid) or not count.isdecimal() or int(count) < 1:
        return None
    listed = names.split(":")[: int(count)]
    index = listed.index(SOCKET_NAME) if SOCKET_NAME in listed else 0
    descriptor = FIRST_FD + index
    try:
        os.set_inheritable(descriptor, False)
        passed = socket.socket(fileno=descriptor)
        is_listening = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise ValueError(f"descriptor {descriptor} from LISTEN_FDS is no socket: {exc.strerror}") from exc
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM or not is_listening:
        passed.close()
        raise ValueError(f"descriptor {descriptor} from LISTEN_FDS is no listening Unix stream socket")
    # The group of the file decides who may do what. An abstract address has none, and reads as bytes.
    if not isinstance(passed.getsockname(), str) or not passed.getsockname():
        passed.close()
        raise ValueError(f"descriptor {descriptor} from LISTEN_FDS is bound to no path")
    return passed


def notify(environ: MutableMapping[str, str], state: str) -> bool:
    """
    Tell systemd a state such as "READY=1"; several are joined by newlines.

    Returns:
        Whether there was somebody to tell.
    """
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
        # A supervisor that does not read must not hold the daemon.
        peer.settimeout(NOTIFY_TIMEOUT_S)
        try:
            # "@" stands for the zero byte of an abstract address.
            peer.connect("\0" + address[1:] if address.startswith("@") else address)
            peer.sendall(state.encode())
        except OSError:
            return False
    return True


def watchdog_interval_s(environ: MutableMapping[str, str], pid: int) -> float | None:
    """Return half the time within which systemd wants a sign of life, in seconds; None where it wants none."""
    usec = environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or int(usec) == 0 or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(usec) / 2e6
