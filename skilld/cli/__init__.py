"""
The command line: one command a method, readable for people, ``--json`` for machines.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 no daemon, 130 interrupted. ``skilld serve`` has its own.

Owns: nothing; the entry point, which turns what goes wrong into one line and an exit code. The commands are in
:mod:`skilld.cli.group`, each in a module that is imported when it is called, for a start must not cost more than the
call.
"""

from __future__ import annotations

import os
import sys

EXIT_REFUSED, EXIT_USAGE, EXIT_NO_DAEMON, EXIT_INTERRUPTED = 1, 2, 3, 130


def main() -> None:
    """Run the command line of the process; the entry point of ``skilld``."""
    sys.exit(run())


def run(args: list[str] | None = None) -> int:
    """Run one command; return its exit code. ``args`` are those of the process by default."""
    try:
        # Within the try, for Ctrl-C may come while modules are imported.
        from skilld.cli.group import invoke

        code = invoke(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except Exception as exc:
        code = _explain(exc)
        _silence_stdout()
        return code


def _explain(exc: Exception) -> int:
    """Say what went wrong on one line; a mistake of our own is raised again."""
    import click

    from skilld.cli.output import clean
    from skilld.errors import SkilldError

    if isinstance(exc, click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(exc, click.ClickException):
        context = getattr(exc, "ctx", None)
        command = context.command_path if context else "skilld"
        hint = f" (see: {command} --help)" if context else ""
        line, code = f"{command}: {exc.format_message()}{hint}", EXIT_USAGE
    elif isinstance(exc, SkilldError):
        line, code = f"skilld: {exc}", EXIT_REFUSED
    elif isinstance(exc, ConnectionError | TimeoutError):
        line, code = f"skilld: {exc}{_hint(exc)}", EXIT_NO_DAEMON
    elif isinstance(exc, OSError):
        line, code = f"skilld: {exc}", EXIT_REFUSED
    else:
        raise exc
    click.echo(clean(line), err=True)
    return code


def _hint(exc: Exception) -> str:
    """What to do where no daemon answers."""
    from skilld.client.errors import NoDaemon

    if not isinstance(exc, NoDaemon):
        return ""
    if "Permission denied" in exc.tried.values():
        return "; join the group that owns the socket, or call as root"
    return "; start one with: skilld serve --skills-dir DIR"


def _silence_stdout() -> None:
    """Send what is left in the buffer nowhere: the interpreter must not complain about it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
