"""
The commands that write: create, edit, delete.

Owns: nothing.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from typing import Any

import click

from skilld.cli.caller import Caller, DaemonCommand, json_option
from skilld.cli.completion import complete_skill
from skilld.cli.output import clean, print_json
from skilld.errors import SkillInvalid


@click.command("create", cls=DaemonCommand)
@click.argument("name")
@click.option("--description", "-d", required=True, help="What the skill does and when to use it.")
@click.option("--body", type=click.File("r", encoding="utf-8"), help="The instructions, Markdown; - is standard input.")
@click.option("--license", help="A license's name.")
@click.option("--compatibility", help="What the skill needs of its environment.")
@click.option("--script", "scripts", metavar="PATH=FILE", multiple=True, help="A file below scripts/.")
@click.option("--reference", "references", metavar="PATH=FILE", multiple=True, help="A file below references/.")
@click.option("--asset", "assets", metavar="PATH=FILE", multiple=True, help="A file below assets/.")
@json_option
@click.pass_obj
def create_command(
    caller: Caller,
    name: str,
    description: str,
    body: Any,
    license: str | None,
    compatibility: str | None,
    scripts: tuple[str, ...],
    references: tuple[str, ...],
    assets: tuple[str, ...],
    as_json: bool,
) -> int:
    """Create a skill in the first root."""
    maps = {"scripts": scripts, "references": references, "assets": assets}
    return _write(
        caller,
        "skills.create",
        as_json,
        name=name,
        description=description,
        body=body.read() if body else "",
        license=license,
        compatibility=compatibility,
        **{folder: _files(pairs) for folder, pairs in maps.items() if pairs},
    )


@click.command("edit", cls=DaemonCommand)
@click.argument("name", shell_complete=complete_skill)
@click.option("--description", "-d", help="Set the description.")
@click.option("--body", type=click.File("r", encoding="utf-8"), help="Set the instructions; - is standard input.")
@click.option("--license", help="Set the license.")
@click.option("--compatibility", help="Set the compatibility.")
@json_option
@click.pass_obj
def edit_command(
    caller: Caller,
    name: str,
    description: str | None,
    body: Any,
    license: str | None,
    compatibility: str | None,
    as_json: bool,
) -> int:
    """
    Change a skill: what the options say or, without any, its instructions in $EDITOR.

    A skill that somebody changes meanwhile is left as it is (conflict). What was written in the editor and could not
    be saved is kept in a file.
    """
    skill = caller.call("skills.get", name=name)
    changes = {
        "description": description,
        "body": body.read() if body else None,
        "license": license,
        "compatibility": compatibility,
    }
    target = {"name": skill["id"], "if_digest": skill["digest"]}
    if any(value is not None for value in changes.values()):
        return _write(caller, "skills.update", as_json, **target, **changes)
    text = click.edit(skill["body"], extension=".md")
    if text is None or text == skill["body"]:
        click.echo("nothing changed", err=True)
        return 0
    code = None
    try:
        code = _write(caller, "skills.update", as_json, **target, body=text)
    finally:
        if code != 0:
            _keep(text)
    return code


@click.command("delete", cls=DaemonCommand)
@click.argument("name", shell_complete=complete_skill)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete_command(caller: Caller, name: str, yes: bool) -> None:
    """Delete a skill with all its files."""
    skill = caller.call("skills.get", name=name)
    if not yes:
        count = len(skill["resources"]) + 1
        click.confirm(f"Delete {clean(skill['id'])} ({count} files in {clean(skill['path'])})?", abort=True, err=True)
    caller.call("skills.delete", name=skill["id"], if_digest=skill["digest"])
    click.echo(f"deleted {clean(skill['id'])}")


def _write(caller: Caller, method: str, as_json: bool, **params: Any) -> int:
    """Call a method that writes; a skill that breaks rules is told every one of them."""
    try:
        skill = caller.call(method, **params)
    except SkillInvalid as exc:
        for problem in exc.facts["problems"]:
            click.echo(f"skilld: {clean(problem.get('field') or 'skill')}: {clean(problem['message'])}", err=True)
        return 1
    if as_json:
        print_json(skill)
    else:
        click.echo(f"{clean(skill['id'])} {skill['digest']}")
    return 0


def _keep(text: str) -> None:
    """Keep what somebody wrote in an editor, and say where."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="skilld-", suffix=".md", delete=False) as file:
        file.write(text)
    click.echo(f"skilld: your text is kept in {clean(file.name)}", err=True)


def _files(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read the files that ``PATH=FILE`` options name."""
    files: dict[str, Any] = {}
    for pair in pairs:
        path, equals, source = pair.partition("=")
        if not (path and equals and source):
            raise click.UsageError(f"must be PATH=FILE, not {pair!r}")
        try:
            with sys.stdin.buffer if source == "-" else open(source, "rb") as file:
                content = file.read()
        except OSError as exc:
            raise click.UsageError(f"{source}: {exc.strerror}") from exc
        try:
            files[path] = content.decode()
        except UnicodeDecodeError:
            files[path] = {"base64": base64.b64encode(content).decode()}
    return files
