"""Words become answers: texts, triggers, examples."""

from __future__ import annotations

import pytest

from skilld.factory.answers import ANSWER_LIMIT_BYTES, AnswerRefused, Example, read_example, read_text, read_triggers


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("  fill forms \n", "fill forms"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\n \n    indented\nrest\n\n", "    indented\nrest"),
        ("שלום עולם", "שלום עולם"),
        ("tab\there", "tab\there"),
        ("x" * ANSWER_LIMIT_BYTES, "x" * ANSWER_LIMIT_BYTES),
    ],
)
def test_text_keeps_what_was_said(raw: str, text: str) -> None:
    """Only line ends and the white space around an answer change."""
    assert read_text(raw) == text


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "empty"),
        (" \r\n\t", "empty"),
        ("\u200b", "empty"),
        ("a\0b", "U+0000"),
        ("a\x1b[31mred", "U+001B"),
        ("a\x85b", "U+0085"),
        ("\ud800 half a character", "U+D800"),
        ("x" * (ANSWER_LIMIT_BYTES + 1), "16,385 bytes"),
        ("é" * ANSWER_LIMIT_BYTES, "32,768 bytes"),
    ],
)
def test_text_that_a_skill_cannot_carry_is_refused(raw: str, reason: str) -> None:
    """Empty, over-long and control characters are refused, and the reason names the fault."""
    with pytest.raises(AnswerRefused, match=reason.replace("+", r"\+")):
        read_text(raw)


@pytest.mark.parametrize(
    ("text", "triggers"),
    [
        ("invoice", ("invoice",)),
        ("invoice, billing; bill a client", ("invoice", "billing", "bill a client")),
        ("invoice or billing OR bills", ("invoice", "billing", "bills")),
        ("invoice, billing, or bills", ("invoice", "billing", "bills")),
        ("invoice, billing and bills", ("invoice", "billing and bills")),
        ("invoice, billing, and bills.", ("invoice", "billing", "bills")),
        ("- invoice\n- billing\n\n* bills", ("invoice", "billing", "bills")),
        ("1. invoice\n2) billing", ("invoice", "billing")),
        ("\"invoice\", “billing”, 'bills'", ("invoice", "billing", "bills")),
        ('"this or that, really" or other', ("this or that, really", "other")),
        ('15" screen, 17" screen', ('15" screen', '17" screen')),
        ("report for Oregon, organ, order", ("report for Oregon", "organ", "order")),
        ("Invoice, invoice,  INVOICE ", ("Invoice",)),
        ("bill\t a   client", ("bill a client",)),
        ('when I say "invoice" or "bill"', ("invoice", "bill")),
        ("whenever the user asks about tax", ("tax",)),
        ("when I upload a receipt", ("when I upload a receipt",)),
        ("发票、账单，收据", ("发票", "账单", "收据")),
        ("---, # x, `a`, a: b", ("---", "# x", "`a`", "a: b")),
        ("wait...", ("wait...",)),
    ],
)
def test_triggers_are_split(text: str, triggers: tuple[str, ...]) -> None:
    """Commas, semicolons, lines and "or" separate triggers, outside double quotes."""
    assert read_triggers(text) == triggers


@pytest.mark.parametrize("text", [",", ";;\n,", "or", " or or "])
def test_separators_alone_are_no_trigger(text: str) -> None:
    """A list with nothing in it is refused."""
    with pytest.raises(AnswerRefused, match="no word"):
        read_triggers(text)


@pytest.mark.parametrize(
    ("text", "input_", "output"),
    [
        ("Input: hours.csv Output: an invoice", "hours.csv", "an invoice"),
        ("INPUT : a\nb\n\noutput:\n  c\n  d", "a\nb", "  c\n  d"),
        ("Input: x. Output: y -> z", "x.", "y -> z"),
        ("**Input:** a **Output:** b", "a", "b"),
        ("hours.csv → an invoice", "hours.csv", "an invoice"),
        ("a→b", "a", "b"),
        ("hours.csv -> an invoice", "hours.csv", "an invoice"),
        ("A CSV of hours gives an invoice", "A CSV of hours", "an invoice"),
        ("hours.csv\nrates.csv\n\nan invoice\n", "hours.csv\nrates.csv", "an invoice"),
        ("a\n \n\nb", "a", "b"),
    ],
)
def test_example_is_split(text: str, input_: str, output: str) -> None:
    """Labels, arrows, "gives" and a blank line part the input from the output."""
    assert read_example(text) == Example(text, input_, output)


@pytest.mark.parametrize(
    "text",
    [
        "just a story",
        "a -> b -> c",
        "a → b\nc → d",
        "one\n\ntwo\n\nthree",
        "Input: a",
        "Output: b",
        "Output: b Input: a",
        "Input: a Output: b\nInput: c Output: d",
        "Input: Output: b",
        "First Input: a Output: b",
        "-> b",
        "a →",
        "pointer->field",
        "The user gives me a list",
        "a foregives b",
        "gives",
    ],
)
def test_example_that_cannot_be_split_stays_whole(text: str) -> None:
    """Where the text does not say which part is which, nothing is guessed."""
    assert read_example(text) == Example(text)
