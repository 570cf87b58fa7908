"""The open sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from skilld.errors import Busy, SessionNotFound, ShuttingDown, SkillExists, Storage
from skilld.factory.dialogue import PROMPTS
from skilld.factory.draft import Draft
from skilld.factory.sessions import FactoryResponse, Sessions

ALICE, BOB = 1000, 1001
TTL_S = 1_800.0
ANSWERS = ("fill forms", "form", "a → b", "simple", "ask me")
SUMMARY = {"id": "fill-forms", "name": "fill-forms", "description": "Fill forms."}


class Time:
    """A clock that stands still until told, and the timers that hang on it."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, asyncio.TimerHandle]] = []

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        when_s = self.now_s + delay_s
        timer = asyncio.TimerHandle(when_s, callback, (), asyncio.get_running_loop())
        self.timers.append((when_s, timer))
        return timer

    @property
    def pending(self) -> list[float]:
        return [when_s for when_s, timer in self.timers if not timer.cancelled()]

    def pass_s(self, seconds: float) -> None:
        """Let time pass and the timers go off that are due."""
        self.now_s += seconds
        due = [timer for when_s, timer in self.timers if when_s <= self.now_s and not timer.cancelled()]
        self.timers = [entry for entry in self.timers if entry[1] not in due]
        for timer in due:
            timer._run()


