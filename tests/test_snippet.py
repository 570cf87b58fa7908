"""The passage that shows why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.skills.snippet import PASSAGE_CHARS, _in_any, _in_plain, beginning, snippet
from skilld.skills.tokens import term_set


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("Fills PDF forms.", "fill a form", "[Fills] PDF [forms]."),
        ("Fills PDF forms.", "excel", None),
        ("", "excel", None),
        ("One\n  two\tthree", "two", "One [two] three"),
        ("A [link](x) to pdf", "pdf", "A (link)(x) to [pdf]"),
        ("pdfs, not pdfx or xpdf", "pdf", "[pdfs], not pdfx or xpdf"),
        ("\u65e5\u672c\u8a9e\u306e\u6587\u66f8", "\u65e5\u672c", "[\u65e5\u672c\u8a9e\u306e\u6587\u66f8]"),
    ],
)
def test_snippet(text: str, query: str, expected: str | None) -> None:
    """Matching words stand in brackets, on one line; without a match there is none."""
    assert snippet(text, query) == expected


def test_the_densest_passage_is_chosen() -> None:
    """A passage with more different terms is better than an earlier one."""
    text = "pdf " + "filler " * 60 + "merge pdf files " + "filler " * 60
    shown = snippet(text, "merge pdf files")
    assert shown is not None
    assert "[merge] [pdf] [files]" in shown
    assert shown.startswith("\u2026") and shown.endswith("\u2026")
    assert len(shown) < 2 * PASSAGE_CHARS


@given(st.text(), st.text())
def test_any_text_is_fine(text: str, query: str) -> None:
    """Never an exception, never a second line, never longer than a passage with its marks."""
    for shown in (snippet(text, query), beginning(text)):
        assert shown is None or len(shown.splitlines()) <= 1


@given(st.text("abcDES012+# .-\u2014\u2019\u00b2\u3001\u2126\U0001f600", max_size=60), st.text("abcdes012+# "))
def test_both_ways_to_find_words_agree(text: str, query: str) -> None:
    """Without foreign letters the short way finds the words that the long way finds."""
    asked = term_set(query)
    plain, any_ = ({(start, end) for start, end, _ in find(text, asked)} for find in (_in_plain, _in_any))
    assert plain == any_
