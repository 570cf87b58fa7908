"""
What every command that calls the daemon shares: where it is, how long a call may take, and the call itself.

Owns: nothing.
"""

from __future__ import annotations

from typing import Any

import click

from skilld.client import SkilldClient
from skilld.client.calls import DEFAULT_TIMEOUT_S

# In the context's meta, which all contexts of an invocation share: an option is as good before the command as after.
ENDPOINT, TIMEOUT = "skilld.endpoint", "skilld.timeout_s"


def endpoint_option() -> click.Option:
    """``--endpoint``, also ``--socket``."""
    return click.Option(
        ["--endpoint", "--socket", "endpoint"],
        metavar="PATH",
        type=click.Path(readable=False),
        expose_value=False,
        callback=_keep(ENDPOINT),
        help="The daemon's socket. Default: SKILLD_ENDPOINT, else the well-known places.",
    )


def timeout_option() -> click.Option:
    """``--timeout``."""
    return click.Option(
        ["--timeout", "timeout_s"],
        metavar="SECONDS",
        type=click.FloatRange(0, min_open=True),
        expose_value=False,
        callback=_keep(TIMEOUT),
        help=f"Seconds that a reply may take. Default: {DEFAULT_TIMEOUT_S:g}.",
    )


def _keep(key: str) -> Any:
    def keep(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None:
            ctx.meta[key] = value

    return keep


class DaemonCommand(click.Command):
    """A command that calls the daemon; its function gets a :class:`Caller` by ``click.pass_obj``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [endpoint_option(), timeout_option()]

    def invoke(self, ctx: click.Context) -> Any:
        ctx.obj = Caller(ctx)
        return super().invoke(ctx)


class Caller:
    """Calls the daemon that the options of a command line name."""

    def __init__(self, ctx: click.Context, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.endpoint: str | None = ctx.meta.get(ENDPOINT)
        self.timeout_s: float = ctx.meta.get(TIMEOUT, timeout_s)

    def client(self) -> SkilldClient:
        """A client of the daemon; opened by its first call."""
        return SkilldClient(self.endpoint, timeout=self.timeout_s)

    def call(self, method: str, **params: Any) -> Any:
        """The result of one call as JSON; params without a value are left out."""
        with self.client() as client:
            return client.call(method, {name: value for name, value in params.items() if value is not None})


def json_option(command: Any) -> Any:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")(command)
