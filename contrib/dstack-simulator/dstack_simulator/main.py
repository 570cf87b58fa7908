"""
The command: ``python contrib/dstack-simulator --socket PATH``.

Owns: the command line, signals, and what is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence

from . import secp256k1
from .agent import Agent
from .faults import KINDS, Faults, parse_fault
from .machine import Machine
from .profile import DEFAULT_PROFILE, PLATFORMS, PROFILES
from .server import Server

DEFAULT_SEED = "dstack-simulator"


def build_parser() -> argparse.ArgumentParser:
    """The options; see the README beside this package."""
    parser = argparse.ArgumentParser(
        prog="dstack-simulator",
        description="A double of dstack's guest agent. Its keys are known to everybody: what it says proves nothing.",
        epilog="faults: " + "; ".join(f"{kind}: {text}" for kind, text in KINDS.items()),
    )
    parser.add_argument("--socket", required=True, metavar="PATH", help="where to listen, as /run/dstack.sock")
    parser.add_argument("--tappd-socket", metavar="PATH", help="where to serve the legacy service, as /run/tappd.sock")
    parser.add_argument("--profile", choices=PROFILES, default=DEFAULT_PROFILE, help="version of dstack to play")
    parser.add_argument("--platform", choices=PLATFORMS, default="tdx", help="snp: from 0.6.0 on")
    parser.add_argument("--event-version", type=int, choices=(1, 2), default=1, help="2: from 0.6.0 on")
    parser.add_argument("--no-kms", action="store_true", help="a machine whose keys come from no KMS")
    parser.add_argument("--seed", default=DEFAULT_SEED, metavar="TEXT", help="another text gives another machine")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND[:METHOD[:ARGUMENT]]",
        help='what goes wrong, such as "latency:GetQuote:5", "hang:Sign" or "cut"; may be repeated',
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code is 0 then, 1 where a socket cannot be had, 2 for a wrong option."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        machine = Machine(options.seed.encode(), event_version=options.event_version, has_kms=not options.no_kms)
        agent = Agent(machine, PROFILES[options.profile], options.platform)
        faults = Faults()
        for text in options.fault:
            faults.add(parse_fault(text))
    except ValueError as exc:
        parser.error(str(exc))
    try:
        asyncio.run(_run(Server(agent, faults), options.socket, options.tappd_socket))
    except OSError as exc:
        logging.error("%s", exc)
        return 1
    return 0


async def _run(server: Server, socket_path: str, tappd_path: str | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with server.serving(socket_path, tappd_path):
        machine = server.agent.machine
        root = secp256k1.public_key(machine.kms_root).hex()
        logging.info("simulated dstack %s (%s) on %s", server.agent.profile.version, server.agent.platform, socket_path)
        logging.info("app id        %s", machine.app_id.hex())
        logging.info("KMS root key  %s", root)
        logging.info("SIMULATED: these keys are known to everybody, and no vendor has signed the quotes")
        with contextlib.suppress(asyncio.CancelledError):
            await stop.wait()
