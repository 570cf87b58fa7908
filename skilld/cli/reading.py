"""
The commands that read: list, search, show, prompt, validate, problems, status, watch.

Owns: nothing.
"""

from __future__ import annotations

import base64
import os
import sys
from typing import Any

import click

from skilld.cli import Caller
from skilld.cli.output import clean, clean_lines, print_json, print_table

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
PAGE = 1_000


def complete_skill(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Complete a skill's id from the live daemon; none where it does not answer at once."""
    try:
        caller = Caller(ctx.find_root().params.get("endpoint"), 0.5)
        return [skill["id"] for skill in _every_skill(caller) if skill["id"].startswith(incomplete)]
    except Exception:  # a completion must never print an error into the command that is being typed
        return []


def _every_skill(caller: Caller) -> list[dict[str, Any]]:
    skills: list[dict[str, Any]] = []
    with caller.client() as client:
        while True:
            page = client.call("skills.list", {"offset": len(skills), "limit": PAGE})
            skills += page["skills"]
            if len(skills) >= page["total"] or not page["skills"]:
                return skills


@click.command("list")
@as_json
@click.pass_obj
def list_command(caller: Caller, as_json: bool) -> None:
    """List all skills."""
    skills = _every_skill(caller)
    if as_json:
        print_json(skills)
    else:
        print_table(("ID", "DESCRIPTION"), [(skill["id"], skill["description"]) for skill in skills])


@click.command("search")
@click.argument("query", nargs=-1, required=True)
@click.option("--limit", "-n", type=click.IntRange(1, 100), default=10, show_default=True)
@as_json
@click.pass_obj
def search_command(caller: Caller, query: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find skills for a task, best first."""
    reply = caller.call("skills.search", query=" ".join(query), limit=limit)
    if as_json:
        print_json(reply)
        return
    print_table(("SCORE", "ID", "WHY"), [(f"{hit['score']:.2f}", hit["id"], hit["snippet"]) for hit in reply["skills"]])
    if not reply["skills"]:
        click.echo("no skill matches", err=True)
    if not reply.get("complete", True):
        click.echo("the index is not complete yet", err=True)


@click.command("show")
@click.argument("name", shell_complete=complete_skill)
@click.option("--body", is_flag=True, help="Only the instructions.")
@click.option("--prompt", is_flag=True, help="The <skill_content> block that an agent gets.")
@click.option("--file", "path", metavar="PATH", help="One file of the skill, as it is.")
@as_json
@click.pass_obj
def show_command(caller: Caller, name: str, body: bool, prompt: bool, path: str | None, as_json: bool) -> None:
    """Show one skill."""
    if path is not None:
        _copy_file(caller, name, path)
        return
    if prompt:
        click.echo(clean_lines(caller.call("skills.activate", name=name)["prompt"]))
        return
    skill = caller.call("skills.get", name=name)
    if as_json:
        print_json(skill)
        return
    if not body:
        facts = ("id", "name", "description", "license", "compatibility", "path", "digest", "modified")
        for fact in facts:
            if skill.get(fact) is not None:
                click.echo(f"{fact + ':':15}{clean(str(skill[fact]))}")
        for resource in skill["resources"]:
            mark = "*" if resource["executable"] else " "
            click.echo(f"{'':15}{resource['size']:>9} {mark}{clean(resource['path'])}")
        for problem in skill["problems"]:
            click.echo(f"{problem['severity'] + ':':15}{clean(problem['message'])}")
        click.echo()
    click.echo(clean_lines(skill["body"]), nl=not skill["body"].endswith("\n"))


def _copy_file(caller: Caller, name: str, path: str) -> None:
    """Write a file's bytes to standard output, untouched."""
    offset = 0
    with caller.client() as client:
        while True:
            part = client.call("skills.read_file", {"name": name, "path": path, "offset": offset})
            text = part["content"]
            content = base64.b64decode(text) if part["encoding"] == "base64" else text.encode()
            sys.stdout.buffer.write(content)
            offset += len(content)
            if part["eof"] or not content:
                break
    sys.stdout.buffer.flush()


@click.command("prompt")
@click.argument("names", nargs=-1, shell_complete=complete_skill)
@click.option("--query", "-q", help="The best hits of a search, instead of names.")
@click.option("--limit", "-n", type=click.IntRange(1, PAGE))
@click.pass_obj
def prompt_command(caller: Caller, names: tuple[str, ...], query: str | None, limit: int | None) -> None:
    """Print the <available_skills> block for a system prompt."""
    reply = caller.call("skills.prompt", names=list(names) or None, query=query, limit=limit)
    if reply["prompt"]:
        click.echo(clean_lines(reply["prompt"]))


@click.command("validate")
@click.argument("target", metavar="NAME|PATH", shell_complete=complete_skill)
@as_json
@click.pass_obj
def validate_command(caller: Caller, target: str, as_json: bool) -> int:
    """Hold a skill against the Agent Skills specification; exit 1 where it breaks a rule."""
    path = _skill_md(target)
    if path is None:
        reply = caller.call("skills.validate", name=target)
    else:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                reply = caller.call("skills.validate", content=file.read())
        except OSError as exc:
            raise click.UsageError(f"{path}: {exc.strerror}") from exc
    if as_json:
        print_json(reply)
    else:
        for problem in reply["problems"]:
            click.echo(_line_of(problem | ({"path": path} if path else {})))
        if reply["valid"]:
            click.echo(f"{clean(target)}: valid")
    return 0 if reply["valid"] else 1


def _skill_md(target: str) -> str | None:
    """The SKILL.md that a path means; None for what is no path."""
    if os.path.isdir(target) and "/" in target + "/":
        for name in ("SKILL.md", "skill.md"):
            if os.path.exists(os.path.join(target, name)):
                return os.path.join(target, name)
    return target if os.path.isfile(target) else None


@click.command("problems")
@click.option("--all", "everything", is_flag=True, help="Warnings too.")
@as_json
@click.pass_obj
def problems_command(caller: Caller, everything: bool, as_json: bool) -> None:
    """List what keeps skills from being served."""
    problems = caller.call("skills.problems")["problems"]
    shown = [problem for problem in problems if everything or problem["severity"] == "error"]
    if as_json:
        print_json(shown)
        return
    for problem in shown:
        click.echo(_line_of(problem))
    if len(shown) < len(problems):
        click.echo(f"{len(problems) - len(shown)} warnings more: skilld problems --all", err=True)


def _line_of(problem: dict[str, Any]) -> str:
    """A problem as compilers print theirs."""
    place = clean(problem["path"]) + (f":{problem['line']}" if "line" in problem else "")
    return f"{place}: {problem['severity']}: {clean(problem['message'])}"


@click.command("status")
@as_json
@click.pass_obj
def status_command(caller: Caller, as_json: bool) -> None:
    """Tell how the daemon is doing."""
    status = caller.call("skilld.status")
    if as_json:
        print_json(status)
        return
    watcher, index = status["watcher"], status["index"]
    rows = [
        ("version", f"{status['version']}, pid {status['pid']}, up {status['uptime_s']:.0f} s"),
        *(
            ("root", f"{root['path']}: {root['skills']} skills{'' if root['writable'] else ', read-only'}")
            for root in status["roots"]
        ),
        ("revision", status["revision"]),
        ("digest", status["digest"]),
        ("problems", status["problems"]),
        ("watcher", watcher["mode"] + (f" ({watcher['reason']})" if watcher["reason"] else "")),
        ("index", f"{index['documents']} skills{'' if index['complete'] else ', not complete yet'}"),
        ("connections", status["connections"]),
    ]
    for name, value in rows:
        click.echo(f"{name:13}{clean(str(value))}")


@click.command("watch")
@click.option("--count", type=click.IntRange(1), help="End after so many changes.")
@as_json
@click.pass_obj
def watch_command(caller: Caller, count: int | None, as_json: bool) -> None:
    """Show changes as they happen: + added, ~ updated, - removed."""
    seen = 0
    with caller.client() as client, client.subscribe() as changes:
        for change in changes:
            if as_json:
                print_json(
                    {name: getattr(change, name) for name in ("revision", "added", "updated", "removed", "complete")}
                )
            elif not change.complete:
                click.echo("? changes were missed: list the skills again")
            for mark, ids in (("+", change.added), ("~", change.updated), ("-", change.removed)):
                for id in ids if not as_json else ():
                    click.echo(f"{mark} {clean(id)}")
            sys.stdout.flush()
            seen += 1
            if seen == count:
                return
