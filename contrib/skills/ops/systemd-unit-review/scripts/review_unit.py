#!/usr/bin/env python3
"""
Review systemd units: start-up order, restart behaviour, privileges, sockets, timers.

    review_unit.py app.service app.socket          drop-ins may follow their unit
    systemctl cat app.service app.socket | review_unit.py

Units that are given together are checked together (a service against its socket). Prints one line per
finding, ``unit:line: LEVEL: message``, without a line where something is not there. HIGH does not do what it
seems to, MEDIUM will hurt one day, LOW is a habit worth changing, INFO is a fact to know. Lines count from
the start of the file, or of all that stands on standard input.

It knows patterns, not every directive: run ``systemd-analyze verify`` for spelling where systemd is at hand.

Exit codes: 0 nothing at or above --fail-on (default: medium), 1 findings, 2 the input or the call is wrong.

Source: systemd.unit(5), systemd.service(5), systemd.socket(5), systemd.timer(5), systemd.exec(5),
systemd.kill(5).
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

LEVELS = ("HIGH", "MEDIUM", "LOW", "INFO")
SUFFIXES = "service socket timer target mount automount path slice scope swap device".split()
# "systemctl cat" writes the file's path in front of each fragment.
CAT_HEADER = re.compile(r"^# (/\S+\.(?:" + "|".join(SUFFIXES) + r"|conf))$")

# Where a directive belongs, for the ones that are most often put elsewhere.
SECTION_OF = {
    **dict.fromkeys(
        "Description Documentation After Before Requires Wants BindsTo PartOf Conflicts Requisite OnFailure"
        " StartLimitIntervalSec StartLimitBurst DefaultDependencies RefuseManualStart".split(),
        ("Unit",),
    ),
    **dict.fromkeys("WantedBy RequiredBy Alias Also".split(), ("Install",)),
    **dict.fromkeys(
        "Type ExecStart ExecStartPre ExecStartPost ExecStop ExecReload Restart RestartSec WatchdogSec"
        " NotifyAccess PIDFile RemainAfterExit".split(),
        ("Service",),
    ),
    **dict.fromkeys(
        "ListenStream ListenDatagram SocketMode SocketUser SocketGroup Accept".split(), ("Socket",)
    ),
    **dict.fromkeys("OnCalendar OnBootSec OnUnitActiveSec Persistent".split(), ("Timer",)),
}
OLD = {
    "MemoryLimit": "MemoryMax=",
    "CPUShares": "CPUWeight=",
    "BlockIOWeight": "IOWeight=",
    "StartLimitInterval": "StartLimitIntervalSec= in [Unit]",
    "PermissionsStartOnly": "the prefix + on the command",
    "CapabilityBoundSet": "CapabilityBoundingSet=",
}
# What costs nothing for nearly every service; the value that is meant.
CHEAP = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
    "PrivateDevices": "yes", "ProtectKernelTunables": "yes", "ProtectKernelModules": "yes",
    "ProtectKernelLogs": "yes", "ProtectControlGroups": "yes", "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "RestrictSUIDSGID": "yes", "RestrictRealtime": "yes", "LockPersonality": "yes",
    "SystemCallArchitectures": "native",
}  # fmt: skip
# What needs a look at the program first.
CAREFUL = (
    "CapabilityBoundingSet", "RestrictAddressFamilies", "RestrictNamespaces", "SystemCallFilter",
    "MemoryDenyWriteExecute", "ProtectProc", "UMask",
)  # fmt: skip

SECRET = re.compile(r"\b\w*(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY)\w*=(?!\s|$)", re.IGNORECASE)
SECRET_ARGUMENT = re.compile(r"--?(password|passwd|token|secret|api-?key)[= ](?![%$])\S+", re.IGNORECASE)
NOT_SECRET = re.compile(r"\w*(_FILE|_PATH|_URL|_DIR)=", re.IGNORECASE)
SHELL_ONLY = re.compile(r"(?<!\\)(\|\|?|&&|[<>]{1,2}|\$\(|`)|\s&$")
DURATION_ZERO = ("0", "0s", "infinity")


class InputError(Exception):
    """The input is no unit; the message says why."""


@dataclass(frozen=True)
class Finding:
    unit: str
    line: int
    level: str
    message: str


@dataclass(frozen=True)
class Setting:
    section: str
    key: str
    value: str
    line: int


@dataclass
class Unit:
    """All settings of one unit, drop-ins included, in their order."""

    name: str
    settings: list[Setting] = field(default_factory=list)

    @property
    def kind(self) -> str:
        suffix = self.name.rsplit(".", 1)[-1]
        if suffix in SUFFIXES:
            return suffix
        sections = {setting.section for setting in self.settings}
        return next(
            (kind for kind in ("service", "socket", "timer") if kind.capitalize() in sections), "unit"
        )

    def all(self, key: str) -> list[Setting]:
        """Every assignment that counts: an empty one throws away what came before it."""
        found: list[Setting] = []
        for setting in self.settings:
            if setting.key != key:
                continue
            if setting.value:
                found.append(setting)
            else:
                found.clear()
        return found

    def last(self, key: str) -> Setting | None:
        found = self.all(key)
        return found[-1] if found else None

    def text(self, key: str, default: str = "") -> str:
        found = self.last(key)
        return found.value if found else default

    def words(self, key: str) -> set[str]:
        return {word for setting in self.all(key) for word in setting.value.split()}

    def is_on(self, key: str) -> bool:
        return self.text(key).lower() in ("yes", "true", "on", "1")


# --- reading ------------------------------------------------------------------------------------------


def parse(text: str, unit: Unit, findings: list[Finding], first_line: int = 1) -> None:
    """Append the settings of one file to ``unit``."""
    section, pending, pending_line = "", "", 0
    for number, raw in enumerate(text.split("\n"), first_line):
        line = raw.strip()
        if not pending and (not line or line[0] in "#;"):
            continue
        if pending and line[:1] in ("#", ";"):
            # A comment between continued lines is left out.
            continue
        if line.endswith("\\"):
            pending_line = pending_line or number
            pending += line[:-1].rstrip() + " "
            continue
        line, start = (pending + line).strip(), pending_line or number
        pending, pending_line = "", 0
        if match := re.fullmatch(r"\[([^\]]+)\]", line):
            section = match[1]
            continue
        key, equals, value = line.partition("=")
        if not equals:
            findings.append(
                Finding(unit.name, start, "HIGH", f"not a 'Key=value' line, ignored: {line[:40]!r}")
            )
        elif not section:
            findings.append(
                Finding(unit.name, start, "HIGH", f"{key.strip()}= stands before any [Section], ignored")
            )
        else:
            unit.settings.append(Setting(section, key.strip(), value.strip(), start))
    if pending:
        findings.append(Finding(unit.name, pending_line, "HIGH", "the last line ends in a backslash"))


def unit_name(path: str) -> str:
    """The unit that a file belongs to: its own name, or that of the .d directory it lies in."""
    parent = os.path.basename(os.path.dirname(path))
    if path.endswith(".conf") and parent.endswith(".d"):
        return parent[:-2]
    return os.path.basename(path)


def split_cat(text: str) -> Iterator[tuple[str, str, int]]:
    """(unit, text, first line) of each fragment in the output of ``systemctl cat``."""
    name, start = "", 1
    block: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if match := CAT_HEADER.match(line):
            if name or any(part.strip() for part in block):
                yield name or "<stdin>", "\n".join(block), start
            name, block, start = unit_name(match[1]), [], number + 1
        else:
            block.append(line)
    yield name or "<stdin>", "\n".join(block), start


# --- rules --------------------------------------------------------------------------------------------


# Where (a setting, the name of one, or None for what is not there), level, message.
Finds = Iterator[tuple[Setting | str | None, str, str]]


def review(units: list[Unit]) -> Iterator[Finding]:
    """The findings of all rules about units that belong together."""
    for unit in units:
        for rule in (check_sections, check_dependencies, *RULES_OF.get(unit.kind, ())):
            for where, level, message in rule(unit):
                setting = unit.last(where) if isinstance(where, str) else where
                yield Finding(unit.name, setting.line if setting else 0, level, message)
    yield from check_pairs(units)


def check_sections(unit: Unit) -> Finds:
    known = {"Unit", "Install", unit.kind.capitalize()}
    for section in dict.fromkeys(setting.section for setting in unit.settings):
        if section not in known and not section.startswith("X-"):
            where = next(setting for setting in unit.settings if setting.section == section)
            yield where, "HIGH", f"the section [{section}] has no meaning in a {unit.kind}, ignored"
    for setting in unit.settings:
        home = SECTION_OF.get(setting.key)
        if home and setting.section not in home and setting.section in known:
            is_old_place = setting.key.startswith("StartLimit") and setting.section == "Service"
            level = "LOW" if is_old_place else "HIGH"
            told = "old place of" if is_old_place else "is ignored here:"
            yield setting, level, f"[{setting.section}] {told} {setting.key}=, it belongs to [{home[0]}]"
        if setting.key in OLD:
            yield setting, "LOW", f"{setting.key}= is the old form of {OLD[setting.key]}"


def check_dependencies(unit: Unit) -> Finds:
    after = unit.words("After")
    pulled = unit.words("Wants") | unit.words("Requires") | unit.words("BindsTo")
    if "network-online.target" in after and "network-online.target" not in pulled:
        yield "After", "MEDIUM", "After=network-online.target only orders: add Wants=network-online.target"
    for key in ("Requires", "BindsTo"):
        for name in sorted(unit.words(key) - after - unit.words("Before")):
            implied = name.endswith(".slice") or name == unit.name.replace(".service", ".socket")
            if not implied:
                yield (
                    unit.last(key),
                    "MEDIUM",
                    f"{key}={name} without After={name}: both start at the same time",
                )
    if unit.last("DefaultDependencies") and not unit.is_on("DefaultDependencies"):
        yield (
            "DefaultDependencies",
            "LOW",
            "DefaultDependencies=no: starts before file systems, is not stopped at shutdown",
        )


def check_service(unit: Unit) -> Finds:
    kind = unit.text("Type", "simple" if unit.last("ExecStart") else "oneshot")
    starts = unit.all("ExecStart")
    if not starts and not (kind == "oneshot" and (unit.last("ExecStop") or unit.last("SuccessAction"))):
        yield None, "HIGH", "no ExecStart="
    if len(starts) > 1 and kind != "oneshot":
        yield (
            starts[1],
            "HIGH",
            "a second ExecStart= needs Type=oneshot; a drop-in first clears it with ExecStart=",
        )
    for key in ("ExecStart", "ExecStartPre", "ExecStartPost", "ExecStop", "ExecReload"):
        for setting in unit.all(key):
            yield from check_command(setting)
    if kind == "forking" and not unit.last("PIDFile"):
        yield (
            "Type",
            "MEDIUM",
            "Type=forking without PIDFile=: the main process is guessed; run in the foreground",
        )
    if kind in ("simple", "exec") and any(
        re.search(r"\s(-d|-D|--daemon(ize)?|--fork|-b|--background)(\s|$)", s.value) for s in starts
    ):
        yield (
            starts[0],
            "MEDIUM",
            f"Type={kind}, but the command seems to go into the background: then systemd sees it end",
        )
    if kind == "oneshot" and unit.text("Restart") in ("always", "on-success"):
        yield "Restart", "HIGH", f"Restart={unit.text('Restart')} is refused for Type=oneshot"
    families = unit.text("RestrictAddressFamilies")
    if (
        kind in ("notify", "notify-reload")
        and families
        and not families.startswith("~")
        and "AF_UNIX" not in families
    ):
        yield "RestrictAddressFamilies", "HIGH", "Type=notify needs AF_UNIX to report readiness"
    if unit.last("WatchdogSec") and unit.text("Restart", "no") in ("no", "on-success", "on-abort"):
        yield "WatchdogSec", "MEDIUM", "the watchdog kills, and Restart= does not bring it back"
    if unit.text("KillMode") == "none":
        yield "KillMode", "HIGH", "KillMode=none leaves processes behind; deprecated"
    elif unit.text("KillMode") == "process":
        yield "KillMode", "MEDIUM", "KillMode=process leaves the children running; mixed is usually meant"
    if unit.text("TimeoutStopSec") in DURATION_ZERO:
        yield "TimeoutStopSec", "MEDIUM", "no limit for stopping: a shutdown may hang"
    if unit.text("StandardOutput").startswith("syslog") or unit.text("StandardError").startswith("syslog"):
        yield "StandardOutput", "LOW", "syslog is the old name of journal"
    if unit.text("PIDFile").startswith("/var/run/"):
        yield "PIDFile", "LOW", "/var/run is the old name of /run"
    if not any(setting.section == "Install" for setting in unit.settings):
        yield None, "INFO", "no [Install]: cannot be enabled, something else must start it"


def check_command(setting: Setting) -> Finds:
    prefix = re.match(r"[@:+!|-]*", setting.value)
    marks = prefix[0] if prefix else ""
    command = setting.value[len(marks) :].lstrip()
    program = command.split(None, 1)[0] if command else ""
    is_shell = bool(re.search(r"(^|/)(ba|da|z)?sh$", program))
    outside_quotes = re.sub(r"\"[^\"]*\"|'[^']*'", "", command)
    if not is_shell and (match := SHELL_ONLY.search(outside_quotes)):
        yield (
            setting,
            "HIGH",
            f"{setting.key}: {match[0].strip()!r} goes to the program as text, there is no shell",
        )
    if re.search(r"(^|\s)(nohup|sudo|screen|tmux)\s", f" {command}"):
        yield (
            setting,
            "MEDIUM",
            f"{setting.key}: systemd does what nohup, sudo or screen are for: User=, journal, Restart=",
        )
    if program and not program.startswith(("/", "%", "$")):
        yield (
            setting,
            "LOW",
            f"{setting.key}: {program!r} is looked up in a built-in path; write the full path",
        )
    if "+" in marks or "!" in marks:
        yield (
            setting,
            "MEDIUM",
            f"{setting.key}: the prefix {marks!r} runs with full privileges, past User= and the sandbox",
        )
    if "-" in marks and setting.key == "ExecStart":
        yield setting, "LOW", "ExecStart=-: a failure counts as success, Restart=on-failure never acts"
    if SECRET_ARGUMENT.search(command):
        yield (
            setting,
            "HIGH",
            f"{setting.key}: a secret on the command line is seen by every user; LoadCredential=",
        )


def check_restart(unit: Unit) -> Finds:
    if unit.text("Type") == "oneshot" or not unit.last("ExecStart"):
        return
    policy = unit.text("Restart", "no")
    if policy == "no":
        yield "Restart", "MEDIUM", "Restart= is not set: after a crash the service stays down"
        return
    interval = unit.text("StartLimitIntervalSec", unit.text("StartLimitInterval"))
    if (
        interval not in ("0", "0s")
        and not unit.last("StartLimitBurst")
        and unit.text("RestartSec", "100ms") in ("100ms", "0", "0s")
    ):
        yield (
            "Restart",
            "MEDIUM",
            "5 quick crashes and it stays down, its socket too: RestartSec=3s, or StartLimitIntervalSec=0",
        )
    if policy == "always" and not unit.last("RestartPreventExitStatus"):
        yield (
            "Restart",
            "LOW",
            "a wrong configuration restarts for ever: RestartPreventExitStatus= for its exit code",
        )


def check_privileges(unit: Unit) -> Finds:
    user = unit.text("User")
    if user in ("", "root", "0") and not unit.is_on("DynamicUser"):
        bounded = any(setting.key == "CapabilityBoundingSet" for setting in unit.settings)
        yield "User", "LOW" if bounded else "MEDIUM", "runs as root: User=, or DynamicUser=yes"
    elif user == "nobody":
        yield "User", "MEDIUM", "User=nobody is shared with NFS and others: use a user of its own"
    for setting in unit.all("Environment"):
        for match in SECRET.finditer(setting.value):
            if not NOT_SECRET.match(match[0]):
                name = match[0].rstrip("=")
                yield (
                    setting,
                    "HIGH",
                    f"{name} in Environment= is shown to every user by systemctl show; LoadCredential=",
                )
    if unit.text("OOMScoreAdjust") == "-1000":
        yield "OOMScoreAdjust", "LOW", "never killed when memory runs out: something else will be"
    writable = ("ReadWritePaths", "StateDirectory", "RuntimeDirectory", "CacheDirectory", "LogsDirectory")
    if unit.text("ProtectSystem") == "strict" and not any(unit.last(key) for key in writable):
        yield (
            "ProtectSystem",
            "INFO",
            "the whole disk is read-only for it: no StateDirectory= or ReadWritePaths=",
        )


def check_hardening(unit: Unit) -> Finds:
    missing = [
        f"{key}={value}" for key, value in CHEAP.items() if not any(s.key == key for s in unit.settings)
    ]
    careful = [f"{key}=" for key in CAREFUL if not any(s.key == key for s in unit.settings)]
    if len(missing) == len(CHEAP):
        yield None, "MEDIUM", "no hardening at all; nearly free: " + " ".join(missing)
    elif missing:
        yield None, "LOW", "hardening that is nearly free and not there: " + " ".join(missing)
    if careful:
        yield None, "LOW", "worth trying: " + " ".join(careful)


def check_socket(unit: Unit) -> Finds:
    listens = [
        s
        for key in (
            "ListenStream",
            "ListenDatagram",
            "ListenSequentialPacket",
            "ListenFIFO",
            "ListenNetlink",
            "ListenSpecial",
        )
        for s in unit.all(key)
    ]
    if not listens:
        yield None, "HIGH", "no Listen...= in it"
    mode = unit.text("SocketMode", "0666")
    paths = [s for s in listens if s.value.startswith("/")]
    if paths and mode.isdigit() and int(mode, 8) & 0o002:
        default = "" if unit.last("SocketMode") else " (the default)"
        yield (
            "SocketMode",
            "MEDIUM",
            f"SocketMode={mode}{default}: every local user may connect; 0660 and SocketGroup=",
        )
    for setting in paths:
        if setting.value.startswith(("/tmp/", "/var/tmp/")):
            yield (
                setting,
                "HIGH",
                "a socket in /tmp: anyone may take the name first, and cleaners remove it; /run",
            )
        elif setting.value.startswith("/var/run/"):
            yield setting, "LOW", "/var/run is the old name of /run"
    for setting in listens:
        if re.fullmatch(r"\d+|0\.0\.0\.0:\d+|\[::\]:\d+", setting.value):
            yield setting, "INFO", f"listens on every network interface: {setting.value}"
    if unit.is_on("RemoveOnStop"):
        yield (
            "RemoveOnStop",
            "LOW",
            "RemoveOnStop=yes: containers that have mounted the socket keep a dead one after a restart",
        )
    if unit.is_on("Accept") and unit.text("Service") and "@" not in unit.text("Service"):
        yield (
            "Accept",
            "HIGH",
            "Accept=yes starts a template service for each connection, and must not have Service=",
        )


def check_timer(unit: Unit) -> Finds:
    triggers = (
        "OnCalendar",
        "OnBootSec",
        "OnStartupSec",
        "OnUnitActiveSec",
        "OnUnitInactiveSec",
        "OnActiveSec",
    )
    if not any(unit.last(key) for key in triggers):
        yield None, "HIGH", "no trigger: OnCalendar=, OnBootSec= ..."
    only_repeats = unit.last("OnUnitActiveSec") or unit.last("OnUnitInactiveSec")
    if only_repeats and not any(
        unit.last(key) for key in ("OnBootSec", "OnCalendar", "OnActiveSec", "OnStartupSec")
    ):
        yield only_repeats, "HIGH", "counts from a run that never was: add OnBootSec="
    if unit.last("OnCalendar") and not unit.is_on("Persistent"):
        yield "OnCalendar", "LOW", "a run that falls into a downtime is lost: Persistent=yes"
    if unit.last("OnCalendar") and not unit.last("RandomizedDelaySec"):
        yield "OnCalendar", "INFO", "all machines start at the same second: RandomizedDelaySec="


def check_pairs(units: list[Unit]) -> Iterator[Finding]:
    """Rules that need a socket and its service together."""
    by_name = {unit.name: unit for unit in units}
    for unit in units:
        service = by_name.get(unit.text("Service") or unit.name.replace(".socket", ".service"))
        if unit.kind != "socket" or service is None:
            continue
        where = service.last("RuntimeDirectory")
        preserves = service.text("RuntimeDirectoryPreserve", "no") != "no"
        for setting in unit.all("ListenStream"):
            parts = setting.value.removeprefix("/var").split("/")
            if (
                where
                and not preserves
                and len(parts) > 3
                and parts[1] == "run"
                and parts[2] in where.value.split()
            ):
                gone = f"RuntimeDirectory={parts[2]} goes at every stop, and {setting.value} with it"
                yield Finding(service.name, where.line, "HIGH", f"{gone}: RuntimeDirectoryPreserve=yes")
        if unit.name not in service.words("Requires") | service.words("Wants") | service.words("Sockets"):
            yield Finding(
                service.name, 0, "LOW", f"started by hand it lacks its socket: Requires={unit.name}"
            )


RULES_OF = {
    "service": (check_service, check_restart, check_privileges, check_hardening),
    "socket": (check_socket,),
    "timer": (check_timer,),
}


# --- the command --------------------------------------------------------------------------------------


def read_units(paths: list[str], findings: list[Finding]) -> list[Unit]:
    """All units, each with its drop-ins. Raises InputError."""
    units: dict[str, Unit] = {}
    for path in paths:
        try:
            if path == "-":
                data = sys.stdin.buffer.read()
            else:
                with open(path, "rb") as file:
                    data = file.read()
            text = data.decode("utf-8")
        except OSError as exc:
            raise InputError(f"{path}: {exc.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: not UTF-8") from None
        if not text.strip():
            raise InputError(f"{path}: empty")
        fragments = split_cat(text) if path == "-" else [(unit_name(path), text, 1)]
        for name, fragment, start in fragments:
            parse(fragment, units.setdefault(name, Unit(name)), findings, start)
    for unit in units.values():
        if not unit.settings:
            raise InputError(f"{unit.name}: no settings in it: is this a unit?")
    return list(units.values())


def printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Review systemd units.")
    parser.add_argument(
        "paths",
        nargs="*",
        default=["-"],
        help="unit files and drop-ins; default: systemctl cat on standard input",
    )
    parser.add_argument(
        "--fail-on", choices=("high", "medium", "low"), default="medium", help="default: medium"
    )
    args = parser.parse_args()
    findings: list[Finding] = []
    try:
        units = read_units(args.paths, findings)
    except InputError as exc:
        print(f"review_unit.py: {exc}", file=sys.stderr)
        return 2
    findings += review(units)
    findings = sorted(
        dict.fromkeys(findings), key=lambda finding: (LEVELS.index(finding.level), finding.unit, finding.line)
    )
    for finding in findings:
        place = f"{finding.unit}:{finding.line}" if finding.line else finding.unit
        print(f"{printable(place)}: {finding.level}: {printable(finding.message)}")
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    print(", ".join(f"{counts[level]} {level.lower()}" for level in LEVELS))
    limit = LEVELS.index(args.fail_on.upper())
    return 1 if any(LEVELS.index(finding.level) <= limit for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
