"""The clients of contrib/clients: each is run as its users run it, wherever its language is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import Daemon, save
from tests.isolation import PROJECT_DIR, run_with_mounts

CLIENTS_DIR = PROJECT_DIR / "contrib/clients"
PATIENCE_S = 30.0
# What Go needs to compile the standard library's net on a busy machine for the first time.
BUILD_S = 180.0

# How to run each client, and what must be installed for that.
CLIENTS = {
    "skilld-curl.sh": (["sh", "{file}"], ["curl", "jq"]),
    "skilld-socat.sh": (["sh", "{file}"], ["socat", "jq"]),
    "skilld.js": (["node", "{file}"], ["node"]),
    "skilld.go": (["{binary}"], ["go"]),
}


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words that run one client."""
    name: str = request.param
    words, needed = CLIENTS[name]
    missing = [program for program in needed if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{name} needs {', '.join(missing)}, which this machine lacks")
    source, binary = CLIENTS_DIR / name, tmp_path_factory.mktemp("go") / "skilld"
    if name.endswith(".go"):
        # Without cgo the C compiler has no say.
        subprocess.run(
            ["go", "build", "-o", binary, source], check=True, timeout=BUILD_S, env={**os.environ, "CGO_ENABLED": "0"}
        )
    return [word.format(file=source, binary=binary) for word in words]


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    """A daemon with two skills."""
    with tempfile.TemporaryDirectory(prefix="skilld-") as directory:
        root = Path(directory) / "skills"
        save(root / "pdf", "Fill in PDF forms.")
        save(root / "tëa", "Brew “tea”.", name="tëa")
        daemon = Daemon([root], Path(directory))
        try:
            yield daemon
        finally:
            daemon.stop()


def run(client: list[str], *args: str, endpoint: object = "") -> tuple[int, str, str]:
    """Run a client: exit status, standard output, standard error."""
    done = subprocess.run(
        [*client, *args],
        capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, "SKILLD_ENDPOINT": str(endpoint)},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_lists_skills_when_told_nothing(client: list[str], served: Daemon) -> None:
    """Without a method the skills are listed, in the daemon's own words."""
    status, out, err = run(client, endpoint=served.socket_path)
    assert (status, err) == (0, "")
    assert json.loads(out) == served.call("skills.list")
    assert out.count("\n") == 1


def test_params_are_json_as_the_user_wrote_it(client: list[str], served: Daemon) -> None:
    """Line breaks, quotes and other scripts in the params arrive."""
    params = '{\n  "query": "Brew \\"tea\\" tëa",\n  "limit": 1\n}'
    status, out, _ = run(client, "skills.search", params, endpoint=served.socket_path)
    assert (status, [hit["id"] for hit in json.loads(out)["skills"]]) == (0, ["tëa"])


def test_an_explicit_socket_wins_over_the_environment(client: list[str], served: Daemon) -> None:
    """``-s`` is the only path that is tried; an empty one counts as not given."""
    assert run(client, "-s", str(served.socket_path), "skilld.ping", endpoint="/nowhere") == (0, "{}\n", "")
    assert run(client, "-s", "", "skilld.ping", endpoint=served.socket_path) == (0, "{}\n", "")
    assert run(client, "-s", "/nowhere", endpoint=served.socket_path) == (3, "", "no daemon at /nowhere\n")


def test_shows_what_the_daemon_refuses(client: list[str], served: Daemon) -> None:
    """An error is its code, reason and message on standard error, and exit status 1."""
    params = '{"name": "pfd"}'
    error = served.error("skills.get", name="pfd")
    expected = f"{error['code']} {error['data']['reason']}: {error['message']}\n"
    assert run(client, "skills.get", params, endpoint=served.socket_path) == (1, "", expected)
    status, out, err = run(client, "skills.get", "{", endpoint=served.socket_path)
    assert (status, out, err.split(":")[0]) == (1, "", "-32700 parse-error")


# Answers every call with the path it came in by, over HTTP and lines alike; then hangs up on all, path by path.
SEARCH = """
    import json, os, socket, subprocess, sys, threading

    def answer(listener, path):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"path": path}}).encode() + b"\\n"
            text = b""
            while not text.rstrip().endswith(b"}}"):  # what is left unread would reset the connection
                text += connection.recv(65536)
            if not text.startswith(b"{"):
                body = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body
            connection.sendall(body)
            connection.close()

    listeners = {}
    for path in reversed(PATHS):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        listeners[path] = socket.socket(socket.AF_UNIX)
        listeners[path].bind(path)
        listeners[path].listen()
        threading.Thread(target=answer, args=(listeners[path], path), daemon=True).start()
    for _ in range(len(PATHS) + 1):
        done = subprocess.run(CLIENT, stdout=subprocess.PIPE, env={**os.environ, **ENVIRON}, timeout=30)
        if done.returncode:
            print(done.returncode)
            break
        path = json.loads(done.stdout)["path"]
        print(path)
        listeners.pop(path).shutdown(socket.SHUT_RDWR)
"""


def test_searches_the_well_known_paths_in_order(client: list[str], tmp_path: Path) -> None:
    """The well-known paths are tried in their order, the user's own last; a dead socket file is passed over."""
    paths = [
        "/var/run/skilld.sock", "/run/skilld.sock", "/var/run/skilld/skilld.sock", "/run/skilld/skilld.sock",
        "/run/me/skilld/skilld.sock",
    ]  # fmt: skip
    environ = {"SKILLD_ENDPOINT": "", "XDG_RUNTIME_DIR": "/run/me"}
    # A /var of its own tells /var/run from /run, which usually are one.
    mounts = "mount -t tmpfs none /run\nmount -t tmpfs none /var"
    code = f"    PATHS, CLIENT, ENVIRON = {paths!r}, {client!r}, {environ!r}\n{SEARCH}"
    assert run_with_mounts(mounts, code, tmp_path).split() == [*paths, "3"]
