"""
The open dialogues of all peers.

A session belongs to the uid that started it, and to everybody else it does not exist. It lives ``ttl_s`` seconds
after its last answer. A finished session answers as it did at its end until then, so that a peer that lost the reply
can ask again; a cancelled one is gone at once.

Owns: the sessions, the one timer that ends them, and the tasks that create skills.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from skilld.errors import Busy, Internal, SessionNotFound, ShuttingDown, SkilldError, SkillExists
from skilld.factory.dialogue import Dialogue, Step, answer, finish, reopen, start
from skilld.factory.draft import Draft, render_skill_md

log = logging.getLogger(__name__)

# 128 bits: nobody guesses the id of another peer's session.
SESSION_ID_BYTES = 16


class FactoryResponse(TypedDict):
    """What the methods of the factory answer; ``skill`` at step done, ``preview`` (a SKILL.md) at step confirm."""

    session_id: str
    step: Step
    prompt: str
    done: bool
    skill: NotRequired[Mapping[str, Any]]
    preview: NotRequired[str]


@dataclass
class _Session:
    id: str
    uid: int
    dialogue: Dialogue
    expires_s: float
    # The running creation, while there is one.
    creation: asyncio.Task[None] | None = None
    # The Summary of the skill that was created.
    skill: Mapping[str, Any] | None = None


class Sessions:
    """
    The table of sessions.

    Args:
        create: Writes a draft to disk and returns the Summary of the new skill.
        taken: Tells whether a name cannot be given to a new skill: one bears it, or it is on the ignore list.
        ttl_s: Seconds a session lives after its last answer, above 0.
        max_sessions: Open sessions at most, at least 1.
        clock: Seconds that only grow, at the pace of the running loop's timers.
    """

    def __init__(
        self,
        create: Callable[[Draft], Awaitable[Mapping[str, Any]]],
        taken: Callable[[str], bool],
        *,
        ttl_s: float,
        max_sessions: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Settings.
        self._create = create
        self._taken = taken
        self.ttl_s = ttl_s
        self.max_sessions = max_sessions
        self._clock = clock
        # State. The sessions are in the order of their last answers, which is the order of their ends.
        self._sessions: dict[str, _Session] = {}
        self._closed = False
        # Tasks.
        self._timer: asyncio.TimerHandle | None = None
        self._creations: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    def start(self, uid: int, initial_input: str | None = None) -> FactoryResponse:
        """
        Open a session for a peer.

        Raises:
            Busy: ``max_sessions`` are open.
            ShuttingDown: After :meth:`close`.
        """
        if self._closed:
            raise ShuttingDown
        self._expire()
        if len(self._sessions) >= self.max_sessions:
            self._make_room()
        session = _Session(secrets.token_hex(SESSION_ID_BYTES), uid, start(initial_input), 0.0)
        self._touch(session)
        return _response(session)

    async def continue_(self, uid: int, session_id: str, text: str) -> FactoryResponse:
        """
        Answer a session's prompt.

        The "yes" that creates the skill is answered when the skill is there. If it cannot be created the session
        stays at ``confirm`` and the prompt says why. Whatever arrives meanwhile, or after the end, is not read and
        gets the same reply, so nothing is created twice. The creation runs to its end even if the peer leaves.

        Raises:
            SessionNotFound: No such session of this uid.
            ShuttingDown: After :meth:`close`.
        """
        if self._closed:
            raise ShuttingDown
        session = self._find(uid, session_id)
        if session.creation is None and session.dialogue.step != "done":
            self._touch(session)
            outcome = answer(session.dialogue, text, taken=self._taken)
            session.dialogue = outcome.dialogue
            if outcome.action == "cancelled":
                del self._sessions[session.id]
            elif outcome.action == "create":
                session.creation = asyncio.create_task(self._run_creation(session), name=f"create for {session.id}")
                self._creations.add(session.creation)
                session.creation.add_done_callback(self._creations.discard)
        if session.creation is not None:
            await asyncio.shield(session.creation)
        return _response(session)

    def get(self, uid: int, session_id: str) -> FactoryResponse:
        """
        Return where a session stands, without answering it.

        Raises:
            SessionNotFound: No such session of this uid.
        """
        return _response(self._find(uid, session_id))

    async def cancel(self, uid: int, session_id: str) -> None:
        """
        Forget a session; a skill that is being created is waited for.

        Raises:
            SessionNotFound: No such session of this uid, or its skill is created already.
        """
        session = self._find(uid, session_id)
        if session.creation is not None:
            await asyncio.shield(session.creation)
        if session.dialogue.step == "done" or self._sessions.pop(session.id, None) is None:
            raise SessionNotFound(session_id)

    async def close(self) -> None:
        """End all sessions and wait for the skills that are being created. Idempotent."""
        self._closed = True
        self._sessions.clear()
        self._arm()
        await asyncio.gather(*self._creations)

    async def _run_creation(self, session: _Session) -> None:
        dialogue = session.dialogue
        assert dialogue.draft is not None
        name = dialogue.draft.name
        try:
            session.skill = await self._create(dialogue.draft)
            session.dialogue = finish(dialogue)
        except SkillExists as exc:
            # The registry may not have seen yet what the disk knows.
            session.dialogue = reopen(dialogue, _because(exc), taken=lambda other: other == name or self._taken(other))
        except SkilldError as exc:
            session.dialogue = reopen(dialogue, _because(exc), taken=self._taken)
        except Exception:
            log.exception("creating skill %s for uid %d failed", name, session.uid)
            session.dialogue = reopen(dialogue, _because(Internal()), taken=self._taken)
        finally:
            session.creation = None

    def _find(self, uid: int, session_id: str) -> _Session:
        self._expire()
        session = self._sessions.get(session_id)
        if session is None or session.uid != uid:
            raise SessionNotFound(session_id)
        return session

    def _touch(self, session: _Session) -> None:
        """Give a session its full life again."""
        self._sessions.pop(session.id, None)
        session.expires_s = self._clock() + self.ttl_s
        self._sessions[session.id] = session
        self._arm()

    def _make_room(self) -> None:
        """Forget the oldest finished session; it has nothing left to lose."""
        finished = next((each for each in self._sessions.values() if each.dialogue.step == "done"), None)
        if finished is None:
            oldest = next(iter(self._sessions.values()))
            raise Busy(
                f"{self.max_sessions} factory sessions are open, the most that are allowed",
                retry_after_s=round(max(oldest.expires_s - self._clock(), 1.0), 1),
            )
        del self._sessions[finished.id]

    def _expire(self) -> None:
        """Forget the sessions whose time is over; one whose skill is being created gets its full life again."""
        now = self._clock()
        over = [session for session in self._sessions.values() if session.expires_s <= now]
        for session in over:
            if session.creation is not None:
                self._touch(session)
            else:
                del self._sessions[session.id]
        self._arm()

    def _arm(self) -> None:
        """Set the timer for the end of the session that ends first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        first = next(iter(self._sessions.values()), None)
        if first is not None:
            delay_s = max(first.expires_s - self._clock(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._expire)


def _because(exc: SkilldError) -> str:
    return f"The skill was not created: {exc}."


def _response(session: _Session) -> FactoryResponse:
    dialogue = session.dialogue
    response: FactoryResponse = {
        "session_id": session.id,
        "step": dialogue.step,
        "prompt": dialogue.prompt,
        "done": dialogue.step == "done",
    }
    if session.skill is not None:
        response["skill"] = session.skill
    if dialogue.step == "confirm" and dialogue.draft is not None:
        response["preview"] = render_skill_md(dialogue.draft)
    return response
