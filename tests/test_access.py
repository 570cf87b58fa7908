"""Who has which role: defaults, the configuration, names turned into ids."""

from __future__ import annotations

import grp
import pwd

import pytest

from skilld.config import Access, ConfigError
from skilld.rpc.access import ALL_ROLES, build_policy, roles_of

DAEMON, SOCKET_GROUP, STRANGER = 990, 880, 70_000
READ = frozenset({"read"})


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "roles"),
    [
        pytest.param(0, 0, (), ALL_ROLES, id="root"),
        pytest.param(DAEMON, 1, (), ALL_ROLES, id="the daemon's own user"),
        pytest.param(STRANGER, SOCKET_GROUP, (), ALL_ROLES, id="the socket's group"),
        pytest.param(STRANGER, 1, (5, SOCKET_GROUP), ALL_ROLES, id="the socket's group, supplementary"),
        pytest.param(STRANGER, 1, (5,), READ, id="anybody else"),
        pytest.param(STRANGER, 0, (0,), READ, id="root's group is no root"),
    ],
)
def test_default_roles(uid: int, gid: int, groups: tuple[int, ...], roles: frozenset[str]) -> None:
    """Root, the daemon's user and the socket's group have every role, other peers may read."""
    policy = build_policy(Access(), daemon_uid=DAEMON, socket_gid=SOCKET_GROUP)
    assert roles_of(uid, gid, groups, policy=policy) == roles


def test_a_named_role_replaces_its_default_only() -> None:
    """A role in the configuration loses its default; the others keep theirs."""
    policy = build_policy(Access(run=("1234",), read=("@77",)), daemon_uid=DAEMON, socket_gid=SOCKET_GROUP)
    assert roles_of(1234, 1, (), policy=policy) == {"run"}
    assert roles_of(STRANGER, SOCKET_GROUP, (), policy=policy) == {"write", "tee"}
    assert roles_of(STRANGER, 77, (), policy=policy) == {"read"}
    assert roles_of(STRANGER, 1, (77,), policy=policy) == {"read"}
    assert roles_of(STRANGER, 1, (), policy=policy) == frozenset()


def test_root_and_the_daemon_keep_everything() -> None:
    """No configuration takes a role from root or from the daemon's own user."""
    policy = build_policy(
        Access(read=("1",), write=("1",), run=("1",), tee=("1",)), daemon_uid=DAEMON, socket_gid=SOCKET_GROUP
    )
    assert roles_of(0, 5, (), policy=policy) == ALL_ROLES
    assert roles_of(DAEMON, 5, (), policy=policy) == ALL_ROLES


def test_star_is_everybody() -> None:
    """``"*"`` gives a role to every peer."""
    policy = build_policy(Access(tee=("*",)), daemon_uid=DAEMON, socket_gid=SOCKET_GROUP)
    assert roles_of(STRANGER, 1, (), policy=policy) == {"read", "tee"}


def test_names_become_ids() -> None:
    """Users and groups may be named."""
    user, group = pwd.getpwall()[-1], grp.getgrall()[-1]
    policy = build_policy(
        Access(run=(user.pw_name,), tee=(f"@{group.gr_name}",)), daemon_uid=DAEMON, socket_gid=SOCKET_GROUP
    )
    assert policy.grants["run"].uids == {user.pw_uid}
    assert policy.grants["tee"].gids == {group.gr_gid}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("no-such-user", "access.write: no such user: 'no-such-user'"),
        ("@nobodies", "access.write: no such group: '@nobodies'"),
    ],
)
def test_unknown_names_are_refused(entry: str, message: str) -> None:
    """A name that does not exist is a mistake in the configuration, named with its key."""
    with pytest.raises(ConfigError) as caught:
        build_policy(Access(write=("0", entry)), daemon_uid=DAEMON, socket_gid=SOCKET_GROUP)
    assert str(caught.value) == message
