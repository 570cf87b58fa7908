"""The six-step dialogue."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.factory.answers import Answers, Example
from skilld.factory.dialogue import (
    PROMPTS,
    STEPS,
    Dialogue,
    Outcome,
    Step,
    answer,
    check_triggers,
    finish,
    reopen,
    start,
)

GIVEN = {
    "goal": "fill forms",
    "trigger": "form, paperwork",
    "example": "Input: a name Output: a form",
    "complexity": "simple",
    "edge_cases": "ask me",
}
ANSWERS = Answers(
    "fill forms", ("form", "paperwork"), Example(GIVEN["example"], "a name", "a form"), "simple", "ask me"
)


def free(_: str) -> bool:
    return False


def say(dialogue: Dialogue, *texts: str) -> Dialogue:
    """Answer until the texts are used up; each must be a question's answer."""
    for text in texts:
        outcome = answer(dialogue, text, taken=free)
        assert outcome.action == "ask"
        dialogue = outcome.dialogue
    return dialogue


def at(step: Step) -> Dialogue:
    """The dialogue at a step, after good answers to all before it."""
    return say(start(), *list(GIVEN.values())[: STEPS.index(step)])


def test_steps_and_prompts_come_in_order() -> None:
    """Six steps, the prompts word for word, and a summary before the last."""
    seen = [at(step) for step in STEPS[:-1]]
    assert [dialogue.step for dialogue in seen] == list(STEPS[:-1])
    assert [dialogue.prompt for dialogue in seen[:-1]] == [
        "What task do you want me to help with? Give me the high-level goal.",
        "When should I use this skill? What words or situations should activate it?",
        "Walk me through a real example. What would you give me as input, and what should I produce?",
        "Is this a simple skill (text instructions only) or complex (needs scripts, templates)?",
        "What should I do if something's missing or goes wrong?",
    ]
    assert seen[-1].answers == ANSWERS
    assert (
        seen[-1].prompt
        == """\
This is the skill:

Name: fill-forms
Goal: fill forms
Triggers: form; paperwork
Example input: a name
Example output: a form
Complexity: simple
If something is missing or goes wrong: ask me

Does this capture what you want? Say 'yes' to create."""
    )


def test_summary_cuts_long_answers_and_indents_lines() -> None:
    """The summary stays readable; the draft has everything."""
    dialogue = say(at("example"), "one\ntwo\n\nthree\n\nfour", "complex", "x" * 10_000)
    assert "\nExample: one\n  two\n\n  three\n\n  four\nComplexity: complex\n" in dialogue.prompt
    assert "x" * 499 + "…\n" in dialogue.prompt
    assert dialogue.draft is not None
    assert "x" * 10_000 in dialogue.draft.body


@pytest.mark.parametrize(
    ("initial_input", "step", "goal"),
    [
        (None, "goal", ""),
        ("", "goal", ""),
        ("  \n", "goal", ""),
        ("teach me", "goal", ""),
        ("Create a skill!", "goal", ""),
        ("teach you to fill forms", "trigger", "fill forms"),
        ("I want to teach you how to fill forms", "trigger", "fill forms"),
        ("fill forms", "trigger", "fill forms"),
        ("cancel", "trigger", "cancel"),
        ("yes, teach me", "trigger", "yes, teach me"),
    ],
)
def test_initial_input_is_the_goal(initial_input: str | None, step: Step, goal: str) -> None:
    """A trigger phrase at the start is taken off; what remains is the goal, and nothing left asks for it."""
    dialogue = start(initial_input)
    assert (dialogue.step, dialogue.answers, dialogue.prompt) == (step, Answers(goal=goal), PROMPTS[step])


def test_bad_initial_input_is_refused_with_the_reason() -> None:
    """An initial input that breaks a rule asks for the goal, the reason first."""
    dialogue = start("teach you \0")
    assert dialogue.step == "goal"
    assert dialogue.prompt.startswith("The answer holds the control character U+0000")
    assert dialogue.prompt.endswith("\n\n" + PROMPTS["goal"])


