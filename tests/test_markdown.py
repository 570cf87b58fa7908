"""Other people's text in Markdown."""

from __future__ import annotations

import pytest

from skilld.factory.markdown import block, fence, inline, is_plain, is_plain_line


@pytest.mark.parametrize(
    "text",
    [
        "Fill forms, e.g. W-9 (2026): 50% & more!",
        "hours_2026.csv -> invoice #5 = $12",
        "R&D 'quoted' \"twice\" a/b a+b",
        "שלום עולם",
        "请。",
        "→ arrow",
        "🎉 party",
        "a  b",
    ],
)
def test_words_are_plain(text: str) -> None:
    """Ordinary sentences, of any script, stand as they are."""
    assert is_plain_line(text)
    assert inline(text) == block(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# heading",
        "> quote",
        "---",
        "===",
        "- item",
        "1. item",
        "1.",
        " indented",
        "\tindented",
        "a\tb",
        "*emphasis*",
        "_emphasis_",
        "a `code`",
        "a <b>",
        "a [link](b)",
        "a | b",
        "&amp;",
        "~~~",
        "a\\b",
        "two\nlines",
        "a\u202eb",
        "a\u200bb",
        "a\u2028b",
        "%",
        "@me",
    ],
)
def test_what_markdown_may_read_is_not_plain(text: str) -> None:
    """Everything with a meaning, or that nobody sees, is quoted."""
    assert not is_plain_line(text)


@pytest.mark.parametrize("text", ["one\ntwo", "- a\n- b", "1. a\n\n2) b", "* a"])
def test_lists_and_paragraphs_are_plain(text: str) -> None:
    """Lists of plain lines are the same to Markdown as to their author."""
    assert is_plain(text)
    assert block(text) == text


@pytest.mark.parametrize("text", ["one\n---", "- - a", "- # a", "-", "- a\n  - b", "a\n    b", "a\n===", "[x]: y"])
def test_hostile_lines_make_a_text_data(text: str) -> None:
    """One line with a meaning of its own is enough."""
    assert not is_plain(text)
    assert block(text) == fence(text)


@pytest.mark.parametrize(
    ("text", "fenced"),
    [
        ("x", "```text\nx\n```"),
        ("```\nx\n```", "````text\n```\nx\n```\n````"),
        ("``````", "```````text\n``````\n```````"),
    ],
)
def test_fence_is_longer_than_any_inside(text: str, fenced: str) -> None:
    """No text can close its own fence."""
    assert fence(text) == fenced


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<b>", "`<b>`"),
        ("a`b", "``a`b``"),
        ("`a`", "`` `a` ``"),
        ("```", "```` ``` ````"),
    ],
)
def test_code_span_is_longer_than_any_inside(text: str, code: str) -> None:
    """No text can close its own code span."""
    assert inline(text) == code
