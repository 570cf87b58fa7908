"""
The commands that read skills: list, search, show, prompt.

Owns: nothing.
"""

from __future__ import annotations

import dataclasses

import click

from skilld.cli.caller import Caller, DaemonCommand, json_option
from skilld.cli.completion import complete_skill
from skilld.cli.output import clean, print_bytes, print_json, print_table, print_text
from skilld.client import SearchResult, Skill
from skilld.client.parse import parse


@click.command("list", cls=DaemonCommand)
@click.option("--root", metavar="DIR", help="Only the skills of this root.")
@json_option
@click.pass_obj
def list_command(caller: Caller, root: str | None, as_json: bool) -> None:
    """List all skills."""
    with caller.client() as client:
        listing = client.list(root=root)
    if as_json:
        print_json(dataclasses.asdict(listing))
    else:
        print_table(("ID", "DESCRIPTION"), [(skill.id, skill.description) for skill in listing.skills])


@click.command("search", cls=DaemonCommand)
@click.argument("query", nargs=-1, required=True)
@click.option("--limit", "-n", type=click.IntRange(1, 100), default=10, show_default=True)
@json_option
@click.pass_obj
def search_command(caller: Caller, query: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find skills for a task, best first."""
    reply = caller.call("skills.search", query=" ".join(query), limit=limit)
    if as_json:
        print_json(reply)
        return
    found = parse(SearchResult, reply)
    print_table(("SCORE", "ID", "WHY"), [(f"{hit.score:.2f}", hit.id, hit.snippet) for hit in found.skills])
    if not found.skills:
        click.echo("no skill matches", err=True)
    if not found.complete:
        click.echo("the index is not complete yet", err=True)


@click.command("show", cls=DaemonCommand)
@click.argument("name", shell_complete=complete_skill)
@click.option("--body", is_flag=True, help="Only the instructions.")
@click.option("--prompt", is_flag=True, help="The <skill_content> block that an agent gets.")
@click.option("--file", "path", metavar="PATH", help="One file of the skill, as it is.")
@json_option
@click.pass_obj
def show_command(caller: Caller, name: str, body: bool, prompt: bool, path: str | None, as_json: bool) -> None:
    """Show one skill."""
    if body + prompt + as_json + (path is not None) > 1:
        raise click.UsageError("give one of --body, --prompt, --file and --json")
    if path is not None:
        with caller.client() as client:
            print_bytes(client.read_file(name, path))
        return
    if prompt:
        print_text(caller.call("skills.activate", name=name)["prompt"])
        return
    reply = caller.call("skills.get", name=name)
    if as_json:
        print_json(reply)
        return
    skill = parse(Skill, reply)
    if not body:
        _print_facts(skill)
        click.echo()
    print_text(skill.body)


def _print_facts(skill: Skill) -> None:
    """All but the body."""
    for fact in ("id", "name", "description", "license", "compatibility", "path", "digest", "modified"):
        value = getattr(skill, fact)
        if value is not None:
            click.echo(f"{fact + ':':15}{clean(value)}")
    for resource in skill.resources:
        mark = "*" if resource.executable else " "
        click.echo(f"{'':15}{resource.size:>9} {mark}{clean(resource.path)}")
    for problem in skill.problems:
        click.echo(f"{problem.severity + ':':15}{clean(problem.message)}")


@click.command("prompt", cls=DaemonCommand)
@click.argument("names", nargs=-1, shell_complete=complete_skill)
@click.option("--query", "-q", help="The best hits of a search, instead of names.")
@click.option("--limit", "-n", type=click.IntRange(1, 1_000))
@click.pass_obj
def prompt_command(caller: Caller, names: tuple[str, ...], query: str | None, limit: int | None) -> None:
    """Print the <available_skills> block for a system prompt."""
    reply = caller.call("skills.prompt", names=list(names) or None, query=query, limit=limit)
    if reply["prompt"]:
        print_text(reply["prompt"])
