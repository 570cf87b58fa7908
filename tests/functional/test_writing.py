"""Creating, changing and deleting skills over a real socket."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import Daemon, save


def test_create_and_get_skill(daemon: Daemon, root: Path) -> None:
    """A created skill is served, found by search and on the disk at once, exactly as it was given."""
    made = daemon.call(
        "skills.create",
        name="pdf-forms",
        description="Fill in PDF forms: \u201call\u201d of them. Use for quokkas.",
        body="# Forms\n\nDo it.",
        license="MIT",
        metadata={"author": "me"},
        allowed_tools=["Read", "Bash(git add:*)"],
        scripts={"fill.py": "#!/usr/bin/env python3\n", "scripts/sub/x.py": "x"},
        assets={"logo.bin": {"base64": base64.b64encode(bytes(range(256))).decode()}},
    )
    assert daemon.call("skills.get", name="pdf-forms") == made
    assert made["body"] == "# Forms\n\nDo it."
    assert made["allowed_tools"] == ["Read", "Bash(git add:*)"]
    assert made["scripts"] == ["scripts/fill.py", "scripts/sub/x.py"]
    assert [hit["id"] for hit in daemon.call("skills.search", query="quokka")["skills"]] == ["pdf-forms"]
    assert (root / "pdf-forms/assets/logo.bin").read_bytes() == bytes(range(256))
    assert [resource["executable"] for resource in made["resources"]] == [False, True, False]
    assert daemon.call("skills.validate", name="pdf-forms") == {"valid": True, "problems": []}
    assert daemon.error("skills.create", name="pdf-forms", description="x", body="")["data"] == {
        "reason": "skill-exists", "name": "pdf-forms",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["", "Upper", "two--hyphens", "-edge", "edge-", "a b", "a/b", "..", "x" * 65, "search", "prompt", "a\0b"]
)
def test_create_skill_invalid_name(daemon: Daemon, root: Path, name: str) -> None:
    """A name against the rules is refused with its field, and nothing is written."""
    data = daemon.error("skills.create", name=name, description="x", body="")["data"]
    assert data["reason"] == "skill-invalid"
    assert {problem["field"] for problem in data["problems"]} == {"name"}
    assert list(root.iterdir()) == []


def test_every_violation_is_listed(daemon: Daemon, root: Path) -> None:
    """One answer names all that is wrong."""
    data = daemon.error(
        "skills.create",
        name="Bad Name",
        description="",
        body="",
        compatibility="x" * 501,
        scripts={"../x": "", "/etc/passwd": "", "a//b": "", "a\0": "", "ok": "", "OK": ""},
    )["data"]
    fields = [problem["field"] for problem in data["problems"]]
    assert {"name", "description", "compatibility"} <= set(fields)
    assert sum(field.startswith("scripts") for field in fields) >= 5
    assert list(root.iterdir()) == []


def test_update_skill(daemon: Daemon, root: Path) -> None:
    """An update changes what it was asked to change; every other byte of a hand-written file stays."""
    text = (
        "---\n# who reads this?\nname:   pdf\ndescription: >-\n  Old words\n  in two lines.   # no comment\n"
        "custom: {a: [1, 2]}   # mine\n'license': \"MIT\"\n---\n\n# Body\r\n"
    )
    (root / "pdf").mkdir()
    (root / "pdf/SKILL.md").write_bytes(text.encode())
    daemon.call("skills.list", sync_timeout_ms=20_000)
    made = daemon.call("skills.update", name="pdf", description="New: words", references={"a.md": "x"})
    assert (made["description"], made["references"]) == ("New: words", ["references/a.md"])
    after = (root / "pdf/SKILL.md").read_bytes().decode()
    start, end = text.index(">-"), text.index("custom:")
    assert after.startswith(text[:start]) and after.endswith(text[end:])
    made = daemon.call("skills.update", name="pdf", body="Short.", references={"a.md": None})
    assert (made["body"], made["references"], made["description"]) == ("Short.", [], "New: words")


def test_a_lost_update_is_a_conflict(daemon: Daemon, root: Path) -> None:
    """With if_digest a change that somebody made meanwhile wins; without it nothing of theirs is lost either."""
    digest = daemon.call("skills.create", name="pdf", description="one", body="Body.")["digest"]
    path = root / "pdf/SKILL.md"
    path.write_text(path.read_text().replace("Body.", "Body by hand."))
    data = daemon.error("skills.update", name="pdf", description="two", if_digest=digest)["data"]
    assert (data["reason"], data["expected"]) == ("conflict", digest)
    assert daemon.error("skills.delete", name="pdf", if_digest=digest)["data"]["reason"] == "conflict"
    path.write_text(path.read_text().replace("by hand", "by hand again"))
    made = daemon.call("skills.update", name="pdf", description="two")
    assert (made["description"], made["body"].rstrip()) == ("two", "Body by hand again.")


def test_delete_skill(daemon: Daemon, root: Path) -> None:
    """A deleted skill is gone from disk, registry and search; a second delete finds none."""
    daemon.call("skills.create", name="pdf", description="quokka", body="", scripts={"a.sh": "x"})
    assert daemon.call("skills.delete", name="pdf") == {"deleted": "pdf"}
    assert list(root.iterdir()) == []
    assert daemon.call("skills.search", query="quokka")["total"] == 0
    assert daemon.error("skills.delete", name="pdf")["data"]["reason"] == "skill-not-found"


def test_rest_routes(daemon: Daemon) -> None:
    """The same calls over HTTP, with the statuses of the API."""
    status, made = daemon.http("POST", "/skills", {"name": "pdf", "description": "x", "body": ""})
    assert (status, made["id"]) == (201, "pdf")
    assert daemon.http("POST", "/skills", {"name": "pdf", "description": "x", "body": ""})[0] == 409
    assert daemon.http("POST", "/skills", {"name": "P", "description": "x", "body": ""})[0] == 422
    assert daemon.http("PUT", "/skills/pdf", {"description": "y"})[1]["description"] == "y"
    assert daemon.http("DELETE", "/skills/pdf") == (200, {"deleted": "pdf"})
    assert daemon.http("DELETE", "/skills/pdf")[0] == 404


def test_nothing_is_written_through_a_link(daemon: Daemon, root: Path, tmp_path: Path) -> None:
    """What a link leads to stays as it is, be the skill directory, its SKILL.md or a folder of it the link."""
    outside = tmp_path / "outside"
    save(outside / "shared", "x")
    (root / "shared").symlink_to(outside / "shared")
    (root / "file").mkdir()
    (root / "file/SKILL.md").symlink_to(outside / "shared/SKILL.md")
    save(root / "folder", "x")
    (root / "folder/scripts").symlink_to(outside)
    daemon.call("skills.list", sync_timeout_ms=20_000)
    before = (outside / "shared/SKILL.md").read_bytes()
    for name in ("shared", "file"):
        assert daemon.error("skills.update", name=name, description="y")["data"]["reason"] == "read-only"
    assert daemon.error("skills.delete", name="shared")["data"]["reason"] == "read-only"
    # The directory is the skill's own; of what its SKILL.md leads to, only the link goes.
    assert daemon.call("skills.delete", name="file") == {"deleted": "file"}
    error = daemon.error("skills.update", name="folder", scripts={"x.sh": "evil"})
    assert error["data"]["reason"] in ("read-only", "skill-invalid")
    assert (outside / "shared/SKILL.md").read_bytes() == before
    assert sorted(path.name for path in outside.iterdir()) == ["shared"]


def test_peers_without_the_role_write_nothing(root: Path, short_dir: Path) -> None:
    """A peer of another user and group may read, over both framings, and is refused everything that writes."""
    if os.getuid() != 0:
        pytest.skip("needs root to become somebody else")
    daemon = Daemon([root], short_dir)
    try:
        short_dir.chmod(0o755)
        daemon.socket_path.chmod(0o666)
        daemon.call("skills.create", name="pdf", description="x", body="")
        code = (
            "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
            "s.sendall(sys.stdin.buffer.read()); s.shutdown(socket.SHUT_WR)\n"
            "print(s.makefile().read())"
        )
        text = (
            '[{"jsonrpc":"2.0","id":1,"method":"skills.get","params":["pdf"]},'
            '{"jsonrpc":"2.0","id":2,"method":"skills.delete","params":["pdf"]},'
            '{"jsonrpc":"2.0","id":3,"method":"factory.start"}]\n'
        )
        done = subprocess.run(
            ["/usr/bin/python3", "-c", code, daemon.socket_path], input=text, capture_output=True, text=True, check=True
        )
        assert done.stdout.count('"forbidden"') == 2
        assert '"result":{"id":"pdf"' in done.stdout
        assert "refused skills.delete to uid 65534" in daemon.log_path.read_text()
        assert (root / "pdf").exists()
    finally:
        daemon.stop()


def test_writers_and_an_editor_at_once(daemon: Daemon, root: Path) -> None:
    """Two writers and a hand editor on one skill: every state that can be seen is one that somebody wrote."""
    daemon.call("skills.create", name="pdf", description="start", body="start\n", references={"a.md": "start"})
    errors: list[dict[str, Any]] = []

    def write(who: str) -> None:
        for number in range(8):
            text = f"{who}{number}"
            reply = daemon.request(
                "skills.update", {"name": "pdf", "description": text, "body": f"{text}\n", "references": {"a.md": text}}
            )
            if "error" in reply:
                errors.append(reply["error"]["data"])

    writers = [threading.Thread(target=write, args=(who,)) for who in ("a", "b")]
    for writer in writers:
        writer.start()
    edits = 0
    while any(writer.is_alive() for writer in writers):
        edits += 1
        staged = root / "pdf" / f"edit-{edits}"
        try:
            staged.write_text(f"---\nname: pdf\ndescription: hand{edits}\n---\n\nhand{edits}\n")
            staged.rename(root / "pdf/SKILL.md")
        except FileNotFoundError:
            continue  # the directory was exchanged in between
        seen = (root / "pdf/SKILL.md").read_text()
        description = seen.partition("description: ")[2].split("\n")[0]
        assert seen == f"---\nname: pdf\ndescription: {description}\n---\n\n{description}\n"
    for writer in writers:
        writer.join()
    assert {error["reason"] for error in errors} <= {"busy", "conflict"}
    assert daemon.call("skills.get", name="pdf", sync_timeout_ms=20_000)["id"] == "pdf"
    assert [path.name for path in root.iterdir()] == ["pdf"]


def answer_all(daemon: Daemon, session_id: str, *answers: str) -> dict[str, Any]:
    reply: dict[str, Any] = {}
    for answer in answers:
        reply = daemon.call("factory.continue", session_id=session_id, input=answer)
    return reply


def test_factory_full_flow(daemon: Daemon) -> None:
    """The six steps in order, with their prompts word for word, a preview, and the skill at the end."""
    reply = daemon.call("factory.start")
    steps = [(reply["step"], reply["prompt"])]
    for answer in ("write the weekly report", "weekly report", "Input: tickets Output: summary", "simple", "ask"):
        reply = daemon.call("factory.continue", session_id=reply["session_id"], input=answer)
        steps.append((reply["step"], reply["prompt"]))
    assert [step for step, _ in steps] == ["goal", "trigger", "example", "complexity", "edge_cases", "confirm"]
    assert steps[0][1] == "What task do you want me to help with? Give me the high-level goal."
    assert steps[5][1].endswith("Does this capture what you want? Say 'yes' to create.")
    assert reply["preview"].startswith("---\nname: ")
    assert daemon.call("factory.get", session_id=reply["session_id"]) == reply
    done = daemon.call("factory.continue", session_id=reply["session_id"], input="yes")
    assert (done["step"], done["done"], done["skill"]["id"]) == ("done", True, done["skill"]["name"])


def test_factory_creates_skill(daemon: Daemon, root: Path) -> None:
    """What the dialogue makes is on the disk, valid, as it was previewed, and found by its trigger words."""
    session_id = daemon.call("factory.start", initial_input="teach you to redact numbat diaries")["session_id"]
    reply = answer_all(
        daemon, session_id, "numbat diary, wombat log", "gives: a \u2192 b", "complex: needs a script", "say so"
    )
    skill = answer_all(daemon, session_id, "yes")["skill"]
    assert (root / skill["id"] / "SKILL.md").read_text() == reply["preview"]
    assert daemon.call("skills.validate", name=skill["id"])["valid"] is True
    assert daemon.call("skills.search", query="wombat log")["skills"][0]["id"] == skill["id"]
    whole = daemon.call("skills.get", name=skill["id"])
    assert whole["scripts"] and whole["assets"]
    assert all(resource["executable"] for resource in whole["resources"] if resource["path"].startswith("scripts/"))


def test_factory_session_not_found(daemon: Daemon) -> None:
    """A session that never was, or was cancelled, is not there."""
    session_id = daemon.call("factory.start")["session_id"]
    assert daemon.call("factory.cancel", session_id=session_id) == {"cancelled": session_id}
    for method, params in [
        ("factory.continue", {"session_id": session_id, "input": "x"}),
        ("factory.get", {"session_id": "nope"}),
        ("factory.cancel", {"session_id": session_id}),
    ]:
        assert daemon.error(method, **params)["data"] == {
            "reason": "session-not-found", "session_id": params["session_id"],
        }  # fmt: skip


def test_check_trigger_phrases(daemon: Daemon) -> None:
    """Phrases are found whatever their case, and only as whole words."""
    assert daemon.call("factory.check", input="Please LEARN  how to do it") == {
        "triggers_factory": True, "matched_phrases": ["learn how"],
    }  # fmt: skip
    assert daemon.call("factory.check", input="unlearn thistle") == {"triggers_factory": False, "matched_phrases": []}
