"""
What the attacks reach for, outside: sockets, keys, victims, files; and the processes from which scripts are started.

Owns: one world: a directory below /tmp, its sockets and victims, and the IPC objects of the host that belong to it.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import dataclasses
import fcntl
import functools
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import termios
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from skilld.scripts.plan import ETC_FILES, PROC_FILES, SYSTEM_DIRS
from tests.isolation import _fork

HERE = Path(__file__).parent
# A user that nobody is, so that signals to all its processes reach the victims only.
MADE_UP_UID = 61_847
PYTHON = "/usr/bin/python3"
START_S = 20.0

# What a program finds in every /dev; all else is a device of the machine.
HARMLESS_DEVICES = frozenset("null zero full random urandom tty ptmx".split())

# The modules of the attacking script, which finds them as the tests do.
MODULES = (
    "__init__",
    "catalogue",
    "kernel",
    "needs",
    "on_files",
    "on_kernel",
    "on_processes",
    "on_resources",
    "on_sockets",
)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass
class World:
    """
    One world, as the attacks get to know it by ``facts``.

    Attributes:
        uid: Who owns the daemon's files and the victims, and runs the scripts.
        directory: Holds everything that is a file.
        skill: The attacking skill's directory.
        facts: What the scripts are told; plain values.
    """

    uid: int
    directory: Path
    skill: Path
    facts: dict[str, Any]
    listener: subprocess.Popen[bytes]
    before: Mapping[str, str]

    @property
    def scratch(self) -> Path:
        """Where the daemon makes directories for its runs."""
        return self.directory / "run/scratch"

    def order(self, rung: str) -> str:
        """What the probe is told, in a sandbox."""
        needed = [*(f"/etc/{name}" for name in ETC_FILES), *SYSTEM_DIRS]
        if rung == "landlock":
            needed += ["/etc/nsswitch.conf", *PROC_FILES]
        there = [path for path in needed if os.path.exists(path)]
        return repr({**self.facts, "is_sandboxed": True, "rung": rung, "needed": there})

    def litter(self) -> list[str]:
        """What runs have left where the daemon makes directories for them."""
        return [name for name in os.listdir(self.scratch) if name != "launcher.py"]

    def reached(self) -> frozenset[str]:
        """Names of attacks whose effect is seen from outside."""
        victims = self.facts["victims"]

        def is_dead(name: str) -> bool:
            with open(f"/proc/{victims[name]}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] in "ZX"

        found = {name for name in victims if is_dead(name)}
        checks: dict[str, Callable[[int], bool]] = {
            "limit-victim": lambda pid: _open_files(pid) == 33,
            "renice-victim": lambda pid: os.getpriority(os.PRIO_PROCESS, pid) == 7,
            "renice-group": lambda pid: os.getpriority(os.PRIO_PROCESS, pid) == 7,
            "renice-user": lambda pid: os.getpriority(os.PRIO_PROCESS, pid) == 3,
            "pin-victim": lambda pid: os.sched_getaffinity(pid) == {0},
            "schedule-victim": lambda pid: os.sched_getscheduler(pid) == os.SCHED_IDLE,
            "schedule-by-attributes": lambda pid: os.sched_getscheduler(pid) == os.SCHED_BATCH,
        }
        found |= {name for name, check in checks.items() if name not in found and check(victims[name])}
        assert self.listener.stdout is not None
        with contextlib.suppress(BlockingIOError):
            if os.read(self.listener.stdout.fileno(), 64):
                found.add("kill-everybody")
        for name in ("tmp", "shm"):
            if os.path.exists(self.facts[f"left_{name}"]):
                found.add(f"leave-in-host-{name}")
        return frozenset(found)

    def traces(self) -> list[str]:
        """Paths of files that were made, changed or removed since the world began."""
        now = _listing(self.directory)
        return sorted(path for path in now.keys() | self.before.keys() if now.get(path) != self.before.get(path))


def _open_files(pid: int) -> int:
    """The soft limit of a process, which prlimit(2) does not tell everybody."""
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            return int(line.split()[3])
    return 0


def _listing(directory: Path) -> dict[str, str]:
    """Every path below a directory, with all that a write could change."""
    found = {}
    for parent, names, files in os.walk(directory):
        names[:] = [name for name in names if name != "run"]
        for name in (*names, *files):
            path = f"{parent}/{name}"
            status = os.lstat(path)
            found[path] = f"{status.st_mode:o} {status.st_size} {status.st_mtime_ns} {status.st_nlink}" if (
                not stat.S_ISDIR(status.st_mode)
            ) else f"{status.st_mode:o}"  # fmt: skip
    return found


@contextlib.contextmanager
def new_world(uid: int, *, limits: Mapping[str, int]) -> Iterator[World]:
    """A world for scripts that run as ``uid``; gone without a trace at the end."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redteam-")))
        directory.chmod(0o755)
        secret = f"secret-{secrets.token_hex(8)}"
        facts: dict[str, Any] = {
            "directory": str(directory), "secret": secret, "mark": f"mark-{secrets.token_hex(8)}",
            "host_name": os.uname().nodename, "limits": dict(limits), "is_sandboxed": False,
            "is_made_up": uid == MADE_UP_UID,
            "etc_files": [path for path in _etc_files() if os.path.exists(path)],
            "has_name": uid in {one.pw_uid for one in pwd.getpwall()},
        }  # fmt: skip
        skill = _write_files(directory, facts)
        _own(directory, uid)
        if os.geteuid() == 0:
            shutil.copy("/usr/bin/id", skill / "scripts/setuid-id")
            (skill / "scripts/setuid-id").chmod(0o4755)
            os.mknod(skill / "assets/device", stat.S_IFCHR | 0o666, os.makedev(1, 11))
            (skill / "assets/device").chmod(0o666)
        facts["has_setuid"] = facts["has_device"] = os.geteuid() == 0
        facts["handle"] = _handle(facts["key_file"])
        _share_files(stack, facts, uid)
        _share_ipc(stack, facts, uid)
        _open_sockets(stack, directory / "run", facts, uid)
        facts["devices"] = sorted(
            entry.path
            for entry in os.scandir("/dev")
            if entry.name not in HARMLESS_DEVICES
            and (stat.S_ISCHR(mode := entry.stat(follow_symlinks=False).st_mode) or stat.S_ISBLK(mode))
            and "tty" not in entry.name and "watchdog" not in entry.name and "console" not in entry.name
        )  # fmt: skip
        listener = _start_victims(stack, facts, uid)
        yield World(uid, directory, skill, facts, listener, _listing(directory))


