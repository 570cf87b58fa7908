"""Trigger phrases, and the wrapping around a task."""

from __future__ import annotations

import pytest

from skilld.factory.phrases import bare_task, check_triggers, strip_trigger


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("teach me", ("teach me",)),
        ("Let me Teach You something", ("teach you",)),
        ("LEARN   THIS\nnow", ("learn this",)),
        ("please learn\u00a0how I do it", ("learn how",)),
        ("“create a skill”", ("create a skill",)),
        ("create a ‘skill’ for that", ("create a skill",)),
        ("(remember how to)", ("remember how to",)),
        ("can you automate this?", ("automate this",)),
        ("Automate this; learn how, and teach me", ("teach me", "learn how", "automate this")),
        ("", ()),
        ("teach mein Kind", ()),
        ("unlearn this", ()),
        ("learn thistle care", ()),
        ("create a skillet", ()),
        ("recreate a skill", ()),
        ("teach, me", ()),
        ("remember how", ()),
    ],
)
def test_check_trigger_phrases(text: str, phrases: tuple[str, ...]) -> None:
    """Whole words match, whatever their case, white space and quotes."""
    assert check_triggers(text) == phrases


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("teach you to fill forms", "fill forms"),
        ("Teach you how to fill forms", "fill forms"),
        ("I want to teach you how to fill forms", "fill forms"),
        ("I’d like to teach you: fill forms", "fill forms"),
        ("Hey, let me teach you to fill forms", "fill forms"),
        ("please teach me about taxes", "taxes"),
        ("learn this: fill forms", "fill forms"),
        ("learn how to fill forms", "fill forms"),
        ("Create a skill that fills forms", "fills forms"),
        ("create a skill for me to fill forms", "fill forms"),
        ("can you create a skill for filling forms?", "filling forms?"),
        ("remember how to fill forms", "fill forms"),
        ("automate this — fill forms", "fill forms"),
        ("automate this, please: fill forms", "fill forms"),
        ("teach you to convert `a` → b\nand c", "convert `a` → b\nand c"),
        ("teach me", ""),
        ("Teach you something new!", ""),
        ("create a skill, please", ""),
        ("Can you learn this?", ""),
        ("fill forms, and learn this by heart", "fill forms, and learn this by heart"),
        ("teach mein Kind", "teach mein Kind"),
        ("  # fill forms", "  # fill forms"),
    ],
)
def test_trigger_phrase_at_the_start_is_taken_off(text: str, rest: str) -> None:
    """What remains is the task; a text that starts otherwise is left alone."""
    assert strip_trigger(text) == rest


@pytest.mark.parametrize(
    ("goal", "task"),
    [
        ("fill forms", "fill forms"),
        ("Please fill\n  forms", "fill forms"),
        ("I want you to fill forms", "fill forms"),
        ("Could you please fill forms", "fill forms"),
        ("help me fill forms", "fill forms"),
        ("My goal is to fill forms", "fill forms"),
        ("To fill forms", "fill forms"),
        ("teach you how to fill forms", "fill forms"),
        ("automate this report", "automate this report"),
        ("hello world programs", "hello world programs"),
        ("to-do lists", "to-do lists"),
        ("now", "now"),
        ("a skill", "a skill"),
        ("create a skill that Writes reports", "Write reports"),
        ("fetches and sorts mail", "fetch and sorts mail"),
        ("sales reports", "sales reports"),
        ("news", "news"),
        ("I want to ", "I want to"),
    ],
)
def test_task_is_bared_of_its_wrapping(goal: str, task: str) -> None:
    """Polite words around a goal are not part of the task."""
    assert bare_task(goal) == task
