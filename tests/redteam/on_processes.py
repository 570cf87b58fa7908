"""Attacks on the daemon and other processes: their memory, descriptors, limits, signals, keys, queues, terminals."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal

from tests.redteam.catalogue import attack
from tests.redteam.kernel import Absent, call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.redteam.catalogue import World

MEMORY = "Read another process's memory, environment, descriptors or files through `/proc`, ptrace, process_vm, pidfd"
LISTING = "See the host's processes and their command lines"
SIGNALS = "Signal the daemon, other processes, or everybody (`kill -1`)"
PRIORITY = "Change another process's limits, priority, CPUs or I/O class"
KEYRING = "Use the keyring of the daemon's session"
SYSV = "SysV shared memory, semaphores and queues, POSIX queues of the host"
TERMINAL = "Type into the terminal that the daemon was started from"


def _holds(path: str, world: World) -> bool:
    with open(path, "rb") as file:
        return world["secret"].encode() in file.read(65536)


@attack(MEMORY)
def victim_environ(world: World) -> bool:
    return _holds(f"/proc/{world['victim']}/environ", world)


@attack(MEMORY)
def victim_memory(world: World) -> bool:
    with open(f"/proc/{world['victim']}/mem", "rb", buffering=0) as file:
        file.seek(world["victim_address"])
        return world["secret"].encode() in file.read(4096)


@attack(MEMORY)
def victim_maps(world: World) -> bool:
    with open(f"/proc/{world['victim']}/maps") as file:
        return bool(file.read(1))


@attack(MEMORY)
def victim_descriptor(world: World) -> bool:
    return _holds(f"/proc/{world['victim']}/fd/{world['victim_fd']}", world)


@attack(MEMORY)
def victim_cwd(world: World) -> bool:
    return "key" in os.listdir(f"/proc/{world['victim']}/cwd")


@attack(MEMORY)
def ptrace(world: World) -> bool:
    return call("ptrace", 0x4206, world["victim"], 0, 0) == 0  # PTRACE_SEIZE


@attack(MEMORY)
def ptrace_own_child(world: World) -> bool:
    """Tracing is a way around filters on some kernels, so even a child is out of bounds."""
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        return call("ptrace", 0x4206, child, 0, 0) == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _vectors(world: World, local: ctypes.Array[ctypes.c_char]) -> tuple[bytes, bytes]:
    here = _Vector(ctypes.addressof(local), len(local))
    there = _Vector(world["victim_address"], len(local))
    return bytes(here), bytes(there)


@attack(MEMORY)
def process_vm_readv(world: World) -> bool:
    local = ctypes.create_string_buffer(256)
    here, there = _vectors(world, local)
    call("process_vm_readv", world["victim"], here, 1, there, 1, 0)
    return world["secret"].encode() in bytes(local)


@attack(MEMORY)
def process_vm_writev(world: World) -> bool:
    """Write back what is there: nothing changes, but it could have."""
    local = ctypes.create_string_buffer(b"A", 1)
    here, there = _vectors(world, local)
    return call("process_vm_writev", world["victim"], here, 1, there, 1, 0) == 1


@attack(MEMORY)
def pidfd_getfd(world: World) -> bool:
    pidfd = call("pidfd_open", world["victim"], 0)
    descriptor = call("pidfd_getfd", pidfd, world["victim_fd"], 0)
    return world["secret"].encode() in os.pread(descriptor, 4096, 0)


@attack(MEMORY)
def kcmp(world: World) -> bool:
    return call("kcmp", os.getpid(), world["victim"], 1, 0, 0) >= 0


@attack(MEMORY, as_root=True)
def process_madvise(world: World) -> bool:
    pidfd = call("pidfd_open", world["victim"], 0)
    _, there = _vectors(world, ctypes.create_string_buffer(1))
    try:
        return call("process_madvise", pidfd, there, 1, 20, 0) >= 0  # MADV_COLD
    except OSError as exc:
        return exc.errno == 22  # looked at the address


@attack(MEMORY)
def move_pages(world: World) -> bool:
    return call("move_pages", world["victim"], 0, None, None, None, 0) == 0


@attack(MEMORY)
def migrate_pages(world: World) -> bool:
    mask = (1).to_bytes(8, "little")
    return call("migrate_pages", world["victim"], 64, mask, mask) >= 0


@attack(LISTING)
def process_list(world: World) -> bool:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if world["mark"].encode() in file.read():
                        return True
            except OSError:
                continue
    return False


@attack(LISTING)
def victim_cmdline(world: World) -> bool:
    with open(f"/proc/{world['victim']}/cmdline", "rb") as file:
        return b"infinity" in file.read()


@attack(LISTING)
def victim_exists(world: World) -> bool:
    """Whether a process is there, by asking after it."""
    return os.path.isdir(f"/proc/{world['victim']}")


@attack(LISTING)
def host_connections(world: World) -> bool:
    """The host's Unix sockets and TCP connections, by name."""
    with open("/proc/net/unix") as file:
        return world["abstract"] in file.read()


