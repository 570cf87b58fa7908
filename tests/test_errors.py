"""Every error of the interface: its code, reason, status, facts and message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from skilld import errors
from skilld.errors import SkilldError, error_from_reply, quote

# The table of the interface: an error, its code, reason and HTTP status, its facts.
TABLE: list[tuple[SkilldError, int, str, int, dict[str, Any]]] = [
    (errors.ParseError("not JSON"), -32700, "parse-error", 400, {}),
    (errors.InvalidRequest("not a request"), -32600, "invalid-request", 400, {}),
    (errors.MethodNotFound("skills.lst"), -32601, "method-not-found", 404, {"method": "skills.lst"}),
    (errors.InvalidParams("limit", "too big"), -32602, "invalid-params", 422, {"field": "limit", "message": "too big"}),
    (errors.Internal(), -32603, "internal", 500, {}),
    (errors.SkillNotFound("pfd", ("pdf",)), -32001, "skill-not-found", 404, {"name": "pfd", "did_you_mean": ["pdf"]}),
    (errors.SkillExists("pdf"), -32002, "skill-exists", 409, {"name": "pdf"}),
    (
        errors.SkillInvalid([{"message": "no name"}, {"message": "no description"}]),
        -32003,
        "skill-invalid",
        422,
        {"problems": [{"message": "no name"}, {"message": "no description"}]},
    ),
    (errors.FileNotFound("pdf", "a.py"), -32004, "file-not-found", 404, {"name": "pdf", "path": "a.py"}),
    (errors.Conflict("sha256:1", None), -32005, "conflict", 409, {"expected": "sha256:1", "actual": None}),
    (errors.ReadOnly("pdf", "/ro"), -32006, "read-only", 403, {"name": "pdf", "root": "/ro"}),
    (errors.Storage("ENOSPC", "write"), -32007, "storage", 507, {"errno": "ENOSPC", "operation": "write"}),
    (errors.SessionNotFound("s1"), -32010, "session-not-found", 404, {"session_id": "s1"}),
    (
        errors.SandboxUnavailable([{"backend": "bubblewrap", "reason": "absent"}], "install bubblewrap"),
        -32020,
        "sandbox-unavailable",
        503,
        {"tried": [{"backend": "bubblewrap", "reason": "absent"}], "hint": "install bubblewrap"},
    ),
    (
        errors.ScriptUnsupported("a.rb", "ruby", ["python3"]),
        -32021,
        "script-unsupported",
        422,
        {"script": "a.rb", "interpreter": "ruby", "supported": ["python3"]},
    ),
    (
        errors.ScriptDependencies("a.py", ["httpx"]),
        -32022,
        "script-dependencies",
        422,
        {"script": "a.py", "dependencies": ["httpx"]},
    ),
    (errors.TeeUnavailable(None, "no agent"), -32030, "tee-unavailable", 503, {"endpoint": None, "hint": "no agent"}),
    (errors.TeeTimeout("quote", 30.0), -32031, "tee-timeout", 504, {"method": "quote", "timeout_s": 30.0}),
    (errors.TeeUnsupported("sign", "0.5.4"), -32032, "tee-unsupported", 501, {"method": "sign", "os_version": "0.5.4"}),
    (errors.TeeRejected("sign", "no"), -32033, "tee-rejected", 502, {"method": "sign", "error": "no"}),
    (errors.TeeProtocol("sign"), -32034, "tee-protocol", 502, {"method": "sign"}),
    (errors.Busy("full", 2.5), -32040, "busy", 503, {"retry_after_s": 2.5}),
    (errors.Forbidden("tee.sign", "tee"), -32041, "forbidden", 403, {"method": "tee.sign", "role": "tee"}),
    (errors.TooLarge("a line is too long", 10), -32042, "too-large", 413, {"limit_bytes": 10}),
    (errors.ShuttingDown(), -32043, "shutting-down", 503, {}),
]


def ids(row: Any) -> str | None:
    return row.reason if isinstance(row, SkilldError) else None


@pytest.mark.parametrize(("error", "code", "reason", "status", "facts"), TABLE, ids=ids)
def test_every_error_has_its_code_reason_status_and_facts(
    error: SkilldError, code: int, reason: str, status: int, facts: dict[str, Any]
) -> None:
    """The table of the interface holds to the letter."""
    assert (error.code, error.reason, error.status, error.data) == (code, reason, status, {"reason": reason, **facts})


def test_the_table_is_complete() -> None:
    """Every class is in the table, and no two share a code or a reason."""
    classes = SkilldError.__subclasses__()
    assert {type(row[0]) for row in TABLE} == set(classes)
    assert len({cls.code for cls in classes}) == len({cls.reason for cls in classes}) == len(classes)


@pytest.mark.parametrize(("error", "code", "reason", "status", "facts"), TABLE, ids=ids)
def test_a_reply_turns_back_into_the_same_error(
    error: SkilldError, code: int, reason: str, status: int, facts: dict[str, Any]
) -> None:
    """A client catches the class that the daemon raised, with the same text and facts."""
    back = error_from_reply({"code": error.code, "message": str(error), "data": error.data})
    assert (type(back), str(back), dict(back.facts), back.data) == (type(error), str(error), facts, error.data)


@pytest.mark.parametrize(
    ("reply", "expected", "text", "facts"),
    [
        ({"code": -32001, "message": "m", "data": {"reason": "of-the-future", "x": 1}}, "SkillNotFound", "m", {"x": 1}),
        ({"code": -32001, "message": "m", "data": {"reason": ["odd"]}}, "SkillNotFound", "m", {}),
        ({"code": -32001, "message": "m"}, "SkillNotFound", "m", {}),
        ({"code": -1, "message": "m", "data": {"reason": "busy"}}, "Busy", "m", {}),
        ({"code": -1, "message": "m", "data": "text"}, "SkilldError", "m", {}),
        ({"code": None, "message": None}, "SkilldError", "None", {}),
        ({"code": [], "message": "m", "data": {"reason": None}}, "SkilldError", "m", {}),
        ({}, "SkilldError", "", {}),
    ],
)
def test_a_reply_of_another_version_still_turns_into_an_error(
    reply: dict[str, Any], expected: str, text: str, facts: dict[str, Any]
) -> None:
    """An unknown reason falls back to the code, an unknown code to the base class."""
    error = error_from_reply(reply)
    assert (type(error).__name__, str(error), error.facts) == (expected, text, facts)


HOSTILE = "a\nb\x00\x1b[31m\u2028" + "x" * 10_000

SPOKEN: list[Callable[[], SkilldError]] = [
    lambda: errors.MethodNotFound(HOSTILE),
    lambda: errors.SkillNotFound(HOSTILE),
    lambda: errors.SkillExists(HOSTILE),
    lambda: errors.FileNotFound(HOSTILE, HOSTILE),
    lambda: errors.SessionNotFound(HOSTILE),
    lambda: errors.ScriptUnsupported(HOSTILE, HOSTILE, []),
    lambda: errors.TeeRejected("tee.sign", HOSTILE),
    lambda: errors.Forbidden("skills.list", HOSTILE),
]


@pytest.mark.parametrize("make", SPOKEN)
def test_a_message_is_one_short_line_whatever_it_quotes(make: Callable[[], SkilldError]) -> None:
    """A hostile value is quoted on one line, without control characters, and cut."""
    text = str(make())
    assert text.isprintable()
    assert len(text) < 500


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("pdf", "'pdf'"),
        ("", "''"),
        (None, "None"),
        ("it's", '"it\'s"'),
        ("\ud800", "'\\ud800'"),
        ({"a": [1, "b"]}, "{'a': [1, 'b']}"),
        ("x" * 198, "'" + "x" * 198 + "'"),
        ("x" * 199, "'" + "x" * 198 + "…"),
    ],
)
def test_a_quoted_value_is_its_repr_in_200_characters(value: object, expected: str) -> None:
    """What is longer is cut and ends in an ellipsis."""
    assert quote(value) == expected


def test_a_number_too_long_for_python_to_write_is_quoted_in_words() -> None:
    """Python refuses to write out a whole number of more than 4,300 digits; a message does not fail over it."""
    assert [quote(10**5_000), quote([10**5_000])] == ["a number of thousands of digits"] * 2


def test_quoting_a_bomb_does_not_set_it_off() -> None:
    """A value that shares its parts ten levels deep would be gigabytes when written out; it is quoted all the same."""
    bomb: Any = ["x"] * 9
    for _ in range(10):
        bomb = [bomb] * 9
    assert quote(bomb).startswith("[[[[...], [...], [...],")
    loop: list[Any] = []
    loop.append(loop)
    assert quote(loop) == "[[[[...]]]]"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.SkillNotFound("pfd", ("pdf", "p")), "no such skill: 'pfd'; did you mean pdf, p?"),
        (errors.SkillNotFound("x", ("a", "b"), ambiguous=True), "several skills are named 'x'; did you mean a, b?"),
        (errors.SkillInvalid([]), "invalid skill: invalid"),
        (errors.SkillInvalid([{"message": "no name"}]), "invalid skill: no name"),
        (errors.SkillInvalid([{"message": "no name"}] * 3), "invalid skill: no name (and 2 more)"),
        (errors.Conflict("sha256:a", "sha256:b"), "the skill changed: its digest is sha256:b, not sha256:a"),
        (errors.TeeTimeout("tee.quote", 0.5), "tee.quote: the guest agent did not answer in 0.5 s"),
        (errors.TeeUnsupported("tee.sign", None), "tee.sign does not exist on dstack OS of unknown version"),
        (errors.InvalidParams("limit", "must be 1 to 100, not 0"), "limit: must be 1 to 100, not 0"),
    ],
)
def test_a_message_names_what_is_wrong(error: SkilldError, expected: str) -> None:
    """The text alone tells a user which value to mend."""
    assert str(error) == expected
