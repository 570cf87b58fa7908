"""
Every setting of skilld: its key, type, default, range, environment variable and meaning, in one place.

A setting is a field of the frozen dataclasses below. :func:`resolve` merges what was given, flag before environment
before file before default, checks it, and remembers where each value came from. ``skilld config`` and the README's
table are printed from the same fields.

Owns: nothing; values only. Reading the file is the caller's job.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import yaml

from skilld.errors import quote

DEFAULT_CONFIG_PATH = "/etc/skilld/skilld.yaml"

# No setting means anything beyond; a timer or a file offset would overflow.
LARGEST_NUMBER = 1_000_000_000_000

KIB = 1024
MIB = 1024 * KIB

# Directories that never hold skills and often hold very many files. Hidden directories are skipped anyway.
IGNORED_DIRS = ("node_modules", "venv", "__pycache__")

# The cache_dir that means: keep no cache.
NO_CACHE = "none"

ROLES = ("read", "write", "run", "tee")


class ConfigError(Exception):
    """A setting is unknown or breaks its rule; the text names the key and where it was given."""


def _setting(
    default: Any,
    doc: str,
    *,
    env: str | None = None,
    minimum: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    return field(default=default, metadata={"doc": doc, "env": env, "minimum": minimum, "choices": choices})


@dataclass(frozen=True)
class Log:
    """How the daemon logs."""

    format: str = _setting(
        "auto",
        "How a line looks. `auto` is `journal` where systemd's journal reads standard error, else `text`.",
        env="SKILLD_LOG",
        choices=("auto", "text", "json", "journal"),
    )
    level: str = _setting(
        "info",
        "The least severe level that is logged.",
        env="SKILLD_LOG_LEVEL",
        choices=("debug", "info", "warning", "error"),
    )


@dataclass(frozen=True)
class Watch:
    """How changes on disk are noticed."""

    mode: str = _setting(
        "auto",
        "`auto` uses inotify and falls back to polling; `polling` is for network file systems.",
        choices=("auto", "polling"),
    )
    poll_interval_s: float = _setting(
        1.0, "Seconds between two sweeps while polling, and between two looks at linked skills.", minimum=0.05
    )
    sweep_interval_s: float = _setting(
        10.0, "Least seconds between two sweeps that look for edits which inotify missed.", minimum=0.1
    )
    max_directories: int = _setting(
        65_536, "More directories than this below the roots are polled, not watched.", minimum=1
    )


@dataclass(frozen=True)
class Limits:
    """What one peer, one file or one skill may ask of the daemon."""

    message_bytes: int = _setting(10 * MIB, "A line or an HTTP body.", minimum=KIB)
    nesting: int = _setting(64, "Depth of arrays and objects in a message.", minimum=2)
    batch: int = _setting(1_000, "Entries in a batch.", minimum=1)
    connections: int = _setting(1_024, "Open connections; one more is answered `busy` and closed.", minimum=1)
    requests_per_connection: int = _setting(
        64, "Requests in flight on a connection; then it is not read from.", minimum=1
    )
    header_timeout_s: float = _setting(
        15.0, "Seconds for a request, once begun, to arrive; and for the first byte.", minimum=0.1
    )
    idle_timeout_s: float = _setting(
        3_600.0, "Seconds a connection may be silent; subscribers may be silent for ever.", minimum=0.1
    )
    send_buffer_bytes: int = _setting(
        4 * MIB,
        "Unread notifications that a subscriber may pile up before it is told to catch up.",
        minimum=KIB,
    )
    send_timeout_s: float = _setting(60.0, "Seconds a peer may leave a reply unread before it is dropped.", minimum=0.1)
    skill_md_bytes: int = _setting(1 * MIB, "A SKILL.md.", minimum=KIB)
    skill_files: int = _setting(10_000, "Files in a skill.", minimum=1)
    skill_bytes: int = _setting(256 * MIB, "All files of a skill.", minimum=KIB)
    skills: int = _setting(100_000, "Skills in all roots.", minimum=1)
    depth: int = _setting(6, "Directories between a root and a SKILL.md.", minimum=1)
    changes: int = _setting(10_000, "Ids that the history behind `skills.changes` remembers.", minimum=1)


@dataclass(frozen=True)
class Factory:
    """The dialogue that makes skills."""

    session_ttl_s: float = _setting(1_800.0, "Seconds a session lives after its last answer.", minimum=1)
    max_sessions: int = _setting(1_000, "Open sessions; one more is answered `busy`.", minimum=1)


@dataclass(frozen=True)
class Execution:
    """Running the scripts of skills."""

    enabled: bool = _setting(True, "Whether scripts run at all.")
    backend: str = _setting(
        "auto",
        "What confines a script. `auto` takes bubblewrap, else Landlock, whichever passes the check at start, else "
        "runs nothing; `none` confines nothing.",
        choices=("auto", "bubblewrap", "landlock", "none"),
    )
    bwrap_path: str = _setting("/usr/bin/bwrap", "bubblewrap: owned by root, written by nobody else, not setuid.")
    interpreters: tuple[str, ...] = _setting(
        (".py=python3", ".sh=sh", ".bash=bash", ".js=node", ".mjs=node", ".cjs=node", ".pl=perl", ".rb=ruby"),
        "What runs a script, by extension: names that are looked up in `/usr/local/bin`, `/usr/bin` and the like, or "
        "absolute paths.",
    )
    environments: tuple[str, ...] = _setting(
        (),
        "Prepared virtual environments for scripts that declare dependencies (PEP 723), such as "
        "`pdf/scripts/fill.py=/opt/venvs/pdf`.",
    )
    extra_ro: tuple[str, ...] = _setting(
        (), "Directories of the host that every script may read, at their own paths. What holds a socket is refused."
    )
    max_concurrent: int = _setting(4, "Scripts that run at a time.", minimum=1)
    max_queued: int = _setting(64, "Runs that wait for their turn; one more is answered `busy`.", minimum=1)
    output_bytes: int = _setting(
        1 * MIB, "Bytes kept of each output: three quarters from its beginning, one from its end.", minimum=KIB
    )
    memory_bytes: int = _setting(512 * MIB, "Memory that the processes of a run may hold together.", minimum=16 * MIB)
    max_processes: int = _setting(64, "Processes and threads of a run.", minimum=4)
    open_files: int = _setting(256, "Open files of a process.", minimum=16)
    file_bytes: int = _setting(64 * MIB, "A file that a script writes.", minimum=KIB)
    work_bytes: int = _setting(
        256 * MIB, "All of a script's `/work`, in memory (not under Landlock, where it is on the disk).", minimum=MIB
    )
    tmp_bytes: int = _setting(64 * MIB, "All of a script's `/tmp`, likewise.", minimum=MIB)


@dataclass(frozen=True)
class Tee:
    """dstack's guest agent, and what is proved with it."""

    timeout_s: float = _setting(30.0, "Seconds that a call of the guest agent may take.", minimum=0.1)
    receipt_algorithm: str = _setting(
        "ed25519",
        "What receipts are signed with; dstack OS before 0.5.6 has neither.",
        choices=("ed25519", "secp256k1"),
    )
    skill_set_events: bool = _setting(
        False,
        "Extend RTMR3 with the registry digest when the skills have changed (TDX, dstack OS 0.5). Every event stays in "
        "the log, which every quote of the machine carries.",
    )
    skill_set_event_interval_s: float = _setting(60.0, "Least seconds between two of these events.", minimum=0.1)


