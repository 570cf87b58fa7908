"""
The methods of the factory: the dialogue that makes a skill.

Owns: nothing; each is a thin call of the sessions.

Source: API, section 3, "factory".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skilld.errors import SessionNotFound
from skilld.factory.phrases import check_triggers
from skilld.rpc.dispatch import Method
from skilld.rpc.methods import schemas
from skilld.rpc.methods.services import Context
from skilld.rpc.params import Param, text


async def start(context: Context, /, *, initial_input: str | None) -> Mapping[str, Any]:
    """Open a session of the dialogue that makes a skill."""
    await context.services.sync(None)
    return context.services.sessions.start(context.peer.uid, initial_input)


async def continue_(context: Context, /, *, session_id: str, input: str) -> Mapping[str, Any]:
    """Answer a session's prompt."""
    return await context.services.sessions.continue_(context.peer.uid, session_id, input)


async def check(context: Context, /, *, input: str) -> dict[str, Any]:
    """Tell whether a text asks for the factory, and by which phrases."""
    phrases = check_triggers(input)
    return {"triggers_factory": bool(phrases), "matched_phrases": list(phrases)}


async def get(context: Context, /, *, session_id: str) -> Mapping[str, Any]:
    """Return where a session stands, without answering it."""
    return context.services.sessions.get(context.peer.uid, session_id)


async def cancel(context: Context, /, *, session_id: str) -> dict[str, Any]:
    """End a session without making a skill."""
    await context.services.sessions.cancel(context.peer.uid, session_id)
    return {"cancelled": session_id}


_SESSION = Param("session_id", text(), required=True, doc="What factory.start returned.")
_RESPONSE = schemas.obj(
    {
        "session_id": schemas.TEXT,
        "step": {"enum": ["goal", "trigger", "example", "complexity", "edge_cases", "confirm", "done"]},
        "prompt": schemas.TEXT,
        "done": schemas.BOOL,
    },
    {"skill": schemas.SUMMARY, "preview": schemas.TEXT},
)

METHODS = (
    Method(
        "factory.start",
        "write",
        (Param("initial_input", text(), required=False, doc='What the user said, such as "teach you to ...".'),),
        start,
        _RESPONSE,
        ("POST", "/factory/start"),
    ),
    Method(
        "factory.continue",
        "write",
        (_SESSION, Param("input", text(), required=True, doc="The answer.")),
        continue_,
        _RESPONSE,
        ("POST", "/factory/continue"),
        errors=(SessionNotFound,),
    ),
    Method(
        "factory.check",
        "read",
        (Param("input", text(), required=True, doc="Any text."),),
        check,
        schemas.obj({"triggers_factory": schemas.BOOL, "matched_phrases": schemas.array(schemas.TEXT)}),
        ("POST", "/factory/check"),
    ),
    Method(
        "factory.get",
        "write",
        (_SESSION,),
        get,
        _RESPONSE,
        ("GET", "/factory/{session_id}"),
        errors=(SessionNotFound,),
    ),
    Method(
        "factory.cancel",
        "write",
        (_SESSION,),
        cancel,
        schemas.obj({"cancelled": schemas.TEXT}),
        ("DELETE", "/factory/{session_id}"),
        errors=(SessionNotFound,),
    ),
)