def _etc_files() -> list[str]:
    return [f"/etc/{name}" for name in (*ETC_FILES, "passwd", "group", "nsswitch.conf")]


def _write_files(directory: Path, facts: dict[str, Any]) -> Path:
    secret = facts["secret"]
    skill, other, state = directory / "skills/attacker", directory / "skills/other", directory / "state"
    for path in (
        skill / "scripts",
        skill / "assets",
        other / "scripts",
        state,
        directory / "drop",
        directory / "run/scratch",
    ):
        path.mkdir(parents=True)
    (skill / "SKILL.md").write_text("---\nname: attacker\ndescription: Attacks.\n---\n\nAttack.\n")
    (other / "SKILL.md").write_text(f"---\nname: other\ndescription: Another skill.\n---\n\n{secret}\n")
    for name, content in _compiled().items():
        (skill / "scripts" / name).parent.mkdir(parents=True, exist_ok=True)
        (skill / "scripts" / name).write_bytes(content)
    for name in ("scripts/target.py", "assets/a", "assets/removable", "assets/long"):
        (skill / name).write_text("content\n")
    (other / "note").write_text("content\n")
    (state / "key").write_text(secret)
    (state / "key").chmod(0o600)
    (state / "public").write_text(secret)
    (skill / "assets/link-to-key").symlink_to(state / "key")
    facts |= {
        "key_file": str(state / "key"), "state_dir": str(state), "public_file": str(state / "public"),
        "other_skill": str(other), "drop": str(directory / "drop"),
    }  # fmt: skip
    return skill


@functools.cache
def _compiled() -> Mapping[str, bytes]:
    """The attacking script and its modules, compiled, since a sandbox keeps no caches: content by path."""
    with tempfile.TemporaryDirectory() as directory:
        package = Path(directory, "tests/redteam")
        package.mkdir(parents=True)
        (package.parent / "__init__.py").touch()
        for name in MODULES:
            shutil.copy(HERE / f"{name}.py", package)
        shutil.copy(HERE / "probe.py", directory)
        # By hash, for copies have other times.
        subprocess.run(
            [PYTHON, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", directory], check=True
        )
        files = (path for path in Path(directory).rglob("*") if path.is_file())
        return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def _own(directory: Path, uid: int) -> None:
    if os.geteuid() == 0:
        for parent, names, files in os.walk(directory):
            for name in (*names, *files):
                os.chown(f"{parent}/{name}", uid, uid, follow_symlinks=False)


def _handle(path: str) -> str:
    """The kernel's handle of a file as hexadecimal digits; empty where there is none."""
    handle, mount = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(132)), ctypes.c_int()
    if _libc.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(mount), 0):
        return ""
    return handle.raw[: 8 + int.from_bytes(handle.raw[:4], "little")].hex()


