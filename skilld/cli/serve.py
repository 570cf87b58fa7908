"""
The commands of the daemon itself: serve and config.

Owns: nothing; reads the configuration file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from skilld.cli.caller import ENDPOINT, json_option
from skilld.cli.output import clean, print_json
from skilld.config import DEFAULT_CONFIG_PATH, ConfigError, Effective, parse_config, resolve, settings

METAVARS = {str: "TEXT", tuple: "TEXT", int: "NUMBER", float: "NUMBER", bool: "true|false"}


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option a setting, and --config."""
    for setting in reversed(list(settings())):
        is_many = setting.type is tuple
        help_text = " ".join(setting.doc.replace("`", "").split())
        command = click.option(
            setting.flag,
            setting.key.replace(".", "__"),  # click wants an identifier
            multiple=is_many,
            metavar=METAVARS[setting.type],
            help=help_text + (f" [{', '.join(setting.choices)}]" if setting.choices else ""),
        )(command)
    return click.option("--config", "config_path", metavar="FILE", help=f"Default: {DEFAULT_CONFIG_PATH}.")(command)


def read_settings(config_path: str | None, flags: dict[str, Any]) -> Effective:
    """
    Read the file and merge it with flags and environment.

    Raises:
        ConfigError: The file cannot be read though it was named, or a setting is wrong.
    """
    named = config_path or os.environ.get("SKILLD_CONFIG") or ""
    path = named or DEFAULT_CONFIG_PATH
    values: dict[str, Any] = {}
    try:
        with open(path, encoding="utf-8") as file:
            values = parse_config(file.read(), path)
    except FileNotFoundError as exc:
        if named:
            raise ConfigError(f"{path}: {exc.strerror}") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: {getattr(exc, 'strerror', None) or 'not UTF-8'}") from exc
    # An option that may be repeated is () where it was not given; each of several roots may be a list itself.
    given = {key.replace("__", "."): value for key, value in flags.items() if value not in (None, ())}
    for key, value in given.items():
        if isinstance(value, tuple):
            given[key] = (":" if key == "skills_dir" else ",").join(value)
    effective = resolve(given, os.environ, values, file_path=path, uid=os.getuid())
    # What is relative is so to where the command was given, not to where a reload finds the daemon.
    roots = tuple(os.path.abspath(root) for root in effective.config.skills_dir)
    return replace(effective, config=replace(effective.config, skills_dir=roots))


@click.command("serve")
@with_settings
@click.pass_context
def serve_command(ctx: click.Context, /, config_path: str | None, **flags: Any) -> int:
    """
    Serve skills until SIGTERM.

    Exit codes: 0 clean end, 1 failure, 2 usage or configuration, 3 socket in use.
    """
    import asyncio

    from skilld import daemon
    from skilld.cli.logs import set_up_logging

    effective = _effective(ctx, config_path, flags)
    set_up_logging(effective.config.log.format, effective.config.log.level)
    return asyncio.run(daemon.serve(effective, lambda: read_settings(config_path, flags)))


@click.command("config")
@json_option
@with_settings
@click.pass_context
def config_command(ctx: click.Context, /, config_path: str | None, as_json: bool, **flags: Any) -> None:
    """Print every setting in force, with its value and where it comes from."""
    rows = list(_effective(ctx, config_path, flags).rows())
    if as_json:
        print_json({key: {"value": value, "source": source} for key, value, source in rows})
        return
    for key, value, source in rows:
        click.echo(f"{key} {json.dumps(value)} {clean(source)}")


def _effective(ctx: click.Context, config_path: str | None, flags: dict[str, Any]) -> Effective:
    """The settings in force; ``--socket`` may stand before the command, as with those that call the daemon."""
    flags["socket"] = flags["socket"] or ctx.meta.get(ENDPOINT)
    try:
        return read_settings(config_path, flags)
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from exc
