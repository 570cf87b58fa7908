"""
JSON-RPC 2.0 over lines, as a client speaks it, without any input or output.

Bytes to send come out of :meth:`ClientProtocol.request`; bytes that were received go into
:meth:`ClientProtocol.receive`, which returns what they meant.

Owns: the ids in flight and the bytes of the line that is arriving.

Source: JSON-RPC 2.0, sections 4 and 5; the interface of skilld, section 1.1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from skilld.client.errors import BadReply
from skilld.errors import InvalidParams, SkilldError, TooLarge, error_from_reply, quote

Params: TypeAlias = Mapping[str, Any] | Sequence[Any]

# The daemon's replies stay far below; without a limit, whoever owns the socket could fill our memory.
REPLY_LIMIT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """
    A reply: the result, or the error.

    ``id`` is None for an error that answers no request in particular; ``is_last`` if the daemon will answer no other
    request on this connection.
    """

    id: int | None
    result: Any = None
    error: SkilldError | None = None
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Notification:
    """A message that asks for no reply."""

    method: str
    params: Mapping[str, Any]


OnNotification: TypeAlias = Callable[[Notification], None]


class ClientProtocol:
    """The client's side of one connection."""

    def __init__(self) -> None:
        # state: bytes of each request in flight by id, those that nobody waits for any more too; the partial line
        self._in_flight: dict[int, int] = {}
        self._last_id = 0
        self._partial = bytearray()

    def request(self, method: str, params: Params) -> tuple[int, bytes]:
        """
        Make a request.

        Returns:
            Its id and the line to send.

        Raises:
            InvalidParams: JSON cannot carry the params.
        """
        self._last_id += 1
        message = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
        try:
            line = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as exc:
            raise InvalidParams("params", f"JSON cannot carry them: {exc}") from exc
        self._in_flight[self._last_id] = len(line)
        return self._last_id, line

    def receive(self, data: bytes) -> list[Reply | Notification]:
        """
        Take bytes from the daemon.

        Returns:
            What they complete, in order; replies to unknown ids are left out.

        Raises:
            BadReply: They are not what a skilld sends; the connection is of no more use.
        """
        *lines, rest = data.split(b"\n")
        messages = []
        for line in lines:
            whole = bytes(self._partial) + line if self._partial else line
            self._partial.clear()
            if whole and not whole.isspace():
                message = self._read(whole)
                if message is not None:
                    messages.append(message)
        self._partial += rest
        if len(self._partial) > REPLY_LIMIT_BYTES:
            raise BadReply(f"a line of more than {REPLY_LIMIT_BYTES} bytes")
        return messages

    def _read(self, line: bytes) -> Reply | Notification | None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise BadReply(f"not JSON: {quote(line)}") from exc
        if not isinstance(message, dict):
            raise BadReply(f"not a JSON-RPC message: {quote(line)}")
        if "method" in message:
            params = message.get("params")
            return Notification(str(message["method"]), params if isinstance(params, dict) else {})
        id, error, is_last = message.get("id"), None, False
        if isinstance(message.get("error"), dict):
            error = error_from_reply(message["error"])
            if id is None:
                # A line that is too long is skipped. Any other such error is said before the connection is closed.
                is_last = not isinstance(error, TooLarge)
                id = self._addressee(error)
        elif "result" not in message or not isinstance(id, int):
            raise BadReply(f"not a JSON-RPC reply: {quote(line)}")
        if id is not None and (not isinstance(id, int) or self._in_flight.pop(id, None) is None):
            return None
        return Reply(id, message.get("result"), error, is_last)

    def _addressee(self, error: SkilldError) -> int | None:
        """
        The request that an error without an id answers, one that the daemon could not read.

        Of those in flight that is the one that is larger than the limit, or the only one.
        """
        if isinstance(error, TooLarge):
            limit_bytes = error.facts.get("limit_bytes")
            if isinstance(limit_bytes, int):
                return next((id for id, size in self._in_flight.items() if size > limit_bytes), None)
        return next(iter(self._in_flight)) if len(self._in_flight) == 1 else None
