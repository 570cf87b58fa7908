"""
The search index: which skills a text asks for, best first.

A skill's score is the sum, over the query's terms, of how telling the term is (its idf) times how much of the skill is
about it. The latter, the term's impact, is computed once when a skill is indexed: BM25F over name, description, tags
and the body's introduction, which saturates, so that one field that says it all is enough; a term of the body alone
has a small impact. Exact ids and names come first. A word that no skill knows counts for the nearest words of names
and descriptions.

Average lengths are constants, not counted, so that indexing one skill never changes another's impacts, and the order
in which skills come does not matter.

Owns: nothing that outlives a call but the :class:`Index`, which is its caller's. Not thread-safe, except
:func:`prepare`, which is pure.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009. The constants were
measured on 19,215 real skills, keeping what helped both halves of 110 graded queries; around each is a plateau.
"""

from __future__ import annotations

import heapq
import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

from skilld.skills.ranking import SLOT_SHIFT, rank
from skilld.skills.snippet import beginning, snippet
from skilld.skills.spelling import Spelling
from skilld.skills.tokens import TERMS, WORD, term_set, tokenise

__all__ = ["Document", "Hit", "Index", "Prepared", "Results", "prepare", "snippet", "tags_of"]

# Raise it whenever prepare() gives other results for the same document: what is cached is then made anew.
PREPARED_VERSION = 3

# Per field: weight, and the average number of terms in it.
NAME, DESCRIPTION, TAGS, INTRO = (2.0, 2.6), (1.5, 22.0), (0.75, 1.5), (0.4, 55.0)
BODY_IMPACT, BODY_LENGTH = 0.2, 330.0
SATURATION = 0.7
LENGTH_SHARE = 0.75
IDF_POWER = 0.75

INTRO_CHARS = 600
# What a body is about stands at its beginning. Bytes of UTF-8, for a Chinese character says as much as some letters.
BODY_BYTES = 4_000
TAG_FIELDS = ("tags", "keywords", "triggers", "category", "domain", "when_to_use")

# A query is cut to so many words, and to its most telling terms: pasted logs repeat themselves.
QUERY_CHARS = 20_000
QUERY_WORDS = 400
QUERY_TERMS = 64
# Only a short query is worth guessing at.
SPELLING_TERMS = 24

# The number of a term that no document has yet.
_NEW = 2**32 - 1

# A longer query is no name.
EXACT_CHARS = 200


@dataclass(frozen=True, slots=True)
class Document:
    """What search knows of a skill; ``tags`` come from :func:`tags_of`, ``body`` is the Markdown."""

    id: str
    name: str
    description: str
    tags: tuple[str, ...]
    body: str


class Prepared(NamedTuple):
    """
    A document ready to be indexed; plain values only.

    ``terms`` are distinct, with ``impacts`` (1 to 255, a byte each) in the same order; the first ``head_count`` of
    them occur in name, description or tags. ``description`` and ``intro`` are for snippets.
    """

    id: str
    name: str
    description: str
    intro: str
    terms: tuple[str, ...]
    impacts: bytes
    head_count: int


@dataclass(frozen=True, slots=True)
class Hit:
    """
    One skill that was found. ``score`` is comparable within one query; higher is better. ``snippet`` is plain text on
    one line; ``marked`` says whether it shows a match, which then stands between ``[`` and ``]``.
    """

    id: str
    score: float
    snippet: str
    marked: bool


@dataclass(frozen=True, slots=True)
class Results:
    """The best hits, and how many skills match any term at all."""

    hits: tuple[Hit, ...]
    total: int


