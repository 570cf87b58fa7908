"""The command line and the client library against a real daemon process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skilld.client import AsyncSkilldClient, Changes, SkilldClient, Summary
from skilld.client.tracker import Tracker
from skilld.errors import Busy, FileNotFound, InvalidParams, MethodNotFound, SkillNotFound, TooLarge
from tests.functional.conftest import Daemon, save

PATIENCE_S = 20.0

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def skilld(daemon: Daemon) -> Run:
    """Run one command as a process: exit code, standard output, standard error."""

    def run(*args: str | Path) -> tuple[int, str, str]:
        done = subprocess.run(
            command(*args), capture_output=True, text=True, timeout=PATIENCE_S, env=environ(daemon.socket_path)
        )
        return done.returncode, done.stdout, done.stderr

    return run


def command(*args: str | Path) -> list[str]:
    """The words of a command."""
    return [sys.executable, "-m", "skilld", *map(str, args)]


def environ(endpoint: Path) -> dict[str, str]:
    """An environment whose daemon is at an endpoint."""
    return {**os.environ, "SKILLD_ENDPOINT": str(endpoint), "SKILLD_CONFIG": os.devnull}


@pytest.fixture
def client(daemon: Daemon) -> Iterator[SkilldClient]:
    """A client of the daemon."""
    with SkilldClient(str(daemon.socket_path), timeout=PATIENCE_S) as client:
        yield client


# The command line.


def test_reading_skills(skilld: Run, daemon: Daemon, root: Path) -> None:
    """Every command shows what is on the disk."""
    save(root / "team/pdf", "Fill in PDF forms.", "Use pypdf.", name="pdf")
    (root / "team/pdf/notes.bin").write_bytes(b"\xff\x00")
    (root / "broken").mkdir()
    (root / "broken/SKILL.md").write_text("no frontmatter\n")
    daemon.call("skills.list", sync_timeout_ms=20_000)

    assert skilld("ping") == (0, "ok\n", "")
    assert skilld("list") == (0, "team/pdf  Fill in PDF forms.\n", "")
    assert json.loads(skilld("list", "--json", "--root", root)[1])["total"] == 1
    assert skilld("search", "form")[1].endswith("  team/pdf  Fill in PDF [forms].\n")
    code, out, _ = skilld("show", "pdf")
    assert (code, out.splitlines()[:3]) == (
        0,
        ["id:            team/pdf", "name:          pdf", "description:   Fill in PDF forms."],
    )
    assert skilld("show", "pdf", "--body")[1].strip() == "Use pypdf."
    assert "<skill_content" in skilld("show", "pdf", "--prompt")[1]
    assert "<name>pdf</name>" in skilld("prompt", "pdf")[1]
    assert skilld("problems")[1].startswith(f"{root}/broken/SKILL.md")
    assert f"root         {root}: 1 skills\n" in skilld("status")[1]
    assert json.loads(skilld("call", "skills.get", "name=pdf")[1])["id"] == "team/pdf"
    file = subprocess.run(
        command("show", "pdf", "--file", "notes.bin"), capture_output=True, env=environ(daemon.socket_path)
    )
    assert (file.returncode, file.stdout, file.stderr) == (0, b"\xff\x00", b"")


def test_refusals(skilld: Run, root: Path, daemon: Daemon) -> None:
    """What the daemon refuses is exit code 1 and its own words on one line."""
    save(root / "pdf", "Fill in PDF forms.")
    daemon.call("skills.list", sync_timeout_ms=20_000)
    for args, word in (
        (("show", "pfd"), "'pfd'"),
        (("show", "pdf", "--file", "none"), "'none'"),
        (("call", "skills.gett"), "'skills.gett'"),
        (("call", "skills.get", "nom=pdf"), "nom"),
        (("list", "--root", "/none"), "/none"),
    ):
        code, out, err = skilld(*args)
        assert (code, out, err.count("\n"), word in err) == (1, "", 1, True), (args, err)


def test_validating(skilld: Run, root: Path, tmp_path: Path, daemon: Daemon) -> None:
    """A skill is held against the specification by name, and by path before it is served."""
    save(root / "pdf", "Fill in PDF forms.")
    save(tmp_path / "draft", "x" * 2_000, name="Draft!")
    daemon.call("skills.list", sync_timeout_ms=20_000)
    assert skilld("validate", "pdf") == (0, "pdf: valid\n", "")
    code, out, _ = skilld("validate", tmp_path / "draft")
    assert code == 1
    assert all(line.startswith(f"{tmp_path}/draft/SKILL.md:") for line in out.splitlines())
    assert "name" in out and "description" in out


def test_an_edit_that_is_refused_is_kept(
    skilld: Run, daemon: Daemon, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody wrote in the editor outlives a conflict."""
    save(root / "pdf", "Fills forms.", "Use pypdf.")
    daemon.call("skills.list", sync_timeout_ms=20_000)
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\necho mine >> \"$1\"\necho theirs >> '{root}/pdf/SKILL.md'\n")
    editor.chmod(0o755)
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setenv("TMPDIR", str(kept))
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    code, out, err = skilld("edit", "pdf")
    [path] = kept.iterdir()
    assert (code, out, path.read_text()) == (1, "", "Use pypdf.\nmine\n")
    where, why = err.splitlines()
    assert (where, why[:26]) == (f"skilld: your text is kept in {path}", "skilld: the skill changed:")
    assert daemon.call("skills.get", name="pdf", sync_timeout_ms=20_000)["body"] == "Use pypdf.\ntheirs\n"


