"""The first run, timed and measured: ``python -m benchmarks.quality.digits``.

Runs the README's training command in a fresh folder and writes, with the versions and the machine
it ran on, what the run measured of itself at its end (`fmjax/run/evaluate/measure.py` says how):

- ``train_seconds``: from the command to the last checkpoint, import and compilation included;
- ``total_seconds``: until the evaluation was printed;
- ``evaluation``: 1,000 guided samples (w = 1.5, 25 Heun steps), and 1,000 without a class.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

from benchmarks import machine


def measure(workdir: Path, flags: list[str]) -> dict:
    """Trains in a folder and collects the figures."""
    command = ["train.py", "--config=configs/digits.py", *flags]
    # A first run: nothing has been compiled by another one.
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(workdir.with_name("compiled"))}
    began = time.time()
    subprocess.run(
        [sys.executable, *command, f"--workdir={workdir}"], cwd=machine.ROOT, check=True, env=env
    )
    total = time.time() - began
    checkpoints = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal()]
    newest = max(checkpoints, key=lambda p: int(p.name))
    record = json.loads((workdir / "run.json").read_text())
    about = machine.about(device=jax.devices()[0].device_kind)
    return {
        "command": " ".join(["python", *command]),
        "made_by": about.pop("command"),
        **about,
        "steps": record["config"]["train"]["steps"],
        "train_seconds": round(newest.stat().st_mtime - began, 1),
        "total_seconds": round(total, 1),
        "evaluation": json.loads((workdir / "evaluation.json").read_text()),
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=machine.RESULTS / "digits.json", help="where to write the JSON"
    )
    parser.add_argument("flags", nargs="*", help="more flags for train.py, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder) / "digits", arguments.flags)
    machine.write_json(arguments.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
