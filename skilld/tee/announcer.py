"""
The RTMR3 event that says which skills are served from now on: history that nobody can rewrite.

Owns: which registry digest was announced last.

Every event stays in the log, and every quote of the machine carries the log; so it is off by default, and changes that
come close together make one event.

Source: API, section 7; dstack OS 0.5 on TDX, for 0.6 has no EmitEvent.
"""

from __future__ import annotations

import asyncio
import logging

from skilld.errors import SkilldError, TeeUnsupported
from skilld.skills.registry import Registry
from skilld.tee.attestation import SKILL_SET_EVENT, digest_bytes
from skilld.tee.service import Tee

log = logging.getLogger(__name__)

# Seconds that a quiet registry is waited for before it is looked at again, for no reason but to bound the wait.
QUIET_S = 3_600.0


async def announce_skill_sets(registry: Registry, tee: Tee, interval_s: float) -> None:
    """
    Emit an event for the set of skills as it is now, and for every other one that it becomes; until cancelled.

    Args:
        registry: Its first scan must be done.
        tee: The guest agent.
        interval_s: Seconds from a change to its event, in which more changes may come; and until a failed event is
            tried again.
    """
    announced = ""
    while True:
        snapshot = registry.snapshot
        wait_s = QUIET_S
        if snapshot.digest != announced:
            try:
                await tee.emit_event(SKILL_SET_EVENT, digest_bytes(snapshot.digest))
            except TeeUnsupported as exc:
                log.warning("the set of skills is not announced: %s", exc)
                await asyncio.Event().wait()
            except SkilldError as exc:
                log.warning("the set of skills is not announced yet: %s", exc)
                wait_s = 0
            else:
                announced = snapshot.digest
                log.info("announced the set of skills in RTMR3: %s", announced)
        await registry.wait_for_change(snapshot.revision, wait_s)
        await asyncio.sleep(interval_s)
