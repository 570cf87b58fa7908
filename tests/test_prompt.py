"""The texts that bring skills into an agent's context."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.skills.model import Resource, Skill
from skilld.skills.prompt import activation, available_skills

PDF = Skill(
    id="team/pdf",
    name="pdf",
    description="Fill & sign <forms>.",
    license=None,
    compatibility=None,
    metadata=None,
    allowed_tools=None,
    frontmatter={},
    resources=(),
    path="/skills/team/pdf",
    root="/skills",
    skill_md="/skills/team/pdf/SKILL.md",
    skill_md_sha256="",
    digest=None,
    modified_ns=0,
    problems=(),
)
EXCEL = replace(PDF, id="excel", name="excel", description="Sheets.", skill_md="/skills/excel/SKILL.md")


def test_no_skills_have_no_block() -> None:
    """An empty catalogue would only cost tokens."""
    assert available_skills([], {}) == ""


def test_a_block_names_describes_and_locates_each_skill() -> None:
    """In the order given, escaped as the reference's to-prompt escapes."""
    assert available_skills([PDF, EXCEL], {"pdf": ["team/pdf"], "excel": ["excel"]}) == (
        "<available_skills>\n"
        "  <skill>\n"
        "    <name>pdf</name>\n"
        "    <description>Fill &amp; sign &lt;forms&gt;.</description>\n"
        "    <location>/skills/team/pdf/SKILL.md</location>\n"
        "  </skill>\n"
        "  <skill>\n"
        "    <name>excel</name>\n"
        "    <description>Sheets.</description>\n"
        "    <location>/skills/excel/SKILL.md</location>\n"
        "  </skill>\n"
        "</available_skills>"
    )


def test_a_name_that_several_bear_is_replaced_by_the_id() -> None:
    """The block names each skill by what a caller can get it with."""
    other = replace(PDF, id="other/pdf")
    block = available_skills([PDF, other], {"pdf": ["other/pdf", "team/pdf"]})
    assert re.findall("<name>(.*)</name>", block) == ["team/pdf", "other/pdf"]


XML_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), min_size=1)


@given(XML_TEXT, XML_TEXT, XML_TEXT)
def test_no_text_breaks_out_of_the_block(name: str, description: str, path: str) -> None:
    """Whatever a skill says of itself, the block stays well-formed and says the same."""
    skill = replace(PDF, name=name, description=description, skill_md=path)
    parsed = ElementTree.fromstring(available_skills([skill, EXCEL], {name: ["x"], "excel": ["excel"]}))
    found = [[element.text for element in entry] for entry in parsed]
    assert found == [[name, description, path], ["excel", "Sheets.", "/skills/excel/SKILL.md"]]


def test_an_activated_skill_is_body_directory_and_files() -> None:
    """The body as its author wrote it, blanks around it apart."""
    skill = replace(PDF, resources=(Resource("LICENSE", 1, None, False), Resource("scripts/a&b.py", 1, None, True)))
    assert activation(skill, "\n\n# Steps\n\nUse <b>this</b> & that.\n\n", 10) == (
        '<skill_content name="pdf">\n'
        "# Steps\n"
        "\n"
        "Use <b>this</b> & that.\n"
        "\n"
        "Skill directory: /skills/team/pdf\n"
        "Relative paths in this skill are relative to the skill directory.\n"
        "\n"
        "<skill_resources>\n"
        "  <file>LICENSE</file>\n"
        "  <file>scripts/a&amp;b.py</file>\n"
        "</skill_resources>\n"
        "</skill_content>"
    )


def test_a_skill_without_files_has_no_list() -> None:
    """Nor does one without a body lack its block."""
    assert activation(PDF, "", 10) == (
        '<skill_content name="pdf">\n'
        "\n"
        "\n"
        "Skill directory: /skills/team/pdf\n"
        "Relative paths in this skill are relative to the skill directory.\n"
        "</skill_content>"
    )


@pytest.mark.parametrize(
    ("limit", "listed", "note"), [(0, 0, "5"), (2, 2, "3"), (4, 4, "1"), (5, 5, None), (9, 5, None)]
)
def test_a_long_list_says_what_it_leaves_out(limit: int, listed: int, note: str | None) -> None:
    """The number of files that are not listed, if there are any."""
    skill = replace(PDF, resources=tuple(Resource(f"{number}", 1, None, False) for number in range(5)))
    block = activation(skill, "Steps.", limit)
    assert block.count("<file>") == listed
    assert re.findall(r"<!-- (\d+) more files are not listed -->", block) == ([note] if note else [])


@pytest.mark.parametrize(
    "end", ["</skill_content>", "</skill_content >", "</SKILL_CONTENT>", "</ skill_content>", "</\nskill_content>"]
)
def test_neither_body_nor_path_ends_the_block(end: str) -> None:
    """What looks like the block's end in a skill's text is escaped, and nothing else of it."""
    skill = replace(PDF, name='"><x>', path=f"/skills/{end}", resources=(Resource(end, 1, None, False),))
    block = activation(skill, f"Before {end} after.", 10)
    assert len(re.findall(r"</\s*skill_content", block, re.IGNORECASE)) == 1
    assert block.endswith("\n</skill_content>")
    assert f"Before &lt;{end[1:]} after." in block
    assert block.startswith('<skill_content name="&quot;&gt;&lt;x&gt;">\n')
