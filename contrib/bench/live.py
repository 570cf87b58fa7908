#!/usr/bin/env python3
"""
How fast a running daemon starts, sees edits and idles; ratios of one run on one machine.

    python contrib/bench/live.py [--corpus DIR] [--skills 10000] [--runs 5]

Starts ``python -m skilld serve`` on a temporary library: copies of the skills below DIR, or made-up ones of a real
size (6 kB). Prints:

- ready: seconds from the start of the process until ``GET /health`` says ok, beside ``find | xargs cat`` of the same
  files in turn, and the resident memory then and once the search index is complete;
- restart: seconds until ready with the whole search index, without a cache and with one;
- save to visible: milliseconds from a finished write until ``skills.get`` and until ``skills.changes`` show it, on an
  idle library of 1,000;
- checkout: milliseconds from the end of a ``git checkout`` that writes 2,000 skills until all are listed;
- idle: share of one core that the daemon takes while nothing happens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any


class Peer:
    """A connection of JSON lines."""

    def __init__(self, path: pathlib.Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.stream = self.socket.makefile("rb")

    def call(self, method: str, **params: Any) -> Any:
        self.socket.sendall(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"
        )
        return json.loads(self.stream.readline()).get("result")

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@contextlib.contextmanager
def daemon(root: pathlib.Path, scratch: pathlib.Path, cache: str = "none") -> Iterator[tuple[Peer, int, float]]:
    """A daemon that is ready: a connection, its pid, and the seconds that it took."""
    path = scratch / "bench.sock"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "skilld", "serve", "--skills-dir", root, "--socket", path, "--log-level", "error"],
        env={**os.environ, "SKILLD_CACHE_DIR": cache},
    )
    try:
        while not path.exists():
            time.sleep(0.002)
        peer = Peer(path)
        # The daemon holds this call until its first scan is done.
        peer.call("skills.list", limit=1)
        seconds = time.perf_counter() - began
        yield peer, process.pid, seconds
        peer.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def rss_mb(pid: int) -> float:
    """Resident memory in MB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def cpu_s(pid: int) -> float:
    """Processor time so far, in seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fill(root: pathlib.Path, count: int, corpus: pathlib.Path | None) -> None:
    """Make a library of so many skills."""
    root.mkdir()
    sources = sorted(path for path in corpus.iterdir() if path.is_dir()) if corpus else []
    for number in range(count):
        target = root / f"skill-{number:05}"
        if sources:
            shutil.copytree(sources[number % len(sources)], target)
        else:
            target.mkdir()
            body = f"Step {number} of many, in words that a reader knows.\n" * 120
            (target / "SKILL.md").write_text(
                f"---\nname: {target.name}\ndescription: Does task {number}. Use when asked for it.\n"
                f"metadata:\n  author: bench\n---\n\n# Task {number}\n\n{body}"
            )


def bench_start(scratch: pathlib.Path, count: int, corpus: pathlib.Path | None, runs: int) -> None:
    root = scratch / "library"
    fill(root, count, corpus)
    floors, starts, first_rss, full_rss = [], [], [], []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(f"find {root} -type f -print0 | xargs -0 cat > /dev/null", shell=True, check=True)
        floors.append(time.perf_counter() - began)
        with daemon(root, scratch) as (peer, pid, seconds):
            starts.append(seconds)
            first_rss.append(rss_mb(pid))
            began = time.perf_counter()
            while not peer.call("skilld.status")["index"]["complete"]:
                time.sleep(0.05)
            full_rss.append(rss_mb(pid))
            indexed_s = time.perf_counter() - began
    floor, start = statistics.median(floors), statistics.median(starts)
    budget = 2 * floor + count * 100e-6
    print(f"start, {count:,} skills, medians of {runs} runs:")
    print(
        f"  find | xargs cat {floor:.2f} s   ready {start:.2f} s   allowed (2 x find + 100 us a skill) {budget:.2f} s"
    )
    print(
        f"  RSS when ready {statistics.median(first_rss):.0f} MB, with the whole search index "
        f"{statistics.median(full_rss):.0f} MB; index complete {indexed_s:.1f} s later"
    )
    shutil.rmtree(root)


def bench_restart(scratch: pathlib.Path, count: int, corpus: pathlib.Path | None, runs: int) -> None:
    root, cache = scratch / "library", scratch / "cache"
    fill(root, count, corpus)
    colds, warms = [], []
    for _ in range(runs):
        shutil.rmtree(cache, ignore_errors=True)
        for seconds in (colds, warms):
            began = time.perf_counter()
            with daemon(root, scratch, str(cache)) as (peer, _, _):
                while not peer.call("skilld.status")["index"]["complete"]:
                    time.sleep(0.01)
                seconds.append(time.perf_counter() - began)
    cold, warm = statistics.median(colds), statistics.median(warms)
    print(f"restart, {count:,} skills, ready with the whole index, medians of {runs} runs:")
    print(f"  cold {cold:.2f} s   from the cache {warm:.2f} s   ratio {warm / cold:.3f}")
    shutil.rmtree(root)


def bench_edits(scratch: pathlib.Path, edits: int) -> None:
    root = scratch / "library"
    fill(root, 1_000, None)
    with daemon(root, scratch) as (peer, pid, _):
        while peer.call("skilld.status")["watcher"]["mode"] == "starting":
            time.sleep(0.1)
        for how in ("skills.get", "skills.changes"):
            delays = []
            for number in range(edits):
                target = root / f"skill-{number % 1000:05}"
                revision = peer.call("skills.list", limit=1)["revision"]
                text = f"---\nname: {target.name}\ndescription: edit {number} {how}\n---\n\nBody.\n"
                with (target / "SKILL.md").open("w") as file:
                    file.write(text)
                began = time.perf_counter()
                if how == "skills.get":
                    while peer.call("skills.get", name=target.name)["description"] != f"edit {number} {how}":
                        pass
                else:
                    peer.call("skills.changes", since=revision, wait_ms=10_000)
                delays.append((time.perf_counter() - began) * 1e3)
                time.sleep(0.02)
            delays.sort()
            print(
                f"save to visible in {how}, 1,000 skills, {edits} edits: p50 {delays[edits // 2]:.1f} ms, "
                f"p99 {delays[int(edits * 0.99)]:.1f} ms"
            )
        before, began = cpu_s(pid), time.perf_counter()
        time.sleep(20)
        share = (cpu_s(pid) - before) / (time.perf_counter() - began)
        print(f"idle, 1,000 skills: {share * 100:.2f} % of one core")
    shutil.rmtree(root)


def bench_checkout(scratch: pathlib.Path, runs: int) -> None:
    root = scratch / "library"

    def git(*args: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=b", "-c", "user.email=b@example.com", *args],
            cwd=root, check=True, capture_output=True,
        )  # fmt: skip

    fill(root, 2_000, None)
    git("init", "-b", "full")
    git("add", "-A")
    git("commit", "-m", "full")
    git("checkout", "--orphan", "empty")
    git("rm", "-rfq", ".")
    git("commit", "--allow-empty", "-m", "empty")
    delays = []
    with daemon(root, scratch) as (peer, _, _):
        while peer.call("skilld.status")["watcher"]["mode"] == "starting":
            time.sleep(0.1)
        for _ in range(runs):
            for branch, total in (("full", 2_000), ("empty", 0)):
                git("checkout", branch)
                began = time.perf_counter()
                while peer.call("skills.list", limit=1)["total"] != total:
                    time.sleep(0.002)
                delays.append((time.perf_counter() - began) * 1e3)
    print(
        f"checkout of 2,000 skills: all listed {statistics.median(delays):.0f} ms after its end, at most "
        f"{max(delays):.0f} ms, {len(delays)} checkouts"
    )
    shutil.rmtree(root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, help="a directory of skills to copy")
    parser.add_argument("--skills", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--restart-skills", type=int, default=20_000)
    parser.add_argument("--edits", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench_start(pathlib.Path(scratch), options.skills, options.corpus, options.runs)
        bench_restart(pathlib.Path(scratch), options.restart_skills, options.corpus, options.runs)
        bench_edits(pathlib.Path(scratch), options.edits)
        bench_checkout(pathlib.Path(scratch), options.runs)


main()
