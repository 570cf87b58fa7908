"""
The framing of HTTP/1.1: keep-alive, pipelining, chunked bodies, ``Expect: 100-continue``, Server-Sent Events.

Requests of one connection are answered one after the other, in order. Status 4xx speaks of broken HTTP; such a
request is the connection's last, for what follows it cannot be told from its rest. A missing ``Host`` is tolerated:
a Unix socket has one host.

Owns: the parser and the request that is arriving.

Source: RFC 9112; HTML Living Standard, section 9.2 (Server-Sent Events). The edge around httptools (llhttp), which
refuses what smuggles requests: both ``Content-Length`` and ``Transfer-Encoding``, two of one, folded lines.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import httptools

from skilld.errors import InvalidRequest, SkilldError, TooLarge, quote
from skilld.rpc.access import Peer
from skilld.rpc.connection import Connection, Shared
from skilld.rpc.dispatch import Context
from skilld.rpc.site import EventStream, Request, Response, Site, error_response
from skilld.rpc.subscribers import Feed, Note

# All of a request before its body, in bytes.
HEAD_LIMIT_BYTES = 64 * 1024

# Seconds between two comments in a stream of events, so that either side notices when the other is gone.
KEEP_ALIVE_S = 15.0

# Headers that say something else when they come twice.
_SINGLE = frozenset({"content-length", "transfer-encoding", "host", "expect", "last-event-id"})

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True)
class _Exchange:
    """A request and what the framing of its response depends on."""

    request: Request
    is_http10: bool
    keeps_alive: bool


class _Refused(Exception):
    """Ends the parser's work from inside a callback."""


