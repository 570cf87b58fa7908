"""Attacks on files: keys, other skills, the system, what the host keeps in shared places, devices."""

from __future__ import annotations

import ctypes
import mmap
import os
import stat

from tests.redteam.catalogue import attack, inherited
from tests.redteam.kernel import Absent, call, fresh_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.redteam.catalogue import World

KEYS = "Read the daemon's key file, its state directory, or any other file of the host"
OWN_SKILL = "Write into its own skill: create, overwrite, rename, link, chmod, touch, mount around it"
OTHER_SKILL = "Read or write another skill"
SYSTEM = "Write to `/etc`, `/usr`, `/var`, the interpreter or its library"
SHARED = "See or leave files in the host's `/tmp` and `/dev/shm`"
DEVICES = "Open devices of the machine: TEE, disk, memory, KVM, kernel log, make new ones"
SETTINGS = "Write to `/proc/sys`, sysrq, `/sys`, cgroups; read `/sys`"
HANDED = "Use an open descriptor or an environment variable of the daemon"
WATCH = "Watch the host's files with inotify or fanotify"
HOST_FACTS = "Learn the host's name and its users' names"


def _reads_secret(path: str, world: World) -> bool:
    with open(path, "rb") as file:
        return world["secret"].encode() in file.read(65536)


@attack(KEYS)
def key_file(world: World) -> bool:
    return _reads_secret(world["key_file"], world)


@attack(KEYS)
def state_directory(world: World) -> bool:
    return "key" in os.listdir(world["state_dir"])


@attack(KEYS)
def public_file(world: World) -> bool:
    """A file that everybody on the host may read."""
    return _reads_secret(world["public_file"], world)


@attack(KEYS)
def key_file_through_proc(world: World) -> bool:
    return _reads_secret(f"/proc/{world['victim']}/root{world['key_file']}", world)


@attack(KEYS)
def key_file_through_cwd(world: World) -> bool:
    return _reads_secret("../" * 16 + world["key_file"][1:], world)


@attack(KEYS)
def key_file_through_own_link(world: World) -> bool:
    link = f"{fresh_dir()}/link"
    os.symlink(world["key_file"], link)
    return _reads_secret(link, world)


@attack(KEYS)
def key_file_through_hard_link(world: World) -> bool:
    os.link(world["key_file"], f"{world['drop']}/hard")
    return _reads_secret(f"{world['drop']}/hard", world)


@attack(KEYS)
def link_in_the_skill(world: World) -> bool:
    """A symbolic link that its author put into the skill."""
    return _reads_secret("assets/link-to-key", world)


@attack(KEYS, as_root=True)
def file_by_handle(world: World) -> bool:
    """open_by_handle_at finds a file by number, whatever is mounted where."""
    if not world["handle"]:
        raise Absent("no file handles here")
    handle = bytes.fromhex(world["handle"])
    for top in ("/usr", "/", ".", "/tmp"):
        try:
            mount = os.open(top, os.O_RDONLY)
            file = call("open_by_handle_at", mount, handle, os.O_RDONLY)
        except OSError as exc:
            error = exc
            continue
        return world["secret"].encode() in os.read(file, 4096)
    raise error


@attack(KEYS)
def name_to_handle(world: World) -> bool:
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(132))
    return call("name_to_handle_at", -100, b"/usr\0", handle, ctypes.create_string_buffer(8), 0) == 0


@attack(KEYS)
def home_directories(world: World) -> bool:
    """Anything below /home, /root, /srv, /opt, /mnt, /var."""
    return any(os.listdir(top) for top in ("/home", "/root", "/srv", "/opt", "/mnt", "/var") if os.path.exists(top))


@attack(KEYS)
def password_hashes(world: World) -> bool:
    """More of /etc than a program needs to start."""
    names = ("/etc/shadow", "/etc/fstab", "/etc/mtab", "/etc/hostname", "/etc/machine-id", "/etc/init.d")
    for name in names:
        try:
            if os.path.isdir(name):
                return bool(os.listdir(name))
            with open(name) as file:
                return bool(file.read())
        except OSError:
            continue
    return False