@dataclass(frozen=True)
class Access:
    """Who has which role: uids, user names, `@group` or `"*"`. Empty keeps the default of the role."""

    read: tuple[str, ...] = _setting((), "Peers that may read. Default: every peer that can connect.")
    write: tuple[str, ...] = _setting((), "Peers that may write. Default: the socket's group.")
    run: tuple[str, ...] = _setting((), "Peers that may run scripts. Default: the socket's group.")
    tee: tuple[str, ...] = _setting((), "Peers that may use the TEE's keys. Default: the socket's group.")


@dataclass(frozen=True)
class Config:
    """All settings, checked."""

    skills_dir: tuple[str, ...] = _setting(
        (),
        "The roots; the first is written to, earlier roots win a collision of ids. "
        "Default: `$WORKSPACE/.skills`. Several are joined by `:`, or a list in the file.",
        env="SKILLS_DIR",
    )
    workspace: str = _setting("/home/sandbox/workspace", "Where the agents work.", env="WORKSPACE")
    socket: str = _setting(
        "",
        "Path of the socket. Default: `/run/skilld/skilld.sock` as root, else `$XDG_RUNTIME_DIR/skilld/skilld.sock`.",
        env="SKILLD_SOCKET",
    )
    dstack_endpoint: str = _setting(
        "", "Path or URL of the guest agent. Default: the SDK's own search.", env="DSTACK_ENDPOINT"
    )
    cache_dir: str = _setting(
        "",
        "Where parsed skills are cached between starts. Default: `$CACHE_DIRECTORY` (systemd), else "
        "`$XDG_CACHE_HOME/skilld`, else `~/.cache/skilld`; `none` keeps no cache.",
        env="SKILLD_CACHE_DIR",
    )
    receipts: bool = _setting(False, "Sign a receipt for every run of a script.")
    ignore: tuple[str, ...] = _setting(
        IGNORED_DIRS, "Names of directories that hold no skills, beside the hidden ones."
    )
    log: Log = field(default_factory=Log)
    watch: Watch = field(default_factory=Watch)
    limits: Limits = field(default_factory=Limits)
    factory: Factory = field(default_factory=Factory)
    execution: Execution = field(default_factory=Execution)
    tee: Tee = field(default_factory=Tee)
    access: Access = field(default_factory=Access)


