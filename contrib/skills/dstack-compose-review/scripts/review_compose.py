#!/usr/bin/env python3
"""
List risky settings of a dstack app-compose.json, or of a bare docker-compose file.

Reads FILE or standard input. Prints one line per finding, ``LEVEL  place: what is wrong``, the worst first.
HIGH breaks a promise of the TEE, MEDIUM weakens one, LOW deserves a look, INFO is a fact for the reviewer.

    review_compose.py app-compose.json
    review_compose.py --fail-on high < app-compose.json
    review_compose.py docker-compose.yaml

The Compose text is read line by line, not by a YAML parser: anchors, merge keys and flow mappings are
reported, not followed. Feed it the output of ``docker compose config`` where they matter.

Exit codes: 0 nothing at or above --fail-on (default: medium), 1 findings, 2 the input or the call is wrong.

Source: dstack AppCompose (dstack-types), its docs security-best-practices.md and cvm-boundaries.md; Compose
specification.
"""

import argparse
import hashlib
import json
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

LEVELS = ("HIGH", "MEDIUM", "LOW", "INFO")
NOT_CARRIED = "a file that app-compose.json does not carry, so it is not measured"

KNOWN_FIELDS = frozenset(
    """
    manifest_version name features runner snapshotter docker_compose_file bash_script init_script
    pre_launch_script public_logs public_sysinfo public_tcbinfo kms_enabled gateway_enabled tproxy_enabled
    local_key_provider_enabled key_provider key_provider_id allowed_envs no_instance_id secure_time storage_fs
    swap_size event_log_version port_policy requirements verity_volumes docker_config
    """.split()
)

