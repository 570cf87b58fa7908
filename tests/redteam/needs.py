"""
What a harmless script needs of its sandbox: whoever takes a part of the plan away notices here, if no attack does.

Owns: the table of needs.
"""

from __future__ import annotations

import os
import pwd

from tests.redteam.kernel import fresh_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.redteam.catalogue import World

NEEDS: dict[str, Callable[[World], object]] = {}


def need(function: Callable[[World], object]) -> Callable[[World], object]:
    """Enter the decorated function into the table; a true result says that the need is met."""
    NEEDS["need-" + function.__name__.replace("_", "-")] = function
    return function


@need
def shell(world: World) -> bool:
    return os.waitstatus_to_exitcode(os.system("exit 7")) == 7


@need
def temporary_file(world: World) -> bool:
    with open(f"{fresh_dir()}/file", "w") as file:
        return file.write("x") == 1


@need
def home(world: World) -> bool:
    with open(f"{os.environ['HOME']}/kept", "w") as file:
        return file.write("x") == 1


@need
def skill_directory(world: World) -> bool:
    return os.path.samefile(os.environ["SKILL_DIR"], ".") and os.path.exists("SKILL.md")


@need
def files_of_the_skill(world: World) -> bool:
    with open("assets/a") as file:
        return file.read() == "content\n"


@need
def devices(world: World) -> bool:
    for name in ("null", "zero", "full", "random", "urandom"):
        with open(f"/dev/{name}", "rb") as file:
            file.read(1)
    with open("/dev/null", "w") as sink:
        return sink.write("x") == 1


@need
def shared_memory(world: World) -> bool:
    if world["rung"] != "bubblewrap":
        return True  # a documented gap: the host's /dev/shm is closed
    with open("/dev/shm/own", "wb") as file:
        return file.write(b"x") == 1


@need
def own_descriptors(world: World) -> bool:
    """Bash reads ``<(command)`` by /proc/self/fd."""
    return world["rung"] != "bubblewrap" or bool(os.listdir("/proc/self/fd"))


@need
def user(world: World) -> bool:
    if world["rung"] != "bubblewrap" and not world["has_name"]:
        return True  # nor has it one outside
    return bool(pwd.getpwuid(os.getuid()).pw_name)


@need
def passwd_file(world: World) -> bool:
    with open("/etc/passwd") as file:
        return ":" in file.read()


@need
def group_file(world: World) -> bool:
    with open("/etc/group") as file:
        return ":" in file.read()


@need
def host_files(world: World) -> bool:
    """What the host has of the few files of /etc and /proc that programs look for."""
    for path in world["needed"]:
        if os.path.isdir(path):
            os.listdir(path)
        else:
            with open(path, "rb") as file:
                file.read(1)
    return True
