"""
Where the daemon's socket is, and how to connect to it.

Owns: nothing; a socket belongs to who asked for it.

Source: the interface of skilld, section 1; dstack-sdk, ``get_endpoint``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from skilld.client.errors import NoDaemon

ENDPOINT_VARIABLE = "SKILLD_ENDPOINT"
WELL_KNOWN = (
    "/var/run/skilld.sock",
    "/run/skilld.sock",
    "/var/run/skilld/skilld.sock",
    "/run/skilld/skilld.sock",
)

# Seconds between two attempts while the daemon's queue of new connections is full.
RETRY_INTERVAL_S = 0.01


def endpoints(explicit: str | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """
    Return the paths to try, in order.

    An explicit endpoint, or else ``SKILLD_ENDPOINT``, is the only one; an empty one counts as not given.
    """
    given = explicit or environ.get(ENDPOINT_VARIABLE)
    if given:
        return (given,)
    # Without the variable the daemon assumes what systemd would set it to.
    runtime_dir = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return (*WELL_KNOWN, f"{runtime_dir}/skilld/skilld.sock")


def connect(paths: tuple[str, ...]) -> tuple[socket.socket, str]:
    """
    Connect to the first path where a daemon listens, without waiting.

    Returns:
        A non-blocking socket, and its path.

    Raises:
        NoDaemon: Nobody listens on any of them.
        BlockingIOError: One does, but its queue of new connections is full; try again.

    Source: unix(7): a non-blocking connect to a full queue fails with EAGAIN and is not under way.
    """
    tried: dict[str, str] = {}
    for path in paths:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(path)
            return connection, path
        except BlockingIOError:
            connection.close()
            raise
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
            connection.close()
            tried[path] = getattr(exc, "strerror", None) or str(exc)
    raise NoDaemon(tried)


def default_paths(explicit: str | None) -> tuple[str, ...]:
    """The paths to try in this process's environment."""
    return endpoints(explicit, os.environ)
