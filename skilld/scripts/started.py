"""
What a backend gives the runner: one sandbox that has been started.

Owns: nothing; types only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class SetupFailed(Exception):
    """The sandbox could not be made, so that the script never ran; the text says why, for the log."""


@dataclass(frozen=True)
class Stdio:
    """The script's ends of its three streams: descriptors that the backend hands on and the caller closes."""

    stdin: int
    stdout: int
    stderr: int


class Started(Protocol):
    """A script in its sandbox."""

    @property
    def pid(self) -> int:
        """A process whose descendants are the script's processes, all of them; 0 while there is none."""

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended the script for want of memory; False where nobody can tell."""

    async def wait(self) -> int:
        """
        Wait until the script and all its descendants have ended.

        Returns:
            The script's exit code, or 128 and the number of the signal that ended it.

        Raises:
            SetupFailed: The script never ran.
        """

    def terminate(self) -> None:
        """Ask all processes of the script to end (SIGTERM)."""

    def kill(self) -> None:
        """End all processes of the script (SIGKILL). :meth:`wait` returns soon; idempotent."""

    async def close(self) -> None:
        """Kill what still runs and wait until nothing is left; idempotent."""
