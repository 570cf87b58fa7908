"""
Opening a script once, beneath its skill, so that what is checked is what runs.

The skill directory is pinned by a descriptor: a change that swaps directories meanwhile leaves the run in the old one,
whose removal waits for the lock that is held here. Every file is compared with what the registry knows, so that the
skill's digest is that of what lies there at this moment.

Owns: each open script owns its two descriptors. Blocks on the disk.

Source: openat2(2); flock(2); API, ``skills.execute_script``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace

from skilld.errors import FileNotFound, SkillNotFound
from skilld.scripts.kernel import open_beneath
from skilld.skills.files import TARGET, FileState, digest_of, hash_files, identity_of, list_files
from skilld.skills.model import Skill

# Enough for the first line and the metadata of any script.
HEAD_BYTES = 256 * 1024
_READ_BYTES = 1 << 20
# Errors of openat2(2) that say that a part of the path is no plain file or directory beneath the skill.
_LINKS = {errno.ELOOP: "a symbolic link leads there", errno.EXDEV: "it leads out of the skill"}


class Stale(Exception):
    """The disk holds something else than the registry knows; look again once it has been scanned."""


@dataclass(frozen=True)
class OpenScript:
    """
    A script and its skill, open.

    Attributes:
        skill: As the registry knows it.
        script: Path relative to the skill directory.
        skill_fd: The skill directory, locked against removal.
        head: The script's first bytes.
        sha256: Of the whole script, bare hex.
        digest: The skill's, where every file is as the registry knows it; else None.
        identity: The script's.
        known: The files of the skill, as the registry knows them.
        limit_files: The most files that are looked at.
        limit_bytes: The most bytes that a digest is made of.
    """

    skill: Skill
    script: str
    skill_fd: int
    head: bytes
    sha256: str
    digest: str | None
    identity: bytes = b""
    known: Sequence[FileState] = ()
    limit_files: int = 0
    limit_bytes: int = 0

    def is_same(self) -> bool:
        """Whether the script is still the file that was opened, untouched."""
        try:
            state = os.stat(self.script, dir_fd=self.skill_fd, follow_symlinks=False)
        except OSError:
            return False
        return identity_of(state) == self.identity

    def is_as_known(self) -> bool:
        """Whether every file of the skill is still the one that the registry has hashed, untouched."""
        identities = {file.path: file.identity for file in self.known if file.path != TARGET}
        with contextlib.suppress(OSError):
            found = {file.path: file.identity for file in self._files()}
            return found == identities and b"" not in identities.values()
        return False

    def digest_now(self) -> str | None:
        """The digest of all files as they are read now; what is known of them is not asked. Blocks for long."""
        try:
            files = self._files()
        except OSError:
            return None
        hashed, _ = hash_files(self._directory, files, (), self.limit_bytes, [])
        return digest_of(self._directory, hashed, [])

    @property
    def _directory(self) -> bytes:
        return b"/proc/self/fd/%d" % self.skill_fd

    def _files(self) -> tuple[FileState, ...]:
        """All files of the skill, as they are now, without hashes. Raises OSError."""
        with os.scandir(self._directory) as entries:
            return tuple(list_files(sorted(entries, key=lambda child: child.name), self.limit_files, []))

    def is_in_place(self) -> bool:
        """Whether the skill's path still leads to this directory; where it does not, its removal waits for us."""
        try:
            return os.path.samestat(os.stat(self.skill.path), os.fstat(self.skill_fd))
        except OSError:
            return False

    def close(self) -> None:
        """Let the directory go. Not to be called twice."""
        os.close(self.skill_fd)


def open_script(
    skill: Skill, script: str, known: Sequence[FileState], limit_files: int, limit_bytes: int
) -> OpenScript:
    """
    Open a script.

    Args:
        skill: As indexed.
        script: Path relative to the skill directory, without "..", NUL and the like.
        known: The files of the skill, as the registry knows them.
        limit_files: The most files that are looked at.

    Raises:
        FileNotFound: There is no such regular file beneath the skill.
        SkillNotFound: The skill directory has gone.
        Stale: The script is not what the registry knows.
    """
    resource = next((one for one in skill.resources if one.path == script), None)
    skill_fd = _pin(skill)
    try:
        sha256, head, identity = _read_script(skill, script, skill_fd)
        if resource is None or resource.sha256 != sha256:
            raise Stale
        opened = OpenScript(
            skill, script, skill_fd, head, sha256, skill.digest, identity, known, limit_files, limit_bytes
        )
        return opened if opened.is_as_known() else replace(opened, digest=None)
    except BaseException:
        os.close(skill_fd)
        raise


def _pin(skill: Skill) -> int:
    """Open the skill directory and lock it against removal; a link on the way to it is followed, as by readers."""
    try:
        descriptor = os.open(skill.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise SkillNotFound(skill.id) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stale from None  # it is being removed
        except OSError:  # NFS locks no directories; there a removal does not wait
            pass
        # Between our open and our lock it may have been swapped and emptied.
        if not os.path.samestat(os.stat(skill.path), os.fstat(descriptor)):
            raise Stale
    except FileNotFoundError:
        os.close(descriptor)
        raise Stale from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read_script(skill: Skill, script: str, skill_fd: int) -> tuple[str, bytes, bytes]:
    """The hash, the head and the identity of a script, read from one open file."""
    try:
        descriptor = open_beneath(skill_fd, script)
    except ValueError:
        raise FileNotFound(skill.id, script) from None
    except OSError as exc:
        raise FileNotFound(skill.id, script, _LINKS.get(exc.errno or 0, "")) from None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise FileNotFound(skill.id, script, "it is no regular file")
        digest, head = hashlib.sha256(), b""
        while chunk := os.read(descriptor, _READ_BYTES):
            digest.update(chunk)
            head = head or chunk[:HEAD_BYTES]
        return digest.hexdigest(), head, identity_of(state)
    except OSError as exc:
        raise FileNotFound(skill.id, script, exc.strerror or "") from None
    finally:
        os.close(descriptor)
