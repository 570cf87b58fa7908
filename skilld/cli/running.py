"""
The command that runs a script of a skill.

Owns: nothing.
"""

from __future__ import annotations

import codecs
import sys
from typing import IO

import click

from skilld.cli.caller import Caller, DaemonCommand, json_option
from skilld.cli.completion import complete_skill
from skilld.cli.output import clean_lines, print_json

# Everything after the script is the script's, options too.
_CONTEXT = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command("run", cls=DaemonCommand, context_settings=_CONTEXT)
@click.argument("name", metavar="SKILL", shell_complete=complete_skill)
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--env", "-e", "variables", metavar="NAME=VALUE", multiple=True, help="A variable for the script.")
@click.option("--stdin", "-i", "reads_stdin", is_flag=True, help="Give the script this command's standard input.")
@click.option("--time-limit", metavar="SECONDS", type=click.FloatRange(0, min_open=True), help="Default: 30.")
@click.option("--receipt", is_flag=True, help="Have the daemon sign what was run and what came out; with --json.")
@click.option("--explain", is_flag=True, help="Run nothing; print what the sandbox would be made of, as JSON.")
@json_option
@click.pass_obj
def run_command(
    caller: Caller,
    name: str,
    script: str,
    args: tuple[str, ...],
    variables: tuple[str, ...],
    reads_stdin: bool,
    time_limit: float | None,
    receipt: bool,
    explain: bool,
    as_json: bool,
) -> int:
    """
    Run a script of a skill in the sandbox. The exit code is the script's.

    Options stand before SKILL; all that follows SCRIPT is the script's.
    """
    env = dict(_variable(one) for one in variables) or None
    timeout_ms = None if time_limit is None else max(1, round(time_limit * 1000))
    if explain:
        print_json(
            caller.call("skills.execute_script", name=name, script=script, args=list(args), env=env,
                        timeout_ms=timeout_ms, explain=True)["plan"]
        )  # fmt: skip
        return 0
    streams = {"stdout": _Stream(sys.stdout), "stderr": _Stream(sys.stderr)}

    def show(stream: str, data: bytes) -> None:
        if stream in streams:
            streams[stream].write(data)

    stdin = sys.stdin.buffer.read() if reads_stdin else None
    with caller.client() as client:
        if as_json:
            params = {"name": name, "script": script, "args": list(args), "env": env, "timeout_ms": timeout_ms,
                      "receipt": receipt or None}  # fmt: skip
            content = None if stdin is None else {"base64": codecs.encode(stdin, "base64").decode().replace("\n", "")}
            reply = client.call("skills.execute_script", {**params, "stdin": content})
            print_json(reply)
            return int(reply["exit_code"])
        result = client.execute_script(
            name, script, args, env=env, stdin=stdin, timeout_ms=timeout_ms, receipt=receipt or None, on_output=show
        )
    for one in streams.values():
        one.end()
    if result.timed_out:
        click.echo("skilld: the script took too long and was ended", err=True)
    elif result.signal is not None:
        click.echo("skilld: the script was ended: it held too much memory or too many processes", err=True)
    return result.exit_code


class _Stream:
    """One of our outputs: byte for byte, or, on a terminal, safe."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if file.isatty() else None

    def write(self, data: bytes) -> None:
        if self._decoder is None:
            click.echo(data, file=self._file, nl=False)
        else:
            click.echo(clean_lines(self._decoder.decode(data)), file=self._file, nl=False)

    def end(self) -> None:
        if self._decoder is not None:
            click.echo(clean_lines(self._decoder.decode(b"", final=True)), file=self._file, nl=False)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--env")
    return name, value
