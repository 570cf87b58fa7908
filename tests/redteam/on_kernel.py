"""Attacks on the kernel: privileges, namespaces, mounts, and interfaces that no skill's script has business with."""

from __future__ import annotations

import ctypes
import os
import signal

from tests.redteam.catalogue import CATALOGUE, Attack, attack
from tests.redteam.kernel import Absent, call, fresh_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.redteam.catalogue import World

PRIVILEGE = "Gain privileges: setuid programs, capabilities, no_new_privs unset"
NAMESPACES = "Make or enter namespaces: unshare, clone, clone3, setns"
MOUNTS = "Mount, unmount, pivot_root, chroot, fsopen, open_tree"
KERNEL = "Kernel interfaces: bpf, perf, userfaultfd, kernel log, other than the usual personality"
RARE = "System calls for those who run the machine"

# A seccomp program answers one of these; a kernel that looks at the arguments mostly another.
EPERM, ENOSYS = 1, 38

NEW_USER, NEW_NET, NEW_NS = 0x10000000, 0x40000000, 0x00020000
FLAGS = {
    "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": NEW_USER, "pid": 0x20000000, "net": NEW_NET,
    "mnt": NEW_NS, "time": 0x00000080,
}  # fmt: skip


def _status(name: str) -> int:
    """A field of this process that /proc shows in hexadecimal, asked by prctl where it can be."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    return int(data[{"effective": 0, "permitted": 1, "inheritable": 2}[name]])


@attack(PRIVILEGE, as_root=True)
def capabilities(world: World) -> bool:
    return bool(_status("effective") or _status("permitted"))


@attack(PRIVILEGE)
def new_privileges(world: World) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(39, 0, 0, 0, 0) == 0)  # PR_GET_NO_NEW_PRIVS


@attack(PRIVILEGE)
def setuid_program(world: World) -> bool:
    """A program in the skill that runs as its owner, root."""
    if not world["has_setuid"] or os.geteuid() == 0:
        raise Absent("root gains nothing by a program of root's")
    return os.popen("scripts/setuid-id -u").read().strip() == "0"


@attack(PRIVILEGE, as_root=True)
def become_root(world: World) -> bool:
    """Whoever may call setuid(2) freely is not confined."""
    os.setresuid(4321, 4321, 4321)
    return True


@attack(PRIVILEGE, as_root=True)
def change_owner(world: World) -> bool:
    os.chown(fresh_dir(), 4321, 4321)
    return True


def _unshares(flags: int) -> bool:
    return call("unshare", flags) == 0


def _clones(flags: int) -> bool:
    child = call("clone", flags | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True


def _clones3(flags: int) -> bool:
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls
    words = (flags, 0, 0, 0, int(signal.SIGCHLD), 0, 0, 0)
    child = call("clone3", b"".join(word.to_bytes(8, "little") for word in words), 64)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True


def _enter_namespace_attacks() -> None:
    for name, flag in FLAGS.items():
        as_root = name != "user"
        for how, function in (("unshare", _unshares), ("clone", _clones)):
            # clone(2) has its signal where a time namespace's flag would be.
            if (how, name) == ("clone", "time"):
                continue

            def attempt(world: World, flag: int = flag, function: object = function) -> object:
                assert callable(function)
                return function(flag)

            CATALOGUE[f"{how}-{name}"] = Attack(f"{how}-{name}", NAMESPACES, attempt, as_root=as_root)


_enter_namespace_attacks()


@attack(NAMESPACES)
def clone3_user(world: World) -> bool:
    return _clones3(NEW_USER)


@attack(NAMESPACES)
def unshare_user_with_others(world: World) -> bool:
    """Flags that are harmless beside one that is not."""
    return _unshares(NEW_USER | 0x200 | 0x400)


@attack(NAMESPACES)
def clone_with_high_bits(world: World) -> bool:
    """The kernel ignores the upper half of the flags of clone(2); a filter must not be led astray by it."""
    child = call("clone", (1 << 40) | NEW_USER | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True


@attack(NAMESPACES, as_root=True, absent=(13,))
def enter_init_namespace(world: World) -> bool:
    return call("setns", os.open("/proc/1/ns/uts", os.O_RDONLY), 0) == 0


@attack(NAMESPACES, as_root=True)
def enter_victim_namespace(world: World) -> bool:
    return call("setns", os.open(f"/proc/{world['victim']}/ns/uts", os.O_RDONLY), 0) == 0


@attack(NAMESPACES, as_root=True)
def enter_by_pidfd(world: World) -> bool:
    return call("setns", call("pidfd_open", world["victim"], 0), FLAGS["uts"]) == 0


def _private() -> str:
    """Stand in a mount namespace of its own where that is allowed, so that the host notices nothing; a directory."""
    if os.geteuid() == 0:
        try:
            call("unshare", NEW_NS)
            call("mount", b"none\0", b"/\0", None, 0x44000, None)  # MS_REC | MS_PRIVATE
        except OSError:
            pass
    return fresh_dir()


@attack(MOUNTS, as_root=True)
def mount_tmpfs(world: World) -> bool:
    return call("mount", b"t\0", _private().encode() + b"\0", b"tmpfs\0", 0, None) == 0


@attack(MOUNTS, as_root=True)
def mount_proc(world: World) -> bool:
    return call("mount", b"p\0", _private().encode() + b"\0", b"proc\0", 0, None) == 0


@attack(MOUNTS, as_root=True)
def bind_root(world: World) -> bool:
    return call("mount", b"/\0", _private().encode() + b"\0", None, 0x1000, None) == 0


@attack(MOUNTS, as_root=True)
def remount_writable(world: World) -> bool:
    """Take the read-only mark from the skill's mount."""
    directory = _private().encode() + b"\0"
    if not world["is_sandboxed"]:
        call("mount", b"t\0", directory, b"tmpfs\0", 0, None)
        return call("mount", None, directory, None, 0x20, None) == 0
    return call("mount", None, os.getcwd().encode() + b"\0", None, 0x1020, None) == 0


