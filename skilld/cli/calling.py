"""
The commands that speak to the daemon as it is: ping, call, completion.

Owns: nothing.
"""

from __future__ import annotations

import json
from typing import Any

import click

from skilld.cli import Caller, cli


@click.command("ping")
@click.pass_obj
def ping_command(caller: Caller) -> None:
    """Tell whether the daemon answers."""
    caller.call("skilld.ping")
    click.echo("ok")


@click.command("call")
@click.argument("method")
@click.argument("params", nargs=-1)
@click.pass_obj
def call_command(caller: Caller, method: str, params: tuple[str, ...]) -> None:
    """
    Call any method and print its result as JSON.

    PARAMS is one JSON object or array, or any number of name=value, whose values are JSON or else text.
    """
    with caller.client() as client:
        result = client.call(method, _parse(params))
    click.echo(json.dumps(result, indent=2, ensure_ascii=True))


def _parse(params: tuple[str, ...]) -> Any:
    if len(params) == 1 and params[0].lstrip()[:1] in ("{", "["):
        try:
            return json.loads(params[0])
        except ValueError as exc:
            raise click.UsageError(f"PARAMS is not JSON: {exc}") from exc
    named = {}
    for param in params:
        name, equals, text = param.partition("=")
        if not equals:
            raise click.UsageError(f"PARAMS must be JSON or name=value, not {param!r}")
        try:
            named[name] = json.loads(text)
        except ValueError:
            named[name] = text
    return named


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the script that makes a shell complete commands and skills: eval "$(skilld completion bash)"."""
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(cli, {}, "skilld", "_SKILLD_COMPLETE").source())
