"""Flows side by side: how straight their paths are, and what one step and many steps give."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from fmjax.conventions import Array
from fmjax.data.dataset import Dataset
from fmjax.errors import InputError
from fmjax.factory import Recipe
from fmjax.factory.generation import guided_velocity
from fmjax.files import write_json
from fmjax.json_files import read_json
from fmjax.metrics.trajectory import normalized_path_energy, path_statistics
from fmjax.metrics.transport import wasserstein
from fmjax.run.evaluate.measure import evaluate, load_reference
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import draw_samples
from fmjax.samplers import Solver, solver_spec
from fmjax.sources import draw_source

_PATHS = 256  # paths followed for their shape
_STEPS = 100  # Euler steps of each
_VECTORS = 2000  # for exact optimal transport
_IMAGES = 5000  # at most, as `eval.reference`
_SEED = 1  # of samples and paths; pairs have hashed seeds

PATH_FIGURES = ("straightness", "npe", "path_energy")


class Compared(NamedTuple):
    """A flow, and how it is sampled.

    Attributes:
        flow: on the devices of one process.
        w: its guidance scale.
        solvers: how it is sampled, by the name of the figure.
    """

    flow: TrainedFlow
    w: float
    solvers: Mapping[str, Solver]


def compare(flows: dict[str, Compared], dataset: Dataset) -> dict:
    """Measures flows in the same way, from the same noise.

    Args:
        flows: by name.
        dataset: the real examples.

    Returns:
        A dict that goes into JSON: ``distance``, how the samples' distance to real examples is
        measured; ``real``, the same between real examples; ``w2_squared``, the squared W2 from
        noise to real examples, in the model's unit; and ``flows``, by name: the distance of the
        samples of each of its solvers, ``straightness``, ``path_energy``
        (`fmjax.metrics.trajectory.path_statistics`) and ``npe``
        (`fmjax.metrics.trajectory.normalized_path_energy`), these three in the model's unit, [-1,
        1] for images.
    """
    ruler = _image_ruler(dataset) if dataset.codec.kind == "pixels" else _vector_ruler(dataset)
    num = len(ruler.examples)
    source = next(iter(flows.values())).flow.experiment.source
    x0 = draw_source(source, jax.random.key(_SEED), jnp.arange(num), dataset.shape)
    w2_squared = wasserstein(x0, ruler.examples) ** 2
    figures = {}
    for name, (flow, w, solvers) in flows.items():
        asked = Request(num, w=(w,), seed=_SEED)
        figures[name] = _path_figures(flow, asked, x0[:_PATHS], w2_squared)
        for figure, spec in solvers.items():
            samples = draw_samples(flow, *resolve(flow.experiment, asked, Recipe(spec)))
            figures[name][figure] = ruler.distance(samples)
    return {
        "distance": ruler.name,
        "real": ruler.real,
        "w2_squared": w2_squared,
        "flows": figures,
    }


class _Ruler(NamedTuple):
    """How samples are measured: as many as the real `examples`, here in the model's own unit."""

    name: str
    examples: Shaped[np.ndarray, "n ..."]
    real: float  # the distance between two real sets
    distance: Callable[[Shaped[np.ndarray, "n ..."]], float]


def _image_ruler(dataset: Dataset) -> _Ruler:
    """The Fréchet distance of a run's evaluation, in grey levels."""
    real = load_reference(dataset, _IMAGES)
    half = real.train[: len(real.train) // 2]

    def frechet(samples: Shaped[np.ndarray, "n ..."]) -> dict:
        return evaluate(real, samples, None, None, None)["frechet"]

    about = frechet(half)
    return _Ruler(
        f"Fréchet distance (squared, {about['dims']} PCA dimensions, {len(half)} examples)",
        np.asarray(dataset.codec.encode(half)),
        about["real_halves"],
        lambda samples: frechet(samples)["samples"],
    )


def _vector_ruler(dataset: Dataset) -> _Ruler:
    """The Wasserstein distance, in the unit of the data."""
    real = dataset.arrays("test", _VECTORS)[0]
    w2 = partial(wasserstein, real)
    beside = w2(dataset.arrays("train", _VECTORS)[0])
    return _Ruler(f"W2 ({len(real)} points)", dataset.codec.encode(real), beside, w2)


def _path_figures(
    flow: TrainedFlow, request: Request, x0: Float[Array, "batch ..."], w2_squared: float
) -> dict[str, float]:
    """Statistics of the paths from x0, in Euler steps fine enough to follow their curves."""
    euler = Recipe(solver_spec("euler", _STEPS))
    request, recipe = resolve(flow.experiment, request, euler)
    rows = request.rows(flow.experiment.conditions, 0, len(x0))
    _, labels, w = jax.tree.map(jnp.asarray, rows)

    @jax.jit
    def follow(params, x0, labels, w):
        velocity, conditions = guided_velocity(flow.experiment, recipe.guidance, params, labels, w)
        return path_statistics(velocity, x0, conditions, steps=_STEPS)

    found = follow(flow.params, x0, labels, w)
    energy = float(jnp.mean(found.energy))
    return {
        "straightness": float(jnp.mean(found.straightness)),
        "npe": normalized_path_energy(energy, w2_squared),
        "path_energy": energy,
    }


def keep_comparison(path: Path, asked: dict, flows: dict[str, Compared]) -> str:
    """Measures flows side by side, unless the file has these figures already, and says them.

    Args:
        path: the JSON file, which is written.
        asked: what the figures depend on; it goes into the file, too.
        flows: as `compare` takes them; the first one's data are the real examples.

    Returns:
        The table, and where the figures are.
    """
    try:
        report = read_json(path)
    except (FileNotFoundError, InputError):
        report = {}
    if not asked.items() <= report.items():
        data = next(iter(flows.values())).flow.experiment.data
        report = asked | compare(flows, data.load())
        write_json(path, report)
    return f"{describe_comparison(report)}\nfigures: {path}"


def describe_comparison(report: dict) -> str:
    """The report as a table, a row for each figure and a column for each flow."""
    flows = report["flows"]
    names = dict.fromkeys(name for flow in flows.values() for name in flow)
    rows = [["", *flows]]
    for name in names:
        figures = (flow.get(name) for flow in flows.values())
        rows.append([name, *("-" if figure is None else f"{figure:.4g}" for figure in figures)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )
    distances = ", ".join(name for name in names if name not in PATH_FIGURES)
    return (
        f"{table}\n{distances}: {report['distance']}; real {report['real']:.4g}\n"
        f"npe: beside W2² = {report['w2_squared']:.4g} between noise and real examples, of which "
        "few in many dimensions give too much"
    )
