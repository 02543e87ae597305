"""Flows through snapshots in time: one velocity field that carries each snapshot into the next.

Between two snapshots, at the times a and b, a flow is learned as between any source and data, at a
time r of its own from 0 to 1. The field that is wanted has one time over all snapshots, t = a + r
(b - a), and its velocity is slower by b - a:

    v(x, r; a, b) = (b - a) u(x, a + r (b - a))

`on_intervals` turns u into v, for the loss; u itself is solved from any time to any other. The
ends of each pair travel with its labels. Pairs of neighbouring snapshots are what
`fmjax.data.snapshots` gives. As in multi-marginal flow matching (Rohbeck et al., ICLR 2025), here
along straight lines or any other path of this package.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import check_returned
from fmjax.checks import check_methods
from fmjax.conventions import ApplyFn, Array, Labels, Params, expand
from fmjax.errors import InputError

INTERVAL = "interval"
"""The name, among the labels, of the ends (batch, 2) of the interval that a pair belongs to."""


def on_intervals(apply_fn: ApplyFn) -> ApplyFn:
    """A velocity field over all of time, as the velocity between two neighbouring snapshots.

        v(params, x, r, {"interval": (a, b), ...}) = (b - a) u(params, x, a + r (b - a), ...)

    Args:
        apply_fn: ``apply_fn(params, x, t, labels)``, the field u over all snapshots, the first at
            t = 0 and the last at t = 1.

    Returns:
        ``local(params, x, r, labels)``, r (batch,) from 0 to 1, labels a dictionary with
        ``"interval"`` (batch, 2); what else is in it goes to the network, None where nothing is.

    Raises:
        InputError: the network is no function. When called: the labels have no interval, it is
            not (batch, 2), or the velocity is not shaped as x.

    Example:
        >>> local = on_intervals(lambda params, x, t, labels: params + 0 * x)
        >>> labels = {"interval": jnp.array([[0.0, 0.25]])}
        >>> local(1.0, jnp.zeros((1, 2)), jnp.array([0.5]), labels)
        Array([[0.25, 0.25]], dtype=float32)
    """
    check_methods("apply_fn", apply_fn, such_as="adapters.from_linen(module)")

    def local(
        params: Params, x: Float[Array, " batch *shape"], r: Float[Array, " batch"], labels: Labels
    ) -> Float[Array, " batch *shape"]:
        start, end = _ends(labels, len(x))
        rest = {name: leaf for name, leaf in labels.items() if name != INTERVAL} or None
        length = (end - start).astype(r.dtype)
        u = apply_fn(params, x, start.astype(r.dtype) + r * length, rest)
        check_returned("apply_fn", u, "x", x)
        return expand(length, u).astype(u.dtype) * u

    return local


def _ends(labels: Any, batch: int) -> tuple[Array, Array]:
    interval = labels.get(INTERVAL) if isinstance(labels, dict) else None
    if interval is None or getattr(interval, "shape", None) != (batch, 2):
        came = "no such dictionary" if interval is None else f"one of shape {jnp.shape(interval)}"
        raise InputError(
            f"labels must be a dictionary with {INTERVAL!r}, the two ends (batch, 2) of each "
            f"pair's interval, as fmjax.data.snapshots gives; got {came}."
        )
    return interval[:, 0], interval[:, 1]
