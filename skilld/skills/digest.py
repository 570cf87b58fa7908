"""
Digests of skills and of the whole set of skills, which a shell can recompute.

A skill's digest is the sha256 of a listing of every file below its directory; the registry's digest is the sha256 of a
canonical JSON manifest of all skills.

Owns: nothing; values only.

Source: API, "Attested skills"; RFC 8785 for the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

MANIFEST_SCHEMA = "skilld.skillset.v1"


@dataclass(frozen=True, slots=True)
class ListedFile:
    """
    One line of a listing.

    Args:
        path: Relative to the skill directory, the bytes of the file system.
        sha256: Hex digest of the file's bytes or, for a symbolic link, of its target text.
        mark: "*" for a file with any execute bit, " " for any other file, "@" for a symbolic link.
    """

    path: bytes
    sha256: str
    mark: str


def listing(files: Iterable[ListedFile]) -> bytes:
    """Return the listing text: a line a file, sorted by path bytes; file lines suit ``sha256sum -c``."""
    return b"".join(
        b"%s %s%s\n" % (file.sha256.encode(), file.mark.encode(), file.path)
        for file in sorted(files, key=lambda file: file.path)
    )


def skill_digest(files: Iterable[ListedFile]) -> str:
    """Return ``sha256:<hex>`` of the listing."""
    return "sha256:" + hashlib.sha256(listing(files)).hexdigest()


def manifest(digests: Iterable[tuple[str, str | None]]) -> str:
    """
    Return the skill-set manifest of ``(id, digest)`` pairs as RFC 8785 canonical JSON.

    Ids are sorted by UTF-16 code units, as RFC 8785 sorts; for the keys here the members are in order already.
    """
    skills = [
        {"digest": digest, "id": id} for id, digest in sorted(digests, key=lambda pair: pair[0].encode("utf-16-be"))
    ]
    return json.dumps({"schema": MANIFEST_SCHEMA, "skills": skills}, ensure_ascii=False, separators=(",", ":"))


def manifest_digest(text: str) -> str:
    """Return ``sha256:<hex>`` of a manifest text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
