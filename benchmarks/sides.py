"""The two libraries of a comparison: fmjax in this interpreter, PyTorch in that of ``--torch``."""

import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import NamedTuple

from digits import cpu_name
from turns import Worker, take_turns

_TOLERANCE = 2e-3  # of the largest value, float32: TF32 products are 1e-3 apart


class Side(NamedTuple):
    """One library: its process, who it is, its contenders by name, and what its device can do.

    ``peak`` is in operations per second: the chip's, or on a CPU the library's own best product's;
    ``bandwidth`` in bytes per second, None on a CPU.
    """

    worker: Worker
    about: dict
    contenders: list[str]
    peak: float
    bandwidth: float | None


def start_sides(torch: str | None, threads: int | None) -> dict[str, Side]:
    """fmjax, and PyTorch where there is an interpreter for it."""
    workers = {"fmjax": Worker(sys.executable, "train_step_fmjax.py", threads)}
    if torch:
        workers["torch"] = Worker(torch, "train_step_torch.py", threads)
    who = {name: worker.ask("about") for name, worker in workers.items()}
    chip = who["fmjax"]["chip"]
    sides = {}
    for name, worker in workers.items():
        peak = chip["flops"] if chip else own_peak(worker)
        sides[name] = Side(worker, who[name], [], peak, chip["bandwidth"] if chip else None)
    return sides


def own_peak(worker: Worker) -> float:
    """Operations per second of the library's own product of two matrices, the best of several."""
    return max(worker.ask("matmul", size=1024)["per second"] for _ in range(3))


def about(script: str, sides: dict[str, Side]) -> dict:
    """What a reader needs to make the figures again."""
    flags = ["--torch=PYTHON" if flag.startswith("--torch=") else flag for flag in sys.argv[1:]]
    return {
        "command": " ".join([f"python benchmarks/{script}", *map(shlex.quote, flags)]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {cpu_name()}",
        "python": platform.python_version(),
        "load average before": round(os.getloadavg()[0], 2),
        "sides": {name: side.about | {"peak": side.peak} for name, side in sides.items()},
    }


def hold_together(sides: dict[str, Side], case: dict, weights: Path, gradient: bool) -> dict:
    """Writes fmjax's weights and inputs to a file, and says how far PyTorch is from it on them.

    Raises:
        RuntimeError: they are not the same function, or their gradients are not of one norm.
    """
    sides["fmjax"].worker.must("export", case=case, weights=str(weights), gradient=gradient)
    if "torch" not in sides:
        return {}
    found = sides["torch"].worker.must("check", case=case, weights=str(weights))
    apart = found["largest difference"] / found["largest value"]
    if not (
        apart < _TOLERANCE and abs(found.get("gradient norm over fmjax's", 1) - 1) < _TOLERANCE
    ):
        raise RuntimeError(f"the two networks are not the same function: {found}")
    return found


def make_turns(
    work: str, case: dict, sides: dict[str, Side], rounds: int, n: int
) -> tuple[dict[str, dict], dict[str, dict]]:
    """Makes every contender ready for this work, lets them take turns, and frees their memory.

    One that fails, because its memory does not suffice or it cannot be compiled, is left out, and
    its row says why.

    Returns:
        A row of each contender by label, with its milliseconds; and the seconds, unrounded.
    """
    rows, runners = {}, {}
    for library, side in sides.items():
        for name in side.contenders:
            label = f"{library} {name}"
            rows[label] = side.worker.ask(work, name=name, case=case)
            print(f"  {label}: {rows[label]}", flush=True)
            if "error" not in rows[label]:
                runners[label] = side.worker, name
    seconds = take_turns(runners, rounds, n)
    for label, value in seconds.items():
        rows[label]["ms"] = round(1e3 * value["least"], 3)
        rows[label]["median ms"] = round(1e3 * value["median"], 3)
        rows[label]["cpu ms"] = round(1e3 * value["cpu"], 3)
    for side in sides.values():
        side.worker.must("clear")
    return rows, seconds


def ratio(rows: dict[str, dict]) -> dict:
    """The fastest of either side, and PyTorch's time over ours: above 1, fmjax is faster."""
    best = {}
    for label, row in rows.items():
        side = label.split()[0]
        if "ms" in row and row["ms"] < best.get(side, (float("inf"),))[0]:
            best[side] = row["ms"], label
    if len(best) < 2:
        return {}
    return {
        "fastest": [label for _, label in best.values()],
        "torch / fmjax": round(best["torch"][0] / best["fmjax"][0], 3),
    }