@dataclass(frozen=True)
class Effective:
    """The configuration in force and where each value came from, by dotted key."""

    config: Config
    sources: Mapping[str, str]

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Yield ``(key, value, source)`` in the order of the fields."""
        for setting in settings():
            value: Any = self.config
            for part in setting.key.split("."):
                value = getattr(value, part)
            yield setting.key, list(value) if isinstance(value, tuple) else value, self.sources[setting.key]


@dataclass(frozen=True)
class Setting:
    """One setting, as data: ``key`` is dotted, ``type`` one of str, int, float, bool, tuple."""

    key: str
    type: type
    default: Any
    doc: str
    env: str | None
    minimum: float | None
    choices: tuple[str, ...] | None

    @property
    def flag(self) -> str:
        """The command-line flag of ``skilld serve``, such as ``--skills-dir``."""
        return "--" + self.key.replace(".", "-").replace("_", "-")


def settings(cls: type = Config, prefix: str = "") -> Iterator[Setting]:
    """Yield every setting in the order of the fields."""
    hints = get_type_hints(cls)
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield from settings(hint, f"{prefix}{item.name}.")
            continue
        kind = hint if hint in (str, int, float, bool) else tuple
        yield Setting(
            f"{prefix}{item.name}",
            kind,
            item.default,
            item.metadata["doc"],
            item.metadata["env"],
            item.metadata["minimum"],
            item.metadata["choices"],
        )


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without merge keys, which can multiply a small file into gigabytes."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are refused", key.start_mark)


def parse_config(text: str, source: str) -> dict[str, Any]:
    """
    Parse the text of a configuration file into ``{dotted key: value}``.

    Args:
        text: YAML; a mapping, or nothing.
        source: The file's name, for messages.

    Raises:
        ConfigError: Not YAML, not a mapping, or an unknown key; names the key and the file.
    """
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - a safe loader, made safer
    except yaml.YAMLError as exc:
        raise ConfigError(f"{source}: {' '.join(str(exc).split())}") from exc
    # What PyYAML's constructors let through for `!!bool x`, `!!int ""`, `!!timestamp x` and for deep nesting.
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as exc:
        raise ConfigError(f"{source}: a value does not suit its type or is nested too deep ({exc})") from exc
    known = {setting.key for setting in settings()}
    groups = {key.rsplit(".", 1)[0] for key in known if "." in key}
    values: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        if node is None:
            return
        if not isinstance(node, dict):
            where = f"{prefix[:-1]!r} must be a mapping" if prefix else "the file must be a mapping"
            raise ConfigError(f"{source}: {where}, not {quote(node)}")
        for name, value in node.items():
            key = f"{prefix}{name}"
            if key in groups:
                walk(value, f"{key}.")
            elif key in known:
                values[key] = value
            else:
                raise ConfigError(f"{source}: unknown key {quote(key)}")

    walk(document, "")
    return values


def resolve(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file_values: Mapping[str, Any],
    *,
    file_path: str = DEFAULT_CONFIG_PATH,
    uid: int,
) -> Effective:
    """
    Merge flags, environment, file and defaults into one checked configuration.

    An empty environment variable counts as unset.

    Args:
        flags: ``{dotted key: value}``; ``None`` counts as not given.
        environ: The environment.
        file_values: What :func:`parse_config` returned.
        file_path: The file's name, for messages and sources.
        uid: The daemon's user id; decides where the socket is by default.

    Raises:
        ConfigError: A value breaks its rule; names the key, the value and where it was given.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in settings():
        if flags.get(setting.key) is not None:
            given, source = flags[setting.key], "flag"
        elif setting.env and environ.get(setting.env):
            given, source = environ[setting.env], setting.env
        elif file_values.get(setting.key) is not None:
            given, source = file_values[setting.key], file_path
        else:
            given, source = None, "default"
        values[setting.key] = setting.default if given is None else _check(setting, given, source)
        sources[setting.key] = source
    _fill_defaults(values, environ, uid)
    groups: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        groups.setdefault(group, {})[name] = value
    config = Config(
        **groups.pop(""),
        log=Log(**groups["log"]),
        watch=Watch(**groups["watch"]),
        limits=Limits(**groups["limits"]),
        factory=Factory(**groups["factory"]),
        execution=Execution(**groups["execution"]),
        tee=Tee(**groups["tee"]),
        access=Access(**groups["access"]),
    )
    return Effective(config, sources)


