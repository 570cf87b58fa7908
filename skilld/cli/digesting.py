"""
The command that says which skills these are: digest.

Owns: nothing.
"""

from __future__ import annotations

import os

import click

from skilld.cli.caller import Caller, DaemonCommand
from skilld.cli.exits import EXIT_REFUSED
from skilld.cli.output import clean
from skilld.cli.own_skills import read_entry, read_skills
from skilld.skills.digest import manifest, manifest_digest
from skilld.skills.scanner import Entry


@click.command("digest", cls=DaemonCommand)
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False))
@click.pass_obj
def digest_command(caller: Caller, directory: str | None) -> int:
    """
    Print the digest of all skills that the daemon serves.

    With DIRECTORY no daemon is asked: of a skill directory it is the skill's digest, of any other one that of all
    skills below it.
    """
    if directory is None:
        click.echo(caller.call("skilld.status")["digest"])
        return 0
    path = os.path.abspath(directory)
    if any(os.path.lexists(os.path.join(path, name)) for name in ("SKILL.md", "skill.md")):
        return _print_one(path, read_entry(path))
    click.echo(manifest_digest(manifest((skill.id, skill.digest) for skill in read_skills([path]))))
    return 0


def _print_one(path: str, entry: Entry | None) -> int:
    if entry is not None and entry.skill is not None and entry.skill.digest is not None:
        click.echo(entry.skill.digest)
        return 0
    reasons = [problem.message for problem in (entry.problems if entry else ()) if problem.severity == "error"]
    reasons += [problem.message for problem in (entry.problems if entry else ()) if problem.field == "digest"]
    click.echo(f"skilld: {clean(path)} has no digest: {clean('; '.join(reasons) or 'it is hidden')}", err=True)
    return EXIT_REFUSED
