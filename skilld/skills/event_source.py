"""
Events of the file system, through watchfiles.

An event is a hint: it names a path that may be stale. Two promises make hints enough. A cookie tells that every event
before it has been delivered. A barrier tells that every directory that was reported before it is being watched, since
notify, below watchfiles, adds watches first in, first out.

Owns: the watching thread and a private directory for cookies. The one module that knows watchfiles.

Source: watchfiles 1.x, ``RustNotify``; Watchman's cookies. What notify loses (events of a full queue, writes between
mkdir and the new watch, directories when watches run out) was measured; the watcher makes up for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from watchfiles import Change
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

# An event is delivered once the tree was quiet for a step, or after the debounce. Measured: 4-6 ms from a write to
# the event at under 1 % of a core; longer steps save little, shorter ones cost wake-ups.
DEBOUNCE_MS = 20
STEP_MS = 4

RETRY_COOKIE_S = 0.25
BARRIER_STEP_S = 0.005
# A cookie or barrier that takes longer will not come: its directory is not watched.
GIVE_UP_S = 10.0


class SourceFailed(Exception):
    """The source cannot be opened or has died; the text says why."""


class WatchesExhausted(SourceFailed):
    """The kernel gives out no more inotify watches; trying again soon would not help."""


class EventSource:
    """
    Watches some directory trees.

    Args:
        directories: Existing directories; watched with all below, links that are there now followed.
        on_events: Called on the event loop with the paths of a batch, before any cookie of that batch is resolved,
            and whether something new may hold directories that are not watched yet.

    Attributes:
        failure: Why it has ended, or None while it watches.
        ended: Set once it has.
    """

    def __init__(self, directories: Sequence[str], on_events: Callable[[list[str], bool], None]) -> None:
        # Settings.
        self._directories = directories
        self._on_events = on_events
        # State.
        self._cookie_dir = ""
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self.failure: SourceFailed | None = None
        # The watching thread.
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.ended = asyncio.Event()

    async def open(self) -> None:
        """
        Start to watch.

        Raises:
            SourceFailed: The kernel refused, such as for want of inotify watches.
        """
        self._cookie_dir = os.path.realpath(tempfile.mkdtemp(prefix="skilld-watch-"))
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, opened), name="skilld-watch", daemon=True)
        self._thread.start()
        try:
            await opened
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop watching; waits for the thread."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        self._fail(SourceFailed("closed"))
        shutil.rmtree(self._cookie_dir, ignore_errors=True)

    async def cookie(self, give_up_s: float = GIVE_UP_S) -> None:
        """
        Return when every event of a change made before the call has been delivered.

        Raises:
            SourceFailed: The source died meanwhile.
            WatchesExhausted: It did not come within ``give_up_s`` seconds.
        """
        path = f"{self._cookie_dir}/c{next(self._numbers)}"
        seen = self._expect(path)
        try:
            # An event can be lost when the kernel's queue is full; another touch makes another one.
            await self._touch_until(seen, path, RETRY_COOKIE_S, give_up_s)
        finally:
            self._forget(path)

    async def barrier(self) -> None:
        """
        Return when every directory that was reported before the call is being watched.

        Raises:
            SourceFailed: The source died meanwhile.
            WatchesExhausted: New directories are not being watched.
        """
        directory = f"{self._cookie_dir}/b{next(self._numbers)}"
        path = f"{directory}/seen"
        seen = self._expect(path)
        try:
            with contextlib.suppress(OSError):
                os.mkdir(directory)
            await self._touch_until(seen, path, BARRIER_STEP_S, GIVE_UP_S)
        finally:
            self._forget(path)
            shutil.rmtree(directory, ignore_errors=True)

    async def _touch_until(self, seen: asyncio.Future[None], path: str, step_s: float, give_up_s: float) -> None:
        give_up_at = time.monotonic() + give_up_s
        while not seen.done():
            if time.monotonic() > give_up_at:
                raise WatchesExhausted("inotify watches are exhausted, or no event arrives (fs.inotify.*)")
            _touch(path)
            await asyncio.wait([seen], timeout=step_s)
        await seen

    def _expect(self, path: str) -> asyncio.Future[None]:
        seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.failure is not None:
            seen.set_exception(self.failure)
        else:
            self._waiting[path] = seen
        return seen

    def _forget(self, path: str) -> None:
        self._waiting.pop(path, None)
        with contextlib.suppress(OSError):
            os.unlink(path)

    def _run(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None]) -> None:
        """The watching thread: build the watch, then hand over batches until told to stop."""

        def call(function: Callable[..., None], *args: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                loop.call_soon_threadsafe(function, *args)

        try:
            with RustNotify([*self._directories, self._cookie_dir], False, False, 0, True, True) as notify:
                call(_resolve, opened)
                while True:
                    batch = notify.watch(DEBOUNCE_MS, STEP_MS, 0, self._stop)
                    if isinstance(batch, set):
                        call(self._deliver, batch)
                    else:
                        break
            failure = SourceFailed("stopped")
        except (OSError, WatchfilesRustInternalError, ValueError, RuntimeError) as exc:
            failure = _failure_of(exc)
        call(self._fail, failure)
        call(_reject, opened, failure)

    def _deliver(self, batch: Iterable[tuple[int, str]]) -> None:
        cookies, paths = [], []
        has_new = False
        for kind, path in batch:
            if path.startswith(self._cookie_dir):
                cookies.append(path)
            else:
                paths.append(path)
                has_new = has_new or kind == Change.added
        if paths:
            self._on_events(paths, has_new)
        for path in cookies:
            seen = self._waiting.pop(path, None)
            if seen is not None:
                _resolve(seen)

    def _fail(self, failure: SourceFailed) -> None:
        if self.failure is None:
            self.failure = failure
            self.ended.set()
        waiting, self._waiting = self._waiting, {}
        for seen in waiting.values():
            _reject(seen, self.failure)


def _failure_of(exc: BaseException) -> SourceFailed:
    # watchfiles says "OS file watch limit reached" without an errno.
    if isinstance(exc, OSError) and (exc.errno == errno.ENOSPC or "limit" in str(exc)):
        return WatchesExhausted("inotify watches are exhausted (raise fs.inotify.max_user_watches)")
    return SourceFailed(f"{type(exc).__name__}: {exc}"[:200])


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _reject(future: asyncio.Future[None], failure: SourceFailed) -> None:
    if not future.done():
        future.set_exception(failure)


def _touch(path: str) -> None:
    with contextlib.suppress(OSError), open(path, "a"):
        os.utime(path)
