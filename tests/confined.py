"""
Runs a command as nobody under a container's seccomp profile: ``python -m tests.confined PROFILE|- COMMAND...``

Owns: nothing; it becomes the command. The profile is Docker's JSON, loaded by libseccomp as a container engine does.

Source: seccomp_rule_add_array(3); Docker, "Seccomp security profiles for Docker".
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

NOBODY = 65_534
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EQUAL = {"SCMP_CMP_EQ": 4}
PR_SET_NO_NEW_PRIVS = 38


class ArgCompare(ctypes.Structure):
    """libseccomp's ``struct scmp_arg_cmp``."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def load(profile: dict[str, Any]) -> None:
    """
    Confine this process for good.

    Raises:
        OSError: libseccomp is missing, or refuses.
    """
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ERRNO | profile["defaultErrnoRet"]))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    for entry in profile["syscalls"]:
        assert entry["action"] == "SCMP_ACT_ALLOW", entry
        compares = [ArgCompare(arg["index"], EQUAL[arg["op"]], arg["value"], 0) for arg in entry.get("args", ())]
        array = (ArgCompare * len(compares))(*compares)
        for name in entry["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == -1:  # newer than this libseccomp: a container engine passes it over, too
                continue
            failed = library.seccomp_rule_add_array(context, ALLOW, number, len(compares), array)
            if failed:
                raise OSError(-failed, name)
    failed = library.seccomp_load(context)
    if failed:
        raise OSError(-failed, "seccomp_load")


def main(profile_path: str, command: list[str]) -> None:
    """Become nobody, without privileges and confined; then the command."""
    text = None if profile_path == "-" else Path(profile_path).read_text()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if text is not None:
        load(json.loads(text))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
