"""A double of the daemon on a real Unix socket: it says exactly what a test tells it to say, and when."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from skilld.errors import SkilldError

# Seconds after which a test that waits for something has failed.
PATIENCE_S = 20.0

Request = dict[str, Any]


class Peer:
    """One connection, as the double sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")

    def read(self) -> Request:
        """The next request. EOFError: there is none."""
        line = self._stream.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        request: Request = json.loads(line)
        return request

    def expect(self, method: str) -> Request:
        """The next request, which must be of this method."""
        request = self.read()
        assert request["method"] == method, request
        return request

    def send(self, message: object) -> None:
        """Send a message, as a line."""
        self.send_bytes(json.dumps(message).encode() + b"\n")

    def send_bytes(self, data: bytes) -> None:
        """Send bytes."""
        self._connection.sendall(data)

    def reply(self, request: Request, result: Any) -> None:
        """Answer a request."""
        self.send({"jsonrpc": "2.0", "id": request["id"], "result": result})

    def refuse(self, request: Request | None, error: SkilldError) -> None:
        """Answer an error; without a request, to nobody in particular."""
        body = {"code": error.code, "message": str(error), "data": error.data}
        self.send({"jsonrpc": "2.0", "id": request and request["id"], "error": body})

    def notify(self, **params: Any) -> None:
        """Send a notification of a change."""
        self.send({"jsonrpc": "2.0", "method": "skills.changed", "params": params})

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        self._connection.close()


Script = Callable[[Peer], None]


class FakeDaemon:
    """
    Runs a script a connection, in the order in which they are made; the last one for all that come later.

    A script ends in silence when the client closes the connection; what else goes wrong in it fails the test.
    """

    def __init__(self, path: Path, *scripts: Script) -> None:
        self.path = str(path)
        self.connections = 0
        self._scripts = scripts
        self._errors: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._start(self._accept)

    def stop(self) -> None:
        """Close everything, wait for all scripts, and raise what went wrong in them."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            for connection in tuple(self._open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        Path(self.path).unlink(missing_ok=True)
        for error in self._errors:
            raise error

    def wait_closed(self) -> None:
        """Wait until no connection is open."""
        for thread in tuple(self._threads[1:]):
            thread.join(PATIENCE_S)

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                script = self._scripts[min(self.connections, len(self._scripts) - 1)]
                self.connections += 1
                self._open.add(connection)
                self._start(self._run, script, connection)

    def _run(self, script: Script, connection: socket.socket) -> None:
        peer = Peer(connection)
        try:
            script(peer)
        except (EOFError, OSError):
            pass
        except BaseException as exc:
            self._errors.append(exc)
        finally:
            peer.close()
            self._open.discard(connection)

    def _start(self, run: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=run, args=args)
        self._threads.append(thread)
        thread.start()


@contextlib.contextmanager
def fake_daemon(path: Path, *scripts: Script) -> Iterator[FakeDaemon]:
    """A double at a path."""
    daemon = FakeDaemon(path, *scripts)
    try:
        yield daemon
    finally:
        daemon.stop()


def answering(results: Mapping[str, Any], seen: list[tuple[str, Any]] | None = None) -> Script:
    """
    A script that answers every request by its method.

    Args:
        results: By method: a result, an error to answer, or a function of the params that returns one of these.
        seen: Gets method and params of each request.
    """

    def answer(peer: Peer) -> None:
        while True:
            request = peer.read()
            if seen is not None:
                seen.append((request["method"], request["params"]))
            result = results[request["method"]]
            if callable(result):
                result = result(request["params"])
            if isinstance(result, SkilldError):
                peer.refuse(request, result)
            else:
                peer.reply(request, result)

    return answer
