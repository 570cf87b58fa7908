"""
HTTP/1.1, as far as the guest agent speaks it.

Owns: how a request is read and a response written, and the pages of the web framework below the agent.

Source: RFC 9112; headers, pages and time-outs as dstack's own simulator has them.
"""

from __future__ import annotations

import asyncio
import email.utils
import http
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

BODY_LIMIT_BYTES = 10 * 1024 * 1024
HEAD_LIMIT_BYTES = 64 * 1024
# For a request's head, once it has begun, and between two requests; before the first there is no such limit.
HEADER_TIMEOUT_S = 15.0
CLOSE = "connection: close\r\n"
HTML, JSON, BINARY = "text/html; charset=utf-8", "application/json", "application/octet-stream"
HEADERS = (
    "server: dstack guest agent\r\nx-frame-options: SAMEORIGIN\r\npermissions-policy: interest-cohort=()\r\n"
    "x-content-type-options: nosniff\r\n"
)
DESCRIPTIONS = {
    404: "The requested resource could not be found.",
    422: "The request was well-formed but was unable to be followed due to semantic errors.",
}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
    <meta charset="utf-8">
    <meta name="color-scheme" content="light dark">
    <title>{status} {reason}</title>
</head>
<body align="center">
    <div role="main" align="center">
        <h1>{status}: {reason}</h1>
        <p>{description}</p>
        <hr />
    </div>
    <div role="contentinfo" align="center">
        <small>Rocket</small>
    </div>
</body>
</html>"""


@dataclass(frozen=True)
class Request:
    """One request; header names in lower case."""

    verb: str
    target: str
    version: str
    headers: Mapping[str, str]
    body: bytes
    is_too_large: bool = False

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def keeps_alive(self) -> bool:
        connection = self.headers.get("connection", "").lower()
        return "close" not in connection and (self.version == "HTTP/1.1" or "keep-alive" in connection)


@dataclass(frozen=True)
class Response:
    """One response; if less than all of it is ``sent``, the connection ends there."""

    status: int
    content_type: str
    body: bytes
    sent: Literal["all", "half", "nothing"] = "all"


class Malformed(Exception):
    """What came is no HTTP."""


def page(status: int, accept: str) -> Response:
    """A page of the web framework below the agent."""
    reason, description = http.HTTPStatus(status).phrase, DESCRIPTIONS[status]
    if JSON in accept:
        error = {"code": status, "reason": reason, "description": description}
        return Response(status, JSON, json.dumps({"error": error}, indent=2).encode())
    return Response(status, HTML, PAGE.format(status=status, reason=reason, description=description).encode())


def malformed() -> bytes:
    """The response to what is no HTTP."""
    return _head("HTTP/1.1", 400, f"content-length: 0\r\n{CLOSE}")


def encoded(request: Request, response: Response) -> bytes:
    """The bytes of a response; that to HEAD has no body."""
    headers = f"content-type: {response.content_type}\r\n{HEADERS}content-length: {len(response.body)}\r\n"
    head = _head(request.version, response.status, headers + ("" if request.keeps_alive else CLOSE))
    if response.sent == "nothing":
        return b""
    body = b"" if request.verb == "HEAD" else response.body
    return head + (body if response.sent == "all" else body[: len(body) // 2])


def _head(version: str, status: int, headers: str) -> bytes:
    date = email.utils.formatdate(usegmt=True)
    return f"{version} {status} {http.HTTPStatus(status).phrase}\r\n{headers}date: {date}\r\n\r\n".encode()


async def read_request(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The request that begins with ``first``, or None where the connection ends between two."""
    async with asyncio.timeout(HEADER_TIMEOUT_S):
        try:
            head = first + await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as exc:
            if exc.partial:
                raise
            return None
        except asyncio.LimitOverrunError as exc:
            raise Malformed from exc
    line, *rest = head[:-4].decode("latin-1").split("\r\n")
    parts = line.split(" ")
    if len(parts) != 3 or not parts[1].startswith("/") or parts[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise Malformed
    pairs = [header.partition(":") for header in rest]
    if not all(colon and name.strip() == name and name for name, colon, _ in pairs):
        raise Malformed
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body, is_too_large = await _read_body(reader, headers)
    return Request(parts[0], parts[1], parts[2], headers, body, is_too_large)


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> tuple[bytes, bool]:
    """The body, and whether it was too large; then it was read to its end, and is empty."""
    body, size = bytearray(), 0
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while chunk_size := _number((await reader.readline()).partition(b";")[0].strip(), 16):
            size += chunk_size
            await _take(reader, chunk_size, body if size <= BODY_LIMIT_BYTES else None)
            await reader.readexactly(2)
        while (await reader.readline()).strip():
            pass
    elif "content-length" in headers:
        size = _number(headers["content-length"].encode(), 10)
        await _take(reader, size, body if size <= BODY_LIMIT_BYTES else None)
    is_too_large = size > BODY_LIMIT_BYTES
    return (b"" if is_too_large else bytes(body)), is_too_large


async def _take(reader: asyncio.StreamReader, size: int, into: bytearray | None) -> None:
    while size:
        part = await reader.readexactly(min(size, HEAD_LIMIT_BYTES))
        size -= len(part)
        if into is not None:
            into += part


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError as exc:
        raise Malformed from exc
    if number < 0:
        raise Malformed
    return number
