"""
What running a script costs: a paired run of a plain subprocess and of every rung that this machine offers.

Rounds are interleaved, so that a change of the machine's load hits all alike. A line a fact; times are in milliseconds.

    python contrib/bench/scripts.py [ROUNDS]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from skilld.config import Execution
from skilld.scripts.executor import Executor, Wish
from skilld.scripts.opening import OpenScript, open_script
from skilld.skills.scanner import ScanLimits, scan

LIMITS = ScanLimits(1 << 20, 10_000, 1 << 28, 6, frozenset())
RUNS = 64
FLOOD_BYTES = 200_000_000
SCRIPTS = {
    "nothing.sh": ":\n",
    "nothing.py": "pass\n",
    "flood.py": f"import sys\nfor _ in range({FLOOD_BYTES} // 100_000): sys.stdout.write('x' * 100_000)\n",
}
PROGRAMS = {"nothing.sh": "/bin/sh", "nothing.py": "/usr/bin/python3"}


async def plain(script: Path) -> None:
    """What asyncio alone takes for the same program."""
    process = await asyncio.create_subprocess_exec(
        PROGRAMS[script.name], str(script), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await process.communicate()


def peak_mib() -> float:
    """The most memory that this process has held."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


async def main(rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as root:
        directory = Path(root, "bench/scripts")
        directory.mkdir(parents=True)
        Path(root, "bench/SKILL.md").write_text("---\nname: bench\ndescription: d\n---\n")
        for name, text in SCRIPTS.items():
            (directory / name).write_text(text)
        entry = next(scan(root, "", {}, LIMITS))
        assert entry.skill is not None
        opened = {name: open_script(entry.skill, f"scripts/{name}", entry.files, 100) for name in SCRIPTS}
        executors: dict[str, Executor] = {}
        for backend in ("bubblewrap", "landlock"):
            executor = Executor(Execution(backend=backend, max_concurrent=os.cpu_count() or 1, max_queued=RUNS))
            executor.begin()
            try:
                await executor.explain(opened["nothing.sh"], Wish())
                executors[backend] = executor
            except Exception as exc:
                print(f"MISSING RUNG {backend}: {exc}")
                await executor.close()
        await latencies(executors, opened, directory, rounds)
        await throughput(executors, opened["nothing.sh"])
        await flood(executors, opened["flood.py"])
        for executor in executors.values():
            await executor.close()
        for one in opened.values():
            one.close()


async def latencies(
    executors: dict[str, Executor], opened: dict[str, OpenScript], directory: Path, rounds: int
) -> None:
    """From the call to the result, one at a time."""
    for name in PROGRAMS:
        times: dict[str, list[float]] = {"plain": [], **{backend: [] for backend in executors}}
        for _ in range(rounds):
            for backend, measured in times.items():
                began = time.perf_counter()
                if backend == "plain":
                    await plain(directory / name)
                else:
                    await executors[backend].run(opened[name], Wish(), client=1)
                measured.append((time.perf_counter() - began) * 1_000)
        for backend, measured in times.items():
            over = min(measured) - min(times["plain"])
            middle = statistics.median(measured) - statistics.median(times["plain"])
            print(
                f"{name:11} {backend:11} floor {min(measured):6.2f} (+{over:5.2f})  "
                f"median {statistics.median(measured):6.2f} (+{middle:5.2f})"
            )


async def throughput(executors: dict[str, Executor], nothing: OpenScript) -> None:
    """Many at once."""
    for backend, executor in executors.items():
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for client in range(RUNS):
                group.create_task(executor.run(nothing, Wish(), client=client % 4))
        seconds = time.perf_counter() - began
        print(f"{RUNS} no-op runs {backend:11} {seconds:5.2f} s, {RUNS / seconds:5.0f} a second")


async def flood(executors: dict[str, Executor], script: OpenScript) -> None:
    """Output without end."""
    for backend, executor in executors.items():
        before = peak_mib()
        began = time.perf_counter()
        outcome = await executor.run(script, Wish(), client=1)
        assert outcome.ended.stdout.bytes_count == FLOOD_BYTES
        seconds = time.perf_counter() - began
        print(f"{FLOOD_BYTES:,} bytes {backend:11} {seconds:5.2f} s, peak memory +{peak_mib() - before:.1f} MiB")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))
