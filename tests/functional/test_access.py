"""Who may do what, told by the kernel: real other users, the socket's group, and a reload that changes the rules."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skilld.config import parse_config
from tests.conftest import NOBODY_UID
from tests.functional.conftest import Daemon, Lines, UnixHTTP, save

GROUP = 60_123
OTHER_UID = 60_001

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes other users")


@contextlib.contextmanager
def as_user(uid: int, gid: int, groups: tuple[int, ...] = ()) -> Iterator[None]:
    """Be another user for a while: the kernel notes who connects at that moment."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@pytest.fixture
def config(tmp_path: Path, root: Path) -> Path:
    path = tmp_path / "skilld.yaml"
    path.write_text(f"skills_dir: {root}\n")
    return path


@pytest.fixture
def open_daemon(config: Path, short_dir: Path) -> Iterator[Daemon]:
    """A daemon whose socket everybody may open; it belongs to a group."""
    running = Daemon([], short_dir, config=config)
    os.chmod(short_dir, 0o755)
    os.chown(running.socket_path, -1, GROUP)
    os.chmod(running.socket_path, 0o666)
    running.process.send_signal(signal.SIGHUP)
    wait_for_reloads(running, 1)
    try:
        yield running
    finally:
        assert running.stop() == 0


def wait_for_reloads(daemon: Daemon, count: int) -> None:
    """Wait until the daemon has read its configuration so many times since its start."""
    while daemon.log_path.read_text().count("scanning everything again") < count:
        daemon.call("skills.changes", since=daemon.call("skills.changes")["revision"], wait_ms=5)


def reload(daemon: Daemon, config: Path, access: str) -> None:
    """Give the daemon other rules."""
    before = daemon.log_path.read_text().count("scanning everything again")
    roots = config.read_text().splitlines()[0]
    config.write_text(f"{roots}\naccess: {access}\n")
    daemon.process.send_signal(signal.SIGHUP)
    wait_for_reloads(daemon, before + 1)


def roles(connection: Lines) -> set[str]:
    """The roles of a peer, by what it is refused."""
    asked = {
        "read": connection.request("skills.list", {}),
        "write": connection.request("skills.delete", {"name": "no-such-skill"}),
    }
    return {role for role, reply in asked.items() if reply.get("error", {}).get("code") != -32041}


def test_the_kernel_says_who_calls(open_daemon: Daemon) -> None:
    """Members of the socket's group may write, anybody may read; a refusal is a line with uid, gid, pid and method."""
    users: list[tuple[int, int, tuple[int, ...], set[str]]] = [
        (NOBODY_UID, NOBODY_UID, (), {"read"}),
        (NOBODY_UID, GROUP, (), {"read", "write"}),
        (OTHER_UID, NOBODY_UID, (7, GROUP), {"read", "write"}),
        (OTHER_UID, 0, (), {"read"}),
        (0, 0, (), {"read", "write"}),
    ]
    expected = []
    for uid, gid, groups, held in users:
        with as_user(uid, gid, groups):
            connection = open_daemon.lines()
        with contextlib.closing(connection):
            assert roles(connection) == held
        if "write" not in held:
            expected.append(
                f"refused skills.delete to uid {uid}, gid {gid}, pid {os.getpid()}: it lacks the role write"
            )
    warnings = [line.partition("WARNING ")[2] for line in open_daemon.log_path.read_text().splitlines()]
    assert [line for line in warnings if line.startswith("refused")] == expected


def test_a_reload_counts_for_open_connections(open_daemon: Daemon, config: Path) -> None:
    """A peer gains and loses roles where it is, over lines and over HTTP; a wrong file changes nothing."""
    with as_user(NOBODY_UID, NOBODY_UID):
        lines, web = open_daemon.lines(), UnixHTTP(open_daemon.socket_path)
        web.connect()
    with contextlib.closing(lines), contextlib.closing(web):
        assert (roles(lines), delete(web)) == ({"read"}, 403)
        reload(open_daemon, config, f"{{write: [{NOBODY_UID}]}}")
        assert (roles(lines), delete(web)) == ({"read", "write"}, 404)
        reload(open_daemon, config, "{write: [no-such-user]}")
        assert (roles(lines), delete(web)) == ({"read", "write"}, 404)
        reload(open_daemon, config, f"{{write: ['@{GROUP}']}}")
        assert (roles(lines), delete(web)) == ({"read"}, 403)


