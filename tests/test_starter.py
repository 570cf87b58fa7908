"""The files of a complex skill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.factory.answers import Example
from skilld.factory.starter import SCRIPT, SCRIPT_PATH, TEMPLATE_PATH, make_template


@pytest.fixture
def skill_dir(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "assets").mkdir()
    (tmp_path / "scripts" / SCRIPT_PATH).write_text(SCRIPT)
    return tmp_path


def run(skill_dir: Path, template: str, text: bytes, *args: str) -> subprocess.CompletedProcess[bytes]:
    (skill_dir / "assets" / TEMPLATE_PATH).write_bytes(template.encode())
    script = skill_dir / "scripts" / SCRIPT_PATH
    return subprocess.run([sys.executable, "-I", "-X", "dev", script, *args], input=text, capture_output=True)


@pytest.mark.parametrize(
    ("input_", "output"),
    [
        ("Client name: ACME\nHours: 12", "Invoice for ACME\n\n12 hours, $ 1,200"),
        ("a: x\nb: x y", "x y, then x; xx stays"),
        ('{"client": "ACME", "hours": 12}', "ACME: 12"),
        ("name: ${evil} $x\n", "Dear ${evil} $x, $$"),
        ("city: Zürich\r\nzip: 8000", "8000 Zürich"),
    ],
)
def test_script_turns_the_example_input_into_its_output(skill_dir: Path, input_: str, output: str) -> None:
    """Fed the example's input, the starter writes the example's output."""
    template = make_template("Title", Example("", input_.replace("\r\n", "\n"), output))
    assert "${" in template
    result = run(skill_dir, template, input_.encode())
    assert (result.returncode, result.stderr.decode(), result.stdout.decode()) == (0, "", output + "\n")


@pytest.mark.parametrize("example", [Example("a story"), Example("", "hours.csv", "invoice"), Example("", "a: b", "c")])
def test_template_without_shared_fields_holds_the_whole_input(skill_dir: Path, example: Example) -> None:
    """An example that shares no field gives a template that repeats no stale values."""
    template = make_template("Fill forms", example)
    assert template == "# Fill forms\n\n${input}\n"
    assert run(skill_dir, template, b"x: 1\ny\n").stdout == b"# Fill forms\n\nx: 1\ny\n"


@pytest.mark.parametrize(
    ("template", "text", "message"),
    [
        ("${a} ${b} $c", b"a: 1", "lacks what the template needs: b, c"),
        ("x", b" \n", "the input is empty"),
        ("x", b"\xff", "standard input is not UTF-8 text"),
        ("x", b"{nope", "looks like JSON but is not"),
        ("costs $ 5", b"a: 1", "the template is broken"),
    ],
)
def test_script_says_what_is_wrong(skill_dir: Path, template: str, text: bytes, message: str) -> None:
    """A fault of the input or the template is one line on standard error and exit code 1."""
    result = run(skill_dir, template, text)
    assert (result.returncode, result.stdout) == (1, b"")
    assert message in result.stderr.decode()
    assert result.stderr.count(b"\n") == 1


FIELDS = st.dictionaries(
    st.text("Ab1 _-:\u00e9", min_size=1),
    st.text("xy $${}\u05e9\n1.", min_size=1) | st.integers() | st.lists(st.just(1)),
)


@given(FIELDS, st.booleans(), st.lists(st.text("xy $ {}\n") | st.integers().map(str), max_size=4))
def test_any_example_is_reproduced_or_left_alone(fields: dict[str, object], as_json: bool, words: list[str]) -> None:
    """The template gives the example's output back, whatever the fields are; or it is the general one."""
    script: dict[str, Any] = {"__name__": "run", "__file__": "/skill/scripts/run.py"}
    exec(SCRIPT, script)
    input_ = json.dumps(fields) if as_json else "\n".join(f"{key}: {value}" for key, value in fields.items())
    output = " ".join([*words, *(str(value) for value in fields.values())])
    template = make_template("Title", Example("", input_, output))
    if template != "# Title\n\n${input}\n":
        text = input_.strip()
        assert script["fill"](template, {**script["read_fields"](text), "input": text}) == output + "\n"


def test_script_reads_a_file(skill_dir: Path, tmp_path: Path) -> None:
    """An argument names the input; one that is not there is an error."""
    (tmp_path / "in.txt").write_text("a: 1")
    assert run(skill_dir, "${a}!", b"", str(tmp_path / "in.txt")).stdout == b"1!"
    missing = run(skill_dir, "${a}!", b"", str(tmp_path / "missing.txt"))
    assert missing.returncode == 1
    assert b"No such file" in missing.stderr


def test_script_explains_itself(skill_dir: Path) -> None:
    """--help tells the form of input and template; a wrong option is exit code 2."""
    result = run(skill_dir, "", b"", "--help")
    assert result.returncode == 0
    assert b"Fill the template" in result.stdout
    assert run(skill_dir, "", b"", "--nope").returncode == 2
