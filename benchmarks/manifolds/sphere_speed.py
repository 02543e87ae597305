"""Training steps a second on the sphere: ``python -m benchmarks.manifolds.sphere_speed``.

fmjax against flow_matching (facebookresearch) on PyTorch, which ``--torch=PYTHON`` has installed:
the same perceptron of 5 hidden layers, batch 512, Adam, float32, drawing included, one thread each,
in turn; and fmjax's own step in flat space, which says what the geometry costs. Seconds are those
of the processor, the least of several turns, since the clock says how busy the machine is. Writes
results/sphere_speed.json.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import machine
from benchmarks.speed.worker import Worker, time_interleaved

RESULTS = machine.RESULTS / "sphere_speed.json"


def compare(torch: str | None, widths: list[int], rounds: int, n: int) -> dict:
    """Steps a second by width and variant, and the ratios."""
    workers = {"fmjax": Worker(sys.executable, "benchmarks.manifolds.sphere_fmjax", 1)}
    if torch:
        workers["flow_matching"] = Worker(torch, "benchmarks.manifolds.sphere_torch", 1)
    spaces = {"fmjax": ("sphere", "flat"), "flow_matching": ("eager",)}
    found = {"libraries": {name: worker.must("about") for name, worker in workers.items()}}
    found |= {"steps a second": {}, "ratios": {}, "loss after 200 steps": {}}
    for width in widths:
        variants = {
            f"{library} {space}": (worker, f"{space} {width}")
            for library, worker in workers.items()
            for space in spaces[library]
        }
        losses = {
            label: round(worker.must("prepare", name=name)["loss"], 4)
            for label, (worker, name) in variants.items()
        }
        seconds = time_interleaved(variants, rounds, n)
        rates = {label: round(1 / value["cpu"], 1) for label, value in seconds.items()}
        ratios = {"sphere over flat": round(rates["fmjax flat"] / rates["fmjax sphere"], 3)}
        if torch:
            theirs = rates["flow_matching eager"]
            ratios["fmjax / flow_matching"] = round(rates["fmjax sphere"] / theirs, 2)
        found["loss after 200 steps"][str(width)] = losses
        found["steps a second"][str(width)] = rates
        found["ratios"][str(width)] = ratios
        print(width, rates, ratios, flush=True)
    for worker in workers.values():
        worker.close()
    return found


def main() -> None:
    """Reads the flags and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", help="the interpreter that has torch and flow_matching")
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50, help="of one turn")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    found = compare(given.torch, given.widths, given.rounds, given.steps)
    machine.write_json(given.out, machine.about(packages=()) | found)


if __name__ == "__main__":
    main()
