"""Evaluates samples: class accuracy, nearest training example, Fréchet distance, class balance.

Of texts, and of tokens that are no images, the bits of held-out examples stand in the place of all;
of points on a manifold their negative log-likelihood.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Shaped

from fmjax.checks import check_at_least
from fmjax.data.dataset import Dataset
from fmjax.errors import InputError
from fmjax.factory import Experiment, Recipe
from fmjax.factory.data_spec import chosen_labels
from fmjax.likelihood import Exact
from fmjax.manifolds import Manifold
from fmjax.metrics.classifier import accuracy, fit_classifier
from fmjax.metrics.frechet import fit_pca, frechet_distance
from fmjax.metrics.histogram import histogram_test
from fmjax.metrics.nearest_neighbour import distance_quantiles, nearest_reference
from fmjax.run.evaluate.snapshots import describe_snapshots, evaluate_snapshots
from fmjax.run.likelihood.measure import Draws, measure_arrays
from fmjax.run.restore import TrainedFlow, Weights
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import draw_samples
from fmjax.samplers import solver_spec

_PCA_DIMS = 32
_DRAWS, _BATCH = 32, 128  # of the likelihood


def evaluate_flow(
    flow: TrainedFlow, dataset: Dataset, request: Request, recipe: Recipe
) -> dict | None:
    """Draws samples of a flow, with classes and without, and measures them.

    Args:
        flow: a trained flow, on all processes.
        dataset: the real examples.
        request: which samples; where they have labels, as many are drawn without, at w = 1.
        recipe: how to draw them.

    Returns:
        See `evaluate`, and `evaluate_snapshots` for a flow through snapshots; of tokens that are no
        images ``bits_per_token`` of held-out examples, of points on a manifold ``nll`` of them.
        None on all processes but the first.
    """
    if dataset.snapshots is not None:
        return evaluate_snapshots(flow, dataset, recipe)
    if flow.experiment.spec.codec.kind in ("text", "tokens"):
        return _bits(flow, dataset, request.seed)
    manifold = flow.experiment.manifold
    if manifold is not None:
        return _nll(flow, dataset, manifold, request.seed)
    request, guided = resolve(flow.experiment, request, recipe)
    samples = draw_samples(flow, request, guided)
    labels, unconditional = None, None
    classes = flow.experiment.classes
    if request.labels is not None and classes is not None:
        labels = request.rows(classes, 0, request.number)[1]
        # Another seed than the guided samples': the histogram is a second, independent draw.
        seed = (request.seed + 1) % 2**32
        free = request._replace(labels=None, w=(1.0,), seed=seed)
        unconditional = draw_samples(flow, free, guided._replace(guidance=None))
    if jax.process_index() != 0:
        return None
    reference = load_reference(dataset, flow.experiment.evaluation.reference)
    codec = flow.experiment.spec.codec
    if codec.kind == "vectors":  # columns of unlike units count alike once they are standardised
        samples = codec.encode(samples)
        reference = reference._replace(
            train=codec.encode(reference.train), test=codec.encode(reference.test)
        )
    count = None if classes is None else classes.num_classes
    return evaluate(reference, samples, labels, unconditional, count)


def _bits(flow: TrainedFlow, dataset: Dataset, seed: int) -> dict | None:
    x, labels = dataset.arrays("test", flow.experiment.evaluation.num)
    labels = chosen_labels(labels, flow.experiment.conditions)
    found = measure_arrays(flow, x, labels, Draws(_DRAWS), None, seed, _BATCH)
    if jax.process_index() != 0:
        return None
    return {"examples": len(x), "bits_per_token": found["bits_per_dim"], "nats": found["nats"]}


def _nll(flow: TrainedFlow, dataset: Dataset, manifold: Manifold, seed: int) -> dict | None:
    """The negative log-likelihood of held-out points, beside that of the uniform distribution."""
    experiment = flow.experiment
    x, labels = dataset.arrays("test", experiment.evaluation.num)
    labels = chosen_labels(labels, experiment.conditions)
    solver = solver_spec("dopri5", rtol=1e-4, atol=1e-4).on_path(experiment.path)
    found = measure_arrays(flow, x, labels, solver, Exact(), seed, _BATCH)
    if jax.process_index() != 0:
        return None
    nll = {"mean": -found["nats"]["mean"], "std_error": found["nats"]["std_error"]}
    uniform = math.log(manifold.volume) if math.isfinite(manifold.volume) else None
    return {"examples": len(x), "nll": nll, "nll_uniform": uniform, "nfe": found["nfe"]}


def check_evaluated(
    experiment: Experiment, request: Request, recipe: Recipe, weights: Weights
) -> None:
    """Checks a request to `evaluate_flow`, before any parameters are read.

    Raises:
        InputError: it is too small to be measured, guided by a weaker checkpoint, or does not fit.
    """
    if weights.weak is not None:
        raise InputError("samples without a class have no weaker checkpoint: leave --weak out.")
    request, _ = resolve(experiment, request, recipe)
    check_at_least("--num", request.number, 2, advice="Fewer samples cannot be measured.")


class Reference(NamedTuple):
    """Real examples to compare with, and what was fitted to them.

    Attributes:
        train: (n, ...) as the data set gives them.
        train_labels: int32 (n,), or None.
        test: held-out examples.
        test_labels: int32 (m,), or None.
    """

    train: Shaped[np.ndarray, "n ..."]
    train_labels: Int[np.ndarray, " n"] | None
    test: Shaped[np.ndarray, "m ..."]
    test_labels: Int[np.ndarray, " m"] | None


def load_reference(dataset: Dataset, limit: int) -> Reference:
    """At most ``limit`` training and held-out examples each, with their classes if they have."""
    train, known = dataset.arrays("train", limit)
    test, held_out = dataset.arrays("test", limit)
    if dataset.classes is None:
        known = held_out = None
    return Reference(train, known, test, held_out)


def evaluate(
    reference: Reference,
    samples: Shaped[np.ndarray, "samples ..."],
    labels: Int[np.ndarray, " samples"] | None,
    unconditional: Shaped[np.ndarray, "unconditional ..."] | None,
    num_classes: int | None,
) -> dict:
    """Measures samples against real examples.

    Args:
        reference: the real ones.
        samples: conditional samples (n, ...), or unconditional ones if labels is None.
        labels: the classes asked for (n,).
        unconditional: samples drawn without a class (n, ...), for the histogram of classes.
        num_classes: how many classes there are.

    Returns:
        A dict that goes into JSON. ``classifier``: the share of held-out real examples and of
        samples whose class a support vector machine fitted on the real training examples predicts.
        ``nearest``: quantiles, by percent, of the Euclidean distance (in the data's own unit) to
        the nearest training example, of samples and of held-out examples. ``frechet``: the squared
        Fréchet distance in the PCA space of the training examples between samples and one half of
        them, beside that between the two halves; sets of equal size, because it is biased upwards
        by small ones. ``histogram``: chi-square test that the classes are equally frequent. What
        needs two classes, or two examples a set, is left out without them.
    """
    report: dict[str, Any] = {}
    if min(len(reference.train) // 2, len(samples)) >= 2:
        report["frechet"] = _frechet(reference.train, samples)
    report["nearest"] = {
        "samples": _nearest(samples, reference.train),
        "held_out": _nearest(reference.test, reference.train),
    }
    known, held_out = reference.train_labels, reference.test_labels
    if labels is None or known is None or held_out is None or len(np.unique(known)) < 2:
        return report
    classify = fit_classifier(reference.train, known)
    report["classifier"] = {
        "held_out": accuracy(classify(reference.test), held_out),
        "samples": accuracy(classify(samples), labels),
    }
    if unconditional is not None and num_classes is not None:
        test = histogram_test(classify(unconditional), num_classes)
        report["histogram"] = {
            "counts": [int(count) for count in test.counts],
            "spread": float(test.spread),
            "statistic": float(test.statistic),
            "p_value": float(test.p_value),
        }
    return report


def _frechet(
    train: Shaped[np.ndarray, "n ..."], samples: Shaped[np.ndarray, "m ..."]
) -> dict[str, float]:
    dims = min(_PCA_DIMS, int(np.prod(train.shape[1:])), len(train) - 1)
    features = fit_pca(train, dims)
    order = np.random.default_rng(0).permutation(len(train))
    n = min(len(train) // 2, len(samples))
    half, other = train[order[:n]], train[order[n : 2 * n]]
    return {
        "dims": dims,
        "examples": n,
        "samples": frechet_distance(features(samples[:n]), features(half)),
        "real_halves": frechet_distance(features(other), features(half)),
    }


def _nearest(
    examples: Shaped[np.ndarray, "n ..."], train: Shaped[np.ndarray, "m ..."]
) -> dict[str, float]:
    distances, _ = nearest_reference(examples, train)
    return {f"{percent:g}": value for percent, value in distance_quantiles(distances).items()}


def describe_evaluation(report: dict) -> str:
    """The report in a few lines for a person."""
    if "snapshots" in report:
        return describe_snapshots(report["snapshots"])
    if "bits_per_token" in report:
        bits, nats = report["bits_per_token"], report["nats"]
        return (
            f"bits per token of {report['examples']} held-out examples: {bits['mean']:.4g} ± "
            f"{bits['std_error']:.2g} ({-nats['mean']:.5g} nats per example), an upper bound"
        )
    if "nll" in report:
        nll, uniform = report["nll"], report["nll_uniform"]
        beside = "" if uniform is None else f" (of the uniform distribution: {uniform:.4f})"
        return (
            f"negative log-likelihood of {report['examples']} held-out points: {nll['mean']:.4f} ± "
            f"{nll['std_error']:.2g} nats{beside}; lower is better"
        )
    lines = []
    if "classifier" in report:
        c = report["classifier"]
        lines.append(
            f"class accuracy, by a classifier of real examples: {c['samples']:.1%} of the samples "
            f"(held-out real examples: {c['held_out']:.1%}; higher is better)"
        )
    if "frechet" in report:
        f = report["frechet"]
        lines.append(
            f"Fréchet distance (squared, {f['dims']} PCA dimensions, {f['examples']} examples): "
            f"{f['samples']:.4g} (two halves of the real data: {f['real_halves']:.4g}; lower is "
            "better)"
        )
    near, held = report["nearest"]["samples"], report["nearest"]["held_out"]
    percents = ", ".join(near)
    ours, real = (" ".join(f"{v:.4g}" for v in d.values()) for d in (near, held))
    lines.append(
        f"distance to the nearest training example, quantiles {percents} %: {ours} (held-out real "
        f"examples: {real}; far lower would be copies)"
    )
    if "histogram" in report:
        h = report["histogram"]
        lines.append(
            f"classes of unconditional samples: {h['counts']}; equally likely classes would "
            f"differ by a standard deviation of {h['spread']:.1f}; chi-square p = "
            f"{h['p_value']:.2g} (below 0.05 is uneven)"
        )
    return "\n".join(lines)
