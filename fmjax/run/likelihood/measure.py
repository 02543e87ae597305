"""The likelihood of real examples under a trained flow: nats, and bits of images and of tokens."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int, Shaped

from fmjax.checks import check_at_least, check_seed
from fmjax.conditions import nulls
from fmjax.conventions import Labels, example_keys
from fmjax.data.codecs import Codec, vocabulary_of
from fmjax.data.points import space_of
from fmjax.discrete import token_log_likelihood
from fmjax.discrete.base import check_token_path
from fmjax.errors import InputError, unknown_name
from fmjax.factory import Experiment
from fmjax.factory.data_spec import chosen_labels
from fmjax.factory.generation import fit_solver
from fmjax.factory.snapshots import check_one_distribution
from fmjax.flow_maps import few_step_log_likelihood
from fmjax.likelihood import Hutchinson, Trace, bits_per_dim, check_path, log_likelihood
from fmjax.progress_bar import progress_bar
from fmjax.run.restore import LATEST, TrainedFlow, Weights, open_run, restore_flow
from fmjax.run.sample.sampler import fit_batch
from fmjax.samplers import Solver
from fmjax.training.mesh import by_rows, within

LABELS = ("true", "none")


class Draws(NamedTuple):
    """How the likelihood of tokens is measured: by a bound, an expectation over times.

    Attributes:
        num: how many times are drawn for each example, at least 2, to know an error.
    """

    num: int = 64

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {"draws": self.num}


class Question(NamedTuple):
    """Whose likelihood.

    Attributes:
        split: ``"test"`` or ``"train"``.
        num: how many examples, at least 2, a fixed choice; None for the whole split.
        labels: ``"true"``, each example under its own class; ``"none"``, without a class; None is
            true where the model is conditional.
        seed: the noise of the pixels and the probes of example i are functions of the seed and i.
    """

    split: str = "test"
    num: int | None = None
    labels: str | None = None
    seed: int = 0


class Densities(NamedTuple):
    """What was computed of each example: log_p in nats, std_error of its probes, nfe, all (n,)."""

    log_p: Float[np.ndarray, " n"]
    std_error: Float[np.ndarray, " n"]
    nfe: Int[np.ndarray, " n"]


def measure(
    workdir: Path,
    question: Question,
    solver: Solver | Draws,
    trace: Trace | None = None,
    weights: Weights = LATEST,
    batch_size: int = 128,
) -> dict:
    """Measures the likelihood of a split of the run's data.

    Images are dequantised by uniform noise of one level, so that their bits are an upper bound.
    Those of tokens are an upper bound, too: `fmjax.discrete.token_log_likelihood`.

    Args:
        workdir: a trained run.
        question: of which examples, as `check_question` has passed it.
        solver: how to solve; jumps for a network that learned the average divergence; draws of the
            bound for a flow of tokens.
        trace: how to take the divergence; jumps and tokens take none.
        weights: with which parameters of the run.
        batch_size: examples per call, over all devices; it has passed with the question.

    Returns:
        A dict that goes into JSON: what was asked; ``nats`` per example and, for images and tokens,
        ``bits_per_dim``, each the mean, its standard error over the examples, and ``probe_error``,
        what the probes or draws add to it in quadrature (0 for the exact trace, None for one probe,
        which does not tell); ``nfe``, evaluations of the velocity per example; and the seconds.

    Raises:
        InputError: something does not fit, in one sentence.
        FloatingPointError: an adaptive solve ran out of steps, or a density is not finite.
    """
    # The divergence takes a forward-mode derivative, which the fused attention has not.
    experiment = open_run(workdir, portable=True)
    _check_way(solver, experiment)
    check_one_distribution(experiment.spec, "likelihood")
    if question.labels == "true" and experiment.conditions is None:
        raise InputError("this model is unconditional: it has no labels; write --labels=none.")
    spec, name = experiment.spec, experiment.data.name
    x, labels = experiment.data.load().arrays(question.split, question.num)
    if x.shape[1:] != spec.codec.data_shape:
        raise InputError(
            f"{workdir} was trained on examples of shape {spec.codec.data_shape}; "
            f"{name!r} now has {x.shape[1:]}."
        )
    conditions = experiment.conditions
    labels = chosen_labels(labels, conditions)
    if question.labels == "none":
        labels = nulls(conditions, len(x))
    if not isinstance(solver, Draws):
        solver = fit_solver(solver, experiment)
    flow = restore_flow(workdir, experiment, weights)
    measured = measure_arrays(flow, x, labels, solver, trace, question.seed, batch_size)
    return {
        "workdir": str(workdir),
        "step": flow.step,
        "split": question.split,
        "examples": len(x),
        "labels": None if conditions is None else (question.labels or "true"),
        "seed": question.seed,
        "solver": solver.describe(),
        "trace": _described(solver, trace, experiment),
        **({} if experiment.vocabulary else {"dequantized_training": experiment.data.dequantize}),
        **measured,
    }


def measure_arrays(
    flow: TrainedFlow,
    x: Shaped[np.ndarray, "n ..."],
    labels: Labels,
    solver: Solver | Draws,
    trace: Trace | None,
    seed: int,
    batch_size: int,
) -> dict:
    """Measures the likelihood of examples at hand.

    Args:
        flow: a trained flow.
        x: data (n, ...).
        labels: (n, ...), built as the conditions of the model.
        solver: as in `measure`, on the path of the flow.
        trace: as in `measure`.
        seed: as in `Question`.
        batch_size: examples per call, over all devices.

    Returns:
        What `figures` gives, and the seconds.

    Raises:
        FloatingPointError: as in `measure`.
    """
    began = time.perf_counter()
    likelihood = make_likelihood_fn(flow.experiment, solver, trace, flow.mesh)
    batch = fit_batch(len(x), batch_size, flow.mesh.size)
    key = jax.random.key(seed)
    compiled_fn = likelihood.lower(flow.params, key, *_rows(x, labels, 0, batch)).compile()
    compiled = time.perf_counter()
    found = _in_batches(partial(compiled_fn, flow.params, key), x, labels, batch)
    seconds = time.perf_counter() - compiled
    took = {"compile_seconds": compiled - began, "seconds": seconds}
    return figures(found, flow.experiment.spec.codec) | took


def _check_way(solver: Solver | Draws, experiment: Experiment) -> None:
    """Checks that a likelihood is asked for in the way that the run has one."""
    if experiment.vocabulary is not None:
        if not isinstance(solver, Draws):
            raise InputError(
                "this run is of tokens, whose likelihood is a bound and no ODE: give the number of "
                "draws (--draws), and no solver and no trace."
            )
        check_at_least("--draws, to know an error,", solver.num, 2)
        return
    if isinstance(solver, Draws):
        raise InputError(
            "--draws is for runs on tokens, and this one is of numbers, whose likelihood an ODE "
            "gives: leave it out."
        )
    check_path(experiment.path)
    if getattr(solver, "needs_span", False) and experiment.divergence_scale is None:
        raise InputError(
            "this run has not learned the average divergence, which --jumps needs: train it with "
            "flow_map.divergence=True and flow_map.span=any, or leave --jumps out."
        )


def _described(solver: Solver | Draws, trace: Trace | None, experiment: Experiment) -> str:
    if experiment.vocabulary is not None:
        return "a bound, at times drawn for each example"
    if getattr(solver, "needs_span", False):
        return "the average divergence, learned"
    return f"{trace.num} {trace.kind} probes" if isinstance(trace, Hutchinson) else "exact"


def check_question(question: Question, batch_size: int) -> None:
    """Checks what is asked, whatever the run.

    Args:
        question: of which examples.
        batch_size: examples per call.

    Raises:
        InputError: a number is too small, or the choice of labels is unknown.
    """
    if question.num is not None:
        check_at_least("--num, to know an error,", question.num, 2)
    if question.labels not in (None, *LABELS):
        raise unknown_name("choice of labels", question.labels, LABELS)
    check_seed(question.seed)
    check_at_least("the batch size", batch_size)


def make_likelihood_fn(
    experiment: Experiment, solver: Solver | Draws, trace: Trace | None, mesh: Mesh
) -> jax.stages.Wrapped:
    """The jitted ``likelihood(params, key, index, x, labels)``, of examples as the data gives them.

    It returns log_p, std_error, nfe, success and t_end, each (batch,), of the states of data
    (batch, ...), those with levels dequantised; what is random is keyed by the index alone.
    """
    codec = experiment.spec.codec
    density: Callable[..., tuple] = (
        _by_jumps if getattr(solver, "needs_span", False) else _by_solving
    )
    if isinstance(solver, Draws):
        density = _by_draws

    @partial(jax.jit, out_shardings=NamedSharding(mesh, P()))
    def likelihood(params, key, index, x, labels):
        index, x, labels = jax.lax.with_sharding_constraint((index, x, labels), by_rows(mesh))
        noise_key, probe_key = jax.random.split(key)
        if codec.bin_width is None:
            x = codec.encode(x)
        else:
            x = codec.dequantize(example_keys(noise_key, index), x)
        with within(mesh):
            return density(
                experiment, params, x, labels, solver, trace, example_keys(probe_key, index)
            )

    return likelihood


def _by_solving(
    experiment: Experiment, params: Any, x: Any, labels: Labels, solver: Solver, trace: Trace, keys
) -> tuple:
    velocity = partial(experiment.apply_fn, params)
    out = log_likelihood(
        velocity, x, labels, solver, trace=trace, key=keys, source=experiment.source
    )
    return out.log_p, out.std_error, out.nfe, out.success, out.t_end


def _by_draws(
    experiment: Experiment, params: Any, x: Any, labels: Labels, draws: Draws, trace: Trace, keys
) -> tuple:
    denoiser = partial(experiment.apply_fn, params)
    path = check_token_path("the path", experiment.path)
    out = token_log_likelihood(denoiser, path, x, labels, key=keys, times=draws.num)
    return *out, jnp.isfinite(out.log_p), jnp.zeros(len(x))


def _by_jumps(
    experiment: Experiment, params: Any, x: Any, labels: Labels, jumps: Any, trace: Trace, keys
) -> tuple:
    average_fn, scale = experiment.average_fn, experiment.divergence_scale
    assert average_fn is not None
    assert scale is not None, "the network has learned the divergence, see `_check_way`"
    log_p = few_step_log_likelihood(
        partial(average_fn, params),
        x,
        labels,
        scale=scale,
        steps=jumps.steps,
        grid=jumps.grid,
        source=experiment.source,
        manifold=jumps.manifold,
    )
    zeros = jnp.zeros(len(x))
    return log_p, zeros, jnp.full(len(x), jumps.steps), jnp.isfinite(log_p), zeros


def _rows(
    x: Shaped[np.ndarray, "n ..."], labels: Labels, start: int, batch: int
) -> tuple[Any, ...]:
    """The arguments of one call; the last batch is filled up from the beginning."""
    index = np.arange(start, start + batch, dtype=np.int32) % len(x)
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), (x, labels))
    return jnp.asarray(index), *rows


def _in_batches(
    likelihood: Callable, x: Shaped[np.ndarray, "n ..."], labels: Labels, batch: int
) -> Densities:
    parts = []
    with progress_bar(len(x), "examples") as bar:
        for start in range(0, len(x), batch):
            n = min(batch, len(x) - start)
            outputs = likelihood(*_rows(x, labels, start, batch))
            outputs = [np.asarray(out.addressable_data(0))[:n] for out in outputs]
            _check_finished(start, *outputs)
            parts.append(outputs[:3])
            bar.update(n)
    return Densities(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _check_finished(start, log_p, std_error, nfe, success, t_end) -> None:
    if success.all():
        return
    first = int(np.argmin(success))
    who = f"{int((~success).sum())} of {len(success)} examples (the first: number {start + first})"
    if t_end[first] > 0:
        raise FloatingPointError(
            f"{who} did not reach t = 0 from t = 1: stopped at t = {t_end[first]:.3g} after "
            f"{nfe[first]} evaluations. The solver ran out of steps, or the velocity is not "
            "finite. Take larger --rtol and --atol, or fixed --steps."
        )
    raise FloatingPointError(
        f"{who} have no finite density: the velocity or its divergence is not finite, or so large "
        "that the example ends too far out. Take more --steps, or another checkpoint."
    )


def figures(found: Densities, codec: Codec) -> dict:
    """Means and standard errors, in nats per example and, of levels, in bits per dimension.

    Nats are those of states: of data that a codec scales, they count in its unit; of points on a
    manifold, in its volume.
    """
    space = space_of(codec)
    n, dims = len(found.log_p), math.prod(codec.shape) if space is None else space.dim
    log_p, probes = found.log_p.astype(np.float64), found.std_error.astype(np.float64)
    error = np.std(log_p, ddof=1) / math.sqrt(n)
    probe_error = None if np.isnan(probes).any() else float(np.sqrt(np.sum(probes**2)) / n)
    mean, std_error = float(log_p.mean()), float(error)
    nats = {"mean": mean, "std_error": std_error, "probe_error": probe_error}
    report: dict[str, Any] = {"dims": dims, "nats": nats}
    width = codec.bin_width if vocabulary_of(codec) is None else 1.0
    if width is not None:
        unit = dims * math.log(2)
        bits = bits_per_dim(mean, dims, width)
        report["bits_per_dim"] = {
            "mean": float(bits),
            "std_error": std_error / unit,
            "probe_error": None if probe_error is None else probe_error / unit,
        }
    return report | {"nfe": float(found.nfe.mean())}
