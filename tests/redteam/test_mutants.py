"""Whatever part of a plan is taken away, some attack succeeds, or a harmless script lacks something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from skilld.scripts.plan import Plan
from tests.redteam.catalogue import CATALOGUE
from tests.redteam.conftest import USERS, control, once
from tests.redteam.mutants import FAILS, NOTICES, Mutant, mutants, notices, unnoticed
from tests.redteam.needs import NEEDS
from tests.redteam.rungs import LIMITS, Done, Job, plan_for, run_in_sandboxes, why_not
from tests.redteam.world import new_world, parse

# What root would not notice: the kernel bounds the processes of everybody else.
ONLY_USER = (
    "limit NPROC",
    # A process with capabilities is out of reach of one without, whatever the filter says.
    "rule priority of groups", "rule priority of others", "rule disk priority of groups",
    "rule disk priority of others", "rule scheduling of others",
)  # fmt: skip
# Root's script owns the host's files, so that it misses more of them.
MOSTLY = next(iter(USERS))


def parts(rung: str) -> list[Mutant]:
    """All parts of the project's plan for a rung."""
    return list(mutants(plan_for(rung, Job())))


@once
def results(rung: str, user: str) -> Mapping[str, str]:
    """By part: empty where its absence was noticed, else what happened."""
    chosen = {
        mutant.part: (mutant, notices(rung, mutant.part))
        for mutant in parts(rung)
        if not unnoticed(rung, mutant.part) and (user == "user" if mutant.part in ONLY_USER else user == MOSTLY)
    }
    # Without namespaces a bomb takes processes from all that run beside it.
    bombs = {part: one for part, one in chosen.items() if one[1] == "fork-bomb"}
    done: dict[str, Done] = {}
    with new_world(USERS[user], limits=LIMITS) as world:
        for some in (bombs, {part: one for part, one in chosen.items() if part not in bombs}):
            jobs = [
                Job(["need-shell" if name == FAILS else name], mutant.change, bounds=mutant.bounds)
                for mutant, name in some.values()
            ]
            done.update(zip(some, run_in_sandboxes(world, rung, jobs), strict=True))
        reached = world.reached()
    found = {}
    for part, (_, name) in chosen.items():
        one = done[part]
        outcome = parse(one.stdout).get(name)
        if name == FAILS:
            is_noticed = bool(one.failure) or one.exit_code != 0
        elif name.startswith("need-"):
            is_noticed = outcome is None or not outcome["open"]
        else:
            is_noticed = name in reached or (outcome is not None and bool(outcome["open"]))
        found[part] = "" if is_noticed else f"{name}: {outcome}, {one}"
    return found


@pytest.mark.parametrize(
    ("rung", "part"), [pytest.param(rung, one.part, id=f"{rung}-{one.part}") for rung in NOTICES for one in parts(rung)]
)
def test_a_missing_part_is_noticed(rung: str, part: str) -> None:
    """Every part is there for something that a test sees, or is listed with the reason why none does."""
    if why := why_not(rung):
        pytest.skip(f"SANDBOX MISSING: {rung}: {why}")
    if unnoticed(rung, part):
        return
    name = notices(rung, part)
    assert name in CATALOGUE or name in NEEDS or name == FAILS
    if name in CATALOGUE:
        if CATALOGUE[name].as_root and "root" not in USERS:
            pytest.skip("only root's script could do it")
        if not any(control(user).outcomes.get(name) for user in USERS):
            pytest.skip(f"nothing to attack: {name}")
    assert results(rung, "user" if part in ONLY_USER else MOSTLY)[part] == ""


def test_two_locks_on_namespaces() -> None:
    """Without the filter's rules bubblewrap itself lets nobody make a namespace; without both, anybody does."""
    if why := why_not("bubblewrap"):
        pytest.skip(f"SANDBOX MISSING: bubblewrap: {why}")

    def unfiltered(plan: Plan) -> Plan:
        assert plan.filter is not None
        rules = tuple(rule for rule in plan.filter.rules if "namespaces" not in rule.name)
        return replace(plan, filter=replace(plan.filter, rules=rules))

    def unlocked(plan: Plan) -> Plan:
        plan = unfiltered(plan)
        return replace(plan, hardening=tuple(name for name in plan.hardening if name != "disable-userns"))

    with new_world(USERS["user"], limits=LIMITS) as world:
        jobs = [Job(["unshare-user"]), Job(["unshare-user"], unfiltered), Job(["unshare-user"], unlocked)]
        found = [parse(done.stdout)["unshare-user"]["open"] for done in run_in_sandboxes(world, "bubblewrap", jobs)]
    assert found == [False, False, True]
