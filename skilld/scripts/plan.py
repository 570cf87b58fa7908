"""
What a script may touch: everything that a sandbox is made of, as one value.

A plan names the mounts, the environment, the limits, the namespaces, the filter of system calls and the command. It is
made by :func:`make_plan` from plain values, printed by ``skilld run --explain``, and carried out by a backend
(``bubblewrap``, ``landlock``), which adds nothing of its own: what is not in the plan is not in the sandbox.

Two layouts. Under bubblewrap the root is an empty file system that holds only what the plan mounts: the skill at
``/skill``, read-only, ``/work`` and ``/tmp`` fresh. Without namespaces nothing can be mounted, so every "mount" is a
permission on a path of the host: the script starts in the skill directory and finds the rest by its environment.

Owns: nothing; values only.

Source: bwrap(1), landlock(7), getrlimit(2); measured: an allow-list root with this filter let none of 47 attacks
through, on bubblewrap 0.8.0 and 0.13.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from skilld.scripts import seccomp
from skilld.scripts.seccomp import Filter

Backend: TypeAlias = Literal["bubblewrap", "landlock", "none"]

# Where a script finds programs, inside and outside a namespace.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A script may clean up for this long after SIGTERM.
GRACE_S = 2.0
# RLIMIT_CPU ends a process only where nothing else has.
CPU_MARGIN_S = 5

# The user that a script under bubblewrap believes to be: not root, whoever runs the daemon.
INNER_UID = INNER_GID = 1000

# Below /etc, what programs need to start, check certificates and know the time; /etc/ssl itself holds private keys.
# Each costs bubblewrap a tenth of a millisecond.
ETC_FILES = ("ld.so.cache", "alternatives", "ssl/certs", "ssl/openssl.cnf", "localtime")
# Top-level directories that are links into /usr on a merged system, and directories of their own elsewhere.
SYSTEM_DIRS = ("/bin", "/lib", "/lib64", "/lib32", "/sbin")
# Devices that hold nothing and reach nothing.
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# What node and the C library read of /proc that tells nothing of other processes.
PROC_FILES = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/vm/overcommit_memory",
    "/proc/filesystems",
)

# What a fresh /proc still shows of the whole machine: the daemon's keys to everybody, and to root, whom a namespace of
# users does not make another, the layout of the kernel. Hidden where the daemon's user may read it.
PROC_MASKED = (
    "/proc/keys",
    "/proc/key-users",
    "/proc/kcore",
    "/proc/kallsyms",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/kpagecgroup",
    "/proc/vmallocinfo",
    "/proc/timer_list",
    "/proc/slabinfo",
    "/proc/pagetypeinfo",
    "/proc/kmsg",
    "/proc/sysrq-trigger",
)

DEV_BYTES = 8 * 1024 * 1024

# What a script's environment holds beside the caller's; PWD is bubblewrap's doing.
VARIABLES = (
    "PATH",
    "LANG",
    "HOME",
    "TMPDIR",
    "SKILL_NAME",
    "SKILL_VERSION",
    "SKILL_DIR",
    "SKILL_ROOT",
    "SKILL_BASE_DIR",
    "SKILLD_WORK_DIR",
    "PYTHONDONTWRITEBYTECODE",
    "VIRTUAL_ENV",
    "PWD",
)

# bubblewrap's namespaces, in the order of its options.
NAMESPACES = ("user", "pid", "net", "ipc", "uts", "cgroup")
# What else bubblewrap is told: each is an option of its own.
HARDENING = ("disable-userns", "die-with-parent", "new-session", "cap-drop")

# Descriptors that a mount may name as its source: the skill directory, and, without namespaces, fresh directories.
SKILL, WORK, TMP = "@skill", "@work", "@tmp"


@dataclass(frozen=True)
class Mount:
    """
    One thing in the sandbox's file system.

    ``kind`` is ``bind`` (``source`` is a path of the host, or "@skill", "@work", "@tmp" for an open directory),
    ``data`` (a read-only file that holds ``source``), ``symlink`` (to ``source``), ``tmpfs`` (of ``size_bytes``),
    ``proc``, ``dev`` or ``remount-ro``. An optional bind is left out where the host has no such path.
    """

    kind: Literal["bind", "data", "symlink", "tmpfs", "proc", "dev", "remount-ro"]
    target: str
    source: str = ""
    size_bytes: int = 0
    is_writable: bool = False
    is_optional: bool = False


@dataclass(frozen=True)
class Plan:
    """
    A sandbox and what runs in it.

    Attributes:
        backend: Who carries it out.
        argv: The interpreter, by its path inside, and its arguments. Never a shell's command line.
        cwd: Where it starts: a path inside, or "@skill".
        environment: All of it; nothing is inherited.
        mounts: In their order.
        rlimits: By the name of ``resource.RLIMIT_*`` without its prefix, in the kernel's units. Under
            "landlock" and "none" the kernel counts NPROC over all of a user's processes, so that the launcher adds
            those that there are.
        namespaces: New ones, of bubblewrap's.
        hardening: bubblewrap's other locks.
        cgroup: What bounds all processes of the run together, by the names of the group's files; nothing where no group
            is delegated to the daemon.
        filter: The system calls that are refused; None for no filter.
        is_scoped: Landlock confines: paths, TCP, signals and abstract sockets.
    """

    backend: Backend
    argv: tuple[str, ...]
    cwd: str
    environment: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    rlimits: tuple[tuple[str, int], ...]
    namespaces: tuple[str, ...] = ()
    hardening: tuple[str, ...] = ()
    cgroup: tuple[tuple[str, str], ...] = ()
    filter: Filter | None = None
    is_scoped: bool = False

    def to_json(self) -> dict[str, Any]:
        """The plan for people: ``skilld run --explain``."""
        return {
            "backend": self.backend,
            "argv": list(self.argv),
            "cwd": self.cwd,
            "environment": dict(self.environment),
            "mounts": [
                {
                    "kind": mount.kind,
                    "target": mount.target,
                    **({"source": mount.source} if mount.source and mount.kind != "data" else {}),
                    **({"size_bytes": mount.size_bytes} if mount.size_bytes else {}),
                    "writable": mount.is_writable,
                    **({"optional": True} if mount.is_optional else {}),
                }
                for mount in self.mounts
            ],
            "rlimits": dict(self.rlimits),
            "cgroup": dict(self.cgroup),
            "namespaces": list(self.namespaces),
            "hardening": list(self.hardening),
            "landlock": self.is_scoped,
            "seccomp": None if self.filter is None else [rule.to_json() for rule in self.filter.rules],
        }


@dataclass(frozen=True)
class Allowance:
    """
    How much a run may use, and which paths of the host it may read beside the system's.

    ``memory_bytes`` bounds the data of each process; what all of them hold together is the runner's business.
    """

    memory_bytes: int
    max_processes: int
    file_bytes: int
    open_files: int
    tmp_bytes: int
    work_bytes: int
    extra_ro: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """
    What is to be run.

    Args:
        skill_name: The frontmatter's label.
        skill_version: ``metadata.version``, or "".
        script: Path relative to the skill directory, such as "scripts/run.py".
        interpreter: A path, and the options that come before the script.
        args: The caller's.
        environment: The caller's; checked.
        timeout_s: Wall-clock seconds.
        venv: A prepared environment of the interpreter, or "".
    """

    skill_name: str
    script: str
    interpreter: tuple[str, ...]
    skill_version: str = ""
    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0
    venv: str = ""


@dataclass(frozen=True)
class Host:
    """
    What the plan must know of the host.

    Args:
        links: Top-level directories that are links into /usr, with their targets.
        dirs: Top-level directories that are none, such as /lib on a system that is not merged.
        work_dir: Without namespaces, the fresh directory that stands for /work; its ``tmp`` stands for /tmp.
        controllers: What the cgroup can bound that is delegated to the daemon: "memory", "pids".
        shares_proc: Whether no fresh /proc can be mounted, so that the host's is shown, read-only.
        masked: Those of ``PROC_MASKED`` that the daemon's user may read.
    """

    links: tuple[tuple[str, str], ...] = ()
    dirs: tuple[str, ...] = ()
    work_dir: str = ""
    tmp_dir: str = ""
    controllers: tuple[str, ...] = ()
    shares_proc: bool = False
    masked: tuple[str, ...] = ()


def make_plan(backend: Backend, target: Target, allowance: Allowance, host: Host) -> Plan:
    """
    Make the plan of a run.

    Args:
        backend: Who will carry it out.
        target: What is to be run.
        allowance: How much it may use.
        host: What the host looks like.
    """
    if backend == "bubblewrap":
        return Plan(
            backend,
            argv=(*target.interpreter, f"/skill/{target.script}", *target.args),
            cwd="/skill",
            environment=_environment(target, "/skill", "/work", "/tmp"),  # noqa: S108 - inside
            mounts=_mounts(allowance, host, target.venv),
            rlimits=_rlimits(target, allowance),
            namespaces=NAMESPACES,
            hardening=HARDENING,
            # Its own first process is in the group, too.
            cgroup=_group_limits(allowance, host.controllers, 1),
            filter=Filter(seccomp.COMMON + seccomp.ISOLATED_NET),
        )
    confined = backend == "landlock"
    return Plan(
        backend,
        argv=(*target.interpreter, target.script, *target.args),
        cwd=SKILL,
        environment=_environment(target, ".", host.work_dir, host.tmp_dir),
        mounts=_permissions(allowance, host, target.venv) if confined else (),
        rlimits=_rlimits(target, allowance),
        cgroup=_group_limits(allowance, host.controllers, 0),
        filter=Filter(seccomp.COMMON + seccomp.SHARED_HOST) if confined else None,
        is_scoped=confined,
    )


def _environment(target: Target, skill_dir: str, work_dir: str, tmp_dir: str) -> tuple[tuple[str, str], ...]:
    """The caller's variables and ours; ours win, though the caller's were checked not to collide."""
    ours = {
        "PATH": f"{target.venv}/bin:{PATH}" if target.venv else PATH,
        "LANG": "C.UTF-8",
        "HOME": work_dir,
        "TMPDIR": tmp_dir,
        "SKILL_NAME": target.skill_name,
        **({"SKILL_VERSION": target.skill_version} if target.skill_version else {}),
        "SKILL_DIR": skill_dir,
        "SKILL_ROOT": skill_dir,
        "SKILL_BASE_DIR": skill_dir,
        "SKILLD_WORK_DIR": work_dir,
        # The skill is read-only; without this, Python tries to write its caches at every import.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if target.venv:
        ours["VIRTUAL_ENV"] = target.venv
    return tuple({**target.environment, **ours}.items())


def _mounts(allowance: Allowance, host: Host, venv: str) -> tuple[Mount, ...]:
    """
    An allow-list root for bubblewrap.

    Nothing is mounted below /skill, /work or an ``extra_ro`` of the host: a mount point below a directory whose content
    somebody else decides follows that one's links (CVE-2026-87766). /dev and / are tmpfs that would be writable.
    """
    etc = (Mount("bind", f"/etc/{name}", f"/etc/{name}", is_optional=True) for name in ETC_FILES)
    passwd = f"skill:x:{INNER_UID}:{INNER_GID}::/work:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"
    proc = Mount("bind", "/proc", "/proc") if host.shares_proc else Mount("proc", "/proc")
    return (
        Mount("bind", "/usr", "/usr"),
        *(Mount("symlink", path, link) for path, link in host.links),
        *(Mount("bind", path, path) for path in host.dirs),
        *etc,
        Mount("data", "/etc/passwd", passwd),
        Mount("data", "/etc/group", f"skill:x:{INNER_GID}:\nnogroup:x:65534:\n"),
        *(Mount("bind", path, path) for path in (*allowance.extra_ro, *((venv,) if venv else ()))),
        proc,
        *(Mount("bind", path, "/dev/null") for path in host.masked),
        # Root's script may write to /proc/sys as root.
        Mount("remount-ro", "/proc"),
        Mount("dev", "/dev"),
        Mount("tmpfs", "/dev/shm", size_bytes=DEV_BYTES, is_writable=True),  # noqa: S108 - inside
        Mount("remount-ro", "/dev"),
        Mount("tmpfs", "/tmp", size_bytes=allowance.tmp_bytes, is_writable=True),  # noqa: S108 - inside
        Mount("bind", "/skill", SKILL),
        Mount("tmpfs", "/work", size_bytes=allowance.work_bytes, is_writable=True),
        Mount("remount-ro", "/"),
    )


def _permissions(allowance: Allowance, host: Host, venv: str) -> tuple[Mount, ...]:
    """What Landlock lets a script open: all else of the host is there, and closed."""
    system = ("/usr", *host.dirs, *(f"/etc/{name}" for name in (*ETC_FILES, "passwd", "group", "nsswitch.conf")))
    return (
        *(Mount("bind", path, path, is_optional=path != "/usr") for path in system),
        *(Mount("bind", path, path) for path in (*allowance.extra_ro, *((venv,) if venv else ()))),
        *(Mount("bind", path, path, is_optional=True) for path in PROC_FILES),
        *(Mount("bind", path, path, is_writable=True) for path in DEVICES),
        Mount("bind", ".", SKILL),
        Mount("bind", host.work_dir, WORK, is_writable=True),
        Mount("bind", host.tmp_dir, TMP, is_writable=True),
    )


def _group_limits(
    allowance: Allowance, controllers: tuple[str, ...], extra_processes: int
) -> tuple[tuple[str, str], ...]:
    limits = (
        ("memory.max", str(allowance.memory_bytes)),
        ("memory.swap.max", "0"),
        # Half a script is of no use to anybody.
        ("memory.oom.group", "1"),
        ("pids.max", str(allowance.max_processes + extra_processes)),
    )
    return tuple((name, value) for name, value in limits if name.partition(".")[0] in controllers)


def _rlimits(target: Target, allowance: Allowance) -> tuple[tuple[str, int], ...]:
    cpu_s = math.ceil(target.timeout_s + GRACE_S) + CPU_MARGIN_S
    return (
        ("CORE", 0),
        ("NOFILE", allowance.open_files),
        ("NPROC", allowance.max_processes),
        ("FSIZE", allowance.file_bytes),
        # Address space would stop node, which reserves much more than it uses.
        ("DATA", allowance.memory_bytes),
        ("CPU", cpu_s),
        ("MSGQUEUE", 0),
        ("MEMLOCK", 0),
    )
