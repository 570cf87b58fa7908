"""Settings: where each value comes from, and what is refused with which words."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from skilld.config import (
    DEFAULT_CONFIG_PATH,
    LARGEST_NUMBER,
    Access,
    Config,
    ConfigError,
    Limits,
    parse_config,
    resolve,
    settings,
)

KEYS = {setting.key: setting for setting in settings()}


def resolved(
    flags: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    file: str = "",
    uid: int = 1_000,
) -> Config:
    return resolve(flags or {}, environ or {}, parse_config(file, "my.yaml"), file_path="my.yaml", uid=uid).config


def value_of(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(
    ("flags", "environ", "file", "expected"),
    [
        ({"log.level": "debug"}, {"SKILLD_LOG_LEVEL": "error"}, "log: {level: warning}", ("debug", "flag")),
        ({"log.level": None}, {"SKILLD_LOG_LEVEL": "error"}, "log: {level: warning}", ("error", "SKILLD_LOG_LEVEL")),
        ({}, {"SKILLD_LOG_LEVEL": ""}, "log: {level: warning}", ("warning", "my.yaml")),
        ({}, {"SKILLD_LOG_LEVEL": ""}, "log: {level: }", ("info", "default")),
        ({}, {}, "log:", ("info", "default")),
        ({}, {}, "", ("info", "default")),
    ],
    ids=["flag", "environment", "empty variable", "empty value", "empty group", "empty file"],
)
def test_a_flag_wins_over_environment_over_file_over_default(
    flags: dict[str, Any], environ: dict[str, str], file: str, expected: tuple[str, str]
) -> None:
    """The first place that gives a value decides; what is empty gives none."""
    effective = resolve(flags, environ, parse_config(file, "my.yaml"), file_path="my.yaml", uid=0)
    assert (effective.config.log.level, effective.sources["log.level"]) == expected


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {}, "/run/skilld/skilld.sock"),
        (0, {"XDG_RUNTIME_DIR": "/run/user/0"}, "/run/skilld/skilld.sock"),
        (1_000, {"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/skilld/skilld.sock"),
        (1_000, {"XDG_RUNTIME_DIR": ""}, "/run/user/1000/skilld/skilld.sock"),
        (1_000, {}, "/run/user/1000/skilld/skilld.sock"),
        (0, {"SKILLD_SOCKET": "/x.sock"}, "/x.sock"),
    ],
)
def test_the_socket_lies_in_the_users_runtime_directory(uid: int, environ: dict[str, str], expected: str) -> None:
    """Root's daemon listens below /run, any other below $XDG_RUNTIME_DIR."""
    assert resolved(environ=environ, uid=uid).socket == expected


@pytest.mark.parametrize(
    ("environ", "file", "expected"),
    [
        ({}, "", ("/home/sandbox/workspace/.skills",)),
        ({"WORKSPACE": "/w"}, "", ("/w/.skills",)),
        ({"SKILLS_DIR": "/a"}, "", ("/a",)),
        ({"SKILLS_DIR": "/a:/b"}, "", ("/a", "/b")),
        ({"SKILLS_DIR": ":/a::/b:"}, "", ("/a", "/b")),
        ({"SKILLS_DIR": "/with space:/ü"}, "", ("/with space", "/ü")),
        ({}, "skills_dir: /a:/b", ("/a", "/b")),
        ({}, "skills_dir: [/a, /b]", ("/a", "/b")),
        ({}, "skills_dir: ['/a:b']", ("/a:b",)),
        ({}, "skills_dir: [2026]", ("2026",)),
        ({"SKILLS_DIR": ""}, "workspace: /w", ("/w/.skills",)),
    ],
)
def test_roots_are_a_list_joined_by_colons(environ: dict[str, str], file: str, expected: tuple[str, ...]) -> None:
    """SKILLS_DIR names one directory or several; empty parts count for nothing; the file may hold a list."""
    assert resolved(environ=environ, file=file).skills_dir == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CACHE_DIRECTORY": "/var/cache/skilld", "HOME": "/h"}, "/var/cache/skilld"),
        ({"CACHE_DIRECTORY": "/a:/b"}, "/a"),
        ({"CACHE_DIRECTORY": "", "XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/skilld"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/skilld"),
        ({"SKILLD_CACHE_DIR": "none", "HOME": "/h"}, "none"),
    ],
)
def test_the_cache_lies_where_systemd_or_the_user_keeps_caches(environ: dict[str, str], expected: str) -> None:
    """$CACHE_DIRECTORY, then $XDG_CACHE_HOME, then ~/.cache."""
    assert resolved(environ=environ).cache_dir == expected