def _fill_defaults(values: dict[str, Any], environ: Mapping[str, str], uid: int) -> None:
    """Defaults that depend on other values."""
    runtime_dir = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    home = environ.get("HOME") or "/"
    cache_home = environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    values["skills_dir"] = values["skills_dir"] or (f"{values['workspace']}/.skills",)
    values["socket"] = values["socket"] or (
        "/run/skilld/skilld.sock" if uid == 0 else f"{runtime_dir}/skilld/skilld.sock"
    )
    # systemd gives a list joined by ":" where a unit has several cache directories.
    values["cache_dir"] = (
        values["cache_dir"] or environ.get("CACHE_DIRECTORY", "").split(":")[0] or f"{cache_home}/skilld"
    )


def _check(setting: Setting, given: Any, source: str) -> Any:
    """Turn what was given into the setting's type, or raise ConfigError."""

    def refuse(why: str) -> ConfigError:
        return ConfigError(f"{setting.key} ({source}): {why}, not {quote(given)}")

    if setting.type is tuple:
        separator = ":" if setting.key == "skills_dir" else ","
        parts = given.split(separator) if isinstance(given, str) else given
        texts = [_text_of(part, int) for part in parts] if isinstance(parts, list | tuple) else [None]
        if None in texts:
            raise refuse("must be text or a list of texts")
        value: Any = tuple(text for text in texts if text and text.strip())
        for text in value:
            if why := _check_text(text):
                raise refuse(why)
        if not value and setting.key == "skills_dir":
            raise refuse("must name a directory")
        return value
    if setting.type is str:
        # A path in the file may be a bare number to YAML; a mapping or list is a mistake.
        value = _text_of(given, int, float)
        if value is None:
            raise refuse("must be text")
        if why := _check_text(value):
            raise refuse(why)
        if setting.choices and value not in setting.choices:
            raise refuse(f"must be one of {', '.join(setting.choices)}")
        return value
    if setting.type is bool:
        words = {"true": True, "false": False, "1": True, "0": False}
        value = given if isinstance(given, bool) else words.get(str(given).lower())
        if value is None:
            raise refuse("must be true or false")
        return value
    try:
        if isinstance(given, bool):
            raise ValueError
        value = setting.type(given)
        # int(1.5) would pass in silence.
        if isinstance(given, float) and value != given:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise refuse("must be a whole number" if setting.type is int else "must be a number") from None
    minimum = setting.minimum or 0
    # Not a number is neither.
    if not minimum <= value <= LARGEST_NUMBER:
        raise refuse(f"must be a number from {minimum:,g} to {LARGEST_NUMBER:,}")
    return value


def _text_of(given: Any, *also: type) -> str | None:
    """Return text, or a number of the types ``also``, as text; None for anything else."""
    if not isinstance(given, (str, *also)) or isinstance(given, bool):
        return None
    try:
        return str(given)
    except ValueError:  # Python writes out no number of over 4,300 digits
        return None


def _check_text(text: str) -> str | None:
    """Return the rule that a text breaks, or None."""
    if "\0" in text:
        return "must not hold NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "must be UTF-8"  # no reply could name the path
    return None
