"""
Records for systemd's journal, each with its fields, in the journal's own protocol.

Owns: the socket that the records leave by.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL; systemd.journal-fields(7); syslog(3) for the priorities.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

SOCKET_PATH = "/run/systemd/journal/socket"
IDENTIFIER = "skilld"
# A record is one datagram, and with the most skills that it may name it must fit into the socket's buffer (208 KiB).
MESSAGE_LIMIT_BYTES = 32 * 1024

# Level by level, what syslog calls it.
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def has_journal(path: str = SOCKET_PATH) -> bool:
    """Whether the journal's socket is there."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


class JournalHandler(logging.Handler):
    """
    Sends every record to the journal.

    A journal that is gone is replaced by lines on standard error; one that does not read loses the record, for it must
    not hold the daemon.

    Args:
        fields_of: The fields of a record; a tuple is a field for each of its items.
        fallback: Formats a record for standard error.
        path: The journal's socket.
    """

    def __init__(
        self,
        fields_of: Callable[[logging.LogRecord], Mapping[str, Any]],
        *,
        fallback: logging.Formatter,
        path: str = SOCKET_PATH,
    ) -> None:
        super().__init__()
        # The root logger would give it one that puts level and name before the message.
        self.setFormatter(logging.Formatter())
        self._fields_of = fields_of
        self._fallback = fallback
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # The journal is asked for by name each time: it may have been restarted.
            self._socket.sendto(serialise(self._pairs(record)), self._path)
        except BlockingIOError:
            pass
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                print(self._fallback.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _pairs(self, record: logging.LogRecord) -> Iterable[tuple[str, str]]:
        message = self.format(record).encode("utf-8", "backslashreplace")
        yield "MESSAGE", message[:MESSAGE_LIMIT_BYTES].decode("utf-8", "ignore")
        yield "PRIORITY", str(PRIORITIES.get(record.levelno, 5))
        yield "SYSLOG_IDENTIFIER", IDENTIFIER
        yield "LOGGER", record.name
        for name, value in self._fields_of(record).items():
            for item in value if isinstance(value, tuple) else (value,):
                yield name.upper(), str(item)


def serialise(pairs: Iterable[tuple[str, str]]) -> bytes:
    """
    Put fields into one datagram of the journal's protocol.

    Args:
        pairs: Names in capitals, and values; a name may come again.
    """
    parts = []
    for name, value in pairs:
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            # A length, little-endian in 64 bits, keeps what looks like another field from being one.
            parts.append(b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(data)), data))
        else:
            parts.append(b"%b=%b\n" % (name.encode(), data))
    return b"".join(parts)
