"""Records for the journal: its protocol byte by byte, and a journal that is slow, or gone."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skilld.cli.journal import JournalHandler, has_journal, serialise
from skilld.cli.logs import FORMATTERS, SKILLS_LIMIT, fields_of, set_up_logging


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    """What takes the journal's place."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "journal"))
        ear.settimeout(10)
        yield ear


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[JournalHandler]:
    made = JournalHandler(fields_of, fallback=FORMATTERS["journal"](), path=str(tmp_path / "journal"))
    yield made
    made.close()


def record(text: str, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "skilld.x", "msg": text, "levelno": level, **fields})


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("MESSAGE", "hello"), ("PRIORITY", "6")], b"MESSAGE=hello\nPRIORITY=6\n"),
        ([("SKILL", "a"), ("SKILL", "b")], b"SKILL=a\nSKILL=b\n"),
        ([("MESSAGE", "a\nPRIORITY=0")], b"MESSAGE\n" + struct.pack("<Q", 12) + b"a\nPRIORITY=0\n"),
        ([("MESSAGE", "gr\u00f6\u00dfer")], "MESSAGE=gr\u00f6\u00dfer\n".encode()),
        ([("SKILL", "\udcff")], b"SKILL=\\udcff\n"),
        ([("MESSAGE", "")], b"MESSAGE=\n"),
    ],
)
def test_fields_travel_as_the_protocol_says(pairs: list[tuple[str, str]], expected: bytes) -> None:
    """A value with a line break has its length before it, so that no id can make a field up."""
    assert serialise(pairs) == expected


def test_a_record_brings_its_fields(journal: socket.socket, handler: JournalHandler) -> None:
    """Priority, skills, revision and peer are fields of their own."""
    peer = {"peer_uid": 1_000, "peer_gid": 100, "peer_pid": 7, "method": "skills.delete"}
    handler.emit(record("refused", logging.WARNING, **peer))
    handler.emit(record("changed", skill=("pdf", "csv"), revision="run:1", password="x"))
    assert journal.recv(4_096).decode() == (
        "MESSAGE=refused\nPRIORITY=4\nSYSLOG_IDENTIFIER=skilld\nLOGGER=skilld.x\n"
        "METHOD=skills.delete\nPEER_UID=1000\nPEER_GID=100\nPEER_PID=7\n"
    )
    assert journal.recv(4_096).decode() == (
        "MESSAGE=changed\nPRIORITY=6\nSYSLOG_IDENTIFIER=skilld\nLOGGER=skilld.x\nSKILL=pdf\nSKILL=csv\nREVISION=run:1\n"
    )


def test_json_has_the_same_fields() -> None:
    """Numbers stay numbers, skills are an array, and nothing but fields is taken over."""
    line = json.loads(
        FORMATTERS["json"]().format(record("x", skill=("pdf",), revision="run:1", peer_uid=7, password="x"))
    )
    assert {key: line[key] for key in line if key not in ("time", "level", "logger", "message")} == {
        "skill": ["pdf"],
        "revision": "run:1",
        "peer_uid": 7,
    }


def test_the_largest_record_fits(journal: socket.socket, handler: JournalHandler) -> None:
    """A long message is cut, of many skills the first ones are named."""
    handler.emit(record("\u00e9" * 100_000, skill=tuple(f"{number:05}/{'x' * 1_000}" for number in range(20_000))))
    text = journal.recv(1 << 20).decode()
    assert text.count("SKILL=") == SKILLS_LIMIT
    assert text.startswith("MESSAGE=" + "\u00e9" * (16 * 1024) + "\nPRIORITY=6\n")


def test_a_traceback_is_part_of_the_message(journal: socket.socket, handler: JournalHandler) -> None:
    """What failed is in one record."""
    try:
        raise ValueError("why")
    except ValueError:
        handler.emit(record("failed", logging.ERROR, exc_info=sys.exc_info()))
    text = journal.recv(8_192)
    assert text.startswith(b"MESSAGE\n")
    assert b"ValueError: why" in text


def test_without_the_journal_lines_have_priorities(handler: JournalHandler, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be sent goes to standard error."""
    handler.emit(record("two\nlines", logging.ERROR))
    assert capsys.readouterr().err == "<3>two\n<3>lines\n"


def test_a_journal_that_was_restarted_is_found(tmp_path: Path, handler: JournalHandler) -> None:
    """The socket of the next one is taken."""
    path = tmp_path / "journal"
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            ear.bind(str(path))
            handler.emit(record("hello"))
            assert ear.recv(4_096, socket.MSG_DONTWAIT).startswith(b"MESSAGE=hello\n")
        path.unlink()


def test_a_journal_that_does_not_read_holds_nobody(journal: socket.socket, handler: JournalHandler) -> None:
    """Its queue full, records are lost, and the daemon goes on."""
    for _ in range(5_000):
        handler.emit(record("hello"))
    assert journal.recv(4_096).startswith(b"MESSAGE=hello\n")


def test_the_journals_socket_is_told_from_a_file(tmp_path: Path, journal: socket.socket) -> None:
    """Only a socket is one."""
    (tmp_path / "file").touch()
    assert [has_journal(str(tmp_path / name)) for name in ("journal", "file", "nothing")] == [True, False, False]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [("own", "journal"), ("another", "text"), ("", "text")],
)
def test_the_format_follows_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str, expected: str
) -> None:
    """Where systemd says that standard error leads to the journal, records go there; else they are text."""
    with (tmp_path / "err").open("w+") as err, monkeypatch.context() as patch:
        state = os.fstat(err.fileno())
        named = {"own": f"{state.st_dev}:{state.st_ino}", "another": f"{state.st_dev}:{state.st_ino + 1}", "": ""}
        patch.setenv("JOURNAL_STREAM", named[stream])
        patch.setattr(sys, "stderr", err)
        patch.setattr("skilld.cli.logs.has_journal", lambda: False)
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        root.handlers[:] = []
        try:
            set_up_logging("auto", "warning")
            logging.getLogger("skilld.x").warning("hello")
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        err.seek(0)
        line = err.read()
    assert line == "<4>hello\n" if expected == "journal" else line.endswith(" WARNING hello\n")
