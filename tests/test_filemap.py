"""Keys of the maps, and what they may not do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.skills.filemap import check_limits, check_places, gather_files, is_script
from skilld.skills.scanner import ScanLimits

LIMITS = ScanLimits(skill_md_bytes=100, skill_files=3, skill_bytes=1_000, depth=6, ignore=frozenset())


def test_maps_become_paths() -> None:
    """Relative to the skill directory; a folder's own prefix is taken off; texts become UTF-8."""
    files, findings = gather_files(
        {
            "scripts": {"run.py": "é", "scripts/sub/x": {"base64": b"\0"}},
            "references": {"a.md": None},
            "assets": None,
        }
    )
    assert files == {"scripts/run.py": "é".encode(), "scripts/sub/x": b"\0", "references/a.md": None}
    assert findings == []


@pytest.mark.parametrize(
    "key",
    [
        "", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", ".", "a//b", "a/", "scripts/", "scripts//a",
        "scripts/../a", "a\0b", "a\nb", "a\x7f", "a\x85", "\ud800", "x" * 256, "é" * 128, "a/" * 32 + "b",
        "x" * 200 + ("/" + "y" * 200) * 5,
    ],
)  # fmt: skip
def test_a_key_that_leads_elsewhere_is_refused(key: str) -> None:
    """With the name of its map; nothing of it is left to be written."""
    files, findings = gather_files({"scripts": {key: "x", "fine": "y"}})
    assert files == {"scripts/fine": b"y"}
    assert [(finding.severity, finding.field) for finding in findings] == [("error", "scripts")]


@pytest.mark.parametrize("key", ["a b", ".env", "...", "a..b", "日本.md", "back\\slash", "x" * 255, "scripts"])
def test_odd_keys_are_keys(key: str) -> None:
    """What a file system holds is taken."""
    assert gather_files({"scripts": {key: "x"}}) == ({f"scripts/{key}": b"x"}, [])


@given(st.dictionaries(st.text(st.sampled_from("a./\\\0\n s")), st.just("x")))
def test_no_key_leaves_its_folder(entries: dict[str, str]) -> None:
    """Whatever a key is, its path has the folder and real names only."""
    files, _ = gather_files({"assets": entries})
    for path in files:
        folder, *parts = path.split("/")
        assert folder == "assets"
        assert parts
        assert not {"", ".", ".."} & set(parts)


def test_a_file_given_twice_is_refused() -> None:
    """With the prefix and without."""
    _, findings = gather_files({"scripts": {"a": "1", "scripts/a": "2"}})
    assert [finding.message for finding in findings] == ["scripts: 'scripts/a' is given twice"]


@pytest.mark.parametrize(
    ("new", "there", "messages"),
    [
        (["assets/A", "assets/a"], {}, ["assets: 'assets/a' differs from 'assets/A' in case only"]),
        (["assets/a"], {"assets/A": False}, ["assets: 'assets/a' differs from 'assets/A' in case only"]),
        (["assets/x/a"], {"assets/X": True}, ["assets: 'assets/x/a' differs from 'assets/X' in case only"]),
        (["assets/e\u0301"], {"assets/é": False}, ["assets: 'assets/e\u0301' differs from 'assets/é' in case only"]),
        (["assets/a", "assets/a/b"], {}, ["assets: 'assets/a/b' cannot be there, for 'assets/a' is a file"]),
        (["assets/a/b", "assets/a"], {}, ["assets: 'assets/a' cannot be there, for 'assets/a' is a directory"]),
        (["assets/a"], {"assets/a": True}, ["assets: 'assets/a' cannot be there, for 'assets/a' is a directory"]),
        (["assets/a"], {"assets": False}, ["assets: 'assets/a' cannot be there, for 'assets' is a file"]),
        (["assets/a", "assets/b"], {"assets": True, "assets/a": False, "SKILL.md": False}, []),
    ],
)  # fmt: skip
def test_every_file_has_a_place_of_its_own(new: list[str], there: dict[str, bool], messages: list[str]) -> None:
    """On a file system that does not tell case apart too."""
    assert [finding.message for finding in check_places(dict.fromkeys(new, b""), there)] == messages


def test_a_file_may_change_its_case() -> None:
    """If the old one goes with the same change."""
    assert list(check_places({"assets/A": None, "assets/a": b""}, {"assets": True, "assets/A": False})) == []


def test_limits_hold_for_what_grows() -> None:
    """A skill that is too large already may be changed, but not grow."""
    assert [finding.field for finding in check_limits({}, {b"SKILL.md": b"x" * 101}, b"SKILL.md", LIMITS)] == ["body"]
    files: dict[bytes, bytes | None] = {b"%d" % number: b"x" for number in range(4)}
    assert [finding.message for finding in check_limits({}, files, b"SKILL.md", LIMITS)] == [
        "the skill would have 4 files, the limit is 3"
    ]
    large = {b"a": 600, b"b": 600, b"c": 1, b"d": 1}
    assert list(check_limits(large, {b"a": b"x" * 600}, b"SKILL.md", LIMITS)) == []
    assert list(check_limits(large, {b"a": None}, b"SKILL.md", LIMITS)) == []
    assert [finding.message for finding in check_limits(large, {b"a": b"x" * 601}, b"SKILL.md", LIMITS)] == [
        "the skill would have 1,203 bytes, the limit is 1,000"
    ]


def test_scripts_are_below_scripts() -> None:
    """And name their interpreter."""
    assert is_script("scripts/a", b"#!/bin/sh\n")
    assert not is_script("scripts/a", b"import os\n")
    assert not is_script("assets/a", b"#!/bin/sh\n")
