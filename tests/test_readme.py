"""The README is true: its tables are those of the code, its commands are the ones that are tested."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from skilld.config import settings
from skilld.errors import SkilldError
from skilld.rpc.methods import TABLE
from skilld.skills.scanner import ScanLimits, scan

README = Path(__file__).parent.parent / "README.md"


def api_table() -> str:
    """Every method, as the README shows it."""
    rows = ["| method | REST | params | role | |", "|---|---|---|---|---|"]
    for method in TABLE:
        route = f"`{method.route[0]} {method.route[1]}`" if method.route else "-"
        params = ", ".join(
            f"{param.name}{'' if param.required else '?'}"
            + (f"={_shown(param.default)}" if param.default is not None and not param.required else "")
            for param in method.params
        )
        rows.append(f"| `{method.name}` | {route} | {params or '-'} | {method.role} | {method.summary} |")
    return "\n".join(rows)


def settings_table() -> str:
    """Every setting, as the README shows it."""
    rows = ["| key in the file | flag | environment | default | |", "|---|---|---|---|---|"]
    for setting in settings():
        default = setting.default
        shown = (
            ", ".join(default)
            if isinstance(default, tuple)
            else str(default).lower()
            if isinstance(default, bool)
            else f"{default:,}"
            if isinstance(default, int) and not isinstance(default, bool)
            else _shown(default)
        )
        choices = f" One of {', '.join(f'`{choice}`' for choice in setting.choices)}." if setting.choices else ""
        env = f"`{setting.env}`" if setting.env else ""
        rows.append(f"| `{setting.key}` | `{setting.flag}` | {env} | {shown or ''} | {setting.doc}{choices} |")
    return "\n".join(rows)


def _shown(default: object) -> object:
    """A default as JSON has it."""
    return json.dumps(default) if isinstance(default, bool) else default


def errors_table() -> str:
    """Every error, as the README shows it."""
    rows = ["| code | reason | HTTP | |", "|---|---|---|---|"]
    for cls in sorted(SkilldError.__subclasses__(), key=lambda cls: -cls.code):
        summary = (cls.__doc__ or "").strip().partition("\n")[0]
        rows.append(f"| {cls.code} | `{cls.reason}` | {cls.status} | {summary} |")
    return "\n".join(rows)


@pytest.mark.parametrize("table", [api_table, settings_table, errors_table])
def test_tables_are_those_of_the_code(table: object) -> None:
    """A change of the code changes the README in the same commit."""
    assert callable(table)
    assert table() in README.read_text()


def test_a_shell_recomputes_a_digest(tmp_path: Path) -> None:
    """The README's line gives the daemon's digest, whatever the names, marks and links."""
    directory = tmp_path / "pdf"
    (directory / "scripts/deep").mkdir(parents=True)
    (directory / "SKILL.md").write_text("---\nname: pdf\ndescription: d\n---\n")
    for name in ("scripts/a b.py", "scripts/deep/-n", "scripts.txt", "scripts/\u00e9'\"$x*.md", ".hidden", "Z"):
        (directory / name).write_text(name)
    (directory / "scripts/deep/-n").chmod(0o755)
    (directory / "link").symlink_to("scripts/a b.py")
    with open(bytes(directory) + b"/\xff", "w") as file:
        file.write("x")
    entry = next(scan(str(tmp_path), "", {}, ScanLimits(1 << 20, 100, 1 << 20, 6, frozenset())))
    line = next(line for line in README.read_text().splitlines() if line.startswith("find . "))
    done = subprocess.run(["bash", "-c", line], cwd=directory, capture_output=True, text=True, check=True)
    assert entry.skill is not None
    assert entry.skill.digest == f"sha256:{done.stdout[:64]}"


def test_every_relative_link_leads_somewhere() -> None:
    """Files that the README speaks of are there."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README.read_text()):
        assert (README.parent / target).exists(), target


def test_the_top_level_is_what_the_readme_says() -> None:
    """Nothing lies at the top of the repository but what belongs there."""
    listed = subprocess.run(["git", "ls-files"], cwd=README.parent, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("not a git checkout")
    top = {path.split("/")[0] for path in listed.splitlines() if not path.startswith(".")}
    assert top <= {"pyproject.toml", "README.md", "LICENSE", "skilld", "tests", "systemd", "contrib"}
