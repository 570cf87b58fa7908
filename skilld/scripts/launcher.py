"""
The fork server of the rungs without namespaces: a small program of its own, started before the daemon holds any secret.

The daemon sends an order and descriptors over a socket; the server forks a *keeper* for it, and the keeper forks the
script. The keeper and the script are in Landlock domains, the script's inside the keeper's, so that the keeper's
``kill(-1)`` reaches exactly the script's processes, and no signal of the script's reaches the keeper or anything else.
The keeper is the reaper of all that the script leaves behind. It ends them when the script ends, when it is told to,
and when the daemon is gone.

It runs as ``python3 -I -S launcher.py [confined]`` and imports nothing of skilld: a fork of the daemon itself would
take its threads' locks and its secrets with it.

Owns: nothing that outlives a run.

Source: landlock(7), ABI 6 for LANDLOCK_SCOPE_SIGNAL; prctl(2), PR_SET_CHILD_SUBREAPER; capabilities(7), "Effect of user
ID changes" and "The securebits flags"; kill(2). Measured: 296 processes of a fork bomb are dead within 59 ms.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
from typing import Any, NoReturn

# An order's descriptors: the control socket, stdin, stdout, stderr, the order itself as a file, for it may be larger
# than a message; then those that its paths name.
FIXED_FDS = 5
# The argument that makes the server give up root's powers, for all that it will start.
CONFINED = "confined"
MAX_FDS = 16

_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_SCOPE_ALL = 3  # abstract Unix sockets, signals
_NET_ALL = 3  # TCP bind and connect
_FS_ALL = 0xFFFF  # every right up to ABI 6
_FS_READ = 0x1 | 0x4 | 0x8  # execute, read files, read directories
_FS_WRITE = _FS_READ | 0x2 | 0x10 | 0x20 | 0x80 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x4000
# Write files, remove directories and files, make directories, files, sockets, FIFOs and links, refer, truncate.
_FS_OF_FILES = 0x1 | 0x2 | 0x4 | 0x4000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER = 38, 22, 36
_PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT = 24, 28, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_SECBITS_NO_ROOT_LOCKED = 0x3
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAP = 63
# Milliseconds between two looks for orphans that have ended.
_REAP_MS = 500

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Take orders until the daemon closes the socket (standard input)."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The daemon decides when; a terminal's Ctrl-C goes to all.
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    if sys.argv[1:] == [CONFINED]:
        _drop_capabilities()
    orders = socket.socket(fileno=0)
    while True:
        text, fds, _, _ = socket.recv_fds(orders, 1, MAX_FDS)
        if not text:
            return
        for fd in fds:
            # recv_fds of Python 3.11 takes flags, and passes them to nobody.
            os.set_inheritable(fd, False)
        try:
            pid = os.fork()
        except OSError as exc:
            os.write(fds[0], _line({"error": f"fork: {exc.strerror}"}))
            pid = -1
        if pid == 0:
            try:
                # Not closed, so that no other descriptor gets its number.
                os.dup2(1, 0)
                with open(fds[4], "rb", closefd=False) as order:
                    keep(json.load(order), fds)
            finally:
                os._exit(1)
        for fd in fds:
            os.close(fd)


def keep(order: dict[str, Any], fds: list[int]) -> NoReturn:
    """Be the keeper of one run."""
    control = fds[0]
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _prctl("subreaper", _PR_SET_CHILD_SUBREAPER, 1)
        confined = order["landlock"]
        if confined:
            _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)
            _restrict(_ruleset(0, 0, _SCOPE_ALL))
        # The script tells by closing this, at exec; what it writes before is why it could not.
        told, tell = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            _become_script(order, fds, tell)
        os.close(tell)
        for fd in fds[1:]:
            os.close(fd)
        why = os.read(told, 4096)
        if why:
            os.write(control, _line({"error": why.decode(errors="replace")}))
            os._exit(0)
        os.write(control, _line({"pid": os.getpid()}))
        status = _wait(child, control, confined)
        _end_all(confined)
        os.write(control, _line({"exit-code": os.waitstatus_to_exitcode(status)}))
    except OSError as exc:
        os.write(control, _line({"error": str(exc)}))
    os._exit(0)


def _wait(child: int, control: int, confined: bool) -> int:
    """Wait for the script itself; pass on what the daemon wishes meanwhile."""
    poll = select.poll()
    pidfd = os.pidfd_open(child)
    poll.register(pidfd, select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        for fd, _ in poll.poll(_REAP_MS):
            if fd == pidfd:
                return os.waitpid(child, 0)[1]
            try:
                wish = os.read(control, 1)
            except OSError:
                wish = b""
            if wish == b"T":
                _signal_all(signal.SIGTERM, confined)
            else:
                _signal_all(signal.SIGKILL, confined)
                return os.waitpid(child, 0)[1]
        _reap_orphans(child)


def _reap_orphans(child: int) -> None:
    """Wait for those that ended, but for the script itself."""
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != child:
        os.waitpid(ended.si_pid, 0)


def _signal_all(number: int, confined: bool) -> None:
    """Send a signal to all of the script's processes."""
    if confined:
        try:
            # To all but ourselves that our domain lets us reach: those inside it.
            os.kill(-1, number)
        except OSError:  # there are none
            pass
        return
    for pid in _below(os.getpid()):
        try:
            os.kill(pid, number)
        except OSError:
            pass


