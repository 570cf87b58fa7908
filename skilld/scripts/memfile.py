"""
Files in memory, for what a program reads from a descriptor.

Owns: nothing.

Source: memfd_create(2).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """A file that holds ``content`` and stands at its beginning, for as long as the context lasts."""
    descriptor = os.memfd_create("skilld", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
