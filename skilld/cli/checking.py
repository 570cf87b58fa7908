"""
The commands that say what is wrong: validate, problems.

Owns: nothing.
"""

from __future__ import annotations

import os
from typing import Any

import click

from skilld.cli.caller import Caller, DaemonCommand, json_option
from skilld.cli.completion import complete_skill_or_path
from skilld.cli.exits import EXIT_REFUSED
from skilld.cli.output import clean, print_json
from skilld.client import Problem, Problems
from skilld.client.parse import parse


@click.command("validate", cls=DaemonCommand)
@click.argument("target", metavar="NAME|PATH", shell_complete=complete_skill_or_path)
@json_option
@click.pass_obj
def validate_command(caller: Caller, target: str, as_json: bool) -> int:
    """
    Hold a skill against the Agent Skills specification; exit 1 where it breaks a rule.

    PATH is a SKILL.md or the directory that holds one, served or not; a path goes before a skill of the same name.
    """
    path = _skill_md(target)
    if path is None:
        reply = caller.call("skills.validate", name=target)
    else:
        reply = caller.call("skills.validate", content=_read(path))
        reply = {**reply, "problems": [{**problem, "path": os.path.abspath(path)} for problem in reply["problems"]]}
    if as_json:
        print_json(reply)
    else:
        for problem in parse(Problems, reply).problems:
            click.echo(_line_of(problem, path))
        if reply["valid"]:
            click.echo(f"{clean(target)}: valid")
    return 0 if reply["valid"] else EXIT_REFUSED


def _skill_md(target: str) -> str | None:
    """
    The SKILL.md that a path means, or None for what is a name.

    Raises:
        click.BadParameter: It can only be a path, and there is none.
    """
    for path in (os.path.join(target, "SKILL.md"), os.path.join(target, "skill.md"), target):
        if os.path.isfile(path):
            return path
    if target.startswith(("/", "./", "../")) or target in (".", ".."):
        raise click.BadParameter(f"no SKILL.md at {target!r}", param_hint="PATH")
    return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except OSError as exc:
        raise click.BadParameter(f"{path!r}: {exc.strerror}", param_hint="PATH") from exc
    except UnicodeDecodeError as exc:
        raise click.BadParameter(f"{path!r} is not UTF-8 at byte {exc.start}", param_hint="PATH") from exc


@click.command("problems", cls=DaemonCommand)
@click.option("--all", "everything", is_flag=True, help="Warnings too.")
@json_option
@click.pass_obj
def problems_command(caller: Caller, everything: bool, as_json: bool) -> None:
    """List what keeps skills from being served."""
    reply: dict[str, Any] = caller.call("skills.problems")
    problems = parse(Problems, reply).problems
    shown = [index for index, problem in enumerate(problems) if everything or problem.severity == "error"]
    if as_json:
        print_json({**reply, "problems": [reply["problems"][index] for index in shown]})
        return
    for index in shown:
        click.echo(_line_of(problems[index]))
    if len(shown) < len(problems):
        click.echo(f"{len(problems) - len(shown)} warnings more: skilld problems --all", err=True)


def _line_of(problem: Problem, path: str | None = None) -> str:
    """A problem as compilers print theirs; ``path`` is how the user named the file."""
    place = clean(path or problem.path) + (f":{problem.line}" if problem.line else "")
    severity = click.style(clean(problem.severity), fg="red" if problem.severity == "error" else "yellow")
    return f"{place}: {severity}: {clean(problem.message)}"
