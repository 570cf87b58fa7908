"""
The commands of the daemon itself: serve and config.

Owns: how the daemon logs.

Source: sd-daemon(3) for the priorities in front of a line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from skilld.cli import EXIT_USAGE
from skilld.cli.output import clean, print_json
from skilld.config import DEFAULT_CONFIG_PATH, ConfigError, Effective, parse_config, resolve, settings

# Level by level, what syslog calls it.
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option a setting, and --config."""
    for setting in reversed(list(settings())):
        is_many = setting.type is tuple
        help_text = " ".join(setting.doc.replace("`", "").split())
        command = click.option(
            setting.flag,
            setting.key.replace(".", "__"),  # click wants an identifier
            multiple=is_many,
            metavar="TEXT" if setting.type in (str, tuple) else "NUMBER",
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
    return resolve(given, os.environ, values, file_path=path, uid=os.getuid())


@click.command("serve")
@with_settings
def serve_command(config_path: str | None, **flags: Any) -> int:
    """
    Serve skills until SIGTERM.

    Exit codes: 0 clean end, 1 failure, 2 usage or configuration, 3 socket in use.
    """
    import asyncio

    from skilld import daemon

    try:
        effective = read_settings(config_path, flags)
    except ConfigError as exc:
        click.echo(f"skilld: {clean(str(exc))}", err=True)
        return EXIT_USAGE
    set_up_logging(effective.config.log.format, effective.config.log.level)
    return asyncio.run(daemon.serve(effective, lambda: read_settings(config_path, flags)))


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@with_settings
def config_command(config_path: str | None, as_json: bool, **flags: Any) -> int:
    """Print every setting in force, with its value and where it comes from."""
    try:
        rows = list(read_settings(config_path, flags).rows())
    except ConfigError as exc:
        click.echo(f"skilld: {clean(str(exc))}", err=True)
        return EXIT_USAGE
    if as_json:
        print_json({key: {"value": value, "source": source} for key, value, source in rows})
        return 0
    for key, value, source in rows:
        click.echo(f"{key} {json.dumps(value)} {clean(source)}")
    return 0


class TextFormatter(logging.Formatter):
    """Time, level and message on one line, for people."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S")


class JournalFormatter(logging.Formatter):
    """What systemd's journal reads from standard error: a priority, then the message."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        members = {
            "time": TextFormatter().formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members)


FORMATTERS: dict[str, Callable[[], logging.Formatter]] = {
    "text": TextFormatter,
    "json": JsonFormatter,
    "journal": JournalFormatter,
}


def set_up_logging(format: str, level: str) -> None:
    """Log to standard error from a level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[format]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
