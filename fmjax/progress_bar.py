"""How far a long loop is: a bar in a terminal or a notebook, and lines in what is neither."""

import io
import sys
from typing import Any, TextIO

SECONDS = 30.0  # from one line to the next


class _Lines:
    """A stream in which each refresh of a bar is a line of its own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self._stream.write(text.strip() + "\n")

    def flush(self) -> None:
        self._stream.flush()


def is_plain(stream: Any) -> bool:
    """Whether a stream is a file or a pipe, where a bar would leave one long line."""
    return isinstance(stream, io.TextIOWrapper) and not stream.isatty()


def progress_bar(
    total: int, unit: str, what: str | None = None, *, start: int = 0, shown: bool = True
) -> Any:
    """A bar of tqdm on the standard error, a context with ``update(n)``.

    What is no terminal and no notebook gets a line every half minute, and none before the first.

    Args:
        total: at which it ends.
        unit: what is counted.
        what: what is done, in front of the bar.
        start: what was done before.
        shown: whether anything is shown.
    """
    from tqdm import tqdm

    how: dict[str, Any] = {"dynamic_ncols": True, "file": sys.stderr}
    if is_plain(sys.stderr):
        front = "" if what is None else "{desc}: "
        lines = front + "{n_fmt} of {total_fmt}{unit}, {rate_fmt}, {remaining} left"
        how = {"file": _Lines(sys.stderr), "bar_format": lines, "leave": False}
        how |= {"delay": SECONDS, "mininterval": SECONDS, "maxinterval": SECONDS}
    return tqdm(total=total, unit=f" {unit}", desc=what, initial=start, disable=not shown, **how)
