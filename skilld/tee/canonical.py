"""
Canonical JSON: one text for one value, so that a digest or a signature over the text is one over the value.

Owns: nothing; values only.

Source: RFC 8785. Numbers are whole ones, which it writes as Python does.
"""

from __future__ import annotations

import json
from typing import Any


class NotCanonical(ValueError):
    """A text is not the canonical JSON of any value; the text says how."""


def canonical_json(value: Any) -> str:
    """Return the canonical JSON of a value of objects, arrays, texts, whole numbers, booleans and null."""
    return json.dumps(_sorted(value), ensure_ascii=False, separators=(",", ":"))


def parse_canonical(text: str) -> Any:
    """
    Return the value of a canonical JSON text.

    Raises:
        NotCanonical: It is no JSON, or another text stands for the same value.
    """
    try:
        value = json.loads(text, parse_float=_refuse_number, parse_constant=_refuse_number)
        canonical = canonical_json(value)
        canonical.encode()  # halves of characters have no bytes, so no digest either
    except (ValueError, RecursionError) as exc:
        raise NotCanonical(f"is no JSON of texts and whole numbers: {exc}") from None
    if canonical != text:
        raise NotCanonical("is no canonical JSON: blanks, order of members, a member twice, or escapes")
    return value


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        # By UTF-16 code units: section 3.2.3.
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda key: key.encode("utf-16-be"))}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _refuse_number(text: str) -> Any:
    raise ValueError(f"the number {text}")
