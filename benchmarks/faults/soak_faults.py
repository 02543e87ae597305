"""The faults of a soak: each is done to a run that trains, and says whether the run ended well."""

import contextlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.compare_runs import saved
from benchmarks.faults.forked_runs import Child, start, start_two

EVERY = 500  # steps between two checkpoints of one process
# and of one that is left alone and watched: tensorstore keeps some kilobytes at each (NOTES.md).
RARELY = 50_000
HEARTBEAT = 10
LIMIT = 60.0  # seconds in which a run that cannot go on has to end
ENDLESS = 10**9
_DISK = "48m"


class Chain(NamedTuple):
    """One training in many processes, each of which a fault ends.

    Attributes:
        workdir: its folder.
        rng: of the faults, their moments and their places.
        processes: of the run at a time.
        on_disk: whether the folder is a small file system of its own, which can be filled.
    """

    workdir: Path
    rng: random.Random
    processes: int
    on_disk: bool

    def start(self, steps: int = ENDLESS, name: str = "log", every: int = EVERY) -> list[Child]:
        """Starts the processes of the run; the same steps whatever `steps` and `every` are."""
        changes = {"train__steps": steps, "optimizer__schedule": "constant"}
        if self.processes == 1:
            often = {"train__log_every": 50, "train__checkpoint_every": every}
            return [start(self.workdir, name=name, **changes, **often)]
        flag = f"--heartbeat_timeout={HEARTBEAT}"
        often = {"train__log_every": 5, "train__checkpoint_every": 20}
        return start_two(self.workdir, flag, **changes, **often)

    @property
    def newest(self) -> int:
        """The step of the newest checkpoint, 0 where there is none."""
        return max(saved(self.workdir), default=0)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Makes a folder a file system of 48 MB where the system allows it; says whether it did."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and not subprocess.run(mount, capture_output=True).returncode
    try:
        yield bool(mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _said(child: Child, words: str) -> bool:
    """Whether the program ended with one sentence, which has these words, and no traceback."""
    lines = child.output.replace("\r", "\n").splitlines()
    said = [line for line in lines if line.startswith("train.py: ")]
    return len(said) == 1 and words in said[0] and "Traceback" not in child.output


def kill(children: list[Child], chain: Chain) -> bool:
    """SIGKILL to all processes."""
    for child in children:
        child.send(signal.SIGKILL)
        child.wait()
    return True


def stop(children: list[Child], chain: Chain) -> bool:
    """SIGTERM, SIGINT or SIGHUP to one process: all save the same step, and say so."""
    number = chain.rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    chain.rng.choice(children).send(number)
    ended = all(child.wait(LIMIT) == 128 + number for child in children)
    return ended and f"saved step {chain.newest}." in children[0].output


def full_disk(children: list[Child], chain: Chain) -> bool:
    """The disk is full: code 4 and one sentence, within a minute."""
    fill = chain.workdir / "fill"
    if chain.on_disk:
        with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
    else:  # no file may grow past a size, which a checkpoint and the log reach
        children[0].limit_files(100_000)
    ended = children[0].wait(LIMIT) == 4
    fill.unlink(missing_ok=True)
    return ended and _said(children[0], "could not be written")


def damaged_checkpoint(children: list[Child], chain: Chain) -> bool:
    """SIGKILL, and a file of the newest checkpoint is cut short, or one of its bits flipped."""
    kill(children, chain)
    if len(saved(chain.workdir)) > 1:  # the one before it is taken
        newest = chain.workdir / "checkpoints" / str(chain.newest)
        files = sorted(p for p in newest.rglob("*") if p.is_file() and p.stat().st_size)
        _damage(chain.rng.choice(files), chain.rng)
    return True


def damaged_log(children: list[Child], chain: Chain) -> bool:
    """SIGKILL, and the file of metrics is cut short, or one of its bits flipped."""
    kill(children, chain)
    _damage(chain.workdir / "metrics.jsonl", chain.rng)
    return True


def _damage(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        del content[place:]
    else:
        content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def second_process(children: list[Child], chain: Chain) -> bool:
    """The same command a second time: refused in one sentence; the first goes on."""
    (second,) = chain.start(name="second")
    refused = second.wait(LIMIT) == 2 and _said(second, "another process is at work")
    before = chain.newest
    went_on = children[0].until(lambda: chain.newest > before, LIMIT)
    kill(children, chain)
    return refused and went_on


def one_of_two(children: list[Child], chain: Chain) -> bool:
    """SIGKILL to one of two processes: the other ends with a sentence within the stated time."""
    victim = chain.rng.randrange(2)
    children[victim].send(signal.SIGKILL)
    children[victim].wait()
    other = children[1 - victim]
    began = time.monotonic()
    code = other.wait(2 * LIMIT)
    said = "Start all of them again by the same command" in other.output
    return bool(code) and said and time.monotonic() - began < HEARTBEAT + LIMIT


ALONE = (kill, stop, full_disk, damaged_checkpoint, damaged_log, second_process)
OF_TWO = (one_of_two, stop, kill, damaged_checkpoint)
