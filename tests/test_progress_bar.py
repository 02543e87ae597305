"""A bar in a terminal or a notebook, and lines in a file or a pipe."""

import io
import sys

from fmjax import progress_bar as module
from fmjax.progress_bar import is_plain, progress_bar


def test_a_file_gets_a_line_at_a_time(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    with progress_bar(10, "samples", "process 0 of 2") as bar:
        for _ in range(5):
            bar.update(2)
    written = capsys.readouterr().err  # captured, it is as a file
    *lines, last = written.split("\n")
    assert last == ""
    assert "\r" not in written
    assert all(line.startswith("process 0 of 2: ") and " of 10 samples, " in line for line in lines)
    shown = [line.removeprefix("process 0 of 2: ").partition(",")[0] for line in lines]
    assert shown == [f"{n} of 10 samples" for n in (0, 2, 4, 6, 8, 10)]


def test_what_is_soon_done_writes_nothing_to_a_file(capsys):
    with progress_bar(1000, "samples") as bar:
        for _ in range(1000):
            bar.update()
    assert capsys.readouterr().err == ""


def test_a_terminal_or_a_notebook_gets_a_bar(monkeypatch):
    stream = io.StringIO()  # as a notebook's stream it is no wrapper of bytes
    monkeypatch.setattr(sys, "stderr", stream)
    assert not is_plain(stream)
    with progress_bar(4, "steps", start=1) as bar:
        bar.update(3)
    assert "4/4" in stream.getvalue()
    assert "steps" in stream.getvalue()


def test_another_process_shows_nothing(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(4, "samples", shown=False) as bar:
        bar.update(4)
    assert stream.getvalue() == ""
