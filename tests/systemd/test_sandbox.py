"""What the shipped units allow: edits are seen, dstack is reached, and a sandbox of namespaces works."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import time
from typing import Any

import pytest

from skilld.rpc.methods import TABLE
from tests.functional.conftest import save
from tests.systemd.conftest import PYTHON, UNITS
from tests.systemd.service import LIBRARY, Service

HARDENED = (UNITS / "skilld.service.d/hardened.conf").read_text()

METHODS = {method.name for method in TABLE}

# How scripts are run: every namespace, a root of its own, nothing of the machine but its programs.
BUBBLEWRAP = """
bwrap --unshare-user --unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try --disable-userns
--die-with-parent --new-session --hostname skill
--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/sbin /sbin
--proc /proc --dev /dev --size 8388608 --tmpfs /dev/shm --remount-ro /dev --size 67108864 --tmpfs /tmp
--ro-bind LIBRARY /skill --remount-ro / --chdir /skill --clearenv --setenv PATH /usr/bin:/bin
prlimit --core=0 --nofile=256 --fsize=67108864 --cpu=10 --
""".replace("LIBRARY", LIBRARY).split()

INSIDE = """
echo "pid $$, $(uname -n)"
grep -c : /proc/net/dev
cat /proc/1/comm
touch /tmp/x && echo can write /tmp
touch /skill/x 2>/dev/null || echo cannot write the skill
test -e /run/dstack.sock || echo no dstack
unshare -U true 2>/dev/null || echo no more namespaces
"""


@pytest.mark.parametrize("drop_in", ["", HARDENED], ids=["shipped", "hardened"])
def test_edits_are_seen(service: Service, drop_in: str) -> None:
    """A file that somebody saves is served, and found, by inotify; the daemon itself can write, too."""
    if drop_in:
        service.drop_in("skilld.service", drop_in)
        service.machine.systemctl("restart", "skilld.service")
    revision = service.call("skills.changes")["revision"]
    service.save("pdf", "fills in forms")
    change = service.call("skills.changes", since=revision, wait_ms=20_000)
    assert change["added"] == ["pdf"]
    assert [hit["id"] for hit in service.call("skills.search", query="forms")["skills"]] == ["pdf"]
    assert service.call("skilld.status")["watcher"]["mode"] == "inotify"
    made = service.call("skills.create", name="made", description="x", body="y", scripts={"run.sh": "echo hi\n"})
    assert made["path"] == f"{LIBRARY}/made"
    assert service.machine.run("stat", "-c", "%U %a", f"{LIBRARY}/made/SKILL.md").stdout == "skilld 644\n"


def test_a_library_elsewhere(service: Service) -> None:
    """With the README's drop-in, libraries outside the daemon's own are served and written to, one in a home too."""
    machine = service.machine
    readme = (UNITS.parent / "README.md").read_text()
    drop_in = readme.partition("<!-- a library elsewhere -->\n```ini\n")[2].partition("```")[0]
    libraries = [line.partition("=")[2] for line in drop_in.splitlines() if "Paths=" in line]
    machine.run("install", "-d", "-o", "skilld", "-g", "skilld", *libraries)
    service.drop_in("skilld.service", f"{drop_in}Environment=SKILLS_DIR={':'.join(libraries)}\n")
    machine.systemctl("restart", "skilld.service")
    revision = service.call("skills.changes")["revision"]
    save(machine.path(f"{libraries[1]}/pdf"), "at home")
    assert service.call("skills.changes", since=revision, wait_ms=20_000)["added"] == ["pdf"]
    assert service.call("skills.create", name="csv", description="x", body="y")["root"] == libraries[0]
    assert [root["writable"] for root in service.call("skilld.status")["roots"]] == [True, True]


@pytest.mark.parametrize("drop_in", ["", HARDENED], ids=["shipped", "hardened"])
def test_dstack_is_reached(service: Service, drop_in: str) -> None:
    """The guest agent's socket can be opened from where the daemon runs."""
    client = """
import socket
agent = socket.socket(socket.AF_UNIX)
agent.connect("/run/dstack.sock")
agent.sendall(b"POST /Version HTTP/1.1\\r\\nHost: dstack\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
print(agent.makefile("rb").read().decode().partition("\\r\\n\\r\\n")[2])
"""
    assert service.run_in_its_place(f"{PYTHON} -c {shlex.quote(client)}\n", drop_in) == '{"version": "0.5.9"}\n'


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_scripts_can_be_sandboxed(service: Service) -> None:
    """Under the shipped unit bubblewrap makes every namespace, and a script sees nothing but what it is given."""
    output = service.run_in_its_place(shlex.join([*BUBBLEWRAP, "sh", "-c", INSIDE]))
    assert output.splitlines() == [
        "pid 2, skill", "1", "bwrap", "can write /tmp", "cannot write the skill", "no dstack", "no more namespaces",
    ]  # fmt: skip


