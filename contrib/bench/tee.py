#!/usr/bin/env python3
"""
What attestation costs, and what a broken guest agent costs everybody else; one run on one machine.

    python contrib/bench/tee.py [--skills 10000] [--searches 2000]

Starts the simulated guest agent and ``python -m skilld serve`` on a temporary library of made-up skills. Prints:

- attest: milliseconds of ``skills.attest`` while nothing changes, and of ``tee.quote`` alone;
- search: median and p99 milliseconds of ``skills.search`` while nobody asks the TEE; while 100 callers do, each at once
  again or, after an error, a tenth of a second later; while the agent hangs, is dead, and is back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

from skilld.client import AsyncSkilldClient
from skilld.errors import SkilldError

SIMULATOR = pathlib.Path(__file__).parent.parent / "dstack-simulator"
CALLERS = 100
CALLS = (("tee.version", {}), ("tee.derive_key", {"path": "a"}), ("tee.info", {}), ("tee.quote", {"report_data": "00"}))
PAUSE_S = 0.1


def start_agent(path: pathlib.Path, *options: str) -> subprocess.Popen[bytes]:
    """A guest agent that listens; each speaks up when it does."""
    agent = subprocess.Popen([sys.executable, SIMULATOR, "--socket", path, *options], stderr=subprocess.PIPE)
    assert agent.stderr is not None
    agent.stderr.readline()
    return agent


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    process.send_signal(number)
    process.wait(20)
    if process.stderr is not None:
        process.stderr.close()


async def timed_ms(call: Callable[[], Awaitable[object]], count: int) -> list[float]:
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        took.append((time.perf_counter() - began) * 1_000)
    return took


async def keep_asking(client: AsyncSkilldClient, number: int) -> None:
    """Be one of the callers."""
    method, params = CALLS[number % len(CALLS)]
    while True:
        try:
            await client.call(method, params)
        except SkilldError:
            await asyncio.sleep(PAUSE_S)


async def measure(endpoint: str, agent_path: pathlib.Path, skills: int, searches: int) -> None:
    agent = start_agent(agent_path)
    asking, client = AsyncSkilldClient(endpoint, timeout=60), AsyncSkilldClient(endpoint, timeout=60)
    async with asking, client:
        await client.list(limit=1)
        while not (await client.status()).index.complete:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.1)
        await client.call("skills.attest")  # loads the SDK
        attest = await timed_ms(lambda: client.call("skills.attest"), 30)
        quote = await timed_ms(lambda: client.call("tee.quote", {"report_data": "00"}), 30)
        print(f"attest, {skills} skills: median {statistics.median(attest):.1f} ms, slowest {max(attest):.1f} ms")
        print(f"tee.quote alone: median {statistics.median(quote):.1f} ms")

        async def search(state: str) -> None:
            took = await timed_ms(lambda: client.search("things of kind 7", limit=10), searches)
            p99 = statistics.quantiles(took, n=100)[-1]
            print(f"search, {state}: median {statistics.median(took):.2f} ms, p99 {p99:.2f} ms")

        await search("TEE idle")
        callers = [asyncio.create_task(keep_asking(asking, number)) for number in range(CALLERS)]
        await search("100 callers")
        stop(agent, signal.SIGKILL)
        await search("agent dead")
        agent = start_agent(agent_path, "--fault", "hang")
        await search("agent hung")
        stop(agent, signal.SIGKILL)
        agent = start_agent(agent_path)
        await search("agent back")
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    stop(agent)


def main() -> None:
    parser = argparse.ArgumentParser(description="Attestation, and what a broken guest agent costs.")
    parser.add_argument("--skills", type=int, default=10_000)
    parser.add_argument("--searches", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skilld-bench-") as directory:
        scratch = pathlib.Path(directory)
        for number in range(options.skills):
            skill = scratch / "skills" / f"skill-{number}"
            skill.mkdir(parents=True)
            text = f"---\nname: skill-{number}\ndescription: Does things of kind {number}\n---\n\nSteps.\n"
            (skill / "SKILL.md").write_text(text)
        socket_path, agent_path = scratch / "s", scratch / "dstack.sock"
        command = [sys.executable, "-m", "skilld", "serve", "--skills-dir", scratch / "skills", "--socket", socket_path]
        command += ["--dstack-endpoint", agent_path, "--tee-timeout-s", "5", "--log-level", "error"]
        daemon = subprocess.Popen(command, env={**os.environ, "SKILLD_CACHE_DIR": "none"})
        try:
            while not socket_path.exists():
                time.sleep(0.01)
            asyncio.run(measure(str(socket_path), agent_path, options.skills, options.searches))
        finally:
            stop(daemon)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
