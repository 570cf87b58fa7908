#!/usr/bin/env python3
"""
How well and how fast search finds skills, beside SQLite FTS5 and bm25s, in one run on one machine.

    python contrib/bench/search.py --corpus DIR [--queries FILE] [--runs 5]

DIR holds skills (DIR/<id>/SKILL.md). FILE holds graded queries, one JSON object a line: {"query", "relevant": {id: 1 or
2}}; without it only speed is measured, with the descriptions of some skills as queries. Prints, for skilld without
numpy, skilld with numpy (where installed), SQLite FTS5 (porter, OR of the quoted words) and bm25s (where installed):
nDCG@10, MRR@10, recall@10, hit@1, p50 and p99 of a query in process; then what indexing costs skilld a skill: time,
resident memory, one update; then p50 and p99 over the socket of a daemon started on DIR.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import pathlib
import re
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

from skilld.daemon import GC_THRESHOLDS
from skilld.skills import ranking
from skilld.skills import search as engine
from skilld.skills.frontmatter import parse_skill_md
from skilld.skills.lenient_yaml import FrontmatterError
from skilld.skills.search import Document, Index, prepare, tags_of
from skilld.skills.tokens import STOP_WORDS

Search = Callable[[str], list[str]]


def read(corpus: pathlib.Path) -> list[Document]:
    """Every skill that loads."""
    documents = []
    for directory in sorted(corpus.iterdir()):
        for name in ("SKILL.md", "skill.md"):
            if (directory / name).is_file():
                try:
                    text = parse_skill_md((directory / name).read_bytes(), directory.name)
                except FrontmatterError:
                    break
                tags = tags_of(text.frontmatter)
                documents.append(
                    Document(directory.name, text.name or directory.name, text.description, tags, text.body)
                )
                break
    return documents


def rss_kb() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def judge(found: list[str], relevant: dict[str, int]) -> tuple[float, float, float, float]:
    """nDCG@10, MRR@10, recall@10 and hit@1 of one query."""

    def gain(grades: Iterable[int]) -> float:
        return math.fsum((2**grade - 1) / math.log2(rank + 2) for rank, grade in enumerate(grades))

    right = {id for id, grade in relevant.items() if grade >= 2}
    first = next((rank for rank, id in enumerate(found, 1) if id in right), 0)
    best = gain(sorted(relevant.values(), reverse=True)[:10])
    return (
        gain(relevant.get(id, 0) for id in found) / best,
        1 / first if first else 0.0,
        len(set(found) & right) / min(len(right), 10) if right else 0.0,
        float(first == 1),
    )


def run(name: str, search: Search, queries: list[dict], runs: int) -> None:
    times, scores = [], []
    for query in queries:
        for _ in range(runs):
            began = time.perf_counter()
            found = search(query["query"])
            times.append((time.perf_counter() - began) * 1e3)
        if "relevant" in query:
            scores.append(judge(found, query["relevant"]))
    times.sort()
    means = [f"{statistics.fmean(column):.3f}" for column in zip(*scores, strict=True)] or ["-"] * 4
    print(f"{name:28}", *(f"{mean:>7}" for mean in means),
          f"{times[len(times) // 2]:8.3f}", f"{times[int(len(times) * 0.99)]:8.3f}")  # fmt: skip


def words(query: str) -> list[str]:
    return [word for word in re.findall(r"\w+", query.lower()) if word not in STOP_WORDS][:400]


def fts5(documents: list[Document]) -> Search:
    base = sqlite3.connect(":memory:")
    base.execute("create virtual table s using fts5(id unindexed, name, description, tags, body, tokenize='porter')")
    base.executemany(
        "insert into s values (?, ?, ?, ?, ?)",
        ((document.id, document.name, document.description, " ".join(document.tags), document.body[:600])
         for document in documents),
    )  # fmt: skip

    def search(query: str) -> list[str]:
        match = " OR ".join(f'"{word}"' for word in words(query))
        rows = base.execute(
            "select id from s where s match ? order by bm25(s, 0, 20, 10, 3, 0.5), id limit 10", (match or '""',)
        )
        return [row[0] for row in rows]

    return search


def bm25s_engine(documents: list[Document]) -> Search:
    import bm25s

    texts = [
        " ".join([*[document.name] * 3, *[document.description] * 2, document.body[:600]]) for document in documents
    ]
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)

    def search(query: str) -> list[str]:
        tokens = bm25s.tokenize([query], show_progress=False)
        found, scores = retriever.retrieve(tokens, k=10, show_progress=False)
        return [documents[number].id for number, score in zip(found[0], scores[0], strict=True) if score > 0]

    return search


def over_the_socket(corpus: pathlib.Path, queries: list[dict], runs: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "s.sock"
        process = subprocess.Popen(
            [sys.executable, "-m", "skilld", "serve", "--skills-dir", corpus, "--socket", path, "--log-level", "error"],
            env={**os.environ, "SKILLD_CACHE_DIR": "none"},
        )
        try:
            while not path.exists():
                time.sleep(0.01)
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(str(path))
            stream = peer.makefile("rb")

            def call(method: str, **params: object) -> dict:
                request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
                peer.sendall(json.dumps(request).encode() + b"\n")
                return json.loads(stream.readline())["result"]

            call("skills.list", limit=1)
            began = time.perf_counter()
            pings = []
            while not call("skilld.status")["index"]["complete"]:
                one = time.perf_counter()
                call("skilld.ping")
                pings.append((time.perf_counter() - one) * 1e3)
                time.sleep(0.005)
            pings.sort()
            print(
                f"index complete after {time.perf_counter() - began:.1f} s more; {len(pings)} pings meanwhile: "
                f"p50 {pings[len(pings) // 2]:.2f} ms, p99 {pings[int(len(pings) * 0.99)]:.1f} ms"
            )
            run(
                "over the socket",
                lambda query: [hit["id"] for hit in call("skills.search", query=query)["skills"]],
                queries,
                runs,
            )
            stream.close()
            peer.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--queries", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    documents = read(options.corpus)
    if options.queries:
        queries = [json.loads(line) for line in options.queries.read_text().splitlines() if line.strip()]
    else:
        queries = [{"query": document.description[:80]} for document in documents[:: max(1, len(documents) // 200)]]

    # As the daemon does once its first scan is done.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    before = rss_kb()
    index = Index()
    began = time.perf_counter()
    for document in documents:
        index.add(prepare(document))
    build_us = (time.perf_counter() - began) * 1e6 / len(documents)
    memory_kb = (rss_kb() - before) / len(documents)
    updates = []
    for document in documents[:: max(1, len(documents) // 200)]:
        began = time.perf_counter()
        index.add(prepare(document))
        updates.append((time.perf_counter() - began) * 1e3)
    print(
        f"{len(documents):,} skills: indexing {build_us:.0f} us a skill, {memory_kb:.1f} kB RSS a skill, "
        f"update of one p50 {statistics.median(updates):.2f} ms, greatest {max(updates):.2f} ms"
    )

    print(f"{'':28}", *(f"{title:>7}" for title in ("nDCG@10", "MRR@10", "rec@10", "hit@1")), "  p50 ms   p99 ms")
    for name, rank in (("skilld", ranking.rank_plain), ("skilld with numpy", ranking.rank_fast)):
        if rank is ranking.rank_plain or importlib.util.find_spec("numpy"):
            engine.rank = rank
            run(name, lambda query: [hit.id for hit in index.search(query, 10).hits], queries, options.runs)
    run("SQLite FTS5, porter, OR", fts5(documents), queries, options.runs)
    if importlib.util.find_spec("bm25s"):
        run("bm25s", bm25s_engine(documents), queries, options.runs)
    over_the_socket(options.corpus, queries, options.runs)


main()