@pytest.mark.skipif("skills.execute_script" not in METHODS, reason="this skilld runs no scripts")
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_script_runs_in_its_sandbox(service: Service) -> None:
    """The daemon itself runs one, under the shipped unit, in bubblewrap."""
    script = "echo hello; test -e /run/dstack.sock || echo no dstack\n"
    service.call("skills.create", name="hello", description="x", body="y", scripts={"run.sh": script})
    result = service.call("skills.execute_script", name="hello", script="run.sh")
    assert (result["stdout"], result["exit_code"]) == ("hello\nno dstack\n", 0)
    assert (result["sandbox"]["backend"], result["sandbox"]["network"]) == ("bubblewrap", "none")


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
@pytest.mark.parametrize("backend", ["bubblewrap", "landlock"])
def test_a_script_has_a_cgroup_of_its_own(service: Service, backend: str) -> None:
    """The kernel bounds memory and processes of a whole run; of its group nothing is left, a crash included."""
    own = "/sys/fs/cgroup/system.slice/skilld.service"
    limit = 64 * 1024 * 1024
    if not {"memory", "pids"} <= set(service.machine.path("/sys/fs/cgroup/cgroup.controllers").read_text().split()):
        pytest.skip("the controllers of memory and pids serve older cgroups on this machine")
    service.drop_in(
        "skilld.service",
        "[Service]\nExecStart=\n"
        f"ExecStart=skilld serve --execution-backend {backend} --execution-memory-bytes {limit} "
        "--execution-max-processes 20\n",
    )
    service.machine.systemctl("restart", "skilld.service")
    scripts = {
        "group.sh": "cat /proc/self/cgroup 2>/dev/null; exit 0\n",
        # Files in memory, which no limit of a process counts: as much as there may be in all, before anybody looks.
        "hog.sh": "exec head -c 400000000 /dev/zero | tail -c 300000000 >/dev/null\n",
        "bomb.sh": "for n in $(seq 40); do sleep 5 & done\n",
        "sleep.sh": "echo here; exec sleep 60\n",
    }
    service.call("skills.create", name="demo", description="x", body="y", scripts=scripts)

    def run(script: str) -> dict[str, Any]:
        result: dict[str, Any] = service.call("skills.execute_script", name="demo", script=script)
        return result

    def groups() -> list[str]:
        return sorted(path.name for path in service.machine.path(own).iterdir() if path.is_dir())

    result = run("group.sh")
    assert (result["sandbox"]["backend"], result["sandbox"]["memory"]) == (backend, "cgroup")
    assert groups() == ["daemon"]
    hog = run("hog.sh")
    assert (hog["exit_code"], hog["signal"], hog["timed_out"]) == (137, "SIGKILL", False)
    bomb = run("bomb.sh")
    assert "fork" in bomb["stderr"].lower(), bomb
    assert groups() == ["daemon"]
    with contextlib.closing(service.lines()) as lines:
        params = {"name": "demo", "script": "sleep.sh", "stream": True}
        lines.send(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "skills.execute_script", "params": params}).encode()
            + b"\n"
        )
        assert lines.receive()["method"] == "skills.output"
        (group,) = [name for name in groups() if name != "daemon"]
        files = service.machine.path(f"{own}/{group}")
        assert (files / "memory.max").read_text() == f"{limit}\n"
        assert (files / "pids.max").read_text() in ("20\n", "21\n")
        pid = service.kill()
    end = time.monotonic() + 20
    while service.main_pid() in (0, pid) or groups() != ["daemon"]:
        assert time.monotonic() < end, groups()
        with contextlib.suppress(OSError):
            service.call("skilld.ping")
    assert run("group.sh")["exit_code"] == 0


def test_what_newer_bubblewraps_need_is_allowed(service: Service) -> None:
    """No part of /proc is covered, where a fresh one is mounted, and openat2(2) is there."""
    opening = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
how = struct.pack("=QQQ", os.O_PATH, 0, 0x10)
print(os.readlink(f"/proc/self/fd/{libc.syscall(437, -100, b'/usr', how, len(how))}"))
"""
    script = f"{PYTHON} -c {shlex.quote(opening)}\ngrep -c ' /proc' /proc/self/mountinfo\n"
    assert service.run_in_its_place(script) == "/usr\n1\n"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_hardened_no_namespace_can_be_made(service: Service) -> None:
    """The drop-in for hosts without scripts takes away what a sandbox would need."""
    output = service.run_in_its_place("bwrap --unshare-user --ro-bind / / true 2>&1 || echo refused\n", HARDENED)
    assert output.endswith("refused\n")


@pytest.mark.parametrize("drop_in", ["", HARDENED], ids=["shipped", "hardened"])
def test_the_machine_is_out_of_reach(service: Service, drop_in: str) -> None:
    """Nothing can be written but the library and the cache; no network, no devices, no homes."""
    script = """
for path in /etc /usr /run /root /home /var /sys/fs/cgroup /; do touch $path/x 2>/dev/null && echo wrote $path; done
touch /var/lib/skilld/skills/x && rm /var/lib/skilld/skills/x && echo wrote library
touch /var/cache/skilld/x && rm /var/cache/skilld/x && echo wrote cache
ls /sys/class/net
ls /root /home 2>/dev/null
test -e /dev/vda || echo no disk
"""
    assert service.run_in_its_place(script, drop_in).splitlines() == ["wrote library", "wrote cache", "lo", "no disk"]
