"""Trains under one fault after another: ``python -m benchmarks.faults.soak --minutes 20``.

One training goes on from process to process, each of which a random fault ends; another one does in
two processes at a time. A training that is left alone until the same step must then have the same
bits, and its memory and its open files must not grow. All of it takes a single core.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.faults.compare_runs import read_states, saved
from benchmarks.faults.forked_runs import Child, finish, import_packages
from benchmarks.faults.soak_faults import ALONE, OF_TWO, RARELY, Chain, kill, small_disk, stop
from benchmarks.faults.watch import quarters, watch

RESULTS = machine.RESULTS / "soak.json"
# The shares of the time that runs of one process and of two have under faults; left alone, the runs
# of as many steps take about the rest.
_ALONE, _OF_TWO = 0.5, 0.15
_FLAT = 0.01
_START = 600  # seconds until a run has saved a checkpoint, on a machine that is busy


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="about")
    parser.add_argument("--seed", type=int, default=0, help="of the faults and their moments")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--keep", action="store_true", help="leave the folders of the runs")
    return parser.parse_args()


def _training(chain: Chain) -> list[Child]:
    """Starts the processes of a run, and waits until it has saved a checkpoint."""
    before = chain.newest
    children = chain.start()
    if not children[0].until(lambda: chain.newest > before, _START) and children[0].poll() is None:
        raise RuntimeError(f"no checkpoint after {_START} s:\n{children[0].output[-4000:]}")
    return children


def _under_faults(chain: Chain, faults: tuple, minutes: float) -> dict:
    """Trains under faults, each as often as the others, and stops by a signal at the end."""
    began, found, left = time.monotonic(), [], []
    while not found or time.monotonic() - began < 60 * minutes:
        if not left:
            left = chain.rng.sample(faults, len(faults))
        fault = left.pop()
        # Most come while it trains, some while it starts, reads its checkpoint and compiles.
        starting = fault is kill and chain.rng.random() < 0.3
        children = chain.start() if starting else _training(chain)
        time.sleep(chain.rng.uniform(0.2, 3 if starting else 8))
        alive = all(child.poll() is None for child in children)
        once = time.monotonic()
        good = alive and fault(children, chain)
        seconds = time.monotonic() - once
        found.append((fault, good, seconds, "Taking the one before" in children[0].output))
        step, name = chain.newest, fault.__name__
        print(f"  {name:18} good {good}  {seconds:4.1f} s  saved {step}", flush=True)
        if not good:
            print("".join(child.output for child in children)[-4000:], flush=True)
    children = _training(chain)
    good = stop(children, chain)
    found.append((stop, good, 0.0, "Taking the one before" in children[0].output))
    return {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "steps": chain.newest,
        "checkpoints_passed_over": sum(passed for *_, passed in found),
        "faults": {
            fault.__name__: {
                "what": fault.__doc__,
                "trials": sum(f is fault for f, *_ in found),
                "lost": sum(f is fault and not good for f, good, *_ in found),
                "longest_seconds": round(max((s for f, _, s, _ in found if f is fault)), 1),
            }
            for fault in dict.fromkeys([*faults, stop])
            if any(f is fault for f, *_ in found)
        },
    }


def _left_alone(chain: Chain, steps: int) -> dict:
    """Trains to a step in one go; says what the process held in each quarter of the time."""
    began = time.monotonic()
    children = chain.start(steps, every=RARELY)
    children[0].until(lambda: chain.newest > 0)  # until then it compiles, and fills its buffers
    found = watch(children[0], lambda: chain.newest >= steps - RARELY)
    finish(*children)
    memory, files = (quarters([values[i] for values in found]) for i in (0, 1))
    return {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "checkpoints": steps // RARELY,
        "seconds_watched": len(found),
        "memory_mb_by_quarter": [round(x / 1e6, 2) for x in memory],
        "memory_growth": round(memory[-1] / memory[0] - 1, 5),
        "open_files_by_quarter": [round(x, 2) for x in files],
    }


def _same(chain: Chain, whole: Chain) -> bool:
    """Whether two trainings have the same state, to the bit, and at the same step."""
    (_, one), (_, other) = read_states(chain.workdir, whole.workdir)
    return one == other and saved(chain.workdir)[-1] == saved(whole.workdir)[-1]


def main() -> int:
    """Trains, compares, and writes what was found."""
    args = _arguments()
    # In the background, and under nohup, these would be ignored, and stay so in the runs.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    folder = Path(tempfile.mkdtemp(prefix="soak."))
    import_packages(folder / "compiled")
    rng = random.Random(args.seed)
    with small_disk(folder / "alone") as on_disk:
        alone = Chain(folder / "alone", rng, 1, on_disk)
        found = _under_faults(alone, ALONE, args.minutes * _ALONE)
        whole = alone._replace(workdir=folder / "whole")
        watched = _left_alone(whole, found["steps"])
        found["same_bits"] = _same(alone, whole)
    two = Chain(folder / "two", rng, 2, False)
    found_two = _under_faults(two, OF_TWO, args.minutes * _OF_TWO)
    whole_two = two._replace(workdir=folder / "whole_two")
    finish(*whole_two.start(found_two["steps"]))
    found_two["same_bits"] = _same(two, whole_two)
    lost = sum(row["lost"] for part in (found, found_two) for row in part["faults"].values())
    flat = abs(watched["memory_growth"]) < _FLAT
    result = {
        "lost": lost + (not found["same_bits"]) + (not found_two["same_bits"]),
        "disk": "a file system of 48 MB" if on_disk else "a limit to the size of a file",
        "one_process": found,
        "left_alone": watched,
        "two_processes": found_two,
    }
    machine.write_json(args.out, machine.about(cores=1) | {"seed": args.seed} | result)
    print(f"lost {result['lost']}, memory {watched['memory_mb_by_quarter']} MB")
    if args.keep:
        print(f"the runs are in {folder}")
    else:
        shutil.rmtree(folder)
    return int(result["lost"] > 0 or not flat)


if __name__ == "__main__":
    sys.exit(main())
