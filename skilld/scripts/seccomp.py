"""
The filter of system calls: rules as data, and their translation into a classic BPF program.

A rule refuses some calls, always or where an argument says so; what no rule refuses is allowed. Beside the rules
a filter kills calls by another machine's convention (on x86-64 the i386 entry, whose numbers mean other calls), answers
x32's with ENOSYS, and likewise all calls that are newer than its table.

The filter is a lock behind others: under bubblewrap behind namespaces that close most of this by themselves, without
them behind Landlock. It bears the load alone where the kernel gives neither: sockets that reach out of the virtual
machine (vsock), the daemon's keyring, io_uring, and kernel interfaces that no script needs.

Owns: nothing; values only.

Source: seccomp(2), bpf(4) of 4.4BSD; measured: with namespaces alone AF_VSOCK, AF_NETLINK, io_uring, add_key,
userfaultfd and the i386 entry stay open.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from skilld.scripts.syscalls import AUDIT_ARCHES, LAST_KNOWN, X32_BIT, number_of

# Offsets in struct seccomp_data.
_NR, _ARCH, _ARGS = 0, 4, 16

# Instructions: BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, BPF_JMP|BPF_{JA,JEQ,JGT,JSET}|BPF_K, BPF_RET|BPF_K.
_LOAD, _AND, _JA, _JEQ, _JGT, _JSET, _RET = 0x20, 0x54, 0x05, 0x15, 0x25, 0x45, 0x06
# (code, jump if true, jump if false, operand)
Instruction: TypeAlias = tuple[int, int, int, int]
# Calls of neighbouring numbers that are looked through one by one.
_BUCKET = 8

_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000

AF_UNIX = 1
SOCK_DGRAM = 2
_SOCK_TYPE_MASK = 0xF
# CLONE_NEWTIME, NS, CGROUP, UTS, IPC, USER, PID, NET.
CLONE_NEW = 0x80 | 0x20000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_PRIO_PROCESS, _IOPRIO_WHO_PROCESS = 0, 1
TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423


@dataclass(frozen=True)
class Test:
    """
    A question about an argument, of which the lower 32 bits count: all arguments asked about are ints to the kernel.

    ``eq`` and ``ne`` compare the bits of ``mask`` with ``value``; ``any`` asks whether any bit of ``value`` is set.
    """

    argument: int
    op: Literal["eq", "ne", "any"]
    value: int
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True)
class Rule:
    """
    Calls that are refused with an error, and why.

    Args:
        name: Of the rule, for people and tests.
        calls: Names of system calls.
        error: Name of the errno.
        when: All of these must hold; none is always.
    """

    name: str
    calls: tuple[str, ...]
    error: str = "EPERM"
    when: tuple[Test, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The rule for people."""
        tests = [f"arg{test.argument} {test.op} {test.value:#x}" for test in self.when]
        return {"rule": self.name, "calls": list(self.calls), "error": self.error, **({"when": tests} if tests else {})}


@dataclass(frozen=True)
class Filter:
    """The rules and the three refusals that come before them."""

    rules: tuple[Rule, ...]
    kills_foreign: bool = True
    refuses_x32: bool = True
    refuses_unknown: bool = True


