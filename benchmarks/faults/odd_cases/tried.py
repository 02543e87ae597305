"""Tries many cases of a command, and counts what became of them."""

import collections
import json
import os
import time
from pathlib import Path

from benchmarks.faults.odd_cases import draw, hold


def try_cases(
    command: str,
    number: int,
    seed: int,
    world: Path,
    out: Path,
    limit: float = float("inf"),
    whole: bool = False,
) -> None:
    """Tries the cases of a command.

    Args:
        command: for example "train".
        number: how many cases.
        seed: of the cases.
        world: the folder that `fill` has made.
        out: where the counts are written, after each case; what failed is printed.
        limit: the seconds after which no other case is tried.
        whole: each as a whole command in a process of its own, and not all within this one.
    """
    os.environ["HOME"] = str(world / "home")
    os.environ["TFDS_DATA_DIR"] = str(world / "own" / "sets")  # the digits are written there
    # Work of milliseconds: the effort of LLVM would be most of it.
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    answer = hold.in_a_process_of_its_own if whole else hold.in_this_process
    began, codes, failed = time.monotonic(), collections.Counter(), 0
    for case in draw.cases(command, world / "kept", number, seed):
        outcome = hold.hold(case, world, answer)
        codes[str(outcome.code)] += 1
        if outcome.wrong:
            failed += 1
            print(f"{case}\n  {outcome.wrong}", flush=True)
        found = {
            "cases": codes.total(),
            "exit codes": dict(sorted(codes.items())),
            "failed": failed,
            "seconds": round(time.monotonic() - began),
        }
        out.write_text(json.dumps(found))
        if time.monotonic() - began > limit:
            break