class HttpConnection(Connection):
    """A connection of HTTP/1.1. Its items are exchanges, or responses to what is no request."""

    def __init__(self, transport: asyncio.Transport, peer: Peer, shared: Shared, site: Site) -> None:
        super().__init__(transport, peer, shared, at_a_time=1)
        # settings
        self._site = site
        # state of the request that is arriving; the parser may hold as much of it as was fed since it began
        self._parser = httptools.HttpRequestParser(self)
        self._is_begun = False
        self._has_head = False
        self._has_completed = False
        self._owes_continue = False
        self._fed_bytes = 0
        self._head_bytes = 0
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        # state of the stream of events
        self._stream: Feed | None = None
        self._stream_ends = asyncio.Event()

    # What the base asks for.

    def feed(self, data: bytes) -> None:
        self._has_completed = False
        self._parse(memoryview(data))
        self._fed_bytes = 0 if self._has_completed else self._fed_bytes + len(data)
        if self._is_begun:
            self._refuse_if_large()
        self.note_arrival(is_partial=self._is_begun and not self.takes_no_more, is_new=self._has_completed)

    def pump(self) -> None:
        super().pump()
        if self._owes_continue and not self.is_busy:
            self._owes_continue = False
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def arrival_timed_out(self) -> None:
        self._refuse_bytes(408, f"the request did not arrive within {self._limits.header_timeout_s:g} s")

    def refuse(self, exc: SkilldError) -> None:
        self.enqueue(error_response(exc), 0)
        self.end()
        self.pump()

    def peer_reads_again(self) -> None:
        if self._stream is not None:
            self._stream.resume()

    def drain(self) -> None:
        self._stream_ends.set()
        super().drain()

    async def answer(self, item: _Exchange | Response) -> None:
        if isinstance(item, Response):
            self._send_response(item, None)
            return
        answer = await self._site.respond(
            item.request, Context(self.peer, self.shared.dispatcher.services, hangup=self.hangup)
        )
        if isinstance(answer, EventStream):
            await self._send_stream(answer, item)
        else:
            self._send_response(answer, item)

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._is_begun = True
        self._has_head = False
        self._owes_continue = False
        self._head_bytes = 0
        self._url = b""
        self._headers = {}
        self._body = bytearray()

    def on_url(self, fragment: bytes) -> None:
        self._url += fragment
        self._count_head(len(fragment))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + len(b": \r\n"))
        # After the head come trailers, which nothing here asks for.
        if self._has_head:
            return
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        if key not in self._headers:
            self._headers[key] = text
        elif key in _SINGLE:
            self._stop(400, f"{key} is given twice")
        else:
            self._headers[key] += f", {text}"

    def on_headers_complete(self) -> None:
        self._has_head = True
        headers = self._headers
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._stop(505, f"HTTP/{version} is not spoken here")
        if self._parser.get_method() == b"CONNECT":
            self._stop(501, "CONNECT is not spoken here")
        encoding = headers.get("transfer-encoding")
        if encoding is not None and (encoding.lower() != "chunked" or version == "1.0"):
            self._stop(400, f"transfer-encoding {quote(encoding)} in HTTP/{version}")
        if int(headers.get("content-length", 0)) > self._limits.message_bytes:
            self._stop(413, "")
        if (expected := headers.get("expect")) is not None:
            if expected.lower() != "100-continue":
                self._stop(417, f"expect {quote(expected)} cannot be met")
            self._owes_continue = version == "1.1"

    def on_body(self, data: bytes) -> None:
        self._owes_continue = False
        self._body += data
        if len(self._body) > self._limits.message_bytes:
            self._stop(413, "")

    def on_message_complete(self) -> None:
        self._is_begun = False
        self._has_completed = True
        self._owes_continue = False
        if self._parser.should_upgrade():
            # The parser stops before the body; _parse begins again without the offer.
            return
        method = self._parser.get_method().decode("ascii")
        request = Request(method, _origin_form(self._url.decode("latin-1")), bytes(self._body), self._headers)
        keeps_alive = self._parser.should_keep_alive()
        is_http10 = self._parser.get_http_version() == "1.0"
        self.enqueue(_Exchange(request, is_http10, keeps_alive), self._head_bytes + len(self._body))
        if not keeps_alive:
            self.end()

    # Reading.

    def _parse(self, data: memoryview) -> None:
        while data and not self.takes_no_more:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as exc:
                # Nothing else is spoken here; a server may go on in HTTP/1.1 (RFC 9110, section 7.8).
                head = self._head_without_upgrade()
                self._parser = httptools.HttpRequestParser(self)
                self._parse(memoryview(head))
                data = data[exc.args[0] :]
            except httptools.HttpParserError as exc:
                if not self.takes_no_more:
                    self._refuse_bytes(400, f"broken HTTP: {exc}")

    def _head_without_upgrade(self) -> bytes:
        """The head that just arrived, as of a request that offers no other protocol."""
        offers = self._headers.pop("connection").lower().split(",")
        self._headers["connection"] = ", ".join(one.strip() for one in offers if one.strip() != "upgrade")
        del self._headers["upgrade"]
        method, version = self._parser.get_method().decode("ascii"), self._parser.get_http_version()
        lines = [f"{method} {self._url.decode('latin-1')} HTTP/{version}"]
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        return "\r\n".join((*lines, "\r\n")).encode("latin-1")

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self._stop(431, "")

    def _refuse_if_large(self) -> None:
        """Bound what the parser keeps to itself: a header without end, chunks that are all frame."""
        if not self._has_head and self._fed_bytes > HEAD_LIMIT_BYTES:
            self._refuse_bytes(431, "")
        elif self._fed_bytes > self._limits.message_bytes + HEAD_LIMIT_BYTES:
            self._refuse_bytes(413, "")

    def _stop(self, status: int, why: str) -> None:
        self._refuse_bytes(status, why)
        raise _Refused

    def _refuse_bytes(self, status: int, why: str) -> None:
        """Answer what is no request, after those before it, and take no more."""
        if self.takes_no_more:
            return
        limit_bytes = {413: self._limits.message_bytes, 431: HEAD_LIMIT_BYTES}.get(status)
        part = "body" if status == 413 else "head"
        refusal: SkilldError = (
            InvalidRequest(why)
            if limit_bytes is None
            else TooLarge(f"the request's {part} is over the limit of {limit_bytes} bytes", limit_bytes)
        )
        self.enqueue(error_response(refusal, status), 0)
        self.end()

    # Writing.

    def _send_response(self, response: Response, exchange: _Exchange | None) -> None:
        headers = list(response.headers)
        if response.status != 204:
            headers.append(("Content-Type", "application/json"))
            headers.append(("Content-Length", str(len(response.body))))
        is_head = exchange is not None and exchange.request.method == "HEAD"
        self.send(self._head(response.status, headers, exchange) + (b"" if is_head else response.body))

    async def _send_stream(self, stream: EventStream, exchange: _Exchange) -> None:
        """Send notifications until the peer goes or the server drains."""
        if exchange.is_http10:
            # Its body has no end but the connection's.
            self.end()
        headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")]
        if not exchange.is_http10:
            headers.append(("Transfer-Encoding", "chunked"))
        self.send(self._head(200, headers, exchange), is_reply=False)
        if exchange.request.method == "HEAD":
            return

        def send(event: bytes) -> None:
            framed = event if exchange.is_http10 else b"%x\r\n%b\r\n" % (len(event), event)
            self.send(framed, is_reply=False)

        subscribers = self.shared.subscribers
        # An id without data sets where a reader resumes, and is no event.
        send(b"id: %b\n\n" % subscribers.revision.encode())
        if stream.last_event_id and (missed := subscribers.missed_since(stream.last_event_id)):
            send(missed.event)

        def send_note(note: Note) -> None:
            send(note.event)

        self._stream = Feed(send_note, lambda: self.unread_bytes, self._limits.send_buffer_bytes)
        subscribers.add(self._stream)
        try:
            while not self.is_draining:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await self._stream_ends.wait()
                except TimeoutError:
                    if not self.unread_bytes:
                        send(b": keep-alive\n\n")
        finally:
            subscribers.discard(self._stream)
            self._stream = None
        if not exchange.is_http10:
            self.send(b"0\r\n\r\n")

    def _head(self, status: int, headers: list[tuple[str, str]], exchange: _Exchange | None) -> bytes:
        lines = [f"HTTP/1.1 {status} {_PHRASES[status]}", f"Date: {_date(int(time.time()))}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if self.is_last_answer:
            lines.append("Connection: close")
        elif exchange is not None and exchange.is_http10:
            lines.append("Connection: keep-alive")
        return "\r\n".join((*lines, "\r\n")).encode("latin-1")


def _origin_form(target: str) -> str:
    """The target as path and query; ``http://host/path`` is another way to say it (RFC 9112, section 3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if not separator or not scheme.isalpha():
        return target
    return "/" + rest.partition("/")[2]


@lru_cache(maxsize=1)
def _date(now_s: int) -> str:
    return formatdate(now_s, usegmt=True)
