"""Tries odd command lines and files on every command: ``python -m benchmarks.faults.odd_cases``.

Each case must end with a documented exit code, with one sentence on the standard error where that
is not 0, in ten seconds, and leave what is outside its own folder as it is. Most are tried within
one process for each command, the others as whole commands in a process of their own.

    python -m benchmarks.faults.odd_cases --cases=20000 --commands=500
"""

import argparse
import json
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import machine
from benchmarks.faults.forked_runs import SLOW, Child, finish, import_packages, start

RESULTS = machine.RESULTS / "odd_cases.json"
# Of a thousand: commands that compile and train take the longest.
SHARES = {
    "prepare": 400,
    "compile": 260,
    "weights": 150,
    "train": 100,
    "likelihood": 40,
    "sample": 20,
    "evaluate": 15,
    "reflow": 10,
    "distill": 5,
}
RUN = {"train__steps": 4, "train__checkpoint_every": 4, "train__log_every": 4, "model__width": 8}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000, help="within one process a command")
    parser.add_argument("--commands", type=int, default=500, help="in a process of their own")
    parser.add_argument("--only", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    parser.add_argument("--minutes", type=float, default=60.0, help="at most, for one command")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def _world(folder: Path, name: str) -> Path:
    """A world of its own for each process, made of the same parts."""
    return Path(shutil.copytree(folder / "world", folder / name, symlinks=True))


def _try(args: argparse.Namespace, folder: Path, command: str) -> dict[str, dict]:
    """The cases of a command within one process, and beside them its whole commands."""
    from benchmarks.faults.odd_cases.tried import try_cases

    total, found, children = sum(SHARES[name] for name in args.only), {}, {}
    for kind, number in (("within one process", args.cases), ("whole commands", args.commands)):
        share = max(1, round(number * SHARES[command] / total))
        world = _world(folder, f"{command} {kind}")
        out = world.with_suffix(".json")
        whole = kind == "whole commands"
        limit = 60 * args.minutes
        work = partial(try_cases, command, share, args.seed + whole, world, out, limit, whole)
        children[kind] = Child(work, world.with_suffix(".log")), out, world
    for kind, (child, out, world) in children.items():
        ended = child.wait(limit + SLOW) == 0
        found[kind] = json.loads(out.read_text()) | {"ended": ended}
        print(f"{command:10} {kind}: {found[kind]}", flush=True)
        if not ended or found[kind]["failed"]:
            print(child.output, flush=True)
        shutil.rmtree(world)
    return found


def main() -> int:
    """Tries the cases, prints two lines for each command, and writes the counts."""
    args = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="odd_cases."))
    import_packages(folder / "compiled")
    from benchmarks.faults.odd_cases.case import fill

    run = folder / "run"
    finish(start(run, **RUN))
    finish(Child(partial(fill, folder / "world", run), folder / "fill.log"))
    tried = _earlier(args.out, args.seed)
    for command in args.only:
        tried[command] = _try(args, folder, command)
        machine.write_json(args.out, machine.about(flags=False) | _summary(args, tried))
    shutil.rmtree(folder)
    kinds = [kind for found in tried.values() for kind in found.values()]
    return int(any(kind["failed"] or not kind["ended"] for kind in kinds))


def _earlier(out: Path, seed: int) -> dict[str, dict]:
    """What another call with the same seed has found: commands may be tried one by one."""
    if not out.exists():
        return {}
    stored = json.loads(out.read_text())
    return stored["commands"] if stored["seed"] == seed else {}


def _summary(args: argparse.Namespace, tried: dict[str, dict]) -> dict:
    totals = {
        kind: {
            name: sum(found[kind][name] for found in tried.values()) for name in ("cases", "failed")
        }
        for kind in ("within one process", "whole commands")
    }
    return {"seed": args.seed, "in total": totals, "commands": tried}


if __name__ == "__main__":
    sys.exit(main())
