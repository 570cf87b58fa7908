"""Names of new skills."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.factory.naming import make_name, make_title, name_problem, suggest_name


def free(_: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("goal", "name"),
    [
        ("create monthly invoices from time sheets", "create-monthly-invoices"),
        ("Please convert a PDF into plain text", "convert-pdf-plain-text"),
        ("I want you to summarise my meeting notes", "summarise-meeting-notes"),
        ("Review pull requests for security problems, then comment", "review-pull-requests"),
        ("Invoices", "invoices"),
        ("Rédiger un résumé", "rediger-un-resume"),
        ("Straße für Ærø und Łódź", "strasse-fur-aero-und"),
        ("Создать отчёт о продажах", "sozdat-otchet-o-prodazhakh"),
        ("Μετάφραση εγγράφων", "metafrasi-eggrafon"),
        ("把工时表整理成发票", "把工时表整理成发票"),
        ("请求书を作る。毎月", "请求书を作る-毎月"),
        ("إنشاء فاتورة", "إنشاء-فاتورة"),
        ("client's C++ code, v3.11", "clients-c-code-v3"),
        ("search", "search-skill"),
        ("Venv!", "venv-skill"),
        ("do it", "do-it"),
        ("a b_c-d", "b-c-d"),
        ("--- 🎉 ---", "trigger"),
        ("ที่อยู่", "trigger"),
        ("x" * 200, "x" * 56),
        ("alpha " + "b" * 60, "alpha"),
    ],
)
def test_name_is_made_from_the_goal(goal: str, name: str) -> None:
    """Verb and noun, no stop words, in ASCII where the script has a usual spelling; else a trigger names it."""
    assert make_name(goal, ("some trigger",), "", taken=free) == name
    assert name_problem(name) is None


def test_name_of_last_resort_is_valid() -> None:
    """Where neither goal nor trigger has a letter, the name is a fixed one."""
    assert make_name("---", ("***", "…"), "", taken=free) == "custom-skill"


def test_chosen_name_comes_first() -> None:
    """The name that the person chose beats the goal's."""
    assert make_name("fill forms", ("form",), "my-forms", taken=free) == "my-forms"


@pytest.mark.parametrize(
    ("taken", "name"),
    [
        ({"fill-forms"}, "fill-forms-2"),
        ({"fill-forms", "fill-forms-2", "fill-forms-3"}, "fill-forms-4"),
    ],
)
def test_name_is_unique(taken: set[str], name: str) -> None:
    """A taken name gets the first free number."""
    assert make_name("fill forms", (), "", taken=taken.__contains__) == name


def test_numbered_name_stays_within_the_limit() -> None:
    """The number of a long name replaces its end."""
    chosen = "y" * 64
    assert make_name("", (), chosen, taken={chosen}.__contains__) == "y" * 56 + "-2"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty"),
        ("a" * 65, "65 characters"),
        ("𠀀" * 64, "255 bytes"),
        ("Fill", "lower case"),
        ("fill forms", "letters, digits and hyphens"),
        ("fill_forms", "letters, digits and hyphens"),
        ("-fill", "hyphen"),
        ("fill-", "hyphen"),
        ("fill--forms", "hyphen"),
        ("../fill", "letters, digits and hyphens"),
        ("\ufb01ll", "NFKC"),
        (" fill", "NFKC"),
        ("prompt", "skilld itself"),
        ("attest", "skilld itself"),
        ("node_modules", "letters, digits and hyphens"),
        ("venv", "never searched"),
    ],
)
def test_name_problem_names_the_rule(name: str, problem: str) -> None:
    """A name that breaks a rule of the specification, or would hide a route or the skill, is refused."""
    assert problem in (name_problem(name) or "")


@pytest.mark.parametrize(
    ("text", "name"), [("Fill Forms", "fill-forms"), ("Große Liste!", "grosse-liste"), ("---", ""), ("Search", "")]
)
def test_suggestion_is_a_valid_name_or_nothing(text: str, name: str) -> None:
    """A refused name is answered with the nearest valid one."""
    assert suggest_name(text) == name


@pytest.mark.parametrize(
    ("name", "goal", "title"),
    [
        ("fill-forms", "fill forms", "Fill forms"),
        ("convert-pdf-text", "Convert PDF to text", "Convert PDF text"),
        ("2026", "2026", "2026"),
    ],
)
def test_title_is_the_name_in_words(name: str, goal: str, title: str) -> None:
    """The title has a capital, and the acronyms of the goal."""
    assert make_title(name, goal) == title


@given(st.text(), st.lists(st.text(), max_size=3), st.sets(st.sampled_from(["custom-skill", "0", "a"])))
def test_any_goal_gives_a_valid_name(goal: str, triggers: list[str], taken: set[str]) -> None:
    """Whatever the goal, the name is valid and not taken."""
    name = make_name(goal, tuple(triggers), "", taken=taken.__contains__)
    assert name_problem(name) is None
    assert name not in taken
