"""Simple or complex, in ordinary words."""

from __future__ import annotations

import pytest

from skilld.factory.answers import AnswerRefused
from skilld.factory.complexity import read_complexity

SIMPLE = """
    simple
    Simple.
    SIMPLE!
    a simple skill
    it's simple
    very simple, really
    pretty basic
    just text
    text only
    text instructions only
    instructions only, nothing else
    simple (text instructions only)
    plain instructions
    straightforward
    easy
    no scripts
    no scripts needed
    no scripts or templates
    neither scripts nor templates
    without scripts
    scripts aren't needed
    scripts are not needed
    scripts would be overkill
    script-free
    templates are unnecessary
    it doesn't need scripts
    it doesn’t need any templates
    I don't think it needs scripts
    I do not believe that it needs a template
    don't need code
    needs no scripts
    no need for scripts
    not complex
    not too complex
    isn't complicated
    not complex at all, simple
    nothing fancy
    nothing complicated
    simple, without any code
    the first one
    not sure, maybe simple
    Does it need scripts? No.
    scripts: no
    uncomplicated
    simple - no templates
"""

COMPLEX = """
    complex
    Complex.
    a complex skill
    it's complicated
    quite complex
    complex (needs scripts, templates)
    needs scripts
    it needs a script
    needs a template
    a small Python script would help
    scripts and templates
    simple but with a script
    a simple script
    text instructions and a template
    not simple
    not that simple
    it isn't simple
    not trivial
    non-trivial
    not just text
    not only text instructions
    more than text
    more than just instructions
    not simple, it needs scripts
    not simple it needs scripts
    no, it needs scripts
    No: complex
    templates yes, scripts no
    no scripts, but templates
    I think we need code
    bash
    the latter
    maybe complex
    advanced
"""


@pytest.mark.parametrize("text", [line.strip() for line in SIMPLE.strip().splitlines()])
def test_simple_is_understood(text: str) -> None:
    """Text alone, and anything said not to be needed, is simple."""
    assert read_complexity(text) == "simple"


@pytest.mark.parametrize("text", [line.strip() for line in COMPLEX.strip().splitlines()])
def test_complex_is_understood(text: str) -> None:
    """A script, a template or the like that is needed is complex; so is "not simple"."""
    assert read_complexity(text) == "complex"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("yes", "could not tell"),
        ("no", "could not tell"),
        ("not sure", "could not tell"),
        ("what do you mean?", "could not tell"),
        ("medium", "could not tell"),
        ("42", "could not tell"),
        ("simple or complex?", "both"),
        ("simple and complex", "both"),
        ("complex, but no scripts", "both"),
    ],
)
def test_unclear_words_are_asked_again(text: str, why: str) -> None:
    """What says neither, or both, is refused with the reason."""
    with pytest.raises(AnswerRefused, match=why):
        read_complexity(text)
