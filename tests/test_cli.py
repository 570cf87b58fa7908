"""The command line against a double of the daemon on a real socket."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from skilld.cli import run
from skilld.cli.completion import complete_skill
from skilld.cli.group import COMMANDS, cli
from skilld.cli.logs import FORMATTERS
from skilld.cli.output import clean, clean_lines
from skilld.config import settings
from skilld.errors import Busy, SkillNotFound
from tests.fake_daemon import PATIENCE_S, FakeDaemon, Peer, Script, answering, fake_daemon

CHECKOUT = Path(__file__).parent.parent

EVIL = "\x1b]0;owned\x07\x9b31m\u202egnp.exe\r\nnext"
SAFE = "\ufffd]0;owned\ufffd\ufffd31m\ufffdgnp.exe next"

PROBLEM = {"path": "/s/pdf/SKILL.md", "severity": "warning", "message": "odd\x1b", "line": 2}
SKILL: dict[str, Any] = {
    "id": "pdf",
    "name": "pdf",
    "description": EVIL,
    "frontmatter": {"name": "pdf"},
    "body": "# Steps\r\n\n\t1.\x1b[2J caf\u00e9\n",
    "scripts": ["scripts/a.py"],
    "references": [],
    "assets": [],
    "resources": [
        {"path": "README", "size": 12, "sha256": "cd", "executable": False},
        {"path": "scripts/a.py", "size": 3, "sha256": "ab", "executable": True},
    ],
    "path": "/s/pdf",
    "root": "/s",
    "digest": "sha256:00",
    "modified": "2026-01-02T03:04:05Z",
    "problems": [PROBLEM],
    "newer": 1,
}
LIST = {
    "skills": [
        {"id": "pdf", "name": "pdf", "description": EVIL},
        {"id": "team-a/deploy", "name": "deploy", "description": "Deploys. " * 20},
    ],
    "total": 2,
    "revision": "r:1",
}
HIT = {"id": "pdf", "name": "pdf", "description": "d", "score": 1.239, "snippet": "fill a [form]\nnow"}
STATUS = {
    "version": "9.1",
    "uptime_s": 61.7,
    "pid": 7,
    "roots": [{"path": "/s", "skills": 2, "writable": True}, {"path": "/t", "skills": 0, "writable": False}],
    "revision": "r:1",
    "digest": "sha256:00",
    "problems": 3,
    "watcher": {"mode": "polling", "alive": True, "reason": "too many directories"},
    "index": {"documents": 1, "bytes": 10, "complete": False},
    "connections": 1,
    "tee": {"available": False, "endpoint": None},
}
ANSWERS: dict[str, Any] = {
    "skilld.ping": {},
    "skilld.status": STATUS,
    "skills.list": LIST,
    "skills.get": SKILL,
    "skills.search": {"skills": [HIT], "total": 1, "revision": "r:1"},
    "skills.problems": {"problems": [{**PROBLEM, "severity": "error"}, PROBLEM]},
    "skills.activate": {"prompt": "<skill_content>\x1b"},
    "skills.prompt": {"prompt": "<available_skills/>"},
    "skills.read_file": {"content": "/wAb", "encoding": "base64", "size": 3, "eof": True},
    "echo": lambda params: params,
    "rpc.discover": {"methods": [{"name": "skills.get"}, {"name": "skills.list"}, {"name": "skilld.ping"}]},
}


class Shell:
    """A command line in front of a double."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = directory / "s"
        self.seen: list[tuple[str, Any]] = []
        self._stack = stack
        self._capsys = capsys

    def serve(self, *scripts: Script, **answers: Any) -> FakeDaemon:
        """Start a double that runs these scripts, or gives the usual answers."""
        scripts = scripts or (answering(ANSWERS | {key.replace("_", "."): v for key, v in answers.items()}, self.seen),)
        return self._stack.enter_context(fake_daemon(self.path, *scripts))

    def run(self, *args: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one command, in this process."""
        self._capsys.readouterr()
        code = run([*args])
        out, err = self._capsys.readouterr()
        return code, out, err

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start one command as a process."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": CHECKOUT, **options}
        return subprocess.Popen([sys.executable, "-m", "skilld", *args], **options)

    def on_terminal(self, *args: str, columns: int = 60) -> tuple[int, str]:
        """Exit code of one command as a process, and what it writes to a terminal."""
        ours, theirs = pty.openpty()
        environ = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
        with self.popen(*args, stdout=theirs, stderr=theirs, stdin=theirs, env=environ) as process:
            os.close(theirs)
            written = b""
            with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:
                while data := terminal.read(65_536):
                    written += data
        return process.returncode, written.decode().replace("\r\n", "\n")


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A command line whose daemon is, if it is started, a double."""
    for setting in settings():
        if setting.env:
            monkeypatch.delenv(setting.env, raising=False)
    monkeypatch.setenv("SKILLD_CONFIG", os.devnull)
    with contextlib.ExitStack() as stack:
        shell = Shell(stack, tmp_path, capsys)
        monkeypatch.setenv("SKILLD_ENDPOINT", str(shell.path))
        yield shell


# Exit codes and errors.


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["show", "pfd"], 1, "skilld: no such skill: 'pfd'; did you mean pdf?"),
        (["show", "pdf", "--body", "--json"], 2, "skilld show: give one of --body, --prompt, --file and --json"),
        (["show"], 2, "skilld show: Missing argument 'NAME'."),
        (["shwo"], 2, "skilld: No such command 'shwo'."),
        (["list", "--wide"], 2, "skilld list: No such option"),
        (["list", "--timeout", "0"], 2, "skilld list: Invalid value for '--timeout': 0.0 is not in the range x>0."),
        (["call", "m", "{"], 2, "skilld call: Invalid value for PARAMS: not JSON: "),
        (["call", "m", "x"], 2, "skilld call: Invalid value for PARAMS: 'x' is neither JSON nor name=value"),
        (["validate", "./none"], 2, "skilld validate: Invalid value for PATH: no SKILL.md at './none'"),
        (["--endpoint", "/none/s", "ping"], 3, "skilld: no daemon answers: /none/s: No such file or directory; start"),
        (["ping", "--socket", "/none/s"], 3, "skilld: no daemon answers: /none/s: No such file or directory; start"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors(shell: Shell, args: list[str], code: int, message: str) -> None:
    """An error is one line on standard error that names the value, and an exit code that says whose fault it is."""
    shell.serve(skills_get=SkillNotFound("pfd", ("pdf",)))
    was_code, out, err = shell.run(*args)
    assert (was_code, out, err.count("\n")) == (code, "", 1)
    assert err.startswith(message)


def test_a_refusal(shell: Shell) -> None:
    """A refusal is exit code 1, whatever its reason."""
    shell.serve(skilld_ping=Busy("too many connections"))
    assert shell.run("ping") == (1, "", "skilld: too many connections\n")


def test_an_error_cannot_drive_the_terminal(shell: Shell) -> None:
    """What an error quotes is as harmless as what a skill says."""
    shell.serve(skills_get=SkillNotFound("x", (EVIL,)))
    assert shell.run("show", "x") == (1, "", f"skilld: no such skill: 'x'; did you mean {SAFE}?\n")


def test_a_daemon_without_an_answer(shell: Shell) -> None:
    """No reply in time, and a reply that is none, count as no daemon."""

    def silent(peer: Peer) -> None:
        peer.read()
        peer.read()

    def http(peer: Peer) -> None:
        peer.read()
        peer.send_bytes(b"HTTP/1.1 400 Bad Request\n")

    shell.serve(silent, http)
    assert shell.run("ping", "--timeout", "0.05") == (3, "", "skilld: skilld.ping: no reply within 0.05 s\n")
    code, _, err = shell.run("ping")
    assert (code, err) == (3, "skilld: not JSON: b'HTTP/1.1 400 Bad Request'\n")


def test_a_socket_that_may_not_be_opened(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks the permission is told so, and not to start another daemon."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", refuse)
    code, _, err = shell.run("ping")
    assert code == 3
    assert err.endswith(": Permission denied; join the group that owns the socket, or call as root\n")


def test_a_mistake_of_our_own_is_not_hidden(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the caller can react to becomes a line; the rest keeps its traceback."""
    monkeypatch.setattr("skilld.cli.caller.Caller.call", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(["ping"])


def test_without_a_command(shell: Shell) -> None:
    """The help is shown, as an error."""
    code, out, err = shell.run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: skilld")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(shell: Shell, name: str) -> None:
    """The table names commands that are there, each with a sentence of its own, which needs no daemon."""
    code, out, _ = shell.run(name, "--help")
    assert code == 0
    assert out.startswith(f"Usage: skilld {name}")
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name


def test_version(shell: Shell) -> None:
    """The version is printed."""
    assert shell.run("--version") == (0, "skilld, version 0.1.0\n", "")


# Commands.


def test_ping(shell: Shell) -> None:
    """A daemon that answers is ok."""
    shell.serve()
    assert shell.run("ping") == (0, "ok\n", "")


def test_list(shell: Shell) -> None:
    """Into a pipe every skill is a line, whole and harmless; as JSON everything is there."""
    shell.serve()
    assert shell.run("list") == (0, f"pdf            {SAFE}\nteam-a/deploy  {('Deploys. ' * 20).strip()}\n", "")
    code, out, _ = shell.run("list", "--json", "--root", "/s")
    assert (code, out.count("\n"), out.isascii(), json.loads(out)) == (0, 1, True, LIST)
    assert shell.seen[-1] == ("skills.list", {"offset": 0, "limit": 1_000, "root": "/s"})


def test_list_on_a_terminal(shell: Shell) -> None:
    """On a terminal the list has titles and is as wide as that; nothing in it drives the terminal."""
    shell.serve()
    code, out = shell.on_terminal("list", columns=40)
    assert code == 0
    plain = [line.rstrip() for line in click.unstyle(out).splitlines()]
    assert plain[0].split() == ["ID", "DESCRIPTION"]
    assert all(len(line) <= 40 for line in plain)
    assert plain[1].startswith("pdf            \ufffd]0;owned")
    assert plain[2].startswith("team-a/deploy  Deploys.") and plain[2].endswith("…")
    assert "\x1b]0" not in out and "\x9b" not in out and "\u202e" not in out


def test_json_on_a_terminal(shell: Shell) -> None:
    """On a terminal JSON is indented, readable and still harmless."""
    shell.serve(echo=["é", EVIL])
    code, out = shell.on_terminal("call", "echo")
    assert (code, json.loads(out)) == (0, ["é", EVIL])
    assert out.startswith('[\n  "é",\n')
    assert "\x1b" not in out and "\x9b" not in out and "\u202e" not in out


def test_an_empty_list(shell: Shell) -> None:
    """No skill is no line, and no error."""
    shell.serve(skills_list={"skills": [], "total": 0, "revision": "r:0"})
    assert shell.run("list") == (0, "", "")


def test_search(shell: Shell) -> None:
    """Hits are lines with score, id and passage; words of the query need no quotes."""
    shell.serve()
    assert shell.run("search", "fill", "a form", "-n", "3") == (0, "1.24  pdf  fill a [form] now\n", "")
    assert shell.seen == [("skills.search", {"query": "fill a form", "limit": 3})]
    assert json.loads(shell.run("search", "x", "--json")[1]) == ANSWERS["skills.search"]


def test_search_without_a_hit(shell: Shell) -> None:
    """That nothing was found, and that more may be found later, is said beside the output."""
    shell.serve(skills_search={"skills": [], "total": 0, "revision": "r:1", "complete": False})
    assert shell.run("search", "x") == (0, "", "no skill matches\nthe index is not complete yet\n")


def test_show(shell: Shell) -> None:
    """A skill is shown as its facts, files, problems and body."""
    shell.serve()
    code, out, _ = shell.run("show", "pdf")
    assert code == 0
    assert out == (
        "id:            pdf\n"
        "name:          pdf\n"
        f"description:   {SAFE}\n"
        "path:          /s/pdf\n"
        "digest:        sha256:00\n"
        "modified:      2026-01-02T03:04:05Z\n"
        "                      12  README\n"
        "                       3 *scripts/a.py\n"
        "warning:       odd\ufffd\n"
        "\n" + SKILL["body"]
    )
    assert json.loads(shell.run("show", "pdf", "--json")[1]) == SKILL


def test_a_skill_s_own_text(shell: Shell) -> None:
    """Into a pipe body, prompt and files go as they are; on a terminal they cannot drive it."""
    shell.serve()
    with shell.popen("show", "pdf", "--body") as process:
        assert process.communicate() == (SKILL["body"].encode(), b"")
    assert shell.run("show", "pdf", "--prompt")[1] == "<skill_content>\x1b\n"
    code, body = shell.on_terminal("show", "pdf", "--body")
    # A terminal may expand tabs.
    assert (code, body.expandtabs()) == (0, "# Steps\n\n\t1.\ufffd[2J café\n".expandtabs())
    assert shell.on_terminal("show", "pdf", "--prompt") == (0, "<skill_content>\ufffd\n")


def test_show_file(shell: Shell) -> None:
    """A file's bytes go into a pipe untouched; what is no text is kept from a terminal."""
    shell.serve()
    with shell.popen("show", "pdf", "--file", "a") as process:
        assert process.communicate() == (b"\xff\x00\x1b", b"")
    assert shell.on_terminal("show", "pdf", "--file", "a") == (
        2,
        "skilld: 3 bytes that are no text; send them into a file\n",
    )


def test_prompt(shell: Shell) -> None:
    """The block is of the skills that are named, of the hits of a query, or of all."""
    shell.serve()
    assert shell.run("prompt") == (0, "<available_skills/>\n", "")
    shell.run("prompt", "a", "b", "--limit", "1")
    shell.run("prompt", "-q", "form")
    assert [params for _, params in shell.seen] == [{}, {"names": ["a", "b"], "limit": 1}, {"query": "form"}]


def test_problems(shell: Shell) -> None:
    """Problems are lines as compilers print them; warnings are counted, and shown when asked for."""
    shell.serve()
    error, warning = "/s/pdf/SKILL.md:2: error: odd\ufffd\n", "/s/pdf/SKILL.md:2: warning: odd\ufffd\n"
    assert shell.run("problems") == (0, error, "1 warnings more: skilld problems --all\n")
    assert shell.run("problems", "--all") == (0, error + warning, "")
    assert json.loads(shell.run("problems", "--all", "--json")[1]) == ANSWERS["skills.problems"]


def test_validate_a_skill_that_is_served(shell: Shell) -> None:
    """A name is checked by the daemon; a broken rule is exit code 1."""
    shell.serve(skills_validate=lambda _: {"valid": True, "problems": []})
    assert shell.run("validate", "pdf") == (0, "pdf: valid\n", "")
    assert shell.seen == [("skills.validate", {"name": "pdf"})]


@pytest.mark.parametrize("target", ["pdf", "pdf/skill.md", "./pdf"])
def test_validate_a_path(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """A directory or a file is read here, sent as text, and named as it was given."""
    (tmp_path / "pdf").mkdir()
    (tmp_path / "pdf/skill.md").write_bytes(b"---\r\n")
    monkeypatch.chdir(tmp_path)
    reply = {"valid": False, "problems": [{"path": "SKILL.md", "severity": "error", "message": "no end", "line": 1}]}
    shell.serve(skills_validate=reply)
    shown = f"{target}/skill.md" if not target.endswith(".md") else target
    assert shell.run("validate", target) == (1, f"{shown}:1: error: no end\n", "")
    code, out, _ = shell.run("validate", target, "--json")
    assert (code, json.loads(out)["problems"][0]["path"]) == (1, str(tmp_path / "pdf/skill.md"))
    assert shell.seen == [("skills.validate", {"content": "---\r\n"})] * 2


def test_validate_what_is_no_text(shell: Shell, tmp_path: Path) -> None:
    """A file that is not UTF-8 cannot be sent, and says where it is not."""
    path = tmp_path / "SKILL.md"
    path.write_bytes(b"abc\xff")
    code, _, err = shell.run("validate", str(path))
    assert (code, "is not UTF-8 at byte 3" in err) == (2, True)


def test_status(shell: Shell) -> None:
    """The state of the daemon is a few lines, or everything as JSON."""
    shell.serve()
    code, out, _ = shell.run("status")
    assert code == 0
    assert out == (
        "version      9.1, pid 7, up 62 s\n"
        "root         /s: 2 skills\n"
        "root         /t: 0 skills, read-only\n"
        "revision     r:1\n"
        "digest       sha256:00\n"
        "problems     3\n"
        "watcher      polling (too many directories)\n"
        "index        1 skills, not complete yet\n"
        "connections  1\n"
        "sandbox      none, scripts do not run\n"
        "tee          none, not available\n"
    )
    assert json.loads(shell.run("status", "--json")[1]) == STATUS


@pytest.mark.parametrize(
    ("given", "params"),
    [
        ([], {}),
        (['{"a": [1]}'], {"a": [1]}),
        (["[1, 2]"], [1, 2]),
        (["a=1", "b=x y", "c=true", 'd="1"', "e=", "f=a=b", "g=[1"],
         {"a": 1, "b": "x y", "c": True, "d": "1", "e": "", "f": "a=b", "g": "[1"}),
        (["-"], {"from": "stdin"}),
    ],
    ids=["none", "object", "array", "pairs", "standard input"],
)  # fmt: skip
def test_call(shell: Shell, monkeypatch: pytest.MonkeyPatch, given: list[str], params: Any) -> None:
    """Params are JSON, or pairs whose values are JSON or else text; the result is JSON."""
    monkeypatch.setattr("sys.stdin", io.StringIO('{"from": "stdin"}\n'))
    shell.serve()
    code, out, _ = shell.run("call", "echo", *given)
    assert (code, json.loads(out)) == (0, params)


def tell(peer: Peer) -> None:
    """A daemon that tells two changes, the second by starting again."""
    peer.reply(peer.expect("skills.subscribe"), {"revision": "r:1"})
    peer.notify(revision="r:2", added=["a\x1b"], updated=["b"], removed=["c"])
    peer.notify(complete=False)
    peer.reply(peer.expect("skills.changes"), {"revision": "s:0", "complete": False})
    peer.read()


def test_watch(shell: Shell) -> None:
    """Changes are lines with a mark as they come; JSON has one line a change."""
    shell.serve(tell)
    lines = "+ a\ufffd\n~ b\n- c\n? changes were missed: list the skills again\n"
    assert shell.run("watch", "--count", "2") == (0, lines, "")
    code, out, _ = shell.run("watch", "--count", "2", "--json")
    assert (code, [json.loads(line) for line in out.splitlines()]) == (
        0,
        [
            {"revision": "r:2", "added": ["a\x1b"], "updated": ["b"], "removed": ["c"], "complete": True},
            {"revision": "s:0", "added": [], "updated": [], "removed": [], "complete": False},
        ],
    )


def test_watch_since(shell: Shell) -> None:
    """What changed since a revision comes first."""

    def tell_since(peer: Peer) -> None:
        peer.reply(peer.expect("skills.subscribe"), {"revision": "r:5"})
        request = peer.expect("skills.changes")
        assert request["params"] == {"since": "r:3"}
        peer.reply(request, {"revision": "r:5", "updated": ["b"], "complete": True})
        peer.read()

    shell.serve(tell_since)
    assert shell.run("watch", "--since", "r:3", "--count", "1") == (0, "~ b\n", "")


def test_interrupting_is_quiet(shell: Shell) -> None:
    """Ctrl-C ends a command with 130 and without a traceback."""
    shell.serve(tell)
    with shell.popen("watch") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "+ a\ufffd\n".encode()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr.read().strip() == b""


def test_a_closed_pipe_is_quiet(shell: Shell) -> None:
    """A reader who has seen enough is no error."""
    skills = [{"id": f"s{n}", "name": "n", "description": "d" * 200} for n in range(1_000)]
    shell.serve(skills_list={"skills": skills, "total": 1_000, "revision": "r:1"})
    with shell.popen("list") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"s0 ")
        process.stdout.close()
        assert (process.wait(PATIENCE_S), process.stderr.read()) == (0, b"")


def test_what_the_encoding_lacks(shell: Shell) -> None:
    """A character that the encoding of the output has not is no error; it is written as an escape."""
    shell.serve()
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    with shell.popen("list", env=environ) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, b"")
    assert out.splitlines()[0].split(maxsplit=1) == [b"pdf", SAFE.encode("latin-1", "backslashreplace")]


def test_a_full_disk_is_an_error(shell: Shell) -> None:
    """Output that could not be written is not silently lost."""
    shell.serve()
    with open("/dev/full", "wb") as full, shell.popen("list", stdout=full) as process:
        assert process.stderr is not None
        assert process.stderr.read() == b"skilld: [Errno 28] No space left on device\n"
    assert process.returncode == 1


def test_a_call_imports_no_more_than_it_needs(shell: Shell) -> None:
    """A start must not cost more than the call: no event loop, no tables, no YAML."""
    shell.serve()
    code = (
        "import sys; from skilld.cli import run; run(['ping']); "
        "print([m for m in ('asyncio', 'rich', 'yaml', 'orjson', 'skilld.config') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.stdout == "ok\n[]\n"


# Settings.


def test_config(shell: Shell, tmp_path: Path) -> None:
    """Every setting has a line with value and source; no daemon is needed."""
    file = tmp_path / "skilld.yaml"
    file.write_text("log: {level: debug}\n")
    code, out, _ = shell.run("config", "--config", str(file), "--skills-dir", "/a", "--skills-dir", "/b:/c")
    lines = out.splitlines()
    assert code == 0
    assert [line.split(" ")[0] for line in lines] == [setting.key for setting in settings()]
    assert 'skills_dir ["/a", "/b", "/c"] flag' in lines
    assert f'log.level "debug" {file}' in lines
    assert 'log.format "auto" default' in lines


def test_config_as_json(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON each key has its value and source; a socket may be named before the command, too."""
    monkeypatch.setenv("SKILLD_LOG", "json")
    code, out, _ = shell.run("--socket", "/x/s", "config", "--json", "--limits-nesting", "9")
    values = json.loads(out)
    assert code == 0
    assert values["limits.nesting"] == {"value": 9, "source": "flag"}
    assert values["socket"] == {"value": "/x/s", "source": "flag"}
    assert values["log.format"] == {"value": "json", "source": "SKILLD_LOG"}


@pytest.mark.parametrize("command", ["config", "serve"])
@pytest.mark.parametrize(
    ("args", "text", "message"),
    [
        (["--config", "none.yaml"], None, "none.yaml: No such file or directory"),
        ([], "nope: 1", "bad.yaml: unknown key 'nope'"),
        ([], b"\xff", "bad.yaml: not UTF-8"),
        (["--log-level", "loud"], "", "log.level (flag): must be one of"),
        (["--limits-nesting", "many"], "", "limits.nesting (flag): must be a whole number, not 'many'"),
    ],
    ids=["no file", "unknown key", "not UTF-8", "choice", "number"],
)
def test_wrong_settings(
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    args: list[str],
    text: str | bytes | None,
    message: str,
) -> None:
    """A wrong setting is exit code 2 and one line that names it and where it was given."""
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("bad.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        monkeypatch.setenv("SKILLD_CONFIG", "bad.yaml")
    code, out, err = shell.run(command, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"skilld: {message}")


def test_the_default_file_may_be_missing(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a file that was named must be there."""
    monkeypatch.delenv("SKILLD_CONFIG")
    monkeypatch.setattr("skilld.cli.serve.DEFAULT_CONFIG_PATH", str(tmp_path / "none.yaml"))
    assert shell.run("config")[0] == 0


@pytest.mark.parametrize("command", ["config", "serve"])
def test_every_setting_has_a_flag(command: str) -> None:
    """The flags are those of the settings."""
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    flags = {flag for param in found.params for flag in param.opts}
    assert {setting.flag for setting in settings()} <= flags


def test_logs() -> None:
    """A record is a line for people, an object for machines, or lines with a priority for the journal."""
    record = logging.LogRecord("skilld.x", logging.WARNING, "f", 1, "two %s", ("lines\nhere",), None)
    record.created, record.msecs = 1_700_000_000.25, 250.0
    assert FORMATTERS["text"]().format(record) == "2023-11-14T22:13:20.250Z WARNING two lines\nhere"
    assert FORMATTERS["journal"]().format(record) == "<4>two lines\n<4>here"
    assert json.loads(FORMATTERS["json"]().format(record)) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "skilld.x",
        "message": "two lines\nhere",
    }
    try:
        raise ValueError("why")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: why" in json.loads(FORMATTERS["json"]().format(record))["exception"]


# Completion.


def complete(shell: Shell, words: str) -> list[str]:
    """What bash is told to offer for the last of these words."""
    environ = {
        **os.environ,
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "_SKILLD_COMPLETE": "bash_complete",
    }
    with shell.popen(env=environ) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert err == b""
    return [line for line in out.decode().splitlines() if line]


def test_completion(shell: Shell) -> None:
    """Skills and methods are completed from the live daemon; a path where no skill fits."""
    shell.serve()
    assert complete(shell, "skilld show p") == ["plain,pdf"]
    assert complete(shell, "skilld prompt pdf team") == ["plain,team-a/deploy"]
    assert complete(shell, "skilld call skills.") == ["plain,skills.get", "plain,skills.list"]
    assert complete(shell, "skilld validate ./x") == ["file,./x"]
    assert complete(shell, "skilld sta") == ["plain,status"]


def test_completion_of_another_daemon(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon that the command line names is the one that is asked."""
    daemon = shell.serve()
    monkeypatch.setenv("SKILLD_ENDPOINT", "/none")
    assert complete(shell, f"skilld show --socket {daemon.path} p") == ["plain,pdf"]
    assert complete(shell, f"skilld --socket {daemon.path} show p") == ["plain,pdf"]


def test_completion_without_a_daemon(shell: Shell) -> None:
    """Where none answers, nothing is offered, and nothing is said."""
    assert complete(shell, "skilld show p") == []
    assert complete(shell, "skilld call s") == []


@pytest.mark.parametrize("id", ["$(reboot)", "a b", "a;b", "`x`", "--help", "*", "a\nplain,b", "'"])
def test_completion_is_no_way_into_the_shell(shell: Shell, id: str) -> None:
    """An id that a shell would take for more than a word is not offered."""
    shell.serve(skills_list={"skills": [{"id": id, "name": "n", "description": "d"}], "total": 1, "revision": "r:1"})
    command = cli.get_command(click.Context(cli), "show")
    assert command is not None
    assert complete_skill(click.Context(command), command.params[0], "") == []


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: Shell, name: str) -> None:
    """The script for a shell asks skilld itself."""
    code, out, _ = shell.run("completion", name)
    assert (code, f"_SKILLD_COMPLETE={name}_complete" in out) == (0, True)


# Harmless text.


@pytest.mark.parametrize(
    ("text", "line", "lines"),
    [
        (EVIL, SAFE, SAFE.replace(" ", "\n")),
        ("a\tb\r\nc\rd", "a b c d", "a\tb\nc\ufffdd"),
        ("caf\u00e9\u00a0👩\u200d💻", "caf\u00e9 👩\u200d💻", "caf\u00e9\u00a0👩\u200d💻"),
        ("\ud800\x7f", "\ufffd\ufffd", "\ufffd\ufffd"),
    ],
    ids=["escapes", "white space", "other scripts", "no characters"],
)
def test_harmless_text(text: str, line: str, lines: str) -> None:
    """What could drive a terminal is replaced; letters of all scripts and emoji stay."""
    assert (clean(text), clean_lines(text)) == (line, lines)
