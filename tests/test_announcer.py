"""The RTMR3 event that says which skills are served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skilld.skills.registry import Registry, Scanned
from skilld.skills.scanner import ScanLimits, scan
from skilld.tee.announcer import announce_skill_sets
from skilld.tee.attestation import digest_bytes
from skilld.tee.service import Tee
from tests.conftest import WriteSkill
from tests.simulator import Simulator, simulated

INTERVAL_S = 0.05


@contextlib.asynccontextmanager
async def announcing(registry: Registry, agent: Simulator) -> AsyncIterator[None]:
    tee = Tee(agent.socket_path, 20.0)
    task = asyncio.create_task(announce_skill_sets(registry, tee, INTERVAL_S))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await tee.close()


def rescan(registry: Registry, root: Path) -> str:
    """Make the registry show the disk; the digest."""
    limits = ScanLimits(1 << 20, 100, 1 << 20, 6, frozenset())
    registry.apply([Scanned(0, "", tuple(scan(str(root), "", {}, limits)))], {})
    return registry.snapshot.digest


def announced(agent: Simulator) -> list[bytes]:
    return [event.payload for event in agent.machine.events if event.name == "skilld-skill-set"]


@pytest.fixture
def registry(root: Path) -> Registry:
    return Registry((str(root),), limit_skills=100, limit_changes=100)


async def test_every_set_is_announced_once(root: Path, write_skill: WriteSkill, registry: Registry) -> None:
    """The first, and what it has become after a burst of changes."""
    write_skill("one")
    first = rescan(registry, root)
    with simulated() as agent:
        async with announcing(registry, agent):
            await asyncio.to_thread(agent.wait_begun, "EmitEvent", 1)
            for name in ("two", "three", "four"):
                write_skill(name)
                last = rescan(registry, root)
            await asyncio.to_thread(agent.wait_begun, "EmitEvent", 2)
        assert announced(agent) == [digest_bytes(first), digest_bytes(last)]


async def test_a_failed_event_is_tried_again(root: Path, write_skill: WriteSkill, registry: Registry) -> None:
    """Until it is in the log."""
    write_skill("one")
    digest = rescan(registry, root)
    with simulated() as agent:
        agent.fail("reject", "EmitEvent", times=2)
        async with announcing(registry, agent):
            await asyncio.to_thread(agent.wait_begun, "EmitEvent", 3)
        assert announced(agent)[-1] == digest_bytes(digest)


async def test_an_os_without_events_is_asked_once(
    root: Path, write_skill: WriteSkill, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says so."""
    write_skill("one")
    rescan(registry, root)
    with simulated("0.6.0") as agent:
        async with announcing(registry, agent):
            # The question for the OS's version follows the refusal.
            await asyncio.to_thread(agent.wait_begun, "Version", 1)
            write_skill("two")
            rescan(registry, root)
            await asyncio.sleep(3 * INTERVAL_S)
        assert agent.begun("EmitEvent") == 1
    assert "tee.emit_event does not exist on dstack OS 0.6.0" in caplog.text
