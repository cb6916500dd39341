"""Gives memory back to the operating system."""

import ctypes
from contextlib import suppress

import pyarrow as pa


def release_memory() -> None:
    """Return what large requests have freed; allocators keep it otherwise, and the process seems to grow.

    Takes milliseconds, in which other threads run.
    """
    pa.default_memory_pool().release_unused()
    # Only glibc has it.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
