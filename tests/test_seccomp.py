"""The filter's program, run by a small machine of our own: what is refused, and what is not, on both machines."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from skilld.scripts.seccomp import AF_UNIX, COMMON, ISOLATED_NET, SHARED_HOST, TIOCSTI, Filter, assemble
from skilld.scripts.syscalls import AUDIT_ARCHES, LAST_KNOWN, NUMBERS, X32_BIT, number_of

ALLOW, KILL = 0x7FFF0000, 0x80000000
ISOLATED, SHARED = Filter(COMMON + ISOLATED_NET), Filter(COMMON + SHARED_HOST)
MACHINES = tuple(AUDIT_ARCHES)
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def answer(program: bytes, arch: int, number: int, *args: int) -> int:
    """Run a program over one call, as the kernel does. Source: Linux, Documentation/networking/filter.rst."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*args, 0, 0, 0, 0, 0, 0)[:6])
    code = list(struct.iter_unpack("<HBBI", program))
    place = accumulator = 0
    while True:
        kind, yes, no, operand = code[place]
        place += 1
        match kind:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x05:
                place += operand
            case 0x15 | 0x25 | 0x45:
                is_so = {0x15: accumulator == operand, 0x25: accumulator > operand, 0x45: bool(accumulator & operand)}
                place += yes if is_so[kind] else no
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(f"no such instruction: {kind:#x}")


def verdict(filter: Filter, machine: str, call: str, *args: int) -> str:
    """The name of the errno that a call gets, or "allow"."""
    number = number_of(call, machine)
    if number is None:
        return "no such call"
    found = answer(assemble(filter, machine), AUDIT_ARCHES[machine], number, *args)
    return "allow" if found == ALLOW else errno.errorcode[found & 0xFFFF]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("filter", [ISOLATED, SHARED], ids=["isolated", "shared"])
def test_every_rule_does_what_it_says(filter: Filter, machine: str) -> None:
    """A call without a condition gets the rule's error, on whatever machine has it."""
    for rule in filter.rules:
        for call in rule.calls if not rule.when else ():
            assert verdict(filter, machine, call, AF_UNIX) in (rule.error, "no such call"), call


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("filter", "call", "args", "expected"),
    [
        (ISOLATED, "socket", (1,), "allow"),
        (ISOLATED, "socket", (2,), "EAFNOSUPPORT"),
        (ISOLATED, "socket", (40,), "EAFNOSUPPORT"),
        (ISOLATED, "socket", (1 << 32 | 16,), "EAFNOSUPPORT"),
        (ISOLATED, "socketpair", (1, 2), "allow"),
        (ISOLATED, "connect", (3,), "allow"),
        (SHARED, "socket", (1,), "EAFNOSUPPORT"),
        (SHARED, "connect", (3,), "EPERM"),
        (SHARED, "socketpair", (1, 1), "allow"),
        (SHARED, "socketpair", (1, 2), "EPERM"),
        (SHARED, "socketpair", (1, 2 | 0o2000000), "EPERM"),
        (SHARED, "socketpair", (2, 1), "EAFNOSUPPORT"),
        (SHARED, "setpriority", (0, 0), "allow"),
        (SHARED, "setpriority", (0, 7), "EPERM"),
        (SHARED, "setpriority", (2, 0), "EPERM"),
        (SHARED, "ioprio_set", (1, 0), "allow"),
        (SHARED, "ioprio_set", (3, 0), "EPERM"),
        (ISOLATED, "clone", (0x3D0F00,), "allow"),
        (ISOLATED, "clone", (0x10000000 | 17,), "EPERM"),
        (ISOLATED, "clone", (0x40000000,), "EPERM"),
        (ISOLATED, "clone3", (), "ENOSYS"),
        (ISOLATED, "prlimit64", (0,), "allow"),
        (ISOLATED, "prlimit64", (1,), "EPERM"),
        (ISOLATED, "ioctl", (0, 0x5401), "allow"),
        (ISOLATED, "ioctl", (0, TIOCSTI), "EPERM"),
        (ISOLATED, "ioctl", (0, 7 << 32 | TIOCSTI), "EPERM"),
        (ISOLATED, "ioctl", (0, 0x541C), "EPERM"),
        (ISOLATED, "personality", (0xFFFFFFFF,), "allow"),
        (ISOLATED, "personality", (0x0040000,), "EPERM"),
    ],
)
def test_calls_by_their_arguments(
    filter: Filter, call: str, args: tuple[int, ...], expected: str, machine: str
) -> None:
    """Of an argument the lower 32 bits count, as they do for the kernel."""
    assert verdict(filter, machine, call, *args) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_what_no_rule_names_is_allowed(machine: str) -> None:
    """The filter refuses what its rules name and what is newer than its table, and nothing else."""
    named = {number_of(call, machine) for rule in ISOLATED.rules for call in rule.calls}
    program, arch = assemble(ISOLATED, machine), AUDIT_ARCHES[machine]
    for number in range(LAST_KNOWN + 3):
        found = answer(program, arch, number, AF_UNIX)
        if number > LAST_KNOWN:
            assert found & 0xFFFF == errno.ENOSYS
        elif number not in named:
            assert found == ALLOW, number


def test_other_conventions_are_closed() -> None:
    """The i386 entry of x86-64 ends the process, x32's does not exist; each lock can be taken away."""
    program = assemble(ISOLATED, "x86_64")
    assert answer(program, 0x40000003, 1) == KILL
    assert answer(program, AUDIT_ARCHES["x86_64"], X32_BIT | 41, 2) & 0xFFFF == errno.ENOSYS
    assert answer(program, AUDIT_ARCHES["x86_64"], X32_BIT | 39) & 0xFFFF == errno.ENOSYS
    without = assemble(Filter((), kills_foreign=False, refuses_x32=False, refuses_unknown=False), "x86_64")
    assert answer(without, 0x40000003, X32_BIT | 9_999) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_is_one_that_the_kernel_takes(machine: str) -> None:
    """At most 4,096 instructions; jumps stay inside it."""
    code = list(struct.iter_unpack("<HBBI", assemble(SHARED, machine)))
    assert len(code) < 4_096
    assert code[-1][0] == 0x06
    for place, (kind, yes, no, operand) in enumerate(code):
        if kind & 0x07 == 0x05:
            assert place + 1 + max(yes, no, operand if kind == 0x05 else 0) < len(code)


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_the_kernels(machine: str) -> None:
    """As the headers of this machine have them, as far as they know the call."""
    if not HEADERS[machine].exists():
        pytest.skip(f"no {HEADERS[machine]} here")
    text = HEADERS[machine].read_text()
    known = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    assert len(NUMBERS.keys() & known.keys()) > 80
    wrong = {call for call in NUMBERS.keys() & known.keys() if number_of(call, machine) != known[call]}
    assert wrong == set()