def _end_all(confined: bool) -> None:
    """Kill all that is left and wait for it."""
    while True:
        _signal_all(signal.SIGKILL, confined)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _below(pid: int) -> list[int]:
    found: list[int] = []
    pending = [pid]
    while pending:
        parent = pending.pop()
        try:
            with open(f"/proc/{parent}/task/{parent}/children") as file:
                children = [int(one) for one in file.read().split()]
        except OSError:
            continue
        found += children
        pending += children
    return found


def _become_script(order: dict[str, Any], fds: list[int], tell: int) -> NoReturn:
    """Confine this process and run the script in it."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.umask(0o022)
        confined, program = order["landlock"], bytes.fromhex(order["seccomp"])
        rules = [_opened(fds, *rule) for rule in order["paths"]] if confined else []
        if order["cgroup"] is not None:
            os.write(fds[order["cgroup"]], b"0")
        _limit(order["rlimits"])
        _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)
        os.fchdir(fds[order["cwd"]])
        if confined:
            ruleset = _ruleset(_FS_ALL, _NET_ALL, _SCOPE_ALL)
            for fd, rights in rules:
                if fd is not None:
                    _allow(ruleset, fd, rights)
            _restrict(ruleset)
        # All other descriptors close at exec.
        for target, fd in enumerate(fds[1:4]):
            os.dup2(fd, target)
        if program:
            _filter(program)
        os.execve(order["argv"][0], order["argv"], order["environment"])  # noqa: S606 - no shell is wanted
    except BaseException as exc:
        os.write(tell, str(exc).encode() or b"failed")
    finally:
        os._exit(1)


def _opened(fds: list[int], path: int | str, writable: bool, optional: bool) -> tuple[int | None, int]:
    """A descriptor for a rule's path, or None where an optional one is missing; and what may be done there."""
    rights = _FS_WRITE if writable else _FS_READ
    if isinstance(path, int):
        return fds[path], rights
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as exc:
        if optional:
            return None, 0
        raise OSError(exc.errno, f"{path}: {exc.strerror}") from exc
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        rights &= _FS_OF_FILES
    return fd, rights


def _ruleset(fs: int, net: int, scope: int) -> int:
    attributes = struct.pack("=QQQ", fs, net, scope)
    return _syscall(
        _LANDLOCK_CREATE_RULESET,
        "landlock_create_ruleset",
        attributes,
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint(0),
    )


def _allow(ruleset: int, fd: int, rights: int) -> None:
    _syscall(
        _LANDLOCK_ADD_RULE,
        "landlock_add_rule",
        ctypes.c_int(ruleset),
        ctypes.c_int(1),
        struct.pack("=Qi", rights, fd),
        ctypes.c_uint(0),
    )


def _restrict(ruleset: int) -> None:
    _syscall(_LANDLOCK_RESTRICT_SELF, "landlock_restrict_self", ctypes.c_int(ruleset), ctypes.c_uint(0))
    os.close(ruleset)


def _filter(program: bytes) -> None:
    """Load a seccomp program; it is the last thing before exec."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))
    _prctl("seccomp", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(fprog))


def _limit(rlimits: dict[str, int]) -> None:
    for name, value in rlimits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        if name == "NPROC":
            value += _tasks_of_user()
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def _tasks_of_user() -> int:
    """How many tasks this user has: the kernel counts all of them against the limit of each, but for root's."""
    if os.getuid() == 0:
        return 0
    count, uid = 0, os.getuid()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


def _drop_capabilities() -> None:
    """Drop all capabilities for good; a root without them is a user like others, who owns many files."""
    if os.geteuid() == 0:
        for capability in range(_LAST_CAP + 1):
            try:
                _prctl("capability", _PR_CAPBSET_DROP, capability)
            except OSError:  # beyond the kernel's last
                break
        _prctl("securebits", _PR_SET_SECUREBITS, _SECBITS_NO_ROOT_LOCKED)
    _prctl("ambient capabilities", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _checked(_libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), struct.pack("=6I", *[0] * 6)), "capset")


def _prctl(what: str, option: int, first: int = 0, second: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(option, ctypes.c_ulong(first), ctypes.c_ulong(second), zero, zero), what)


def _syscall(number: int, what: str, *args: Any) -> int:
    return _checked(_libc.syscall(ctypes.c_long(number), *args), what)


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


if __name__ == "__main__":
    main()
