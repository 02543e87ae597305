"""Breaks small runs of train.py in many ways: ``python -m benchmarks.faults``.

Each fault prints how often it was tried and how many of the runs were lost: ended with other bits
than a run that was left alone, hung, or without one sentence that says what happened. The runs are
processes of their own on the CPU; several devices are forced host devices.

    python -m benchmarks.faults --only kill terminate --seed 1
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.faults.forked_runs import FLAGS, import_packages
from benchmarks.faults.one_process import (
    damage,
    failing_store,
    full_disk,
    kill,
    kill_sharded,
    slow_store,
    terminate,
)
from benchmarks.faults.several_processes import (
    frozen,
    one_fails,
    one_of_two,
    other_mesh,
    terminate_one,
)

RESULTS = machine.RESULTS / "faults.json"
FAULTS = {
    fault.__name__: fault
    for fault in (
        *(kill, kill_sharded, terminate, failing_store, full_disk, slow_store, damage),
        *(one_of_two, frozen, one_fails, terminate_one, other_mesh),
    )
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and places")
    parser.add_argument("--trials", type=int, help="of the faults that are tried several times")
    steps = FLAGS["train.steps"]
    parser.add_argument("--steps", type=int, default=steps, help="of a run of one process")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--keep", action="store_true", help="leave the folders of the runs")
    return parser.parse_args()


def _earlier(out: Path, seed: int, steps: int) -> dict:
    """What another call with the same seed and steps has found: faults may be tried one by one."""
    if not out.exists():
        return {}
    stored = json.loads(out.read_text())
    return stored["faults"] if (stored["seed"], stored["steps"]) == (seed, steps) else {}


def main() -> int:
    """Tries the faults, prints a line for each, and writes what was found."""
    args = _arguments()
    FLAGS["train.steps"] = args.steps
    folder = Path(tempfile.mkdtemp(prefix="faults."))
    import_packages(folder / "compiled")
    found = _earlier(args.out, args.seed, args.steps)
    lost = 0
    for name in args.only:
        fault, began = FAULTS[name], time.monotonic()
        several = args.trials is not None and "trials" in fault.__code__.co_varnames
        options = {"trials": args.trials} if several else {}
        result = fault(folder, random.Random(f"{args.seed} {name}"), **options)
        lost += result["lost"]
        print(
            f"{name:14} trials {result['trials']:3}  lost {result['lost']:3}  "
            f"({time.monotonic() - began:.0f} s)",
            flush=True,
        )
        found[name] = {"what": fault.__doc__.partition("\n")[0]} | result
        tried = {"seed": args.seed, "steps": args.steps, "faults": found}
        machine.write_json(args.out, machine.about(flags=False) | tried)
    if args.keep:
        print(f"the runs are in {folder}")
    else:
        shutil.rmtree(folder)
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
