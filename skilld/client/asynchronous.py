"""
The client for asyncio.

Owns: one connection that all calls share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from skilld.client import calls
from skilld.client.async_connection import AsyncConnection, open_connection
from skilld.client.async_subscription import AsyncSubscription
from skilld.client.calls import (
    DEFAULT_TIMEOUT_S,
    RECONNECT_S,
    Content,
    NewFields,
    OnOutput,
    Steps,
    UpdateFields,
    given,
)
from skilld.client.endpoint import default_paths
from skilld.client.errors import ConnectionLost, RequestTimeout
from skilld.client.parse import parse
from skilld.client.protocol import OnNotification, Params
from skilld.client.results import (
    Changes,
    FactoryResponse,
    FileContent,
    Listing,
    Problem,
    Problems,
    Prompt,
    RunResult,
    SearchResult,
    Skill,
    Status,
    TriggerCheck,
    Validation,
)

T = TypeVar("T")


class AsyncSkilldClient:
    """
    Calls the daemon and waits for its reply, in one event loop.

    Any number of calls may wait at a time; they share one connection, and the daemon answers in any order. It is kept
    for the next call, and opened again after it broke; a method that does nothing but read is then called again.

    A call that is cancelled, or has no reply in time, leaves the others alone; its own reply is thrown away when it
    comes.

    Raises, args and methods are those of :class:`skilld.client.SkilldClient`.
    """

    def __init__(self, endpoint: str | None = None, timeout: float | None = DEFAULT_TIMEOUT_S) -> None:
        # settings
        self.timeout = timeout
        self._paths = default_paths(endpoint)
        # state
        self._connecting = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that wait are told that it broke. Idempotent."""
        self._is_closed = True
        async with self._connecting:
            if self._connection is not None:
                await self._connection.close()

    async def call(
        self, method: str, params: Params | None = None, *, on_notification: OnNotification | None = None
    ) -> Any:
        """
        Call any method and return its result as JSON.

        Args:
            method: Its name, such as "skills.get".
            params: By name or by position.
            on_notification: Gets the notifications that come before the result, for a method that sends some.
        """
        params = params or {}
        timeout_s = None if self.timeout is None else self.timeout + calls.patience_s(method, params)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    connection, is_kept = await self._connected()
                    try:
                        return await connection.call(method, params, on_notification)
                    except ConnectionLost as exc:
                        # The daemon may have closed it just before the call.
                        if not (is_kept and (exc.is_unsent or method in calls.ONLY_READS)):
                            raise
        except TimeoutError as exc:
            raise RequestTimeout(method, timeout_s or 0) from exc

    async def _connected(self) -> tuple[AsyncConnection, bool]:
        """The connection, opened if need be; and whether it was there before."""
        async with self._connecting:
            if self._is_closed:
                raise RuntimeError("the client is closed")
            if self._connection is not None:
                if self._connection.is_open:
                    return self._connection, True
                await self._connection.close()
            self._connection = await open_connection(self._paths)
            return self._connection, False

    async def _run(self, steps: Steps[T]) -> T:
        """Make a call that is made of several."""
        try:
            request = next(steps)
            while True:
                request = steps.send(await self.call(*request))
        except StopIteration as end:
            result: T = end.value
            return result

    # Skills.

    async def list(
        self,
        *,
        offset: int = 0,
        limit: int | None = None,
        root: str | None = None,
        sync_timeout_ms: int | None = None,
    ) -> Listing:
        """List skills, sorted by id: all of them, or ``limit``. Pages are fetched until they are of one revision."""
        return await self._run(calls.list_skills(offset, limit, root, sync_timeout_ms))

    async def search(self, query: str, *, limit: int | None = None, sync_timeout_ms: int | None = None) -> SearchResult:
        """Search skills by any text; the best ``limit`` hits (10, at most 100), best first."""
        return parse(
            SearchResult,
            await self.call("skills.search", given(query=query, limit=limit, sync_timeout_ms=sync_timeout_ms)),
        )

    async def get(self, name: str, *, sync_timeout_ms: int | None = None) -> Skill:
        """Return one skill, whole, by its id, or by a name that only it bears."""
        return parse(Skill, await self.call("skills.get", given(name=name, sync_timeout_ms=sync_timeout_ms)))

    async def read_file(self, name: str, path: str) -> bytes:
        """Return the bytes of a file of a skill; ``path`` is relative to the skill directory."""
        return await self._run(calls.read_file(name, path))

    async def read_slice(self, name: str, path: str, *, offset: int = 0, limit: int | None = None) -> FileContent:
        """Return at most ``limit`` bytes (1 MiB) of a file from ``offset`` on; a slice of text has whole characters."""
        params = given(name=name, path=path, offset=offset, limit=limit)
        return parse(FileContent, await self.call("skills.read_file", params))

    async def validate(self, name: str | None = None, *, content: str | None = None) -> Validation:
        """Hold a skill, or the text of a SKILL.md, against the specification."""
        return parse(Validation, await self.call("skills.validate", given(name=name, content=content)))

    async def problems(self) -> tuple[Problem, ...]:
        """List everything wrong with the files in all roots, errors first."""
        return parse(Problems, await self.call("skills.problems")).problems

    async def prompt(
        self, names: Sequence[str] | None = None, *, query: str | None = None, limit: int | None = None
    ) -> str:
        """Return the ``<available_skills>`` block of these skills, of the hits of a query, or of all."""
        params = given(names=None if names is None else [*names], query=query, limit=limit)
        return parse(Prompt, await self.call("skills.prompt", params)).prompt

    async def activate(self, name: str) -> str:
        """Return the ``<skill_content>`` block that gives an agent one skill's instructions."""
        return parse(Prompt, await self.call("skills.activate", {"name": name})).prompt

    async def changes(self, since: str | None = None, *, wait_ms: int = 0) -> Changes:
        """Tell what changed since a revision; where nothing did, wait up to ``wait_ms`` milliseconds for it."""
        return parse(Changes, await self.call("skills.changes", given(since=since, wait_ms=wait_ms)))

    def subscribe(self, since: str | None = None, *, reconnect_s: float = RECONNECT_S) -> AsyncSubscription:
        """
        Iterate over changes as they happen, on a connection of its own, in an ``async with`` block.

        Changes that happen after its beginning are told. None is lost in silence: see :class:`AsyncSubscription`.

        Args:
            since: A revision; what changed after it is told first.
            reconnect_s: Seconds to try to get back to a daemon that went away, for instance to start again.
        """
        return AsyncSubscription(self._paths, self.timeout, since, reconnect_s)

    async def create(self, name: str, description: str, body: str, **fields: Unpack[NewFields]) -> Skill:
        """Create a skill in the first root."""
        params = calls.write_params({"name": name, "description": description, "body": body, **fields})
        return parse(Skill, await self.call("skills.create", params))

    async def update(self, name: str, **fields: Unpack[UpdateFields]) -> Skill:
        """Change what is given of a skill, all at once; a file that is None is removed."""
        return parse(Skill, await self.call("skills.update", calls.write_params({"name": name, **fields})))

    async def delete(self, name: str, *, if_digest: str | None = None) -> None:
        """Delete a skill."""
        await self.call("skills.delete", given(name=name, if_digest=if_digest))

    async def execute_script(
        self,
        name: str,
        script: str,
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        stdin: Content | None = None,
        timeout_ms: int | None = None,
        receipt: bool | None = None,
        on_output: OnOutput | None = None,
    ) -> RunResult:
        """
        Run a script of a skill in the sandbox and wait for it to end.

        Args:
            name: An id, or a name that only one skill bears.
            script: Path below the skill's scripts.
            args: Its arguments.
            env: Variables beside the sandbox's own.
            stdin: What it reads; nothing without it.
            timeout_ms: Milliseconds until it is ended.
            receipt: Whether the daemon shall sign what was run and what came out.
            on_output: Is called with "stdout" or "stderr" and bytes as the script writes them.
        """
        params = calls.script_params(
            name, script, args, stdin, on_output is not None, env=env, timeout_ms=timeout_ms, receipt=receipt
        )
        on_notification = None if on_output is None else calls.output_to(on_output)
        return parse(RunResult, await self.call("skills.execute_script", params, on_notification=on_notification))

    # The factory.

    async def factory_start(self, initial_input: str | None = None) -> FactoryResponse:
        """Begin the dialogue that makes a skill."""
        return parse(FactoryResponse, await self.call("factory.start", given(initial_input=initial_input)))

    async def factory_continue(self, session_id: str, input: str) -> FactoryResponse:
        """Answer the question of the dialogue."""
        return parse(FactoryResponse, await self.call("factory.continue", {"session_id": session_id, "input": input}))

    async def factory_check(self, input: str) -> TriggerCheck:
        """Tell whether an input asks for the dialogue."""
        return parse(TriggerCheck, await self.call("factory.check", {"input": input}))

    async def factory_get(self, session_id: str) -> FactoryResponse:
        """Tell where the dialogue stands."""
        return parse(FactoryResponse, await self.call("factory.get", {"session_id": session_id}))

    async def factory_cancel(self, session_id: str) -> None:
        """End the dialogue without a skill."""
        await self.call("factory.cancel", {"session_id": session_id})

    # The daemon.

    async def ping(self) -> None:
        """Return if the daemon answers."""
        await self.call("skilld.ping")

    async def status(self) -> Status:
        """Tell how the daemon is doing."""
        return parse(Status, await self.call("skilld.status"))

    async def discover(self) -> dict[str, Any]:
        """Return the OpenRPC document of all methods."""
        document: dict[str, Any] = await self.call("rpc.discover")
        return document
