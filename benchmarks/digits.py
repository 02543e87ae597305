"""The first run, timed and measured: ``python benchmarks/digits.py``.

Runs the README's training command in a fresh folder and writes, with the versions and the machine
it ran on, what the run measured of itself at its end (`fmjax/run/evaluation.py` says how):

- ``train_seconds``: from the command to the last checkpoint, import and compilation included;
- ``total_seconds``: until the evaluation was printed;
- ``evaluation``: 1,000 guided samples (w = 1.5, 25 Heun steps), and 1,000 without a class.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results" / "digits.json"


def cpu_name() -> str:
    """The processor's name where Linux gives one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def measure(workdir: Path, flags: list[str]) -> dict:
    """Trains in a folder and collects the figures."""
    command = ["train.py", "--config=configs/digits.py", *flags]
    # A first run: nothing has been compiled by another one.
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(workdir.with_name("compiled"))}
    began = time.time()
    subprocess.run(
        [sys.executable, *command, f"--workdir={workdir}"], cwd=ROOT, check=True, env=env
    )
    total = time.time() - began
    checkpoints = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal()]
    newest = max(checkpoints, key=lambda p: int(p.name))
    record = json.loads((workdir / "run.json").read_text())
    return {
        "command": " ".join(["python", *command]),
        "made_by": "python benchmarks/digits.py",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {cpu_name()}, {jax.devices()[0].device_kind}",
        "versions": record["versions"],
        "steps": record["config"]["train"]["steps"],
        "train_seconds": round(newest.stat().st_mtime - began, 1),
        "total_seconds": round(total, 1),
        "evaluation": json.loads((workdir / "evaluation.json").read_text()),
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write the JSON")
    parser.add_argument("flags", nargs="*", help="more flags for train.py, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder) / "digits", arguments.flags)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
