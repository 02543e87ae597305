"""Inverse problems on the trained digits: ``python -m benchmarks.quality.inverse_problems``.

Takes a trained run and held-out digits, hides a part of each, and looks by the gradient of the
sampler (`fmjax.samplers.fit_source`) for samples that fit what is left:

- ``inpaint``: the lower half is missing;
- ``linear``: only 16 numbers are known, random sums of all 64 pixels.

Neither the class nor the hidden part is used. ``known`` and ``hidden`` are root mean square errors
per pixel, in [-1, 1]; ``mean`` is that of the mean training digit, to compare with; ``read`` is the
share that a support vector machine, fitted on the training digits, reads as the true class. The
picture has the truth, what was known of it, what was found; then truth and find of ``linear``.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from benchmarks.quality.trained_run import TrainedRun, open_run
from fmjax.conditions import nulls
from fmjax.data import pixels
from fmjax.metrics.classifier import accuracy, fit_classifier
from fmjax.plots import image_grid, save_png
from fmjax.samplers import solver_spec
from fmjax.samplers.fit_source import fit_source

RESULTS = machine.RESULTS / "inverse_problems.json"
PICTURE = machine.ROOT / "docs" / "inverse_problems.png"
ITERATIONS, SPEC = 60, solver_spec("midpoint", 6)
WEIGHT = 20.0  # of the squared error in what is known


def rms(error) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def problems() -> dict:
    """By name, what is measured of images (n, 8, 8, 1), and the pixels that this shows or None."""
    matrix = jax.random.normal(jax.random.key(3), (16, 64)) / 8
    upper = jnp.arange(8)[None, :, None, None] < 4
    return {
        "inpaint": (lambda x: (x * upper).reshape(len(x), -1), upper),
        "linear": (lambda x: x.reshape(len(x), -1) @ matrix.T, None),
    }


def solve_problem(trained: TrainedRun, measure, truth: jax.Array, prior: float):
    """The digits found, and how long it took."""
    y = measure(truth)
    labels = jnp.asarray(nulls(trained.flow.experiment.conditions, len(truth)))
    x0 = jax.random.normal(jax.random.key(1), truth.shape)

    @jax.jit
    def run(params, x0):
        return fit_source(
            lambda x, t, labels: trained.flow.experiment.apply_fn(params, x, t, labels),
            x0,
            lambda x1: WEIGHT * jnp.sum((measure(x1) - y) ** 2, axis=1),
            labels,
            SPEC,
            iterations=ITERATIONS,
            prior=prior,
        )

    began = time.perf_counter()
    found = jax.block_until_ready(run(trained.flow.params, x0))
    return found, time.perf_counter() - began


def main() -> None:
    """Solves both, prints, and writes figures and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/digits"))
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--prior", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    trained = open_run(arguments.workdir)
    train, train_labels = trained.training_set()
    images, classes = (a[: arguments.num] for a in trained.dataset.arrays("test", arguments.num))
    truth, mean = pixels.to_unit(images), np.asarray(pixels.to_unit(train)).mean(axis=0)
    read = fit_classifier(train, train_labels)
    result = machine.about(device=jax.devices()[0].device_kind) | {
        "digits": len(images),
        "iterations": ITERATIONS,
        "solver": "6 midpoint steps",
        "prior": arguments.prior,
    }
    rows = []
    for name, (measure, shown) in problems().items():
        found, seconds = solve_problem(trained, measure, truth, arguments.prior)
        made = np.asarray(pixels.to_pixels(found.x1))
        hidden = np.broadcast_to(True if shown is None else ~np.asarray(shown), truth.shape)
        observed = measure(truth).shape[1]
        error, of_mean = np.asarray(found.x1 - truth), np.asarray(mean[None] - truth)
        result[name] = {
            "seconds": round(seconds, 1),
            "known": round(rms(measure(found.x1) - measure(truth)), 4),
            "known at first": round(float(jnp.sqrt(found.costs[0].mean() / WEIGHT / observed)), 4),
            "hidden": round(rms(error[hidden]), 4),
            "hidden, mean digit": round(rms(of_mean[hidden]), 4),
            "read": accuracy(read(made), classes),
        }
        rows.append(images[:16])
        if shown is not None:  # sums of pixels are no picture
            rows.append(np.where(shown, images, 110).astype(np.uint8)[:16])
        rows.append(made[:16])
        print(name, json.dumps(result[name]), flush=True)
    machine.write_json(arguments.out, result)
    save_png(image_grid(np.concatenate(rows), 16), arguments.picture)


if __name__ == "__main__":
    main()
