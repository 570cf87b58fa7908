"""
Every error that a caller of skilld can react to.

One class per situation; each carries its JSON-RPC ``code``, its ``reason`` (a slug that never changes), the HTTP
status that the REST routes answer, and ``facts``: the members of the error's ``data`` beside the reason. ``str()`` is
one line that names the bad value. The daemon turns them into replies in ``rpc/dispatch``; the client library turns a
reply back into the same class with :func:`error_from_reply`.

Owns: nothing; values only.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, ClassVar

# A message quotes the bad value; a hostile value may be megabytes long.
QUOTE_LIMIT_CHARS = 200

# Writes out three levels of at most 32 values each.
_NESTED = reprlib.Repr()
_NESTED.maxlevel = 3
_NESTED.maxlist = _NESTED.maxtuple = _NESTED.maxdict = _NESTED.maxset = 32
_NESTED.maxstring = _NESTED.maxother = _NESTED.maxlong = 1_000


def quote(value: object) -> str:
    """Return ``repr(value)`` on one line, cut to 200 characters, to name a bad value in a message."""
    # What is nested may be far larger written out than in memory: YAML's aliases make it so.
    try:
        text = _NESTED.repr(value) if isinstance(value, list | tuple | dict | set) else repr(value)
    except ValueError:
        text = "a number of thousands of digits"  # Python refuses to write it out
    return text if len(text) <= QUOTE_LIMIT_CHARS else text[: QUOTE_LIMIT_CHARS - 1] + "…"


class SkilldError(Exception):
    """Base of all errors that cross the wire."""

    code: ClassVar[int] = -32603
    reason: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, /, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts: Mapping[str, Any] = facts

    def __str__(self) -> str:
        return self.message

    @property
    def data(self) -> dict[str, Any]:
        """The ``data`` member of the JSON-RPC error: the reason and the facts."""
        return {"reason": self.reason, **self.facts}


class ParseError(SkilldError):
    """The text is not JSON (or is too deep, or not UTF-8)."""

    code, reason, status = -32700, "parse-error", 400


class InvalidRequest(SkilldError):
    """The JSON is not a JSON-RPC 2.0 request."""

    code, reason, status = -32600, "invalid-request", 400


class MethodNotFound(SkilldError):
    """No such method. Facts: ``method``."""

    code, reason, status = -32601, "method-not-found", 404

    def __init__(self, method: str) -> None:
        super().__init__(f"Method not found: {quote(method)}", method=method)


class InvalidParams(SkilldError):
    """A parameter breaks its rule. Facts: ``field``, ``message``."""

    code, reason, status = -32602, "invalid-params", 422

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", field=field, message=message)


class Internal(SkilldError):
    """A fault of the daemon; says nothing about its inside."""

    code, reason, status = -32603, "internal", 500

    def __init__(self) -> None:
        super().__init__("internal error; the daemon's log has the details")


class SkillNotFound(SkilldError):
    """No skill has this id, and no single skill this name. Facts: ``name``, ``did_you_mean``."""

    code, reason, status = -32001, "skill-not-found", 404

    def __init__(self, name: str, did_you_mean: tuple[str, ...] = (), *, ambiguous: bool = False) -> None:
        hint = f"; did you mean {', '.join(did_you_mean)}?" if did_you_mean else ""
        text = "several skills are named" if ambiguous else "no such skill:"
        super().__init__(f"{text} {quote(name)}{hint}", name=name, did_you_mean=list(did_you_mean))


class SkillExists(SkilldError):
    """A skill of this name is there already. Facts: ``name``."""

    code, reason, status = -32002, "skill-exists", 409

    def __init__(self, name: str) -> None:
        super().__init__(f"skill {quote(name)} exists already", name=name)


class SkillInvalid(SkilldError):
    """The result would not be a valid skill. Facts: ``problems``."""

    code, reason, status = -32003, "skill-invalid", 422

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        first = problems[0]["message"] if problems else "invalid"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"invalid skill: {first}{more}", problems=problems)


class FileNotFound(SkilldError):
    """The skill has no such file (or script). Facts: ``name``, ``path``."""

    code, reason, status = -32004, "file-not-found", 404

    def __init__(self, name: str, path: str, why: str = "") -> None:
        message = f"skill {quote(name)} has no file {quote(path)}{': ' if why else ''}{why}"
        super().__init__(message, name=name, path=path)


class Conflict(SkilldError):
    """The skill is not the one that the caller saw. Facts: ``expected``, ``actual``."""

    code, reason, status = -32005, "conflict", 409

    def __init__(self, expected: str | None, actual: str | None) -> None:
        super().__init__(f"the skill changed: its digest is {actual}, not {expected}", expected=expected, actual=actual)


class ReadOnly(SkilldError):
    """The skill lives where nothing can be written. Facts: ``name``, ``root``."""

    code, reason, status = -32006, "read-only", 403

    def __init__(self, name: str, root: str, why: str = "its root cannot be written") -> None:
        super().__init__(f"skill {quote(name)} is read-only: {why} ({root})", name=name, root=root)


class Storage(SkilldError):
    """The disk refused. Facts: ``errno`` (its name), ``operation``."""

    code, reason, status = -32007, "storage", 507

    def __init__(self, errno_name: str, operation: str) -> None:
        super().__init__(f"{operation} failed: {errno_name}", errno=errno_name, operation=operation)


class SessionNotFound(SkilldError):
    """No such factory session (of this peer). Facts: ``session_id``."""

    code, reason, status = -32010, "session-not-found", 404

    def __init__(self, session_id: str) -> None:
        super().__init__(f"no such session: {quote(session_id)}", session_id=session_id)


class SandboxUnavailable(SkilldError):
    """No sandbox on this machine. Facts: ``tried``, ``hint``."""

    code, reason, status = -32020, "sandbox-unavailable", 503

    def __init__(self, tried: list[dict[str, str]], hint: str) -> None:
        super().__init__(f"no sandbox is available on this machine: {hint}", tried=tried, hint=hint)


class ScriptUnsupported(SkilldError):
    """No interpreter for this script. Facts: ``script``, ``interpreter``, ``supported``."""

    code, reason, status = -32021, "script-unsupported", 422

    def __init__(self, script: str, interpreter: str | None, supported: list[str]) -> None:
        super().__init__(
            f"no interpreter for {quote(script)}: {quote(interpreter)}",
            script=script,
            interpreter=interpreter,
            supported=supported,
        )


class ScriptDependencies(SkilldError):
    """The script declares dependencies (PEP 723) and none are prepared. Facts: ``script``, ``dependencies``."""

    code, reason, status = -32022, "script-dependencies", 422

    def __init__(self, script: str, dependencies: list[str]) -> None:
        super().__init__(
            f"{quote(script)} needs {', '.join(dependencies)}, and no environment is prepared for it",
            script=script,
            dependencies=dependencies,
        )


class TeeUnavailable(SkilldError):
    """No SDK, no guest agent, or it refused. Facts: ``endpoint``, ``hint``."""

    code, reason, status = -32030, "tee-unavailable", 503

    def __init__(self, endpoint: str | None, hint: str) -> None:
        super().__init__(f"the TEE is not available: {hint}", endpoint=endpoint, hint=hint)


class TeeTimeout(SkilldError):
    """The guest agent did not answer in time. Facts: ``method``, ``timeout_s``."""

    code, reason, status = -32031, "tee-timeout", 504

    def __init__(self, method: str, timeout_s: float) -> None:
        super().__init__(
            f"{method}: the guest agent did not answer in {timeout_s:g} s", method=method, timeout_s=timeout_s
        )


class TeeUnsupported(SkilldError):
    """This version of the OS has no such RPC. Facts: ``method``, ``os_version``."""

    code, reason, status = -32032, "tee-unsupported", 501

    def __init__(self, method: str, os_version: str | None, what: str = "") -> None:
        super().__init__(
            f"{what or method} does not exist on dstack OS {os_version or 'of unknown version'}",
            method=method,
            os_version=os_version,
        )


class TeeRejected(SkilldError):
    """The guest agent answered an error. Facts: ``method``, ``error``."""

    code, reason, status = -32033, "tee-rejected", 502

    def __init__(self, method: str, error: str) -> None:
        super().__init__(f"{method}: the guest agent refused: {quote(error)}", method=method, error=error)


class TeeProtocol(SkilldError):
    """The guest agent answered something unexpected. Facts: ``method``."""

    code, reason, status = -32034, "tee-protocol", 502

    def __init__(self, method: str) -> None:
        super().__init__(f"{method}: the guest agent's reply has an unexpected shape", method=method)


class Busy(SkilldError):
    """Try again later. Facts: ``retry_after_s``."""

    code, reason, status = -32040, "busy", 503

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class Forbidden(SkilldError):
    """The peer lacks the role. Facts: ``method``, ``role``."""

    code, reason, status = -32041, "forbidden", 403

    def __init__(self, method: str, role: str) -> None:
        super().__init__(f"{method} needs the role {quote(role)}", method=method, role=role)


class TooLarge(SkilldError):
    """Over a limit. Facts: ``limit_bytes``."""

    code, reason, status = -32042, "too-large", 413

    def __init__(self, message: str, limit_bytes: int) -> None:
        super().__init__(message, limit_bytes=limit_bytes)


class ShuttingDown(SkilldError):
    """The daemon is going down."""

    code, reason, status = -32043, "shutting-down", 503

    def __init__(self) -> None:
        super().__init__("the daemon is shutting down")


def _classes() -> dict[str, type[SkilldError]]:
    return {cls.reason: cls for cls in SkilldError.__subclasses__()}


def error_from_reply(error: Mapping[str, Any]) -> SkilldError:
    """
    Turn the ``error`` member of a reply back into the exception that the daemon raised.

    Args:
        error: ``{"code", "message", "data"?}``.

    Returns:
        An instance of the class whose ``reason`` the data names; of the class with the same code where the reason is
        unknown; else a plain :class:`SkilldError`. ``facts`` are the data's other members.
    """
    data = error.get("data")
    facts = dict(data) if isinstance(data, Mapping) else {}
    reason = facts.pop("reason", None)
    by_code = {cls.code: cls for cls in SkilldError.__subclasses__()}
    code = error.get("code")
    cls = _classes().get(reason if isinstance(reason, str) else "") or by_code.get(
        code if isinstance(code, int) else 0, SkilldError
    )
    made = cls.__new__(cls)
    SkilldError.__init__(made, str(error.get("message", "")))
    made.facts = facts
    return made
