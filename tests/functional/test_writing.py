"""Creating, changing and deleting skills, over a real socket of a real daemon."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.functional.conftest import Daemon, save

ROUTES = {
    "skills.create": ("POST", "/skills"),
    "skills.update": ("PUT", "/skills/{name}"),
    "skills.delete": ("DELETE", "/skills/{name}"),
    "skills.get": ("GET", "/skills/{name}"),
}

# A result, or an error's member.
Call = Callable[..., Any]


@pytest.fixture(params=["ndjson", "http", "rest"])
def call(request: pytest.FixtureRequest, daemon: Daemon) -> Call:
    """The same call over each way in; an error comes back as ``{"error": ...}`` from all of them."""

    def by_rest(method: str, **params: Any) -> Any:
        verb, path = ROUTES[method]
        if "{name}" in path:
            path = path.replace("{name}", quote(params.pop("name"), safe=""))
        status, reply = daemon.http(verb, path, params if verb != "GET" else None)
        assert status == (201 if method == "skills.create" else 200) or "error" in reply
        return reply

    def unwrapped(reply: dict[str, Any]) -> Any:
        return reply["result"] if "result" in reply else {"error": reply["error"]}

    def by_http(method: str, **params: Any) -> Any:
        return unwrapped(daemon.http("POST", "/", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})[1])

    def by_lines(method: str, **params: Any) -> Any:
        return unwrapped(daemon.request(method, params))

    return {"ndjson": by_lines, "http": by_http, "rest": by_rest}[request.param]


def test_create_and_get_skill(call: Call, daemon: Daemon, root: Path) -> None:
    """What was given is on the disk, in the reply, and in what everybody reads."""
    created = call(
        "skills.create",
        name="pdf",
        description="Fill: forms",
        body="# Fill\n\nDo it.\n",
        license="MIT",
        compatibility="Python 3",
        metadata={"author": "me", "version": "1.0"},
        allowed_tools=["Read", "Bash(git add:*)"],
        scripts={"run.py": "#!/usr/bin/env python3\nprint('hi')\n", "scripts/lib/x.py": "x = 1\n"},
        references={"deep/r.md": "r"},
        assets={"a.bin": {"base64": base64.b64encode(bytes(range(256))).decode()}},
    )
    expected = {
        "id": "pdf",
        "name": "pdf",
        "description": "Fill: forms",
        "license": "MIT",
        "compatibility": "Python 3",
        "metadata": {"author": "me", "version": "1.0"},
        "allowed_tools": ["Read", "Bash(git add:*)"],
        "body": "# Fill\n\nDo it.\n",
        "scripts": ["scripts/lib/x.py", "scripts/run.py"],
        "references": ["references/deep/r.md"],
        "assets": ["assets/a.bin"],
        "path": str(root / "pdf"),
        "root": str(root),
        "problems": [],
    }
    assert {key: created[key] for key in expected} == expected
    assert call("skills.get", name="pdf") == created
    assert (root / "pdf/assets/a.bin").read_bytes() == bytes(range(256))
    assert {entry["path"]: entry["executable"] for entry in created["resources"]} == {
        "assets/a.bin": False, "references/deep/r.md": False, "scripts/lib/x.py": False, "scripts/run.py": True,
    }  # fmt: skip
    assert (root / "pdf/SKILL.md").read_text() == (
        "---\nname: pdf\ndescription: 'Fill: forms'\nlicense: MIT\ncompatibility: Python 3\n"
        "allowed-tools: 'Read Bash(git add:*)'\nmetadata:\n  author: me\n  version: '1.0'\n---\n\n# Fill\n\nDo it.\n"
    )
    assert daemon.call("skills.search", query="forms")["skills"][0]["id"] == "pdf"
    assert daemon.call("skills.validate", name="pdf")["valid"] is True


def test_create_skill_invalid_name(call: Call, root: Path) -> None:
    """The name is named, with every other violation, and nothing is written."""
    for name in ("Invalid Name!", "", "-a", "../x", "a/b", "search", "x" * 65):
        error = call("skills.create", name=name, description="x", body="")["error"]
        assert (error["code"], error["data"]["reason"]) == (-32003, "skill-invalid")
        assert {problem["field"] for problem in error["data"]["problems"]} == {"name"}
    error = call("skills.create", name="A", description=" ", body="", scripts={"../x": ""}, compatibility="x" * 501)
    assert [problem["field"] for problem in error["error"]["data"]["problems"]] == [
        "name", "description", "compatibility", "scripts",
    ]  # fmt: skip
    assert os.listdir(root) == []


def test_create_twice(call: Call, root: Path) -> None:
    """The second is told that it exists; the first stays."""
    call("skills.create", name="pdf", description="first", body="")
    error = call("skills.create", name="pdf", description="second", body="")["error"]
    assert (error["code"], error["data"]) == (-32002, {"reason": "skill-exists", "name": "pdf"})
    assert call("skills.get", name="pdf")["description"] == "first"


def test_update_skill(call: Call, daemon: Daemon, root: Path) -> None:
    """Only what is given changes; the author's comments and order stay; null removes a file."""
    text = "---\n# by hand\ndescription: old   # why\nname: pdf\nx-team: forms\nlicense: MIT\n---\n\nDo it.\n"
    (root / "pdf/scripts").mkdir(parents=True)
    (root / "pdf/SKILL.md").write_text(text)
    (root / "pdf/scripts/a").write_text("a")
    daemon.call("skills.list", sync_timeout_ms=20_000)
    updated = call("skills.update", name="pdf", description="new", license="", scripts={"a": None, "b": "b"})
    assert (updated["description"], "license" in updated, updated["scripts"]) == ("new", False, ["scripts/b"])
    assert call("skills.get", name="pdf") == updated
    assert (root / "pdf/SKILL.md").read_text() == text.replace("old", "new").replace("license: MIT\n", "")
    assert daemon.call("skills.search", query="new")["total"] == 1
    updated = call("skills.update", name="pdf", body="Changed.\n", metadata={"a": "b"}, allowed_tools=["Read"])
    assert (updated["body"], updated["metadata"], updated["allowed_tools"]) == ("Changed.\n", {"a": "b"}, ["Read"])
    assert call("skills.update", name="pdf") == updated


