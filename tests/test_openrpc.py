"""The OpenRPC document comes from the table."""

from __future__ import annotations

import jsonschema  # type: ignore[import-untyped]  # comes with jsonrpcserver, without types

from skilld.rpc.openrpc import document
from skilld.rpc.params import Param, hex_text
from tests.serving import METHODS, ping
from tests.test_dispatch import make_method


def test_a_method_is_described_whole() -> None:
    """Name, summary, params with their schemas, result, errors, role and route come from the row."""
    by_name = {method["name"]: method for method in document(METHODS)["methods"]}
    assert list(by_name) == [method.name for method in METHODS]
    assert by_name["thing.list"]["params"][:2] == [
        {"name": "offset", "required": False, "schema": {"type": "integer", "minimum": 0, "default": 0}},
        {
            "name": "limit",
            "required": False,
            "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
        },
    ]
    assert by_name["thing.get"] == {
        "name": "thing.get",
        "summary": "Return the params.",
        "paramStructure": "either",
        "params": [
            {
                "name": "name",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
                "description": "Which thing.",
            }
        ],
        "result": {"name": "result", "schema": {"type": "object"}},
        "errors": [
            {"$ref": f"#/components/errors/{reason}"}
            for reason in ("invalid-params", "forbidden", "shutting-down", "internal")
        ],
        "x-role": "read",
        "x-route": {"method": "GET", "path": "/things/{name}"},
        "x-framing": "any",
    }
    assert by_name["echo"]["description"] == "More about that."
    assert by_name["skills.subscribe"]["x-framing"] == "ndjson"
    assert by_name["skills.subscribe"]["x-route"] is None
    assert {"$ref": "#/components/errors/conflict"} in by_name["fail"]["errors"]


def test_references_resolve_and_schemas_are_schemas() -> None:
    """Every error that a method names is described, and every schema is valid."""
    whole = document(METHODS)
    assert whole["openrpc"].startswith("1.3.")
    errors = whole["components"]["errors"]
    assert errors["conflict"] == {
        "code": -32005,
        "message": "The skill is not the one that the caller saw. Facts: ``expected``, ``actual``.",
        "data": {"reason": "conflict"},
    }
    for method in whole["methods"]:
        assert all(reference["$ref"].rpartition("/")[2] in errors for reference in method["errors"])
        for described in (*method["params"], method["result"]):
            jsonschema.Draft7Validator.check_schema(described["schema"])


def test_defaults_that_are_bytes_are_hex() -> None:
    """A default is written as a caller would give it."""
    method = make_method(
        handler=ping, params=(Param("nonce", hex_text(max_bytes=64), required=False, default=b"\x01\xff"),)
    )
    assert document([method])["methods"][0]["params"][0]["schema"]["default"] == "01ff"
