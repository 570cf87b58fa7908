"""
From a JSON-RPC 2.0 text to its reply, and from a method's name to its handler.

The table of :class:`Method` values feeds everything: dispatch, the REST routes, the checks of params and the OpenRPC
document. Calls run through jsonrpcserver, one request at a time; reading, validating, batching and writing are our
own, because its own deviate from the specification: measured on 5.0.9, a batch with one invalid entry runs none of
its calls, an unserialisable result ends the whole batch, and an exception's text reaches the caller.

Owns: the table of methods, and whether new calls are refused because the daemon drains.

Source: JSON-RPC 2.0, sections 4 to 6; API, sections 1 and 2.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

from jsonrpcserver import Error, Success
from jsonrpcserver.async_dispatcher import dispatch_request
from jsonrpcserver.dispatcher import to_response
from jsonrpcserver.request import Request
from jsonrpcserver.response import to_serializable_one
from jsonrpcserver.sentinels import NOID

from skilld.config import ROLES, Limits
from skilld.errors import (
    Forbidden,
    Internal,
    InvalidRequest,
    MethodNotFound,
    ParseError,
    ShuttingDown,
    SkilldError,
    TooLarge,
    quote,
)
from skilld.rpc import jsontext
from skilld.rpc.access import Peer
from skilld.rpc.hangup import Hangup
from skilld.rpc.params import Param, check_params

logger = logging.getLogger(__name__)

# Entries of one batch that run at a time. A connection may have many texts in flight, each a batch.
BATCH_CONCURRENCY = 16

# Seconds of quick calls after which each of them lets others have a turn: together they hold the loop for 5 ms.
WORKER_SLICE_S = 0.005 / BATCH_CONCURRENCY

# A call that takes longer is logged: thousands of times what one should take.
SLOW_CALL_S = 1.0

ServicesT = TypeVar("ServicesT")


class Connection(Protocol):
    """What a handler may do to the connection of JSON lines that its request came by."""

    def subscribe(self) -> None:
        """Send ``skills.changed`` from now on, after the reply to this request; again is no error."""

    def unsubscribe(self) -> None:
        """Send no more of them; without a subscription nothing happens."""

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send one notification now, before the reply to this request; return when the peer keeps up with reading."""


@dataclass(slots=True)
class Context(Generic[ServicesT]):
    """
    What a handler gets beside its params.

    ``connection`` and ``request_id`` are None over HTTP; ``hangup`` tells when the peer has gone. Nobody hears of what
    comes of a request where ``is_notification``.
    """

    peer: Peer
    services: ServicesT
    connection: Connection | None = None
    hangup: Hangup = field(default_factory=Hangup)
    request_id: Any = None
    is_notification: bool = False


@dataclass(frozen=True)
class Method:
    """
    One method of the API.

    Args:
        name: Its name on the wire.
        role: The role that a caller needs.
        params: Its parameters, in the order of their positions.
        handler: ``async def handler(context, /, *, ...)``, with a keyword for every parameter. It returns what JSON can
            carry or raises a :class:`SkilldError`; the first line of its docstring is the summary.
        result: JSON Schema of the result.
        route: HTTP method and path, such as ``("GET", "/skills/{name}")``; a placeholder is a parameter's name.
        status: HTTP status of a success over the REST route.
        framing: ``"ndjson"`` for a method that needs a connection which can carry notifications.
        errors: What it may answer beside what every method may.
    """

    name: str
    role: str
    params: tuple[Param, ...]
    handler: Callable[..., Awaitable[Any]]
    result: Mapping[str, Any]
    route: tuple[str, str] | None = None
    status: int = 200
    framing: Literal["any", "ndjson"] = "any"
    errors: tuple[type[SkilldError], ...] = ()

    def __post_init__(self) -> None:
        names = [param.name for param in self.params]
        if self.role not in ROLES:
            raise ValueError(f"{self.name}: no such role: {self.role!r}")
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: a parameter is named twice: {names}")
        if self.route and not set(re.findall(r"{(\w+)}", self.route[1])) <= set(names):
            raise ValueError(f"{self.name}: {self.route[1]} names what is no parameter")

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").partition("\n")[0]


