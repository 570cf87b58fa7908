"""
The command that follows the registry: watch.

Owns: nothing.
"""

from __future__ import annotations

import dataclasses
import sys

import click

from skilld.cli.caller import Caller, DaemonCommand, json_option
from skilld.cli.output import clean, print_json
from skilld.client import Changes


@click.command("watch", cls=DaemonCommand)
@click.option("--since", metavar="REVISION", help="Tell first what changed after this revision.")
@click.option("--count", type=click.IntRange(1), help="End after so many changes.")
@json_option
@click.pass_obj
def watch_command(caller: Caller, since: str | None, count: int | None, as_json: bool) -> None:
    """
    Show changes as they happen: + added, ~ updated, - removed.

    A daemon that starts again is followed; what happened meanwhile it cannot tell, and a line "?" says so.
    """
    with caller.client() as client, client.subscribe(since) as subscription:
        for number, changes in enumerate(subscription, start=1):
            if as_json:
                print_json(dataclasses.asdict(changes))
            else:
                _print_lines(changes)
            sys.stdout.flush()
            if number == count:
                return


def _print_lines(changes: Changes) -> None:
    if not changes.complete:
        click.secho("? changes were missed: list the skills again", fg="yellow")
    for mark, colour, ids in (
        ("+", "green", changes.added),
        ("~", "blue", changes.updated),
        ("-", "red", changes.removed),
    ):
        for id in ids:
            click.echo(f"{click.style(mark, fg=colour)} {clean(id)}")