@attack(OWN_SKILL)
def create_in_skill(world: World) -> bool:
    for directory in (".", "scripts", "assets"):
        try:
            with open(f"{directory}/new", "w") as file:
                file.write("x")
            return True
        except OSError as exc:
            error = exc
    raise error


@attack(OWN_SKILL)
def overwrite_skill_md(world: World) -> bool:
    with open("SKILL.md", "a") as file:
        file.write("x")
    return True


@attack(OWN_SKILL)
def overwrite_own_script(world: World) -> bool:
    with open("scripts/target.py", "a") as file:
        file.write("x")
    return True


@attack(OWN_SKILL)
def reopen_for_writing(world: World) -> bool:
    """Through /proc/self/fd, a read-only descriptor becomes a writable one if the mount allows."""
    descriptor = os.open("SKILL.md", os.O_RDONLY)
    with open(f"/proc/self/fd/{descriptor}", "a") as file:
        file.write("x")
    return True


@attack(OWN_SKILL)
def chmod_and_write(world: World) -> bool:
    os.chmod("scripts/target.py", 0o666)
    return True


@attack(OWN_SKILL)
def rename_in_skill(world: World) -> bool:
    os.rename("assets/a", "assets/b")
    return True


@attack(OWN_SKILL)
def remove_in_skill(world: World) -> bool:
    os.unlink("assets/removable")
    return True


@attack(OWN_SKILL)
def link_out_of_skill(world: World) -> bool:
    os.link("SKILL.md", f"{fresh_dir()}/linked")
    return True


@attack(OWN_SKILL)
def link_into_skill(world: World) -> bool:
    os.symlink("/etc/passwd", "assets/planted")
    return True


@attack(OWN_SKILL)
def chmod_by_descriptor(world: World) -> bool:
    """A descriptor that is open for reading is enough to change a mode."""
    os.fchmod(os.open("scripts/target.py", os.O_RDONLY), 0o777)
    return True


@attack(OTHER_SKILL)
def chmod_other_skill(world: World) -> bool:
    """The digest of a skill covers its execute bits."""
    os.chmod(f"{world['other_skill']}/SKILL.md", 0o755)
    return True


@attack(OTHER_SKILL)
def touch_other_skill(world: World) -> bool:
    os.utime(f"{world['other_skill']}/SKILL.md", (1, 1))
    return True


@attack(OTHER_SKILL)
def truncate_other_skill(world: World) -> bool:
    os.truncate(f"{world['other_skill']}/note", 1)
    return True


@attack(KEYS)
def open_up_key_file(world: World) -> bool:
    """Change the mode of the key file so that others may read it, and back again."""
    os.chmod(world["key_file"], 0o644)
    os.chmod(world["key_file"], 0o600)
    return True


@attack(KEYS)
def state_directory_exists(world: World) -> bool:
    """Learn size and time of a file that it may not read."""
    return os.stat(world["key_file"]).st_size > 0


@attack(KEYS)
def remove_key_file(world: World) -> bool:
    os.rename(world["key_file"], world["key_file"] + "-gone")
    os.rename(world["key_file"] + "-gone", world["key_file"])
    return True


@attack(OWN_SKILL)
def touch_in_skill(world: World) -> bool:
    os.utime("SKILL.md", (1, 1))
    return True


@attack(OWN_SKILL, absent=(95,))
def mark_in_skill(world: World) -> bool:
    """Extended attributes are writes, too."""
    os.setxattr("SKILL.md", "user.redteam", b"x")
    return True


@attack(OWN_SKILL)
def truncate_in_skill(world: World) -> bool:
    os.truncate("assets/long", 1)
    return True


@attack(OWN_SKILL)
def rename_skill_itself(world: World) -> bool:
    here = os.getcwd()
    os.rename(here, here + "-moved")
    os.rename(here + "-moved", here)
    return True


