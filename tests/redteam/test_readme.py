"""The README's table of attacks and rungs is the one that is tested."""

from __future__ import annotations

from pathlib import Path

from tests.redteam.expected import table

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_table_is_that_of_the_tests() -> None:
    """A new attack or gap changes the README in the same commit."""
    assert table() in README.read_text()
