"""What a process holds while it runs: memory and open files, second by second, from /proc."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.forked_runs import Child


def watch(child: Child, until: Callable[[], bool], every: float = 1.0) -> list[tuple[int, int]]:
    """The bytes and the open files of a process until something is so, or it ends.

    The bytes are the process's own, in memory or swapped out: pages of programs and of files come
    and go as the system likes.
    """
    found = []
    while child.poll() is None and not until():
        status = Path(f"/proc/{child.pid}/status").read_text()
        kilobytes = sum(map(int, re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+)", status, re.M)))
        found.append((1024 * kilobytes, len(os.listdir(f"/proc/{child.pid}/fd"))))
        time.sleep(every)
    return found


def quarters(values: list[int]) -> list[float]:
    """The mean of each quarter of some values."""
    size = len(values) / 4
    parts = [values[round(i * size) : round((i + 1) * size)] for i in range(4)]
    return [sum(part) / len(part) for part in parts]
