"""Every attack succeeds without a sandbox, and fails in each that this machine offers, whoever the daemon is."""

from __future__ import annotations

import pytest

from skilld.scripts.rungs import BubblewrapRung, LauncherRung
from tests.redteam.catalogue import CATALOGUE
from tests.redteam.conftest import USERS, battery, control
from tests.redteam.expected import BUBBLEWRAP, DEGRADED, GAPS
from tests.redteam.needs import NEEDS
from tests.redteam.rungs import BWRAP, RUNGS, SHARED_PROC, why_not


def _demand(rung: str) -> None:
    if why := why_not(rung):
        pytest.skip(f"SANDBOX MISSING: {rung}: {why}")


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_attack_succeeds_without_a_sandbox_and_fails_in_every_one(name: str) -> None:
    """Whoever the daemon is. Except for the gaps that are listed, and those are there."""
    for rung in RUNGS:
        for user in USERS if not why_not(rung) else ():
            found = battery(rung, user)
            assert bool(found.outcomes[name]) == (name in GAPS[rung]), (rung, user, found.how[name])
    # The positive control: an attack that fails anyway would prove nothing.
    outcomes = {user: control(user).outcomes[name] for user in USERS if name in control(user).outcomes}
    if not any(outcomes.values()):
        if CATALOGUE[name].as_root and "root" not in USERS:
            pytest.skip("only root succeeds, even without a sandbox")
        # Without root, or as it, there may be nothing to attack; whoever could attack did not fail.
        assert set(outcomes.values()) == {None}, {user: control(user).how[name] for user in outcomes}
        pytest.skip(f"nothing to attack: {control(next(iter(outcomes))).how[name]}")


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("user", USERS)
def test_nothing_outside_was_touched(rung: str, user: str) -> None:
    """All those attacks together leave every file of the host as it was."""
    _demand(rung)
    assert battery(rung, user).traces == ()
    # Without a sandbox they do leave traces.
    assert control(user).traces


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("name", NEEDS)
def test_a_harmless_script_has_what_it_needs(rung: str, name: str) -> None:
    """The sandbox is one to work in."""
    _demand(rung)
    for user in USERS:
        found = battery(rung, user)
        assert found.outcomes[name], (user, found.how[name])


@pytest.mark.parametrize("rung", GAPS)
def test_a_rung_tells_its_gaps(rung: str) -> None:
    """Every gap that is listed is an attack of the catalogue, and every result says that the rung has it."""
    assert GAPS[rung].keys() <= CATALOGUE.keys()
    if rung == "landlock":
        facts, own = LauncherRung("landlock").facts, frozenset[str]()
    else:
        facts, own = BubblewrapRung(BWRAP, shares_proc=rung == SHARED_PROC).facts, frozenset(BUBBLEWRAP)
    assert DEGRADED[rung].keys() == GAPS[rung].keys() - own
    assert set(DEGRADED[rung].values()) <= set(facts.degraded)
