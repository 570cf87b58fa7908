"""
What is answered to an HTTP request: JSON-RPC by POST, the REST routes, health and the stream of events.

Owns: nothing once built; the routes are made from the table of methods.

Source: API, sections 1.1 and 2; RFC 9110.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from skilld.errors import Busy, Internal, InvalidParams, InvalidRequest, MethodNotFound, SkilldError, quote
from skilld.rpc import jsontext
from skilld.rpc.dispatch import Context, Dispatcher, Method, error_member, log_unserialisable
from skilld.rpc.params import from_query
from skilld.rpc.routes import Router

# More query parameters than any method takes, array items included.
QUERY_FIELDS = 2_000


@dataclass(frozen=True)
class Request:
    """
    One HTTP request, whole.

    Args:
        method: In capitals.
        target: Path and query, percent-encoded as they came.
        headers: By lower-case name.
    """

    method: str
    target: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """One HTTP response; a JSON body, or none. ``headers`` are those that only this one has."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class EventStream:
    """A response without end: notifications as Server-Sent Events, from after ``last_event_id`` on."""

    last_event_id: str | None


Answer = Response | EventStream
Target = Callable[[Request, dict[str, str], Context[Any]], Awaitable[Answer]]


class Site:
    """
    Answers HTTP requests.

    Args:
        dispatcher: Answers JSON-RPC texts and calls; its table has the REST routes.
        health: Whether the daemon is ready.
    """

    def __init__(self, dispatcher: Dispatcher, health: Callable[[], bool]) -> None:
        self._dispatcher = dispatcher
        self._health = health
        self._router: Router[Target] = Router()
        self._router.add("POST", "/", self._answer_rpc)
        self._router.add("POST", "/rpc", self._answer_rpc)
        self._router.add("GET", "/health", self._answer_health)
        self._router.add("GET", "/events", self._answer_events)
        for method in dispatcher.methods.values():
            if method.route:
                self._router.add(*method.route, partial(self._answer_call, method))

    async def respond(self, request: Request, context: Context[Any]) -> Answer:
        """Answer one request; HEAD is answered as GET, and the framing leaves the body out."""
        path, _, _ = request.target.partition("?")
        try:
            targets = self._router.find(path)
        except UnicodeDecodeError:
            return error_response(InvalidRequest(f"the path is not UTF-8: {quote(path)}"))
        http_method = "GET" if request.method == "HEAD" else request.method
        if http_method in targets:
            target, values = targets[http_method]
            return await target(request, values, context)
        if not targets:
            return error_response(MethodNotFound(f"{request.method} {path}"))
        allowed = ", ".join(sorted([*targets, "HEAD"] if "GET" in targets else targets))
        refusal = InvalidRequest(f"{quote(path)} answers {allowed}, not {request.method}")
        return error_response(refusal, 405, (("Allow", allowed),))

    async def _answer_rpc(self, request: Request, _: dict[str, str], context: Context[Any]) -> Response:
        reply = await self._dispatcher.answer_text(request.body, context)
        return Response(204) if reply is None else Response(200, reply)

    async def _answer_health(self, request: Request, _: dict[str, str], context: Context[Any]) -> Response:  # noqa: ARG002 - a target's signature
        if self._dispatcher.is_draining:
            return Response(503, b'{"status":"draining"}')
        return Response(200, b'{"status":"ok"}') if self._health() else Response(503, b'{"status":"starting"}')

    async def _answer_events(self, request: Request, _: dict[str, str], context: Context[Any]) -> Answer:
        try:
            self._dispatcher.admit("GET /events", "read", context)
        except SkilldError as exc:
            return error_response(exc)
        return EventStream(request.headers.get("last-event-id"))

    async def _answer_call(
        self, method: Method, request: Request, values: dict[str, str], context: Context[Any]
    ) -> Response:
        """Answer a REST route: the bare result, or the error with its class's status."""
        try:
            result = await self._dispatcher.call(method, self._params(method, request, values), context)
            return Response(method.status, jsontext.serialise(result))
        except SkilldError as exc:
            return error_response(exc)
        except jsontext.Unserialisable as exc:
            log_unserialisable(method.name, exc)
            return error_response(Internal())

    def _params(self, method: Method, request: Request, values: dict[str, str]) -> dict[str, Any]:
        """
        Bring path, query and body together.

        Raises:
            InvalidRequest: The query has too many fields or is not UTF-8, or the body is no JSON object.
            InvalidParams: One parameter is given in two places, with two values.
            ParseError: The body is not JSON.
        """
        _, _, query = request.target.partition("?")
        try:
            fields = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS)
        except ValueError as exc:
            raise InvalidRequest(f"the query cannot be read: {exc}") from None
        body: Any = {}
        if request.body and not request.body.isspace():
            body = jsontext.parse(request.body, nesting=self._dispatcher.limits.nesting)
            if not isinstance(body, dict):
                raise InvalidRequest(f"the body must be a JSON object, not {quote(body)}")
        given: dict[str, Any] = {}
        for source in (from_query(method.params, {name: [text] for name, text in values.items()}),
                       from_query(method.params, fields), body):  # fmt: skip
            for name, value in source.items():
                if given.setdefault(name, value) != value:
                    raise InvalidParams(name, f"given twice, as {quote(given[name])} and as {quote(value)}")
        return given


def error_response(exc: SkilldError, status: int | None = None, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """The response for an error: ``{"error": {...}}`` with the status of its class, or another."""
    if isinstance(exc, Busy):
        headers = (*headers, ("Retry-After", str(math.ceil(exc.facts["retry_after_s"]))))
    return Response(status or exc.status, jsontext.serialise({"error": error_member(exc)}), headers)