def test_every_default_passes_its_own_check() -> None:
    """A default given as a flag is accepted and comes out as it went in."""
    defaults = resolved()
    flags = {key: value_of(defaults, key) for key in KEYS}
    assert resolved(flags) == defaults


def test_the_documented_limits_are_the_defaults() -> None:
    """The limits that the interface promises."""
    limits = Limits()
    assert {
        "message_bytes": 10 * 1024 * 1024,
        "nesting": 64,
        "batch": 1_000,
        "connections": 1_024,
        "requests_per_connection": 64,
        "skill_md_bytes": 1024 * 1024,
        "skill_files": 10_000,
        "skill_bytes": 256 * 1024 * 1024,
        "skills": 100_000,
        "depth": 6,
    }.items() <= dataclasses.asdict(limits).items()


def test_every_setting_can_be_given_in_the_file() -> None:
    """A dot in a key is a level in the file; the rows come out in the order of the fields, with their source."""
    lines = []
    for key, setting in KEYS.items():
        value = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        group, _, name = key.rpartition(".")
        given = "x" if value in ("", []) else json.dumps(value)
        text = f"{name}: {given}"
        lines.append(f"{group}: {{{text}}}" if group else text)
    for line, key in zip(lines, KEYS, strict=True):
        effective = resolve({}, {}, parse_config(line, "f"), file_path="f", uid=0)
        assert [row[0] for row in effective.rows()] == list(KEYS)
        assert {source for row_key, _, source in effective.rows() if row_key == key} == {"f"}


def test_a_list_is_a_list_among_the_rows() -> None:
    """What `skilld config` prints is JSON-safe."""
    rows = {key: (value, source) for key, value, source in resolve({}, {"SKILLS_DIR": "/a:/b"}, {}, uid=0).rows()}
    assert rows["skills_dir"] == (["/a", "/b"], "SKILLS_DIR")
    assert rows["limits.depth"] == (6, "default")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("soket: /x", "my.yaml: unknown key 'soket'"),
        ("limits: {dept: 3}", "my.yaml: unknown key 'limits.dept'"),
        ("limits: {depth: {x: 3}}\nx: 1", "my.yaml: unknown key 'x'"),
        ("log.levle: info", "my.yaml: unknown key 'log.levle'"),
        ("1: x", "my.yaml: unknown key '1'"),
        ("? [a]\n: x", "my.yaml: while constructing a mapping"),
        ("log: info", "my.yaml: 'log' must be a mapping, not 'info'"),
        ("log: [info]", "my.yaml: 'log' must be a mapping, not ['info']"),
        ("- a", "my.yaml: the file must be a mapping, not ['a']"),
        ("just text", "my.yaml: the file must be a mapping, not 'just text'"),
        ("a: b: c", "my.yaml: mapping values are not allowed here"),
        ("a: [", "my.yaml: while parsing a flow node"),
        ("a: b\n---\nc: d", "my.yaml: expected a single document"),
        ("log: {level: !!python/name:os.system ''}", "my.yaml: could not determine a constructor"),
        ("a: \x00", "my.yaml: unacceptable character"),
        ("a: *x", "my.yaml: found undefined alias"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_key(file: str, expected: str) -> None:
    """Unknown keys, broken YAML and foreign tags are errors that name the file, on one line."""
    with pytest.raises(ConfigError) as caught:
        parse_config(file, "my.yaml")
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


NINE = "[x, x, x, x, x, x, x, x, x]"
# Each value holds the one before nine times: 9^9 texts when written out.
BOMB_VALUES = [
    f"&a {NINE}",
    *(f"&{one} {NINE.replace('x', '*' + last)}" for last, one in zip("abcdefg", "bcdefgh", strict=True)),
]
BOMB = "\n".join(f"k{number}: {value}" for number, value in enumerate(BOMB_VALUES))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (BOMB, "my.yaml: unknown key 'k0'"),
        (f"x: &x {NINE}\n<<: *x", "my.yaml: merge keys (<<) are refused"),
        ("limits: {<<: {depth: 3}}", "my.yaml: merge keys (<<) are refused"),
        ("log: &l [*l]", "my.yaml: 'log' must be a mapping, not [[[[...]]]]"),
        ("log: &l {level: info, l: *l}", "my.yaml: unknown key 'log.l'"),
        ("x: " + "[" * 2_000, "my.yaml: a value does not suit its type or is nested too deep"),
        ("x: !!bool maybe", "my.yaml: a value does not suit its type or is nested too deep"),
        ("x: !!int ''", "my.yaml: a value does not suit its type or is nested too deep"),
        ("x: !!timestamp soon", "my.yaml: a value does not suit its type or is nested too deep"),
        ("x: 2026-02-31", "my.yaml: a value does not suit its type or is nested too deep"),
        ("x: " + "9" * 5_000, "my.yaml: a value does not suit its type or is nested too deep"),
    ],
    ids=["bomb", "merge", "merge in a group", "loop", "loop in a group", "deep", "bool", "int", "time", "date", "long"],
)
def test_a_hostile_file_is_refused(file: str, expected: str) -> None:
    """Bombs, loops and values that PyYAML trips over are errors like any other."""
    with pytest.raises(ConfigError) as caught:
        parse_config(file, "my.yaml")
    assert str(caught.value).startswith(expected)


