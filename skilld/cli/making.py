"""
The command that makes a skill in a dialogue: new.

Owns: nothing; the daemon's factory holds the answers.
"""

from __future__ import annotations

import click

from skilld.cli.caller import Caller, DaemonCommand
from skilld.cli.output import clean, clean_lines
from skilld.errors import SkilldError

HINT = """\
Answer each question; an empty line ends an answer of several lines. "back" goes one step back, the name of a step goes
to it at the end, "cancel" ends without a skill."""


@click.command("new", cls=DaemonCommand)
@click.argument("initial_input", nargs=-1, metavar="[TASK]")
@click.pass_obj
def new_command(caller: Caller, initial_input: tuple[str, ...]) -> int:
    """Make a skill in a dialogue of six questions."""
    # Gives the terminal's line editing to input().
    import readline  # noqa: F401

    click.echo(HINT, err=True)
    with caller.client() as client:
        reply = client.call("factory.start", {"initial_input": " ".join(initial_input)} if initial_input else {})
        session_id = reply["session_id"]
        try:
            while not reply["done"]:
                click.echo()
                if reply.get("preview"):
                    click.echo(clean_lines(reply["preview"]))
                click.echo(clean_lines(reply["prompt"]))
                answer = _read_answer(is_one_line=reply["step"] == "confirm")
                reply = client.call("factory.continue", {"session_id": session_id, "input": answer})
        except (EOFError, KeyboardInterrupt):
            try:
                client.call("factory.cancel", {"session_id": session_id})
            except SkilldError:
                pass  # it is over already
            raise click.Abort from None
    if reply.get("skill") is None:
        click.echo("cancelled", err=True)
        return 1
    click.echo(f"created {clean(reply['skill']['id'])}")
    return 0


def _read_answer(*, is_one_line: bool) -> str:
    """Read lines up to an empty one; one line where no answer has more."""
    lines = [input("> ")]
    while not is_one_line and lines[-1]:
        try:
            lines.append(input(". "))
        except EOFError:
            break
    return "\n".join(lines).strip()
