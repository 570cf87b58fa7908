"""
The list of attacks that a script can try from inside: name, what it does, and the function that tries.

Owns: the catalogue, filled by the modules of attacks when they are imported.
"""

from __future__ import annotations

import fcntl
import functools

from tests.redteam.kernel import Absent

# What only a reader of the types needs is not imported: hundreds of sandboxes begin with these lines.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    World = dict[str, Any]
    Attempt = Callable[[World], object]


class Attack:
    """
    One attack. ``row`` is its line in the table that people read; attacks of one row belong together.

    Attributes:
        attack: Tries; a true result says that it succeeded, an exception that it failed.
        is_solo: Runs in a sandbox of its own, since it may end everything beside it.
        as_root: Without a sandbox only root succeeds, so only root's positive control counts.
    """

    def __init__(self, name: str, row: str, attack: Attempt, *, is_solo: bool = False, as_root: bool = False) -> None:
        self.name = name
        self.row = row
        self.attack = attack
        self.is_solo = is_solo
        self.as_root = as_root


CATALOGUE: dict[str, Attack] = {}


def attack(
    row: str, *, is_solo: bool = False, as_root: bool = False, absent: tuple[int, ...] = ()
) -> Callable[[Attempt], Attempt]:
    """
    Enter the decorated function into the catalogue; its name is the attack's.

    ``absent`` are numbers of errors by which the machine says, without a sandbox, that it offers nothing to attack.
    """

    def enter(function: Attempt) -> Attempt:
        name = function.__name__.replace("_", "-")

        @functools.wraps(function)
        def attempt(world: World) -> object:
            try:
                return function(world)
            except OSError as exc:
                if exc.errno in absent and not world["is_sandboxed"]:
                    raise Absent(f"not on this machine: {exc}") from exc
                raise

        assert name not in CATALOGUE, name
        CATALOGUE[name] = Attack(name, row, attempt, is_solo=is_solo, as_root=as_root)
        return function

    return enter


@functools.cache
def inherited() -> tuple[int, ...]:
    """Descriptors beyond the first three that were open at the first call; the probe calls it first of all."""
    found = []
    for descriptor in range(3, 1024):
        try:
            fcntl.fcntl(descriptor, fcntl.F_GETFD)
        except OSError:
            continue
        found.append(descriptor)
    return tuple(found)