def test_a_bomb_as_a_value_is_refused_without_being_written_out() -> None:
    """The message quotes the start of the bomb."""
    with pytest.raises(ConfigError) as caught:
        resolved(file=f"ignore: [{', '.join(BOMB_VALUES)}]")
    assert str(caught.value).startswith("ignore (my.yaml): must be text or a list of texts, not [['x', 'x', ")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("limits.depth", f"must be a number from 1 to {LARGEST_NUMBER:,}"),
        ("watch.poll_interval_s", "must be a number"),
        ("workspace", "must be text"),
        ("skills_dir", "must be text or a list of texts"),
        ("access.run", "must be text or a list of texts"),
    ],
)
def test_a_number_too_long_to_write_is_refused(key: str, why: str) -> None:
    """YAML reads a hexadecimal number of any length; Python writes out none of over 4,300 digits."""
    number = 16**5_000 - 1
    with pytest.raises(ConfigError) as caught:
        resolved({key: [number] if KEYS[key].type is tuple else number})
    assert str(caught.value) == f"{key} (flag): {why}, not a number of thousands of digits"


NUMBERS = [key for key, setting in KEYS.items() if setting.type in (int, float)]
WHOLE = "must be a whole number"


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("limits.depth", "six", f"{WHOLE}, not 'six'"),
        ("limits.depth", 1.5, f"{WHOLE}, not 1.5"),
        ("limits.depth", "1.5", f"{WHOLE}, not '1.5'"),
        ("limits.depth", True, f"{WHOLE}, not True"),
        ("limits.depth", [6], f"{WHOLE}, not [6]"),
        ("limits.depth", {}, f"{WHOLE}, not {{}}"),
        ("limits.depth", float("nan"), f"{WHOLE}, not nan"),
        ("limits.depth", float("inf"), f"{WHOLE}, not inf"),
        ("limits.depth", "9" * 5_000, f"{WHOLE}, not '999"),
        ("limits.depth", 0, f"must be a number from 1 to {LARGEST_NUMBER:,}, not 0"),
        ("limits.depth", -1, f"must be a number from 1 to {LARGEST_NUMBER:,}, not -1"),
        ("limits.depth", 10**30, f"must be a number from 1 to {LARGEST_NUMBER:,}, not 1000"),
        ("limits.message_bytes", 1, f"must be a number from 1,024 to {LARGEST_NUMBER:,}, not 1"),
        ("limits.message_bytes", "10MiB", f"{WHOLE}, not '10MiB'"),
        ("watch.poll_interval_s", "fast", "must be a number, not 'fast'"),
        ("watch.poll_interval_s", float("nan"), "must be a number, not nan"),
        ("watch.poll_interval_s", "nan", f"must be a number from 0.05 to {LARGEST_NUMBER:,}, not 'nan'"),
        ("watch.poll_interval_s", "1e999", f"must be a number from 0.05 to {LARGEST_NUMBER:,}, not '1e999'"),
        ("watch.poll_interval_s", 0, f"must be a number from 0.05 to {LARGEST_NUMBER:,}, not 0"),
        ("log.level", "loud", "must be one of debug, info, warning, error, not 'loud'"),
        ("log.level", True, "must be text, not True"),
        ("log.format", ["text"], "must be text, not ['text']"),
        ("watch.mode", "inotify", "must be one of auto, polling, not 'inotify'"),
        ("socket", {"path": "/x"}, "must be text, not {'path': '/x'}"),
        ("socket", "/a\0b", "must not hold NUL, not '/a\\x00b'"),
        ("socket", "/a\udcff", "must be UTF-8, not '/a\\udcff'"),
        ("skills_dir", ":", "must name a directory, not ':'"),
        ("skills_dir", [], "must name a directory, not []"),
        ("skills_dir", " ", "must name a directory, not ' '"),
        ("skills_dir", ["/a", None], "must be text or a list of texts, not ['/a', None]"),
        ("skills_dir", [["/a"]], "must be text or a list of texts, not [['/a']]"),
        ("skills_dir", {"/a": None}, "must be text or a list of texts, not {'/a': None}"),
        ("skills_dir", "/a:/b\0", "must not hold NUL, not '/a:/b\\x00'"),
        ("skills_dir", ["/a\udcff"], "must be UTF-8, not ['/a\\udcff']"),
        ("access.run", [True], "must be text or a list of texts, not [True]"),
        ("ignore", 5, "must be text or a list of texts, not 5"),
    ],
)
def test_a_value_that_breaks_its_rule_is_named_with_its_key(key: str, value: Any, why: str) -> None:
    """The message holds the key, where it was given, the rule and the value."""
    for flags, file_values, source in (({key: value}, {}, "flag"), ({}, {key: value}, "my.yaml")):
        with pytest.raises(ConfigError) as caught:
            resolve(flags, {}, file_values, file_path="my.yaml", uid=0)
        assert str(caught.value).startswith(f"{key} ({source}): {why}")


