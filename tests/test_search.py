"""The search index: ranking, updates, and that no text is an error."""

from __future__ import annotations

import importlib.util
import json
import marshal
import math
import os
import random
from array import array
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.skills import ranking
from skilld.skills.frontmatter import parse_skill_md
from skilld.skills.lenient_yaml import FrontmatterError
from skilld.skills.search import Document, Index, prepare, tags_of

JAPANESE = "\u65e5\u672c\u8a9e\u306e\u6587\u66f8\u3092\u7ffb\u8a33\u3059\u308b\u3002"
RUSSIAN = "\u041f\u0440\u0438\u0432\u0435\u0442\u0441\u0442\u0432\u0438\u0435 \u043c\u0438\u0440\u0430."

LIBRARY = [
    Document("pdf", "pdf", "Fill in PDF forms and merge files. Use for documents.", (), "Use pypdf.\n\nquokka"),
    Document("excel", "excel", "Read and write spreadsheets.", ("xlsx", "table"), "Use openpyxl with PDF output."),
    Document("team-a/deploy", "deploy", "Deploy a service to kubernetes.", (), "kubectl apply"),
    Document("team-b/deploy", "deploy", "Roll out a site.", (), "rsync"),
    Document("c-review", "c-review", "Review C++ and C# code.", (), "Look for leaks."),
    Document("translate", "translate", JAPANESE, (), ""),
    Document("privet", "privet", RUSSIAN, (), ""),
    Document("odd", "Code Review", "Look at changes.", (), ""),
]

HAS_NUMPY = importlib.util.find_spec("numpy") is not None
RANKS = [pytest.param(ranking.rank_plain, id="plain")]
if HAS_NUMPY:
    RANKS.append(pytest.param(ranking.rank_fast, id="fast"))


def index_of(documents: Iterable[Document]) -> Index:
    index = Index()
    for document in documents:
        index.add(prepare(document))
    return index


def ids(index: Index, query: str, limit: int = 10) -> list[str]:
    return [hit.id for hit in index.search(query, limit).hits]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("pdf", "pdf"),
        ("merge my documents", "pdf"),
        ("filling in a form", "pdf"),
        ("xlsx", "excel"),
        ("team-b/deploy", "team-b/deploy"),
        ("  team-a/deploy ", "team-a/deploy"),
        ("kuberntes", "team-a/deploy"),
        ("spreadshet", "excel"),
        ("c++", "c-review"),
        ("code review", "odd"),
        ("CodeReview", "odd"),
        ("\u7ffb\u8a33", "translate"),
        ("\u043c\u0438\u0440\u0430", "privet"),
        ("quokka", "pdf"),
        ('what: "is" (the) pdf* AND -form OR', "pdf"),
        ("\0pdf\ud800 \U0001f600", "pdf"),
    ],
)
def test_the_right_skill_comes_first(query: str, first: str) -> None:
    """Words, names, ids, typos, other scripts and syntax that is none."""
    assert ids(index_of(LIBRARY), query)[0] == first


@pytest.mark.parametrize("query", ["", " ", "the of and", "zzzzqq", "\U0001f600", "'\"():*"])
def test_nothing_to_find(query: str) -> None:
    """A query without a known term finds nothing and is no error."""
    results = index_of(LIBRARY).search(query, 10)
    assert (results.hits, results.total) == ((), 0)


def test_a_name_that_several_bear() -> None:
    """All of them come first, in the order of their ids where nothing else tells them apart."""
    assert ids(index_of(LIBRARY), "deploy")[:2] == ["team-a/deploy", "team-b/deploy"]


def test_hits_say_why() -> None:
    """A hit has a score and a marked passage; one that matches in the body alone says that it shows no match."""
    index = index_of([*LIBRARY, Document("deep", "deep", "Something else.", (), "word " * 200 + "quokkas")])
    hits = index.search("quokka", 10).hits
    assert [(hit.id, hit.snippet, hit.marked) for hit in hits] == [
        ("pdf", "Use pypdf. [quokka]", True),
        ("deep", "Something else.", False),
    ]
    assert hits[0].score > hits[1].score > 0


def test_total_counts_every_match() -> None:
    """The limit cuts the hits, not the total."""
    results = index_of(LIBRARY).search("pdf", 1)
    assert ([hit.id for hit in results.hits], results.total) == (["pdf"], 2)


def test_a_change_is_found_at_once_and_its_past_is_not() -> None:
    """An updated skill is found by its new words only, a removed one not at all."""
    index = index_of(LIBRARY)
    index.add(prepare(Document("pdf", "pdf", "Paint pictures.", (), "")))
    assert (ids(index, "merge"), ids(index, "paint")) == ([], ["pdf"])
    index.remove("pdf")
    index.remove("never there")
    assert ids(index, "paint") == []
    assert len(index) == len(LIBRARY) - 1


def test_tags_are_collected_wherever_authors_put_them() -> None:
    """Tags may be text, lists or maps, at the top or in metadata."""
    assert tags_of(
        {"tags": ["a", "b"], "category": "c", "metadata": {"keywords": "d", "triggers": {"x": ["e"]}}, "other": "no"}
    ) == ("a", "b", "c", "d", "e")