def test_update_with_a_digest(call: Call, root: Path) -> None:
    """Whoever has seen another state is told, with both digests."""
    digest = call("skills.create", name="pdf", description="x", body="")["digest"]
    call("skills.update", name="pdf", description="y", if_digest=digest)
    error = call("skills.update", name="pdf", description="z", if_digest=digest)["error"]
    now = call("skills.get", name="pdf")
    assert (error["code"], now["description"]) == (-32005, "y")
    assert error["data"] == {"reason": "conflict", "expected": digest, "actual": now["digest"]}
    assert call("skills.delete", name="pdf", if_digest=digest)["error"]["code"] == -32005
    assert call("skills.delete", name="pdf", if_digest=now["digest"]) == {"deleted": "pdf"}


def test_delete_skill(call: Call, daemon: Daemon, root: Path) -> None:
    """It is gone from the disk, the list, the search; again it is not found."""
    call("skills.create", name="pdf", description="Fill forms.", body="", assets={"a/b": "x"})
    save(root / "team/deploy", "Ship it.")
    daemon.call("skills.list", sync_timeout_ms=20_000)
    assert call("skills.delete", name="pdf") == {"deleted": "pdf"}
    assert call("skills.get", name="pdf")["error"]["code"] == -32001
    assert daemon.call("skills.search", query="forms")["total"] == 0
    assert call("skills.delete", name="pdf")["error"]["data"]["reason"] == "skill-not-found"
    assert call("skills.delete", name="team/deploy") == {"deleted": "team/deploy"}
    assert os.listdir(root) == ["team"]


NEW = {"name": "a", "description": "x", "body": ""}


