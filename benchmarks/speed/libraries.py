"""The two libraries of a comparison: fmjax in this interpreter, PyTorch in that of ``--torch``."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine
from benchmarks.speed.worker import Worker, time_interleaved

_TOLERANCE = 2e-3  # of the largest value, float32: TF32 products are 1e-3 apart


class Library(NamedTuple):
    """One library: its process, its versions, its variants by name, and what its device can do.

    ``peak`` is in operations per second: the chip's, or on a CPU the library's own best product's;
    ``bandwidth`` in bytes per second, None on a CPU.
    """

    worker: Worker
    about: dict
    variants: list[str]
    peak: float
    bandwidth: float | None


def start_libraries(torch: str | None, threads: int | None = None) -> dict[str, Library]:
    """fmjax, and PyTorch where there is an interpreter for it."""
    workers = {"fmjax": Worker(sys.executable, "benchmarks.speed.fmjax_worker", threads)}
    if torch:
        workers["torch"] = Worker(torch, "benchmarks.speed.torch_worker", threads)
    said = {name: worker.must("about") for name, worker in workers.items()}
    chip = said["fmjax"]["chip"]
    libraries = {}
    for name, worker in workers.items():
        peak = chip["flops"] if chip else own_peak(worker)
        bandwidth = chip["bandwidth"] if chip else None
        libraries[name] = Library(worker, said[name], [], peak, bandwidth)
    return libraries


def own_peak(worker: Worker) -> float:
    """Operations per second of the library's own product of two matrices, the best of several."""
    return max(worker.must("matmul", size=1024)["per second"] for _ in range(3))


def about(libraries: dict[str, Library]) -> dict:
    """What a reader needs to make the figures again."""
    return machine.about(packages=()) | {
        "load average before": round(os.getloadavg()[0], 2),
        "libraries": {
            name: library.about | {"peak": library.peak} for name, library in libraries.items()
        },
    }


def check_same_function(
    libraries: dict[str, Library], case: dict, weights: Path, gradient: bool
) -> dict:
    """Writes fmjax's weights and inputs to a file, and says how far PyTorch is from it on them.

    Raises:
        RuntimeError: they are not the same function, or their gradients are not of one norm.
    """
    libraries["fmjax"].worker.must("export", case=case, weights=str(weights), gradient=gradient)
    if "torch" not in libraries:
        return {}
    found = libraries["torch"].worker.must("check", case=case, weights=str(weights))
    apart = found["largest difference"] / found["largest value"]
    if not (
        apart < _TOLERANCE and abs(found.get("gradient norm over fmjax's", 1) - 1) < _TOLERANCE
    ):
        raise RuntimeError(f"the two networks are not the same function: {found}")
    return found


def time_variants(
    work: str, case: dict, libraries: dict[str, Library], rounds: int, n: int
) -> tuple[dict[str, dict], dict[str, dict]]:
    """Compiles every variant for this work, times them in turn, and frees their memory.

    One that fails, because its memory does not suffice or it cannot be compiled, is left out, and
    its row says why.

    Returns:
        A row of each variant by label, with its milliseconds; and the seconds, unrounded.
    """
    rows, compiled = {}, {}
    for library, (worker, _, variants, *_) in libraries.items():
        for name in variants:
            label = f"{library} {name}"
            rows[label] = worker.ask(work, name=name, case=case)
            print(f"  {label}: {rows[label]}", flush=True)
            if "error" not in rows[label]:
                compiled[label] = worker, name
    seconds = time_interleaved(compiled, rounds, n)
    for label, value in seconds.items():
        rows[label]["ms"] = round(1e3 * value["least"], 3)
        rows[label]["median ms"] = round(1e3 * value["median"], 3)
        rows[label]["cpu ms"] = round(1e3 * value["cpu"], 3)
    for library in libraries.values():
        library.worker.must("clear")
    return rows, seconds


def ratio(rows: dict[str, dict]) -> dict:
    """The fastest variant of either library, and PyTorch's time over fmjax's."""
    best = {}
    for label, row in rows.items():
        library = label.split()[0]
        if "ms" in row and row["ms"] < best.get(library, (float("inf"),))[0]:
            best[library] = row["ms"], label
    if len(best) < 2:
        return {}
    return {
        "fastest": [label for _, label in best.values()],
        "torch / fmjax": round(best["torch"][0] / best["fmjax"][0], 3),
    }


def count_rate(rows: dict, seconds: dict, libraries: dict[str, Library], images: int, ops: float):
    """Adds to each timed row its images per second, and its operations over the device's peak."""
    for label, value in seconds.items():
        peak = libraries[label.split()[0]].peak
        rows[label]["images_per_second"] = round(images / value["least"], 2)
        rows[label]["mfu"] = round(ops / value["least"] / peak, 4)


def lower_bounds(libraries: dict[str, Library], operations: float, moved: int) -> dict:
    """The roofline: milliseconds of the operations at the faster library's peak, and of the bytes.

    The time of the bytes is left out where the bandwidth is not known, as on a CPU.
    """
    peak = max(library.peak for library in libraries.values())
    bounds = {"operations": operations, "operations ms": round(1e3 * operations / peak, 3)}
    if bandwidth := libraries["fmjax"].bandwidth:
        bounds |= {"bytes": moved, "bytes ms": round(1e3 * moved / bandwidth, 3)}
    return bounds


def close(libraries: dict[str, Library]) -> None:
    """Ends the processes."""
    for library in libraries.values():
        library.worker.close()
