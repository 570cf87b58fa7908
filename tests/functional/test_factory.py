"""The dialogue that makes a skill, over a real socket of a real daemon."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import Daemon

ANSWERS = {
    "goal": "Turn meeting notes into a list of tasks",
    "trigger": "meeting notes, action items",
    "example": "Input: Anna sends the report -> Output: - [ ] Anna: send the report",
    "complexity": "simple",
    "edge_cases": "Ask who is responsible.",
}
NAME = "turn-meeting-notes"

Call = Callable[..., Any]


@pytest.fixture(params=["ndjson", "rest"])
def call(request: pytest.FixtureRequest, daemon: Daemon) -> Call:
    """The same call over JSON lines and over the REST routes; errors come back as ``{"error": ...}``."""
    routes = {
        "factory.start": ("POST", "/factory/start"),
        "factory.continue": ("POST", "/factory/continue"),
        "factory.check": ("POST", "/factory/check"),
        "factory.get": ("GET", "/factory/{}"),
        "factory.cancel": ("DELETE", "/factory/{}"),
    }

    def by_rest(method: str, **params: Any) -> Any:
        verb, path = routes[method]
        if "{}" in path:
            return daemon.http(verb, path.format(params["session_id"]))[1]
        return daemon.http(verb, path, params)[1]

    def by_lines(method: str, **params: Any) -> Any:
        reply = daemon.request(method, params)
        return reply["result"] if "result" in reply else {"error": reply["error"]}

    return {"ndjson": by_lines, "rest": by_rest}[request.param]


def answer_all(call: Call, reply: dict[str, Any], answers: dict[str, str] | None = None) -> dict[str, Any]:
    """Answer every question; the reply at confirm."""
    while reply["step"] != "confirm":
        reply = call(
            "factory.continue", session_id=reply["session_id"], input={**ANSWERS, **(answers or {})}[reply["step"]]
        )
    return reply


def test_factory_full_flow(call: Call, daemon: Daemon, root: Path) -> None:
    """Six steps with their prompts, a preview that is what is written, and a skill that search finds."""
    reply = call("factory.start")
    assert (reply["step"], reply["done"]) == ("goal", False)
    assert reply["prompt"] == "What task do you want me to help with? Give me the high-level goal."
    steps = []
    while reply["step"] != "confirm":
        steps.append(reply["step"])
        assert call("factory.get", session_id=reply["session_id"]) == reply
        reply = call("factory.continue", session_id=reply["session_id"], input=ANSWERS[reply["step"]])
    assert steps == ["goal", "trigger", "example", "complexity", "edge_cases"]
    assert reply["prompt"].endswith("Does this capture what you want? Say 'yes' to create.")
    preview = reply["preview"]
    reply = call("factory.continue", session_id=reply["session_id"], input="yes")
    assert (reply["step"], reply["done"], reply["skill"]["id"]) == ("done", True, NAME)
    assert call("factory.get", session_id=reply["session_id"]) == reply
    assert (root / NAME / "SKILL.md").read_text() == preview
    assert daemon.call("skills.search", query="action items")["skills"][0]["id"] == NAME
    assert daemon.call("skills.validate", name=NAME) == {"valid": True, "problems": []}


def test_factory_creates_skill(call: Call, daemon: Daemon, root: Path) -> None:
    """A complex one has a script that runs and a template; a second one of the same goal has another name."""
    reply = answer_all(
        call, call("factory.start", initial_input=f"teach you to {ANSWERS['goal']}"), {"complexity": "complex"}
    )
    made = call("factory.continue", session_id=reply["session_id"], input="yes")["skill"]
    skill = daemon.call("skills.get", name=made["id"])
    assert {key: skill[key] for key in made} == made
    assert (skill["scripts"], skill["assets"]) == (["scripts/run.py"], ["assets/template.md"])
    assert [resource["executable"] for resource in skill["resources"]] == [False, True]
    done = subprocess.run(
        [sys.executable, root / made["id"] / "scripts/run.py", "--help"], capture_output=True, check=False
    )
    assert done.returncode == 0
    reply = answer_all(call, call("factory.start"))
    again = call("factory.continue", session_id=reply["session_id"], input="yes")["skill"]
    assert again["id"] == f"{made['id']}-2"
    assert sorted(os.listdir(root)) == sorted([made["id"], again["id"]])


def test_factory_session_not_found(call: Call) -> None:
    """Never opened, or cancelled."""
    for method, more in (("factory.continue", {"input": "x"}), ("factory.get", {}), ("factory.cancel", {})):
        error = call(method, session_id="nope", **more)["error"]
        assert (error["code"], error["data"]) == (-32010, {"reason": "session-not-found", "session_id": "nope"})
    session_id = call("factory.start")["session_id"]
    assert call("factory.cancel", session_id=session_id) == {"cancelled": session_id}
    assert call("factory.get", session_id=session_id)["error"]["code"] == -32010


def test_check_trigger_phrases(call: Call) -> None:
    """Whole words, whatever their case, white space and quotes."""
    assert call("factory.check", input="Please TEACH  me, then “automate this”!") == {
        "triggers_factory": True,
        "matched_phrases": ["teach me", "automate this"],
    }
    assert call("factory.check", input="the teacher meant it") == {"triggers_factory": False, "matched_phrases": []}


def test_a_skill_that_appeared_meanwhile_keeps_its_name(daemon: Daemon, root: Path) -> None:
    """The session stays at confirm with the reason and another name; then it is made."""
    with contextlib.closing(daemon.lines()) as lines:

        def call(method: str, **params: Any) -> Any:
            return lines.request(method, params)["result"]

        reply = answer_all(call, call("factory.start"))
        (root / NAME).mkdir()  # no skill, and in the way all the same
        reply = call("factory.continue", session_id=reply["session_id"], input="yes")
        assert reply["step"] == "confirm"
        assert f"{NAME}-2" in reply["prompt"]
        reply = call("factory.continue", session_id=reply["session_id"], input="yes")
        assert reply["skill"]["id"] == f"{NAME}-2"
    assert os.listdir(root / NAME) == []


def test_a_daemon_that_stops_finishes_what_it_makes(daemon: Daemon, root: Path) -> None:
    """A "yes" that arrives with the signal makes a whole skill, or none."""
    with contextlib.closing(daemon.lines()) as lines:

        def call(method: str, **params: Any) -> Any:
            return lines.request(method, params)["result"]

        reply = answer_all(call, call("factory.start"))
        lines.send(
            b'{"jsonrpc":"2.0","id":"y","method":"factory.continue","params":{"session_id":"%s","input":"yes"}}\n'
            % reply["session_id"].encode()
        )
        assert daemon.stop() == 0
    assert os.listdir(root) in ([], [NAME])
    if os.listdir(root):
        assert (root / NAME / "SKILL.md").read_text() == reply["preview"]
