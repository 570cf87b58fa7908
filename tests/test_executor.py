"""Choosing a sandbox, proving it, and failing closed."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - before it is out of reach
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skilld.config import Config, ConfigError, Execution
from skilld.errors import SandboxUnavailable, ScriptDependencies
from skilld.scripts import bubblewrap, canary, executor, launcher, probe
from skilld.scripts.canary import judge
from skilld.scripts.capture import Captured
from skilld.scripts.executor import Executor, Wish, check_settings
from skilld.scripts.fairqueue import Client
from skilld.scripts.kernel import hide_process
from skilld.scripts.opening import OpenScript, Stale, open_script
from skilld.scripts.outcome import Outcome
from skilld.scripts.plan import Plan
from skilld.scripts.rungs import LauncherRung
from skilld.scripts.runner import Ended
from skilld.skills.scanner import ScanLimits, scan
from tests.isolation import as_nobody, run_with_mounts

LIMITS = ScanLimits(1 << 20, 100, 1 << 20, 6, frozenset())
BWRAP = "/usr/bin/bwrap"

needs_bubblewrap = pytest.mark.skipif(not os.path.exists(BWRAP), reason="MISSING RUNG bubblewrap: not installed")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenScript]:
    """A script that says who it is."""
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    directory.chmod(0o755)
    (directory / "demo/scripts").mkdir(parents=True)
    (directory / "demo/SKILL.md").write_text("---\nname: demo\ndescription: d\n---\n")
    (directory / "demo/scripts/a.sh").write_text('echo "$1"; id -u\n')
    for path in (directory / "demo/SKILL.md", directory / "demo/scripts/a.sh"):
        os.utime(path, (1_000, 1_000))
    entry = next(scan(str(directory), "", {}, LIMITS))
    assert entry.skill is not None
    script = open_script(entry.skill, "scripts/a.sh", entry.files, 100, 1 << 20)
    yield script
    script.close()
    shutil.rmtree(directory)


@asynccontextmanager
async def executing(**settings: Any) -> Any:
    one = Executor(Execution(**settings))
    try:
        yield one
    finally:
        await one.close()


async def run(opened: OpenScript, **settings: Any) -> Outcome:
    async with executing(**settings) as one:
        outcome: Outcome = await one.run(opened, Wish(("hi",)), client=Client(0, 1))
        return outcome


@pytest.mark.parametrize("backend", ["bubblewrap", "landlock"])
def test_an_unprivileged_daemon(opened: OpenScript, backend: str) -> None:
    """Runs scripts as root's does, in a sandbox that passes the same checks."""
    if backend == "bubblewrap" and not os.path.exists(BWRAP):
        pytest.skip("MISSING RUNG bubblewrap: not installed")
    copied = Path(opened.skill.root, "launcher.py")
    shutil.copy(launcher.__file__, copied)

    def work() -> list[Any]:
        # The tests' own Python may be out of another user's reach.
        sys.executable, sys.base_prefix, launcher.__file__ = "/usr/bin/python3", "/usr", str(copied)
        hide_process()
        outcome = asyncio.run(run(opened, backend=backend))
        return [outcome.to_json()["stdout"], outcome.facts.backend]

    uid = "1000" if backend == "bubblewrap" else "65534" if os.geteuid() == 0 else str(os.geteuid())
    assert as_nobody(work) == [f"hi\n{uid}\n", backend]


async def test_none_is_a_choice(opened: OpenScript, caplog: pytest.LogCaptureFixture) -> None:
    """Of the configuration's; announced in the log and in every result."""
    outcome = await run(opened, backend="none")
    assert outcome.to_json()["sandbox"] == {
        "backend": "none",
        "network": "host",
        "proc": "shared",
        "unix_sockets": "host",
        "memory": "per-process",
        "degraded": ["not-confined"],
    }
    assert outcome.to_json()["stdout"] == f"hi\n{os.geteuid()}\n"
    assert "WITHOUT a sandbox" in caplog.text


