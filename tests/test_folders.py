"""A folder is one process's own, nothing in it leads elsewhere, and it is emptied at once."""

import sys
from pathlib import Path

import pytest

from fmjax.errors import InputError
from fmjax.folders import check_no_links, finish_removal, lock_folder, remove_content

CONTENT = {"checkpoints": r"\d+", r"run\.json": "", "samples": r"\d+\.png"}


@pytest.fixture
def run(tmp_path) -> Path:
    run = tmp_path / "run"
    for path in ("checkpoints/1/a", "checkpoints/2/a", "run.json", "samples/1.png", "mine"):
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_text(path)
    return run


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def test_a_folder_is_one_processs_own(tmp_path):
    lock = lock_folder(tmp_path, "--out")
    with pytest.raises(InputError, match=r"another process is at work in .* another --out"):
        lock_folder(tmp_path, "--out")
    lock.close()
    lock_folder(tmp_path, "--out").close()


def test_a_system_without_locks_goes_without(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert lock_folder(tmp_path, "--out") is None


def test_a_lock_is_not_made_through_a_link(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"\.lock is a link"):
        lock_folder(tmp_path / "run", "--out")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/1/b", "samples/1.png", "run.json"])
def test_a_link_in_what_is_written_is_refused(run, tmp_path, name):
    check_no_links(run, CONTENT, "--workdir")
    (run / "other").symlink_to(tmp_path)  # of no concern
    check_no_links(run, CONTENT, "--workdir")
    path = run / name
    if path.exists():
        path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(InputError, match=f"{name} is a link.*another --workdir"):
        check_no_links(run, CONTENT, "--workdir")


def test_what_was_made_goes_and_nothing_else(run):
    (run / "samples" / "mine.png").write_text("")
    remove_content(run, CONTENT)
    assert files(run) == ["mine", "samples/mine.png"]
    assert sorted(p.name for p in run.iterdir()) == ["mine", "samples"]


def test_a_removal_that_is_stopped_is_completed(run, monkeypatch):
    """Stopped before each of its moves in turn."""
    rename, before = Path.rename, files(run)
    for moves in range(4):
        calls = []

        def stopped(path, target, calls=calls, moves=moves):
            calls.append(path)
            if len(calls) > moves:
                raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", stopped)
        with pytest.raises(KeyboardInterrupt):
            remove_content(run, CONTENT)
        monkeypatch.setattr(Path, "rename", rename)
        finish_removal(run, CONTENT)
        assert files(run) == ["mine"]
        for path in before:
            (run / path).parent.mkdir(parents=True, exist_ok=True)
            (run / path).write_text(path)
    (run / ".fmjax-removed-0").mkdir()  # it was stopped before it took anything
    finish_removal(run, CONTENT)
    assert files(run) == before
