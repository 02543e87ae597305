"""Reads and compares runs: the state to the last bit, the log to the last digit."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.faults.forked_runs import Child, finish, free_port


def lines(workdir: Path) -> list[dict]:
    """What a run has logged; a line cut short is left out."""
    found = []
    path = workdir / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def last_step(workdir: Path) -> int:
    """The last step in the log."""
    return max((line["step"] for line in lines(workdir) if "loss" in line), default=0)


def saved(workdir: Path) -> list[int]:
    """The steps of the finished checkpoints."""
    found = (path.name for path in (workdir / "checkpoints").glob("*"))
    return sorted(int(name) for name in found if name.isdecimal())


def losses(workdir: Path) -> dict[tuple[int, str], float]:
    """What training logged, by step and name: equal for equal runs, to the last digit."""
    keys = ("loss", "grad_norm", "val_loss")
    return {
        (line["step"], key): line[key] for line in lines(workdir) for key in keys if key in line
    }


def read_states(
    *workdirs: Path, devices: int = 1, processes: int = 1, step: int | None = None
) -> list[tuple[int, list]]:
    """Of each run, how many parameters the devices of the processes split, and its state's bits."""
    outs = [path.with_name(f"{path.name}.{devices}.{processes}.npz") for path in workdirs]
    address = f"127.0.0.1:{free_port()}"

    def work(process: int) -> None:
        import jax

        from benchmarks.faults.fmjax_internals import dump_state

        if processes > 1:
            jax.distributed.initialize(address, processes, process)
        for workdir, out in zip(workdirs, outs, strict=True):
            dump_state(workdir, step, out)

    logs = [outs[0].with_suffix(f".log{i}") for i in range(processes)]
    finish(*[Child(partial(work, i), log, devices) for i, log in enumerate(logs)])
    read = [list(np.load(out).values()) for out in outs]
    return [(int(arrays[0]), [(x.dtype.str, x.tobytes()) for x in arrays[1:]]) for arrays in read]


def same_bits(*workdirs: Path, devices: int = 1, log: bool = True) -> list[bool]:
    """Whether each run but the first ended as the first did: the newest state and all it logged.

    Args:
        workdirs: the runs.
        devices: on which the states are read.
        log: off where a run was saved between two lines of its log: the next line is then the mean
            of fewer steps.
    """
    first, *others = read_states(*workdirs, devices=devices)
    logged = losses(workdirs[0]).items()
    return [
        state == first and (not log or logged <= losses(workdir).items())
        for state, workdir in zip(others, workdirs[1:], strict=True)
    ]


def copy(workdir: Path, name: str) -> Path:
    """A copy of a run's folder beside it."""
    return Path(shutil.copytree(workdir, workdir.with_name(name)))
