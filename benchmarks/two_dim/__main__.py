"""The 2-D table of the field: ``python -m benchmarks.two_dim [--peer]``.

Trains FM, I-CFM, OT-CFM, SB-CFM, VP, 1- and 2-rectified flow on four tasks (the
protocol is in protocol.py), and with ``--peer`` the package torchcfm on the same data. Writes
results/two_dim.json. Each figure is a mean over seeds with its standard deviation:

- ``w2``: exact W2 between 4,000 generated and 4,000 held-out points (100 Euler steps); the floor,
  W2 between two held-out sets, stands beside it;
- ``one_step_w2``: the same after one Euler step;
- ``npe``: |PE - W2^2(q0, q1)| / W2^2(q0, q1), with PE = E int |v|^2 dt along the 100 steps.

Trained flows are kept in ``--cache``, so that a stopped benchmark goes on where it stopped.
``--speed`` measures training steps per second instead, ours and the peer's, into the same file.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.two_dim.protocol import METHODS, TASKS, rows, test_points
from benchmarks.two_dim.runner import Outcome, Runner
from fmjax.metrics.trajectory import normalized_path_energy
from fmjax.metrics.transport import wasserstein

RESULTS = machine.RESULTS / "two_dim.json"
PACKAGES = ("jax", "optax", "numpy", "scipy", "torch", "torchcfm", "POT")
TIMED_STEPS = 5000


def main() -> None:
    """Reads the flags, runs, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44, 45, 46])
    parser.add_argument("--peer", action="store_true", help="train torchcfm, not fmjax")
    parser.add_argument("--share", type=float, default=1.0, help="of the protocol's steps")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--speed", action="store_true", help="measure steps per second instead")
    parser.add_argument("--cache", type=Path, default=Path("runs/two_dim"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    runner = make_runner(options.peer, options.cores)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    results["floor"] = floors(options.tasks) | results.get("floor", {})
    name = runner.library.name
    part = results.setdefault(name + ("-speed" if options.speed else ""), {})
    about = machine.about(PACKAGES, cores=options.cores)
    # The rows may come from several calls: all of their commands are kept.
    commands = dict.fromkeys([*part.get("commands", []), about.pop("command")])
    part |= about | {"commands": list(commands)}
    table = part.setdefault("rows", {})
    for method, task in rows(options.methods, options.tasks):
        steps = int(options.share * METHODS[method].steps)
        if options.speed:
            row = speed(runner, method, task, options.seeds)
        else:
            row = quality(runner, method, task, options.seeds, steps, options.cache)
        table.setdefault(task, {})[method] = row
        print(f"{name:9} {task:20} {method:7}", json.dumps(row), flush=True)
        machine.write_json(options.out, results)


def make_runner(peer: bool, cores: int) -> Runner:
    """fmjax or torchcfm, on so many cores."""
    if peer:
        from benchmarks.two_dim.train_torchcfm import library

        return Runner(library(cores))
    import jax

    from benchmarks.two_dim.train_fmjax import LIBRARY

    # One device a core, each with a thread of its own: seeds run side by side.
    jax.config.update("jax_num_cpu_devices", cores)
    return Runner(LIBRARY)


def floors(tasks: list[str]) -> dict:
    """W2 between two held-out target sets, and between source and target."""
    found = {}
    for task in tasks:
        source, target, other = test_points(task)
        found[task] = {
            "target_to_target_w2": round(wasserstein(target, other), 4),
            "source_to_target_w2": round(wasserstein(source, target), 4),
        }
    return found


def quality(
    runner: Runner, method: str, task: str, seeds: list[int], steps: int, cache: Path
) -> dict:
    """The row of one method on one task: means and standard deviations over the seeds."""
    outcomes = load_or_run(runner, method, task, seeds, steps, cache)
    source, target, _ = test_points(task)
    cost = wasserstein(source, target) ** 2
    figures = {"w2": [], "one_step_w2": [], "npe": []}
    for outcome in outcomes:
        figures["w2"].append(wasserstein(outcome.x1, target))
        figures["one_step_w2"].append(wasserstein(outcome.one_step, target))
        figures["npe"].append(normalized_path_energy(outcome.energy, cost))
    row = {"seeds": len(seeds), "steps": steps, "batch": METHODS[method].batch}
    for name, values in figures.items():
        row[name] = [round(float(np.mean(values)), 4), round(float(np.std(values)), 4)]
    return row


def load_or_run(
    runner: Runner, method: str, task: str, seeds: list[int], steps: int, cache: Path
) -> list[Outcome]:
    """The outcome of each seed, from the cache where it has it."""
    cache.mkdir(parents=True, exist_ok=True)
    row = f"{runner.library.name}-{method}-{task}"
    names = [f"{row}-{seed}-{steps}.npz".replace(" ", "") for seed in seeds]
    missing = [s for s, name in zip(seeds, names, strict=True) if not (cache / name).exists()]
    for seed, outcome in (runner.run(method, task, missing, steps) if missing else {}).items():
        np.savez(cache / names[seeds.index(seed)], **outcome._asdict())
    return [Outcome(**np.load(cache / name)) for name in names]


def speed(runner: Runner, method: str, task: str, seeds: list[int]) -> dict:
    """Training steps per second over all seeds, from two runs of which one is twice as long.

    The difference leaves out what is done once: compilation, and the making of the test samples.
    """
    seconds = []
    runner.run(method, task, seeds, 10)  # what is slow only the first time
    for steps in (TIMED_STEPS, 2 * TIMED_STEPS):
        outcomes = runner.run(method, task, seeds, steps)
        seconds.append(sum(float(outcome.seconds) for outcome in outcomes.values()))
    per_second = TIMED_STEPS * len(seeds) / (seconds[1] - seconds[0])
    return {"batch": METHODS[method].batch, "steps_per_second": round(per_second, 1)}


if __name__ == "__main__":
    main()