class Dispatcher:
    """
    Answers JSON-RPC texts, and calls of single methods.

    Attributes:
        methods: The table, by name.
        services: What every handler gets as ``context.services``.
        limits: What one text may ask for.
        is_draining: Once true, every call that has not begun is answered ``shutting-down``.
    """

    def __init__(self, methods: Iterable[Method], services: Any, limits: Limits) -> None:
        # settings
        self.methods: dict[str, Method] = {}
        for method in methods:
            if self.methods.setdefault(method.name, method) is not method:
                raise ValueError(f"{method.name} is in the table twice")
        self.services = services
        self.limits = limits
        self._handlers = {method.name: self._as_jsonrpc(method) for method in self.methods.values()}
        # state
        self.is_draining = False

    async def answer_text(self, text: bytes, context: Context[Any]) -> bytes | None:
        """
        Answer one JSON-RPC text: a request, a notification or a batch.

        Entries of a batch run at the same time, a bounded number of them; their replies stand in the entries' order.
        Once the replies of a batch outgrow the limit of a message, its remaining entries are answered ``too-large``
        without being run.

        Returns:
            The reply, one line without its end; None where there is nothing to answer (notifications only).
        """
        try:
            message = jsontext.parse(text, nesting=self.limits.nesting)
        except ParseError as exc:
            return error_reply(exc, None)
        if not isinstance(message, list):
            return await self._answer_one(message, context)
        if not message:
            return error_reply(InvalidRequest("Invalid Request: an empty batch"), None)
        if len(message) > self.limits.batch:
            why = f"a batch of {len(message)} entries is over the limit of {self.limits.batch}"
            return error_reply(TooLarge(why, self.limits.message_bytes), None)
        replies = [reply for reply in await self._answer_each(message, context) if reply is not None]
        return b"[" + b",".join(replies) + b"]" if replies else None

    async def call(self, method: Method, given: list[Any] | dict[str, Any], context: Context[Any]) -> Any:
        """
        Call one method, by whatever framing the call came.

        Args:
            method: One of the table.
            given: Params by position or by name, not yet checked.
            context: Who calls.

        Returns:
            What the handler returned.

        Raises:
            ShuttingDown: The daemon drains.
            Forbidden: The peer lacks the role; logged.
            InvalidRequest: The method needs a connection of JSON lines.
            InvalidParams: A param breaks its rule.
            Internal: The handler failed; logged with its traceback.
            SkilldError: Whatever else the handler raised of these.
        """
        self.admit(method.name, method.role, context)
        if method.framing == "ndjson" and context.connection is None:
            raise InvalidRequest(
                f"Invalid Request: {method.name} needs a connection of JSON lines; over HTTP, read GET /events"
            )
        values = check_params(method.params, given)
        began = time.monotonic()
        try:
            return await method.handler(context, **values)
        except SkilldError:
            raise
        except Exception:
            logger.exception("%s failed", method.name, extra={"method": method.name})
            raise Internal from None
        finally:
            seconds = time.monotonic() - began
            if seconds > SLOW_CALL_S:
                _log_if_slow(method.name, seconds, values, context.peer)

    def admit(self, what: str, role: str, context: Context[Any]) -> None:
        """
        Let a peer do something that needs a role, or refuse and log it.

        Args:
            what: The method's name, or what the log may call it.
            role: The role that is needed.
            context: Who asks.

        Raises:
            ShuttingDown: The daemon drains.
            Forbidden: The peer lacks the role.
        """
        if self.is_draining:
            raise ShuttingDown
        peer = context.peer
        if role not in peer.roles:
            fields = {"method": what, **peer.fields}
            logger.warning("refused %s to %s: it lacks the role %s", what, peer, role, extra=fields)
            raise Forbidden(what, role)

    def _as_jsonrpc(self, method: Method) -> Callable[..., Awaitable[Any]]:
        """Wrap a method for jsonrpcserver: the params whole, as one argument; a result in its terms."""

        async def handler(context: Context[Any], given: list[Any] | dict[str, Any], /) -> Any:
            try:
                return Success(await self.call(method, given, context))
            except SkilldError as exc:
                return Error(exc.code, exc.message, exc.data)

        # jsonrpcserver asks for it at every call; measured: 9 µs a call without this line, 3 with it.
        handler.__signature__ = _ANY_ARGUMENTS  # type: ignore[attr-defined]
        return handler

    async def _answer_each(self, entries: list[Any], context: Context[Any]) -> list[bytes | None]:
        """Answer the entries of a batch, a few at a time."""
        replies: list[bytes | None] = [None] * len(entries)
        queue = iter(enumerate(entries))
        size = 0
        loop = asyncio.get_running_loop()

        async def work() -> None:
            nonlocal size
            slice_ends_at = loop.time() + WORKER_SLICE_S
            for index, entry in queue:
                if size > self.limits.message_bytes:
                    replies[index] = self._refuse_rest(entry)
                    continue
                reply = replies[index] = await self._answer_one(entry, context)
                size += len(reply or b"")
                if loop.time() > slice_ends_at:
                    await asyncio.sleep(0)
                    slice_ends_at = loop.time() + WORKER_SLICE_S

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(BATCH_CONCURRENCY, len(entries))):
                workers.create_task(work())
        return replies

    def _refuse_rest(self, entry: Any) -> bytes | None:
        limit_bytes = self.limits.message_bytes
        why = f"the replies of the batch are over the limit of {limit_bytes} bytes; this entry was not run"
        is_notification = isinstance(entry, dict) and "id" not in entry
        return None if is_notification else error_reply(TooLarge(why, limit_bytes), _readable_id(entry))

    async def _answer_one(self, message: Any, context: Context[Any]) -> bytes | None:
        """Answer one request; None for a notification."""
        try:
            request = _parse_request(message)
            if request.method not in self.methods:
                raise MethodNotFound(request.method)
        except InvalidRequest as exc:
            return error_reply(exc, _readable_id(message))
        except MethodNotFound as exc:
            return None if "id" not in message else error_reply(exc, message["id"])
        if context.connection is not None:
            is_notification = request.id is NOID
            context = replace(
                context,
                request_id=None if is_notification else request.id,
                is_notification=is_notification,
            )
        _, result = await dispatch_request(self._handlers, context, request)
        if request.id is NOID:
            return None
        try:
            return jsontext.serialise(to_serializable_one(to_response(request, result)))
        except jsontext.Unserialisable as exc:
            log_unserialisable(request.method, exc)
            return error_reply(Internal(), request.id)


