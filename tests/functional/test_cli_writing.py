"""The commands that write, against a real daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.functional.conftest import Daemon


def skilld(daemon: Daemon, *args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run one command."""
    return subprocess.run(
        [sys.executable, "-m", "skilld", *args],
        input=stdin,
        env={**os.environ, "SKILLD_ENDPOINT": str(daemon.socket_path), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_create_edit_delete(daemon: Daemon, root: Path, tmp_path: Path) -> None:
    """A skill's life from the command line: made with a script, changed by option and editor, deleted."""
    script = tmp_path / "hi.sh"
    script.write_text("#!/bin/sh\necho hi\n")
    made = skilld(
        daemon, "create", "say-hi", "-d", "Says hi.", "--body", "-", "--script", f"hi.sh={script}", stdin="# Say hi\n"
    )
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.split() == ["say-hi", daemon.call("skills.get", name="say-hi")["digest"]]
    assert (root / "say-hi/SKILL.md").read_text() == "---\nname: say-hi\ndescription: Says hi.\n---\n\n# Say hi\n"
    assert (root / "say-hi/scripts/hi.sh").stat().st_mode & 0o111
    assert skilld(daemon, "edit", "say-hi", "-d", "Greets.").returncode == 0
    assert skilld(daemon, "edit", "say-hi", EDITOR="sed -i s/hi/hello/").returncode == 0
    skill = daemon.call("skills.get", name="say-hi")
    assert (skill["description"], skill["body"]) == ("Greets.", "# Say hello\n")
    refused = skilld(daemon, "delete", "say-hi", stdin="n\n")
    assert (refused.returncode, (root / "say-hi").exists()) == (130, True)
    assert skilld(daemon, "delete", "say-hi", "--yes").stdout == "deleted say-hi\n"
    assert not (root / "say-hi").exists()


def test_every_broken_rule_is_told(daemon: Daemon) -> None:
    """A refusal lists all violations, each with its field, and ends with 1."""
    done = skilld(daemon, "create", "Say--Hi", "-d", "")
    assert done.returncode == 1
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["name", "name", "description"]


def test_the_dialogue_makes_a_skill(daemon: Daemon, root: Path) -> None:
    """Six answers make a skill; an end of the input in mid-dialogue leaves nothing."""
    answers = "weekly report, status\n\nInput: tickets\nOutput: a summary\n\nsimple\n\nask\n\nyes\n"
    done = skilld(daemon, "new", "teach you to write the weekly report", stdin=answers)
    assert done.returncode == 0, done.stderr
    created = done.stdout.splitlines()[-1].rpartition("created ")[2]
    assert (root / created / "SKILL.md").exists()
    assert daemon.call("skills.search", query="status")["skills"][0]["id"] == created
    stopped = skilld(daemon, "new", stdin="something\n\n")
    assert (stopped.returncode, len(list(root.iterdir()))) == (130, 1)


def test_digests_agree(daemon: Daemon, root: Path, tmp_path: Path) -> None:
    """The daemon's digest is that of the directory, with and without a daemon; a shell gives a skill's."""
    for name in ("a", "b"):
        assert skilld(daemon, "create", name, "-d", "x").returncode == 0
    digest = daemon.call("skilld.status")["digest"]
    assert skilld(daemon, "digest").stdout == f"{digest}\n"
    assert skilld(daemon, "digest", str(root), SKILLD_ENDPOINT="/nowhere").stdout == f"{digest}\n"
    listing = subprocess.run(
        "sha256sum SKILL.md | sha256sum", shell=True, cwd=root / "a", capture_output=True, text=True, check=True
    )
    assert skilld(daemon, "digest", str(root / "a")).stdout == f"sha256:{listing.stdout[:64]}\n"
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/SKILL.md").symlink_to("/etc/hostname")
    assert skilld(daemon, "digest", str(tmp_path / "odd")).returncode == 1
