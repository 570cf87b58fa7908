"""
The life of one run: streams fed and drained, time and memory watched, everything ended.

A run ends when the script's first process does: what it left behind is killed with it, so that a background process
that keeps the output open holds nobody up. A script that outlives its time gets SIGTERM, and two seconds in which its
exit code and its output still count; then SIGKILL, which nothing survives. Output is read to its end, however long it
is, but only as fast as ``on_output`` takes it.

Owns: the pipes of a run.

Source: API, ``RunResult``; pipe(7); measured: 200 MB of output are drained in half a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from skilld.scripts.capture import Capture, Captured
from skilld.scripts.plan import GRACE_S
from skilld.scripts.processes import usage_below
from skilld.scripts.readiness import readable, writable
from skilld.scripts.started import SetupFailed, Started, Stdio

log = logging.getLogger(__name__)

T = TypeVar("T")
# Called with "stdout" or "stderr" and what was written; the stream is not read on before it returns.
OnOutput = Callable[[str, bytes], Awaitable[None]]
Start = Callable[[Stdio], Awaitable[Started]]

_CHUNK_BYTES = 64 * 1024
_MESSAGE_BYTES = 2_000
# Reads of a stream that never runs dry before others get a turn.
_CHUNKS_A_TURN = 8
# Seconds that a reader of the output has once the script has ended; a place among those that run is not his to hold.
READER_S = 10.0
# Seconds between two looks at what a run holds.
WATCH_S = 0.1


@dataclass(frozen=True)
class Bounds:
    """What a run may take: seconds, bytes kept of each stream, bytes of memory and processes together."""

    timeout_s: float
    output_bytes: int
    memory_bytes: int
    max_processes: int


@dataclass(frozen=True)
class Ended:
    """
    What came out of a run.

    Attributes:
        signal: The signal by which the daemon ended it, or None. Without ``timed_out`` it held too much memory.
        duration_s: From when the script was let loose.
    """

    exit_code: int
    signal: str | None
    timed_out: bool
    stdout: Captured
    stderr: Captured
    duration_s: float


async def run(start: Start, bounds: Bounds, *, stdin: bytes | None = None, on_output: OnOutput | None = None) -> Ended:
    """
    Run a script and wait until nothing of it is left.

    Args:
        start: Starts it in its sandbox, given its ends of the streams.
        bounds: What it may take.
        stdin: What it may read; None is an empty input.
        on_output: Is told of the output as it comes.

    Raises:
        SetupFailed: The script never ran.
    """
    with contextlib.ExitStack() as stack:
        ours_in, theirs_in = _input(stack, stdin)
        ours_out, theirs_out = _pipe(stack)
        ours_err, theirs_err = _pipe(stack)
        try:
            started = await start(Stdio(theirs_in.fd, theirs_out.fd, theirs_err.fd))
        except SetupFailed as exc:
            raise _with_message(exc, ours_err.fd) from exc
        for end in (theirs_in, theirs_out, theirs_err):
            end.close()
        captures = Capture(bounds.output_bytes), Capture(bounds.output_bytes)
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                drains = {
                    group.create_task(_drain(ours_out.fd, "stdout", captures[0], on_output)),
                    group.create_task(_drain(ours_err.fd, "stderr", captures[1], on_output)),
                }
                helpers = [group.create_task(_watch(started, bounds))]
                if ours_in is not None:
                    helpers.append(group.create_task(_feed(ours_in, stdin or b"")))
                exit_code, timed_out, sent = await _outlive(started, bounds.timeout_s)
                duration_s = time.monotonic() - began
                for helper in helpers:
                    helper.cancel()
                if (helpers[0].done() and not helpers[0].cancelled()) or started.ran_out_of_memory:
                    sent = "SIGKILL"
                _, late = await asyncio.wait(drains, timeout=READER_S)
                for drain in late:
                    drain.cancel()
            # What a reader was too slow for still counts.
            for end, capture in zip((ours_out, ours_err), captures, strict=True):
                _read_rest(end.fd, capture)
        except BaseExceptionGroup as errors:
            # One thing went wrong; the others were cancelled for it.
            error = errors.exceptions[0]
            raise _with_capture(error, captures[1]) if isinstance(error, SetupFailed) else error from None
        finally:
            await to_the_end(started.close())
    return Ended(exit_code, sent, timed_out, captures[0].result(), captures[1].result(), duration_s)


def _with_message(exc: SetupFailed, stderr_fd: int) -> SetupFailed:
    """Add what the sandbox's own program said; the script never ran, so that nothing else is there."""
    with contextlib.suppress(BlockingIOError):
        said = os.read(stderr_fd, _MESSAGE_BYTES).decode(errors="replace").strip()
        return SetupFailed(f"{exc}: {said}" if said else str(exc))
    return exc