@attack(OTHER_SKILL)
def read_other_skill(world: World) -> bool:
    return _reads_secret(f"{world['other_skill']}/SKILL.md", world)


@attack(OTHER_SKILL)
def read_skill_beside(world: World) -> bool:
    """By a relative path: a skill that lies beside this one."""
    return any(_reads_secret(f"../{name}/SKILL.md", world) for name in os.listdir("..") if name == "other")


@attack(OTHER_SKILL)
def write_other_skill(world: World) -> bool:
    with open(f"{world['other_skill']}/scripts/planted.py", "w") as file:
        file.write("x")
    return True


@attack(OTHER_SKILL)
def plant_a_skill(world: World) -> bool:
    os.mkdir(f"{os.path.dirname(world['other_skill'])}/planted")
    return True


def _plants(directory: str) -> bool:
    path = f"{directory}/redteam-{os.getpid()}"
    with open(path, "w"):
        pass
    os.unlink(path)
    return True


@attack(SYSTEM, as_root=True)
def write_etc(world: World) -> bool:
    return _plants("/etc")


@attack(SYSTEM, as_root=True)
def write_etc_files(world: World) -> bool:
    """Any of the few files of /etc that a script sees, or a new one among them."""
    for path in world["etc_files"]:
        try:
            if os.path.isdir(path):
                return _plants(path)
            os.close(os.open(path, os.O_WRONLY))
            return True
        except OSError as exc:
            error = exc
    raise error


@attack(SYSTEM, as_root=True)
def write_usr(world: World) -> bool:
    for directory in ("/usr/bin", "/usr/lib", "/usr/local/bin", "/usr", "/bin", "/lib"):
        try:
            return _plants(directory)
        except OSError as exc:
            error = exc
    raise error


@attack(SYSTEM, as_root=True)
def write_var(world: World) -> bool:
    return _plants("/var/lib")


@attack(SYSTEM, as_root=True)
def write_interpreter_library(world: World) -> bool:
    return _plants(os.path.dirname(os.__file__))


@attack(SYSTEM, as_root=True)
def write_program(world: World) -> bool:
    for path in ("/usr/bin/false", "/usr/bin/tac", "/usr/bin/factor", "/usr/bin/python3"):
        try:
            os.close(os.open(os.path.realpath(path), os.O_RDWR))
            return True
        except OSError as exc:  # also where it runs just now, so that nobody may write to it
            error = exc
    raise error


@attack(SYSTEM)
def write_host_directory(world: World) -> bool:
    """A directory of the host that everybody may write to."""
    with open(f"{world['drop']}/written", "w") as file:
        file.write("x")
    return True


@attack(SHARED)
def read_host_tmp(world: World) -> bool:
    return _reads_secret(world["tmp_file"], world)


@attack(SHARED)
def list_host_tmp(world: World) -> bool:
    """Also how the runs of others would be found."""
    return os.path.basename(world["tmp_file"]) in os.listdir("/tmp")


@attack(SHARED)
def read_host_shm(world: World) -> bool:
    return _reads_secret(world["shm_file"], world)


@attack(SHARED)
def leave_in_host_tmp(world: World) -> bool:
    """Whether the host sees it is found out there."""
    with open(world["left_tmp"], "w") as file:
        file.write("x")
    return False


@attack(SHARED)
def leave_in_host_shm(world: World) -> bool:
    with open(world["left_shm"], "w") as file:
        file.write("x")
    return False


@attack(DEVICES)
def host_devices(world: World) -> bool:
    """Any device that is not one of the seven harmless ones."""
    for path in world["devices"]:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
            return True
        except OSError as exc:
            error = exc
    raise error