@attack(MOUNTS, as_root=True)
def unmount(world: World) -> bool:
    directory = _private().encode() + b"\0"
    if not world["is_sandboxed"]:
        call("mount", b"t\0", directory, b"tmpfs\0", 0, None)
        return call("umount2", directory, 2) == 0
    return call("umount2", b"/tmp\0", 2) == 0 or call("umount2", b"/proc\0", 2) == 0


@attack(MOUNTS, as_root=True)
def pivot_root(world: World) -> bool:
    directory = _private()
    call("mount", b"t\0", directory.encode() + b"\0", b"tmpfs\0", 0, None)
    os.mkdir(directory + "/old")
    return call("pivot_root", directory.encode() + b"\0", directory.encode() + b"/old\0") == 0


@attack(MOUNTS, as_root=True)
def chroot(world: World) -> bool:
    os.chroot(fresh_dir())
    return True


@attack(MOUNTS, as_root=True)
def fsopen(world: World) -> bool:
    return call("fsopen", b"tmpfs\0", 0) >= 0


@attack(MOUNTS, as_root=True)
def open_tree(world: World) -> bool:
    _private()
    return call("open_tree", -100, b"/\0", 1) >= 0  # OPEN_TREE_CLONE


@attack(MOUNTS)
def open_tree_without_clone(world: World) -> bool:
    return call("open_tree", -100, b"/\0", 0) >= 0


@attack(MOUNTS, as_root=True)
def fspick(world: World) -> bool:
    return call("fspick", -100, b"/\0", 0) >= 0


@attack(KERNEL, as_root=True)
def bpf(world: World) -> bool:
    # BPF_MAP_CREATE of an array: type, key size, value size, entries
    words = (2, 4, 4, 1)
    attributes = b"".join(word.to_bytes(4, "little") for word in words) + bytes(56)
    return call("bpf", 0, attributes, len(attributes)) >= 0


@attack(KERNEL)
def perf(world: World) -> bool:
    # PERF_TYPE_SOFTWARE, size 112, PERF_COUNT_SW_TASK_CLOCK, kernel and hypervisor excluded
    attributes = bytearray(112)
    attributes[0:8] = (1).to_bytes(4, "little") + (112).to_bytes(4, "little")
    attributes[8:16] = (1).to_bytes(8, "little")
    attributes[40:48] = (0b1100001).to_bytes(8, "little")
    return call("perf_event_open", bytes(attributes), 0, -1, -1, 0) >= 0


@attack(KERNEL)
def userfaultfd(world: World) -> bool:
    return call("userfaultfd", 1 | os.O_CLOEXEC) >= 0


@attack(KERNEL, as_root=True)
def kernel_log(world: World) -> bool:
    return call("syslog", 3, ctypes.create_string_buffer(65536), 65536) > 0


@attack(KERNEL, as_root=True)
def kernel_log_size(world: World) -> bool:
    return call("syslog", 10, None, 0) > 0


@attack(KERNEL, as_root=True)
def set_host_name(world: World) -> bool:
    if not world["is_sandboxed"]:
        call("unshare", FLAGS["uts"])  # the control must not rename the host
    return call("sethostname", b"redteam", 7) == 0


@attack(KERNEL, as_root=True, absent=(38,))
def io_ports(world: World) -> bool:
    return call("ioperm", 0x80, 1, 1) == 0


@attack(KERNEL, as_root=True)
def raise_limits(world: World) -> bool:
    """Hard limits, which only the privileged may raise."""
    import resource

    for what in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE):
        hard = resource.getrlimit(what)[1]
        if hard == resource.RLIM_INFINITY and not world["is_sandboxed"]:
            resource.setrlimit(what, (0, 1000))
            hard = 1000
        if hard == resource.RLIM_INFINITY:
            return True
        try:
            resource.setrlimit(what, (0, hard + 1))
            return True
        except ValueError as exc:
            error = exc
    if not world["is_sandboxed"]:
        raise Absent("not even root may, on this machine")
    raise error


