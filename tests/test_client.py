"""The client library against a double of the daemon on a real socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skilld.client import (
    AsyncSkilldClient,
    BadReply,
    Changes,
    ConnectionLost,
    FactoryResponse,
    FileContent,
    Hit,
    Listing,
    NoDaemon,
    Problem,
    RequestTimeout,
    Resource,
    RunResult,
    SearchResult,
    Skill,
    SkilldClient,
    Status,
    Summary,
    TriggerCheck,
    Validation,
)
from skilld.client.calls import ONLY_READS, patience_s
from skilld.client.endpoint import WELL_KNOWN, endpoints
from skilld.client.parse import parse
from skilld.client.results import IndexStatus, RootStatus, TeeStatus, WatcherStatus
from skilld.errors import (
    Busy,
    Conflict,
    Forbidden,
    InvalidParams,
    ShuttingDown,
    SkilldError,
    SkillNotFound,
    TooLarge,
)
from skilld.rpc.methods import TABLE
from tests.fake_daemon import PATIENCE_S, FakeDaemon, Peer, Request, Script, answering, fake_daemon

PDF = {"id": "pdf", "name": "pdf", "description": "Fill in forms."}
SKILL: dict[str, Any] = {
    **PDF,
    "frontmatter": {"name": "pdf", "x": 1},
    "body": "Steps.\n",
    "scripts": ["scripts/a.py"],
    "references": [],
    "assets": [],
    "resources": [{"path": "scripts/a.py", "size": 3, "sha256": "ab", "executable": True}],
    "path": "/s/pdf",
    "root": "/s",
    "digest": "sha256:00",
    "modified": "2026-01-02T03:04:05Z",
    "problems": [{"path": "/s/pdf/SKILL.md", "severity": "warning", "message": "odd", "line": 2}],
    "license": "MIT",
    "allowed_tools": ["Bash"],
}
PDF_SKILL = Skill(
    "pdf",
    "pdf",
    "Fill in forms.",
    frontmatter={"name": "pdf", "x": 1},
    body="Steps.\n",
    scripts=("scripts/a.py",),
    references=(),
    assets=(),
    resources=(Resource("scripts/a.py", 3, "ab", True),),
    path="/s/pdf",
    root="/s",
    digest="sha256:00",
    modified="2026-01-02T03:04:05Z",
    problems=(Problem("/s/pdf/SKILL.md", "warning", "odd", line=2),),
    license="MIT",
    allowed_tools=("Bash",),
)
STATUS = {
    "version": "9",
    "uptime_s": 1,
    "pid": 7,
    "roots": [{"path": "/s", "skills": 1, "writable": True}],
    "revision": "r:1",
    "digest": None,
    "problems": 0,
    "watcher": {"mode": "inotify", "alive": True, "last_event": None, "last_full_scan": None, "reason": None},
    "index": {"documents": 1, "bytes": 10, "complete": True},
    "connections": 1,
    "sandbox": None,
    "tee": {"available": False, "endpoint": None},
    "limits": {"nesting": 64},
}
RUN: dict[str, Any] = {
    "stdout": "aGk=",
    "stderr": "",
    "exit_code": 0,
    "encoding": {"stdout": "base64", "stderr": "utf-8"},
    "truncated": {"stdout": False, "stderr": False},
    "bytes": {"stdout": 2, "stderr": 0},
    "timed_out": False,
    "duration_ms": 1.5,
    "queued_ms": 0,
    "interpreter": "python3",
    "sandbox": {"backend": "none"},
}
STEP: dict[str, Any] = {"session_id": "s", "step": "goal", "prompt": "What?", "done": False}
CHANGES = {"revision": "r:2", "added": ["pdf"], "updated": [], "removed": ["x"], "complete": True}

# method of the client, its arguments, params on the wire, reply, result
METHODS: tuple[tuple[str, tuple[Any, ...], dict[str, Any], str, Any, Any, Any], ...] = (
    (
        "list",
        (),
        {},
        "skills.list",
        {"offset": 0, "limit": 1000},
        {"skills": [PDF], "total": 1, "revision": "r:1"},
        Listing((Summary("pdf", "pdf", "Fill in forms."),), 1, "r:1"),
    ),
    (
        "list",
        (),
        {"offset": 2, "limit": 3, "root": "/s", "sync_timeout_ms": 5},
        "skills.list",
        {"offset": 2, "limit": 3, "root": "/s", "sync_timeout_ms": 5},
        {"skills": [], "total": 1, "revision": "r:1"},
        Listing((), 1, "r:1"),
    ),
    (
        "search",
        ("form",),
        {"limit": 3},
        "skills.search",
        {"query": "form", "limit": 3},
        {"skills": [{**PDF, "score": 2, "snippet": "[form]"}], "total": 1, "revision": "r:1", "complete": False},
        SearchResult((Hit("pdf", "pdf", "Fill in forms.", 2, "[form]"),), 1, "r:1", complete=False),
    ),
    ("get", ("pdf",), {}, "skills.get", {"name": "pdf"}, SKILL, PDF_SKILL),
    (
        "read_slice",
        ("pdf", "a"),
        {"offset": 2, "limit": 4},
        "skills.read_file",
        {"name": "pdf", "path": "a", "offset": 2, "limit": 4},
        {"content": "text", "encoding": "utf-8", "size": 9, "eof": False},
        FileContent("text", "utf-8", 9, False),
    ),
    (
        "read_file",
        ("pdf", "a"),
        {},
        "skills.read_file",
        {"name": "pdf", "path": "a", "offset": 0},
        {"content": "/w==", "encoding": "base64", "size": 1, "eof": True},
        b"\xff",
    ),
    (
        "validate",
        ("pdf",),
        {},
        "skills.validate",
        {"name": "pdf"},
        {"valid": False, "problems": [{"path": "/p", "severity": "error", "message": "m"}]},
        Validation(False, (Problem("/p", "error", "m"),)),
    ),
    (
        "validate",
        (),
        {"content": "---"},
        "skills.validate",
        {"content": "---"},
        {"valid": True, "problems": []},
        Validation(True, ()),
    ),
    ("problems", (), {}, "skills.problems", {}, {"problems": []}, ()),
    ("prompt", (), {}, "skills.prompt", {}, {"prompt": "<a>"}, "<a>"),
    (
        "prompt",
        (("a", "b"),),
        {"limit": 1},
        "skills.prompt",
        {"names": ["a", "b"], "limit": 1},
        {"prompt": ""},
        "",
    ),
    ("activate", ("pdf",), {}, "skills.activate", {"name": "pdf"}, {"prompt": "<s>"}, "<s>"),
    (
        "changes",
        ("r:1",),
        {"wait_ms": 3},
        "skills.changes",
        {"since": "r:1", "wait_ms": 3},
        CHANGES,
        Changes("r:2", ("pdf",), (), ("x",)),
    ),
    (
        "create",
        ("pdf", "d", "b"),
        {"license": None, "scripts": {"a.py": "x", "b": b"\xff"}},
        "skills.create",
        {"name": "pdf", "description": "d", "body": "b", "scripts": {"a.py": "x", "b": {"base64": "/w=="}}},
        SKILL,
        PDF_SKILL,
    ),
    (
        "update",
        ("pdf",),
        {"body": "b", "assets": {"old": None}, "if_digest": "sha256:00"},
        "skills.update",
        {"name": "pdf", "body": "b", "assets": {"old": None}, "if_digest": "sha256:00"},
        SKILL,
        PDF_SKILL,
    ),
    ("delete", ("pdf",), {}, "skills.delete", {"name": "pdf"}, {"deleted": "pdf"}, None),
    (
        "execute_script",
        ("pdf", "a.py", ["x"]),
        {"stdin": "in", "timeout_ms": 5},
        "skills.execute_script",
        {"name": "pdf", "script": "a.py", "args": ["x"], "stdin": "in", "timeout_ms": 5},
        RUN,
        RunResult(**RUN),
    ),
    ("factory_start", ("hi",), {}, "factory.start", {"initial_input": "hi"}, STEP, FactoryResponse(**STEP)),
    (
        "factory_continue",
        ("s", "yes"),
        {},
        "factory.continue",
        {"session_id": "s", "input": "yes"},
        {**STEP, "skill": PDF},
        FactoryResponse(**STEP, skill=Summary("pdf", "pdf", "Fill in forms.")),
    ),
    (
        "factory_check",
        ("teach me",),
        {},
        "factory.check",
        {"input": "teach me"},
        {"triggers_factory": True, "matched_phrases": ["teach me"]},
        TriggerCheck(True, ("teach me",)),
    ),
    ("factory_get", ("s",), {}, "factory.get", {"session_id": "s"}, STEP, FactoryResponse(**STEP)),
    ("factory_cancel", ("s",), {}, "factory.cancel", {"session_id": "s"}, {"cancelled": "s"}, None),
    ("ping", (), {}, "skilld.ping", {}, {}, None),
    (
        "status",
        (),
        {},
        "skilld.status",
        {},
        STATUS,
        Status(
            "9",
            1,
            7,
            (RootStatus("/s", 1, True),),
            "r:1",
            None,
            0,
            WatcherStatus("inotify", True),
            IndexStatus(1, 10, True),
            1,
            TeeStatus(False),
            None,
            {"nesting": 64},
        ),
    ),
    ("discover", (), {}, "rpc.discover", {}, {"openrpc": "1.3.2"}, {"openrpc": "1.3.2"}),
    ("call", ("any.thing", [1, "b"]), {}, "any.thing", [1, "b"], {"x": None}, {"x": None}),
)  # fmt: skip


class Driven:
    """The asyncio client, used as the blocking one is, so that one test speaks of both."""

    def __init__(self, client: Any, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._client, name)
        if not callable(member):
            return member

        def call(*args: Any, **kwargs: Any) -> Any:
            value = member(*args, **kwargs)
            return self._runner.run(value) if inspect.iscoroutine(value) else value

        return call

    def subscribe(self, *args: Any, **kwargs: Any) -> Any:
        return DrivenSubscription(self._client.subscribe(*args, **kwargs), self._runner)


class DrivenSubscription(Driven):
    """The asyncio subscription, likewise."""

    def __enter__(self) -> DrivenSubscription:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())

    def __next__(self) -> Changes:
        async def advance() -> Changes:
            changes: Changes = await anext(self._client)
            return changes

        return self._runner.run(advance())


Connect = Callable[..., contextlib.AbstractContextManager[Any]]


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Make a client of either kind, as a context manager that yields something to call as the blocking one."""

    @contextlib.contextmanager
    def make(endpoint: str | None, timeout: float | None = PATIENCE_S) -> Iterator[Any]:
        if request.param == "blocking":
            with SkilldClient(endpoint, timeout) as client:
                yield client
            return
        with asyncio.Runner() as runner:
            driven = runner.run(_made(endpoint, timeout))
            try:
                yield Driven(driven, runner)
            finally:
                runner.run(driven.close())

    return make


