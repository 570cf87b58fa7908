"""
The commands that ask dstack's guest agent through the daemon: tee.

Owns: nothing.
"""

from __future__ import annotations

from typing import Any

import click

from skilld.cli.caller import Caller, DaemonCommand, json_option
from skilld.cli.exits import EXIT_REFUSED
from skilld.cli.output import clean, print_json

_REGISTERS = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
_FACTS = ("app_name", "app_id", "instance_id", "device_id", "compose_hash", "os_image_hash", "mr_aggregated")

_algorithm = click.option(
    "--algorithm",
    type=click.Choice(["ed25519", "secp256k1", "secp256k1_prehashed"]),
    default="ed25519",
    show_default=True,
)


@click.group("tee")
def tee_command() -> None:
    """Ask dstack's guest agent: who this CVM is, quotes, keys, signatures."""


@tee_command.command("info", cls=DaemonCommand)
@json_option
@click.pass_obj
def info_command(caller: Caller, as_json: bool) -> None:
    """Tell which app runs here and what was measured."""
    reply: dict[str, Any] = caller.call("tee.info")
    if as_json:
        print_json(reply)
        return
    tcb_info = reply.get("tcb_info") or {}
    rows = [(name, reply.get(name)) for name in _FACTS] + [(name, tcb_info.get(name)) for name in _REGISTERS]
    for name, value in rows:
        if value:
            click.echo(f"{name:15}{clean(str(value))}")


@tee_command.command("version", cls=DaemonCommand)
@click.pass_obj
def version_command(caller: Caller) -> None:
    """Tell the guest agent's version."""
    reply = caller.call("tee.version")
    click.echo(clean(f"{reply['version']} {reply['rev']}"))


@tee_command.command("quote", cls=DaemonCommand)
@click.argument("report_data", metavar="HEX")
@click.pass_obj
def quote_command(caller: Caller, report_data: str) -> None:
    """Quote 1 to 64 bytes; prints JSON."""
    print_json(caller.call("tee.quote", report_data=report_data))


@tee_command.command("attest", cls=DaemonCommand)
@click.argument("report_data", metavar="HEX")
@click.pass_obj
def attest_command(caller: Caller, report_data: str) -> None:
    """Attest 1 to 64 bytes in dstack's own format; prints JSON. For the skills see: skilld attest."""
    print_json(caller.call("tee.attest", report_data=report_data))


@tee_command.command("derive-key", cls=DaemonCommand)
@click.argument("path", default="")
@click.option("--purpose", default="", help="Signed together with the public key.")
@click.option("--algorithm", type=click.Choice(["secp256k1", "ed25519"]), default="secp256k1", show_default=True)
@click.pass_obj
def derive_key_command(caller: Caller, path: str, purpose: str, algorithm: str) -> None:
    """Print the app's key of a path, and the signatures that lead to the KMS, as JSON."""
    print_json(caller.call("tee.derive_key", path=path, purpose=purpose, algorithm=algorithm))


@tee_command.command("sign", cls=DaemonCommand)
@click.argument("file", type=click.File("rb"))
@_algorithm
@click.pass_obj
def sign_command(caller: Caller, file: Any, algorithm: str) -> None:
    """Sign a file, or standard input (-), with the app's key; prints JSON."""
    print_json(caller.call("tee.sign", algorithm=algorithm, data=file.read().hex()))


@tee_command.command("verify", cls=DaemonCommand)
@click.argument("file", type=click.File("rb"))
@click.option("--signature", metavar="HEX", required=True)
@click.option("--public-key", metavar="HEX", required=True)
@_algorithm
@click.pass_obj
def verify_command(caller: Caller, file: Any, signature: str, public_key: str, algorithm: str) -> int:
    """Tell whether a signature over a file is that of a key; exit 1 if not. For attestations see: skilld verify."""
    reply = caller.call(
        "tee.verify", algorithm=algorithm, data=file.read().hex(), signature=signature, public_key=public_key
    )
    click.echo("valid" if reply["valid"] else "not valid")
    return 0 if reply["valid"] else EXIT_REFUSED


@tee_command.command("emit-event", cls=DaemonCommand)
@click.argument("event")
@click.argument("payload")
@click.pass_obj
def emit_event_command(caller: Caller, event: str, payload: str) -> None:
    """Log an event and extend RTMR3 with it; PAYLOAD is text."""
    caller.call("tee.emit_event", event=event, payload=payload)


@tee_command.command("tls-key", cls=DaemonCommand)
@click.option("--subject", help="The certificate's common name.")
@click.option("--alt-name", "alt_names", multiple=True, help="An alternative name; may be repeated.")
@click.option("--ra-tls", is_flag=True, help="Put a quote into the certificate.")
@click.option("--client", is_flag=True, help="For a client, too.")
@click.pass_obj
def tls_key_command(
    caller: Caller, subject: str | None, alt_names: tuple[str, ...], ra_tls: bool, client: bool
) -> None:
    """Make a TLS key and its certificates; prints JSON."""
    reply = caller.call(
        "tee.tls_key",
        subject=subject,
        alt_names=list(alt_names) or None,
        usage_ra_tls=ra_tls,
        usage_client_auth=client,
    )
    print_json(reply)
