"""Garbage collection, and giving memory back to the operating system."""

import ctypes
import gc
import sys
from contextlib import suppress


def collect_garbage() -> None:
    """Collect what came since the last call, then exempt all remaining objects from garbage collection.

    Otherwise a full collection walks a model and libraries in the middle of a request. What was exempt before is not
    walked again, since that would stop all threads for a tenth of a second; a model that nobody uses needs no
    collection, as its objects do not refer to each other in cycles.
    """
    gc.collect()
    gc.freeze()


def release_memory() -> None:
    """Return what large requests have freed; allocators keep it otherwise, and the process seems to grow.

    Takes milliseconds, in which other threads run.
    """
    # It is imported at the first use.
    if pyarrow := sys.modules.get("pyarrow"):
        pyarrow.default_memory_pool().release_unused()
    # Only glibc has it.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
