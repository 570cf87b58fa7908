"""
Any JSON document made of a genuine one by one change, for what must refuse all of them and never break.

Owns: nothing; values only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]

GONE = object()

# Halves of characters are what JSON can carry and no encoding can; numbers are of any size.
_TEXTS = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(["\ud800", "0" * 130, "-", "2026-01-01"])
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS | st.just(10**4_000)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3), max_leaves=4
) | st.builds(lambda depth: json.loads("[" * depth + "]" * depth), st.integers(1, 500))


def mutations(document: Any, *, texts: frozenset[str]) -> st.SearchStrategy[tuple[Path, Any]]:
    """
    Return what was changed, and the document with one value replaced or taken out.

    Args:
        document: The genuine one, which is left as it is.
        texts: Members that hold JSON as text, which is changed inside, too.
    """
    paths = list(_paths(document, texts))
    return st.builds(
        lambda path, value: (path, _changed(document, path, value)),
        st.sampled_from(paths),
        _VALUES | st.just(GONE),
    )


def _paths(value: Any, texts: frozenset[str]) -> Iterator[Path]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield (key,)
        inner = json.loads(inner) if key in texts else inner
        for path in _paths(inner, texts):
            yield (key, *path)


def _changed(document: Any, path: Path, value: Any) -> Any:
    document = copy.copy(document)
    key, *rest = path
    if rest:
        inner, is_text = document[key], isinstance(document[key], str)
        inner = _changed(json.loads(inner) if is_text else inner, tuple(rest), value)
        value = json.dumps(inner, ensure_ascii=False, separators=(",", ":")) if is_text else inner
    if value is GONE:
        del document[key]
    else:
        document[key] = value
    return document
