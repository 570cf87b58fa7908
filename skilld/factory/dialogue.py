"""
The six-step dialogue that makes a skill, as a state machine without side effects.

A :class:`Dialogue` is a value; :func:`start` makes one, :func:`answer` turns it and what the person said into the
next. The first question without an answer is the next step, so a person who goes back from ``confirm`` to change one
answer comes straight back to it.

At any step an answer that consists of the word "cancel" ends the dialogue, and "back" goes one step back; a longer
answer may contain these words freely.

Owns: nothing; values only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from skilld.errors import quote
from skilld.factory.answers import NO_ANSWERS, AnswerRefused, Answers, read_example, read_text, read_triggers
from skilld.factory.complexity import read_complexity
from skilld.factory.confirmation import is_no, is_yes, question_named
from skilld.factory.draft import Draft, make_draft
from skilld.factory.naming import name_problem, suggest_name
from skilld.factory.phrases import check_triggers, strip_trigger

__all__ = [
    "PROMPTS",
    "STEPS",
    "Dialogue",
    "Outcome",
    "Step",
    "answer",
    "check_triggers",
    "finish",
    "reopen",
    "start",
]

Step = Literal["goal", "trigger", "example", "complexity", "edge_cases", "confirm", "done"]

STEPS: tuple[Step, ...] = ("goal", "trigger", "example", "complexity", "edge_cases", "confirm", "done")

PROMPTS: dict[Step, str] = {
    "goal": "What task do you want me to help with? Give me the high-level goal.",
    "trigger": "When should I use this skill? What words or situations should activate it?",
    "example": "Walk me through a real example. What would you give me as input, and what should I produce?",
    "complexity": "Is this a simple skill (text instructions only) or complex (needs scripts, templates)?",
    "edge_cases": "What should I do if something's missing or goes wrong?",
    "confirm": "Does this capture what you want? Say 'yes' to create.",
}

_CHOICES = (
    "Say 'yes' to create the skill, the name of a step to change its answer (goal, trigger, example, complexity, "
    "edge_cases), 'name: new-name' to rename it, or 'cancel'."
)

# An answer longer than this is cut in the summary; the preview has all of it.
_SUMMARY_LIMIT_CHARS = 500


@dataclass(frozen=True)
class Dialogue:
    """
    Where a dialogue stands.

    ``notice`` is what the prompt says first: why an answer was refused, or what to do next. ``draft`` is the skill
    that "yes" creates, at step ``confirm``, and that was created, at step ``done``; a cancelled dialogue has none.
    """

    step: Step = "goal"
    answers: Answers = NO_ANSWERS
    notice: str = ""
    draft: Draft | None = None

    @property
    def prompt(self) -> str:
        """What to show to the person: the notice, then the step's prompt."""
        if self.step == "done":
            said = f"The skill {self.draft.name!r} is created." if self.draft else "Cancelled. No skill was created."
        elif self.step == "confirm":
            assert self.draft is not None
            said = f"{_summary(self.answers, self.draft)}\n\n{PROMPTS['confirm']}"
        else:
            said = PROMPTS[self.step]
        return f"{self.notice}\n\n{said}" if self.notice else said


@dataclass(frozen=True)
class Outcome:
    """
    The next dialogue, and what it asks of the caller.

    ``ask`` shows ``dialogue.prompt`` and waits for an answer; ``create`` writes ``dialogue.draft`` to disk, then
    calls :func:`finish` or :func:`reopen`; ``cancelled`` forgets the dialogue.
    """

    dialogue: Dialogue
    action: Literal["ask", "create", "cancelled"] = "ask"


def start(initial_input: str | None = None) -> Dialogue:
    """
    Begin a dialogue.

    Args:
        initial_input: The request that called the factory. A trigger phrase at its start is taken off ("teach you
            to ..."); what remains is the goal, and the dialogue begins at ``trigger``. Nothing left begins at
            ``goal``. It is never a command: "cancel" would be a goal.
    """
    if not (initial_input or "").strip():
        return Dialogue()
    try:
        goal = strip_trigger(read_text(initial_input or ""))
        return Dialogue("trigger", Answers(goal=read_text(goal))) if goal else Dialogue()
    except AnswerRefused as refused:
        return Dialogue(notice=str(refused))


