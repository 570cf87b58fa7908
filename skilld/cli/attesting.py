"""
The command that has the TEE say which skills are served: attest.

Owns: nothing.
"""

from __future__ import annotations

import click

from skilld.cli.caller import Caller, DaemonCommand
from skilld.cli.output import print_json


@click.command("attest", cls=DaemonCommand)
@click.option("--nonce", metavar="HEX", help="At most 64 bytes of yours, which show that the quote is fresh.")
@click.pass_obj
def attest_command(caller: Caller, nonce: str | None) -> None:
    """
    Have the TEE quote the digests of all skills; print it as JSON, for skilld verify.

    Whoever wants proof makes the nonce, for example with: openssl rand -hex 32
    """
    print_json(caller.call("skills.attest", nonce=nonce))
