"""
Exit codes, and the line on standard error that goes with them.

0 done, 1 refused, 2 wrong usage, 3 no daemon, 130 interrupted. ``skilld serve`` has its own.

Owns: nothing.
"""

from __future__ import annotations

EXIT_REFUSED, EXIT_USAGE, EXIT_NO_DAEMON, EXIT_INTERRUPTED = 1, 2, 3, 130


def explain(exc: Exception) -> int:
    """Say what went wrong on one line and return the exit code; a mistake of our own is raised again."""
    # Only a failure pays for these; and nothing is imported before Ctrl-C is handled.
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
