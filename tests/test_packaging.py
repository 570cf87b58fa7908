"""What contrib ships for containers and images: it is tried where that can be done here, and else held to its word."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.isolation import PROJECT_DIR

DOCKER_DIR = PROJECT_DIR / "contrib/docker"
PROFILE_PATH = DOCKER_DIR / "skilld-seccomp.json"
PATIENCE_S = 30.0

# The sandbox of a script as skilld makes it, or stricter; the program in it starts a thread.
BWRAP = [
    "bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
    "--unshare-cgroup-try", "--disable-userns", "--die-with-parent", "--new-session", "--hostname", "skill",
    "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
    "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--size", "8000000", "--tmpfs", "/dev/shm",
    "--remount-ro", "/dev", "--size", "64000000", "--tmpfs", "/tmp", "--remount-ro", "/", "--clearenv", "--",
    "/usr/bin/python3", "-c",
    "import threading, socket; threading.Thread(target=lambda: print(socket.gethostname())).start()",
]  # fmt: skip
# What a container with Docker's default profile may not do, and bubblewrap must.
FOR_BUBBLEWRAP = ["clone", "clone3", "unshare", "mount", "umount2", "pivot_root", "sethostname"]


def confined(profile: Path | None, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command as nobody, under a profile or under none."""
    return subprocess.run(
        [sys.executable, "-m", "tests.confined", str(profile or "-"), *command],
        capture_output=True, text=True, timeout=PATIENCE_S, cwd=PROJECT_DIR,
    )  # fmt: skip


# The seccomp profile.


@pytest.fixture(scope="module")
def bwrap() -> list[str]:
    """A sandbox that works here as long as no profile forbids it."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    if not os.path.exists("/usr/bin/python3"):
        pytest.skip("there is no /usr/bin/python3 to run in the sandbox")
    done = confined(None, BWRAP)
    if done.stdout != "skill\n":
        pytest.skip(f"bubblewrap does not work here at all: {done.stderr.strip()}")
    return BWRAP


def test_bubblewrap_works_under_the_profile(bwrap: list[str]) -> None:
    """Without any capability, and under no_new_privs."""
    done = confined(PROFILE_PATH, bwrap)
    assert (done.returncode, done.stdout, done.stderr) == (0, "skill\n", "")


@pytest.mark.parametrize("name", FOR_BUBBLEWRAP)
def test_the_profile_allows_nothing_in_vain(bwrap: list[str], tmp_path: Path, name: str) -> None:
    """Each system call that Docker's default refuses is one that the sandbox fails without."""
    profile = json.loads(PROFILE_PATH.read_text())
    for entry in profile["syscalls"]:
        entry["names"] = [other for other in entry["names"] if other != name]
    stricter = tmp_path / "profile.json"
    stricter.write_text(json.dumps(profile))
    assert confined(stricter, bwrap).stdout == ""


# Prints the name of the error of each call; the numbers are those of this machine's architecture.
CALLS = """
import ctypes, errno, socket
seccomp, libc = ctypes.CDLL("libseccomp.so.2"), ctypes.CDLL(None, use_errno=True)
def outcome(name, *args):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(seccomp.seccomp_syscall_resolve_name(name)), *map(ctypes.c_long, args))
    return errno.errorcode.get(ctypes.get_errno(), "done")
for name in (b"add_key", b"keyctl", b"request_key", b"io_uring_setup", b"kcmp", b"process_vm_readv"):
    print(name.decode(), outcome(name, 0, 0, 0, 0, 0))
print("setns", outcome(b"setns", -1, 0))
print("ptrace", outcome(b"ptrace", 16, 0, 0, 0))
print("vsock", outcome(b"socket", socket.AF_VSOCK, socket.SOCK_STREAM, 0))
print("alg", outcome(b"socket", socket.AF_ALG, socket.SOCK_SEQPACKET, 0))
print("unix", outcome(b"socket", socket.AF_UNIX, socket.SOCK_STREAM, 0))
"""


def test_the_profile_refuses_what_no_skill_needs() -> None:
    """Keyrings, io_uring, other processes' memory and namespaces, and sockets that lead out of the machine."""
    if not os.path.exists("/usr/bin/python3"):
        pytest.skip("there is no /usr/bin/python3 that nobody can run")
    command = ["/usr/bin/python3", "-I", "-c", CALLS]
    without, within = (
        dict(line.split() for line in confined(profile, command).stdout.splitlines())
        for profile in (None, PROFILE_PATH)
    )
    refused = [name for name, outcome in within.items() if outcome == "EPERM"]
    assert refused == [name for name in within if name != "unix"]
    assert within["unix"] == "done"
    # Without the profile the kernel looks at the arguments; io_uring alone may be switched off for the whole machine.
    assert [name for name, outcome in without.items() if outcome == "EPERM"] in ([], ["io_uring_setup"])


