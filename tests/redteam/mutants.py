"""
Plans with one part taken away or weakened, and which attack or need must notice.

Owns: the table of parts and what notices their absence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from skilld.scripts.plan import Mount, Plan
from skilld.scripts.runner import Bounds
from skilld.scripts.seccomp import Filter
from tests.redteam.rungs import BOUNDS, Change

# In place of an attack: without this part no script runs at all.
FAILS = "the script does not run"

# The watchdog's bounds, so wide that it sees nothing.
LAX = Bounds(timeout_s=40, output_bytes=1 << 20, memory_bytes=1 << 40, max_processes=100_000)


@dataclass(frozen=True)
class Mutant:
    """
    A plan without a part.

    Attributes:
        part: Names the part, such as "namespace net" or "rule keyring".
        change: Takes it away.
        bounds: Of the runner.
    """

    part: str
    change: Change
    bounds: Bounds = BOUNDS


def mutants(plan: Plan) -> Iterator[Mutant]:
    """Every part of a plan, taken away; and what could be weaker."""
    for index, mount in enumerate(plan.mounts):
        yield Mutant(_name(mount), _without_mount(index))
        if mount.kind == "bind" and not mount.is_writable and not mount.target.startswith("/proc"):
            yield Mutant(f"read-only {mount.target}", _with_mount(index, is_writable=True))
        if mount.kind == "tmpfs":
            yield Mutant(f"size of {mount.target}", _with_mount(index, size_bytes=1 << 34))
        if mount.kind in ("tmpfs", "proc", "dev", "data") and mount.target != "/work":
            yield Mutant(f"own {mount.target}", _with_mount(index, kind="bind", source=mount.target, is_writable=True))
    for name in plan.namespaces:
        yield Mutant(f"namespace {name}", _without_namespace(name))
    for name in plan.hardening:
        yield Mutant(f"hardening {name}", _without_hardening(name))
    for name, _ in plan.rlimits:
        yield Mutant(f"limit {name}", _without_limit(name), LAX if name == "NPROC" else BOUNDS)
    if plan.is_scoped:
        yield Mutant("Landlock", lambda plan: replace(plan, is_scoped=False))
    yield Mutant("watchdog", lambda plan: plan, LAX)
    yield Mutant("filter", lambda plan: replace(plan, filter=None))
    assert plan.filter is not None
    yield Mutant("filter kills_foreign", _with_filter(lambda filter: replace(filter, kills_foreign=False)))
    yield Mutant("filter refuses_x32", _with_filter(lambda filter: replace(filter, refuses_x32=False)))
    yield Mutant("filter refuses_unknown", _with_filter(lambda filter: replace(filter, refuses_unknown=False)))
    for rule in plan.filter.rules:
        yield Mutant(f"rule {rule.name}", _without_rule(rule.name))


def _name(mount: Mount) -> str:
    return f"{mount.kind} {mount.source if mount.source.startswith('@') else mount.target}"


def _without_mount(index: int) -> Change:
    return lambda plan: replace(plan, mounts=plan.mounts[:index] + plan.mounts[index + 1 :])


def _with_mount(index: int, **fields: object) -> Change:
    def change(plan: Plan) -> Plan:
        weaker = replace(plan.mounts[index], **fields)  # type: ignore[arg-type]  # one of Mount's own fields
        return replace(plan, mounts=(*plan.mounts[:index], weaker, *plan.mounts[index + 1 :]))

    return change


def _without_namespace(name: str) -> Change:
    def change(plan: Plan) -> Plan:
        if name == "pid":
            # A fresh /proc needs a namespace of its own.
            plan = _with_proc_of_host(plan)
        return replace(plan, namespaces=tuple(one for one in plan.namespaces if one != name))

    return change


def _without_hardening(name: str) -> Change:
    return lambda plan: replace(plan, hardening=tuple(one for one in plan.hardening if one != name))


def _without_limit(name: str) -> Change:
    return lambda plan: replace(plan, rlimits=tuple(one for one in plan.rlimits if one[0] != name))


def _with_proc_of_host(plan: Plan) -> Plan:
    return replace(
        plan, mounts=tuple(Mount("bind", "/proc", "/proc") if one.kind == "proc" else one for one in plan.mounts)
    )


def _with_filter(change: Callable[[Filter], Filter]) -> Change:
    def change_plan(plan: Plan) -> Plan:
        assert plan.filter is not None
        return replace(plan, filter=change(plan.filter))

    return change_plan


def _without_rule(name: str) -> Change:
    return _with_filter(lambda filter: replace(filter, rules=tuple(rule for rule in filter.rules if rule.name != name)))


RULES = {
    "io_uring": "call-io-uring-enter",
    "keyring": "search-keyring",
    "tracing": "ptrace-own-child",
    "namespaces": "call-setns",
    "new namespaces": "call-clone",
    "clone3": "call-clone3",
    "mounting": "call-fsconfig",
    "file handles": "name-to-handle",
    "kernel programs": "call-userfaultfd",
    "watching all files": "fanotify",
    "the machine": "call-modify-ldt",
    "clock and name": "call-clock-settime",
    "memory of other nodes": "call-move-pages",
    "unbounded memory": "call-memfd-create",
    "System V IPC": "call-semop",
    "message queues": "call-mq-unlink",
    "limits of others": "call-prlimit64",
    "terminal input": "tiocsti-is-known",
    "terminal console": "tioclinux-is-known",
    "terminal discipline": "tiocsetd-is-known",
    "personality": "personality",
    "socket pairs but Unix ones": "pair-of-another-family",
}

# What notices, by rung and part; a part that is not here is in UNNOTICED, with the reason.
NOTICES: Mapping[str, Mapping[str, str]] = {
    "bubblewrap": {
        **{f"rule {name}": notices for name, notices in RULES.items()},
        "rule sockets but Unix ones": "netlink",
        "bind /usr": FAILS,
        "symlink /lib64": FAILS,
        "bind @skill": FAILS,
        "data /etc/passwd": "need-passwd-file",
        "data /etc/group": "need-group-file",
        "own /etc/passwd": "host-users",
        "proc /proc": "need-own-descriptors",
        "own /proc": "process-list",
        "remount-ro /proc": "any-setting",
        "bind /proc/keys": "list-keys",
        "bind /proc/key-users": "list-owners-of-keys",
        "bind /proc/kallsyms": "kernel-symbols",
        "dev /dev": "need-devices",
        # The host's devices are there then, and cannot be used: bubblewrap mounts with nodev.
        "own /dev": "need-devices",
        "remount-ro /dev": "fill-elsewhere",
        "tmpfs /dev/shm": "need-shared-memory",
        "size of /dev/shm": "fill-elsewhere",
        "own /dev/shm": "read-host-shm",
        "tmpfs /tmp": "need-temporary-file",
        "size of /tmp": "fill-tmp",
        "own /tmp": "read-host-tmp",
        "tmpfs /work": "need-home",
        "size of /work": "fill-home",
        "remount-ro /": "fill-elsewhere",
        "read-only /usr": "write-usr",
        "read-only /skill": "create-in-skill",
        "namespace user": FAILS,
        "namespace pid": "process-list",
        "namespace net": "abstract-stream",
        "namespace ipc": "ipc-listing",
        "namespace uts": "host-name",
    },
    "landlock": {
        **{f"rule {name}": notices for name, notices in RULES.items()},
        "rule sockets": "netlink",
        "rule datagram pairs": "datagram-pair-sendto",
        "rule connections": "call-connect",
        "rule attributes of files": "chmod-and-write",
        "rule watching files": "inotify",
        "rule priority of groups": "renice-user",
        "rule priority of others": "renice-victim",
        "rule disk priority of others": "class-of-victim",
        "rule scheduling of others": "pin-victim",
        "Landlock": "key-file",
        "bind /usr": FAILS,
        "bind @skill": FAILS,
        "bind @work": "need-home",
        "bind @tmp": "need-temporary-file",
        "bind /etc/passwd": "need-passwd-file",
        "bind /etc/group": "need-group-file",
        "read-only /usr": "write-usr",
        "read-only .": "create-in-skill",
    },
}
# Likewise, whatever the rung.
BY_EVERY_RUNG: Mapping[str, str] = {
    "filter": "call-keyctl",
    "filter kills_foreign": "i386-entry",
    "limit CORE": "core-dump",
    "limit NOFILE": "descriptors",
    "limit NPROC": "fork-bomb",
    "limit FSIZE": "endless-file",
    "limit DATA": "private-memory",
    "limit CPU": "endless-time",
    "limit MSGQUEUE": "queue-memory",
    "limit MEMLOCK": "lock-memory",
    "watchdog": "heap",
}
# Parts that no attack misses on this machine, and why they stand nevertheless.
UNNOTICED: Mapping[str, str] = {
    "landlock: bind /etc/localtime": "a link into /usr, which may be read anyway, on most systems",
    "landlock: rule disk priority of groups": "alone it keeps a script from its own group only",
    "bind /proc/kcore": "the kernel demands privileges, too",
    "bind /proc/kmsg": "the kernel demands privileges, too",
    "bind /proc/sysrq-trigger": "behind the read-only /proc",
    "hardening cap-drop": "a script that is not root inside has none to begin with",
    "namespace cgroup": "hides the names of the daemon's control groups, where it is in one",
    "hardening disable-userns": "behind the rules of the filter on namespaces; the test of two locks shows it",
    "hardening die-with-parent": "the test of the daemon's death shows it",
    "hardening new-session": "bwrap is started in a session of its own already",
    "rule kernel log": "kernel.dmesg_restrict refuses it, too, where it is set",
    "filter refuses_x32": "most kernels have no x32",
    "filter refuses_unknown": "for calls of kernels to come",
    "own /etc/group": "who is in which group, no more",
}


def unnoticed(rung: str, part: str) -> str:
    """The reason why nothing notices that a part is missing; empty where something does."""
    return UNNOTICED.get(part) or UNNOTICED.get(f"{rung}: {part}", "")


def notices(rung: str, part: str) -> str:
    """
    What notices that a part is missing.

    Raises:
        KeyError: Nothing does.
    """
    if unnoticed(rung, part):
        raise KeyError(part)
    known = {**BY_EVERY_RUNG, **NOTICES[rung]}
    if part in known:
        return known[part]
    kind, _, path = part.partition(" ")
    if kind in ("bind", "symlink") and path.startswith("/"):
        if path.startswith("/dev/"):
            return "need-devices"
        # A file of the host's that programs look for, or something of its kernel's that is covered.
        return "kernel-memory" if path.startswith("/proc") and rung == "bubblewrap" else "need-host-files"
    if kind == "read-only" and path.startswith("/etc/"):
        return "write-etc-files"
    raise KeyError(part)