# Values of encrypted variables are not measured, and whoever runs the host can replace them: a variable that
# decides which code runs hands the app over.
CODE_VARIABLES = re.compile(
    r"^(LD_.*|PATH|PYTHON(PATH|HOME|STARTUP)|NODE_(OPTIONS|PATH)|BASH_ENV|ENV|PERL5.*|RUBY(OPT|LIB)"
    r"|JAVA_TOOL_OPTIONS|GIT_SSH.*|DOCKER_.*|COMPOSE_.*|(HTTPS?|ALL)_PROXY)$",
    re.IGNORECASE,
)
SECRET_NAME = re.compile(
    r"(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIAL|MNEMONIC)", re.IGNORECASE
)
NOT_A_SECRET = re.compile(r"(_FILE|_PATH|_URL|_ID|_HASH|_NAME|_TTL|_EXPIRY)$", re.IGNORECASE)
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
VARIABLE = re.compile(r"(?<!\$)\$(?:\{([A-Za-z_][A-Za-z0-9_]*)([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
PIPE_TO_SHELL = re.compile(
    r"\b(curl|wget)\b[^\n;&]*\|\s*(sudo\s+)?(ba|da|z)?sh\b|\b(ba)?sh\s+(-c\s+)?[\"']?(<\(|\$\()\s*(curl|wget)\b"
)
INSTALL = re.compile(
    r"\b(apt(-get)?\s+(-\S+\s+)*install|apk\s+add|yum\s+install|dnf\s+install|pip3?\s+install|npm\s+(i|install)|cargo\s+install|go\s+install|git\s+clone|curl\s|wget\s)"
)
DOCKER_RUN = re.compile(r"\b(?:docker|nerdctl)\s+(?:run|pull|create)\b([^\n;&|]*)")


@dataclass(frozen=True)
class Finding:
    level: str
    place: str
    message: str


@dataclass(frozen=True)
class Entry:
    """One scalar of the Compose text: the keys above it, its value, its line."""

    keys: tuple[str, ...]
    value: str
    line: int
    is_item: bool

    @property
    def service(self) -> str:
        return self.keys[1] if len(self.keys) > 2 and self.keys[0] == "services" else ""

    @property
    def setting(self) -> str:
        """The key below the service, such as "volumes"."""
        return self.keys[2] if self.service else ""

    @property
    def place(self) -> str:
        return f"compose:{self.line} {'.'.join(self.keys)}"


# --- the Compose text ---------------------------------------------------------------------------------


def strip_comment(line: str) -> str:
    """The line without a trailing comment; a # inside quotes or inside a word is none."""
    quote = ""
    for at, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and (at == 0 or line[at - 1] in " \t[,{:-"):
            quote = char
        elif char == "#" and (at == 0 or line[at - 1] in " \t"):
            return line[:at].rstrip()
    return line.rstrip()


def unquote(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


KEY = re.compile(r"""^("[^"]*"|'[^']*'|[^\s"'\[\]{}#&*!|>%@`,][^:#]*?)\s*:(?:\s+(.*))?$""")


def read_entries(text: str, findings: list[Finding]) -> list[Entry]:
    """All scalars with the keys above them. What this reader does not follow becomes a finding."""
    entries: list[Entry] = []
    stack: list[tuple[int, str]] = []
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        line = strip_comment(lines[number])
        number += 1
        content = line.lstrip(" ")
        indent = len(line) - len(content)
        if not content or content in ("---", "..."):
            continue
        is_item = content == "-" or content.startswith("- ")
        while stack and (stack[-1][0] > indent or (stack[-1][0] == indent and not is_item)):
            stack.pop()
        while content == "-" or content.startswith("- "):
            rest = content[1:].lstrip(" ")
            indent += len(content) - len(rest)
            content = rest
        match = KEY.match(content)
        value = content
        if match:
            stack.append((indent, unquote(match[1])))
            value = (match[2] or "").strip()
        keys = tuple(key for _, key in stack)
        if "<<" in keys or re.match(r"[&*][A-Za-z0-9_-]+", value):
            findings.append(
                Finding(
                    "MEDIUM",
                    f"compose:{number}",
                    "anchor, alias or merge key: review 'docker compose config'",
                )
            )
        if re.match(r"(![^\s]+\s+)?[|>][+-]?\d?$", value):
            start, block = number, []
            while number < len(lines) and (
                not lines[number].strip()
                or len(lines[number]) - len(lines[number].lstrip(" "))
                > (stack[-1][0] if match else indent - 1)
            ):
                block.append(lines[number].strip())
                number += 1
            entries.append(Entry(keys, "\n".join(block), start, is_item))
        elif value.startswith("{") and value.strip("{} "):
            findings.append(
                Finding("MEDIUM", f"compose:{number}", "flow mapping: not understood, read this line by eye")
            )
            entries.append(Entry(keys, value, number, is_item))
        elif value.startswith("["):
            # A list over several lines is joined first.
            parts, depth = [value], value.count("[") - value.count("]")
            while depth > 0 and number < len(lines):
                parts.append(strip_comment(lines[number]).strip())
                depth += parts[-1].count("[") - parts[-1].count("]")
                number += 1
            value = " ".join(parts)
            for item in re.findall(r"\"[^\"]*\"|'[^']*'|[^,\[\]]+", value):
                if item.strip():
                    entries.append(Entry(keys, unquote(item), number, True))
        elif value:
            entries.append(Entry(keys, unquote(value), number, is_item))
        elif match:
            entries.append(Entry(keys, "", number, is_item))
    return entries


def variables(value: str) -> Iterator[tuple[str, bool]]:
    """Names that Compose interpolates, and whether each has a default."""
    for match in VARIABLE.finditer(value):
        yield match[1] or match[3], (match[2] or "").lstrip(":").startswith(("-", "+"))


def check_script(text: str, place: str) -> Iterator[Finding]:
    """Rules for any shell text: init and pre-launch scripts, commands, entrypoints."""
    if PIPE_TO_SHELL.search(text):
        yield Finding("HIGH", place, "runs what it downloads: the compose hash does not cover that code")
    elif match := INSTALL.search(text):
        yield Finding(
            "MEDIUM", place, f"'{match[0].strip()}' fetches code or data that the compose hash does not cover"
        )
    for match in DOCKER_RUN.finditer(text.replace("\\\n", " ")):
        if "--privileged" in match[1] or re.search(r"-v\s+/:|--volume[ =]/:", match[1]):
            yield Finding("HIGH", place, "starts a container that owns the whole VM")
        if "sha256:" not in match[1]:
            yield Finding("HIGH", place, "starts or pulls an image without a digest")


def check_mount(entry: Entry, source: str, agents: dict[str, int]) -> Iterator[Finding]:
    if re.search(r"/(dstack|tappd)\.sock$|^/(var/)?run/dstack/?$", source):
        agents[entry.service] = entry.line
    elif re.search(r"/(docker|containerd)\.sock$", source):
        yield Finding("HIGH", entry.place, f"{source}: root of the whole VM, and every key with it")
    elif re.fullmatch(
        r"/(var/?|etc/?|dstack/?|proc/?|sys/?|dev/?|run/?|var/run/?|boot/?|root/?|usr/?)?", source
    ):
        yield Finding("HIGH" if source == "/" else "MEDIUM", entry.place, f"mounts {source} of the VM")
    elif source.startswith("/dstack/"):
        yield Finding(
            "MEDIUM", entry.place, f"mounts {source}: the guest's own state, host-shared files among it"
        )
    elif source.startswith((".", "~")):
        yield Finding(
            "MEDIUM",
            entry.place,
            f"{source}: {NOT_CARRIED}",
        )


def check_entry(
    entry: Entry, allowed: set[str] | None, agents: dict[str, int], ports: list[str]
) -> Iterator[Finding]:
    value, last = entry.value, entry.keys[-1] if entry.keys else ""
    setting = entry.setting
    for name, has_default in variables(value):
        if allowed is not None and name not in allowed:
            if not has_default:
                yield Finding("LOW", entry.place, f"${name} is not in allowed_envs and has no default: empty")
        elif setting in ("image", "entrypoint", "privileged", "devices", "build"):
            yield Finding("HIGH", entry.place, f"${name} decides {setting}, and its value is not measured")
        elif setting in ("command", "volumes", "user", "cap_add", "network_mode"):
            yield Finding("MEDIUM", entry.place, f"${name} changes {setting}, and its value is not measured")
    is_outside_file = (
        entry.keys[:1] == ("include",)
        or setting in ("extends", "env_file")
        or (entry.keys[:1] in (("secrets",), ("configs",)) and last == "file")
    )
    if is_outside_file and value and last not in ("service", "required"):
        yield Finding("MEDIUM", entry.place, f"{value}: {NOT_CARRIED}")
    if not entry.service:
        return
    if (
        setting == "image"
        and len(entry.keys) == 3
        and value
        and not VARIABLE.search(value)
        and not DIGEST.search(value)
    ):
        yield Finding(
            "HIGH", entry.place, f"{value}: no digest, the registry decides what runs; use name@sha256:..."
        )
    elif setting == "build" and len(entry.keys) == 3:
        yield Finding(
            "HIGH",
            entry.place,
            "built inside the VM from files that are not measured; use an image by digest",
        )
    elif setting == "privileged" and value.lower() in ("true", "yes", "on"):
        yield Finding("HIGH", entry.place, "a privileged container owns the VM")
    elif setting in ("pid", "ipc", "uts", "userns_mode", "cgroup") and value == "host":
        yield Finding(
            "HIGH" if setting == "pid" else "MEDIUM", entry.place, f"shares the VM's {setting} namespace"
        )
    elif setting == "network_mode" and value == "host":
        yield Finding(
            "MEDIUM", entry.place, "every port that the container listens on is open to the outside"
        )
    elif setting == "cap_add" and value:
        strong = value.upper().removeprefix("CAP_") in (
            "ALL",
            "SYS_ADMIN",
            "SYS_PTRACE",
            "SYS_MODULE",
            "SYS_RAWIO",
            "DAC_READ_SEARCH",
            "BPF",
        )
        yield Finding("HIGH" if strong else "LOW", entry.place, f"adds the capability {value}")
    elif setting == "security_opt" and re.search(r"unconfined|disable|no-new-privileges[:=]false", value):
        yield Finding("MEDIUM", entry.place, f"{value} switches a guard off")
    elif setting == "devices" and value:
        yield Finding("MEDIUM", entry.place, f"hands in {value}")
    elif setting == "volumes" and last in ("volumes", "source") and value:
        yield from check_mount(entry, value.split(":")[0] if last == "volumes" else value, agents)
    elif setting == "ports" and last in ("ports", "published") and value:
        if not re.match(r"(127\.|\[?::1\]?:|localhost)", value):
            ports.append(f"{entry.service} {value}")
    elif setting in ("command", "entrypoint") and value:
        yield from check_script(value, entry.place)
    elif setting == "environment":
        name, _, literal = value.partition("=") if last == "environment" else (last, "", value)
        if (
            literal
            and SECRET_NAME.search(name)
            and not NOT_A_SECRET.search(name)
            and not VARIABLE.search(literal)
        ):
            yield Finding("HIGH", entry.place, f"{name} has its value in the file, and the file is public")


def check_compose(text: str, allowed: set[str] | None) -> list[Finding]:
    """All findings of a Compose text; ``allowed`` is None where there is no allowed_envs to compare with."""
    findings: list[Finding] = []
    if re.search(r"^ *\t", text, re.MULTILINE):
        findings.append(Finding("LOW", "compose", "tabs in the indentation: YAML forbids them"))
    agents: dict[str, int] = {}
    ports: list[str] = []
    entries = read_entries(text, findings)
    if not any(entry.keys[:1] == ("services",) for entry in entries):
        findings.append(Finding("MEDIUM", "compose", "no services found: is this a Compose file?"))
    commands: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        # A command may be a list; its words only make sense together.
        if entry.setting in ("command", "entrypoint") and entry.value:
            commands.setdefault((entry.service, entry.setting), []).append(entry)
        findings.extend(check_entry(entry, allowed, agents, ports))
    for words in commands.values():
        if len(words) > 1:
            joined = " ".join(word.value for word in words)
            findings.extend(check_script(joined, words[0].place))
    if "-----BEGIN" in text and "PRIVATE KEY-----" in text:
        findings.append(Finding("HIGH", "compose", "a private key in the file, and the file is public"))
    if agents:
        level = "INFO" if len(agents) == 1 else "MEDIUM"
        findings.append(
            Finding(
                level, "compose", f"can derive every key and sign as the app: {', '.join(sorted(agents))}"
            )
        )
    if ports:
        findings.append(Finding("INFO", "compose", "published to the outside: " + "; ".join(ports)))
    return list(dict.fromkeys(findings))


# --- app-compose.json ---------------------------------------------------------------------------------


def check_keys(app: dict) -> Iterator[Finding]:
    provider = app.get("key_provider")
    if provider is None:
        provider = (
            "kms" if app.get("kms_enabled") else "local" if app.get("local_key_provider_enabled") else "none"
        )
    if provider == "none":
        yield Finding(
            "MEDIUM", "key_provider", "none: keys are random at every boot, data encrypted with them is lost"
        )
    elif provider == "tpm":
        yield Finding("MEDIUM", "key_provider", "tpm: a software TPM gives no protection from the host")
    elif provider == "local":
        yield Finding("LOW", "key_provider", "local: keys are bound to this host and no KMS vouches for them")
    elif provider != "kms":
        yield Finding("HIGH", "key_provider", f"{provider!r} is not one of kms, local, tpm, none")
    elif not app.get("key_provider_id"):
        yield Finding(
            "LOW", "key_provider_id", "not pinned: verifiers must compare the key-provider event themselves"
        )


def check_variables(app: dict) -> Iterator[Finding]:
    allowed = app.get("allowed_envs") or []
    for name in allowed:
        if CODE_VARIABLES.match(name):
            yield Finding(
                "HIGH", "allowed_envs", f"{name} changes which code runs; its value is not measured"
            )
    requirements = app.get("requirements") or {}
    if allowed and "APP_LAUNCH_TOKEN" not in allowed and not requirements.get("launch_token_hash"):
        yield Finding(
            "MEDIUM",
            "allowed_envs",
            f"{len(allowed)} variables, no launch token: the host may start the app with other values",
        )


def check_app(app: dict) -> list[Finding]:
    """All findings of an app-compose.json object."""
    findings: list[Finding] = []
    add = findings.append
    for name in sorted(set(app) - KNOWN_FIELDS):
        add(Finding("LOW", name, "not a field that dstack knows: it is ignored, so the default applies"))
    version = app.get("manifest_version")
    if app.get("requirements") and version != "3":
        add(Finding("HIGH", "requirements", 'older guests ignore them silently; set manifest_version to "3"'))
    scripts = app.get("init_script") or []
    scripts = [scripts] if isinstance(scripts, str) else scripts
    if len(scripts) > 1 and version != "3":
        add(Finding("MEDIUM", "init_script", 'several scripts need manifest_version "3"'))
    for index, script in enumerate(scripts):
        findings.extend(check_script(script, f"init_script[{index}]"))
    prelaunch = app.get("pre_launch_script") or ""
    if prelaunch:
        findings.extend(check_script(prelaunch, "pre_launch_script"))
        if re.search(r"\bexit\s+[1-9]|\|\|\s*exit\b|set\s+-\w*e", prelaunch):
            add(
                Finding(
                    "MEDIUM",
                    "pre_launch_script",
                    "looks like a gate, but containers may run before it after a reboot: init_script",
                )
            )
    if app.get("bash_script"):
        findings.extend(check_script(app["bash_script"], "bash_script"))
    findings.extend(check_keys(app))
    findings.extend(check_variables(app))
    if app.get("public_logs"):
        add(Finding("MEDIUM", "public_logs", "true: anyone can read the containers' logs"))
    if app.get("public_sysinfo"):
        add(Finding("LOW", "public_sysinfo", "true: anyone can read the VM's system information"))
    if app.get("public_tcbinfo", True):
        add(Finding("INFO", "public_tcbinfo", "true: this file is public, and verifiable by its readers"))
    if not app.get("secure_time", True):
        add(Finding("LOW", "secure_time", "false: the host sets the clock, so expiry dates can be stretched"))
    if app.get("no_instance_id"):
        add(Finding("LOW", "no_instance_id", "true: instances cannot be told apart"))
    if app.get("storage_fs") == "ext4":
        add(Finding("LOW", "storage_fs", "ext4: data at rest is secret but not integrity-checked; zfs is"))
    gpu = (app.get("requirements") or {}).get("gpu_policy") or {}
    for name in ("allow_devtools", "allow_debug", "allow_insecure_boot"):
        if gpu.get(name):
            add(Finding("HIGH", f"requirements.gpu_policy.{name}", "true: GPU memory is not confidential"))
    if gpu.get("attest_gpu") is False:
        add(
            Finding(
                "HIGH", "requirements.gpu_policy.attest_gpu", "false: the GPU is used without attestation"
            )
        )
    if app.get("gateway_enabled") and not (app.get("port_policy") or {}).get("restrict_mode"):
        add(Finding("LOW", "port_policy", "not restricted: the gateway forwards to any port"))
    if app.get("docker_compose_file"):
        findings.extend(check_compose(app["docker_compose_file"], set(app.get("allowed_envs") or [])))
    elif app.get("runner", "docker-compose") != "bash":
        add(Finding("HIGH", "docker_compose_file", "missing"))
    return findings


class InputError(Exception):
    """The input is not an app-compose.json or Compose file; the message says why."""


TYPES = {
    "docker_compose_file": str,
    "pre_launch_script": str,
    "bash_script": str,
    "init_script": (str, list),
    "allowed_envs": list,
    "requirements": dict,
    "port_policy": dict,
}


def parse_app(data: bytes) -> dict:
    """The object of an app-compose.json. Raises InputError, which names the field."""

    def once(pairs: list[tuple[str, object]]) -> dict:
        found: dict = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"key {key!r} occurs twice: two readers may see two files")
            found[key] = value
        return found

    try:
        app = json.loads(data, object_pairs_hook=once)
    except UnicodeDecodeError:
        raise InputError("not UTF-8") from None
    except (ValueError, RecursionError) as exc:
        raise InputError(f"not JSON: {exc}") from None
    for name, kind in TYPES.items():
        value = app.get(name)
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{name}: wrong type {type(value).__name__}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise InputError(f"{name}: expected a list of strings")
    if not isinstance((app.get("requirements") or {}).get("gpu_policy") or {}, dict):
        raise InputError("requirements.gpu_policy: expected an object")
    return app


def review(data: bytes) -> list[Finding]:
    """Findings of either kind of file, worst first. Raises InputError."""
    if not data.strip():
        raise InputError("the input is empty")
    if data.lstrip()[:1] == b"{":
        findings = check_app(parse_app(data))
        digest = hashlib.sha256(data).hexdigest()
        findings.append(Finding("INFO", "compose-hash", f"{digest} (of these bytes)"))
    else:
        try:
            findings = check_compose(data.decode("utf-8"), None)
        except UnicodeDecodeError:
            raise InputError("not UTF-8") from None
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def printable(text: str) -> str:
    """The file is untrusted: nothing in it may start a line of its own or reach the terminal as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="List risky settings of a dstack app-compose.json.")
    parser.add_argument("file", nargs="?", default="-", help="file to review; default: standard input")
    parser.add_argument(
        "--fail-on", choices=("high", "medium", "low"), default="medium", help="default: medium"
    )
    args = parser.parse_args()
    try:
        if args.file == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(args.file, "rb") as file:
                data = file.read()
        findings = review(data)
    except OSError as exc:
        print(f"review_compose.py: {args.file}: {exc.strerror}", file=sys.stderr)
        return 2
    except InputError as exc:
        print(f"review_compose.py: {exc}", file=sys.stderr)
        return 2
    for finding in findings:
        print(f"{finding.level:<6}  {printable(finding.place)}: {printable(finding.message)}")
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    print(", ".join(f"{counts[level]} {level.lower()}" for level in LEVELS))
    limit = LEVELS.index(args.fail_on.upper())
    return 1 if any(LEVELS.index(finding.level) <= limit for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
