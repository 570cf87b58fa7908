"""A real daemon process on temporary directories, and plain ways to talk to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

START_S = 20.0


class Lines:
    """One connection of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        self.stream = self.socket.makefile("rb")
        self.notifications: list[dict[str, Any]] = []
        self.number = 0

    def send(self, text: bytes) -> None:
        self.socket.sendall(text)

    def receive(self) -> Any:
        """The next line, parsed."""
        return json.loads(self.stream.readline())

    def request(self, method: str, params: Any) -> dict[str, Any]:
        """The whole reply to one request; notifications that come before it are kept."""
        self.number += 1
        self.send(
            json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}).encode() + b"\n"
        )
        while True:
            reply: dict[str, Any] = self.receive()
            if reply.get("id") == self.number:
                return reply
            self.notifications.append(reply)

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


class UnixHTTP(http.client.HTTPConnection):
    """http.client over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))


class Daemon:
    """``skilld serve`` as a process of its own."""

    def __init__(self, roots: list[Path], directory: Path, **settings: Any) -> None:
        self.socket_path = directory / "s"
        self.roots = roots
        self.log_path = directory / "log"
        self.command = [
            sys.executable, "-m", "skilld", "serve", "--socket", self.socket_path,
            *(part for root in roots for part in ("--skills-dir", root)),
            *(part for key, value in settings.items() for part in (f"--{key.replace('_', '-')}", str(value))),
        ]  # fmt: skip
        self.env = {"SKILLD_CACHE_DIR": str(directory / "cache")}
        self.start()

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **self.env}
            )
        end = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.socket_path))
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(self.log_path.read_text())
            time.sleep(0.005)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)

    def lines(self) -> Lines:
        return Lines(self.socket_path)

    def call(self, method: str, **params: Any) -> Any:
        """The result over JSON lines; an error fails the test."""
        reply = self.request(method, params)
        assert "result" in reply, reply
        return reply["result"]

    def error(self, method: str, **params: Any) -> dict[str, Any]:
        """The error over JSON lines; a result fails the test."""
        reply = self.request(method, params)
        assert "error" in reply, reply
        error: dict[str, Any] = reply["error"]
        return error

    def request(self, method: str, params: Any) -> dict[str, Any]:
        with contextlib.closing(self.lines()) as lines:
            return lines.request(method, params)

    def http(self, verb: str, target: str, body: Any = None) -> tuple[int, Any]:
        """Status and parsed body of one HTTP request."""
        with contextlib.closing(UnixHTTP(self.socket_path)) as connection:
            connection.request(verb, target, None if body is None else json.dumps(body))
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="skilld-") as directory:
        yield Path(directory)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty root."""
    path = tmp_path / "skills"
    path.mkdir()
    return path


@pytest.fixture
def daemon(root: Path, short_dir: Path) -> Iterator[Daemon]:
    """A daemon on ``root``."""
    running = Daemon([root], short_dir)
    try:
        yield running
    finally:
        running.stop()


def save(directory: Path, description: str, body: str = "Steps.", name: str | None = None) -> None:
    """Write a SKILL.md, making its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "SKILL.md").write_text(
        f"---\nname: {name or directory.name}\ndescription: {description}\n---\n\n{body}\n"
    )
