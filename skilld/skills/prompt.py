"""
The texts that bring skills into an agent's context.

Owns: nothing; values only.

Source: Agent Skills client implementation guide, "Disclose" and "Activate"; ``skills-ref to-prompt``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from skilld.skills.model import Skill


def available_skills(skills: Sequence[Skill], ids_by_name: Mapping[str, Sequence[str]]) -> str:
    """
    Return the ``<available_skills>`` block, or "" for no skills.

    Args:
        skills: In the order to print.
        ids_by_name: Where several skills bear a name, the block names each by its id, which is what a caller can get.
    """
    if not skills:
        return ""
    lines = ["<available_skills>"]
    for skill in skills:
        label = skill.name if len(ids_by_name.get(skill.name, ())) == 1 else skill.id
        lines += [
            "  <skill>",
            f"    <name>{escape(label, quote=False)}</name>",
            f"    <description>{escape(skill.description, quote=False)}</description>",
            f"    <location>{escape(skill.skill_md, quote=False)}</location>",
            "  </skill>",
        ]
    return "\n".join([*lines, "</available_skills>"])


def activation(skill: Skill, body: str, limit_resources: int) -> str:
    """
    Return the ``<skill_content>`` block of one skill: body, directory and the list of its files.

    Args:
        skill: The skill.
        body: Its body.
        limit_resources: Files beyond so many are not listed; the block says how many.
    """
    lines = [
        f'<skill_content name="{escape(skill.name)}">',
        _inside(body.strip()),
        "",
        f"Skill directory: {_inside(skill.path)}",
        "Relative paths in this skill are relative to the skill directory.",
    ]
    if skill.resources:
        lines += ["", "<skill_resources>"]
        lines += [
            f"  <file>{escape(resource.path, quote=False)}</file>" for resource in skill.resources[:limit_resources]
        ]
        left_out = len(skill.resources) - limit_resources
        if left_out > 0:
            lines.append(f"  <!-- {left_out} more files are not listed -->")
        lines.append("</skill_resources>")
    return "\n".join([*lines, "</skill_content>"])


def _inside(text: str) -> str:
    """Keep a text from ending the block that it stands in, and leave it readable."""
    return re.sub(r"<(?=/\s*skill_content)", "&lt;", text, flags=re.IGNORECASE)
