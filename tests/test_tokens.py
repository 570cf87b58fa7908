"""Terms of any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.skills.tokens import TERMS, stem, term_set, tokenise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("How to use the skills", []),
        ("Fill PDF forms", ["fill", "pdf", "form"]),
        ("pdf-forms_fast", ["pdf", "form", "fast"]),
        ("c++ and C# code", ["c++", "c#", "cod"]),
        ("FastAPI", ["fastap", "fast", "api"]),
        ("caf\u00e9 Stra\u00dfe", ["caf", "strass"]),
        ("\uff26\uff49\uff4c\uff4c", ["fill"]),
        ("\u65e5\u672c\u8a9e", ["\u65e5\u672c", "\u672c\u8a9e"]),
        ("\u8a9e", ["\u8a9e"]),
        ("\u65e5\u672cAPI", ["\u65e5\u672c", "api"]),
        ("\u043c\u0438\u0440\u0443 \u043c\u0438\u0440", ["\u043c\u0438\u0440\u0443", "\u043c\u0438\u0440"]),
        ("\U0001f600 !? \"' :()", []),
        ("\ud800x\udfff", ["x"]),
        ("a" * 65, []),
        ("\0nul\0", ["nul"]),
    ],
)  # fmt: skip
def test_terms_of_a_text(text: str, expected: list[str]) -> None:
    """Words are lower-cased, cut to stems, without stop words; unspaced scripts become pairs."""
    assert tokenise(text) == expected
    assert term_set(text) == set(expected)


@pytest.mark.parametrize(
    "forms",
    [
        "test tests tested testing",
        "query queries",
        "deploy deploys deployed deploying",
        "run runs running",
        "class classes",
        "box boxes",
        "cache caches cached caching",
        "image images",
    ],
)
def test_forms_of_a_word_share_a_stem(forms: str) -> None:
    """Plural, -ed and -ing make no difference."""
    assert len({stem(form) for form in forms.split()}) == 1


@pytest.mark.parametrize("word", ["bus", "status", "string", "need", "css", "analysis", "k8s", "red", "sing"])
def test_what_only_looks_like_a_form_is_left(word: str) -> None:
    """A short word keeps its ending, and what ends like a form need not be one."""
    assert stem(word).startswith(word[:3])
    assert len(stem(word)) >= 3


@given(st.text())
def test_any_text_has_terms(text: str) -> None:
    """No text is an error, and a term is never empty."""
    assert all(tokenise(text))


def test_words_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of words is bounded, and what is forgotten comes out the same again."""
    monkeypatch.setattr("skilld.skills.tokens._MEMORY_WORDS", 10)
    TERMS.clear()
    words = [f"word{number}" for number in range(100)]
    assert [TERMS[word] for word in words] == [(word,) for word in words]
    assert len(TERMS) <= 10
    assert [TERMS[word] for word in words] == [(word,) for word in words]