@attack(LISTING)
def host_mounts(world: World) -> bool:
    """What is mounted where on the host."""
    with open("/proc/1/mountinfo" if os.path.exists("/proc/1/mountinfo") else "/proc/self/mountinfo") as file:
        return "/sys/fs/cgroup" in file.read()


# The host finds out whether these reached their victim; each has a victim of its own, which dies of the signal.

DEADLY = signal.SIGRTMIN + 3
# Classes of I/O priority: when nobody else wants to, and last among equals.
IDLE, LAST = 3 << 13, 2 << 13 | 7


@attack(SIGNALS)
def kill_victim(world: World) -> bool:
    os.kill(world["victims"]["kill-victim"], DEADLY)
    return False


@attack(SIGNALS)
def kill_group(world: World) -> bool:
    os.killpg(world["victims"]["kill-group"], DEADLY)
    return False


@attack(SIGNALS)
def tgkill(world: World) -> bool:
    victim = world["victims"]["tgkill"]
    call("tgkill", victim, victim, DEADLY)
    return False


@attack(SIGNALS)
def tkill(world: World) -> bool:
    call("tkill", world["victims"]["tkill"], DEADLY)
    return False


@attack(SIGNALS)
def pidfd_signal(world: World) -> bool:
    call("pidfd_send_signal", call("pidfd_open", world["victims"]["pidfd-signal"], 0), DEADLY, None, 0)
    return False


