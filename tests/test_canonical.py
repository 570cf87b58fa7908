"""Canonical JSON."""

from __future__ import annotations

from typing import Any

import pytest

from skilld.tee.canonical import NotCanonical, canonical_json, parse_canonical


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, -5]}, '{"a":[true,null,-5],"b":1}'),
        # RFC 8785, section 3.2.2.2.
        ({"s": '€$\u000f\nA\'B"\\"/'}, r'{"s":"€$\u000f\nA' + "'" + r'B\"\\\"/"}'),
        # RFC 8785, section 3.2.3: by UTF-16 code units the surrogates of an emoji come before U+FB33.
        ({"\ufb33": 1, "\U0001f600": 2, "\u00f6": 3, "1": 4}, '{"1":4,"\u00f6":3,"\U0001f600":2,"\ufb33":1}'),
        ({"a": {"d": {}, "c": "\x7f"}}, '{"a":{"c":"\x7f","d":{}}}'),
    ],
)
def test_one_value_has_one_text(value: Any, text: str) -> None:
    """The text of RFC 8785, and back."""
    assert canonical_json(value) == text
    assert parse_canonical(text) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '{"b":1,"a":2}',
        '{"a":1,"a":1}',
        '{"a":"\\u0041"}',
        "1.0",
        "NaN",
        '{"a":1}\n',
        "{",
        "[1e3]",
        "[" * 9_999,
        '"\ud800"',
        '{"\ud800":1}',
        r'"\ud800"',
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    """Two texts of one value would have two digests."""
    with pytest.raises(NotCanonical):
        parse_canonical(text)