@pytest.mark.parametrize(
    ("step", "text", "reason"),
    [
        *((step, " ", "The answer is empty.") for step in STEPS[:-1]),
        *((step, "x" * 20_000, "The answer is 20,000 bytes long and at most 16,384 fit") for step in STEPS[:-1]),
        *((step, "a\x07b", "The answer holds the control character U+0007") for step in STEPS[:-1]),
        ("goal", "back", "There is no step before this one."),
        ("trigger", ", ;", "The answer names no word or situation."),
        ("complexity", "hm", "I could not tell whether that means simple or complex"),
        ("complexity", "simple or complex", "That sounds both simple and complex to me"),
        ("confirm", "hm", "I did not understand that. Say 'yes' to create the skill"),
        (
            "confirm",
            "name: Fill Forms",
            "The skill cannot be called 'Fill Forms': name 'Fill Forms' must be lower case",
        ),
        ("confirm", "name:", "The skill cannot be called '': name is empty."),
        ("confirm", "name: search", "The skill cannot be called 'search': skilld itself uses this word."),
    ],
)
def test_answer_that_breaks_a_rule_is_refused(step: Step, text: str, reason: str) -> None:
    """The step and the answers stand; the prompt gives the reason, then itself word for word."""
    before = at(step)
    outcome = answer(before, text, taken=free)
    assert outcome == Outcome(replace(before, notice=outcome.dialogue.notice))
    assert outcome.dialogue.prompt.startswith(reason)
    assert outcome.dialogue.prompt == f"{outcome.dialogue.notice}\n\n{before.prompt}"


def test_reason_is_said_once() -> None:
    """The next good answer leaves the reason behind."""
    dialogue = answer(at("complexity"), "hm", taken=free).dialogue
    assert say(dialogue, "simple").prompt == PROMPTS["edge_cases"]


@pytest.mark.parametrize(
    "text",
    [
        "yes", "Yes!", "y", "yep", "ok", "OK.", "sure", "correct", "looks good", "Looks good to me, thanks!", "lgtm",
        "yes please", "yes, create it", "go ahead", "do it", "it does", "create the skill", "perfect", "that's right",
        "confirm", "👍", "go",
    ],
)  # fmt: skip
def test_yes_creates_what_the_preview_showed(text: str) -> None:
    """A yes, in any words, asks for the creation of the draft at hand."""
    dialogue = at("confirm")
    assert answer(dialogue, text, taken=free) == Outcome(dialogue, "create")


@pytest.mark.parametrize(
    "text",
    [
        "yes, but change the goal to invoices", "yes?", "not yet", "what does this do", "is it right?", "please",
        "yes or no", "don't create it", "yesterday", "ok stop", "not good",
    ],
)  # fmt: skip
def test_what_is_not_a_plain_yes_creates_nothing(text: str) -> None:
    """Doubts, questions and conditions stay at confirm."""
    outcome = answer(at("confirm"), text, taken=free)
    assert (outcome.action, outcome.dialogue.step) == ("ask", "confirm")
    assert outcome.dialogue.notice


@pytest.mark.parametrize("text", ["no", "No.", "nope", "not quite", "that's wrong", "wait"])
def test_no_asks_what_to_change(text: str) -> None:
    """A no keeps all answers and tells how to change them."""
    outcome = answer(at("confirm"), text, taken=free)
    assert (outcome.action, outcome.dialogue.step) == ("ask", "confirm")
    assert outcome.dialogue.notice.startswith("What should I change? Say 'yes'")
    assert outcome.dialogue.prompt.endswith(PROMPTS["confirm"])


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("goal", "goal"),
        ("Trigger", "trigger"),
        ("triggers", "trigger"),
        ("example", "example"),
        ("complexity", "complexity"),
        ("edge_cases", "edge_cases"),
        ("edge cases", "edge_cases"),
        ("no, change the goal", "goal"),
        ("go back to the example, please", "example"),
        ("the triggers are wrong", "trigger"),
        ("back", "edge_cases"),
    ],
)
def test_step_name_goes_back_to_it(text: str, step: Step) -> None:
    """The prompt of that step is asked again, and the other answers stay."""
    dialogue = say(at("confirm"), text)
    assert dialogue == Dialogue(step, ANSWERS)
    assert dialogue.prompt == PROMPTS[step]


def test_changed_answer_leads_straight_back_to_confirm() -> None:
    """After a change nothing is asked twice."""
    dialogue = say(at("confirm"), "goal", "sign letters")
    assert dialogue.step == "confirm"
    assert dialogue.answers == replace(ANSWERS, goal="sign letters")
    assert dialogue.draft is not None
    assert dialogue.draft.name == "sign-letters"


