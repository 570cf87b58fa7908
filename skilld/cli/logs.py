"""
How the daemon logs: as text, as JSON, or to systemd's journal.

A record may carry fields (``extra=``) beside its message: the skills, the revision, the peer that it is about. JSON and
the journal keep them apart; in a text the message says what is needed. No field holds what a caller sent or got.

Owns: the root logger's one handler.

Source: sd-daemon(3) for the priorities in front of a line; systemd.exec(5) for ``JOURNAL_STREAM``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from skilld.cli.journal import PRIORITIES, JournalHandler, has_journal

# The attributes of a record that are fields.
FIELDS = ("skill", "revision", "method", "duration_ms", "peer_uid", "peer_gid", "peer_pid")
# A change of thousands of skills names the first ones.
SKILLS_LIMIT = 100


def set_up_logging(format: str, level: str) -> None:
    """Log from a level on: to the journal itself where that is to be had, else to standard error."""
    if format == "auto":
        format = "journal" if _is_journal_stream(os.environ) else "text"
    handler: logging.Handler
    if format == "journal" and has_journal():
        handler = JournalHandler(fields_of, fallback=JournalFormatter())
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(FORMATTERS[format]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record, by name; those it has."""
    found = {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
    if "skill" in found:
        found["skill"] = found["skill"][:SKILLS_LIMIT]
    return found


def _is_journal_stream(environ: Mapping[str, str]) -> bool:
    """Whether standard error leads to the journal: systemd names its device and inode, lest a child be misled."""
    try:
        state = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{state.st_dev}:{state.st_ino}"


class TextFormatter(logging.Formatter):
    """Time, level and message on one line, for people."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S")


class JournalFormatter(logging.Formatter):
    """What the journal, or syslog, reads from standard error where it cannot be had: a priority, then the message."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        members = {
            "time": TextFormatter().formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members)


FORMATTERS: dict[str, Callable[[], logging.Formatter]] = {
    "text": TextFormatter,
    "json": JsonFormatter,
    "journal": JournalFormatter,
}