def _share_files(stack: contextlib.ExitStack, facts: dict[str, Any], uid: int) -> None:
    """Files in the places that a whole host shares."""
    for name, place in (("tmp", "/tmp"), ("shm", "/dev/shm")):
        with tempfile.NamedTemporaryFile("w", dir=place, prefix="redteam-", delete=False) as file:
            file.write(facts["secret"])
        os.chmod(file.name, 0o644)
        facts[f"{name}_file"] = file.name
        facts[f"left_{name}"] = f"{file.name}-left"
        for path in (file.name, f"{file.name}-left"):
            stack.callback(Path(path).unlink, missing_ok=True)


def _share_ipc(stack: contextlib.ExitStack, facts: dict[str, Any], uid: int) -> None:
    """System V objects and a POSIX queue that everybody may use."""
    _libc.shmat.restype = ctypes.c_void_p
    key = secrets.randbelow(1 << 30) + 1
    facts |= {"shm_key": key, "sem_key": key, "msg_key": key}
    create = 0o2000 | 0o1000 | 0o666  # IPC_EXCL, IPC_CREAT
    segment = _libc.shmget(key, 4096, create)
    stack.callback(_libc.shmctl, segment, 0, None)
    address = _libc.shmat(segment, None, 0)
    ctypes.memmove(address, facts["secret"].encode(), len(facts["secret"]))
    _libc.shmdt(ctypes.c_void_p(address))
    semaphores, queue = _libc.semget(key, 1, create), _libc.msgget(key, create)
    stack.callback(_libc.semctl, semaphores, 0, 0)
    stack.callback(_libc.msgctl, queue, 0, None)
    message = (1).to_bytes(8, "little") + facts["secret"].encode()
    _libc.msgsnd(queue, message, len(facts["secret"]), 0)
    assert min(segment, semaphores, queue) >= 0
    name = f"redteam-{key}"
    rt = ctypes.CDLL("librt.so.1", use_errno=True)
    descriptor = rt.mq_open(f"/{name}".encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
    facts["mq_name"] = name if descriptor >= 0 else ""
    if descriptor >= 0:
        os.close(descriptor)
        stack.callback(rt.mq_unlink, f"/{name}".encode())


def _open_sockets(stack: contextlib.ExitStack, run: Path, facts: dict[str, Any], uid: int) -> None:
    def listen(name: str | bytes, kind: int, mode: int = 0o777) -> socket.socket:
        one = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        one.bind(name)
        if kind != socket.SOCK_DGRAM:
            one.listen(64)
        if isinstance(name, str) and not name.startswith("\0"):
            os.chmod(name, mode)
            if os.geteuid() == 0:
                os.chown(name, uid, uid)
        return one

    facts["agent"] = str(run / "dstack.sock")
    facts["daemon_socket"] = str(run / "daemon.sock")
    facts["seqpacket"] = str(run / "seqpacket.sock")
    facts["datagram"] = str(run / "datagram.sock")
    facts["other_agents"] = [str(run / name) for name in ("tappd.sock", "agent.sock")]
    for path in (facts["agent"], *facts["other_agents"]):
        listen(path, socket.SOCK_STREAM)
    listen(facts["daemon_socket"], socket.SOCK_STREAM, 0o600)
    listen(facts["seqpacket"], socket.SOCK_SEQPACKET)
    listen(facts["datagram"], socket.SOCK_DGRAM)
    facts["abstract"], facts["abstract_datagram"] = (f"{facts['mark']}-{kind}" for kind in ("stream", "datagram"))
    listen("\0" + facts["abstract"], socket.SOCK_STREAM)
    listen("\0" + facts["abstract_datagram"], socket.SOCK_DGRAM)
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
    facts["tcp"] = tcp.getsockname()[1]
    facts["tcp6"] = 0
    with contextlib.suppress(OSError):
        tcp6 = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=64))
        facts["tcp6"] = tcp6.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        facts["free_tcp"] = free.getsockname()[1]
    answering = subprocess.Popen(
        [PYTHON, "-S", "-c", "import socket\ns = socket.socket(2, 2)\ns.bind(('127.0.0.1', 0))\n"
         "print(s.getsockname()[1], flush=True)\nwhile True: s.sendto(b'pong', s.recvfrom(9)[1])"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    stack.callback(_end, answering)
    assert answering.stdout is not None
    facts["udp"] = int(answering.stdout.readline())


VICTIMS = ("kill-victim", "kill-group", "tgkill", "tkill", "pidfd-signal", "signal-by-descriptor", "limit-victim",
           "renice-victim", "renice-group", "renice-user", "pin-victim", "schedule-victim", "schedule-by-attributes",
           "class-of-victim", "class-of-group", "class-of-user")  # fmt: skip


def _start_victims(stack: contextlib.ExitStack, facts: dict[str, Any], uid: int) -> subprocess.Popen[bytes]:
    """Start processes that stand for the daemon: one with secrets, one that hears signals, one for each push."""
    as_user: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []} if os.geteuid() == 0 else {}
    with open(facts["key_file"]) as key:
        rich = subprocess.Popen(
            ["sleep", "infinity"], pass_fds=(key.fileno(),), cwd=facts["state_dir"], start_new_session=True,
            env={"SECRET": facts["secret"]}, **as_user,
        )  # fmt: skip
        facts |= {"victim": rich.pid, "victim_fd": key.fileno()}
    stack.callback(_end, rich)
    # The program has begun once its environment is there.
    end = time.monotonic() + START_S
    while facts["secret"].encode() not in Path(f"/proc/{rich.pid}/environ").read_bytes():
        assert time.monotonic() < end
    # stat(5): env_start is the fiftieth field, the third comes after the name in parentheses.
    with open(f"/proc/{rich.pid}/stat") as file:
        facts["victim_address"] = int(file.read().rpartition(")")[2].split()[47])
    victims = {}
    for name in VICTIMS:
        victim = subprocess.Popen(["sleep", "infinity"], start_new_session=True, **as_user)
        victims[name] = victim.pid
        stack.callback(_end, victim)
    facts["victims"] = victims
    listener = subprocess.Popen(
        [PYTHON, "-S", "-c", "import os, signal\nsignal.signal(signal.SIGURG, lambda *_: os.write(1, b'u'))\n"
         "os.write(1, b'\\n')\nwhile True: signal.pause()", facts["mark"]],
        stdout=subprocess.PIPE, start_new_session=True, **as_user,
    )  # fmt: skip
    stack.callback(_end, listener)
    assert listener.stdout is not None
    listener.stdout.readline()
    os.set_blocking(listener.stdout.fileno(), False)
    return listener


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def in_child(uid: int, world: World, function: Callable[[], Any], *, dies: bool = False) -> Any:
    """
    Call a function in a child process that stands for the daemon; its result as JSON carries it.

    The child runs as ``uid``, was started from a terminal, has secrets in its environment, in its session's keyring
    and in a descriptor that its children inherit. One that ``dies`` kills itself, and has no result.
    """
    controller, terminal = os.openpty()
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = _fork()
    if child == 0:
        try:
            os.setsid()
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
            key = os.open(world.facts["key_file"], os.O_RDONLY)
            os.set_inheritable(key, True)
            if os.geteuid() != uid:
                os.fchown(terminal, uid, uid)
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                _libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: who changes its user loses it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.environ["REDTEAM_SECRET"] = world.facts["secret"]
            _libc.syscall(250, 1, None)  # keyctl: a new session keyring
            _libc.syscall(248, b"user", b"redteam", world.facts["secret"].encode(), len(world.facts["secret"]), -3)
            text = json.dumps(function()).encode()
            while text:
                text = text[os.write(writing, text) :]
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    os.close(terminal)
    with open(reading) as pipe:
        answer = pipe.read()
    status = os.waitpid(child, 0)[1]
    os.close(controller)
    if dies:
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        return None
    assert status == 0, f"the child failed: {status}"
    return json.loads(answer)


def run_without_sandbox(world: World, names: list[str]) -> str:
    """Run the probe as any program would be started, and return what it printed."""

    def run() -> str:
        return subprocess.run(
            [PYTHON, world.skill / "scripts/probe.py", *names], input=repr(world.facts), cwd=world.skill,
            stdout=subprocess.PIPE, text=True, close_fds=False, check=False,
            env={**os.environ, "HOME": str(world.directory / "drop"), "PYTHONDONTWRITEBYTECODE": "1"},
        ).stdout  # fmt: skip

    return str(in_child(world.uid, world, run))


def parse(text: str) -> dict[str, dict[str, Any]]:
    """What the probe printed: outcome by attack; a line that was cut short is none."""
    return {line["attack"]: line for line in map(ast.literal_eval, text.splitlines()) if line}
