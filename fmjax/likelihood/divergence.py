"""The divergence of a velocity, example by example: exactly, or by Hutchinson's probes.

    div u = tr J = sum_i e_i . J e_i,  J = du/dx of one example, e_i the unit vectors        (exact)
    eps . J eps,  whose mean is tr J where eps has mean 0 and covariance I              (Hutchinson)

Both are directional derivatives of one linearisation, so that the velocity itself is evaluated once
however many directions there are. On a manifold, with E_i an orthonormal frame of the tangent space
at x and u projected to it,

    div u = sum_i <E_i, D u [E_i]>_x + D log(sqrt(det g)) [u],

D the derivative by the numbers that x consists of. The second term is 0 where the metric is that of
the arrays (sphere, torus, rotations): there a derivative along the tangent space, projected to it,
is the covariant one. In coordinates (hyperbolic space, positive definite matrices, the simplex) it
is what the Christoffel symbols add: sum_ij Gamma^i_ij u^j = d_j log(sqrt(det g)) u^j. The probes of
Hutchinson are then sum_i eps_i E_i.

An example's velocity must be a function of that example alone: a
network that mixes examples, as batch normalisation does, has no divergence per example, and what
is computed here for it is wrong.

Source: Hutchinson's estimator in a continuous flow, with one probe kept along the whole solve:
Grathwohl et al. (FFJORD), arXiv:1810.01367.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from fmjax.array_checks import shaped_as_x
from fmjax.checks import check_at_least, check_name
from fmjax.conventions import Array, Labels, Velocity, per_example_sum
from fmjax.draws import example_keys
from fmjax.errors import InputError
from fmjax.manifolds import Manifold

PROBE_DISTRIBUTIONS: dict[str, Callable[..., Array]] = {
    "gaussian": jax.random.normal,
    "rademacher": jax.random.rademacher,
}
"""The distributions of the probes: mean 0, covariance I."""


@dataclass(frozen=True)
class Exact:
    """The trace itself, from as many directional derivatives as there are dimensions.

    Args:
        chunk: derivatives taken at once; memory grows with it.

    Raises:
        InputError: chunk is below 1.

    Example:
        >>> Exact(chunk=8)  # log_likelihood(velocity, x1, trace=Exact(chunk=8))
        Exact(chunk=8)
    """

    chunk: int = 32

    def __post_init__(self):
        check_at_least("chunk", self.chunk)


@dataclass(frozen=True)
class Hutchinson:
    """The trace estimated without bias by random probes, fixed along the solve.

    With J_s = (J + J^T) / 2 the variance of one probe is 2 (|J_s|^2 - sum_i J_ii^2) for signs, and
    2 |J_s|^2 for Gaussian probes; `num` of them divide it by `num`.

    Args:
        num: K, the probes of each example; at least 2 to know their standard error.
        kind: ``"rademacher"`` (random signs) or ``"gaussian"``.
        chunk: derivatives taken at once; memory grows with it.

    Raises:
        InputError: num or chunk is below 1, or the kind is unknown.

    Example:
        >>> velocity, x1, trace = lambda x, t, labels: -x, jnp.zeros((1, 2)), Hutchinson(4)
        >>> log_likelihood(velocity, x1, trace=trace, key=jax.random.key(0)).log_p.round(2)
        Array([0.16], dtype=float32)
    """

    num: int = 8
    kind: str = "rademacher"
    chunk: int = 32

    def __post_init__(self):
        check_at_least("the number of probes", self.num)
        check_at_least("chunk", self.chunk)
        check_name("kind of probe", self.kind, PROBE_DISTRIBUTIONS)


ProbeKeys = Key[Array, ""] | Key[Array, " batch"]
"""One random key, or one for each example."""

Trace = Exact | Hutchinson
EXACT_TRACE = Exact()


def draw_probes(
    trace: Trace, key: ProbeKeys | None, x: Any, manifold: Manifold | None = None
) -> Any:
    """The probes of a batch, each example's a function of its own key.

    Args:
        trace: `Exact` has no probes.
        key: one key, folded with each example's place in the batch, or one key per example
            (batch,).
        x: arrays (batch, ...).
        manifold: where x lies, if not in a flat space.

    Returns:
        A pytree as x, each leaf (batch, num, ...); on a manifold coordinates in the tangent space,
        (batch, num, dim); None for `Exact`.

    Raises:
        InputError: the trace is neither; or there is no key, or it is neither one key nor one per
            example.
    """
    if not isinstance(trace, Exact | Hutchinson):
        raise InputError(f"the trace must be Exact() or Hutchinson(8); got {trace!r:.60}.")
    if isinstance(trace, Exact):
        return None
    if key is None:
        raise InputError("Hutchinson draws probes: give key=jax.random.key(0), or one per example.")
    leaves, structure = jax.tree.flatten(x)
    batch = leaves[0].shape[0]
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed or key.shape not in ((), (batch,)):
        came = type(key).__name__ if dtype is None else f"{dtype} of shape {key.shape}"
        raise InputError(
            f"key must be jax.random.key(seed), or one such key per example, ({batch},); "
            f"got {came}."
        )
    keys = example_keys(key, jnp.arange(batch)) if key.ndim == 0 else key
    sizes = [math.prod(leaf.shape[1:]) for leaf in leaves]
    count = sum(sizes) if manifold is None else coordinates_of(manifold, x)
    shape, dtype = (trace.num, count), jnp.result_type(*leaves)
    drawn = jax.vmap(lambda k: PROBE_DISTRIBUTIONS[trace.kind](k, shape, dtype))(keys)
    if manifold is not None:
        return drawn
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    parts = [
        drawn[:, :, end - size : end].reshape(batch, trace.num, *leaf.shape[1:]).astype(leaf.dtype)
        for leaf, size, end in zip(leaves, sizes, ends, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)


def velocity_and_divergence(
    velocity: Velocity,
    x: Any,
    t: Float[Array, " batch"],
    labels: Labels,
    trace: Trace,
    probes: Any = None,
    manifold: Manifold | None = None,
) -> tuple[Any, Float[Array, "batch columns"]]:
    """The velocity, and its divergence in columns: one, or one for each probe.

    Args:
        velocity: ``velocity(x, t, labels)``, shaped as x.
        x: a float array (batch, ...), or a pytree of them.
        t: times (batch,).
        labels: what the velocity takes.
        trace: how the divergence is taken.
        probes: from `draw_probes`, None for `Exact`.
        manifold: where x lies, if not in a flat space; the velocity is then projected to its
            tangent space, and the divergence is the Riemannian one.

    Returns:
        The velocity, shaped as x, and the divergence (batch, 1) or (batch, num): tr J, or
        eps_k . J eps_k.

    Raises:
        InputError: the velocity is not shaped as x.
    """
    velocity = shaped_as_x("the velocity", velocity)
    if manifold is not None:
        return _on_manifold(lambda x: velocity(x, t, labels), x, trace, probes, manifold)
    u, push = jax.linearize(lambda x: velocity(x, t, labels), x)
    if isinstance(trace, Exact):
        count = sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(x))
        slopes = _in_chunks(
            lambda i: _directional_derivative(push, _unit_vector(i, x)),
            jnp.arange(count),
            trace.chunk,
        )
        return u, jnp.sum(slopes, axis=0)[:, None]
    columns = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), probes)
    return u, _in_chunks(lambda eps: _directional_derivative(push, eps), columns, trace.chunk).T


def _on_manifold(
    velocity: Callable[[Any], Any], x: Any, trace: Trace, probes: Any, manifold: Manifold
) -> tuple[Any, Float[Array, "batch columns"]]:
    u, push = jax.linearize(lambda x: manifold.to_tangent(x, velocity(x)), x)
    lead, size = points_of(manifold, x), coordinates_of(manifold, x)

    def slope(coordinates: Array) -> Array:
        """<e, D u [e]> (batch,) of the tangent vector e with these coordinates (batch, size)."""
        e = manifold.tangent(x, coordinates.reshape(*lead, manifold.dim))
        return per_example_sum(manifold.inner(x, e, push(e)))

    volume = per_example_sum(jax.jvp(manifold.log_volume_element, (x,), (u,))[1])
    if isinstance(trace, Exact):
        dtype = jax.tree.leaves(x)[0].dtype

        def along(i: Array) -> Array:
            row = jax.nn.one_hot(i, size, dtype=dtype)
            return slope(jnp.broadcast_to(row, (lead[0], size)))

        slopes = _in_chunks(along, jnp.arange(size), trace.chunk)
        return u, (jnp.sum(slopes, axis=0) + volume)[:, None]
    return u, _in_chunks(slope, jnp.moveaxis(probes, 1, 0), trace.chunk).T + volume[:, None]


def points_of(manifold: Manifold, x: Any) -> tuple[int, ...]:
    """The leading axes of points: (batch,), or (batch, n, ...) of examples of several points."""
    return jax.eval_shape(manifold.log_volume_element, x).shape


def coordinates_of(manifold: Manifold, x: Any) -> int:
    """How many coordinates a tangent vector of one example has."""
    return math.prod(points_of(manifold, x)[1:]) * manifold.dim


def _in_chunks(f: Callable, xs: Any, chunk: int) -> Array:
    """f over the leading axis of xs, ``chunk`` at a time; all at once needs no loop."""
    if len(jax.tree.leaves(xs)[0]) <= chunk:
        return jax.vmap(f)(xs)
    return jax.lax.map(f, xs, batch_size=chunk)


def _directional_derivative(push: Callable, direction: Any) -> Array:
    """direction . J direction of each example (batch,)."""
    moved = push(direction)
    products = jax.tree.map(lambda e, du: per_example_sum(e * du), direction, moved)
    return sum(jax.tree.leaves(products))


def _unit_vector(i: Array, x: Any) -> Any:
    """The unit vector along number i of an example, leaf after leaf, for the whole batch."""
    leaves, structure = jax.tree.flatten(x)
    units, offset = [], 0
    for leaf in leaves:
        size = math.prod(leaf.shape[1:])
        # One-hot gives zeros for a number that lies in another leaf.
        row = jax.nn.one_hot(i - offset, size, dtype=leaf.dtype).reshape(1, *leaf.shape[1:])
        units.append(jnp.broadcast_to(row, leaf.shape))
        offset += size
    return jax.tree.unflatten(structure, units)
