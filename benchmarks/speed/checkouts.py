"""Two checkouts of fmjax, timed side by side: ``python -m benchmarks.speed.checkouts A B``.

In every round each checkout has a fresh process, A B, B A, A B and so on, which measures

- ``import fmjax``: seconds, when jax has been imported already;
- ``training step``: of the digits' DiT (configs/digits.py), compiled and warm;
- ``guided sampling``: 100 digits, w = 1.5, 25 Heun steps, compiled and warm.

The last two have their CPU time beside them, user and system of all threads, which other work on
the machine disturbs less. Of each the median over the rounds is printed, the least and the largest,
and the ratio of the medians, B / A: below 1, B is faster. ``--python`` is the interpreter of both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.timing import interleave

SCRIPT = Path(__file__).with_name("measure_checkout.py")


def measure(python: str, checkout: Path, cache: Path, repeat: list[int]) -> dict[str, float]:
    """The seconds of one checkout in a process of its own.

    Raises:
        RuntimeError: the process failed.
    """
    # Compiled programs are kept: every round but the first measures, and does not compile.
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [python, "-P", str(SCRIPT), *map(str, repeat)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{checkout}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(checkout, {name: round(seconds, 4) for name, seconds in found.items()}, flush=True)
    return found


def compare(a: list[dict[str, float]], b: list[dict[str, float]]) -> dict[str, dict]:
    """Of each quantity the median, least and largest milliseconds of both, and the ratio B / A."""
    rows = {}
    for name in a[0]:
        row = {}
        for label, rounds in (("A", a), ("B", b)):
            times = [1e3 * found[name] for found in rounds]
            row[label] = [round(f(times), 2) for f in (statistics.median, min, max)]
        rows[name] = row | {"B / A": round(row["B"][0] / row["A"][0], 3)}
    return rows


def table(rows: dict[str, dict]) -> str:
    """The rows as Markdown."""
    lines = ["| ms: median (least to largest) | A | B | B / A |", "|---|---|---|---|"]
    for name, row in rows.items():
        cells = ["{} ({} to {})".format(*row[label]) for label in "AB"]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['B / A']} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, and writes where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("a", type=Path, help="the folder of a checkout, e.g. of an older commit")
    parser.add_argument("b", type=Path, help="the folder of the other one")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=30, help="training steps of a round")
    parser.add_argument("--samplings", type=int, default=5, help="of 100 digits, in a round")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", type=Path, help="a JSON file; nothing is written by default")
    options = parser.parse_args()
    repeat = [options.steps, options.samplings]
    checkouts = {"A": options.a.resolve(), "B": options.b.resolve()}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            label: lambda path=path, cache=Path(folder) / label: measure(
                options.python, path, cache, repeat
            )
            for label, path in checkouts.items()
        }
        found = interleave(runs, range(options.rounds))
    rows = compare(found["A"], found["B"])
    print(table(rows))
    if options.out is not None:
        machine.write_json(options.out, machine.about() | {"rounds": options.rounds, "rows": rows})


if __name__ == "__main__":
    main()