# The compose file.


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file, parsed."""
    parsed: dict[str, Any] = yaml.safe_load((DOCKER_DIR / "compose.yaml").read_text())
    return parsed


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Where a service's mounts lie in its container: their source by target."""
    found = {}
    for volume in service["volumes"]:
        if isinstance(volume, str):
            source, target = volume.split(":")[:2]
        else:
            source, target = volume["source"], volume["target"]
        found[target] = source
    return found


def test_only_the_daemon_reaches_dstack(compose: dict[str, Any]) -> None:
    """The guest agent's socket is mounted into skilld's container and no other."""
    services = compose["services"]
    reaching = [name for name, service in services.items() if "dstack.sock" in json.dumps(service)]
    assert reaching == ["skilld"]
    assert mounts(services["skilld"])["/var/run/dstack.sock"] == "/var/run/dstack.sock"


def test_containers_share_the_directory_of_the_socket(compose: dict[str, Any]) -> None:
    """A mount of the file itself would die with the daemon that made it."""
    shared = [mounts(service).get("/run/skilld") for service in compose["services"].values()]
    assert shared == ["socket", "socket"]
    image = (DOCKER_DIR / "Dockerfile").read_text()
    assert "SKILLD_SOCKET=/run/skilld/skilld.sock" in image


def test_containers_have_no_privileges(compose: dict[str, Any]) -> None:
    """An ordinary user, a read-only root, no capability and no way to one, in both containers."""
    for service in compose["services"].values():
        uid, gid = map(int, service["user"].split(":"))
        assert uid > 0 and gid > 0
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "cap_add" not in service and "privileged" not in service
        assert "no-new-privileges:true" in service["security_opt"]
    options = dict(re.split("[:=]", option, maxsplit=1) for option in compose["services"]["skilld"]["security_opt"])
    assert (DOCKER_DIR / options["seccomp"]).resolve() == PROFILE_PATH
    assert compose["services"]["skilld"]["network_mode"] == "none"


def test_the_agent_is_in_the_group_of_the_socket(compose: dict[str, Any]) -> None:
    """The image, the compose file and the agent agree on one group and one user."""
    image = (DOCKER_DIR / "Dockerfile").read_text()
    gid = re.findall(r"groupadd --gid (\d+) skilld", image)
    uid = re.findall(r"useradd --uid (\d+) --gid skilld", image)
    assert compose["services"]["agent"]["group_add"] == gid
    assert compose["services"]["skilld"]["user"] == f"{uid[0]}:{gid[0]}"
    assert f"USER {uid[0]}:{gid[0]}" in image


