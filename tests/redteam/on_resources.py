"""Attacks on the machine's resources: processes, threads, memory, disk, descriptors, core dumps."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import time

from tests.redteam.catalogue import attack
from tests.redteam.kernel import fresh_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.redteam.catalogue import World

PROCESSES = "Fork bomb, thread bomb, time without end"
MEMORY = "Take more memory than allowed: heap, memfd, tmpfs, many processes"
DISK = "Fill the disk or write files without end"
DESCRIPTORS = "Open descriptors without end"

MIB = 1 << 20
# Seconds.
HOLD_S = 1.0


@attack(PROCESSES, is_solo=True)
def fork_bomb(world: World) -> bool:
    """Hold more processes than the limit says."""
    children: list[int] = []
    try:
        while len(children) <= world["limits"]["processes"] + 8:
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
        return _hold(world)
    finally:
        _kill(children)


@attack(PROCESSES, is_solo=True)
def thread_bomb(world: World) -> bool:
    import threading  # takes long, and nobody else needs it

    threading.stack_size(65536)
    end = threading.Event()
    threads: list[threading.Thread] = []
    try:
        for _ in range(world["limits"]["processes"] + 8):
            thread = threading.Thread(target=end.wait)
            thread.start()
            threads.append(thread)
        return _hold(world)
    finally:
        end.set()
        for thread in threads:
            thread.join()


@attack(MEMORY)
def private_memory(world: World) -> bool:
    """As malloc takes it: one process's own."""
    return bool(mmap.mmap(-1, world["limits"]["memory_bytes"] + MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


@attack(MEMORY, is_solo=True)
def heap(world: World) -> bool:
    memory = _touched(world["limits"]["memory_bytes"] + 64 * MIB)
    return len(memory) > 0 and _hold(world)


def _touched(size: int) -> mmap.mmap:
    """Memory of which every page is used, for as long as the caller keeps it."""
    memory = mmap.mmap(-1, size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    for position in range(0, size, 4096):
        memory[position] = 1
    return memory


def _hold(world: World) -> bool:
    """Keep what was taken for long enough that somebody who looks now and then must see it."""
    if world["is_sandboxed"]:
        time.sleep(HOLD_S)
    return True


@attack(MEMORY, is_solo=True)
def memory_in_a_file(world: World) -> bool:
    """memfd counts neither as data nor, written to, as address space."""
    descriptors = []
    for _ in range((world["limits"]["memory_bytes"] + 64 * MIB) // (32 * MIB)):
        descriptor = os.memfd_create("x")
        descriptors.append(descriptor)
        os.posix_fallocate(descriptor, 0, 32 * MIB)
    return _hold(world)


@attack(MEMORY, is_solo=True)
def memory_by_many(world: World) -> bool:
    """Processes that are small each."""
    count = (world["limits"]["memory_bytes"] + 64 * MIB) // (64 * MIB) + 1
    reading, writing = os.pipe()
    children: list[int] = []
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                os.close(reading)
                memory = _touched(64 * MIB)
                os.write(writing, b"x" if memory else b"")
                signal.pause()
            children.append(child)
        os.close(writing)
        return all(os.read(reading, 1) for _ in range(count)) and _hold(world)
    finally:
        _kill(children)


def _kill(children: list[int]) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _fill(directory: str, limit_bytes: int) -> bool:
    """Whether so many bytes fit below a directory."""
    place = fresh_dir(directory)
    names = []
    try:
        for number in range(limit_bytes // (16 * MIB) + 1):
            name = f"{place}/{number}"
            names.append(name)
            descriptor = os.open(name, os.O_CREAT | os.O_WRONLY)
            try:
                os.posix_fallocate(descriptor, 0, 16 * MIB)
            finally:
                os.close(descriptor)
        return True
    finally:
        for name in names:
            os.unlink(name)
        os.rmdir(place)


@attack(DISK)
def fill_tmp(world: World) -> bool:
    return _fill(os.environ.get("TMPDIR", "/tmp"), world["limits"]["tmp_bytes"])


@attack(DISK)
def fill_home(world: World) -> bool:
    return _fill(os.environ["HOME"], world["limits"]["work_bytes"])


@attack(DISK)
def fill_elsewhere(world: World) -> bool:
    """The root, /dev, /dev/shm, /run and whatever else lets itself be written to."""
    for directory in ("/dev/shm", "/", "/dev", "/run", "/var/tmp", "/run/lock", "/proc", "/sys", world["drop"]):
        try:
            if _fill(directory, world["limits"]["tmp_bytes"]):
                return True
        except OSError as exc:
            error = exc
    raise error


@attack(DISK)
def endless_file(world: World) -> bool:
    """A file beyond the limit, sparse: SIGXFSZ or EFBIG is the right answer."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open(f"{fresh_dir()}/sparse", "w") as file:
        os.ftruncate(file.fileno(), world["limits"]["file_bytes"] + 1)
    return True


@attack(DESCRIPTORS)
def descriptors(world: World) -> bool:
    opened = [os.open(".", os.O_RDONLY) for _ in range(world["limits"]["open_files"] + 1)]
    return bool(opened)


@attack(DISK)
def core_dump(world: World) -> bool:
    """A dump of memory is written wherever the host's pattern says, by the host."""
    return resource.getrlimit(resource.RLIMIT_CORE)[1] != 0


@attack(PROCESSES)
def endless_time(world: World) -> bool:
    """Processor time without a limit of the kernel's, should nobody else end the script."""
    return resource.getrlimit(resource.RLIMIT_CPU)[1] == resource.RLIM_INFINITY


@attack(MEMORY)
def queue_memory(world: World) -> bool:
    """POSIX queues take memory of the kernel's."""
    return resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1] > 0


@attack(MEMORY)
def lock_memory(world: World) -> bool:
    """Memory that cannot be swapped out."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = 16384
    memory = mmap.mmap(-1, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(size)):
        raise OSError(ctypes.get_errno(), "mlock")
    return True