async def test_an_outcome_says_what_a_receipt_needs(opened: OpenScript) -> None:
    """What was run, with what, when, and the hashes of all that went in and came out."""
    outcome = await run(opened, backend="none")
    assert (outcome.skill, outcome.script, outcome.args, outcome.variables) == ("demo", "scripts/a.sh", ("hi",), ())
    assert outcome.skill_digest == opened.skill.digest is not None
    assert outcome.stdin_sha256 == outcome.ended.stderr.sha256
    assert outcome.stdin_sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert outcome.started_at <= outcome.ended_at
    assert outcome.started_at.utcoffset() is not None


async def test_a_script_that_is_changed_meanwhile(opened: OpenScript) -> None:
    """Before it runs, it does not; while it runs, the outcome claims no digest."""
    script = Path(opened.skill.path, opened.script)
    notes = Path(opened.skill.path, "notes.md")

    async def on_output(stream: str, data: bytes) -> None:
        notes.write_text("new")

    async with executing(backend="none") as one:
        outcome = await one.run(opened, Wish(), client=Client(0, 1), on_output=on_output)
        assert outcome.skill_digest is None
        notes.unlink()
        assert (await one.run(opened, Wish(), client=Client(0, 1))).skill_digest == opened.digest
        script.write_text("echo new\n")
        with pytest.raises(Stale):
            await one.run(opened, Wish(), client=Client(0, 1))
        script.unlink()
        with pytest.raises(Stale):
            await one.run(opened, Wish(), client=Client(0, 1))


@pytest.mark.parametrize("backend", ["bubblewrap", "landlock"])
async def test_names_that_an_author_made_to_hurt(opened: OpenScript, backend: str) -> None:
    """What a skill says of itself is one variable and no option, however it is written and however long it is."""
    if backend == "bubblewrap" and not os.path.exists(BWRAP):
        pytest.skip("MISSING RUNG bubblewrap: not installed")
    name = "x\0--bind\0/\0/host\ud800" + "y" * 200_000
    sly = replace(opened, skill=replace(opened.skill, name=name, metadata={"version": name}))
    async with executing(backend=backend) as one:
        outcome = await one.run(sly, Wish(("hi",)), client=Client(0, 1))
        plan = await one.explain(sly, Wish())
    assert outcome.ended.stdout.head.startswith(b"hi\n")
    assert dict(plan.environment)["SKILL_NAME"].startswith("x--bind//host?yyy")


