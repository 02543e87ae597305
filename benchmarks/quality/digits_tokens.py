"""Digits as tokens beside the flow of numbers: ``python -m benchmarks.quality.digits_tokens``.

Takes trained runs (``python train.py --config=configs/digits_tokens.py``, and the same with
``--config.path.name=uniform``) and measures samples as the evaluation of a run does, the judge of
``configs/digits.py``:

- ``classified``: the share of 1,000 guided samples that a support vector machine fitted on real
  digits reads as the digit asked for;
- ``frechet``: the squared Fréchet distance of 750 of them to one half of the training images in 32
  PCA dimensions, and over that between the two halves;
- ``bits_per_dim``: of the held-out digits, under their labels, an upper bound.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from benchmarks import machine
from fmjax.factory import Guidance, Recipe
from fmjax.factory.registry import make_solver
from fmjax.run.evaluate.measure import evaluate, load_reference
from fmjax.run.likelihood.measure import Draws, Question, measure
from fmjax.run.restore import TrainedFlow, open_run, restore_flow
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import draw_samples

RESULTS = machine.RESULTS / "digits_tokens.json"
NUM = 1000
SCALES = (1.0, 1.25, 1.5)
SOLVERS = {
    "unmask, 16": ("unmask", 16, {}),
    "unmask, 32": ("unmask", 32, {}),
    "unmask, 64": ("unmask", 64, {}),
    "unmask, 64, corrector 1": ("unmask", 64, {"redraws": 1.0}),
    "unmask, 64, temperature 0.9": ("unmask", 64, {"temperature": 0.9}),
    "purity, 32": ("purity", 32, {}),
    "tau_leap, 64": ("tau_leap", 64, {}),
}


def measured(flow: TrainedFlow, num: int, solvers: dict) -> list[dict]:
    """The figures of each solver at each scale."""
    experiment = flow.experiment
    reference = load_reference(experiment.data.load(), experiment.evaluation.reference)
    rows = []
    for name, (solver, steps, options) in solvers.items():
        if solver == "purity" and not experiment.path.masks:
            continue
        for w in SCALES:
            recipe = Recipe(make_solver(solver, steps, **options), Guidance())
            request, recipe = resolve(experiment, Request(num, w=(w,)), recipe)
            samples = draw_samples(flow, request, recipe)
            labels = request.rows(experiment.classes, 0, num)[1]
            found = evaluate(reference, np.asarray(samples), labels, None, 10)
            frechet = found["frechet"]
            row = {
                "solver": name,
                "w": w,
                "classified": found["classifier"]["samples"],
                "frechet": frechet["samples"],
                "over_real_halves": frechet["samples"] / frechet["real_halves"],
            }
            print(json.dumps(row))
            rows.append(row)
    return rows


def measure_run(workdir: Path, num: int, draws: int, solvers: dict) -> dict:
    """All figures of one run."""
    experiment = open_run(workdir)
    flow = restore_flow(workdir, experiment)
    bits = {
        labels: measure(workdir, Question(labels=labels), Draws(draws))["bits_per_dim"]
        for labels in ("true", "none")
    }
    path = type(experiment.path).__name__, str(experiment.path.start)
    return {
        "path": " ".join(path),
        "step": flow.step,
        "bits_per_dim": bits,
        "samples": measured(flow, num, solvers),
    }


def main() -> None:
    """Measures the runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of trained runs")
    parser.add_argument("--num", type=int, default=NUM, help="samples of each solver and scale")
    parser.add_argument("--draws", type=int, default=64, help="times of the bound")
    parser.add_argument("--solvers", default=None, help="names joined by ;, all if left out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write the JSON")
    arguments = parser.parse_args()
    asked = SOLVERS if arguments.solvers is None else arguments.solvers.split(";")
    solvers = {name: SOLVERS[name] for name in asked}
    runs = [measure_run(run, arguments.num, arguments.draws, solvers) for run in arguments.runs]
    about = machine.about(device=jax.devices()[0].device_kind)
    continuous = json.loads((machine.RESULTS / "digits.json").read_text())["evaluation"]
    beside = {name: continuous[name] for name in ("classifier", "frechet")}
    machine.write_json(arguments.out, {**about, "flow_of_numbers": beside, "runs": runs})


if __name__ == "__main__":
    main()