class Store:
    """A store that creates when it is let, and remembers the names."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.errors: list[Exception] = []
        self.started = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()

    async def create(self, draft: Draft) -> Mapping[str, Any]:
        self.started.set()
        await self.let.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.names.append(draft.name)
        return SUMMARY

    def hold(self) -> None:
        self.let.clear()


@pytest.fixture
async def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", time.call_later)
    return time


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def sessions(time: Time, store: Store) -> AsyncIterator[Sessions]:
    sessions = Sessions(store.create, store.names.__contains__, ttl_s=TTL_S, max_sessions=3, clock=lambda: time.now_s)
    yield sessions
    store.let.set()
    await sessions.close()
    assert (len(sessions), time.pending) == (0, [])


async def say(sessions: Sessions, response: FactoryResponse, *texts: str) -> FactoryResponse:
    for text in texts:
        response = await sessions.continue_(ALICE, response["session_id"], text)
    return response


async def turn_of_the_loop() -> None:
    """Let every task that can run do so once."""
    await asyncio.sleep(0)


async def to_confirm(sessions: Sessions) -> FactoryResponse:
    return await say(sessions, sessions.start(ALICE), *ANSWERS)


async def test_factory_full_flow(sessions: Sessions, store: Store) -> None:
    """Six answers lead to a skill; each response says where the dialogue stands."""
    response = sessions.start(ALICE)
    seen = [response]
    for text in ANSWERS:
        response = await say(sessions, response, text)
        seen.append(response)
    assert [(each["step"], each["done"]) for each in seen] == [
        ("goal", False), ("trigger", False), ("example", False), ("complexity", False), ("edge_cases", False),
        ("confirm", False),
    ]  # fmt: skip
    assert [set(each) for each in seen[:-1]] == [{"session_id", "step", "prompt", "done"}] * 5
    assert seen[-1]["preview"].startswith("---\nname: fill-forms\n")
    assert sessions.get(ALICE, response["session_id"]) == seen[-1]
    done = await say(sessions, response, "yes")
    assert done == {
        "session_id": response["session_id"],
        "step": "done",
        "prompt": "The skill 'fill-forms' is created.",
        "done": True,
        "skill": SUMMARY,
    }
    assert store.names == ["fill-forms"]


async def test_start_takes_the_initial_input(sessions: Sessions) -> None:
    """The initial input answers the goal."""
    response = sessions.start(ALICE, "teach you to fill forms")
    assert (response["step"], response["prompt"]) == ("trigger", PROMPTS["trigger"])


async def test_session_ids_are_random(sessions: Sessions) -> None:
    """An id is 128 random bits in hex."""
    ids = [sessions.start(ALICE)["session_id"] for _ in range(3)]
    assert len({*ids}) == 3
    assert all(len(bytes.fromhex(id)) == 16 for id in ids)


async def test_factory_session_not_found(sessions: Sessions) -> None:
    """An unknown id is an error that names it, for every method."""
    with pytest.raises(SessionNotFound, match="nope") as caught:
        await sessions.continue_(ALICE, "nope", "x")
    assert caught.value.facts == {"session_id": "nope"}
    with pytest.raises(SessionNotFound):
        sessions.get(ALICE, "nope")
    with pytest.raises(SessionNotFound):
        await sessions.cancel(ALICE, "nope")


async def test_another_uid_does_not_see_the_session(sessions: Sessions) -> None:
    """A session belongs to the uid that started it; to root too it is not there."""
    response = sessions.start(ALICE)
    for uid in (BOB, 0):
        with pytest.raises(SessionNotFound):
            await sessions.continue_(uid, response["session_id"], "x")
        with pytest.raises(SessionNotFound):
            sessions.get(uid, response["session_id"])
        with pytest.raises(SessionNotFound):
            await sessions.cancel(uid, response["session_id"])
    assert sessions.get(ALICE, response["session_id"]) == response


async def test_cancel_forgets_the_session(sessions: Sessions, time: Time) -> None:
    """After cancel the session is gone, and its timer with it."""
    response = sessions.start(ALICE)
    await sessions.cancel(ALICE, response["session_id"])
    with pytest.raises(SessionNotFound):
        sessions.get(ALICE, response["session_id"])
    assert len(sessions) == 0
    time.pass_s(TTL_S)
    assert time.pending == []


async def test_the_word_cancel_ends_the_session(sessions: Sessions, store: Store) -> None:
    """The answer "cancel" is done without a skill, and the session is gone."""
    response = await say(sessions, await to_confirm(sessions), "cancel")
    assert response == {
        "session_id": response["session_id"],
        "step": "done",
        "prompt": "Cancelled. No skill was created.",
        "done": True,
    }
    with pytest.raises(SessionNotFound):
        sessions.get(ALICE, response["session_id"])
    assert store.names == []


async def test_session_expires_on_time(sessions: Sessions, time: Time) -> None:
    """A session ends ``ttl_s`` after its last answer, without anybody asking."""
    first = sessions.start(ALICE)
    time.pass_s(1_000)
    sessions.start(ALICE)
    await say(sessions, first, "fill forms")
    time.pass_s(TTL_S - 1)
    assert len(sessions) == 2
    time.pass_s(1)
    assert len(sessions) == 0
    assert time.pending == []


async def test_only_answers_keep_a_session_alive(sessions: Sessions, time: Time) -> None:
    """Looking at a session does not prolong its life."""
    response = sessions.start(ALICE)
    time.pass_s(TTL_S - 1)
    sessions.get(ALICE, response["session_id"])
    time.pass_s(1)
    with pytest.raises(SessionNotFound):
        sessions.get(ALICE, response["session_id"])


async def test_expired_session_is_not_found_even_before_the_timer(sessions: Sessions, time: Time) -> None:
    """A late timer gives no extra life."""
    response = sessions.start(ALICE)
    time.now_s += TTL_S
    with pytest.raises(SessionNotFound):
        sessions.get(ALICE, response["session_id"])


async def test_there_is_one_timer(sessions: Sessions, time: Time) -> None:
    """However many sessions and answers, one timer is set, for the session that ends first."""
    for second in range(3):
        await say(sessions, sessions.start(ALICE), "a", "b")
        time.pass_s(1)
        assert time.pending == [100 + TTL_S], second


async def test_full_table_refuses_cleanly(sessions: Sessions, time: Time) -> None:
    """One session more than ``max_sessions`` is busy and says when to try again; the others live on."""
    open_ = [sessions.start(uid) for uid in (ALICE, BOB, BOB)]
    time.pass_s(TTL_S - 60)
    with pytest.raises(Busy, match="3 factory sessions are open") as caught:
        sessions.start(ALICE)
    assert caught.value.facts == {"retry_after_s": 60.0}
    assert sessions.get(ALICE, open_[0]["session_id"]) == open_[0]
    time.pass_s(60)
    sessions.start(ALICE)
    assert len(sessions) == 1


async def test_finished_session_makes_room(sessions: Sessions) -> None:
    """A finished session is not an open one: it gives way when the table is full."""
    done = await say(sessions, await to_confirm(sessions), "yes")
    sessions.start(BOB)
    sessions.start(BOB)
    sessions.start(BOB)
    with pytest.raises(SessionNotFound):
        sessions.get(ALICE, done["session_id"])
    with pytest.raises(Busy):
        sessions.start(BOB)


async def test_finished_session_answers_again(sessions: Sessions, store: Store) -> None:
    """A peer that lost the reply gets it again; nothing is created twice, and there is nothing to cancel."""
    done = await say(sessions, await to_confirm(sessions), "yes")
    assert await say(sessions, done, "yes") == done
    assert sessions.get(ALICE, done["session_id"]) == done
    with pytest.raises(SessionNotFound):
        await sessions.cancel(ALICE, done["session_id"])
    assert store.names == ["fill-forms"]


async def test_two_answers_at_once_create_once(sessions: Sessions, store: Store) -> None:
    """Whatever arrives while the skill is being created gets the reply of the creation."""
    response = await to_confirm(sessions)
    store.hold()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(say(sessions, response, text)) for text in ("yes", "yes", "cancel", "goal")]
        await store.started.wait()
        assert sessions.get(ALICE, response["session_id"])["step"] == "confirm"
        store.let.set()
    assert {call.result()["step"] for call in calls} == {"done"}
    assert store.names == ["fill-forms"]


async def test_name_taken_meanwhile_keeps_the_answers(sessions: Sessions, store: Store) -> None:
    """The session stays at confirm, says why, proposes a free name, and the next yes creates it."""
    response = await to_confirm(sessions)
    store.errors.append(SkillExists("fill-forms"))
    response = await say(sessions, response, "yes")
    assert (response["step"], response["done"]) == ("confirm", False)
    assert response["prompt"].startswith(
        "The skill was not created: skill 'fill-forms' exists already. The skill is called 'fill-forms-2' now.\n\n"
    )
    assert response["preview"].startswith("---\nname: fill-forms-2\n")
    assert (await say(sessions, response, "yes"))["done"]
    assert store.names == ["fill-forms-2"]


async def test_failed_creation_can_be_tried_again(sessions: Sessions, store: Store) -> None:
    """An error of the store is the prompt's reason; another yes tries again under the same name."""
    response = await to_confirm(sessions)
    store.errors.append(Storage("ENOSPC", "write"))
    response = await say(sessions, response, "yes")
    assert response["prompt"].startswith("The skill was not created: write failed: ENOSPC.\n\n")
    assert (await say(sessions, response, "yes"))["done"]
    assert store.names == ["fill-forms"]


