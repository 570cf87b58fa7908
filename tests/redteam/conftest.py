"""The batteries of attacks, each run once a session."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from tests.redteam import probe, rungs
from tests.redteam.catalogue import CATALOGUE
from tests.redteam.needs import NEEDS
from tests.redteam.rungs import Job
from tests.redteam.world import MADE_UP_UID, new_world, parse, run_without_sandbox

assert probe.MODULES

T = TypeVar("T")

# Who the daemon is: its name and uid.
USERS: Mapping[str, int] = {"root": 0, "user": MADE_UP_UID} if os.geteuid() == 0 else {"user": os.geteuid()}


@dataclass(frozen=True)
class Battery:
    """
    What came of all attacks.

    Attributes:
        outcomes: By attack: True it succeeded, False it failed, None there is nothing to attack.
        how: By attack, what stood in its way.
        traces: Files that were changed outside.
    """

    outcomes: Mapping[str, bool | None]
    how: Mapping[str, str]
    traces: tuple[str, ...]


def once(function: Callable[..., T]) -> Callable[..., T]:
    """Call a function once for the same arguments, also where it fails."""
    failures: dict[Hashable, str] = {}
    cached = functools.cache(function)

    @functools.wraps(function)
    def call(*args: Hashable) -> T:
        if args in failures:
            raise AssertionError(failures[args])
        try:
            return cached(*args)
        except AssertionError as exc:
            failures[args] = str(exc)
            raise

    return call


@once
def control(user: str) -> Battery:
    """All attacks without a sandbox."""
    with new_world(USERS[user], limits=rungs.LIMITS) as world:
        # What takes long, and is the same for everybody, once.
        names = [name for name, one in CATALOGUE.items() if not one.is_solo or user == "user"]
        found = parse(run_without_sandbox(world, names))
        return _battery(found, world.reached(), world.traces())


@once
def battery(rung: str, user: str) -> Battery:
    """All attacks and needs in sandboxes; those that may end everything in one of their own."""
    together = [name for name, one in CATALOGUE.items() if not one.is_solo]
    alone = [Job([name]) for name, one in CATALOGUE.items() if one.is_solo]
    with new_world(USERS[user], limits=rungs.LIMITS) as world:
        done = rungs.run_in_sandboxes(world, rung, [Job([*together, *NEEDS])])
        # Without namespaces a bomb takes processes from all that run beside it.
        done += rungs.run_in_sandboxes(world, rung, alone, at_a_time=1 if rung == "landlock" else len(alone))
        failures = [f"{one.failure}{one.stderr}" for one in done if one.failure or one.stderr]
        assert not failures, failures
        found = {name: outcome for one in done for name, outcome in parse(one.stdout).items()}
        missing = [name for name in (*together, *NEEDS) if name not in found]
        assert not missing, f"the probe ended before {missing}, exit code {done[0].exit_code}"
        for name in CATALOGUE:
            found.setdefault(name, {"open": False, "how": "the sandbox was ended"})
        return _battery(found, world.reached(), world.traces())


def _battery(found: Mapping[str, Mapping[str, object]], reached: frozenset[str], traces: list[str]) -> Battery:
    outcomes = {name: bool(one["open"]) if one["open"] is not None else None for name, one in found.items()}
    outcomes |= dict.fromkeys(reached & outcomes.keys(), True)
    return Battery(outcomes, {name: str(one["how"]) for name, one in found.items()}, tuple(traces))
