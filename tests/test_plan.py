"""What a script may touch."""

from __future__ import annotations

import json
import posixpath

from skilld.scripts.plan import (
    NAMESPACES,
    VARIABLES,
    Allowance,
    Host,
    Mount,
    Plan,
    Target,
    make_plan,
)

ALLOWANCE = Allowance(512, 64, 1_000, 256, 2_000, 3_000, ("/opt/data",))
HOST = Host((("/bin", "usr/bin"),), ("/lib",), "/t/work", "/t/tmp", masked=("/proc/keys",))
TARGET = Target(
    "demo", "scripts/a.py", ("/usr/bin/python3", "-u"), "1.0", ("-x", "$(id)"), {"A": "b"}, 30.0, "/opt/venv"
)


def plan(backend: str = "bubblewrap") -> Plan:
    return make_plan(backend, TARGET, ALLOWANCE, HOST)  # type: ignore[arg-type]  # one of three words


def test_the_command() -> None:
    """Interpreter, its options, the script, the caller's arguments: no shell."""
    assert plan().argv == ("/usr/bin/python3", "-u", "/skill/scripts/a.py", "-x", "$(id)")
    assert plan("landlock").argv == ("/usr/bin/python3", "-u", "scripts/a.py", "-x", "$(id)")


def test_the_environment() -> None:
    """Nothing but ours and the caller's, and ours win."""
    assert dict(plan().environment) == {
        "A": "b",
        "PATH": "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/work",
        "TMPDIR": "/tmp",
        "SKILL_NAME": "demo",
        "SKILL_VERSION": "1.0",
        "SKILL_DIR": "/skill",
        "SKILL_ROOT": "/skill",
        "SKILL_BASE_DIR": "/skill",
        "SKILLD_WORK_DIR": "/work",
        "PYTHONDONTWRITEBYTECODE": "1",
        "VIRTUAL_ENV": "/opt/venv",
    }
    assert set(dict(plan().environment)) <= {"A", *VARIABLES}
    sly = Target("demo", "scripts/a.py", ("/x",), environment={"PATH": "/evil"})
    assert dict(make_plan("bubblewrap", sly, ALLOWANCE, HOST).environment)["PATH"].startswith("/usr/local/sbin")


def test_only_listed_paths_are_there() -> None:
    """The root holds the system, what the configuration shows, and the run's own; all but that is read-only."""
    mounts = plan().mounts
    assert [mount.target for mount in mounts if mount.is_writable] == ["/dev/shm", "/tmp", "/work"]
    assert {mount.source for mount in mounts if mount.kind == "bind"} == {
        "/usr", "/lib", "/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs", "/etc/ssl/openssl.cnf",
        "/etc/localtime", "/opt/data", "/opt/venv", "/dev/null", "@skill",
    }  # fmt: skip
    assert mounts[-1] == Mount("remount-ro", "/")


def test_nothing_is_mounted_below_what_others_fill() -> None:
    """A mount point below a directory of somebody else's follows that one's links (CVE-2026-87766)."""
    targets = [mount.target for mount in plan().mounts if mount.kind != "remount-ro"]
    for foreign in ("/skill", "/work", "/tmp", "/opt/data", "/opt/venv", "/usr"):
        assert [one for one in targets if posixpath.dirname(one).startswith(foreign)] == []


def test_landlock_shows_the_same() -> None:
    """But for what no permission can hide; only the run's own directories and harmless devices are writable."""
    mounts = plan("landlock").mounts
    writable = [mount.target for mount in mounts if mount.is_writable]
    assert writable == ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/t/work", "/t/tmp"]
    assert not [mount for mount in mounts if mount.source in ("/", "/proc", "/etc", "/dev", "/run", "/tmp")]
    assert plan("landlock").is_scoped


def test_every_lock_is_in_the_plan() -> None:
    """Namespaces, options and rules are data; without a sandbox there are none."""
    assert plan().namespaces == NAMESPACES == ("user", "pid", "net", "ipc", "uts", "cgroup")
    assert plan().hardening == ("disable-userns", "die-with-parent", "new-session", "cap-drop")
    assert dict(plan().rlimits) == {
        "CORE": 0, "NOFILE": 256, "NPROC": 64, "FSIZE": 1_000, "DATA": 512, "CPU": 37, "MSGQUEUE": 0, "MEMLOCK": 0,
    }  # fmt: skip
    none = plan("none")
    assert (none.mounts, none.namespaces, none.filter, none.is_scoped) == ((), (), None, False)


def test_it_can_be_printed() -> None:
    """As JSON, without the content of made-up files."""
    text = json.dumps(plan().to_json())
    assert '"seccomp": [{"rule": "io_uring"' in text
    assert "/usr/sbin/nologin" not in text