@attack(SIGNALS)
def signal_by_descriptor(world: World) -> bool:
    """Make the kernel send the signal, as the owner of a descriptor."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, 10, DEADLY)  # F_SETSIG
    fcntl.fcntl(reading, fcntl.F_SETOWN, world["victims"]["signal-by-descriptor"])
    fcntl.fcntl(reading, fcntl.F_SETFL, fcntl.fcntl(reading, fcntl.F_GETFL) | os.O_ASYNC)
    os.write(writing, b"x")
    return False


@attack(SIGNALS)
def kill_everybody(world: World) -> bool:
    """With a signal that nobody dies of; one victim listens for it."""
    if not world["is_made_up"] and not world["is_sandboxed"]:
        raise Absent("not tried on all processes of somebody real")
    os.kill(-1, signal.SIGURG)
    return False


@attack(PRIORITY)
def limit_victim(world: World) -> bool:
    resource.prlimit(world["victims"]["limit-victim"], resource.RLIMIT_NOFILE, (33, 33))
    return False


@attack(PRIORITY)
def renice_victim(world: World) -> bool:
    os.setpriority(os.PRIO_PROCESS, world["victims"]["renice-victim"], 7)
    return False


@attack(PRIORITY)
def renice_group(world: World) -> bool:
    os.setpriority(os.PRIO_PGRP, world["victims"]["renice-group"], 7)
    return False


@attack(PRIORITY)
def renice_user(world: World) -> bool:
    """All processes of the user at once."""
    if not world["is_made_up"] and not world["is_sandboxed"]:
        raise Absent("not tried on all processes of somebody real")
    os.setpriority(os.PRIO_USER, 0, 3)
    return False


@attack(PRIORITY)
def pin_victim(world: World) -> bool:
    call("sched_setaffinity", world["victims"]["pin-victim"], 8, (1).to_bytes(8, "little"))
    return False


@attack(PRIORITY)
def schedule_victim(world: World) -> bool:
    """SCHED_IDLE: it runs when nobody else wants to."""
    call("sched_setscheduler", world["victims"]["schedule-victim"], 5, (0).to_bytes(4, "little"))
    return False


@attack(PRIORITY)
def schedule_by_attributes(world: World) -> bool:
    # SCHED_BATCH, no flags, nice 12, which everybody may ask for
    attributes = b"".join(word.to_bytes(4, "little") for word in (48, 3, 0, 0, 12)) + bytes(28)
    call("sched_setattr", world["victims"]["schedule-by-attributes"], attributes, 0)
    return False


@attack(PRIORITY)
def class_of_group(world: World) -> bool:
    victim = world["victims"]["class-of-group"]
    call("ioprio_set", 2, victim, IDLE)
    return call("ioprio_get", 1, victim) == IDLE


@attack(PRIORITY)
def class_of_user(world: World) -> bool:
    """All processes of the user at once."""
    if not world["is_made_up"] and not world["is_sandboxed"]:
        raise Absent("not tried on all processes of somebody real")
    call("ioprio_set", 3, os.getuid(), LAST)
    return call("ioprio_get", 1, world["victims"]["class-of-user"]) == LAST


@attack(PRIORITY)
def class_of_victim(world: World) -> bool:
    victim = world["victims"]["class-of-victim"]
    call("ioprio_set", 1, victim, IDLE)
    return call("ioprio_get", 1, victim) == IDLE


@attack(KEYRING)
def search_keyring(world: World) -> bool:
    key = call("keyctl", 10, -3, b"user\0", b"redteam\0", 0)  # KEYCTL_SEARCH in the session's
    value = ctypes.create_string_buffer(256)
    call("keyctl", 11, key, value, 256)
    return world["secret"].encode() in value.raw


@attack(KEYRING)
def request_key(world: World) -> bool:
    return call("request_key", b"user\0", b"redteam\0", None, -3) > 0


@attack(KEYRING)
def add_key(world: World) -> bool:
    return call("add_key", b"user\0", b"planted\0", b"x", 1, -3) > 0


@attack(KEYRING)
def list_keys(world: World) -> bool:
    with open("/proc/keys") as file:
        return "redteam" in file.read()


@attack(KEYRING)
def list_owners_of_keys(world: World) -> bool:
    with open("/proc/key-users") as file:
        return bool(file.read())


@attack(SYSV)
def shared_memory(world: World) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    segment = call("shmget", world["shm_key"], 0, 0)
    address = libc.shmat(segment, None, 0o10000)
    return world["secret"].encode() in ctypes.string_at(address, 256)


@attack(SYSV)
def new_shared_memory(world: World) -> bool:
    """Memory that outlives the script and counts for nobody."""
    segment = call("shmget", 0, 4096, 0o1600)
    is_hosts = f" {segment} " in _text("/proc/sysvipc/shm") and str(world["shm_key"]) in _text("/proc/sysvipc/shm")
    call("shmctl", segment, 0, None)
    return is_hosts or not world["is_sandboxed"]


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


@attack(SYSV)
def semaphores(world: World) -> bool:
    return call("semget", world["sem_key"], 0, 0) >= 0


@attack(SYSV)
def message_queue(world: World) -> bool:
    buffer = ctypes.create_string_buffer(264)
    call("msgrcv", call("msgget", world["msg_key"], 0), buffer, 256, 0, 0o4000 | 0o40000)  # IPC_NOWAIT, MSG_COPY
    return world["secret"].encode() in buffer.raw


@attack(SYSV)
def message_queue_opened(world: World) -> bool:
    return call("msgget", world["msg_key"], 0) >= 0


@attack(SYSV)
def posix_queue(world: World) -> bool:
    if not world["mq_name"]:
        raise Absent("no POSIX queues")
    return call("mq_open", world["mq_name"].encode() + b"\0", os.O_RDONLY, 0, None) >= 0


@attack(SYSV)
def ipc_listing(world: World) -> bool:
    with open("/proc/sysvipc/shm") as file:
        return str(world["shm_key"]) in file.read()


@attack(TERMINAL)
def own_terminal(world: World) -> bool:
    os.close(os.open("/dev/tty", os.O_RDWR))
    return True


@attack(TERMINAL)
def type_into_terminal(world: World) -> bool:
    """TIOCSTI puts a character into the input, as if somebody had typed it."""
    descriptor = os.open("/dev/tty", os.O_RDWR)
    fcntl.ioctl(descriptor, 0x5412, b"x")
    return True


def _ioctl_is_seen(request: int) -> bool:
    """A kernel that looks at the request answers something else than EPERM for a pipe."""
    reading, _ = os.pipe()
    try:
        fcntl.ioctl(reading, request, b"\0" * 64)
    except OSError as exc:
        return exc.errno != 1
    return True


@attack(TERMINAL)
def tiocsti_is_known(world: World) -> bool:
    return _ioctl_is_seen(0x5412)


@attack(TERMINAL)
def tioclinux_is_known(world: World) -> bool:
    """TIOCLINUX pastes the selection of a console."""
    return _ioctl_is_seen(0x541C)


@attack(TERMINAL)
def tiocsetd_is_known(world: World) -> bool:
    """TIOCSETD puts another driver of the kernel's behind a terminal."""
    return _ioctl_is_seen(0x5423)


@attack(TERMINAL)
def ioctl_with_high_bits(world: World) -> bool:
    """The kernel looks at 32 bits of the request only; a filter that compares 64 is fooled by the others."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p)
    reading, _ = os.pipe()
    if libc.ioctl(reading, 0x1_0000_5412, b"x") < 0:
        return ctypes.get_errno() != 1
    return True


@attack(TERMINAL)
def host_terminals(world: World) -> bool:
    """Other people's terminals."""
    return any(name.isdigit() for name in os.listdir("/dev/pts"))