def stub(directory: Path, text: str) -> str:
    """A program in place of bubblewrap."""
    path = directory / "bwrap"
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 1", "ended before the sandbox was made"),
        ("echo boom >&2; exit 1", "boom"),
        ("exec sleep 60", "did not make the sandbox within"),
        # Says that it made one, and runs the script without one.
        ('while test "$1" != --json-status-fd; do shift; done; eval "echo \'{\\"child-pid\\": \'$$\'}\' >&$2"; '
         'while test "$1" != --; do shift; done; shift; exec "$@"', "bwrap ended without running the script"),
        ('while test "$1" != --json-status-fd; do shift; done; fd=$2; eval "echo \'{\\"child-pid\\": \'$$\'}\' >&$fd"; '
         'while test "$1" != --; do shift; done; shift; "$@"; eval "echo \'{\\"exit-code\\": 0}\' >&$fd"',
         "a script could"),
        ('while test "$1" != --json-status-fd; do shift; done; eval "echo garbage >&$2"', "ended before"),
    ],
    ids=["fails", "says-why", "hangs", "execs", "does-nothing", "garbage"],
)  # fmt: skip
async def test_a_bubblewrap_that_does_not_hold(
    opened: OpenScript, tmp_path: Path, text: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing runs, and the caller is told what was tried; the canary catches one that does nothing."""
    monkeypatch.setattr(bubblewrap, "SETUP_TIMEOUT_S", 0.5)
    with pytest.raises(SandboxUnavailable) as caught:
        await run(opened, backend="bubblewrap", bwrap_path=stub(tmp_path, text))
    tried = caught.value.facts["tried"]
    assert tried[0]["backend"] == "bubblewrap"
    assert reason in tried[0]["reason"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.chmod(0o644), "cannot be executed"),
        (lambda path: path.chmod(0o4755), "setuid"),
        (lambda path: path.chmod(0o777), "written by others"),
        (lambda path: os.chown(path, 1, 1), "written by others"),
        (lambda path: (path.unlink(), path.mkdir()), "no absolute path of a program"),
    ],
)  # fmt: skip
async def test_a_bubblewrap_that_is_not_trusted(opened: OpenScript, tmp_path: Path, change: Any, reason: str) -> None:
    """It is not even started."""
    if os.geteuid() != 0:
        pytest.skip("only root makes the other kinds")
    path = stub(tmp_path, 'touch "$0.ran"')
    change(Path(path))
    with pytest.raises(SandboxUnavailable) as caught:
        await run(opened, backend="bubblewrap", bwrap_path=path)
    assert reason in caught.value.facts["tried"][0]["reason"]
    assert not os.path.exists(f"{path}.ran")


async def test_the_ladder_goes_down_and_says_so(opened: OpenScript, tmp_path: Path) -> None:
    """Without bubblewrap, Landlock is next."""
    async with executing(bwrap_path=str(tmp_path / "none")) as one:
        outcome = await one.run(opened, Wish(("hi",)), client=Client(0, 1))
        status = one.status()
    assert outcome.facts.backend == "landlock"
    assert outcome.facts.degraded
    assert [rejected["backend"] for rejected in status["rejected"]] == ["bubblewrap"]
    assert status["canary"]["passed"]


@needs_bubblewrap
def test_a_container_that_covers_parts_of_proc(tmp_path: Path) -> None:
    """There no fresh /proc can be mounted: the host's is shown, read-only, and the result says so."""
    mounts = """
        mount --make-rprivate /
        grep ' - proc' /proc/self/mountinfo | while read -r a b c d point e; do
          test "$point" = /proc || umount -l "$point"
        done
        mount --bind /dev/null /proc/uptime
    """
    code = """
        import asyncio, json
        from skilld.config import Execution
        from skilld.scripts.executor import Executor
        from skilld.scripts.kernel import hide_process

        async def main():
            executor = Executor(Execution())
            executor.begin()
            await executor._choosing
            print(json.dumps(executor.status()))
            await executor.close()

        hide_process()
        asyncio.run(main())
    """
    status = json.loads(run_with_mounts(mounts, code, tmp_path))
    assert (status["backend"], status["proc"], status["degraded"]) == ("bubblewrap", "shared", ["proc-shared"])
    assert "Can't mount proc" in status["rejected"][0]["reason"]


@needs_bubblewrap
async def test_a_sandbox_that_fails_later(opened: OpenScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fails closed, and no weaker sandbox takes over."""
    path = tmp_path / "bwrap"
    shutil.copy(BWRAP, path)
    async with executing(bwrap_path=str(path)) as one:
        await one.run(opened, Wish(), client=Client(0, 1))
        assert one.status()["backend"] == "bubblewrap"
        path.unlink()
        with pytest.raises(SandboxUnavailable):
            await one.run(opened, Wish(), client=Client(0, 1))
        with pytest.raises(SandboxUnavailable) as caught:
            await one.run(opened, Wish(), client=Client(0, 1))
        assert [tried["backend"] for tried in caught.value.facts["tried"]] == ["bubblewrap"]
        assert one.status()["backend"] is None
        # Once it is whole again, it is used again.
        shutil.copy(BWRAP, path)
        monkeypatch.setattr(executor, "RECHECK_S", 0.0)
        await one.run(opened, Wish(), client=Client(0, 1))
        assert one.status()["backend"] == "bubblewrap"


@needs_bubblewrap
@pytest.mark.parametrize("change", [{"filter": None}, {"namespaces": ("user", "pid", "ipc")}, {"mounts": "all"}])
async def test_the_canary_catches_a_plan_with_a_hole(
    opened: OpenScript, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """No filter, no network namespace, or the host's root in place of a list."""
    real = bubblewrap.start

    async def start(program: str, plan: Plan, *args: Any) -> bubblewrap.Bubblewrap:
        if change.get("mounts") == "all":
            mounts = tuple(replace(m, source="/", target="/") if m.source == "/usr" else m for m in plan.mounts)
            kept = tuple(m for m in mounts if m.target in ("/", "/proc", "/skill") and m.kind != "symlink")
            return await real(program, replace(plan, mounts=kept, cwd="/"), *args)
        return await real(program, replace(plan, **change), *args)

    monkeypatch.setattr(bubblewrap, "start", start)
    with pytest.raises(SandboxUnavailable) as caught:
        await run(opened, backend="bubblewrap")
    assert "a script could" in caught.value.facts["tried"][0]["reason"] or change.get("mounts")


async def test_the_canary_catches_no_sandbox_at_all() -> None:
    """Every attack that works outside is seen to work."""
    async with executing(backend="landlock") as one:
        pretender = _Pretender("none")
        verdict = await one._prove(pretender)
        await pretender.close()
    assert not verdict.passed
    holes = {name for name, found in verdict.checks.items() if found == "open"}
    assert {"read a secret file", "connect to a socket", "signal the daemon", "make a vsock socket"} <= holes | {
        name for name, found in verdict.checks.items() if found == "void"
    }
    assert "read a secret file" in verdict.reason


class _Pretender(LauncherRung):
    """No sandbox, which says that it is one."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self.facts = replace(self.facts, backend="landlock")


@pytest.mark.parametrize("stdout", [b"", b"null", b"{}", b"[]", b'{"mount": false}', b"{"])
def test_a_canary_that_says_nothing_proves_nothing(stdout: bytes) -> None:
    """Only a whole report counts."""
    nothing = Captured(b"", b"", 0, "")
    verdict = judge({}, Ended(0, None, False, Captured(stdout, b"", len(stdout), ""), nothing, 0.1))
    assert not verdict.passed


async def test_a_canary_that_cannot_fail_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the attacks fail outside, too."""
    monkeypatch.setattr(probe, "attempt", lambda order, names: dict.fromkeys(names, False))
    verdict = await canary.prove(None, 1)  # type: ignore[arg-type]  # is not called
    assert "proves nothing" in verdict.reason


async def test_a_prepared_environment(opened: OpenScript, tmp_path: Path) -> None:
    """A script that declares dependencies runs with the interpreter that was prepared for it, and only so."""
    venv = Path(opened.skill.root) / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python3").symlink_to("/usr/bin/python3")
    text = b'# /// script\n# dependencies = ["x"]\n# ///\n'
    script = replace(opened, script="scripts/b.py", head=text)
    async with executing(backend="none") as one:
        with pytest.raises(ScriptDependencies):
            await one.explain(script, Wish())
    async with executing(backend="none", environments=(f"demo/scripts/b.py={venv}",)) as one:
        plan = await one.explain(script, Wish())
    assert plan.argv[0] == f"{venv}/bin/python3"
    assert dict(plan.environment)["VIRTUAL_ENV"] == str(venv)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"extra_ro": ("/run",)}, "extra_ro"),
        ({"extra_ro": ("/",)}, "extra_ro"),
        ({"extra_ro": ("/store/skills",)}, "extra_ro"),
        ({"environments": ("demo/scripts/a.py=/run",)}, "environments"),
        ({"environments": ("demo=/opt",)}, "environments"),
        ({"environments": ("demo/scripts/a.py",)}, "environments"),
        ({"interpreters": ("py",)}, "interpreters"),
    ],
)
def test_settings_that_are_refused_at_start(settings: dict[str, Any], key: str) -> None:
    """They would show a script what it must not see; the key is named."""
    config = Config(skills_dir=("/store/skills",), socket="/run/skilld/s", execution=Execution(**settings))
    with pytest.raises(ConfigError, match=f"^execution.{key}: "):
        check_settings(config)


async def test_nothing_is_left_of_the_parts(opened: OpenScript) -> None:
    """Closing ends the fork server; again is no error."""
    one = Executor(Execution(backend="landlock"))
    await one.run(opened, Wish(), client=Client(0, 1))
    before = threading.active_count()
    await one.close()
    await one.close()
    assert threading.active_count() <= before
    assert executor.log.name == "skilld.scripts.executor"