WORDS = ["pdf", "form", "merge", "deploy", "python", "kubernetes", "table", "\u65e5\u672c\u8a9e", "review", "c++"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
DOCUMENTS = st.builds(
    Document,
    st.sampled_from(["a", "b", "c/d", "e"]),
    st.sampled_from(WORDS),
    TEXTS,
    st.lists(st.sampled_from(WORDS), max_size=2).map(tuple),
    TEXTS,
)


@given(st.lists(DOCUMENTS | st.sampled_from(["a", "b", "c/d", "e"]), max_size=20), TEXTS)
def test_the_way_to_a_library_does_not_matter(steps: list[Document | str], query: str) -> None:
    """After any updates and removals the index answers like one that was made of what is left."""
    index = Index()
    left: dict[str, Document] = {}
    for step in steps:
        if isinstance(step, str):
            index.remove(step)
            left.pop(step, None)
        else:
            index.add(prepare(step))
            left[step.id] = step
    fresh = index_of(sorted(left.values(), key=lambda document: document.id))
    assert index.search(query, 3) == fresh.search(query, 3)
    assert (len(index), index.bytes_used) == (len(fresh), fresh.bytes_used)


def test_a_dump_stays_as_it_is_while_the_index_changes() -> None:
    """What is written to disk later is the index of the moment of the dump."""
    index = index_of(LIBRARY)
    state = index.dump()
    # Version 2 writes equal values as equal bytes, whoever else holds them.
    before = marshal.dumps(state, 2)
    index.remove("pdf")
    index.add(prepare(Document("excel", "other", "Something else altogether.", (), "new words")))
    assert marshal.dumps(state, 2) == before


def test_endless_updates_need_no_memory() -> None:
    """Terms and slots of what is gone are used again."""
    index = index_of(LIBRARY)
    before = index.bytes_used
    for number in range(300):
        index.add(prepare(Document("new", f"name{number}", f"word{number}", (), f"body{number}")))
    index.remove("new")
    assert index.bytes_used == before
    assert len(index._names) <= 100
    assert len(index._documents) == len(LIBRARY) + 1


@given(st.text(max_size=200) | st.text("\"'()*:^~+-&|!{}[]\\ ", max_size=30))
def test_any_text_is_a_query(query: str) -> None:
    """No text is a syntax error."""
    index = index_of(LIBRARY)
    assert index.search(query, 10) == index.search(query, 10)


def test_a_long_log_is_a_query() -> None:
    """Ten kilobytes of pasted log find what they are about."""
    log = "\n".join(
        f"2026-11-27T17:00:{n:02} ERROR kubernetes pod/{n:x} \u2014 Back-off: <restarting> failed" for n in range(150)
    )
    assert len(log) > 10_000
    assert ids(index_of(LIBRARY), log)[0] == "team-a/deploy"


@pytest.mark.skipif(not HAS_NUMPY, reason="numpy is not installed: there is one way to rank only")
def test_both_ways_to_rank_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """With numpy and without, hits and scores are the same to the last bit."""
    chance = random.Random(1)
    words = [f"word{number}" for number in range(300)]
    index = index_of(
        Document(
            f"s{n:04}",
            chance.choice(words),
            " ".join(chance.choices(words, k=20)),
            (),
            " ".join(chance.choices(words, k=80)),
        )
        for n in range(1_500)
    )
    answers = []
    for rank in (ranking.rank_plain, ranking.rank_fast):
        monkeypatch.setattr("skilld.skills.search.rank", rank)
        answers.append(
            [
                index.search(" ".join(chance.choices(words, k=5)), limit)
                for chance in map(random.Random, range(50))
                for limit in (1, 10, 100)
            ]
        )
    assert answers[0] == answers[1]


@pytest.mark.parametrize("rank", RANKS)
def test_equal_scores_are_all_returned(rank: object) -> None:
    """The caller breaks ties by id, so everything as good as the last one must be among the best."""
    postings = array("I", [slot << 8 | 7 for slot in range(40)])
    best, total = rank([(1.0, postings), (1.0, 3 << 8 | 1)], {}, 50, 5)  # type: ignore[operator]
    assert total == 40
    assert sorted(best) == [(slot, 8.0 if slot == 3 else 7.0) for slot in range(40)]


def test_graded_queries_on_real_skills() -> None:
    """On the reference corpus nDCG@10 is at least 0.76."""
    place = os.environ.get("SKILLD_CORPUS")
    if not place:
        pytest.skip("reference data not present")
    index = Index()
    for directory in sorted((Path(place) / "skills").iterdir()):
        for name in ("SKILL.md", "skill.md"):
            if (directory / name).exists():
                try:
                    text = parse_skill_md((directory / name).read_bytes(), directory.name)
                except FrontmatterError:
                    break
                tags = tags_of(text.frontmatter)
                index.add(
                    prepare(Document(directory.name, text.name or directory.name, text.description, tags, text.body))
                )
                break
    queries = [json.loads(line) for line in (Path(place) / "queries.dev.jsonl").read_text().splitlines()]

    def gain(grades: Iterable[int]) -> float:
        return math.fsum((2**grade - 1) / math.log2(rank + 2) for rank, grade in enumerate(grades))

    scores = []
    for query in queries:
        relevant: dict[str, int] = query["relevant"]
        found = gain(relevant.get(id, 0) for id in ids(index, query["query"]))
        scores.append(found / gain(sorted(relevant.values(), reverse=True)[:10]))
    assert sum(scores) / len(scores) >= 0.76
