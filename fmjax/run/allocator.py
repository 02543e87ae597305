"""How the C library's allocator treats what a step frees, on a CPU."""

import ctypes
from pathlib import Path

# Of malloc.h, glibc.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Has glibc keep freed memory for the next step; before jax starts, else it does nothing.

    XLA's CPU backend asks malloc for the temporaries of a program in one piece at every call, and
    glibc maps a piece above 32 MB anew from the kernel each time: a step then spends a third of its
    time on page faults (benchmarks/NOTES.md). Memory once used stays with the process. Where there
    is a GPU, whose programs have their temporaries there, nothing is changed.

    Returns:
        Whether the allocator took it: False on another C library, or beside a GPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    # One arena for all threads: that of a thread cannot grow past 64 MB, and maps what is larger.
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1), mallopt(_ARENA_MAX, 1)])
