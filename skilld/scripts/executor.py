"""
Runs scripts for callers: chooses the sandbox once, proves it, and lets a bounded number of runs through it.

The sandbox is chosen at start and never again made weaker while the daemon lives: where it fails later, runs fail, and
the same sandbox is proved anew before the next one. Nothing in a request, a skill or a caller's environment has a say.

Owns: the chosen sandbox, the queue of runs.

Source: API, ``skills.execute_script``, ``RunResult``, ``sandbox`` in ``skilld.status``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from skilld.config import NO_CACHE, Config, ConfigError, Execution
from skilld.errors import SandboxUnavailable, ScriptDependencies, ScriptUnsupported
from skilld.scripts.canary import Verdict, prove
from skilld.scripts.cgroup import take_delegation
from skilld.scripts.fairqueue import Client, FairQueue
from skilld.scripts.host import check_shown, find_program
from skilld.scripts.interpreters import choose_interpreter, dependencies_of, parse_interpreters
from skilld.scripts.opening import OpenScript, Stale
from skilld.scripts.outcome import Outcome
from skilld.scripts.plan import Allowance, Plan, Target
from skilld.scripts.rungs import Facts, Rung, ladder, versions
from skilld.scripts.runner import Bounds, Ended, OnOutput, run
from skilld.scripts.scratch import remove_left_over
from skilld.scripts.started import SetupFailed

log = logging.getLogger(__name__)

# Seconds after which a sandbox that did not pass is tried once more: somebody may have installed what was missing.
RECHECK_S = 10.0

# Files that are looked at faster than a thread is woken.
FEW_FILES = 64
# A name or version in a variable; the kernel takes 128 KiB.
TEXT_LIMIT_CHARS = 1_000

_HINT = (
    "install bubblewrap (Debian: apt-get install bubblewrap) and allow user namespaces, or run Linux 6.12 with Landlock"
)


@dataclass(frozen=True)
class Wish:
    """What a caller wants of a run: checked params of ``skills.execute_script``."""

    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes | None = None
    timeout_s: float = 30.0


def check_settings(config: Config) -> None:
    """
    Refuse settings that would show scripts what they must not see. Blocks on the disk.

    Raises:
        ConfigError: Names the key and the value.
    """
    settings = config.execution
    try:
        parse_interpreters(settings.interpreters)
    except ValueError as exc:
        raise ConfigError(f"execution.interpreters: {exc}") from exc
    venvs = []
    for entry in settings.environments:
        script, equals, venv = entry.partition("=")
        if not equals or "/scripts/" not in script:
            raise ConfigError(f"execution.environments: must be like pdf/scripts/fill.py=/opt/venvs/pdf, not {entry!r}")
        venvs.append(venv)
    private = [*config.skills_dir, os.path.dirname(config.socket) or "/", config.workspace]
    private += [] if config.cache_dir == NO_CACHE else [config.cache_dir]
    for key, paths in (("extra_ro", settings.extra_ro), ("environments", tuple(dict.fromkeys(venvs)))):
        for why in check_shown(paths, private):
            raise ConfigError(f"execution.{key}: {why}")


class Executor:
    """
    Runs scripts.

    Args:
        settings: What the configuration says, checked.
    """

    def __init__(self, settings: Execution) -> None:
        # settings
        self._settings = settings
        self._interpreters = parse_interpreters(settings.interpreters)
        self._venvs = dict(entry.split("=", 1) for entry in settings.environments)
        self._allowance = Allowance(
            settings.memory_bytes,
            settings.max_processes,
            settings.file_bytes,
            settings.open_files,
            settings.tmp_bytes,
            settings.work_bytes,
            settings.extra_ro,
        )
        # state
        self._queue = FairQueue(settings.max_concurrent, settings.max_queued)
        self._rung: Rung | None = None  # proved, and in use
        self._chosen: Rung | None = None  # the first that was
        self._checked_s = 0.0
        self._verdict = Verdict({}, "not checked yet")
        self._checked_at: datetime | None = None
        self._rejected: list[dict[str, str]] = []
        self._versions: dict[str, Any] = {}
        self._choosing: asyncio.Task[None] | None = None
        self._is_closed = False

    def begin(self) -> None:
        """Begin to choose and prove a sandbox; runs wait for it."""
        if self._settings.enabled and self._choosing is None:
            self._choosing = asyncio.create_task(self._choose(), name="sandbox")

    async def run(
        self,
        opened: OpenScript,
        wish: Wish,
        *,
        client: Client,
        exact: bool = False,
        on_output: OnOutput | None = None,
    ) -> Outcome:
        """
        Run a script and wait until nothing of it is left. A script that exits non-zero is a result, not an error.

        Args:
            opened: The script; stays open.
            wish: What the caller wants.
            client: Whose turn it is, for the log too; users, and the processes of each, have turns.
            exact: Somebody will be told by the digest what ran: hash all files before and after the run, whatever their
                identities say.
            on_output: Is told of the output as it comes, and slows the script down.

        Raises:
            SandboxUnavailable: No sandbox passes its check here, or it just failed.
            ScriptUnsupported: Nothing runs such a script.
            ScriptDependencies: It declares dependencies, and no environment is prepared for it.
            Busy: Too many runs wait.
            ShuttingDown: The daemon goes down.
            Stale: The script was changed while it waited; nothing ran.
        """
        rung = await self._proved()
        target = self._target(opened, wish)
        asked = time.monotonic()
        async with self._queue.turn(client):
            queued_s = time.monotonic() - asked
            if not opened.is_same():
                raise Stale
            if exact and await asyncio.to_thread(opened.digest_now) != opened.skill.digest:
                raise Stale
            started_at = datetime.now(UTC)
            try:
                ended = await self._run_in(
                    rung, target, opened.skill_fd, self._bounds(wish), self._allowance, wish.stdin, on_output
                )
            except SetupFailed as exc:
                # bubblewrap binds by the path that the descriptor leads to, and another directory may stand there now.
                if not opened.is_in_place() or "binding dirfd" in str(exc):
                    raise Stale from exc
                raise self._failed(rung, exc) from exc
        digest = opened.skill.digest if exact else opened.digest
        if digest is not None:
            # What was touched meanwhile may have been something else when the script read it.
            held = await asyncio.to_thread(opened.digest_now) == digest if exact else await _is_as_known(opened)
            digest = digest if held else None
        log.info(
            "ran %s of %s (%s) with %d arguments for %s: exit code %d in %.3f s, sandbox %s%s",
            opened.script,
            opened.skill.id,
            digest or "no digest",
            len(wish.args),
            client,
            ended.exit_code,
            ended.duration_s,
            rung.facts.backend,
            ", timed out" if ended.timed_out else "",
        )
        return Outcome(
            opened.skill.id,
            digest,
            opened.script,
            wish.args,
            tuple(sorted(wish.environment)),
            wish.stdin,
            ended,
            target.interpreter[0],
            rung.facts,
            queued_s,
            started_at,
            datetime.now(UTC),
        )

    async def explain(self, opened: OpenScript, wish: Wish) -> Plan:
        """The plan of a run, without running it; raises as :meth:`run`."""
        return (await self._proved()).explain(self._target(opened, wish), self._allowance)

    def status(self) -> dict[str, Any]:
        """The ``sandbox`` of ``skilld.status``."""
        facts: Facts | None = self._rung.facts if self._rung else None
        state = "disabled" if not self._settings.enabled else "checking" if self._checked_at is None else "checked"
        return {
            "state": state,
            **({"backend": None} if facts is None else facts.to_json()),
            **self._versions,
            "canary": {
                "passed": self._rung is not None and self._verdict.passed,
                "at": None if self._checked_at is None else _time(self._checked_at),
                "checks": dict(self._verdict.checks),
            },
            "rejected": list(self._rejected),
            "running": self._queue.running,
            "queued": self._queue.waiting,
        }

    def stop_queueing(self) -> None:
        """Give no run its turn any more; those that have begun go on. Idempotent."""
        self._queue.close()

    async def close(self) -> None:
        """Let go of the sandbox; nothing may run any more. Idempotent."""
        self._is_closed = True
        self._queue.close()
        if self._choosing is not None:
            self._choosing.cancel()
            await asyncio.gather(self._choosing, return_exceptions=True)
        if self._rung is not None:
            await self._rung.close()
            self._rung = None

    # The sandbox.

    async def _proved(self) -> Rung:
        """The sandbox, once it has been proved. Raises SandboxUnavailable."""
        if not self._settings.enabled:
            raise SandboxUnavailable([], "running scripts is switched off (execution.enabled)")
        is_late = self._rung is None and time.monotonic() > self._checked_s + RECHECK_S
        if self._choosing is not None and self._choosing.done() and is_late and not self._is_closed:
            self._choosing = None
        self.begin()
        assert self._choosing is not None
        await asyncio.shield(self._choosing)
        if self._rung is None:
            raise SandboxUnavailable(list(self._rejected), _HINT)
        return self._rung

    async def _choose(self) -> None:
        """Take the first rung whose canary passes; once one was taken, never another."""
        if self._chosen:
            rungs = [self._chosen]
        else:
            delegation = await asyncio.to_thread(take_delegation)
            rungs = ladder(self._settings.backend, self._settings.bwrap_path, delegation)
        self._rejected = []
        taken: Rung | None = None
        await asyncio.to_thread(remove_left_over)
        self._versions = await asyncio.to_thread(versions, self._settings.bwrap_path)
        tries_shared_proc = True
        for rung in rungs:
            if rung.facts.proc == "shared" and rung.facts.backend != "none" and not tries_shared_proc:
                continue
            verdict = await self._prove(rung)
            self._verdict = verdict
            if verdict.passed:
                taken = rung
                break
            self._rejected.append({"backend": rung.facts.backend, "reason": verdict.reason})
            await rung.close()
            if rung.facts.proc == "private":
                # With the host's /proc it would fail for the same reason, unless that is a fresh one.
                tries_shared_proc = "proc" in verdict.reason
        self._checked_at, self._checked_s = datetime.now(UTC), time.monotonic()
        self._rung = taken
        self._chosen = self._chosen or taken
        if taken is None:
            tried = "; ".join(f"{one['backend']}: {one['reason']}" for one in self._rejected)
            log.warning("no script can run: %s", tried)
        elif taken.facts.backend == "none":
            log.warning("scripts run WITHOUT a sandbox (execution.backend: none): they may do all that this user may")
        else:
            gaps = f" (gaps: {', '.join(taken.facts.degraded)})" if taken.facts.degraded else ""
            log.info("scripts run under %s%s", taken.facts.backend, gaps)

    async def _prove(self, rung: Rung) -> Verdict:
        if reason := rung.refusal():
            return Verdict({}, reason)
        if rung.facts.backend == "none":
            return Verdict({}, "")

        async def attempt(target: Target, skill_dir: str, bounds: Bounds, shown: tuple[str, ...]) -> Ended:
            skill_fd = os.open(skill_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                defaults = Execution()
                # How much scripts may use is not what is to be proved.
                allowance = Allowance(
                    defaults.memory_bytes,
                    defaults.max_processes,
                    defaults.file_bytes,
                    defaults.open_files,
                    defaults.tmp_bytes,
                    defaults.work_bytes,
                    (*self._settings.extra_ro, *shown),
                )
                return await self._run_in(rung, target, skill_fd, bounds, allowance, None, None)
            finally:
                os.close(skill_fd)

        try:
            return await prove(attempt, Execution().memory_bytes)
        except Exception as exc:
            log.exception("the canary cannot be run")
            return Verdict({}, f"the canary cannot be run: {exc}")

    def _failed(self, rung: Rung, exc: SetupFailed) -> SandboxUnavailable:
        """A sandbox that failed in mid-life must prove itself again."""
        log.error("the sandbox failed: %s", exc)
        if self._choosing is not None and self._choosing.done() and not self._is_closed:
            self._choosing = None
            self.begin()
        reason = {"backend": rung.facts.backend, "reason": str(exc).splitlines()[0][:500]}
        return SandboxUnavailable([reason], "the sandbox could not be made; the daemon's log has the details")

    async def _run_in(
        self,
        rung: Rung,
        target: Target,
        skill_fd: int,
        bounds: Bounds,
        allowance: Allowance,
        stdin: bytes | None,
        on_output: OnOutput | None,
    ) -> Ended:
        try:
            async with rung.prepared(target, allowance, skill_fd) as start:
                return await run(start, bounds, stdin=stdin, on_output=on_output)
        except OSError as exc:
            raise SetupFailed(f"no room for the run: {exc.strerror}") from exc

    # What is run.

    def _target(self, opened: OpenScript, wish: Wish) -> Target:
        text = opened.head.decode(errors="replace")
        venv = self._venvs.get(f"{opened.skill.id}/{opened.script}", "")
        if (needed := dependencies_of(opened.script, text)) and not venv:
            raise ScriptDependencies(opened.script, list(needed))
        chosen = choose_interpreter(opened.script, opened.head, self._interpreters)
        asked = chosen if isinstance(chosen, str) or chosen is None else chosen.program
        program = None if isinstance(chosen, str) or chosen is None else self._find(chosen.program, venv)
        if program is None or isinstance(chosen, str) or chosen is None:
            raise ScriptUnsupported(opened.script, asked, sorted(self._interpreters))
        metadata = opened.skill.metadata
        version = metadata.get("version", "") if isinstance(metadata, Mapping) else ""
        return Target(
            _plain(opened.skill.name),
            opened.script,
            (program, *chosen.options),
            _plain(str(version)),
            wish.args,
            wish.environment,
            wish.timeout_s,
            venv,
        )

    def _find(self, program: str, venv: str) -> str | None:
        visible = (*self._settings.extra_ro, *((venv,) if venv else ()))
        inside = find_program(f"{venv}/bin/{program}", visible) if venv else None
        return inside or find_program(program, visible)

    def _bounds(self, wish: Wish) -> Bounds:
        settings = self._settings
        return Bounds(wish.timeout_s, settings.output_bytes, settings.memory_bytes, settings.max_processes)


async def _is_as_known(opened: OpenScript) -> bool:
    """Whether the skill is as it was opened; in a thread where that means to look at many files."""
    return opened.is_as_known() if len(opened.known) <= FEW_FILES else await asyncio.to_thread(opened.is_as_known)


def _plain(text: str) -> str:
    """A text of a skill's author as a variable can hold it: no NUL, no half characters, not too long."""
    return text.replace("\0", "").encode(errors="replace").decode()[:TEXT_LIMIT_CHARS]


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