def answer(dialogue: Dialogue, text: str, *, taken: Callable[[str], bool]) -> Outcome:
    """
    Take the person's answer to the dialogue's prompt.

    Args:
        dialogue: Any but a ``done`` one.
        text: As it was typed.
        taken: Tells whether a skill of this name is there already.

    Returns:
        The same step with the reason as its notice, where the answer breaks a rule.
    """
    try:
        said = read_text(text)
        word = said.casefold().strip(" .!")
        if word == "cancel":
            return Outcome(Dialogue("done", dialogue.answers), "cancelled")
        if word == "back":
            return Outcome(_back(dialogue))
        if dialogue.step == "confirm":
            return _confirm(dialogue, said, taken)
        return Outcome(_advance(_record(dialogue, said), taken))
    except AnswerRefused as refused:
        return Outcome(replace(dialogue, notice=str(refused)))


def finish(dialogue: Dialogue) -> Dialogue:
    """Return the dialogue after its draft was created."""
    return replace(dialogue, step="done", notice="")


def reopen(dialogue: Dialogue, reason: str, *, taken: Callable[[str], bool]) -> Dialogue:
    """Return the dialogue at ``confirm`` after its draft could not be created, with a name that is not taken."""
    reopened = _advance(dialogue.answers, taken)
    assert dialogue.draft is not None and reopened.draft is not None
    if reopened.draft.name != dialogue.draft.name:
        reason += f" The skill is called {reopened.draft.name!r} now."
    return replace(reopened, notice=reason)


def _record(dialogue: Dialogue, said: str) -> Answers:
    """Return the answers with the one that the step asked for."""
    answers = dialogue.answers
    match dialogue.step:
        case "goal":
            return replace(answers, goal=said)
        case "trigger":
            return replace(answers, triggers=read_triggers(said))
        case "example":
            return replace(answers, example=read_example(said))
        case "complexity":
            return replace(answers, complexity=read_complexity(said))
        case "edge_cases":
            return replace(answers, edge_cases=said)
        case step:
            raise ValueError(f"step {step} takes no answer")


def _advance(answers: Answers, taken: Callable[[str], bool]) -> Dialogue:
    """Return the dialogue at the first question without an answer, or at ``confirm``."""
    given = {
        "goal": answers.goal,
        "trigger": answers.triggers,
        "example": answers.example.text,
        "complexity": answers.complexity,
        "edge_cases": answers.edge_cases,
    }
    step = next(step for step in STEPS if not given.get(step))
    return Dialogue(step, answers, draft=make_draft(answers, taken=taken) if step == "confirm" else None)


def _back(dialogue: Dialogue) -> Dialogue:
    if dialogue.step == "goal":
        raise AnswerRefused("There is no step before this one.")
    return Dialogue(STEPS[STEPS.index(dialogue.step) - 1], dialogue.answers)


_NAME = re.compile(r"name\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)


def _confirm(dialogue: Dialogue, said: str, taken: Callable[[str], bool]) -> Outcome:
    """Take the answer to ``confirm``."""
    if renamed := _NAME.fullmatch(said):
        name = _check_name(renamed[1].strip(" \"'`“”‘’."), taken)
        return Outcome(_advance(replace(dialogue.answers, name=name), taken))
    if is_yes(said):
        return Outcome(replace(dialogue, notice=""), "create")
    if question := question_named(said):
        return Outcome(Dialogue(question, dialogue.answers))
    if is_no(said):
        return Outcome(replace(dialogue, notice=f"What should I change? {_CHOICES}"))
    raise AnswerRefused(f"I did not understand that. {_CHOICES}")


def _check_name(name: str, taken: Callable[[str], bool]) -> str:
    problem = name_problem(name) or ("a skill of this name exists already" if taken(name) else None)
    if problem is None:
        return name
    suggestion = suggest_name(name)
    hint = f" Try 'name: {suggestion}'." if suggestion not in ("", name) and not taken(suggestion) else ""
    raise AnswerRefused(f"The skill cannot be called {quote(name)}: {problem}.{hint}")


def _summary(answers: Answers, draft: Draft) -> str:
    example = answers.example
    if example.is_split:
        examples = [("Example input", example.input), ("Example output", example.output)]
    else:
        examples = [("Example", example.text)]
    rows = [
        ("Name", draft.name),
        ("Goal", answers.goal),
        ("Triggers", "; ".join(answers.triggers)),
        *examples,
        ("Complexity", f"{answers.complexity}"),
        ("If something is missing or goes wrong", answers.edge_cases),
    ]
    return "\n".join(["This is the skill:", "", *(f"{label}: {_cut(value)}" for label, value in rows)])


def _cut(text: str) -> str:
    """Return a value for the summary: cut if long, its further lines indented."""
    cut = text if len(text) <= _SUMMARY_LIMIT_CHARS else f"{text[: _SUMMARY_LIMIT_CHARS - 1]}…"
    return re.sub(r"\n(?!\n)", "\n  ", cut)
