"""From a 2 to a 7: ``python -m benchmarks.quality.interpolation`` draws the picture.

The same noise, guided with w = 1.5, under conditions that go from one class to the other: between
the two velocities, linearly and spherically, and between the two embeddings, linearly and
spherically (`fmjax.guidance.interpolated`, `class_weights`, `spherical_weights`). Two rows of each.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import ROOT
from benchmarks.quality.trained_run import open_run
from fmjax.data import pixels
from fmjax.guidance import (
    Between,
    Guided,
    class_weights,
    classifier_free,
    interpolated,
    spherical_weights,
)
from fmjax.plots import image_grid, save_png
from fmjax.samplers import solve, solver_spec

COLUMNS, SCALE = 13, 1.5


def main() -> None:
    """Draws and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/digits"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "two_to_seven.png")
    parser.add_argument("--rows", type=int, default=2)
    arguments = parser.parse_args()
    spec = solver_spec("heun", 25)
    run = open_run(arguments.workdir)
    digits = run.flow.experiment.classes
    null, classes = digits.null_value(), digits.num_classes
    starts = jax.random.normal(
        jax.random.key(4), (arguments.rows, 1, *run.flow.experiment.spec.shape)
    )
    x0 = jnp.tile(starts, (1, COLUMNS, 1, 1, 1)).reshape(-1, *starts.shape[2:])
    s = jnp.tile(jnp.linspace(0, 1, COLUMNS), arguments.rows)
    two, seven = (jnp.full(len(s), k) for k in (2, 7))
    guided = classifier_free(run.velocity, null)
    between = Between(Guided(two, SCALE), Guided(seven, SCALE), s)
    table = run.flow.params["condition"]["label"]["table"]
    nobody = jax.nn.one_hot(null, classes + 1)
    by_weights = classifier_free(run.velocity, nobody)
    ways = [
        (interpolated(guided, "linear"), between),
        (interpolated(guided, "spherical"), between),
        (by_weights, Guided(class_weights(two, seven, s, classes), SCALE)),
        (by_weights, Guided(spherical_weights(two, seven, s, table), SCALE)),
    ]
    rows = [solve(field, x0, conditions, spec).x1 for field, conditions in ways]
    images = np.asarray(pixels.to_pixels(jnp.concatenate(rows)))
    save_png(image_grid(images, COLUMNS), arguments.out)


if __name__ == "__main__":
    main()
