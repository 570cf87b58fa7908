"""
JSON Schemas of the results that the API names, for the OpenRPC document.

Owns: nothing; values only.

Source: API, section 3.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOL: Schema = {"type": "boolean"}
ANY: Schema = {}


def obj(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these members; others may come in later versions."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def array(items: Schema) -> Schema:
    """An array of one kind of item."""
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


IDS = array(TEXT)
SUMMARY = obj({"id": TEXT, "name": TEXT, "description": TEXT})
HIT = obj({"id": TEXT, "name": TEXT, "description": TEXT, "score": {"type": "number"}, "snippet": TEXT})
PROBLEM = obj(
    {"path": TEXT, "severity": {"enum": ["error", "warning"]}, "message": TEXT},
    {"id": TEXT, "name": TEXT, "field": TEXT, "line": {"type": "integer", "minimum": 1}},
)
RESOURCE = obj({"path": TEXT, "size": COUNT, "sha256": nullable(TEXT), "executable": BOOL})
SKILL = obj(
    {
        "id": TEXT,
        "name": TEXT,
        "description": TEXT,
        "frontmatter": {"type": "object"},
        "body": TEXT,
        "scripts": IDS,
        "references": IDS,
        "assets": IDS,
        "resources": array(RESOURCE),
        "path": TEXT,
        "root": TEXT,
        "digest": nullable(TEXT),
        "modified": {"type": "string", "format": "date-time"},
        "problems": array(PROBLEM),
    },
    {"license": TEXT, "compatibility": TEXT, "metadata": ANY, "allowed_tools": IDS},
)
SKILL_LIST = obj({"skills": array(SUMMARY), "total": COUNT, "revision": TEXT})
HIT_LIST = obj({"skills": array(HIT), "total": COUNT, "revision": TEXT}, {"complete": BOOL})
FILE = obj({"content": TEXT, "encoding": {"enum": ["utf-8", "base64"]}, "size": COUNT, "eof": BOOL})
VALIDATION = obj({"valid": BOOL, "problems": array(PROBLEM)})
PROBLEM_LIST = obj({"problems": array(PROBLEM)})
PROMPT = obj({"prompt": TEXT})
CHANGES = obj({"revision": TEXT, "added": IDS, "updated": IDS, "removed": IDS, "complete": BOOL})
REVISION = obj({"revision": TEXT})
SANDBOX = obj(
    {
        "backend": {"enum": ["bubblewrap", "landlock", "none"]},
        "network": TEXT,
        "proc": TEXT,
        "unix_sockets": TEXT,
        "memory": TEXT,
        "degraded": array(TEXT),
    }
)
_ENCODING: Schema = {"enum": ["utf-8", "base64"]}
RECEIPT = obj(
    {
        "statement": TEXT,
        "signature": TEXT,
        "algorithm": TEXT,
        "public_key": TEXT,
        "signature_chain": array(TEXT),
    }
)
RUN_RESULT = obj(
    {
        "stdout": TEXT,
        "stderr": TEXT,
        "exit_code": COUNT,
        "encoding": obj({"stdout": _ENCODING, "stderr": _ENCODING}),
        "truncated": obj({"stdout": BOOL, "stderr": BOOL}),
        "bytes": obj({"stdout": COUNT, "stderr": COUNT}),
        "timed_out": BOOL,
        "duration_ms": {"type": "number", "minimum": 0},
        "queued_ms": {"type": "number", "minimum": 0},
        "interpreter": TEXT,
        "sandbox": SANDBOX,
    },
    {"signal": {"enum": ["SIGTERM", "SIGKILL"]}, "receipt": RECEIPT},
)
PLAN = obj({"plan": {"type": "object"}})
STATUS = obj(
    {
        "version": TEXT,
        "uptime_s": {"type": "number"},
        "pid": COUNT,
        "roots": array(obj({"path": TEXT, "skills": COUNT, "writable": BOOL})),
        "revision": TEXT,
        "digest": TEXT,
        "problems": COUNT,
        "watcher": obj(
            {
                "mode": TEXT,
                "alive": BOOL,
                "last_event": nullable(TEXT),
                "last_full_scan": nullable(TEXT),
                "reason": nullable(TEXT),
                "missed_events": COUNT,
            }
        ),
        "index": obj({"documents": COUNT, "bytes": COUNT, "complete": BOOL}),
        "connections": COUNT,
        "sandbox": obj(
            {
                "state": {"enum": ["disabled", "checking", "checked"]},
                "backend": nullable({"enum": ["bubblewrap", "landlock", "none"]}),
                "canary": obj({"passed": BOOL, "at": nullable(TEXT), "checks": {"type": "object"}}),
                "rejected": array(obj({"backend": TEXT, "reason": TEXT})),
                "running": COUNT,
                "queued": COUNT,
            }
        ),
        "tee": obj({"available": BOOL, "endpoint": nullable(TEXT)}),
        "limits": {"type": "object"},
    }
)
