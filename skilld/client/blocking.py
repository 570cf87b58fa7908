"""
The client for programs that block.

Owns: the connections that no call is using.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from skilld.client import calls
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
from skilld.client.connection import Connection, Deadline
from skilld.client.endpoint import default_paths
from skilld.client.errors import ConnectionLost
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
from skilld.client.subscription import Subscription
from skilld.errors import SkilldError

T = TypeVar("T")


class SkilldClient:
    """
    Calls the daemon and waits for its reply.

    Any number of threads may share a client: each call takes a connection that no other uses, or opens one, so that
    they never wait for each other. Connections are kept for the next call. One that the daemon closed meanwhile is
    opened again; when one breaks during a call, only a method that does nothing but read is called again.

    Every method may raise the daemon's error as a :class:`SkilldError`, or :class:`NoDaemon`,
    :class:`ConnectionLost`, :class:`RequestTimeout` or :class:`BadReply`.

    Args:
        endpoint: Path of the socket. By default ``SKILLD_ENDPOINT``, else the first of the well-known paths where a
            daemon listens.
        timeout: Seconds to wait for a reply, beside what the call itself asks the daemon to wait (``wait_ms``,
            ``sync_timeout_ms``, a script's ``timeout_ms``); None waits for ever.
    """

    def __init__(self, endpoint: str | None = None, timeout: float | None = DEFAULT_TIMEOUT_S) -> None:
        # settings
        self.timeout = timeout
        self._paths = default_paths(endpoint)
        # state
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._pid = os.getpid()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; those in use, when their call ends. Idempotent."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def call(self, method: str, params: Params | None = None, *, on_notification: OnNotification | None = None) -> Any:
        """
        Call any method and return its result as JSON.

        Args:
            method: Its name, such as "skills.get".
            params: By name or by position.
            on_notification: Gets the notifications that come before the result, for a method that sends some.
        """
        params = params or {}
        timeout_s = None if self.timeout is None else self.timeout + calls.patience_s(method, params)
        deadline = Deadline(method, timeout_s)
        while True:
            kept = self._take_idle()
            connection = kept or Connection(self._paths, deadline)
            try:
                result = connection.call(method, params, deadline, on_notification)
            except SkilldError:
                self._give_back(connection)
                raise
            except ConnectionLost as exc:
                connection.close()
                # The daemon may have closed it just before the call.
                if kept and (exc.is_unsent or method in calls.ONLY_READS):
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
            return result

    def _take_idle(self) -> Connection | None:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the client is closed")
            if self._pid != os.getpid():
                # A forked process and its parent must not read each other's replies.
                self._pid = os.getpid()
                while self._idle:
                    self._idle.pop().close()
            while self._idle:
                connection = self._idle.pop()
                if connection.is_fresh():
                    return connection
                connection.close()
        return None

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if connection.is_usable and not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def _run(self, steps: Steps[T]) -> T:
        """Make a call that is made of several."""
        try:
            request = next(steps)
            while True:
                request = steps.send(self.call(*request))
        except StopIteration as end:
            result: T = end.value
            return result

    # Skills.

    def list(
        self,
        *,
        offset: int = 0,
        limit: int | None = None,
        root: str | None = None,
        sync_timeout_ms: int | None = None,
    ) -> Listing:
        """List skills, sorted by id: all of them, or ``limit``. Pages are fetched until they are of one revision."""
        return self._run(calls.list_skills(offset, limit, root, sync_timeout_ms))

    def search(self, query: str, *, limit: int | None = None, sync_timeout_ms: int | None = None) -> SearchResult:
        """Search skills by any text; the best ``limit`` hits (10, at most 100), best first."""
        return parse(
            SearchResult,
            self.call("skills.search", given(query=query, limit=limit, sync_timeout_ms=sync_timeout_ms)),
        )

    def get(self, name: str, *, sync_timeout_ms: int | None = None) -> Skill:
        """Return one skill, whole, by its id, or by a name that only it bears."""
        return parse(Skill, self.call("skills.get", given(name=name, sync_timeout_ms=sync_timeout_ms)))

    def read_file(self, name: str, path: str) -> bytes:
        """Return the bytes of a file of a skill; ``path`` is relative to the skill directory."""
        return self._run(calls.read_file(name, path))

    def read_slice(self, name: str, path: str, *, offset: int = 0, limit: int | None = None) -> FileContent:
        """Return at most ``limit`` bytes (1 MiB) of a file from ``offset`` on; a slice of text has whole characters."""
        params = given(name=name, path=path, offset=offset, limit=limit)
        return parse(FileContent, self.call("skills.read_file", params))

    def validate(self, name: str | None = None, *, content: str | None = None) -> Validation:
        """Hold a skill, or the text of a SKILL.md, against the specification."""
        return parse(Validation, self.call("skills.validate", given(name=name, content=content)))

    def problems(self) -> tuple[Problem, ...]:
        """List everything wrong with the files in all roots, errors first."""
        return parse(Problems, self.call("skills.problems")).problems

    def prompt(self, names: Sequence[str] | None = None, *, query: str | None = None, limit: int | None = None) -> str:
        """Return the ``<available_skills>`` block of these skills, of the hits of a query, or of all."""
        params = given(names=None if names is None else [*names], query=query, limit=limit)
        return parse(Prompt, self.call("skills.prompt", params)).prompt

    def activate(self, name: str) -> str:
        """Return the ``<skill_content>`` block that gives an agent one skill's instructions."""
        return parse(Prompt, self.call("skills.activate", {"name": name})).prompt

    def changes(self, since: str | None = None, *, wait_ms: int = 0) -> Changes:
        """Tell what changed since a revision; where nothing did, wait up to ``wait_ms`` milliseconds for it."""
        return parse(Changes, self.call("skills.changes", given(since=since, wait_ms=wait_ms)))

    def subscribe(self, since: str | None = None, *, reconnect_s: float = RECONNECT_S) -> Subscription:
        """
        Iterate over changes as they happen, on a connection of its own.

        Changes that happen after this returns are told. None is lost in silence: see :class:`Subscription`.

        Args:
            since: A revision; what changed after it is told first.
            reconnect_s: Seconds to try to get back to a daemon that went away, for instance to start again.
        """
        return Subscription(self._paths, self.timeout, since, reconnect_s)

    def create(self, name: str, description: str, body: str, **fields: Unpack[NewFields]) -> Skill:
        """Create a skill in the first root."""
        params = calls.write_params({"name": name, "description": description, "body": body, **fields})
        return parse(Skill, self.call("skills.create", params))

    def update(self, name: str, **fields: Unpack[UpdateFields]) -> Skill:
        """Change what is given of a skill, all at once; a file that is None is removed."""
        return parse(Skill, self.call("skills.update", calls.write_params({"name": name, **fields})))

    def delete(self, name: str, *, if_digest: str | None = None) -> None:
        """Delete a skill."""
        self.call("skills.delete", given(name=name, if_digest=if_digest))

    def execute_script(
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
        return parse(RunResult, self.call("skills.execute_script", params, on_notification=on_notification))

    # The factory.

    def factory_start(self, initial_input: str | None = None) -> FactoryResponse:
        """Begin the dialogue that makes a skill."""
        return parse(FactoryResponse, self.call("factory.start", given(initial_input=initial_input)))

    def factory_continue(self, session_id: str, input: str) -> FactoryResponse:
        """Answer the question of the dialogue."""
        return parse(FactoryResponse, self.call("factory.continue", {"session_id": session_id, "input": input}))

    def factory_check(self, input: str) -> TriggerCheck:
        """Tell whether an input asks for the dialogue."""
        return parse(TriggerCheck, self.call("factory.check", {"input": input}))

    def factory_get(self, session_id: str) -> FactoryResponse:
        """Tell where the dialogue stands."""
        return parse(FactoryResponse, self.call("factory.get", {"session_id": session_id}))

    def factory_cancel(self, session_id: str) -> None:
        """End the dialogue without a skill."""
        self.call("factory.cancel", {"session_id": session_id})

    # The daemon.

    def ping(self) -> None:
        """Return if the daemon answers."""
        self.call("skilld.ping")

    def status(self) -> Status:
        """Tell how the daemon is doing."""
        return parse(Status, self.call("skilld.status"))

    def discover(self) -> dict[str, Any]:
        """Return the OpenRPC document of all methods."""
        document: dict[str, Any] = self.call("rpc.discover")
        return document