@attack(DEVICES, as_root=True)
def make_device(world: World) -> bool:
    """A node for the machine's memory or disk."""
    os.mknod(f"{fresh_dir()}/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    return True


@attack(DEVICES)
def device_in_the_skill(world: World) -> bool:
    """A node that lies in the skill, as an archive unpacked by root may leave it."""
    if not world["has_device"]:
        raise Absent("only root can put a device into a skill")
    os.close(os.open("assets/device", os.O_RDONLY))
    return True


@attack(DEVICES, as_root=True)
def tee_devices(world: World) -> bool:
    """The configuration file system of the TEE, or what else /sys tells of the machine."""
    for path in ("/sys/kernel/config", "/sys/firmware", "/sys/class/dmi", "/sys/devices"):
        if os.path.isdir(path):
            os.listdir(path)
            return True
    return False


@attack(SETTINGS, as_root=True)
def write_sysctl(world: World) -> bool:
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    return True


@attack(SETTINGS, as_root=True)
def any_setting(world: World) -> bool:
    """Any file of /proc that can be opened for writing and is not the process's own."""
    for top in ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi"):
        for directory, _, names in os.walk(top):
            for name in names:
                try:
                    os.close(os.open(f"{directory}/{name}", os.O_WRONLY | os.O_NONBLOCK))
                    return True
                except OSError:
                    continue
    return False


@attack(SETTINGS, as_root=True)
def kernel_memory(world: World) -> bool:
    """What /proc shows of the kernel's memory and messages, or of all processes' pages."""
    for name in (
        "kcore",
        "kmsg",
        "kpagecount",
        "kpageflags",
        "vmallocinfo",
        "slabinfo",
        "timer_list",
        "kpagecgroup",
        "pagetypeinfo",
        "sched_debug",
        "latency_stats",
    ):
        try:
            os.close(os.open(f"/proc/{name}", os.O_RDONLY | os.O_NONBLOCK))
            return True
        except OSError as exc:
            error = exc
    raise error


@attack(SETTINGS)
def kernel_symbols(world: World) -> bool:
    with open("/proc/kallsyms") as file:
        return bool(file.read(1))


@attack(SETTINGS, as_root=True)
def write_hostname_sysctl(world: World) -> bool:
    os.close(os.open("/proc/sys/kernel/hostname", os.O_WRONLY))
    return True


@attack(SETTINGS, as_root=True, absent=(2,))
def sysrq(world: World) -> bool:
    os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))
    return True


@attack(SETTINGS, as_root=True)
def cgroup_write(world: World) -> bool:
    for directory, _, names in os.walk("/sys/fs/cgroup"):
        for name in names:
            if name == "cgroup.procs":
                os.close(os.open(f"{directory}/{name}", os.O_WRONLY))
                return True
    return False


@attack(SETTINGS)
def sys_read(world: World) -> bool:
    return bool(os.listdir("/sys/class"))


@attack(HANDED)
def inherited_descriptor(world: World) -> bool:
    return bool(inherited())


@attack(HANDED)
def environment(world: World) -> bool:
    return any(world["secret"] in value for value in os.environ.values())


@attack(HANDED)
def environment_of_parent(world: World) -> bool:
    """What the process before this one was given."""
    for pid in (os.getppid(), 1, 2):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if world["secret"].encode() in file.read():
                    return True
        except OSError as exc:
            error = exc
            continue
        error = OSError("no secret there")
    raise error


@attack(WATCH)
def inotify(world: World) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    watch = int(libc.inotify_add_watch(libc.inotify_init1(0), world["drop"].encode(), 0x100))
    if watch < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    return True


@attack(WATCH)
def fanotify(world: World) -> bool:
    return call("fanotify_init", 0x200, 0) >= 0  # FAN_REPORT_FID, which everybody may have


@attack(HOST_FACTS)
def host_users(world: World) -> bool:
    with open("/etc/passwd") as file:
        return file.read().startswith("root:")


@attack(HOST_FACTS)
def host_name(world: World) -> bool:
    return bool(os.uname().nodename == world["host_name"])


@attack(SYSTEM)
def map_shared_and_write(world: World) -> bool:
    """Write to the skill through memory."""
    with open("SKILL.md", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"x"
    return True