def tags_of(frontmatter: Mapping[str, Any]) -> tuple[str, ...]:
    """Collect the texts of the fields that authors use for search words, at the top and inside ``metadata``."""
    metadata = frontmatter.get("metadata")
    sources = [frontmatter, metadata if isinstance(metadata, Mapping) else {}]
    return tuple(text for source in sources for field in TAG_FIELDS for text in _texts(source.get(field)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _texts(child)


def prepare(document: Document) -> Prepared:
    """Do all the work that indexing a document needs: pure, and safe in any thread."""
    # Every other piece between the lines that begin with ``` is code, and says little of what a skill is for.
    text = " ".join(("\n" + document.body[: 4 * BODY_BYTES]).split("\n```")[::2])[:BODY_BYTES]
    if not text.isascii():
        text = text.encode(errors="ignore")[:BODY_BYTES].decode(errors="ignore")
    # At a space, lest half a word begins the rest.
    cut = text.rfind(" ", 0, INTRO_CHARS) + 1 if len(text) > INTRO_CHARS else len(text)
    intro, rest = text[: cut or INTRO_CHARS], text[cut or INTRO_CHARS :]
    about: dict[str, float] = {}
    head_count = 0
    for (weight, average), field in (
        (NAME, document.name),
        (DESCRIPTION, document.description),
        (TAGS, " ".join(document.tags)),
        (INTRO, intro),
    ):
        if weight == INTRO[0]:
            head_count = len(about)
        terms = tokenise(field)
        share = weight / (1 - LENGTH_SHARE + LENGTH_SHARE * len(terms) / average)
        for term, count in Counter(terms).items():
            about[term] = about.get(term, 0.0) + share * count
    # The last field was the introduction.
    in_body = term_set(rest.lower()).union(terms)
    body_impact = BODY_IMPACT / (1 - LENGTH_SHARE + LENGTH_SHARE * math.sqrt(len(in_body) / BODY_LENGTH))
    impacts = bytearray()
    for term, much in about.items():
        impact = much / (SATURATION + much)
        if impact < body_impact and term in in_body:
            impact = body_impact
        impacts.append(int(255 * impact + 0.5) or 1)
    only_body = in_body - about.keys()
    impacts += bytes((int(255 * body_impact + 0.5) or 1,)) * len(only_body)
    return Prepared(
        document.id,
        document.name,
        document.description,
        intro,
        (*about, *only_body),
        bytes(impacts),
        head_count,
    )


class Index:
    """
    Finds documents.

    A term's postings are sorted by slot, so that a document is taken out, put in or changed by edits in place; there
    is nothing to compact. A term of one document, as most are, is a bare int instead of an array.
    """

    def __init__(self) -> None:
        # Terms: number by term; by number the term and its postings.
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._postings: list[int | array[int]] = []
        self._free_numbers: list[int] = []
        # Documents: slot by id; by slot the document without its terms, and the numbers of its terms.
        self._slots: dict[str, int] = {}
        self._documents: list[Prepared | None] = []
        self._terms: list[array[int]] = []
        self._free_slots: list[int] = []
        # Documents by the letters and digits of their id, its last part and their name.
        self._by_key: dict[str, tuple[int, ...]] = {}
        self._spelling = Spelling()
        self._posting_count = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, id: str) -> bool:
        return id in self._slots

    @property
    def bytes_used(self) -> int:
        """Roughly how much memory the index takes, in bytes."""
        # Measured: what a posting, a term and a document with its texts cost with all that holds them.
        return 8 * self._posting_count + 220 * len(self._numbers) + 1_700 * len(self._slots)

    def add(self, prepared: Prepared) -> None:
        """Put a document in, in the place of one with the same id."""
        self.remove(prepared.id)
        if self._free_slots:
            slot = self._free_slots.pop()
        else:
            slot = len(self._documents)
            self._documents.append(None)
            self._terms.append(array("I"))
        self._slots[prepared.id] = slot
        self._documents[slot] = prepared._replace(terms=(), impacts=b"")
        postings, base = self._postings, slot << SLOT_SHIFT
        # The postings of the last slot go to the ends of their arrays: there is no need to look.
        is_last = slot == len(self._documents) - 1
        numbers = array("I", map(self._numbers.get, prepared.terms, repeat(_NEW)))
        for at, (number, impact) in enumerate(zip(numbers, prepared.impacts, strict=True)):
            if number == _NEW:
                numbers[at] = self._first_posting(prepared.terms[at], base | impact)
                continue
            there = postings[number]
            if isinstance(there, int):
                postings[number] = array("I", sorted((there, base | impact)))
            elif is_last or base > there[-1]:
                there.append(base | impact)
            else:
                there.insert(bisect_left(there, base), base | impact)
        self._terms[slot] = numbers
        self._posting_count += len(numbers)
        self._spelling.add(prepared.terms[: prepared.head_count])
        for key in _keys(prepared):
            self._by_key[key] = (*self._by_key.get(key, ()), slot)

    def remove(self, id: str) -> None:
        """Take a document out; an unknown id is no error."""
        slot = self._slots.pop(id, None)
        if slot is None:
            return
        document = self._documents[slot]
        assert document is not None
        numbers = self._terms[slot]
        self._spelling.remove([self._names[number] for number in numbers[: document.head_count]])
        for number in numbers:
            self._unpost(number, slot)
        for key in _keys(document):
            left = tuple(other for other in self._by_key.pop(key) if other != slot)
            if left:
                self._by_key[key] = left
        self._posting_count -= len(numbers)
        self._documents[slot] = None
        self._terms[slot] = array("I")
        self._free_slots.append(slot)

    def search(self, query: str, limit: int) -> Results:
        """
        Find the documents that a text asks for.

        Args:
            query: Any text.
            limit: Hits to return at most, above 0.

        Returns:
            Hits by falling score, equal scores by id; none for a query without a known term.
        """
        weights = self._weigh(query)
        bonuses = self._exact(query)
        postings = [
            (weights[number] / 255, self._postings[number]) for number in sorted(weights, key=self._names.__getitem__)
        ]
        best, total = rank(postings, bonuses, len(self._documents), limit)
        asked = frozenset(self._names[number] for number in weights)
        ordered = heapq.nsmallest(limit, [(-score, self._document(slot).id, slot) for slot, score in best])
        return Results(tuple(self._hit(self._document(slot), -score, asked) for score, _, slot in ordered), total)

    def _document(self, slot: int) -> Prepared:
        document = self._documents[slot]
        assert document is not None
        return document

    def _hit(self, document: Prepared, score: float, asked: frozenset[str]) -> Hit:
        for text in (document.description, document.intro):
            passage = snippet(text, asked)
            if passage is not None:
                return Hit(document.id, score, passage, True)
        return Hit(document.id, score, beginning(document.description), False)

    def _weigh(self, query: str) -> dict[int, float]:
        """Return the numbers of the query's terms with their weights, idf included; the most telling ones."""
        words = WORD.findall(query[:QUERY_CHARS])[:QUERY_WORDS]
        counts = Counter(term for word in words for term in TERMS[word])
        weights: dict[int, float] = {}
        for term, count in counts.items():
            number = self._numbers.get(term)
            if number is not None:
                weights[number] = weights.get(number, 0.0) + self._idf(number) * (1 + math.log(count))
            elif len(counts) <= SPELLING_TERMS:
                for near, share in self._spelling.nearest(term):
                    number = self._numbers[near]
                    weights[number] = weights.get(number, 0.0) + self._idf(number) * share
        if len(weights) <= QUERY_TERMS:
            return weights
        return dict(heapq.nsmallest(QUERY_TERMS, weights.items(), key=lambda item: (-item[1], self._names[item[0]])))

    def _idf(self, number: int) -> float:
        postings = self._postings[number]
        count = 1 if isinstance(postings, int) else len(postings)
        return float(math.log(1 + (len(self._slots) - count + 0.5) / (count + 0.5)) ** IDF_POWER)

    def _exact(self, query: str) -> dict[int, int]:
        """Return the slots whose id, last part of the id or name is the query letter by letter; 2 for the very id."""
        slots = self._by_key.get(_key(query), ()) if len(query) <= EXACT_CHARS else ()
        return {slot: 2 if self._document(slot).id == query.strip() else 1 for slot in slots}

    def dump(self) -> tuple[Any, ...]:
        """Return the whole index as plain values that stay as they are, for :meth:`load`."""
        arrays = [array("I", (there,)) if isinstance(there, int) else there for there in self._postings]
        return (
            tuple(self._names),
            _lengths(arrays),
            b"".join(postings.tobytes() for postings in arrays),
            tuple(document and tuple(document) for document in self._documents),
            _lengths(self._terms),
            b"".join(numbers.tobytes() for numbers in self._terms),
            dict(self._by_key),
            self._spelling.dump(),
        )

    @classmethod
    def load(cls, state: tuple[Any, ...]) -> Index:
        """
        Return an index as it was dumped.

        Raises:
            ValueError: The values do not fit together.
        """
        names, posting_lengths, postings, documents, term_lengths, numbers, by_key, spelling = state
        index = cls()
        index._names = list(names)
        index._postings = [part[0] if len(part) == 1 else part for part in _parts(posting_lengths, postings)]
        index._numbers = {name: number for number, name in enumerate(names) if name}
        index._free_numbers = [number for number, name in enumerate(names) if not name]
        index._documents = [document and Prepared(*document) for document in documents]
        index._slots = {document[0]: slot for slot, document in enumerate(documents) if document}
        index._terms = _parts(term_lengths, numbers)
        index._free_slots = [slot for slot, document in enumerate(documents) if document is None]
        index._by_key = dict(by_key)
        index._spelling = Spelling.load(spelling)
        index._posting_count = sum(map(len, index._terms))
        if len(index._postings) != len(names) or len(index._terms) != len(documents):
            raise ValueError("the parts of the index do not fit together")
        return index

    def ids(self) -> Iterator[str]:
        """Yield the ids of all documents."""
        return iter(self._slots)

    def _first_posting(self, term: str, posting: int) -> int:
        """Add a term that is new; return its number."""
        if self._free_numbers:
            number = self._free_numbers.pop()
            self._names[number], self._postings[number] = term, posting
        else:
            number = len(self._names)
            self._names.append(term)
            self._postings.append(posting)
        self._numbers[term] = number
        return number

    def _unpost(self, number: int, slot: int) -> None:
        """Take the posting of a slot out; a term without postings is forgotten."""
        postings = self._postings[number]
        if isinstance(postings, int):
            del self._numbers[self._names[number]]
            self._names[number] = ""
            self._free_numbers.append(number)
            return
        del postings[bisect_left(postings, slot << SLOT_SHIFT)]
        if len(postings) == 1:
            self._postings[number] = postings[0]


def _lengths(arrays: list[array[int]]) -> bytes:
    return array("I", map(len, arrays)).tobytes()


def _parts(lengths: bytes, content: bytes) -> list[array[int]]:
    """Cut one array into many; the inverse of joining them."""
    parts = []
    start = 0
    for length in memoryview(lengths).cast("I"):
        part = array("I")
        part.frombytes(content[start : start + 4 * length])
        parts.append(part)
        start += 4 * length
    return parts


def _keys(document: Prepared) -> set[str]:
    return {_key(document.id), _key(document.id.rpartition("/")[2]), _key(document.name)} - {""}


def _key(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())
