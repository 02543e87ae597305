"""Judges runs on MNIST or Fashion-MNIST: ``python -m benchmarks.quality.small_images --help``.

    python -m benchmarks.quality.small_images --workdir=runs/mnist --classifier=mnist.safetensors

The judge is the classifier of ``benchmarks.quality.image_classifier``, trained on real images
alone. Writes results/<name of the data>.json, one entry for each way of sampling (a solver and its
steps; a flow map is a run of its own, ``--workdir=runs/mnist-one --solver=jumps --steps=1``):

- the share of ``--num`` guided samples whose class is the one asked for;
- the squared Fréchet distance in the judge's features from samples to a half of the test images, as
  many of either, the mean over both halves; beside the distance between the two halves;
- the distance to the nearest training image, of samples and of test images (median);
- a chi-square test that samples without a class have the classes equally often;
- with ``--bits``, bits per dimension of so many test images.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.quality.image_classifier import Judge, read_classifier
from benchmarks.quality.trained_run import open_run
from fmjax.factory import Recipe
from fmjax.factory.registry import make_solver
from fmjax.likelihood import Hutchinson
from fmjax.metrics.frechet import frechet_distance
from fmjax.metrics.histogram import histogram_test
from fmjax.metrics.nearest_neighbour import nearest_reference
from fmjax.run.likelihood.measure import Question
from fmjax.run.likelihood.measure import measure as measure_likelihood
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import draw_samples
from fmjax.samplers import Solver, solver_spec

_NEAREST = 500  # samples whose nearest training image is looked for


def drawn(flow: TrainedFlow, solver: Solver, num: int, w: float, labels=()) -> np.ndarray:
    """So many samples, uint8 (n, H, W, C), of all classes in turn unless asked otherwise."""
    request = Request(num, labels=labels, w=(w,), seed=1)
    return draw_samples(flow, *resolve(flow.experiment, request, Recipe(solver)))


def distance_to_halves(judge: Judge, samples: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """The Fréchet distance of samples to each half of the test images, and of the halves."""
    # Samples come class by class in turn, so that any regular part of them lacks some.
    rng = np.random.default_rng(0)
    size = min(len(test), len(samples)) // 2
    halves, parts = (
        np.split(judge.features(x[rng.permutation(len(x))[: 2 * size]]), 2) for x in (test, samples)
    )
    return {
        "examples": size,
        "samples": float(
            np.mean([frechet_distance(a, b) for a, b in zip(halves, parts, strict=True)])
        ),
        "halves": float(frechet_distance(*halves)),
    }


def judged(judge: Judge, flow: TrainedFlow, dataset, solver: Solver, num: int, w: float) -> dict:
    """The figures of one way of sampling."""
    test, test_labels = dataset.arrays("test")
    train = dataset.arrays("train")[0]
    began = time.perf_counter()
    samples = drawn(flow, solver, num, w)
    seconds = time.perf_counter() - began
    asked = np.arange(num) % flow.experiment.classes.num_classes
    free = judge.classify(drawn(flow, solver, num // 5, 1.0, None))
    even = histogram_test(free, flow.experiment.classes.num_classes)
    rng = np.random.default_rng(0)
    some, real = (x[rng.permutation(len(x))[:_NEAREST]] for x in (samples, test))
    distances = distance_to_halves(judge, samples, test)
    return {
        "solver": solver.describe(),
        "guidance": w,
        "samples": num,
        "seconds to draw": round(seconds, 1),
        "as asked": float(np.mean(judge.classify(samples) == asked)),
        "test images read as their class": float(np.mean(judge.classify(test) == test_labels)),
        "frechet": distances | {"over halves": distances["samples"] / distances["halves"]},
        "nearest training image": {
            "samples": float(np.median(nearest_reference(some, train)[0])),
            "test images": float(np.median(nearest_reference(real, train)[0])),
        },
        "without a class": {
            "counts": [int(n) for n in even.counts],
            "p": float(even.p_value),
        },
    }


def main() -> None:
    """Draws, judges, prints and adds to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--name", help="of the entry; if not given, how samples are drawn")
    parser.add_argument("--solver", default="heun")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--bits", type=int, default=0, help="test images for bits per dimension")
    options = parser.parse_args()
    flow, dataset = open_run(options.workdir)
    solver = make_solver(options.solver, options.steps)
    judge = read_classifier(options.classifier)
    found = judged(judge, flow, dataset, solver, options.num, options.guidance)
    if options.bits:
        report = measure_likelihood(
            options.workdir,
            Question(num=options.bits),
            solver_spec("dopri5", None, "sample", 1e-4, 1e-4),
            Hutchinson(4, "rademacher"),
        )
        found["bits per dimension"] = {"images": options.bits, **report["bits_per_dim"]}
    name = options.name or f"{options.solver}, {options.steps} steps, w = {options.guidance:g}"
    found = machine.about() | {"training steps": flow.step} | found
    path = machine.RESULTS / f"{dataset.name}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    machine.write_json(path, results | {name: found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
