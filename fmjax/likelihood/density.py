"""The log-density of a flow, from one solve of the state and its divergence together.

With x_t on the flow's trajectory and p_0 the density of the source, in nats,

    d/dt log p_t(x_t) = -div u(x_t, t),
    log p_1(x_1) = log p_0(x_0) - int_0^1 div u(x_t, t) dt.

On a manifold the densities are with respect to its volume, and div is its divergence.

Source: Chen et al., arXiv:1806.07366 (instantaneous change of variables); on manifolds Mathieu and
Nickel, arXiv:2006.10605.
"""

import math
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from fmjax.array_checks import check_finite, check_floats, check_per_example
from fmjax.checks import check_at_least, check_methods, check_positive
from fmjax.conventions import Array, Labels, Velocity, at_least_float32
from fmjax.errors import InputError
from fmjax.likelihood.divergence import (
    EXACT_TRACE,
    Exact,
    ProbeKeys,
    Trace,
    draw_probes,
    points_of,
    velocity_and_divergence,
)
from fmjax.manifolds import Euclidean, Manifold, Product
from fmjax.paths import Path
from fmjax.samplers import Solution, Solver, solve, solver_spec
from fmjax.samplers.solution import shared_labels
from fmjax.sources import STANDARD_NORMAL, Source, StandardNormal

Nats = TypeVar("Nats", jax.Array, np.ndarray, np.floating, float)


class Likelihood(NamedTuple):
    """Where examples come from or go to, and how dense the flow is there.

    Attributes:
        log_p: log p_1(x_1) in nats (batch,); a mean over the probes of `Hutchinson`.
        std_error: its standard error over the probes (batch,): 0 for `Exact`, NaN for one probe.
            The error of the solver is not in it.
        x0: the source points, shaped as x1.
        x1: the data points.
        nfe: evaluations of the velocity together with its divergence, int32 (batch,).
        success: False where the solver gave up or the result is not finite, bool (batch,); log_p
            is then NaN.
        t_end: how far the solve came (batch,).
    """

    log_p: Float[Array, " batch"]
    std_error: Float[Array, " batch"]
    x0: Any
    x1: Any
    nfe: Int[Array, " batch"]
    success: Bool[Array, " batch"]
    t_end: Float[Array, " batch"]


def log_likelihood(
    velocity: Velocity,
    x1: Any,
    labels: Labels = None,
    spec: Solver | None = None,
    *,
    trace: Trace = EXACT_TRACE,
    key: ProbeKeys | None = None,
    source: Source = STANDARD_NORMAL,
) -> Likelihood:
    """The log-density of given points, by one solve from t = 1 back to t = 0.

        log p_1(x_1) = log p_0(x_0) - int_0^1 div u(x_t, t) dt

    It is the density of what the solver makes of p_0, and it is differentiable: in x1, and in
    whatever the velocity closes over. A guided velocity has the density of its own samples. Source:
    Chen et al., arXiv:1806.07366; with `fmjax.Hutchinson`, Grathwohl et al., arXiv:1810.01367.

    Args:
        velocity: ``velocity(x, t, labels)``, t (batch,), each example a function of itself alone.
        x1: data points (batch, ...), or a pytree of such arrays, which the velocity then takes and
            gives; float32 or float64 (half precision is widened).
        labels: per-example conditions with a leading batch axis (a lone number is shared), or None.
        spec: how to solve, from `solver_spec`; Dopri5 with tolerances 1e-5 if None. With its
            ``manifold`` the flow is on that: the velocity is projected to be tangent, and densities
            are with respect to the Riemannian volume.
        trace: `Exact`, or `Hutchinson` with its probes.
        key: of the probes: one key, folded with each example's place in the batch, or one key per
            example (batch,). Not used by `Exact`.
        source: the distribution of x0, of which the log-density is asked (`fmjax.sources`).

    Returns:
        The log-density, its standard error, and the source points.

    Raises:
        InputError: x1 is not of floats, not finite or off the manifold, a key is missing or of the
            wrong shape, the velocity is not shaped as x1, or the source does not give one number
            per example or lies elsewhere than the solver.

    Example:
        >>> found = log_likelihood(lambda x, t, labels: -x, jnp.zeros((1, 2)))
        >>> found.log_p.round(2)  # log N(0; 0, I) + 2
        Array([0.16], dtype=float32)
    """
    spec = _checked(spec, source)
    x1 = _as_points("x1", x1, _manifold_of(spec))
    x0, grown, solution = _carry(velocity, x1, labels, spec, trace, key, 1.0, 0.0)
    return _likelihood(_source_density(source, x0), grown, trace, x0, x1, solution)