def test_the_image_copies_what_is_there() -> None:
    """What the Dockerfile copies from a checkout exists, and its ignore file lets it through."""
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", (DOCKER_DIR / "Dockerfile").read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied and all((PROJECT_DIR / source).exists() for source in copied)
    let_through = re.findall(r"^!(.+)$", (DOCKER_DIR / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert sorted(let_through) == sorted(copied)


def test_the_profile_travels_in_the_app_compose(tmp_path: Path) -> None:
    """dstack gets one JSON file: the README's command puts the profile in it, and dstack's shell takes it out again."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    command = re.findall(r"^```sh\n(jq -n.*?)```$", (DOCKER_DIR / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    for name in ("compose.yaml", "skilld-seccomp.json"):
        shutil.copy(DOCKER_DIR / name, tmp_path)
    subprocess.run(["bash", "-euc", command[0]], cwd=tmp_path, check=True, timeout=PATIENCE_S)
    app = json.loads((tmp_path / "app-compose.json").read_text())
    assert app["docker_compose_file"] == (DOCKER_DIR / "compose.yaml").read_text()
    (tmp_path / "guest").mkdir()
    # As dstack's app-compose.sh does, where it writes the compose file, too.
    script = "set -euo pipefail; source <(jq -r .pre_launch_script ../app-compose.json)"
    subprocess.run(["bash", "-c", script], cwd=tmp_path / "guest", check=True, timeout=PATIENCE_S)
    assert (tmp_path / "guest/skilld-seccomp.json").read_bytes() == PROFILE_PATH.read_bytes()


# The image builds.

SYSTEMD_DIR = PROJECT_DIR / "systemd"
LAYER_DIR = PROJECT_DIR / "contrib/yocto/meta-skilld"
RECIPE_PATH = LAYER_DIR / "recipes-skilld/skilld/skilld_0.1.0.bb"
BUILD_SCRIPT_PATH = PROJECT_DIR / "contrib/mkosi/skilld/mkosi.build.chroot"
REQUIREMENTS_PATH = PROJECT_DIR / "contrib/mkosi/skilld/requirements.txt"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The ``[project]`` table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text())["project"]
    return table


def needed(project: dict[str, Any]) -> list[Requirement]:
    """What an installation with the TEE extra asks for."""
    return [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["tee"])]


@pytest.mark.parametrize("build_path", [RECIPE_PATH, BUILD_SCRIPT_PATH], ids=["yocto", "mkosi"])
def test_images_get_every_part_of_the_units(build_path: Path) -> None:
    """All that a machine must have is installed; the drop-ins that a user chooses are not."""
    text = build_path.read_text().replace("skilld.{socket,service}", "skilld.socket $SRC/systemd/skilld.service")
    installed = re.findall(r'(?:\$SRC"?|\$\{S\})/systemd/([\w./-]+)', text)
    shipped = [str(path.relative_to(SYSTEMD_DIR)) for path in SYSTEMD_DIR.rglob("*") if path.is_file()]
    assert sorted(installed) == sorted(
        path for path in shipped if not path.startswith(("skilld.service.d/", "skilld.socket.d/"))
    )


def test_the_recipe_is_of_this_version(project: dict[str, Any]) -> None:
    """Its name bears the version, and it knows the license by its checksum."""
    assert RECIPE_PATH.stem == f"skilld_{project['version']}"
    checksum = hashlib.md5((PROJECT_DIR / "LICENSE").read_bytes(), usedforsecurity=False).hexdigest()
    assert f'LIC_FILES_CHKSUM = "file://LICENSE;md5={checksum}"' in RECIPE_PATH.read_text()
    assert f"skilld:{project['version']}" in (DOCKER_DIR / "compose.yaml").read_text()


def test_the_recipe_takes_what_the_build_reads() -> None:
    """Each file that it fetches from the checkout is there."""
    recipe = RECIPE_PATH.read_text()
    checkout = re.findall(r"getVar\('THISDIR'\), '([./]+)'", recipe)[0]
    assert (RECIPE_PATH.parent / checkout).resolve() == PROJECT_DIR
    fetched = re.findall(r"^    file://(\S+)", recipe, re.MULTILINE)
    assert fetched and all((PROJECT_DIR / name).exists() for name in fetched)


def test_the_recipe_depends_on_what_the_project_does(project: dict[str, Any]) -> None:
    """A dependency that the project gains or loses is one of the recipe, too; a version of the layer's own fits."""
    recipe = RECIPE_PATH.read_text()
    block = re.findall(r'^RDEPENDS:\$\{PN\} \+= "\\\n(.*?)"', recipe, re.MULTILINE | re.DOTALL)[0]
    depends = set(re.findall(r"python3-([a-z-]+)", block)) - {"modules"}
    assert depends == {requirement.name.lower() for requirement in needed(project)}
    own = {
        match[1]: match[2]
        for path in LAYER_DIR.rglob("*.bb")
        if (match := re.match(r"python3-(.+)_(.+)\.bb", path.name))
    }
    for requirement in needed(project):
        if requirement.name in own:
            assert requirement.specifier.contains(own[requirement.name]), requirement


def test_the_pinned_packages_are_what_the_project_needs(project: dict[str, Any]) -> None:
    """Every requirement has a pinned version that fits it, and every pin a hash."""
    pins = {}
    for line in REQUIREMENTS_PATH.read_text().splitlines()[1:]:
        name, version = re.fullmatch(r"([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line).groups()  # type: ignore[union-attr]
        pins[canonicalize_name(name)] = version
    for requirement in needed(project):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_scripts_are_without_fault() -> None:
    """Shells can parse what they are given."""
    scripts = [*PROJECT_DIR.glob("contrib/**/*.sh"), BUILD_SCRIPT_PATH]
    assert len(scripts) > 3
    for script in scripts:
        done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=PATIENCE_S)
        assert (done.returncode, done.stderr) == (0, ""), script
