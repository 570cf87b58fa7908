"""
The command line: one command a method, readable for people, ``--json`` for machines.

Exit codes: 0 done, 1 refused by the daemon, 2 wrong usage, 3 no daemon, 130 interrupted. ``skilld serve`` has its own.

Owns: nothing; parses arguments, prints, and turns errors into exit codes. click is known here and in its commands
only; a command's module is imported when it is called, for a start must not cost more than the call.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

import skilld

# Where each command is defined, in the order of the help text.
COMMANDS = {
    "serve": "serve",
    "config": "serve",
    "list": "reading",
    "search": "reading",
    "show": "reading",
    "prompt": "reading",
    "validate": "reading",
    "problems": "reading",
    "status": "reading",
    "watch": "reading",
    "ping": "calling",
    "call": "calling",
    "completion": "calling",
}

EXIT_REFUSED, EXIT_USAGE, EXIT_NO_DAEMON, EXIT_INTERRUPTED = 1, 2, 3, 130


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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(skilld.__version__)
@click.option(
    "--endpoint",
    "--socket",
    "endpoint",
    metavar="PATH",
    help="The daemon's socket. Default: SKILLD_ENDPOINT, else the well-known places.",
)
@click.option("--timeout", "timeout_s", type=float, default=30.0, show_default=True, help="Seconds a call may take.")
@click.pass_context
def cli(ctx: click.Context, endpoint: str | None, timeout_s: float) -> None:
    """Serve, find and read the agent skills of this machine."""
    ctx.obj = Caller(endpoint, timeout_s)


class Caller:
    """Calls the daemon on behalf of a command."""

    def __init__(self, endpoint: str | None, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s

    def client(self) -> Any:
        """A client of the daemon; opened by its first call."""
        from skilld.client import SkilldClient

        return SkilldClient(self.endpoint, timeout=self.timeout_s)

    def call(self, method: str, **params: Any) -> Any:
        """The result of one call; params without a value are left out."""
        with self.client() as client:
            return client.call(method, {name: value for name, value in params.items() if value is not None})


def main() -> None:
    """Run the command line; the entry point of ``skilld``."""
    sys.exit(run())


def run(args: list[str] | None = None) -> int:
    """Run one command; return its exit code. ``args`` are those of the process by default."""
    try:
        code = cli.main(args, prog_name="skilld", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as exc:
        exc.show()
        return EXIT_USAGE
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has seen enough; the interpreter must not complain about the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as exc:
        return _explain(exc)


def _explain(exc: Exception) -> int:
    """Say what went wrong, on one line; a mistake of our own is raised again."""
    from skilld.cli.output import clean
    from skilld.errors import SkilldError

    if isinstance(exc, SkilldError):
        click.echo(f"skilld: {clean(str(exc))}", err=True)
        return EXIT_REFUSED
    # The client's errors are subclasses of these.
    if isinstance(exc, ConnectionError | TimeoutError):
        click.echo(f"skilld: {clean(str(exc))}", err=True)
        click.echo("Start a daemon with: skilld serve --skills-dir DIR", err=True)
        return EXIT_NO_DAEMON
    raise exc
