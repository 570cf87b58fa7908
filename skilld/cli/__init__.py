"""
The command line: one command a method, readable for people, ``--json`` for machines.

Owns: nothing; the entry point. The commands are in :mod:`skilld.cli.group`, each in a module that is imported when it
is called, for a start must not cost more than the call; what goes wrong becomes a line and an exit code in
:mod:`skilld.cli.exits`.
"""

from __future__ import annotations

import io
import os
import sys

from skilld.cli.exits import EXIT_INTERRUPTED, explain


def main() -> None:
    """Run the command line of the process; the entry point of ``skilld``."""
    sys.exit(run())


def run(args: list[str] | None = None) -> int:
    """Run one command; return its exit code. ``args`` are those of the process by default."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a skill says of itself may hold what the terminal's encoding lacks; that is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
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
        code = explain(exc)
        _silence_stdout()
        return code


def _silence_stdout() -> None:
    """Send what is left in the buffer nowhere: the interpreter must not complain about it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
