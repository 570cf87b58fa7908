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
        "sandbox": nullable(ANY),
        "tee": obj({"available": BOOL, "endpoint": nullable(TEXT)}),
        "limits": {"type": "object"},
    }
)