@pytest.mark.parametrize(
    ("method", "params", "code", "facts"),
    [
        ("skills.create", {"name": "a", "description": "x"}, -32602, {"field": "body"}),
        ("skills.create", {"name": 1, "description": "x", "body": ""}, -32602, {"field": "name"}),
        ("skills.create", {"name": "a", "description": [], "body": ""}, -32602, {"field": "description"}),
        ("skills.create", {**NEW, "metadata": "x"}, -32602, {"field": "metadata"}),
        ("skills.create", {**NEW, "metadata": {"a": 1}}, -32602, {"field": "metadata"}),
        ("skills.update", {"name": "pdf", "metadata": {"a": 1}}, -32003, {}),
        ("skills.create", {**NEW, "scripts": {"a": 1}}, -32602, {"field": "scripts"}),
        ("skills.create", {**NEW, "scripts": {"a": None}}, -32602, {"field": "scripts"}),
        ("skills.create", {**NEW, "assets": {"a": {"base64": "?"}}}, -32602, {"field": "assets"}),
        ("skills.create", {**NEW, "allowed_tools": [1]}, -32602, {"field": "allowed_tools"}),
        ("skills.create", {**NEW, "nope": 1}, -32602, {"field": "nope"}),
        ("skills.update", {"name": "pfd", "body": ""}, -32001, {"name": "pfd", "did_you_mean": ["pdf"]}),
        ("skills.update", {"name": "pdf", "if_digest": "md5:x"}, -32602, {"field": "if_digest"}),
        ("skills.update", {"name": "pdf", "scripts": {"no": None}}, -32004, {"name": "pdf", "path": "scripts/no"}),
        ("skills.update", {"name": "pdf", "description": ""}, -32003, {}),
        ("skills.update", {"name": "linked", "description": "x"}, -32006, {"name": "linked"}),
        ("skills.delete", {"name": "linked"}, -32006, {"name": "linked"}),
        ("skills.delete", {"name": "pfd"}, -32001, {"name": "pfd"}),
        ("skills.delete", {}, -32602, {"field": "name"}),
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong(
    daemon: Daemon, root: Path, tmp_path: Path, method: str, params: dict[str, Any], code: int, facts: dict[str, Any]
) -> None:
    """Each error has its code and its facts, and nothing is written."""
    save(root / "pdf", "Fill forms.")
    save(tmp_path / "linked", "Shared.")
    (root / "linked").symlink_to(tmp_path / "linked")
    daemon.call("skills.list", sync_timeout_ms=20_000)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    error = daemon.error(method, **params)
    assert error["code"] == code
    assert {key: error["data"][key] for key in facts} == facts
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


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


def test_statuses_over_http(daemon: Daemon) -> None:
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


def test_a_read_skill_can_be_written_back(call: Call, daemon: Daemon, root: Path) -> None:
    """All that skills.get shows of the fields, given to skills.update, changes nothing, whatever rules it breaks."""
    text = (
        f"---\nname: Odd Name\ndescription: >\n  {'long ' * 300}\nlicense: 1.0\n"
        "metadata: {n: 1, deep: [a, {b: c}]}\nallowed-tools: [Read, Write]\nx: y\n---\nBody\n"
    )
    (root / "odd").mkdir()
    (root / "odd/SKILL.md").write_text(text)
    daemon.call("skills.list", sync_timeout_ms=20_000)
    skill = call("skills.get", name="odd")
    fields = ("description", "license", "metadata", "allowed_tools", "body")
    assert call("skills.update", name="odd", **{field: skill[field] for field in fields}) == skill
    assert (root / "odd/SKILL.md").read_text() == text


def test_a_change_is_one_revision_for_everybody(daemon: Daemon) -> None:
    """Subscribers hear of each change once, and of no state in between."""
    with contextlib.closing(daemon.lines()) as lines:
        lines.request("skills.subscribe", {})
        lines.request("skills.create", {"name": "pdf", "description": "x", "body": "", "scripts": {"a": "1"}})
        lines.request("skills.update", {"name": "pdf", "description": "y", "scripts": {"a": "2", "b": "2"}})
        lines.request("skills.update", {"name": "pdf", "scripts": {"b": "3"}})
        lines.request("skills.delete", {"name": "pdf"})
        lines.request("skills.list", {"sync_timeout_ms": 20_000})
        changes = [(note["params"]["added"], note["params"]["updated"], note["params"]["removed"])
                   for note in lines.notifications]  # fmt: skip
    assert changes == [(["pdf"], [], []), ([], ["pdf"], []), ([], ["pdf"], []), ([], [], ["pdf"])]


def test_many_clients_write_at_once(daemon: Daemon, root: Path) -> None:
    """Each gets the reply to its own call; all skills are there."""
    connections = [daemon.lines() for _ in range(8)]
    try:
        for number, lines in enumerate(connections):
            for index in range(5):
                params = {"name": f"s{number}-{index}", "description": f"{number} {index}", "body": ""}
                request = {"jsonrpc": "2.0", "id": index, "method": "skills.create", "params": params}
                lines.send(json.dumps(request).encode() + b"\n")
        for number, lines in enumerate(connections):
            for _ in range(5):
                reply = lines.receive()
                assert reply["result"]["id"] == f"s{number}-{reply['id']}"
    finally:
        for lines in connections:
            lines.close()
    assert daemon.call("skills.list")["total"] == len(os.listdir(root)) == 40


def test_the_first_root_is_made_and_written_to(short_dir: Path, tmp_path: Path) -> None:
    """A skill of a later root is changed there."""
    first, second = tmp_path / "a/first", tmp_path / "second"
    save(second / "csv", "Tables.")
    daemon = Daemon([first, second], short_dir)
    try:
        assert daemon.call("skills.create", name="pdf", description="x", body="")["root"] == str(first)
        assert daemon.call("skills.update", name="csv", body="new")["root"] == str(second)
        assert daemon.error("skills.create", name="csv", description="x", body="")["code"] == -32002
        assert os.listdir(first) == ["pdf"]
    finally:
        assert daemon.stop() == 0


def test_a_peer_without_the_role_writes_nothing(daemon: Daemon, root: Path) -> None:
    """Any user may read; write takes the role."""
    if os.geteuid() != 0:
        pytest.skip("takes another user")
    os.chmod(daemon.socket_path.parent, 0o755)
    os.chmod(daemon.socket_path, 0o666)
    script = """
import json, os, socket, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
stream = peer.makefile("rwb")
for method, params in json.loads(sys.argv[2]):
    stream.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\\n")
    stream.flush()
    reply = json.loads(stream.readline())
    print(reply["error"]["code"] if "error" in reply else "done")
"""
    calls = [
        ("skills.create", {"name": "a", "description": "x", "body": ""}),
        ("skills.update", {"name": "a", "description": "x"}),
        ("skills.delete", {"name": "a"}),
        ("factory.start", {}),
        ("factory.check", {"input": "teach me"}),
        ("skills.list", {}),
    ]
    command = [sys.executable, "-c", script, str(daemon.socket_path), json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["-32041"] * 4 + ["done"] * 2
    assert os.listdir(root) == []


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


def test_a_root_that_is_a_link_is_read_only(short_dir: Path, tmp_path: Path) -> None:
    """Its skills are served; nothing is created, changed or deleted through it, and status says so."""
    save(tmp_path / "real/pdf", "x")
    (tmp_path / "current").symlink_to("real")
    daemon = Daemon([tmp_path / "current"], short_dir)
    try:
        assert daemon.call("skills.get", name="pdf")["description"] == "x"
        for method, params in [
            ("skills.create", {"name": "new", "description": "x", "body": ""}),
            ("skills.update", {"name": "pdf", "description": "y"}),
            ("skills.delete", {"name": "pdf"}),
        ]:
            assert daemon.error(method, **params)["data"]["reason"] == "read-only"
        assert daemon.call("skilld.status")["roots"][0]["writable"] is False
        assert [path.name for path in (tmp_path / "real").iterdir()] == ["pdf"]
    finally:
        daemon.stop()
