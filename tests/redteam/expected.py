"""
What is known to be open, and the table of attacks and rungs that the README shows.

Owns: the list of gaps.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.redteam import probe
from tests.redteam.catalogue import CATALOGUE

OWN_SOCKETS = "Unix sockets among its own processes"
DISK = "files on the host's disk, each of limited size, while it runs"

COMMANDS = "the host's processes and their command lines"

# By rung and attack: what stays open by design, in words that the README shows.
BUBBLEWRAP = {
    "call-connect": OWN_SOCKETS,
    "call-bind": OWN_SOCKETS,
    "call-listen": OWN_SOCKETS,
    "call-inotify-add-watch": "watching its own files",
}
GAPS: Mapping[str, Mapping[str, str]] = {
    "bubblewrap": BUBBLEWRAP,
    "bubblewrap-shared-proc": {
        **BUBBLEWRAP,
        "process-list": COMMANDS,
        "victim-cmdline": COMMANDS,
        "victim-exists": COMMANDS,
        "host-mounts": "what is mounted on the host",
    },
    "landlock": {
        "fill-tmp": DISK,
        "fill-home": DISK,
        "host-name": "the host's name",
        "host-users": "its users' names",
        "victim-exists": "which processes there are, not what they run",
        "state-directory-exists": "names, sizes and times of files whose path it guesses",
    },
}


# What the rung itself says of a gap: ``sandbox.degraded`` of a result. Bubblewrap's own are none, since what is reached
# is the script's.
DEGRADED: Mapping[str, Mapping[str, str]] = {
    "bubblewrap": {},
    "bubblewrap-shared-proc": dict.fromkeys(GAPS["bubblewrap-shared-proc"].keys() - BUBBLEWRAP.keys(), "proc-shared"),
    "landlock": {
        "fill-tmp": "work-unlimited",
        "fill-home": "work-unlimited",
        "host-name": "host-name",
        "host-users": "user-names",
        "victim-exists": "process-ids",
        "state-directory-exists": "file-names",
    },
}


def table() -> str:
    """The table of attacks and rungs, as the README shows it."""
    rows: dict[str, list[str]] = {}
    modules = [module.__name__ for module in probe.MODULES]
    for name, one in sorted(CATALOGUE.items(), key=lambda item: modules.index(item[1].attack.__module__)):
        rows.setdefault(one.row, []).append(name)
    lines = ["| attack | tried | bubblewrap | bubblewrap with the host's `/proc` | Landlock |", "|---|---|---|---|---|"]
    for row, names in rows.items():
        cells = (_cell(names, gaps) for gaps in GAPS.values())
        lines.append(f"| {row} | {len(names)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(names: list[str], gaps: Mapping[str, str]) -> str:
    known = list(dict.fromkeys(gaps[name] for name in names if name in gaps))
    if not known:
        return "blocked"
    return ("blocked but for " if known and any(name not in gaps for name in names) else "open: ") + "; ".join(known)