def test_back_goes_one_step_back() -> None:
    """The answer given there is replaced, and the dialogue goes on where it was."""
    dialogue = say(at("example"), "back")
    assert (dialogue.step, dialogue.prompt) == ("trigger", PROMPTS["trigger"])
    dialogue = say(dialogue, "letter")
    assert (dialogue.step, dialogue.answers.triggers) == ("example", ("letter",))


@pytest.mark.parametrize("text", ["name: my-forms", "Name : my-forms", "name: 'my-forms'.", "NAME:`my-forms`"])
def test_name_renames(text: str) -> None:
    """The chosen name is the draft's, and outlives a change of the goal."""
    dialogue = say(at("confirm"), text)
    assert dialogue.draft is not None
    assert (dialogue.step, dialogue.draft.name, dialogue.notice) == ("confirm", "my-forms", "")
    dialogue = say(dialogue, "goal", "sign letters")
    assert dialogue.draft is not None
    assert dialogue.draft.name == "my-forms"


def test_refused_name_comes_with_a_suggestion() -> None:
    """The nearest valid name is offered if it is free."""
    outcome = answer(at("confirm"), "name: My Forms", taken=free)
    assert outcome.dialogue.notice.endswith("Try 'name: my-forms'.")
    outcome = answer(at("confirm"), "name: My Forms", taken={"my-forms"}.__contains__)
    assert "Try" not in outcome.dialogue.notice


def test_taken_name_is_refused() -> None:
    """A name that another skill bears is refused, and the draft keeps its own."""
    outcome = answer(at("confirm"), "name: my-forms", taken={"my-forms"}.__contains__)
    assert outcome.dialogue.notice == "The skill cannot be called 'my-forms': a skill of this name exists already."
    assert outcome.dialogue.draft == at("confirm").draft


@pytest.mark.parametrize("step", STEPS[:-1])
@pytest.mark.parametrize("text", ["cancel", " Cancel. ", "CANCEL!"])
def test_cancel_ends_the_dialogue_at_any_step(step: Step, text: str) -> None:
    """The word alone ends it, and nothing is created."""
    outcome = answer(at(step), text, taken=free)
    assert (outcome.action, outcome.dialogue.step, outcome.dialogue.draft) == ("cancelled", "done", None)
    assert outcome.dialogue.prompt == "Cancelled. No skill was created."


def test_answers_may_contain_cancel() -> None:
    """Only an answer that is the word alone is the command."""
    dialogue = say(
        start(), "cancel unpaid orders", '"cancel", cancel it, back', "I say cancel → it is cancelled", "simple"
    )
    assert dialogue.answers.goal == "cancel unpaid orders"
    assert dialogue.answers.triggers == ("cancel", "cancel it", "back")
    assert dialogue.step == "edge_cases"


def test_finished_dialogue_names_the_skill() -> None:
    """After the creation the prompt says what was made."""
    dialogue = finish(at("confirm"))
    assert (dialogue.step, dialogue.prompt) == ("done", "The skill 'fill-forms' is created.")


def test_reopened_dialogue_keeps_the_answers_and_says_why() -> None:
    """A creation that failed comes back to confirm, under another name if the first is taken by now."""
    dialogue = reopen(at("confirm"), "The disk is full.", taken=free)
    assert dialogue == replace(at("confirm"), notice="The disk is full.")
    dialogue = reopen(at("confirm"), "Taken.", taken={"fill-forms"}.__contains__)
    assert dialogue.notice == "Taken. The skill is called 'fill-forms-2' now."
    assert dialogue.draft is not None
    assert (dialogue.draft.name, dialogue.answers) == ("fill-forms-2", ANSWERS)


def test_check_triggers_is_at_hand() -> None:
    """The dialogue's module answers ``factory.check`` too."""
    assert check_triggers("Teach me this") == ("teach me",)


@given(st.lists(st.text() | st.sampled_from([*GIVEN.values(), "yes", "no", "back", "goal", "cancel", "name: a"])))
def test_any_conversation_stays_in_order(texts: list[str]) -> None:
    """Whatever is said, the step is one of the six, what comes before it is answered, and confirm has a draft."""
    dialogue = start()
    for text in texts:
        outcome = answer(dialogue, text, taken=free)
        if outcome.action == "cancelled":
            break
        dialogue = outcome.dialogue
        assert dialogue.step in STEPS[:-1]
        assert (dialogue.draft is not None) == (dialogue.step == "confirm")
        assert dialogue.prompt.endswith(PROMPTS[dialogue.step])
