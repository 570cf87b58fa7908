"""
The OpenRPC document: the table of methods as a machine reads it.

Owns: nothing; values only. Everything in it comes from the values that dispatch and check the calls.

Source: OpenRPC specification 1.3.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import skilld
from skilld.errors import Forbidden, Internal, InvalidParams, ShuttingDown, SkilldError
from skilld.rpc.dispatch import Method
from skilld.rpc.params import Param

VERSION = "1.3.2"

# What any method may answer; the texts around the calls (not JSON, no such method) belong to no method.
COMMON_ERRORS: tuple[type[SkilldError], ...] = (InvalidParams, Forbidden, ShuttingDown, Internal)


def document(methods: Iterable[Method]) -> dict[str, Any]:
    """
    Return the OpenRPC document of a table of methods.

    Every method carries ``x-role`` (the role a caller needs), ``x-route`` (its REST route, or null) and ``x-framing``.
    """
    return {
        "openrpc": VERSION,
        "info": {
            "title": "skilld",
            "version": skilld.__version__,
            "description": skilld.__doc__,
            "license": {"name": "Apache-2.0"},
        },
        "methods": [_method(method) for method in methods],
        "components": {"errors": {cls.reason: _error(cls) for cls in SkilldError.__subclasses__()}},
    }


def _method(method: Method) -> dict[str, Any]:
    description = inspect.cleandoc(method.handler.__doc__ or "").partition("\n")[2].strip()
    entry = {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "either",
        "params": [_param(param) for param in method.params],
        "result": {"name": "result", "schema": dict(method.result)},
        "errors": [
            {"$ref": f"#/components/errors/{cls.reason}"} for cls in dict.fromkeys((*COMMON_ERRORS, *method.errors))
        ],
        "x-role": method.role,
        "x-route": {"method": method.route[0], "path": method.route[1]} if method.route else None,
        "x-framing": method.framing,
    }
    return {**entry, "description": description} if description else entry


def _param(param: Param) -> dict[str, Any]:
    default = param.default.hex() if isinstance(param.default, bytes) else param.default
    schema = dict(param.kind.schema) if default is None else {**param.kind.schema, "default": default}
    entry: dict[str, Any] = {"name": param.name, "required": param.required, "schema": schema}
    return {**entry, "description": param.doc} if param.doc else entry


def _error(cls: type[SkilldError]) -> dict[str, Any]:
    summary = (inspect.getdoc(cls) or cls.reason).partition("\n")[0]
    return {"code": cls.code, "message": summary, "data": {"reason": cls.reason}}