def sample_with_log_prob(
    velocity: Velocity,
    x0: Any,
    labels: Labels = None,
    spec: Solver | None = None,
    *,
    trace: Trace = EXACT_TRACE,
    key: ProbeKeys | None = None,
    source: Source = STANDARD_NORMAL,
) -> Likelihood:
    """Samples and their log-density in one solve forwards, from t = 0 to t = 1.

    Args:
        velocity: as in `log_likelihood`.
        x0: source points drawn from p_0 (batch, ...), or a pytree of such arrays.
        labels: as in `log_likelihood`.
        spec: as in `log_likelihood`.
        trace: as in `log_likelihood`.
        key: as in `log_likelihood`.
        source: as in `log_likelihood`.

    Returns:
        The samples, ``x1``, and what `log_likelihood` says of them.

    Raises:
        InputError: as in `log_likelihood`.

    Example:
        >>> found = sample_with_log_prob(lambda x, t, labels: -x, jnp.ones((1, 2)))
        >>> found.x1.round(2), found.log_p.round(2)
        (Array([[0.37, 0.37]], dtype=float32), Array([-0.84], dtype=float32))
    """
    spec = _checked(spec, source)
    x0 = _as_points("x0", x0, _manifold_of(spec))
    x1, grown, solution = _carry(velocity, x0, labels, spec, trace, key, 0.0, 1.0)
    return _likelihood(_source_density(source, x0), -grown, trace, x0, x1, solution)


def bits_per_dim(log_p: Nats, dims: int, bin_width: float = 2 / 255) -> Nats:
    """Converts the log-density of dequantised data, in nats, to bits per dimension.

        bits = -(log p(x + w) / dims + log(bin_width)) / log 2

    With w uniform over one bin in every dimension, its mean is an upper bound of what the discrete
    data cost: log P(x) = log E[p(x + w)] + dims log(bin_width), and the log of a mean is at least
    the mean of the log. Source: Theis et al., arXiv:1511.01844.

    Args:
        log_p: nats, of any shape.
        dims: numbers in an example, e.g. 8 * 8 * 1.
        bin_width: the distance of neighbouring levels in the unit of x; 2 / 255 for the 256 levels
            of a pixel in [-1, 1].

    Returns:
        Bits per dimension, shaped as log_p.

    Raises:
        InputError: log_p is not of floats, dims is below 1, or the bin width is not positive.

    Example:
        >>> bits_per_dim(-2 * math.log(2), dims=2, bin_width=1.0)
        1.0
    """
    check_floats("log_p", log_p)
    check_at_least("dims", dims)
    check_positive("the bin width", bin_width)
    return -(log_p / dims + math.log(bin_width)) / math.log(2)


def check_path(path: Path) -> None:
    """Checks that a model trained on this path has a likelihood.

    Raises:
        InputError: the path is stochastic, or one of tokens.
    """
    if getattr(path, "jumps", False):
        raise InputError(
            f"{type(path).__name__} moves tokens, which have no density; a bound of their "
            "log-likelihood is fmjax.discrete.token_log_likelihood."
        )
    if path.noise:
        raise InputError(
            "the likelihood is that of a flow along a deterministic path; "
            f"{type(path).__name__} is stochastic, with noise of its own between source and data. "
            "Train on another path, such as AffinePath() (path.name='linear')."
        )


class _State(NamedTuple):
    """What is solved for: the point, and the integral of each column of its divergence."""

    x: Any
    grown: Array


class _Conditions(NamedTuple):
    """What is constant along the solve, of every example: the probes travel with its labels."""

    labels: Labels
    probes: Any


