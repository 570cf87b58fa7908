"""
The commands that speak to the daemon as it is: status, ping, call.

Owns: nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from skilld.cli.caller import Caller, DaemonCommand, json_option
from skilld.cli.completion import complete_method
from skilld.cli.output import clean, print_json


@click.command("ping", cls=DaemonCommand)
@click.pass_obj
def ping_command(caller: Caller) -> None:
    """Tell whether the daemon answers."""
    caller.call("skilld.ping")
    click.echo("ok")


@click.command("status", cls=DaemonCommand)
@json_option
@click.pass_obj
def status_command(caller: Caller, as_json: bool) -> None:
    """Tell how the daemon is doing."""
    if as_json:
        print_json(caller.call("skilld.status"))
        return
    with caller.client() as client:
        status = client.status()
    watcher, index, tee = status.watcher, status.index, status.tee
    rows = [
        ("version", f"{status.version}, pid {status.pid}, up {status.uptime_s:.0f} s"),
        *(
            ("root", f"{root.path}: {root.skills} skills{'' if root.writable else ', read-only'}")
            for root in status.roots
        ),
        ("revision", status.revision),
        ("digest", status.digest),
        ("problems", status.problems),
        ("watcher", watcher.mode + (f" ({watcher.reason})" if watcher.reason else "")),
        ("index", f"{index.documents} skills{'' if index.complete else ', not complete yet'}"),
        ("connections", status.connections),
        ("sandbox", _sandbox(status.sandbox)),
        ("tee", f"{tee.endpoint or 'none'}{'' if tee.available else ', not available'}"),
    ]
    for name, value in rows:
        click.echo(f"{name:13}{clean(str(value))}")


@click.command("call", cls=DaemonCommand)
@click.argument("method", shell_complete=complete_method)
@click.argument("params", nargs=-1)
@click.pass_obj
def call_command(caller: Caller, method: str, params: tuple[str, ...]) -> None:
    """
    Call any method and print its result as JSON.

    PARAMS is one JSON object or array, "-" for one on standard input, or any number of name=value, whose values are
    JSON or else text: limit=5, query="fill a form", name='"123"'.
    """
    with caller.client() as client:
        print_json(client.call(method, _parse(params)))


def _sandbox(sandbox: Any) -> str:
    """What confines scripts, in words."""
    if not isinstance(sandbox, dict) or sandbox.get("backend") is None:
        rejected = sandbox.get("rejected", []) if isinstance(sandbox, dict) else []
        reasons = "; ".join(f"{one.get('backend')}: {one.get('reason')}" for one in rejected)
        return f"none, scripts do not run ({reasons})" if reasons else "none, scripts do not run"
    gaps = ", ".join(sandbox.get("degraded", []))
    return f"{sandbox['backend']}{f' (gaps: {gaps})' if gaps else ''}"


def _parse(params: tuple[str, ...]) -> Any:
    if params == ("-",):
        params = (sys.stdin.read().strip(),)
    if len(params) == 1 and params[0].lstrip()[:1] in ("{", "["):
        try:
            return json.loads(params[0])
        except (ValueError, RecursionError) as exc:
            raise click.BadParameter(f"not JSON: {exc}", param_hint="PARAMS") from exc
    named = {}
    for param in params:
        name, equals, text = param.partition("=")
        if not equals:
            raise click.BadParameter(f"{param!r} is neither JSON nor name=value", param_hint="PARAMS")
        try:
            named[name] = json.loads(text)
        except (ValueError, RecursionError):
            named[name] = text
    return named
