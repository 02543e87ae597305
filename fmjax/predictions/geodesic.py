"""The velocity of a flow on a manifold, of a network that predicts it or the end of the path."""

import jax
import jax.numpy as jnp

from fmjax.checks import check_name
from fmjax.conventions import ApplyFn, Prediction, expand
from fmjax.manifolds import Manifold, in_tangent_space
from fmjax.schedules import Schedule, clamp


def geodesic_velocity(
    apply_fn: ApplyFn, kappa: Schedule, prediction: Prediction, margin: float, manifold: Manifold
) -> ApplyFn:
    """The network as one of velocities: tangent vectors at x; see `fmjax.as_velocity`.

    On the geodesic from x0 to x1, log_{x_t}(x1) is (1 - kappa_t) dist(x0, x1) long, so that
    u_t = d_kappa_t / (1 - kappa_t) log_{x_t}(x1). The factor is read at 1 - margin nearer to t = 1.

    Args:
        apply_fn: ``apply_fn(params, x, t, labels)``, built as x.
        kappa: of the path.
        prediction: ``"velocity"`` or ``"x1"``.
        margin: how near to t = 1.
        manifold: of the path.

    Raises:
        InputError: the prediction is another one.
    """
    check_name("prediction on a manifold", prediction, ("velocity", "x1"))
    if prediction == "velocity":
        return in_tangent_space(apply_fn, manifold)

    def velocity_fn(params, x, t, labels):
        here = clamp(t, 0.0, 1.0 - margin)
        end = manifold.project(apply_fn(params, x, here, labels))
        rate = jnp.asarray(kappa.d_alpha(here) / (1 - kappa.alpha(here)))
        return jax.tree.map(lambda u: expand(rate, u) * u, manifold.log(x, end))

    return velocity_fn