# What no script needs, whoever confines it.
COMMON = (
    Rule("io_uring", ("io_uring_setup", "io_uring_enter", "io_uring_register")),
    Rule("keyring", ("add_key", "request_key", "keyctl")),
    Rule(
        "tracing",
        (
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd",
            "kcmp",
            "process_madvise",
            "process_mrelease",
        ),
    ),
    Rule("namespaces", ("unshare", "setns")),
    Rule("new namespaces", ("clone",), when=(Test(0, "any", CLONE_NEW),)),
    # Its flags lie in memory, where no filter looks. The C library falls back to clone.
    Rule("clone3", ("clone3",), "ENOSYS"),
    Rule(
        "mounting",
        (
            "mount",
            "umount2",
            "pivot_root",
            "chroot",
            "open_tree",
            "open_tree_attr",
            "move_mount",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "mount_setattr",
            "statmount",
            "listmount",
        ),
    ),
    Rule("file handles", ("open_by_handle_at", "name_to_handle_at")),
    Rule("kernel programs", ("bpf", "perf_event_open", "userfaultfd")),
    Rule("kernel log", ("syslog",)),
    Rule("watching all files", ("fanotify_init", "fanotify_mark")),
    Rule(
        "the machine",
        (
            "reboot",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "delete_module",
            "swapon",
            "swapoff",
            "acct",
            "quotactl",
            "quotactl_fd",
            "iopl",
            "ioperm",
            "modify_ldt",
            "uselib",
            "vhangup",
            "lookup_dcookie",
        ),
    ),
    Rule(
        "clock and name", ("clock_settime", "settimeofday", "adjtimex", "clock_adjtime", "sethostname", "setdomainname")
    ),
    Rule("memory of other nodes", ("mbind", "set_mempolicy", "migrate_pages", "move_pages")),
    # Memory that no rlimit and no tmpfs bounds.
    Rule("unbounded memory", ("memfd_create", "memfd_secret"), "ENOSYS"),
    Rule(
        "System V IPC",
        (
            "shmget",
            "shmat",
            "shmctl",
            "shmdt",
            "semget",
            "semop",
            "semctl",
            "semtimedop",
            "msgget",
            "msgsnd",
            "msgrcv",
            "msgctl",
        ),
        "ENOSYS",
    ),
    Rule(
        "message queues",
        ("mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr"),
        "ENOSYS",
    ),
    Rule("limits of others", ("prlimit64",), when=(Test(0, "ne", 0),)),
    Rule("terminal input", ("ioctl",), when=(Test(1, "eq", TIOCSTI),)),
    Rule("terminal console", ("ioctl",), when=(Test(1, "eq", TIOCLINUX),)),
    Rule("terminal discipline", ("ioctl",), when=(Test(1, "eq", TIOCSETD),)),
    Rule("personality", ("personality",), when=(Test(0, "ne", 0), Test(0, "ne", 0xFFFFFFFF))),
)

# Where the network and the file system are the sandbox's own, Unix sockets reach only the script's own processes.
ISOLATED_NET = (
    Rule("sockets but Unix ones", ("socket",), "EAFNOSUPPORT", (Test(0, "ne", AF_UNIX),)),
    Rule("socket pairs but Unix ones", ("socketpair",), "EAFNOSUPPORT", (Test(0, "ne", AF_UNIX),)),
)

# Where everything is the host's: no socket at all, and no hand on other processes of the same user.
SHARED_HOST = (
    Rule("sockets", ("socket",), "EAFNOSUPPORT"),
    Rule("socket pairs but Unix ones", ("socketpair",), "EAFNOSUPPORT", (Test(0, "ne", AF_UNIX),)),
    # One end of a pair of datagram sockets can be pointed at any path.
    Rule("datagram pairs", ("socketpair",), "EPERM", (Test(1, "eq", SOCK_DGRAM, _SOCK_TYPE_MASK),)),
    Rule("connections", ("connect", "bind", "listen")),
    # Landlock guards what is in a file, not its mode, owner, times and attributes; a skill's digest covers the mode.
    Rule(
        "attributes of files",
        (
            "chmod",
            "fchmod",
            "fchmodat",
            "fchmodat2",
            "chown",
            "fchown",
            "lchown",
            "fchownat",
            "utime",
            "utimes",
            "utimensat",
            "futimesat",
            "setxattr",
            "lsetxattr",
            "fsetxattr",
            "setxattrat",
            "removexattr",
            "lremovexattr",
            "fremovexattr",
            "removexattrat",
            "file_setattr",
        ),
    ),
    Rule("watching files", ("inotify_init", "inotify_init1", "inotify_add_watch")),
    Rule("priority of groups", ("setpriority",), when=(Test(0, "ne", _PRIO_PROCESS),)),
    Rule("priority of others", ("setpriority",), when=(Test(1, "ne", 0),)),
    Rule("disk priority of groups", ("ioprio_set",), when=(Test(0, "ne", _IOPRIO_WHO_PROCESS),)),
    Rule("disk priority of others", ("ioprio_set",), when=(Test(1, "ne", 0),)),
    Rule(
        "scheduling of others",
        ("sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity"),
        when=(Test(0, "ne", 0),),
    ),
)