async def _made(endpoint: str | None, timeout: float | None) -> AsyncSkilldClient:
    return AsyncSkilldClient(endpoint, timeout)


class Serve:
    """Starts doubles, and stops them when the test ends."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path) -> None:
        self.path = directory / "s"
        self._stack = stack

    def __call__(self, *scripts: Script) -> FakeDaemon:
        return self._stack.enter_context(fake_daemon(self.path, *scripts))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a double that runs these scripts."""
    with contextlib.ExitStack() as stack:
        yield Serve(stack, tmp_path)


# Where the daemon is.


@pytest.mark.parametrize(
    ("explicit", "environ", "expected"),
    [
        ("/a", {"SKILLD_ENDPOINT": "/b"}, ("/a",)),
        (None, {"SKILLD_ENDPOINT": "/b", "XDG_RUNTIME_DIR": "/x"}, ("/b",)),
        ("", {"SKILLD_ENDPOINT": "", "XDG_RUNTIME_DIR": "/x"}, (*WELL_KNOWN, "/x/skilld/skilld.sock")),
        (None, {}, (*WELL_KNOWN, f"/run/user/{os.geteuid()}/skilld/skilld.sock")),
    ],
    ids=["explicit", "variable", "empty counts as unset", "no runtime directory"],
)
def test_search_order(explicit: str | None, environ: dict[str, str], expected: tuple[str, ...]) -> None:
    """The endpoint is the argument, else the variable, else the first of the well-known paths that answers."""
    assert endpoints(explicit, environ) == expected