def test_a_bad_variable_is_named() -> None:
    """The message says which variable of the environment holds the bad value."""
    with pytest.raises(ConfigError) as caught:
        resolved(environ={"SKILLD_LOG": "xml"})
    assert str(caught.value) == "log.format (SKILLD_LOG): must be one of auto, text, json, journal, not 'xml'"


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_a_least_value(key: str) -> None:
    """No number may be zero or less by mistake."""
    minimum = KEYS[key].minimum
    assert minimum is not None
    assert minimum > 0


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("limits.depth", "3", 3),
        ("limits.depth", " 3 ", 3),
        ("limits.depth", 3.0, 3),
        ("limits.message_bytes", "1_048_576", 1_048_576),
        ("watch.poll_interval_s", "0.5", 0.5),
        ("watch.poll_interval_s", 2, 2.0),
        ("workspace", 2026, "2026"),
        ("workspace", "", ""),
        ("ignore", "venv,build", ("venv", "build")),
        ("ignore", [], ()),
        ("ignore", "", ()),
        ("access.write", [1000, "ada", "@dev"], ("1000", "ada", "@dev")),
        ("access.read", "*", ("*",)),
        ("access.tee", "ada,bob", ("ada", "bob")),
    ],
)
def test_a_value_is_turned_into_its_type(key: str, value: Any, expected: Any) -> None:
    """Text from flags and variables becomes a number or a list where the setting is one."""
    assert value_of(resolved({key: value}), key) == expected


def test_access_names_uids_users_and_groups() -> None:
    """Roles in the file map to texts; a role that is not named keeps its default."""
    config = resolved(file="access:\n  write: [1000, '@skilld', '*']\n  run: ada")
    assert config.access == Access(read=(), write=("1000", "@skilld", "*"), run=("ada",), tee=())


def test_the_configuration_cannot_be_changed() -> None:
    """Values are frozen: a change is a new configuration."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolved().limits.depth = 7  # type: ignore[misc]


def test_every_flag_and_variable_is_one_settings_own() -> None:
    """No two settings share a flag or a variable, and the documented variables are there."""
    flags = [setting.flag for setting in KEYS.values()]
    variables = [setting.env for setting in KEYS.values() if setting.env]
    assert len(set(flags)) == len(flags)
    assert len(set(variables)) == len(variables)
    documented = {"SKILLS_DIR", "WORKSPACE", "DSTACK_ENDPOINT", "SKILLD_SOCKET", "SKILLD_LOG", "SKILLD_LOG_LEVEL"}
    assert documented <= set(variables)
    assert DEFAULT_CONFIG_PATH == "/etc/skilld/skilld.yaml"
    assert {"--skills-dir", "--log-level", "--limits-skill-md-bytes"} <= set(flags)