def assemble(filter: Filter, machine: str) -> bytes:
    """
    Translate a filter into the program that ``seccomp(SECCOMP_SET_MODE_FILTER)`` and ``bwrap --seccomp`` take.

    Args:
        filter: The rules.
        machine: ``x86_64`` or ``aarch64``, as ``platform.machine()`` says.

    Returns:
        An array of ``struct sock_filter`` in the machine's byte order (both are little-endian).

    Raises:
        KeyError: No such machine.
    """
    return b"".join(struct.pack("<HBBI", *one) for one in _instructions(filter, machine))


def _instructions(filter: Filter, machine: str) -> Iterator[Instruction]:
    """Yield the program; jumps count instructions from the next one."""
    arch = AUDIT_ARCHES[machine]
    if filter.kills_foreign:
        yield _LOAD, 0, 0, _ARCH
        yield _JEQ, 1, 0, arch
        yield _RET, 0, 0, _KILL_PROCESS
    yield _LOAD, 0, 0, _NR
    if machine == "x86_64" and filter.refuses_x32:
        yield _JSET, 0, 1, X32_BIT
        yield _RET, 0, 0, _ERRNO | errno.ENOSYS
    if filter.refuses_unknown:
        # x32's numbers are beyond all known ones; they have a refusal of their own.
        if machine == "x86_64":
            yield _JSET, 2, 0, X32_BIT
        yield _JGT, 0, 1, LAST_KNOWN
        yield _RET, 0, 0, _ERRNO | errno.ENOSYS
    blocks = _blocks(filter.rules, machine)
    numbers = sorted(blocks)
    # The kernel runs a new filter for every number there is, to learn which calls are always allowed; in one long row
    # that took half a millisecond a run.
    for start in range(0, len(numbers), _BUCKET):
        bucket = numbers[start : start + _BUCKET]
        body = [one for number in bucket for one in blocks[number]]
        yield _JGT, 0, 1, bucket[-1]
        yield _JA, 0, 0, len(body) + 1
        yield from body
        yield _RET, 0, 0, _ALLOW
    yield _RET, 0, 0, _ALLOW


def _blocks(rules: tuple[Rule, ...], machine: str) -> dict[int, list[Instruction]]:
    """By number, what becomes of a call of it; the number is loaded, and the block is left where it is another."""
    by_number: dict[int, list[Rule]] = {}
    for rule in rules:
        for call in rule.calls:
            if (number := number_of(call, machine)) is not None:
                by_number.setdefault(number, []).append(rule)
    blocks = {}
    for number, its_rules in by_number.items():
        body: list[Instruction] = []
        for rule in its_rules:
            questions = [one for test in rule.when for one in _asked(test)]
            for index, (code, yes, no, operand) in enumerate(questions):
                # The first "no" leads behind the refusal.
                leave = len(questions) - index
                body.append((code, leave if yes else 0, leave if no else 0, operand))
            body.append((_RET, 0, 0, _ERRNO | getattr(errno, rule.error)))
        body.append((_RET, 0, 0, _ALLOW))
        blocks[number] = [(_JEQ, 0, len(body), number), *body]
    return blocks


def _asked(test: Test) -> Iterator[tuple[int, bool, bool, int]]:
    """Yield instructions of one question: (code, leave if true, leave if false, operand)."""
    yield _LOAD, False, False, _ARGS + 8 * test.argument
    if test.op == "any":
        yield _JSET, False, True, test.value
        return
    if test.mask != 0xFFFFFFFF:
        yield _AND, False, False, test.mask
    yield _JEQ, test.op == "ne", test.op == "eq", test.value