async def test_fault_of_the_daemon_keeps_the_answers(
    sessions: Sessions, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is logged, not shown, and the session stays at confirm."""
    response = await to_confirm(sessions)
    store.errors.append(RuntimeError("secret"))
    with caplog.at_level(logging.ERROR):
        response = await say(sessions, response, "yes")
    assert response["step"] == "confirm"
    assert response["prompt"].startswith("The skill was not created: internal error; the daemon's log has the details.")
    assert "secret" not in response["prompt"]
    assert "secret" in caplog.text


async def test_creation_outlives_its_caller(sessions: Sessions, store: Store) -> None:
    """A peer that leaves during the creation finds the skill made when it comes back."""
    response = await to_confirm(sessions)
    store.hold()
    call = asyncio.create_task(say(sessions, response, "yes"))
    await store.started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    store.let.set()
    assert (await say(sessions, response, "yes"))["skill"] == SUMMARY
    assert store.names == ["fill-forms"]


async def test_cancel_waits_for_a_creation(sessions: Sessions, store: Store) -> None:
    """A skill that is being created cannot be cancelled any more; one that fails can."""
    response = await to_confirm(sessions)
    for error in (Storage("EIO", "write"), None):
        store.hold()
        store.started.clear()
        store.errors = [error] if error else []
        yes = asyncio.create_task(say(sessions, response, "yes"))
        await store.started.wait()
        cancel = asyncio.create_task(sessions.cancel(ALICE, response["session_id"]))
        await turn_of_the_loop()
        assert not cancel.done()
        store.let.set()
        assert (await yes)["done"] == (error is None)
        if error:
            await cancel
            response = await to_confirm(sessions)
        else:
            with pytest.raises(SessionNotFound):
                await cancel


async def test_session_does_not_expire_during_its_creation(sessions: Sessions, store: Store, time: Time) -> None:
    """However long the disk takes, the caller learns what became of the skill."""
    response = await to_confirm(sessions)
    store.hold()
    yes = asyncio.create_task(say(sessions, response, "yes"))
    await store.started.wait()
    time.pass_s(TTL_S + 1)
    store.let.set()
    assert (await yes)["done"]
    assert sessions.get(ALICE, response["session_id"])["done"]


async def test_close_waits_for_creations_and_refuses_new_work(sessions: Sessions, store: Store) -> None:
    """After close nothing is left and nothing begins; a second close does no harm."""
    response = await to_confirm(sessions)
    store.hold()
    yes = asyncio.create_task(say(sessions, response, "yes"))
    await store.started.wait()
    close = asyncio.create_task(sessions.close())
    await turn_of_the_loop()
    assert not close.done()
    store.let.set()
    await close
    await sessions.close()
    assert (await yes)["done"]
    assert store.names == ["fill-forms"]
    with pytest.raises(ShuttingDown):
        sessions.start(ALICE)
    with pytest.raises(ShuttingDown):
        await sessions.continue_(ALICE, response["session_id"], "x")


async def test_real_timer_ends_a_session() -> None:
    """With the loop's own timers and clock a session ends by itself, before a timer that is set for later."""
    sessions = Sessions(Store().create, [].__contains__, ttl_s=0.01, max_sessions=3)
    sessions.start(ALICE)
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.03, later.set)
    await later.wait()
    assert len(sessions) == 0
    await sessions.close()
