"""
The table of commands.

A command is a row here and a click command in a module of ``skilld.cli``: ``NAME_command``.

Owns: nothing.
"""

from __future__ import annotations

import importlib

import click

import skilld
from skilld.cli.caller import endpoint_option, timeout_option
from skilld.cli.exits import EXIT_USAGE

# The module of each command, in the order of the help text.
COMMANDS = {
    "serve": "serve",
    "config": "serve",
    "list": "reading",
    "search": "reading",
    "show": "reading",
    "prompt": "reading",
    "validate": "checking",
    "problems": "checking",
    "watch": "watching",
    "create": "writing",
    "edit": "writing",
    "delete": "writing",
    "new": "making",
    "run": "running",
    "digest": "digesting",
    "attest": "attesting",
    "verify": "verifying",
    "tee": "tee",
    "status": "calling",
    "ping": "calling",
    "call": "calling",
    "completion": "completion",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"skilld.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever reads our output has seen enough; click would call that a failure.
            return 0


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[endpoint_option(), timeout_option()],
)
@click.version_option(skilld.__version__)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Serve, find and read the agent skills of this machine."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)


def invoke(args: list[str] | None) -> int:
    """Run a command and return its exit code; whatever goes wrong is raised."""
    code = cli.main(args, prog_name="skilld", standalone_mode=False)
    return code if isinstance(code, int) else 0
