"""The log-density of a flow in a few jumps of its map, from t = 1 back to t = 0.

A network of two times that gives the average velocity u and the average divergence D over c carries
position and log-density along the flow together:

    x_t = x_s + (t - s) u(x_s, s, t)
    log p_s(x_s) = log p_t(x_t) + (t - s) c D(x_s, s, t)

so that over the times 1 = t_0 > t_1 > ... > t_N = 0 of N jumps

    log p_1(x_1) = log p_0(x_0) + sum_n (t_{n+1} - t_n) c D(x_{t_n}, t_n, t_{n+1}).

On a manifold x_t = exp_{x_s}((t - s) u), and D is the average of the Riemannian divergence.

Where the flow expands, D is positive and each term negative. Source: the joint map of F2D2,
arXiv:2512.02636.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64

from fmjax.array_checks import as_floats, check_finite, check_per_example, check_returned
from fmjax.checks import check_methods, check_positive
from fmjax.conventions import Array, Batched, Labels, Output, Span, Times, take_part
from fmjax.errors import InputError
from fmjax.flow_maps.fields import check_one_array
from fmjax.flow_maps.jumps import Jumps
from fmjax.manifolds import Manifold
from fmjax.samplers.solution import shared_labels
from fmjax.samplers.time_grids import Grid
from fmjax.sources import STANDARD_NORMAL, Source

AverageFn = Callable[[Batched, Span, Labels], Output]
"""``average(x, Span(s, t), labels) -> Output(velocity=u, divergence=D)``, x being at s."""


def few_step_log_likelihood(
    average: AverageFn,
    x1: Batched,
    labels: Labels = None,
    *,
    scale: float,
    steps: int | None = None,
    grid: str | Grid | Times = "uniform",
    source: Source = STANDARD_NORMAL,
    manifold: Manifold | None = None,
) -> Float[Array, " batch"]:
    """The log-density of given points, by a few jumps from t = 1 back to t = 0.

        log p_1(x_1) = log p_0(x_0) + sum_n (t_{n+1} - t_n) c D(x_{t_n}, t_n, t_{n+1})

    It is as accurate as the network is, which must be trained on spans that run backwards, as those
    of `fmjax.times.AnyPair` do, with `fmjax.flow_maps.DivergenceHead`. `fmjax.log_likelihood` of
    the diagonal is what it may be compared with. A pure function, which can be jitted. Source: the
    joint map of F2D2, arXiv:2512.02636.

    Args:
        average: ``average(x, Span(s, t), labels) -> Output(velocity=u, divergence=D)``, u shaped as
            x and D (batch,), for x (batch, ...) at s, and s and t (batch,): a trained network with
            its parameters bound.
        x1: data points (batch, ...), float32 or float64 (half precision is widened).
        labels: what the network takes beside them, with a leading batch axis (a lone one is
            shared), or None.
        scale: c, that of the `DivergenceHead` of its training.
        steps: how many jumps, one evaluation each; None where the grid says so.
        grid: where they start and end: a name of `fmjax.samplers.time_grids.GRIDS`, a grid of that
            module, or the times themselves.
        source: the distribution of x0, of which the log-density is asked.
        manifold: where the points lie, one array each; None in flat space.

    Returns:
        log p_1(x_1) in nats (batch,); `fmjax.bits_per_dim` converts it.

    Raises:
        InputError: x1 is no array of floats or not finite, the labels are not those of the batch,
            the scale is not positive, the steps do not fit the grid, the source has no log-density,
            or the network gives no divergence.
    """
    check_methods("average", average, such_as="lambda x, span, labels: apply_fn(params, x, ...)")
    check_methods("the source", source, "log_prob", such_as="StandardNormal()")
    check_positive("scale of the divergence", scale)
    x, landed = _points(x1), Jumps(manifold=manifold).land
    if manifold is not None:
        manifold.check("x1", x)
    labels = shared_labels(labels, len(x))
    times = jnp.asarray(_times(steps, grid), x.dtype)

    def jump(state: tuple[Array, Array], ends: tuple[Array, Array]) -> tuple:
        x, change = state
        span = Span(*(jnp.full(len(x), end) for end in ends))
        u, divergence = _averages(average(x, span, labels), x)
        duration = span.t - span.s
        grown = change + duration * scale * divergence.astype(x.dtype)
        return (landed(x, duration, u.astype(x.dtype)), grown), None

    start = x, jnp.zeros(len(x), x.dtype)
    (x0, change), _ = jax.lax.scan(jump, start, (times[:-1], times[1:]))
    log_p0 = source.log_prob(x0)
    check_per_example(f"log_prob of {type(source).__name__}", log_p0, len(x))
    return log_p0 + change


def _times(steps: int | None, grid: str | Grid | Times) -> Float64[np.ndarray, " times"]:
    """The times from 1 down to 0, float64 (steps + 1,)."""
    spaced = isinstance(grid, str) or (hasattr(grid, "warp") and not hasattr(grid, "times"))
    if steps is None and spaced:
        raise InputError("how many jumps is not said; write steps=8, or give the times as grid.")
    return Jumps(steps, grid).nodes(1.0, 0.0)


def _points(x1: Batched) -> Batched:
    check_one_array(x1)
    x = as_floats("x1", x1)
    if not len(x):
        raise InputError("x1 must have at least one point; got none.")
    check_finite("x1", x)
    return x


def _averages(output: Output, x: Batched) -> tuple[Batched, Float[Array, " batch"]]:
    """The velocity and the divergence of what a network gave, checked."""
    u = take_part(output, "velocity")
    check_returned("average", u, "x", x)
    # A network that gives one array has no divergence, which `take_part` then says.
    output = output if isinstance(output, Output) else Output(velocity=output)
    divergence = take_part(output, "divergence")
    check_per_example("the divergence of average", divergence, len(x))
    return u, divergence
