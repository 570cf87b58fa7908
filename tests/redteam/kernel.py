"""
Raw system calls for the attacks: numbers, and calls through libc's syscall(2), with nothing but the standard library.

Owns: nothing; copied beside the probe into the skill that attacks.

Source: Linux, arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

IS_X86 = os.uname().machine == "x86_64"

_X86_64 = {
    name: int(number)
    for name, number in (
        word.split("=")
        for word in """
        shmget=29 shmat=30 shmctl=31 socket=41 connect=42 sendto=44 sendmsg=46 bind=49 listen=50 socketpair=53
        clone=56 semget=64 semop=65 semctl=66 msgget=68 msgsnd=69 msgrcv=70 msgctl=71 ptrace=101 syslog=103
        personality=135 setpriority=141 sched_setparam=142 sched_setscheduler=144 vhangup=153 modify_ldt=154
        pivot_root=155 adjtimex=159 chroot=161 acct=163 settimeofday=164 mount=165 umount2=166 swapon=167 swapoff=168
        reboot=169 sethostname=170 setdomainname=171 iopl=172 ioperm=173 init_module=175 delete_module=176
        quotactl=179 tkill=200 sched_setaffinity=203 mq_getsetattr=245 io_setup=206 lookup_dcookie=212 semtimedop=220
        clock_settime=227 tgkill=234 mq_open=240 mq_unlink=241 kexec_load=246 add_key=248 request_key=249 keyctl=250
        ioprio_set=251 ioprio_get=252 migrate_pages=256 inotify_add_watch=254 memfd_create=319 mknodat=259 unshare=272
        vmsplice=278 move_pages=279 perf_event_open=298 fanotify_init=300 prlimit64=302 name_to_handle_at=303
        open_by_handle_at=304
        clock_adjtime=305 setns=308 process_vm_readv=310 process_vm_writev=311 kcmp=312 finit_module=313
        sched_setattr=314 kexec_file_load=320 bpf=321 userfaultfd=323 pidfd_send_signal=424 io_uring_setup=425
        io_uring_enter=426 io_uring_register=427 open_tree=428 move_mount=429 fsopen=430 fsconfig=431 fsmount=432
        fspick=433 pidfd_open=434 clone3=435 pidfd_getfd=438 process_madvise=440 mount_setattr=442 quotactl_fd=443
        memfd_secret=447 process_mrelease=448 statmount=457 listmount=458 open_tree_attr=467
        """.split()
    )
}


_made = 0


def fresh_dir(beside: str | None = None) -> str:
    """A new directory, below another one or where temporary files belong; what tempfile.mkdtemp is for."""
    global _made
    _made += 1
    path = f"{beside or os.environ.get('TMPDIR', '/tmp')}/fresh-{os.getpid()}-{os.urandom(4).hex()}-{_made}"
    os.mkdir(path, 0o700)
    return path


class Absent(Exception):
    """This kernel or machine does not have what the attack uses, sandbox or not."""


def number(name: str) -> int:
    """
    The number of a system call.

    Raises:
        Absent: Not known for this machine.
    """
    if not IS_X86:
        raise Absent("the numbers here are those of x86-64")
    return _X86_64[name]


def call(name: str, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """
    Call the kernel; the result, which is never negative.

    Raises:
        OSError: What it answered.
        Absent: The numbers of this machine are not known.
    """
    return call_number(number(name), *args)


def call_number(number: int, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call the kernel by number; raises OSError."""
    plain = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = int(_libc.syscall(ctypes.c_long(number), *plain))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def run_machine_code(code: bytes) -> int:
    """Run x86-64 machine code below 4 GiB of a function without parameters; its result as a signed 32-bit number."""
    if not IS_X86:
        raise Absent("machine code of x86-64")
    map_32bit, anonymous, private, rwx = 0x40, 0x20, 0x02, 7
    _libc.mmap.restype = ctypes.c_void_p
    address = _libc.mmap(None, ctypes.c_size_t(4096), rwx, map_32bit | anonymous | private, -1, ctypes.c_long(0))
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    ctypes.memmove(address, code, len(code))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
