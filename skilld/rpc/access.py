"""
Who may do what: from a peer's user and groups to its roles.

The policy is built once from the configuration, with names already turned into ids, so that deciding about a peer is
pure arithmetic on numbers.

Owns: nothing; values only. Reading the peer's credentials is ``rpc/peer``'s job.

Source: API, section 6.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from skilld.config import ROLES, Access, ConfigError
from skilld.errors import quote

ALL_ROLES = frozenset(ROLES)


@dataclass(frozen=True)
class Peer:
    """The process at the other end of a connection, as the kernel saw it when it connected."""

    uid: int
    gid: int
    pid: int
    groups: tuple[int, ...]
    roles: frozenset[str]

    def __str__(self) -> str:
        return f"uid {self.uid}, gid {self.gid}, pid {self.pid}"

    @property
    def fields(self) -> dict[str, int]:
        """What a record of the log carries about it."""
        return {"peer_uid": self.uid, "peer_gid": self.gid, "peer_pid": self.pid}


@dataclass(frozen=True)
class Grant:
    """Who has one role. ``everybody`` is ``"*"``."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()
    everybody: bool = False

    def includes(self, uid: int, groups: frozenset[int]) -> bool:
        """Whether a peer of this user, in these groups, has the role."""
        return self.everybody or uid in self.uids or not self.gids.isdisjoint(groups)


@dataclass(frozen=True)
class AccessPolicy:
    """Which users have every role whatever the configuration says, and who has each role."""

    owners: frozenset[int]
    grants: Mapping[str, Grant] = field(default_factory=dict)


def build_policy(access: Access, *, daemon_uid: int, socket_gid: int) -> AccessPolicy:
    """
    Turn the ``access`` settings into a policy of ids.

    A role that the settings leave empty keeps its default: ``read`` for everybody, the others for the group that owns
    the socket.

    Args:
        access: The settings; each entry is a uid, a user name, ``@group`` (a name or a gid) or ``"*"``.
        daemon_uid: The daemon's own user; it and root have every role.
        socket_gid: The group that owns the socket.

    Raises:
        ConfigError: An entry names a user or group that does not exist; names the key and the entry.
    """
    defaults = {role: Grant(gids=frozenset({socket_gid})) for role in ROLES}
    defaults["read"] = Grant(everybody=True)
    given: dict[str, tuple[str, ...]] = {role: getattr(access, role) for role in ROLES}
    grants = {role: _grant(f"access.{role}", given[role]) if given[role] else defaults[role] for role in ROLES}
    return AccessPolicy(owners=frozenset({0, daemon_uid}), grants=grants)


def roles_of(uid: int, gid: int, groups: Iterable[int], *, policy: AccessPolicy) -> frozenset[str]:
    """
    Return the roles of a peer.

    Args:
        uid: The peer's effective user.
        gid: Its effective group.
        groups: Its supplementary groups.
        policy: What :func:`build_policy` returned.
    """
    if uid in policy.owners:
        return ALL_ROLES
    every_group = frozenset((gid, *groups))
    return frozenset(role for role, grant in policy.grants.items() if grant.includes(uid, every_group))


def _grant(key: str, entries: tuple[str, ...]) -> Grant:
    uids: set[int] = set()
    gids: set[int] = set()
    for entry in entries:
        try:
            if entry == "*":
                continue
            if entry.startswith("@"):
                gids.add(int(entry[1:]) if _is_id(entry[1:]) else grp.getgrnam(entry[1:]).gr_gid)
            else:
                uids.add(int(entry) if _is_id(entry) else pwd.getpwnam(entry).pw_uid)
        except KeyError:
            what = "group" if entry.startswith("@") else "user"
            raise ConfigError(f"{key}: no such {what}: {quote(entry)}") from None
    return Grant(frozenset(uids), frozenset(gids), everybody="*" in entries)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit()
