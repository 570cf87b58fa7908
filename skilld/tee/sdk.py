"""
The border to dstack's SDK: a client is built here, and its exceptions become errors of skilld.

Importing this module loads the SDK, httpx and pydantic: 200 ms and 30 MB. So only :mod:`skilld.tee.service` imports it,
in a thread, when the guest agent is first asked.

Owns: nothing.

Source: dstack-sdk 0.5.4; ra-rpc's ``rocket_helper.rs`` for the errors of the guest agent.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
from dstack_sdk import AsyncDstackClient, GetKeyResponse
from pydantic import BaseModel

from skilld.errors import SkilldError, TeeProtocol, TeeRejected, TeeTimeout, TeeUnavailable

# A reply is parsed in one go on the event loop: 4 MiB take some 20 ms. Real ones, with event log and certificates, stay
# below 300 kB.
REPLY_LIMIT_BYTES = 4 * 1024 * 1024
ERROR_LIMIT_CHARS = 500

# What can come out of the SDK: of its transport, of its own checks, of a reply that has another shape.
FAILURES = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
)
# The guest agent went away before its reply was whole: a call that only reads may be made again.
BROKEN_OFF = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)

# An error may quote what was sent; keys and data to be signed are long hexadecimal texts.
_SECRET = re.compile(r"[0-9A-Fa-f]{32,}")


class ReplyTooLarge(ValueError):
    """The guest agent said more than a reply can hold."""


class BoundedTransport(httpx.AsyncBaseTransport):
    """A transport whose replies end with an error where they grow too large."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body is counted while it is read."""
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _BoundedStream(response.stream)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _BoundedStream(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = REPLY_LIMIT_BYTES
        async for chunk in self._inner:
            left -= len(chunk)
            if left < 0:
                raise ReplyTooLarge(f"a reply of more than {REPLY_LIMIT_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def build_client(endpoint: str, timeout_s: float) -> AsyncDstackClient:
    """
    Build a client; costs two TLS contexts, some 50 ms, so it is done once and in a thread.

    Raises:
        FileNotFoundError: There is no socket.
    """
    # A line for every call says nothing that the caller does not know.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    client = AsyncDstackClient(endpoint, timeout=timeout_s)
    client.async_transport = BoundedTransport(client.async_transport)  # type: ignore[assignment]  # it is one, too
    return client


async def get_info(client: AsyncDstackClient) -> Any:
    """Ask who the guest is; the reply as it is where the SDK's model refuses it, which demands registers of TDX."""
    try:
        return await client.info()
    except ValueError:
        reply: Any = await client._send_rpc_request("Info", {})
    if not isinstance(reply, dict) or not isinstance(reply.get("app_id"), str):
        raise ValueError("Info without app_id")
    try:
        tcb_info = json.loads(reply["tcb_info"])
    except (KeyError, TypeError, ValueError):
        tcb_info = None
    return {**reply, "tcb_info": tcb_info if isinstance(tcb_info, dict) else None}


async def get_key(client: AsyncDstackClient, path: str, purpose: str, algorithm: str) -> Any:
    """Derive a key, with ed25519 also on dstack OS 0.5.6, which has it and no Version."""
    try:
        return await client.get_key(path, purpose, algorithm)
    except RuntimeError as exc:
        cause = _cause(exc)
        if not is_missing(cause):
            raise cause from None
    # An older OS has no Verify either, and would answer with a key for another algorithm.
    try:
        await client.verify(algorithm, b"", b"", b"")
    except httpx.HTTPStatusError as exc:
        if is_missing(exc):
            raise
    request = {"path": path, "purpose": purpose, "algorithm": algorithm}
    return GetKeyResponse(**await client._send_rpc_request("GetKey", request))


async def get_tls_key(client: AsyncDstackClient, options: Mapping[str, Any]) -> Any:
    """Make a TLS key."""
    try:
        return await client.get_tls_key(**options)
    except RuntimeError as exc:
        raise _cause(exc) from None


def as_dict(result: Any) -> dict[str, Any]:
    """Turn one of the SDK's models, or nothing, into a dict."""
    if isinstance(result, BaseModel):
        return result.model_dump()
    return dict(result or {})


def _cause(exc: RuntimeError) -> Exception:
    """What befell the SDK's question for the version: whatever it was, it calls the OS too old."""
    return exc.__context__ if isinstance(exc.__context__, Exception) else exc


def is_missing(exc: BaseException | None) -> bool:
    """Whether the guest agent said that it has no such RPC."""
    return _error_text(exc).startswith("Service not found")


def is_refused(exc: Exception) -> bool:
    """Whether there was no connection to begin with."""
    return isinstance(exc, FileNotFoundError | httpx.ConnectError)


def refused(endpoint: str) -> TeeUnavailable:
    """The error for a guest agent that takes no connection."""
    return TeeUnavailable(endpoint, f"no guest agent answers at {endpoint}")


def as_error(exc: Exception, method: str, *, endpoint: str, timeout_s: float) -> SkilldError:
    """
    Turn what the SDK raised into an error of skilld; an RPC that is missing is the caller's to tell.

    Nothing of ``exc`` but the guest agent's own words goes into the error: pydantic quotes what it was given, keys too.
    """
    if isinstance(exc, httpx.TimeoutException | TimeoutError):
        return TeeTimeout(method, timeout_s)
    if isinstance(exc, httpx.HTTPStatusError):
        text = _error_text(exc)
        return TeeRejected(method, _SECRET.sub("…", text)[:ERROR_LIMIT_CHARS]) if text else TeeProtocol(method)
    if is_refused(exc):
        return refused(endpoint)
    if isinstance(exc, httpx.TransportError | OSError):
        return TeeUnavailable(endpoint, "the guest agent broke off the connection")
    return TeeProtocol(method)


def _error_text(exc: BaseException | None) -> str:
    """The guest agent's own error; empty for anything but a reply of 400 that carries one."""
    if not isinstance(exc, httpx.HTTPStatusError) or exc.response.status_code != 400:
        return ""
    try:
        body: Any = exc.response.json()
    except ValueError:
        return ""
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, str) else ""