def test_the_readme_s_example_is_one() -> None:
    """What it shows is understood."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    example = readme.partition("<!-- access -->\n```yaml\n")[2].partition("```")[0]
    assert parse_config(example, "README.md") == {"access.run": [1_000, "@docker"], "access.tee": ["root"]}


def delete(web: http.client.HTTPConnection) -> int:
    """The status of a call that takes the role write."""
    web.request("DELETE", "/skills/no-such-skill")
    response = web.getresponse()
    response.read()
    return response.status


def test_who_may_not_read_any_more_hears_nothing_more(open_daemon: Daemon, config: Path, root: Path) -> None:
    """Its subscription and its stream of events end with their connections; those of others go on."""
    with as_user(NOBODY_UID, NOBODY_UID):
        subscriber, web = open_daemon.lines(), UnixHTTP(open_daemon.socket_path)
        web.connect()
    with as_user(OTHER_UID, OTHER_UID):
        other = open_daemon.lines()
    with contextlib.closing(subscriber), contextlib.closing(web), contextlib.closing(other):
        assert "result" in subscriber.request("skills.subscribe", {})
        assert "result" in other.request("skills.subscribe", {})
        web.request("GET", "/events")
        events = web.getresponse()
        assert events.status == 200
        reload(open_daemon, config, f"{{read: [{OTHER_UID}]}}")
        save(root / "later", "x")
        assert other.receive()["params"]["added"] == ["later"]
        assert subscriber.stream.read() == b""
        assert b"later" not in events.read()
        assert "result" in other.request("skills.list", {})
    with as_user(NOBODY_UID, NOBODY_UID):
        again = open_daemon.lines()
    with contextlib.closing(again):
        assert roles(again) == set()


def test_a_reload_takes_other_limits(open_daemon: Daemon, config: Path) -> None:
    """Limits of messages and sessions count from now on; those of scans at the next start, which a warning says."""
    roots = config.read_text()
    config.write_text(
        f"{roots}limits: {{message_bytes: 1024, depth: 2}}\nfactory: {{max_sessions: 1}}\nlog: {{format: json}}\n"
    )
    with contextlib.closing(open_daemon.lines()) as old:
        old.request("skilld.ping", {})
        open_daemon.process.send_signal(signal.SIGHUP)
        wait_for_reloads(open_daemon, 2)
        long = {"query": "x" * 2_000}
        assert "result" in old.request("skills.search", long)
    assert open_daemon.http("POST", "/skills/validate", {"content": "x" * 2_000})[0] == 413
    limits = open_daemon.call("skilld.status")["limits"]
    assert (limits["message_bytes"], limits["depth"]) == (1_024, 6)
    assert "a new value of limits.depth, log.format takes effect at the next start" in open_daemon.log_path.read_text()
    assert "session_id" in open_daemon.call("factory.start")
    assert open_daemon.error("factory.start")["data"]["reason"] == "busy"


def test_a_reload_shows_scripts_no_root(config: Path, root: Path, short_dir: Path) -> None:
    """A root below what scripts are shown is refused, and all that came with it."""
    # Elsewhere, for scripts have a /tmp of their own.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as shown:
        new = os.path.join(shown, "root")
        os.mkdir(new)
        rest = f"execution: {{extra_ro: ['{shown}']}}\n"
        config.write_text(f"skills_dir: {root}\n{rest}")
        daemon = Daemon([], short_dir, config=config)
        try:
            config.write_text(f"skills_dir: {new}\n{rest}")
            daemon.process.send_signal(signal.SIGHUP)
            wait_for_reloads(daemon, 1)
            assert [one["path"] for one in daemon.call("skilld.status")["roots"]] == [str(root)]
            assert f"execution.extra_ro: '{shown}' would show {new}" in daemon.log_path.read_text()
        finally:
            assert daemon.stop() == 0
