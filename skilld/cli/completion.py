"""
Shell completion: the command that prints the script, and what it completes from the live daemon.

Owns: nothing.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from skilld.cli.caller import Caller
from skilld.cli.output import clean

# Seconds that somebody who pressed Tab waits at most.
COMPLETION_TIMEOUT_S = 0.5


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the script that completes commands and skills: eval "$(skilld completion bash)"."""
    from skilld.cli.group import cli

    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(cli, {}, "skilld", "_SKILLD_COMPLETE").source())


def complete_skill(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a skill's id; nothing where the daemon does not answer at once."""
    try:
        with Caller(ctx, timeout_s=COMPLETION_TIMEOUT_S).client() as client:
            skills = client.list().skills
    except Exception:  # a completion must never print an error into the command that is being typed
        return []
    return [
        CompletionItem(skill.id, help=clean(skill.description)[:80])
        for skill in skills
        if skill.id.startswith(incomplete) and _is_plain(skill.id)
    ]


def complete_skill_or_path(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a skill's id, or else a path."""
    return complete_skill(ctx, param, incomplete) or [CompletionItem(incomplete, type="file")]


def complete_method(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a method; nothing where the daemon does not answer at once."""
    try:
        with Caller(ctx, timeout_s=COMPLETION_TIMEOUT_S).client() as client:
            names = [str(method["name"]) for method in client.discover()["methods"]]
    except Exception:  # as above
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and _is_plain(name)]


def _is_plain(word: str) -> bool:
    """Whether a shell takes the word as it is; a completion is put on the command line without quotes."""
    return not word.startswith("-") and all(char.isalnum() or char in "-_./+@:," for char in word)