def _with_capture(exc: SetupFailed, stderr: Capture) -> SetupFailed:
    said = stderr.result().head[:_MESSAGE_BYTES].decode(errors="replace").strip()
    return SetupFailed(f"{exc}: {said}" if said else str(exc))


async def _outlive(started: Started, timeout_s: float) -> tuple[int, bool, str | None]:
    """Wait for the end, by force if need be: the exit code, whether it took too long, the last signal that was sent."""
    try:
        async with asyncio.timeout(timeout_s):
            return await started.wait(), False, None
    except TimeoutError:
        started.terminate()
    try:
        async with asyncio.timeout(GRACE_S):
            return await started.wait(), True, "SIGTERM"
    except TimeoutError:
        started.kill()
    return await started.wait(), True, "SIGKILL"


async def _watch(started: Started, bounds: Bounds) -> None:
    """Kill a run that holds too much; returns only then."""
    while True:
        await asyncio.sleep(WATCH_S)
        usage = usage_below(started.pid, bounds.max_processes)
        # The kernel holds others than root to the number of processes by itself.
        if usage.memory_bytes > bounds.memory_bytes or usage.threads > bounds.max_processes:
            log.warning("ended a script with %d threads and %d bytes of memory", usage.threads, usage.memory_bytes)
            started.kill()
            return


def _read_rest(fd: int, capture: Capture) -> None:
    """Take in what is left of a stream that nobody writes to any more."""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(fd, _CHUNK_BYTES):
            capture.add(data)


async def _drain(fd: int, stream: str, capture: Capture, on_output: OnOutput | None) -> None:
    chunks = 0
    while True:
        try:
            data = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            chunks = 0
            await readable(fd)
            continue
        if not data:
            return
        capture.add(data)
        if on_output is not None:
            await on_output(stream, data)
        chunks += 1
        if chunks % _CHUNKS_A_TURN == 0:
            await asyncio.sleep(0)


async def _feed(end: _End, content: bytes) -> None:
    """Write the input and close it; a script that does not read it is none of our business."""
    view = memoryview(content)
    try:
        while view:
            try:
                view = view[os.write(end.fd, view[:_CHUNK_BYTES]) :]
            except BlockingIOError:
                await writable(end.fd)
    except BrokenPipeError:
        pass
    finally:
        end.close()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await something that must not stay half done; a cancellation is heeded after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as exc:
            cancelled = exc
        except Exception:  # the task's own; raised below
            break
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


class _End:
    """One end of a pipe, closed once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _pipe(stack: contextlib.ExitStack, *, reads_here: bool = True) -> tuple[_End, _End]:
    """Our end, which does not block, and the script's."""
    reading, writing = map(_End, os.pipe2(os.O_CLOEXEC))
    stack.callback(reading.close)
    stack.callback(writing.close)
    ours, theirs = (reading, writing) if reads_here else (writing, reading)
    os.set_blocking(ours.fd, False)
    return ours, theirs


def _input(stack: contextlib.ExitStack, stdin: bytes | None) -> tuple[_End | None, _End]:
    if stdin is not None:
        return _pipe(stack, reads_here=False)
    null = _End(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    stack.callback(null.close)
    return None, null