def test_first_path_where_somebody_listens(
    serve: Serve, tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path without a socket, or with one that nobody listens on, is passed over."""
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(dead))
    daemon = serve(answering({"skilld.ping": {}}))
    monkeypatch.setattr("skilld.client.endpoint.WELL_KNOWN", (str(tmp_path / "none"), str(dead), daemon.path))
    monkeypatch.delenv("SKILLD_ENDPOINT", raising=False)
    with connect(None) as client:
        assert client.call("skilld.ping") == {}


def test_no_daemon_names_every_endpoint(tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers, the error says what was tried, and why it did not do."""
    monkeypatch.setattr("skilld.client.endpoint.WELL_KNOWN", ("/none/a", "/none/b"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("SKILLD_ENDPOINT", "")
    with connect(None) as client, pytest.raises(NoDaemon) as caught:
        client.ping()
    tried = ("/none/a", "/none/b", f"{tmp_path}/skilld/skilld.sock")
    assert caught.value.tried == dict.fromkeys(tried, "No such file or directory")
    assert all(path in str(caught.value) for path in tried)
    assert isinstance(caught.value, ConnectionError)


def test_full_queue_of_connections(tmp_path: Path, connect: Connect) -> None:
    """A daemon that takes no new connections is waited for, as long as the timeout allows."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        for _ in range(64):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(str(tmp_path / "s"))
        client = stack.enter_context(connect(str(tmp_path / "s"), timeout=0.05))
        with pytest.raises(RequestTimeout, match=r"skilld.ping: no reply within 0.05 s"):
            client.ping()


# Methods and results.


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "method", "params", "reply", "expected"), METHODS, ids=[row[0] for row in METHODS]
)
def test_methods(
    serve: Serve,
    connect: Connect,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    method: str,
    params: Any,
    reply: Any,
    expected: Any,
) -> None:
    """Each method sends what was given, leaves out what was not, and returns a typed value."""
    seen: list[tuple[str, Any]] = []
    daemon = serve(answering({method: reply}, seen))
    with connect(daemon.path) as client:
        assert getattr(client, name)(*args, **kwargs) == expected
    assert seen == [(method, params)]


def test_every_method_of_the_daemon_is_known() -> None:
    """Each method of the table has one in the client; those that only read are known as such."""
    covered = {row[3] for row in METHODS} | {"skills.subscribe", "skills.unsubscribe"}
    table = {method.name: method.role for method in TABLE}
    assert table.keys() - covered <= {name for name in table if name.startswith("tee.") or name == "skills.attest"}
    assert {name for name in ONLY_READS if table.get(name, "read") != "read"} <= {"factory.get"}


def test_both_clients_have_the_same_methods() -> None:
    """A program moves to asyncio by writing ``await``."""

    def signatures(cls: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]
            for name, member in vars(cls).items()
            if callable(member) and not name.startswith("_")
        }

    assert signatures(SkilldClient) == signatures(AsyncSkilldClient)


def test_unknown_members_are_ignored() -> None:
    """An older client works with a newer daemon."""
    assert parse(Summary, {**PDF, "stars": 5}) == Summary("pdf", "pdf", "Fill in forms.")


@pytest.mark.parametrize(
    ("cls", "value", "message"),
    [
        (Summary, [], "Summary must be an object, not []"),
        (Summary, {"id": "a", "name": "b"}, "Summary.description is missing"),
        (Summary, {**PDF, "name": 1}, "Summary.name must be str, not 1"),
        (Listing, {"skills": {}, "total": 0, "revision": ""}, "Listing.skills must be an array, not {}"),
        (Listing, {"skills": [1], "total": 0, "revision": ""}, "Listing.skills[] must be an object, not 1"),
        (Listing, {"skills": [], "total": True, "revision": ""}, "Listing.total must be int, not True"),
        (Skill, {**SKILL, "frontmatter": 1}, "Skill.frontmatter must be an object, not 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_no_result(cls: type, value: Any, message: str) -> None:
    """A reply of another shape is an error that names the member."""
    with pytest.raises(BadReply) as caught:
        parse(cls, value)
    assert str(caught.value) == message


def test_contents_of_files() -> None:
    """Text and base64 are bytes again; anything else is no content."""
    assert FileContent("é", "utf-8", 2, True).data == "é".encode()
    assert RunResult(**RUN).stdout_bytes == b"hi"
    assert RunResult(**RUN).stderr_bytes == b""
    for content, encoding in (("?", "base64"), ("x", "latin-1"), ("\ud800", "utf-8")):
        with pytest.raises(BadReply):
            _ = FileContent(content, encoding, 1, True).data


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("skilld.ping", {}, 0),
        ("skills.changes", {"wait_ms": 1_500}, 1.5),
        ("skills.get", {"sync_timeout_ms": 200}, 0.2),
        ("skills.get", {"sync_timeout_ms": "x"}, 0),
        ("skills.execute_script", {}, 32),
        ("skills.execute_script", {"timeout_ms": 600_000}, 602),
        ("skills.execute_script", {"timeout_ms": 1_000, "receipt": True}, 33),
        ("skills.execute_script", {"timeout_ms": 1_000, "receipt": False}, 3),
        ("tee.quote", {"report_data": "00"}, 30),
        ("skills.attest", {}, 30),
        ("skills.changes", ["r:1", 1_500], 0),
    ],
)
def test_what_the_daemon_is_asked_to_wait_is_waited(method: str, params: Any, expected: float) -> None:
    """A long poll, a sync and a script are given the time that the call asks for."""
    assert patience_s(method, params) == expected


def test_a_list_of_several_pages(serve: Serve, connect: Connect) -> None:
    """All pages are of one revision; where it changes between two of them, the list is begun again."""
    everything = [{"id": f"s{n:04}", "name": "n", "description": "d"} for n in range(2_300)]
    calls = 0

    def page(params: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        first = params["offset"]
        return {
            "skills": everything[first : first + params["limit"]],
            "total": len(everything),
            "revision": "r:1" if calls < 3 else "r:2",
        }

    seen: list[tuple[str, Any]] = []
    daemon = serve(answering({"skills.list": page}, seen))
    with connect(daemon.path) as client:
        listing = client.list()
        assert [skill.id for skill in listing] == [skill["id"] for skill in everything]
        assert (len(listing), listing.total, listing.revision) == (2_300, 2_300, "r:2")
        assert len(client.list(offset=100, limit=1_500)) == 1_500
    asked = [(params["offset"], params["limit"]) for _, params in seen]
    pages = [(0, 1_000), (1_000, 1_000), (2_000, 1_000)]
    assert asked == [*pages, *pages, (100, 1_000), (1_100, 500)]


def test_a_list_that_never_rests(serve: Serve, connect: Connect) -> None:
    """A list that is another at every page ends in an error, not in a wrong list."""
    revision = iter(range(1_000_000))
    page = lambda _: {"skills": [PDF], "total": 5, "revision": f"r:{next(revision)}"}  # noqa: E731
    daemon = serve(answering({"skills.list": page}))
    with connect(daemon.path) as client, pytest.raises(Busy, match="faster than they can be listed"):
        client.list()


def slices(*contents: bytes) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """``skills.read_file`` in slices of two bytes; each is of the next content, and all further ones of the last."""
    versions = iter(contents)
    current = b""

    def read(params: dict[str, Any]) -> dict[str, Any]:
        nonlocal current
        offset = params["offset"]
        current = next(versions, current)
        part = current[offset : offset + 2]
        content = base64.b64encode(part).decode()
        return {"content": content, "encoding": "base64", "size": len(current), "eof": offset + 2 >= len(current)}

    return read


def test_a_file_of_several_slices(serve: Serve, connect: Connect) -> None:
    """A file is read to its end."""
    daemon = serve(answering({"skills.read_file": slices(b"abcde")}))
    with connect(daemon.path) as client:
        assert client.read_file("pdf", "a") == b"abcde"


@pytest.mark.parametrize("contents", [(b"abcde", b"xy"), (b"abc", b"vwxyz")], ids=["shorter", "longer"])
def test_a_file_that_changes(serve: Serve, connect: Connect, contents: tuple[bytes, ...]) -> None:
    """A file whose size changes while it is read is read again."""
    daemon = serve(answering({"skills.read_file": slices(*contents)}))
    with connect(daemon.path) as client:
        assert client.read_file("pdf", "a") == contents[-1]


def test_a_file_that_never_rests(serve: Serve, connect: Connect) -> None:
    """A file that is another at every slice ends in an error, not in a mixture."""
    daemon = serve(answering({"skills.read_file": slices(*(b"x" * size for size in range(10, 500)))}))
    with connect(daemon.path) as client, pytest.raises(Busy, match="a changes faster"):
        client.read_file("pdf", "a")


def test_an_empty_slice_before_the_end(serve: Serve, connect: Connect) -> None:
    """A daemon that gets nowhere is not asked for ever."""
    empty = {"content": "", "encoding": "utf-8", "size": 9, "eof": False}
    daemon = serve(answering({"skills.read_file": empty}))
    with connect(daemon.path) as client, pytest.raises(BadReply, match="empty slice of a "):
        client.read_file("pdf", "a")


# Errors.


@pytest.mark.parametrize(
    "error",
    [SkillNotFound("pfd", ("pdf",)), Conflict("sha256:a", "sha256:b"), Busy("later", 2.5), Forbidden("m", "write")],
    ids=lambda error: error.reason,
)
def test_errors_of_the_daemon(serve: Serve, connect: Connect, error: SkilldError) -> None:
    """The daemon's error is raised as the class it was, facts included, and the connection stays of use."""
    daemon = serve(answering({"skills.get": error, "skilld.ping": {}}))
    with connect(daemon.path) as client:
        with pytest.raises(type(error)) as caught:
            client.get("pdf")
        assert (str(caught.value), caught.value.facts) == (str(error), error.facts)
        client.ping()
    assert daemon.connections == 1


def test_params_that_json_cannot_carry(serve: Serve, connect: Connect) -> None:
    """They are refused before anything is sent, and the connection stays of use."""
    daemon = serve(answering({"skilld.ping": {}}))
    with connect(daemon.path) as client:
        for value in ({1, 2}, float("nan"), "\ud800"):
            with pytest.raises(InvalidParams, match="params: JSON cannot carry them"):
                client.call("skilld.ping", {"x": value})
        client.ping()
    assert daemon.connections == 1


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"[]\n",
        b'{"jsonrpc":"2.0","id":1}\n',
        b'{"jsonrpc":"2.0","id":[1],"result":1}\n',
        b'{"jsonrpc":"2.0","id":null,"result":1}\n',
        b'{"jsonrpc":"2.0","id":1,"error":"no"}\n',
        b"[" * 200_000 + b"\n",
        b"\xff\n",
    ],
    ids=["http", "array", "no result", "id is an array", "id is null", "error is text", "too deep", "not UTF-8"],
)
def test_what_is_no_daemon(serve: Serve, connect: Connect, line: bytes) -> None:
    """Whatever else answers on the socket is an error, and is not asked again on the same connection."""

    def answer(peer: Peer) -> None:
        peer.read()
        peer.send_bytes(line)
        peer.read()

    daemon = serve(answer, answering({"skilld.ping": {}}))
    with connect(daemon.path) as client:
        with pytest.raises(BadReply):
            client.ping()
        client.ping()
    assert daemon.connections == 2


def test_replies_in_pieces_and_among_others(serve: Serve, connect: Connect) -> None:
    """A reply may come byte by byte, after blank lines, notifications and replies to nobody."""

    def answer(peer: Peer) -> None:
        request = peer.read()
        peer.send_bytes(b'\n \n{"jsonrpc":"2.0","id":77,"result":1}\n{"jsonrpc":"2.0","method":"x"}\n')
        peer.notify(revision="r:1", added=[], updated=[], removed=[])
        for byte in b'{"result":{"a":"\xc3\xa9"},"id":%d,"jsonrpc":"2.0"}\r\n' % request["id"]:
            peer.send_bytes(bytes([byte]))
        peer.read()

    with connect(serve(answer).path) as client:
        assert client.call("any") == {"a": "é"}


def test_large_messages(serve: Serve, connect: Connect) -> None:
    """Messages far above what the kernel buffers go through whole, in both directions."""
    daemon = serve(answering({"echo": lambda params: params}))
    with connect(daemon.path) as client:
        text = "é" * 3_000_000
        assert client.call("echo", [text]) == [text]


def test_a_request_over_the_limit(serve: Serve, connect: Connect) -> None:
    """The daemon cannot tell whose line was too long; the client can, and goes on with the connection."""

    def answer(peer: Peer) -> None:
        peer.read()
        peer.refuse(None, TooLarge("the line is over the limit of 100 bytes", 100))
        answering({"skilld.ping": {}})(peer)

    daemon = serve(answer)
    with connect(daemon.path) as client:
        with pytest.raises(TooLarge):
            client.call("echo", ["x" * 200])
        client.ping()
    assert daemon.connections == 1


def test_a_connection_that_is_refused(serve: Serve, connect: Connect) -> None:
    """An error to nobody in particular is that of the call; the connection is not used again."""

    def refuse(peer: Peer) -> None:
        peer.refuse(None, Busy("too many connections", 1.0))

    daemon = serve(refuse, answering({"skilld.ping": {}}))
    with connect(daemon.path) as client:
        with pytest.raises((Busy, ConnectionLost)):
            client.call("skills.delete", {"name": "x" * 1_000_000})
        client.ping()
    assert daemon.connections == 2


# Connections.


def answer_once(method: str, result: Any = None) -> Script:
    """A script that answers one request of a method, and closes."""

    def answer(peer: Peer) -> None:
        peer.reply(peer.expect(method), result or {})

    return answer


def leave(method: str) -> Script:
    """A script that takes a request, and closes."""

    def take(peer: Peer) -> None:
        peer.expect(method)

    return take


def test_one_connection_is_kept(serve: Serve, connect: Connect) -> None:
    """Calls after each other share a connection."""
    daemon = serve(answering({"skilld.ping": {}}))
    with connect(daemon.path) as client:
        for _ in range(3):
            client.ping()
    assert daemon.connections == 1


@pytest.mark.parametrize("method", ["skilld.ping", "skills.delete"])
def test_a_connection_closed_while_idle(serve: Serve, connect: Connect, method: str) -> None:
    """A daemon that closed the connection, or started again, between two calls is not noticed, whatever is called."""
    daemon = serve(answer_once("skilld.ping"), answering({method: {}}))
    with connect(daemon.path) as client:
        client.ping()
        daemon.wait_closed()
        client.call(method)
    assert daemon.connections == 2


def test_a_read_is_called_again(serve: Serve, connect: Connect) -> None:
    """A method that only reads is called again when the kept connection breaks during the call."""

    def break_second(peer: Peer) -> None:
        peer.reply(peer.expect("skilld.ping"), {})
        peer.expect("skills.get")

    daemon = serve(break_second, answering({"skills.get": SKILL}))
    with connect(daemon.path) as client:
        client.ping()
        assert client.get("pdf") == PDF_SKILL
    assert daemon.connections == 2


def test_a_write_is_not_called_again(serve: Serve, connect: Connect) -> None:
    """A method that may have been executed is never sent again; the error says so, and the next call works."""

    def break_second(peer: Peer) -> None:
        peer.reply(peer.expect("skilld.ping"), {})
        peer.expect("skills.delete")

    daemon = serve(break_second, answering({"skilld.ping": {}}))
    with connect(daemon.path) as client:
        client.ping()
        with pytest.raises(ConnectionLost, match=r"skills.delete: .*may have been executed") as caught:
            client.delete("pdf")
        assert (caught.value.method, caught.value.is_unsent) == ("skills.delete", False)
        client.ping()
    assert daemon.connections == 2


def test_a_daemon_that_always_leaves(serve: Serve, connect: Connect) -> None:
    """A new connection that breaks too is an error, even for a method that only reads."""
    daemon = serve(leave("skilld.ping"))
    with connect(daemon.path) as client, pytest.raises(ConnectionLost):
        client.ping()


def test_a_timeout_does_not_poison_the_next_call(serve: Serve, connect: Connect) -> None:
    """No reply in time is an error that names method and time; the next call gets its own reply, not the late one."""
    is_late = threading.Event()

    def late(peer: Peer) -> None:
        request = peer.expect("slow")
        assert is_late.wait(PATIENCE_S)
        peer.reply(request, "late")
        answering({"skilld.ping": {}})(peer)

    daemon = serve(late, answering({"quick": "mine"}))
    with connect(daemon.path, timeout=0.05) as client:
        with pytest.raises(RequestTimeout, match=r"slow: no reply within 0\.05 s") as caught:
            client.call("slow")
        assert isinstance(caught.value, TimeoutError)
        is_late.set()
        client.timeout = PATIENCE_S
        assert client.call("quick") == "mine"


def test_a_closed_client_makes_no_calls(serve: Serve, connect: Connect) -> None:
    """Closing is final, and may be done twice."""
    daemon = serve(answering({"skilld.ping": {}}))
    with connect(daemon.path) as client:
        client.ping()
        client.close()
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.ping()


# What only one of the clients does.


def test_threads_do_not_wait_for_each_other(serve: Serve) -> None:
    """A call of one thread goes through while that of another waits."""
    may_answer = threading.Event()

    def slow(params: Any) -> str:
        assert may_answer.wait(PATIENCE_S)
        return "slow"

    daemon = serve(answering({"slow": slow, "skilld.ping": {}}))
    results: list[Any] = []
    with SkilldClient(daemon.path) as client:
        thread = threading.Thread(target=lambda: results.append(client.call("slow")))
        thread.start()
        client.ping()
        may_answer.set()
        thread.join(PATIENCE_S)
        client.ping()
    assert results == ["slow"]
    assert daemon.connections <= 2


def test_a_forked_process_uses_no_connection_of_its_parent(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parent and child must not read each other's replies."""
    daemon = serve(answering({"skilld.ping": {}}))
    with SkilldClient(daemon.path) as client:
        client.ping()
        monkeypatch.setattr(os, "getpid", lambda: -1)
        client.ping()
        client.ping()
    assert daemon.connections == 2


def test_importing_the_blocking_client_is_cheap() -> None:
    """It needs no asyncio and nothing that is not in the standard library."""
    code = "import sys, skilld.client; print(*(m for m in ('asyncio','click','orjson','yaml') if m in sys.modules))"
    checkout = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=checkout)
    assert (done.stdout, done.stderr) == ("\n", "")


async def test_many_calls_in_flight(serve: Serve) -> None:
    """Calls of one asyncio client share a connection, and replies that overtake each other find their caller."""
    count = 50

    def backwards(peer: Peer) -> None:
        requests = [peer.read() for _ in range(count)]
        for request in reversed(requests):
            peer.reply(request, request["params"])

    daemon = serve(backwards)
    async with AsyncSkilldClient(daemon.path) as client:
        results = await asyncio.gather(*(client.call("echo", [number]) for number in range(count)))
    assert results == [[number] for number in range(count)]
    assert daemon.connections == 1


async def test_a_cancelled_call_leaves_the_others_alone(serve: Serve) -> None:
    """Its late reply is thrown away, and the connection goes on."""
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()
    may_answer = threading.Event()

    def answer(peer: Peer) -> None:
        cancelled, other = peer.read(), peer.read()
        loop.call_soon_threadsafe(arrived.set)
        assert may_answer.wait(PATIENCE_S)
        peer.reply(cancelled, "late")
        peer.reply(other, "other")
        answering({"skilld.ping": {}})(peer)

    daemon = serve(answer)
    async with AsyncSkilldClient(daemon.path) as client:
        first = asyncio.create_task(client.call("a"))
        second = asyncio.create_task(client.call("b"))
        await asyncio.wait_for(arrived.wait(), PATIENCE_S)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        may_answer.set()
        assert await second == "other"
        await client.ping()
    assert daemon.connections == 1


async def test_a_broken_connection_is_told_to_all_who_wait(serve: Serve) -> None:
    """Every call in flight ends; those that only read are answered on the next connection."""

    def take_three(peer: Peer) -> None:
        peer.reply(peer.expect("skilld.ping"), {})
        for _ in range(3):
            peer.read()

    daemon = serve(take_three, answering({"skills.get": SKILL}))
    async with AsyncSkilldClient(daemon.path) as client:
        await client.ping()
        one, two, three = await asyncio.gather(
            client.get("a"), client.delete("b"), client.get("c"), return_exceptions=True
        )
    assert (one, three) == (PDF_SKILL, PDF_SKILL)
    assert isinstance(two, ConnectionLost)
    assert daemon.connections == 2


async def test_closing_ends_calls_in_flight(serve: Serve) -> None:
    """Whoever waits is told, instead of waiting for ever."""
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def never(peer: Peer) -> None:
        peer.read()
        loop.call_soon_threadsafe(arrived.set)
        peer.read()

    client = AsyncSkilldClient(serve(never).path, timeout=None)
    call = asyncio.create_task(client.call("slow"))
    await asyncio.wait_for(arrived.wait(), PATIENCE_S)
    await client.close()
    with pytest.raises(ConnectionLost):
        await call


# Subscriptions.


def subscriber(peer: Peer, revision: str) -> None:
    """Answer the request that begins a subscription."""
    peer.reply(peer.expect("skills.subscribe"), {"revision": revision})


def change(peer: Peer, counter: int, *added: str, run: str = "r") -> None:
    """Tell a change."""
    peer.notify(revision=f"{run}:{counter}", added=added, updated=[], removed=[])


def catch_up(peer: Peer, since: str, revision: str, *added: str, complete: bool = True) -> None:
    """Answer the question what changed."""
    request = peer.expect("skills.changes")
    assert request["params"] == {"since": since}
    peer.reply(request, {"revision": revision, "added": added, "updated": [], "removed": [], "complete": complete})


def added(counter: int, *ids: str, run: str = "r") -> Changes:
    """What is told of such a change."""
    return Changes(f"{run}:{counter}", ids)


def test_changes_are_told_in_order(serve: Serve, connect: Connect) -> None:
    """Each notification is one ``Changes``; other notifications are passed over."""

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")
        change(peer, 5, "a")
        peer.send({"jsonrpc": "2.0", "method": "else", "params": {"revision": "r:9"}})
        peer.notify(revision="r:6", added=[], updated=["a"], removed=["b"])
        peer.read()

    with connect(serve(tell).path) as client, client.subscribe() as changes:
        assert changes.revision == "r:4"
        assert next(changes) == added(5, "a")
        assert next(changes) == Changes("r:6", (), ("a",), ("b",))
        assert changes.revision == "r:6"


def test_subscribing_since_a_revision(serve: Serve, connect: Connect) -> None:
    """What changed after it comes first; what the daemon told meanwhile is not told twice."""

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")
        change(peer, 5, "b")
        catch_up(peer, "r:2", "r:5", "a", "b")
        change(peer, 6, "c")
        peer.read()

    with connect(serve(tell).path) as client, client.subscribe("r:2") as changes:
        assert [next(changes), next(changes)] == [added(5, "a", "b"), added(6, "c")]


@pytest.mark.parametrize(
    "hint",
    [{"complete": False}, {"revision": "r:9", "added": ["x"], "updated": [], "removed": []}],
    ids=["told so", "gap"],
)
def test_notifications_that_were_left_out(serve: Serve, connect: Connect, hint: dict[str, Any]) -> None:
    """A subscriber that was too slow asks for what it missed."""

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")
        peer.notify(**hint)
        catch_up(peer, "r:4", "r:9", "w", "x")
        change(peer, 10, "y")
        peer.read()

    with connect(serve(tell).path) as client, client.subscribe() as changes:
        assert [next(changes), next(changes)] == [added(9, "w", "x"), added(10, "y")]


def test_nothing_is_told_twice(serve: Serve, connect: Connect) -> None:
    """After catching up, notifications of what was told are passed over; so is a question with an empty answer."""

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")
        peer.notify(complete=False)
        request = peer.expect("skills.changes")
        change(peer, 5, "a")
        peer.reply(request, {"revision": "r:5", "added": ["a"], "updated": [], "removed": [], "complete": True})
        change(peer, 5, "a")
        peer.notify(complete=False)
        catch_up(peer, "r:5", "r:5")
        change(peer, 6, "b")
        peer.read()

    with connect(serve(tell).path) as client, client.subscribe() as changes:
        assert [next(changes), next(changes)] == [added(5, "a"), added(6, "b")]


def test_a_connection_that_breaks(serve: Serve, connect: Connect) -> None:
    """The subscription goes on with the next connection, and asks what it missed in between."""

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")
        change(peer, 5, "a")

    def refuse(peer: Peer) -> None:
        peer.refuse(peer.expect("skills.subscribe"), ShuttingDown())

    def tell_on(peer: Peer) -> None:
        subscriber(peer, "r:7")
        catch_up(peer, "r:5", "r:7", "b", "c")
        change(peer, 8, "d")
        peer.read()

    daemon = serve(tell, refuse, tell_on)
    with connect(daemon.path) as client, client.subscribe() as changes:
        assert [next(changes) for _ in range(3)] == [added(5, "a"), added(7, "b", "c"), added(8, "d")]
    assert daemon.connections == 3


def test_a_connection_that_breaks_while_asking(serve: Serve, connect: Connect) -> None:
    """The question is asked again on the next connection, though no notification comes any more."""

    def break_off(peer: Peer) -> None:
        subscriber(peer, "r:4")
        peer.notify(complete=False)
        peer.expect("skills.changes")

    def tell_on(peer: Peer) -> None:
        subscriber(peer, "r:5")
        catch_up(peer, "r:4", "r:5", "a")
        peer.read()

    with connect(serve(break_off, tell_on).path) as client, client.subscribe() as changes:
        assert next(changes) == added(5, "a")


def test_a_daemon_that_started_again(serve: Serve, connect: Connect) -> None:
    """What it cannot tell is told as incomplete; then its own changes follow."""

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")

    def tell_anew(peer: Peer) -> None:
        subscriber(peer, "new:0")
        catch_up(peer, "r:4", "new:0", complete=False)
        change(peer, 1, "a", run="new")
        peer.read()

    with connect(serve(tell, tell_anew).path) as client, client.subscribe() as changes:
        assert next(changes) == Changes("new:0", complete=False)
        assert next(changes) == added(1, "a", run="new")


def test_a_daemon_that_comes_back_late(serve: Serve, connect: Connect) -> None:
    """While nobody listens, the subscription keeps trying."""

    def tell_on(peer: Peer) -> None:
        subscriber(peer, "r:5")
        catch_up(peer, "r:4", "r:5", "a")
        peer.read()

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")
        peer.read()

    first = FakeDaemon(serve.path, tell)
    with connect(first.path) as client, client.subscribe() as changes:
        first.stop()
        starter = threading.Timer(0.05, serve, (tell_on,))
        starter.start()
        assert next(changes) == added(5, "a")
        starter.join()


def test_a_daemon_that_does_not_come_back(serve: Serve, connect: Connect) -> None:
    """After ``reconnect_s`` seconds the subscription gives up."""

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")
        peer.read()

    first = FakeDaemon(serve.path, tell)
    with connect(first.path) as client, client.subscribe(reconnect_s=0.05) as changes:
        first.stop()
        with pytest.raises(NoDaemon):
            next(changes)


def test_a_subscription_that_is_refused(serve: Serve, connect: Connect) -> None:
    """An error that does not pass by itself is raised at once."""

    def refuse(peer: Peer) -> None:
        peer.refuse(peer.expect("skills.subscribe"), Forbidden("skills.subscribe", "read"))

    with connect(serve(refuse).path) as client, pytest.raises(Forbidden), client.subscribe():
        pass


def test_a_subscription_needs_a_daemon(tmp_path: Path, connect: Connect) -> None:
    """Where there is none at the beginning, none is waited for."""
    with connect(str(tmp_path / "none")) as client, pytest.raises(NoDaemon), client.subscribe():
        pass


def test_closing_ends_the_iteration_of_another_thread(serve: Serve) -> None:
    """A thread that waits for a change is let go."""

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")
        change(peer, 5, "a")
        peer.read()

    told: list[Changes] = []
    has_first = threading.Event()

    def follow() -> None:
        for changes in subscription:
            told.append(changes)
            has_first.set()

    with SkilldClient(serve(tell).path) as client:
        subscription = client.subscribe()
        thread = threading.Thread(target=follow)
        thread.start()
        assert has_first.wait(PATIENCE_S)
        subscription.close()
        subscription.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert told == [added(5, "a")]


async def test_closing_ends_the_iteration_of_another_task(serve: Serve) -> None:
    """A task that waits for a change is let go; an iteration without a block connects by itself."""

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")
        change(peer, 5, "a")
        peer.read()

    told: list[Changes] = []
    has_first = asyncio.Event()

    async with AsyncSkilldClient(serve(tell).path) as client:
        subscription = client.subscribe()

        async def follow() -> None:
            async for changes in subscription:
                told.append(changes)
                has_first.set()

        task = asyncio.create_task(follow())
        await asyncio.wait_for(has_first.wait(), PATIENCE_S)
        await subscription.close()
        await subscription.close()
        await asyncio.wait_for(task, PATIENCE_S)
    assert told == [added(5, "a")]


async def test_cancelling_the_wait_loses_nothing(serve: Serve) -> None:
    """A wait with a time limit may be cut off anywhere, even while the subscription catches up."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    requests: list[Request] = []

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:4")
        peer.notify(complete=False)
        peer.expect("skills.changes")
        loop.call_soon_threadsafe(asked.set)
        peer.read()

    def tell_on(peer: Peer) -> None:
        subscriber(peer, "r:5")
        catch_up(peer, "r:4", "r:5", "a")
        change(peer, 6, "b")
        requests.append(peer.read())

    async with AsyncSkilldClient(serve(tell, tell_on).path) as client, client.subscribe() as changes:
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await anext(changes) == added(5, "a")
        waiting = asyncio.ensure_future(anext(changes))
        assert await asyncio.wait_for(waiting, PATIENCE_S) == added(6, "b")
    assert requests == []


async def test_a_subscriber_who_does_not_take_changes(serve: Serve) -> None:
    """What piles up has a limit: then the daemon is not read from, and nothing is lost."""
    count = 20_000
    finished = threading.Event()

    def tell(peer: Peer) -> None:
        subscriber(peer, "r:0")
        for counter in range(1, count + 1):
            change(peer, counter, "x" * 100)
        finished.set()
        peer.read()

    async with AsyncSkilldClient(serve(tell).path) as client, client.subscribe() as changes:
        assert (await anext(changes)).revision == "r:1"
        assert not finished.is_set()
        for counter in range(2, count + 1):
            assert (await anext(changes)).revision == f"r:{counter}"