class _AnyArguments(inspect.Signature):
    """A signature that takes everything: ``check_params`` has the say about params."""

    def bind(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:  # noqa: ARG002 - the signature's own
        return _NOTHING_BOUND


_ANY_ARGUMENTS = _AnyArguments()
_NOTHING_BOUND = _ANY_ARGUMENTS.bind_partial()


def _log_if_slow(method: str, seconds: float, values: Mapping[str, Any], peer: Peer) -> None:
    """Log a call that took long; the time for which it was asked to wait does not count."""
    asked_s = sum(value for name, value in values.items() if name.endswith("_ms") and value) / 1000
    if seconds > asked_s + SLOW_CALL_S:
        fields = {"method": method, "duration_ms": round(seconds * 1000), **peer.fields}
        logger.warning("slow call: %s took %.1f s for %s", method, seconds, peer, extra=fields)


def log_unserialisable(method: str, exc: jsontext.Unserialisable) -> None:
    """Log that a method broke its word."""
    logger.error("%s returned what JSON cannot carry: %s", method, exc)


def error_member(exc: SkilldError) -> dict[str, Any]:
    """The ``error`` member of a reply."""
    return {"code": exc.code, "message": exc.message, "data": exc.data}


def error_reply(exc: SkilldError, request_id: Any) -> bytes:
    """The reply that is an error."""
    return jsontext.serialise({"jsonrpc": "2.0", "error": error_member(exc), "id": request_id})


def _parse_request(message: Any) -> Request:
    """Turn a parsed JSON value into a request whose params are one argument, or raise InvalidRequest."""
    if not isinstance(message, dict):
        raise InvalidRequest(f"Invalid Request: not an object: {quote(message)}")
    if message.get("jsonrpc") != "2.0":
        raise InvalidRequest(f'Invalid Request: jsonrpc must be "2.0", not {quote(message.get("jsonrpc"))}')
    method = message.get("method")
    if not isinstance(method, str):
        raise InvalidRequest(f"Invalid Request: method must be text, not {quote(method)}")
    params = message.get("params", [])
    if not isinstance(params, list | dict):
        raise InvalidRequest(f"Invalid Request: params must be an array or an object, not {quote(params)}")
    request_id = message.get("id", NOID)
    if request_id is not NOID and not _is_id(request_id):
        raise InvalidRequest(f"Invalid Request: id must be text, a number or null, not {quote(request_id)}")
    return Request(method, [params], request_id)


def _is_id(value: Any) -> bool:
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))


def _readable_id(message: Any) -> Any:
    """The id of a request that may be invalid otherwise; None where there is none to read."""
    request_id = message.get("id") if isinstance(message, dict) else None
    return request_id if _is_id(request_id) else None