def test_watching(daemon: Daemon, root: Path) -> None:
    """Each change of the disk is a line as it happens."""
    revision = daemon.call("skills.list", sync_timeout_ms=20_000)["revision"]
    with subprocess.Popen(
        command("watch", "--since", revision),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(daemon.socket_path),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        save(root / "pdf", "Fill in PDF forms.")
        assert process.stdout.readline() == "+ pdf\n"
        save(root / "pdf", "Read and fill in PDF forms.")
        assert process.stdout.readline() == "~ pdf\n"
        shutil.rmtree(root / "pdf")
        assert process.stdout.readline() == "- pdf\n"
        process.send_signal(signal.SIGINT)
        assert (process.wait(PATIENCE_S), process.stdout.read(), process.stderr.read().strip()) == (130, "", "")


def test_serve_ends_as_it_says(daemon: Daemon, short_dir: Path, root: Path, tmp_path: Path) -> None:
    """0 after a signal, 2 for a wrong setting, 3 where another daemon serves; the first one is unharmed."""

    def serve(*args: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command("serve", "--skills-dir", root, "--cache-dir", "none", *args),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=environ(daemon.socket_path),
        )

    second = serve("--socket", daemon.socket_path)
    assert (second.returncode, str(daemon.socket_path) in second.stderr) == (3, True)
    wrong = tmp_path / "skilld.yaml"
    wrong.write_text("sockt: x\n")
    bad = serve("--config", wrong)
    assert (bad.returncode, bad.stderr) == (2, f"skilld: {wrong}: unknown key 'sockt'\n")
    daemon.call("skilld.ping")
    assert daemon.stop(signal.SIGINT) == 0
    assert not daemon.socket_path.exists()


def test_serve_reads_its_file(short_dir: Path, root: Path) -> None:
    """The file counts where no flag does; logs are as it says."""
    file = short_dir / "skilld.yaml"
    file.write_text("log: {format: json}\nlimits: {nesting: 9}\n")
    save(root / "pdf", "Fill in PDF forms.")
    running = Daemon([root], short_dir, config=file, limits_batch=7)
    try:
        limits = running.call("skilld.status")["limits"]
        assert (limits["nesting"], limits["batch"]) == (9, 7)
    finally:
        running.stop()
    records = [json.loads(line) for line in running.log_path.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= records[0].keys()


# The client.


def test_every_read(client: SkilldClient, daemon: Daemon, root: Path) -> None:
    """What the real daemon answers fits the client's types."""
    save(root / "pdf", "Fill in PDF forms.", "Use pypdf.")
    (root / "pdf/scripts").mkdir()
    (root / "pdf/scripts/a.py").write_text("print('é')\n")
    listing = client.list(sync_timeout_ms=20_000)
    assert listing.skills == (Summary("pdf", "pdf", "Fill in PDF forms."),)
    assert [hit.id for hit in client.search("forms")] == ["pdf"]
    skill = client.get("pdf")
    assert (skill.scripts, skill.body.strip(), skill.problems) == (("scripts/a.py",), "Use pypdf.", ())
    assert [(file.path, file.size) for file in skill.resources] == [("scripts/a.py", 12)]
    assert client.read_file("pdf", "scripts/a.py") == "print('é')\n".encode()
    assert client.read_slice("pdf", "scripts/a.py", offset=6, limit=4).size == 12
    assert client.validate("pdf").valid
    assert not client.validate(content="nothing").valid
    assert client.problems() == ()
    assert "<name>pdf</name>" in client.prompt(["pdf"])
    assert "Use pypdf." in client.activate("pdf")
    assert client.changes(listing.revision) == Changes(listing.revision)
    assert client.changes("other:1").complete is False
    status = client.status()
    assert (status.roots[0].skills, status.revision, status.watcher.alive) == (1, listing.revision, True)
    assert "skills.get" in {method["name"] for method in client.discover()["methods"]}
    client.ping()


def test_errors_are_classes(client: SkilldClient, root: Path) -> None:
    """A caller reacts to a class, and finds the facts in it."""
    save(root / "pdf", "Fill in PDF forms.")
    client.list(sync_timeout_ms=20_000)
    with pytest.raises(SkillNotFound) as caught:
        client.get("pfd")
    assert caught.value.facts == {"name": "pfd", "did_you_mean": ["pdf"]}
    with pytest.raises(FileNotFound):
        client.read_file("pdf", "none")
    with pytest.raises(InvalidParams) as refused:
        client.search("x", limit=101)
    assert refused.value.facts["field"] == "limit"
    with pytest.raises(MethodNotFound):
        client.call("skills.none")


def test_many_skills_and_a_large_file(client: SkilldClient, root: Path) -> None:
    """Lists of several pages and files of several slices arrive whole."""
    for number in range(1_100):
        save(root / f"s{number:04}", "Does things.")
    content = os.urandom(2_500_000)
    (root / "s0000/data").write_bytes(content)
    listing = client.list(sync_timeout_ms=20_000)
    assert [skill.id for skill in listing] == [f"s{number:04}" for number in range(1_100)]
    assert client.read_file("s0000", "data") == content


def test_a_daemon_that_starts_again(client: SkilldClient, daemon: Daemon, root: Path) -> None:
    """Calls go on as if nothing had happened; a subscription says that it cannot tell what did."""
    with client.subscribe() as changes:
        save(root / "pdf", "Fill in PDF forms.")
        assert next(changes).added == ("pdf",)
        daemon.stop()
        save(root / "excel", "Read spreadsheets.")
        daemon.start()
        missed = next(changes)
        assert missed.complete is False
        known = client.list()
        assert {skill.id for skill in known} == {"pdf", "excel"}
        shutil.rmtree(root / "pdf")
        change = next(changes)
        while not change.removed:  # the new run may still be adding what it found
            change = next(changes)
        assert change.removed == ("pdf",)


def test_a_slow_subscriber_misses_nothing(short_dir: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more changes than the daemon keeps for one who does not read: all of them are told in the end."""
    asked: list[Changes] = []
    caught_up = Tracker.caught_up

    def count(tracker: Tracker, changes: Changes) -> Changes | None:
        asked.append(changes)
        return caught_up(tracker, changes)

    monkeypatch.setattr(Tracker, "caught_up", count)
    running = Daemon([root], short_dir, limits_send_buffer_bytes=1_024)
    try:
        with SkilldClient(str(running.socket_path), timeout=PATIENCE_S) as client, client.subscribe() as changes:
            # Long names, to fill the kernel's buffer soon.
            wanted = [f"skill-{number}-{'x' * 200}" for number in range(2_500)]
            for number, id in enumerate(wanted, 1):
                save(root / id, "Does things.")
                if number % 250 == 0:  # a daemon that is busy would tell of all of them at once
                    client.list(sync_timeout_ms=20_000)
            told: list[str] = []
            while len(told) < len(wanted):
                change = next(changes)
                assert change.complete
                told += change.added
            assert sorted(told) == sorted(wanted)
            assert asked
    finally:
        running.stop()


def test_limits(short_dir: Path, root: Path) -> None:
    """A message that is too long and a connection too many are errors of their own; the client goes on."""
    running = Daemon([root], short_dir, limits_message_bytes=2_048, limits_connections=2)
    try:
        path = str(running.socket_path)
        with SkilldClient(path) as first, SkilldClient(path) as second, SkilldClient(path) as third:
            with pytest.raises(TooLarge):
                first.validate(content="x" * 5_000)
            first.ping()
            second.ping()
            with pytest.raises(Busy):
                third.ping()
            second.close()
            with contextlib.suppress(Busy):
                third.ping()
    finally:
        running.stop()


async def test_the_asyncio_client(daemon: Daemon, root: Path) -> None:
    """Many calls share a connection, while a subscription and a long poll wait."""
    save(root / "pdf", "Fill in PDF forms.")
    async with AsyncSkilldClient(str(daemon.socket_path), timeout=PATIENCE_S) as client:
        listing = await client.list(sync_timeout_ms=20_000)
        async with client.subscribe() as changes:
            poll = asyncio.create_task(client.changes(listing.revision, wait_ms=20_000))
            results: list[Any] = await asyncio.gather(
                *(client.get("pdf") for _ in range(200)), *(client.get("none") for _ in range(20)),
                return_exceptions=True,
            )  # fmt: skip
            assert [result.id for result in results[:200]] == ["pdf"] * 200
            assert all(isinstance(result, SkillNotFound) for result in results[200:])
            assert (await client.status()).connections == 2
            save(root / "excel", "Read spreadsheets.")
            assert (await poll).added == ("excel",)
            assert (await anext(changes)).added == ("excel",)
