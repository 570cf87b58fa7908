"""The daemon under its shipped units and a real systemd: start, stop, crash, hang, reload."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.systemd.conftest import UNITS
from tests.systemd.machine import PATIENCE_S, Machine
from tests.systemd.service import SOCKET, Service


def wait_for(machine: Machine, unit: str, *states: str) -> None:
    """Wait until a unit is in one of some states."""
    end = time.monotonic() + PATIENCE_S
    while machine.show(unit, "ActiveState")[0] not in states:
        assert time.monotonic() < end, machine.systemctl("status", unit, check=False)


def ping(id: int = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": "skilld.ping"}).encode() + b"\n"


def test_the_socket_is_as_the_unit_says(service: Service) -> None:
    """It belongs to root and the group skilld, which alone may open it; the daemon runs as its own user."""
    found = service.machine.run("stat", "-c", "%U:%G %a", SOCKET).stdout.strip()
    assert found == "root:skilld 660"
    pid = service.main_pid()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert (status["CapEff"], status["CapBnd"], status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
    assert status["Uid"].split()[0] != "0"


def test_the_first_call_starts_the_daemon(service: Service) -> None:
    """With only the socket there, a call is answered by a daemon that it started."""
    service.stop()
    assert service.machine.pids("skilld.service") == []
    assert service.call("skilld.ping") == {}
    # A ping is answered from the first moment on, and the unit is active once all skills are known.
    wait_for(service.machine, "skilld.service", "active")


def test_ready_is_told_after_the_scan(service: Service) -> None:
    """When "systemctl start" returns, every skill is known."""
    service.stop()
    for number in range(1_500):
        service.save(f"made-{number}", "x")
    service.machine.run("sh", "-c", "rm -rf /var/cache/skilld/*")
    service.start()
    status = service.call("skilld.status")
    assert status["roots"][0]["skills"] == 1_500
    assert status["watcher"]["last_full_scan"] is not None


def test_a_restart_keeps_the_socket(service: Service) -> None:
    """It is the same file before and after, so that a mount of it leads to the new daemon."""
    inode, pid = service.socket_path.stat().st_ino, service.main_pid()
    with contextlib.closing(service.lines()) as lines:
        assert "result" in lines.request("skilld.ping", {})
        service.machine.systemctl("restart", "skilld.service")
        assert lines.stream.readline() == b""
    assert service.main_pid() != pid
    assert service.socket_path.stat().st_ino == inode
    assert service.call("skilld.ping") == {}


def test_a_call_during_a_crash_is_answered_after_it(service: Service) -> None:
    """What waits in the socket's queue when the daemon dies is the next one's."""
    pid = service.kill(signal.SIGSTOP)
    with contextlib.closing(service.lines()) as lines:
        lines.send(ping())
        os.kill(pid, signal.SIGKILL)
        assert lines.receive() == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert service.main_pid() != pid


def test_twenty_quick_crashes(service: Service) -> None:
    """However often the daemon dies, with calls waiting all the time, the socket stays and a call is answered."""
    inode = service.socket_path.stat().st_ino
    with contextlib.ExitStack() as stack:
        pid = service.kill()
        pids = {pid}
        for _ in range(20):
            end = time.monotonic() + PATIENCE_S
            while service.main_pid() == pid:
                assert time.monotonic() < end
            waiting = stack.enter_context(contextlib.closing(service.lines()))
            waiting.send(ping())
            pid = service.kill()
            pids.add(pid)
        waiting = stack.enter_context(contextlib.closing(service.lines()))
        waiting.send(ping())
        assert waiting.receive()["result"] == {}
    assert service.machine.show("skilld.socket", "ActiveState", "Result") == ["active", "success"]
    assert len(pids) > 20
    assert service.socket_path.stat().st_ino == inode


def test_the_watchdog(service: Service) -> None:
    """A daemon that answers itself lives on; a stopped one is replaced, and its core, which may hold keys, not kept."""
    service.drop_in("skilld.service", "[Service]\nWatchdogSec=1500ms\n")
    service.machine.systemctl("restart", "skilld.service")
    pid = service.main_pid()
    fed_at = int(service.machine.show("skilld.service", "WatchdogTimestampMonotonic")[0])
    end = time.monotonic() + PATIENCE_S
    while int(service.machine.show("skilld.service", "WatchdogTimestampMonotonic")[0]) < fed_at + 1_500_000:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert service.kill(signal.SIGSTOP) == pid
    with contextlib.closing(service.lines()) as lines:
        lines.send(ping())
        assert lines.receive()["result"] == {}
    assert service.main_pid() != pid
    assert any("Watchdog timeout" in record["MESSAGE"] for record in service.journal("_PID=1"))
    assert Path(f"/proc/{service.main_pid()}/limits").read_text().split("Max core file size")[1].split()[0] == "0"


def test_a_stop_answers_what_is_in_flight(service: Service) -> None:
    """A call that waits is answered before the daemon ends, and no later than ten seconds after it was told to."""
    with contextlib.closing(service.lines()) as lines:
        since = lines.request("skills.changes", {})["result"]["revision"]
        wait = {"jsonrpc": "2.0", "id": "w", "method": "skills.changes", "params": {"since": since, "wait_ms": 60_000}}
        lines.send(json.dumps(wait).encode() + b"\n")
        lines.request("skilld.ping", {})
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 10
        assert lines.receive()["id"] == "w"
    assert service.machine.show("skilld.service", "Result", "ExecMainStatus") == ["success", "0"]


def test_a_reload_returns_when_the_new_library_is_served(service: Service) -> None:
    """The configuration is read again and all is scanned, by the same process."""
    pid = service.main_pid()
    before = service.machine.path("/etc/skilld/skilld.yaml").read_text()
    service.machine.write("/srv/other/pdf/SKILL.md", "---\nname: pdf\ndescription: x\n---\n")
    try:
        service.machine.write("/etc/skilld/skilld.yaml", "skills_dir: /srv/other\n")
        service.machine.systemctl("reload", "skilld.service")
        wait_for(service.machine, "skilld.service", "active")
        assert [skill["id"] for skill in service.call("skills.list")["skills"]] == ["pdf"]
        assert service.main_pid() == pid
    finally:
        service.machine.write("/etc/skilld/skilld.yaml", before)
        service.machine.systemctl("reload", "skilld.service")


def test_a_mistake_in_the_configuration_is_survived(service: Service) -> None:
    """The daemon ends with 2 as often as it is started; once the mistake is mended a waiting call is answered."""
    path = "/etc/skilld/skilld.yaml"
    before = service.machine.path(path).read_text()
    try:
        service.machine.write(path, "no_such_key: 1\n")
        service.machine.run("systemctl", "restart", "skilld.service", check=False)
        assert service.machine.show("skilld.service", "ExecMainStatus") == ["2"]
        with contextlib.closing(service.lines()) as lines:
            lines.send(ping())
            service.machine.write(path, before)
            assert lines.receive()["result"] == {}
    finally:
        service.machine.write(path, before)


def test_docker_comes_after_the_socket_and_the_daemon(service: Service) -> None:
    """Started together, Docker waits until skilld is ready; started alone, it brings the socket up first."""
    machine = service.machine
    found = []
    # As at boot, in one transaction: systemctl asks for its units one by one, and the first waits for no other.
    machine.write(
        "/etc/systemd/system/both.target", "[Unit]\nWants=docker.service skilld.service\nAfter=docker.service\n"
    )
    machine.systemctl("daemon-reload")
    for unit in ("both.target", "docker.service"):
        machine.systemctl("stop", "docker.service", "skilld.socket", "skilld.service", "both.target")
        service.socket_path.unlink()
        machine.systemctl("start", unit)
        found.append(machine.path("/run/docker-found").read_text().split())
    machine.systemctl("stop", "docker.service")
    assert found == [["socket", "active"], ["socket", "inactive"]]


def test_the_guest_agent_is_started_first_but_not_needed(service: Service) -> None:
    """skilld wishes for dstack's agent; without it, it serves all the same."""
    machine = service.machine
    machine.systemctl("stop", "skilld.service", "dstack-guest-agent.service")
    service.start()
    assert machine.show("dstack-guest-agent.service", "ActiveState") == ["active"]
    machine.systemctl("mask", "--runtime", "dstack-guest-agent.service")
    try:
        machine.systemctl("stop", "dstack-guest-agent.service")
        machine.systemctl("restart", "skilld.service")
        assert service.call("skilld.ping") == {}
    finally:
        machine.systemctl("unmask", "--runtime", "dstack-guest-agent.service")