def _carry(velocity, x, labels, spec, trace, key, t0, t1) -> tuple[Any, Array, Solution]:
    """The points at t1, the integrals of the divergence from t0 to t1 in columns, and the solve."""
    labels = shared_labels(labels, jax.tree.leaves(x)[0].shape[0])
    manifold = _manifold_of(spec)
    probes = draw_probes(trace, key, x, manifold)
    leaves = jax.tree.leaves(x)
    columns = 1 if isinstance(trace, Exact) else trace.num
    lead = leaves[0].shape[:1] if manifold is None else points_of(manifold, x)
    points = math.prod(lead[1:])

    def field(state, t, conditions):
        u, slopes = velocity_and_divergence(
            velocity, state.x, t, conditions.labels, trace, conditions.probes, manifold
        )
        slopes = slopes.astype(state.grown.dtype)
        if len(lead) > 1:  # a product of manifolds has its leading axes in common
            slopes = slopes.reshape(len(slopes), *(1,) * (len(lead) - 1), columns)
            slopes = jnp.broadcast_to(slopes / points, state.grown.shape)
        return _State(u, slopes)

    grown = jnp.zeros((*lead, columns), jnp.result_type(*leaves))
    if getattr(spec, "manifold", None) is not None:
        flat: Any = Euclidean(columns)  # manifolds in a pytree that is built as the points are
        both = None if manifold is None else Product(_State(manifold, flat))
        spec = spec._replace(manifold=both)
    solution = solve(field, _State(x, grown), _Conditions(labels, probes), spec, t0=t0, t1=t1)
    grown = solution.x1.grown
    return solution.x1.x, jnp.sum(grown, axis=tuple(range(1, len(lead)))), solution


def _likelihood(log_p0, grown, trace, x0, x1, solution) -> Likelihood:
    count = grown.shape[1]
    change = jnp.mean(grown, axis=1)
    if isinstance(trace, Exact):
        error = jnp.zeros_like(change)
    elif count == 1:
        error = jnp.full_like(change, jnp.nan)
    else:
        variance = jnp.sum((grown - change[:, None]) ** 2, axis=1) / (count * (count - 1))
        # The root of 0 has no derivative, and signs that see a diagonal Jacobian give 0 exactly.
        root = jnp.sqrt(jnp.where(variance == 0, 1, variance))
        error = jnp.where(variance == 0, 0, root)
    log_p = log_p0 + change
    success = solution.success & jnp.isfinite(log_p)
    log_p, error = (jnp.where(success, value, jnp.nan) for value in (log_p, error))
    return Likelihood(log_p, error, x0, x1, solution.nfe, success, solution.t_end)


def _source_density(source: Source, x0: Any) -> Float[Array, " batch"]:
    log_p = source.log_prob(x0)
    batch = jax.tree.leaves(x0)[0].shape[0]
    check_per_example(f"log_prob of {type(source).__name__}", log_p, batch)
    return log_p


def _checked(spec: Solver | None, source: Source) -> Solver:
    """The solver, once the source has a density where the solver is."""
    check_methods("the source", source, "log_prob", such_as="StandardNormal()")
    if spec is None:
        spec = solver_spec("dopri5", rtol=1e-5, atol=1e-5)
    here, there = _manifold_of(spec), getattr(source, "manifold", None)
    there = None if isinstance(there, Euclidean) else there
    if here is None and there is not None:
        raise InputError(
            f"the source is on {there}, and the solver in flat space; write "
            f"solver_spec('rk4', 50, manifold={there})."
        )
    normal = isinstance(source, StandardNormal)
    if here is not None and (normal or (there is not None and repr(there) != repr(here))):
        raise InputError(
            f"the solver is on {here}, and the source is {source!r:.80}; give the source that the "
            "flow was trained from, such as manifolds.UniformOn(manifold)."
        )
    return spec


def _manifold_of(spec: Solver) -> Manifold | None:
    """The manifold of a solver; None where the space is flat."""
    return getattr(spec, "curved", None)


def _as_points(name: str, x: Any, manifold: Manifold | None) -> Any:
    """The points as float arrays of one batch, checked."""
    leaves = jax.tree.leaves(x)
    for leaf in leaves:
        check_floats(name, leaf)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    if len({shape[:1] for shape in shapes}) != 1 or shapes[0][:1] in ((), (0,)):
        raise InputError(
            f"{name} must have a leading batch axis, (batch, ...), of at least one example; got "
            f"{shapes}."
        )
    check_finite(name, x)
    if manifold is not None:
        manifold.check(name, x)
    return jax.tree.map(at_least_float32, x)
