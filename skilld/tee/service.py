"""
The guest agent, as the rest of skilld asks it: one client for life, few calls at a time, every failure a SkilldError.

Owns: the SDK's client, which is built on first use in a thread; the calls in flight. Lives on the event loop.

Quotes, attestations and events go one at a time: a quote takes seconds behind a lock of the machine's own, and two
events at once can leave dstack OS 0.5 with a log that no longer fits RTMR3. A call is finished even when its caller is
gone: the next one must not begin before. Questions, which any peer may ask, have a room of their own and end with their
caller, so that nobody keeps a signature waiting with them.

Source: API, section 3, "tee"; dstack-sdk 0.5.4; dstack's ``rpc_service.rs`` and ``attestation.rs``.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skilld.errors import Busy, SkilldError, TeeTimeout, TeeUnavailable, TeeUnsupported
from skilld.tee.endpoint import INSTALL_HINT, check_available, find_endpoint, is_available

if TYPE_CHECKING:
    from dstack_sdk import AsyncDstackClient

log = logging.getLogger(__name__)

# The agent's server has eight workers; the SDK's pool of connections fails calls that wait too long for one.
IN_FLIGHT_LIMIT = 4
QUESTIONS_IN_FLIGHT_LIMIT = 4
# More calls than this, waiting ones included, are answered busy.
PENDING_LIMIT = 256
QUESTIONS_PENDING_LIMIT = 64

# Seconds after a refused connection in which no other is tried: callers who ask a dead agent again and again cost the
# event loop a millisecond or two each time.
REFUSED_S = 0.02

# The release that has the Version RPC; an older one cannot say what it is.
VERSIONED_OS = "0.5.7"

Send = Callable[["AsyncDstackClient"], Awaitable[Any]]


@dataclass
class _Room:
    """Calls that wait for each other: their turns, and how many of them there are, at most and now."""

    turn: asyncio.Lock | asyncio.Semaphore
    pending_limit: int
    pending: int = 0


class Tee:
    """
    The guest agent of this machine, if there is one.

    Args:
        configured: Path or URL of the guest agent; empty for the SDK's own search.
        timeout_s: Seconds that a call may take, waiting for its turn included.

    Every method raises, beside what it names:
        TeeUnavailable: No SDK, no socket, or the guest agent refused or broke off.
        TeeTimeout: No reply in time.
        TeeUnsupported: This version of dstack OS has no such RPC.
        TeeRejected: The guest agent answered an error.
        TeeProtocol: The reply has another shape.
        Busy: Too many calls wait already.
    """

    def __init__(self, configured: str, timeout_s: float) -> None:
        # settings
        self.timeout_s = timeout_s
        self._configured = configured
        # state
        self._client: AsyncDstackClient | None = None
        self._client_endpoint = ""
        self._building = asyncio.Lock()
        self._calls = _Room(asyncio.Semaphore(IN_FLIGHT_LIMIT), PENDING_LIMIT)
        self._alone = _Room(asyncio.Lock(), PENDING_LIMIT)
        self._questions = _Room(asyncio.Semaphore(QUESTIONS_IN_FLIGHT_LIMIT), QUESTIONS_PENDING_LIMIT)
        self._refused_until = 0.0
        # tasks
        self._tasks: set[asyncio.Task[dict[str, Any]]] = set()

    @property
    def endpoint(self) -> str:
        """Where the guest agent is, or should be."""
        return find_endpoint(self._configured, os.environ)

    @property
    def is_available(self) -> bool:
        """Whether the SDK and the socket are there; nothing is asked."""
        return is_available(self.endpoint)

    def reconfigure(self, configured: str) -> None:
        """Take another endpoint from the next call on."""
        self._configured = configured

    async def info(self) -> dict[str, Any]:
        """Return who the guest is, ``tcb_info`` parsed; registers are null off TDX."""

        async def send(client: AsyncDstackClient) -> Any:
            from skilld.tee import sdk

            return await sdk.get_info(client)

        return await self._call("tee.info", send, self._questions, only_reads=True)

    async def version(self) -> dict[str, Any]:
        """Return the version of the guest agent."""
        return await self._call("tee.version", lambda client: client.version(), self._questions, only_reads=True)

    async def quote(self, report_data: bytes) -> dict[str, Any]:
        """Return a quote over 1 to 64 bytes, which the agent pads with zeros; empty off TDX."""
        return await self._call("tee.quote", lambda client: client.get_quote(report_data), self._alone)

    async def attest(self, report_data: bytes) -> dict[str, Any]:
        """Return the attestation over 1 to 64 bytes, in dstack's own format for every kind of TEE."""
        return await self._call("tee.attest", lambda client: client.attest(report_data), self._alone)

    async def derive_key(self, path: str, purpose: str, algorithm: str) -> dict[str, Any]:
        """
        Return the key of a path, and the signatures that lead to the KMS.

        The key depends on the path alone: one path gives both algorithms the same 32 bytes.
        """

        async def send(client: AsyncDstackClient) -> Any:
            from skilld.tee import sdk

            return await sdk.get_key(client, path, purpose, algorithm)

        return await self._call(
            "tee.derive_key", send, self._calls, only_reads=True, what=f"tee.derive_key for {algorithm}"
        )

    async def tls_key(self, **options: Any) -> dict[str, Any]:
        """Return a new TLS key and its certificates; ``options`` are those of the SDK."""

        async def send(client: AsyncDstackClient) -> Any:
            from skilld.tee import sdk

            return await sdk.get_tls_key(client, options)

        return await self._call("tee.tls_key", send, self._calls, what="a TLS key with a validity or app info")

    async def sign(self, algorithm: str, data: bytes) -> dict[str, Any]:
        """Sign with the app's key, which every container of the CVM shares."""
        return await self._call("tee.sign", lambda client: client.sign(algorithm, data), self._calls)

    async def verify(self, algorithm: str, data: bytes, signature: bytes, public_key: bytes) -> dict[str, Any]:
        """Tell whether a signature is that of a key."""
        return await self._call(
            "tee.verify",
            lambda client: client.verify(algorithm, data, signature, public_key),
            self._questions,
            only_reads=True,
        )

    async def emit_event(self, event: str, payload: bytes) -> None:
        """Add an event to the log and extend RTMR3 with it."""
        await self._call("tee.emit_event", lambda client: client.emit_event(event, payload), self._alone)

    async def close(self) -> None:
        """End what is in flight, and the connections; again is no error."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with self._building:
            await self._drop_client()

    async def _call(
        self, method: str, send: Send, room: _Room, *, only_reads: bool = False, what: str = ""
    ) -> dict[str, Any]:
        """
        Make one call in its turn and in time.

        Args:
            method: Its name in errors.
            send: Makes the call; a model of the SDK becomes a dict.
            room: Where it waits for its turn.
            only_reads: It may be made again when the agent broke off.
            what: What an older OS may lack, where that is not the method itself.
        """
        if room.pending >= room.pending_limit:
            raise Busy(f"{method}: {room.pending} calls of the guest agent are waiting already")
        room.pending += 1
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                await room.turn.acquire()
                task = asyncio.create_task(self._send(method, send, only_reads, what, deadline), name=method)
                self._tasks.add(task)
                task.add_done_callback(functools.partial(self._end_turn, room.turn))
                return await (task if room is self._questions else asyncio.shield(task))
        except TimeoutError:
            raise TeeTimeout(method, self.timeout_s) from None
        finally:
            room.pending -= 1

    def _end_turn(self, turn: asyncio.Lock | asyncio.Semaphore, task: asyncio.Task[dict[str, Any]]) -> None:
        self._tasks.discard(task)
        turn.release()
        if not task.cancelled():
            task.exception()  # its caller may be gone

    async def _send(self, method: str, send: Send, only_reads: bool, what: str, deadline: float) -> dict[str, Any]:
        client = await self._ready_client()
        from skilld.tee import sdk

        loop = asyncio.get_running_loop()
        if loop.time() < self._refused_until:
            raise sdk.refused(self._client_endpoint)

        try:
            async with asyncio.timeout_at(deadline):
                try:
                    result = await send(client)
                except sdk.BROKEN_OFF:
                    if not only_reads:
                        raise
                    result = await send(client)
                return sdk.as_dict(result)
        except SkilldError:
            raise
        except sdk.FAILURES as exc:
            error: SkilldError = sdk.as_error(exc, method, endpoint=self._client_endpoint, timeout_s=self.timeout_s)
            is_missing = sdk.is_missing(exc)
            if sdk.is_refused(exc):
                self._refused_until = loop.time() + REFUSED_S
        # Outside the handler: an error that drags the SDK's own along would drag its values along, too.
        if is_missing:
            error = TeeUnsupported(method, await self._os_version(client), what)
        raise error

    async def _os_version(self, client: AsyncDstackClient) -> str | None:
        """The OS's version for an error; None where it is not to be had."""
        from skilld.tee import sdk

        try:
            return (await client.version()).version
        except sdk.FAILURES as exc:
            return f"before {VERSIONED_OS}" if sdk.is_missing(exc) else None

    async def _ready_client(self) -> AsyncDstackClient:
        """The client; built where there is none, or the endpoint is another one now."""
        endpoint = self.endpoint
        # So a socket that is gone costs a call of the kernel, not one of the SDK's, which takes a thousand times that.
        check_available(endpoint)
        if self._client is not None and self._client_endpoint == endpoint:
            return self._client
        async with self._building:
            if self._client is None or self._client_endpoint != endpoint:
                await self._drop_client()
                try:
                    client = await asyncio.to_thread(_build, endpoint, self.timeout_s)
                except ImportError as exc:
                    raise TeeUnavailable(endpoint, f"{INSTALL_HINT} ({exc})") from None
                except FileNotFoundError:
                    raise TeeUnavailable(endpoint, f"the socket {endpoint} went away") from None
                # Counted once, so that its connections are closed by close() and by nothing else.
                self._client = await client.__aenter__()  # type: ignore[no-untyped-call]
                self._client_endpoint = endpoint
                log.info("asking the guest agent at %s", endpoint)
            return self._client

    async def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)  # type: ignore[no-untyped-call]


def _build(endpoint: str, timeout_s: float) -> AsyncDstackClient:
    from skilld.tee.sdk import build_client

    return build_client(endpoint, timeout_s)