def test_the_preset_enables_both(service: Service) -> None:
    """In an image, where presets decide, socket and service are on."""
    machine = service.machine
    machine.write("/etc/systemd/system-preset/81-skilld.preset", (UNITS / "system-preset/81-skilld.preset").read_text())
    machine.write("/etc/systemd/system-preset/99-none.preset", "disable *\n")
    machine.systemctl("disable", "skilld.socket", "skilld.service")
    machine.systemctl("preset", "skilld.socket", "skilld.service")
    assert machine.systemctl("is-enabled", "skilld.socket", "skilld.service").split() == ["enabled", "enabled"]


@pytest.mark.parametrize(("mode", "expected"), [("", "refused"), ("everybody", "socket")])
def test_who_may_open_the_socket(service: Service, mode: str, expected: str) -> None:
    """As shipped, only the group; with the drop-in everybody, and who is not in the group may read only."""
    machine = service.machine
    if mode:
        service.drop_in("skilld.socket", (UNITS / f"skilld.socket.d/{mode}.conf").read_text())
        machine.systemctl("restart", "skilld.socket")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "skilld", "--socket", SOCKET]
    listed = machine.run(*nobody, "list", "--json", check=False)
    deleted = machine.run(*nobody, "call", "skills.delete", '{"name": "x"}', check=False)
    if expected == "refused":
        assert listed.returncode == 3
        member = machine.run("setpriv", "--reuid=65534", "--regid=65534", "--groups=skilld", "skilld", "list", "--json")
        assert json.loads(member.stdout)["skills"] == []
        return
    assert json.loads(listed.stdout)["skills"] == []
    assert deleted.returncode == 1
    assert "write" in deleted.stderr
    (record,) = service.journal("PEER_UID=65534")
    assert (record["PRIORITY"], record["METHOD"], record["PEER_GID"]) == ("4", "skills.delete", "65534")


def test_the_journal_tells_what_happened(service: Service) -> None:
    """Start, readiness and every change, with the fields by which to look for them."""
    service.machine.systemctl("restart", "skilld.service")
    began = len(service.journal("_TRANSPORT=journal", "LOGGER=skilld.daemon"))
    revision = service.call("skills.changes")["revision"]
    service.save("pdf", "x")
    change = service.call("skills.changes", since=revision, wait_ms=20_000)
    (record,) = service.journal(f"REVISION={change['revision']}")
    assert (record["SKILL"], record["PRIORITY"]) == ("pdf", "6")
    assert record["MESSAGE"] == f"revision {change['revision']}: 1 added, 0 updated, 0 removed ('pdf')"
    messages = [record["MESSAGE"] for record in service.journal("LOGGER=skilld.daemon")[began - 3 :]]
    assert messages[1].startswith(
        "skilld 0.1.0 serves /var/lib/skilld/skills, /usr/share/skilld/skills on /run/skilld.sock"
    )
    assert messages[2].startswith("ready: 0 skills, 0 problems, ")