# Arguments that change nothing and lead to an answer of the kernel's own.
HARMLESS: dict[str, tuple[int | bytes | None, ...]] = {
    "acct": (b"/nonexistent/x\0",),
    "adjtimex": (None,),
    "bpf": (-1, None, 0),
    "clock_adjtime": (0, None),
    "clock_settime": (0, None),
    "delete_module": (b"redteam\0", 0),
    "fanotify_init": (0xFFFFFFFF, 0),
    "finit_module": (-1, b"\0", 0),
    "fsconfig": (-1, 0xFFFF, None, None, 0),
    "fsmount": (-1, 0, 0),
    "fsopen": (b"redteam\0", 0),
    "fspick": (-1, b"\0", 0xFFFF),
    "init_module": (None, 0, None),
    "io_uring_enter": (-1, 0, 0, 0, None, 0),
    "io_uring_register": (-1, 0xFFFF, None, 0),
    "io_uring_setup": (0, None),
    "iopl": (0,),
    "kexec_file_load": (-1, -1, 0, None, 0xFFFF),
    "kexec_load": (0, 0, None, 1 << 40),
    "keyctl": (0xFFFF, 0, 0, 0, 0),
    "lookup_dcookie": (0, None, 0),
    "modify_ldt": (0, None, 0),
    "mount_setattr": (-1, b"/nonexistent/x\0", 0xFFFF, None, 0),
    "mount": (b"none\0", b"/nonexistent/x\0", b"tmpfs\0", 0, None),
    "move_mount": (-1, b"\0", -1, b"\0", 0xFFFF),
    "open_by_handle_at": (-1, bytes(8), 0),
    "open_tree": (-1, b"\0", 0xFFFF),
    "open_tree_attr": (-1, b"\0", 0xFFFF, None, 0),
    "perf_event_open": (None, 0, -1, -1, 0xFFFF),
    "pivot_root": (b"/nonexistent/x\0", b"/nonexistent/x\0"),
    "process_mrelease": (-1, 0),
    "quotactl": (0, None, 0, None),
    "quotactl_fd": (-1, 0, 0, None),
    "reboot": (0, 0, 0, 0),
    "setdomainname": (None, 1 << 20),
    "sethostname": (None, 1 << 20),
    "setns": (-1, 0),
    "settimeofday": (None, None),
    "statmount": (None, 0, 0, 0),
    "listmount": (None, 0, 0, 0),
    "swapoff": (b"/nonexistent/x\0",),
    "swapon": (b"/nonexistent/x\0", 0),
    "umount2": (b"/nonexistent/x\0", 0),
    "userfaultfd": (0xFFFF,),
    "request_key": (None, None, None, 0),
    "add_key": (None, None, None, 0, 0),
    "kcmp": (-1, -1, 0, 0, 0),
    "semop": (-1, None, 1),
    "semtimedop": (-1, None, 1, None),
    "semctl": (-1, 0, 0, 0),
    "msgctl": (-1, 0, None),
    "msgsnd": (-1, None, 0, 0),
    "msgrcv": (-1, None, 0, 0, 0),
    "shmat": (-1, None, 0),
    "shmctl": (-1, 0, None),
    "mq_unlink": (b"redteam-nonexistent\0",),
    "name_to_handle_at": (-1, b"x\0", None, None, 0),
    "migrate_pages": (-1, 0, None, None),
    "move_pages": (-1, 0, None, None, None, 0),
    "process_madvise": (-1, None, 0, 0, 0),
    "process_vm_readv": (-1, None, 0, None, 0, 1),
    "process_vm_writev": (-1, None, 0, None, 0, 1),
    "ptrace": (0xFFFF, 0, 0, 0),
    "pidfd_getfd": (-1, -1, 0),
    "memfd_secret": (0xFFFF,),
    "memfd_create": (None, 0),
    "clone3": (None, 0),
    # Together they are refused whatever the privileges.
    "clone": (NEW_USER | 0x200, 0, 0, 0, 0),
    "prlimit64": (0x7FFFFFFF, 7, None, None),
    "connect": (-1, None, 0),
    "bind": (-1, None, 0),
    "listen": (-1, 0),
    "inotify_add_watch": (-1, None, 0),
    "mq_open": (None, 0, 0, None),
    "mq_getsetattr": (-1, None, None),
}


def reaches(name: str, world: World) -> bool:
    """Whether the kernel looked at the arguments: it answers neither EPERM nor ENOSYS."""
    try:
        call(name, *HARMLESS[name])
    except OSError as exc:
        if exc.errno == ENOSYS and not world["is_sandboxed"]:
            raise Absent("this kernel does not have it") from exc
        if exc.errno in (EPERM, ENOSYS):
            raise
    return True


def _enter_rare_calls() -> None:
    for name in HARMLESS:

        def attempt(world: World, name: str = name) -> bool:
            return reaches(name, world)

        key = f"call-{name.replace('_', '-')}"
        CATALOGUE[key] = Attack(key, RARE, attempt, as_root=True)


_enter_rare_calls()


@attack(KERNEL)
def personality(world: World) -> bool:
    """READ_IMPLIES_EXEC and no address randomisation make what follows easier to break into."""
    before = call("personality", 0xFFFFFFFF)
    return call("personality", before | 0x0040000) >= 0
