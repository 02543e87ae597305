"""The drifts of the SDEs that have the marginals of a flow, from its velocity and score."""

from typing import NamedTuple

from jaxtyping import Float

from fmjax.conventions import Array


class Drifts(NamedTuple):
    """The drifts of one diffusion, told in both directions of time; shaped as the velocity."""

    forward: Float[Array, "*shape"]
    backward: Float[Array, "*shape"]


def sde_drifts(
    velocity: Float[Array, "*shape"],
    score: Float[Array, "*shape"],
    diffusion: Float[Array, "..."] | float,
) -> Drifts:
    """The drifts u + g^2/2 score and u - g^2/2 score of the SDE with the marginals of the flow u.

    With g = diffusion, dx = forward dt + g dW started from the source, and
    dx = backward dt + g dW run from t = 1 down to 0 (dt < 0), have the density p_t of the flow
    dx = u dt at every t. With the flow and score of a `BrownianBridge` and g = sigma this is the
    Schroedinger bridge.

    The score must be that of p_t. One that `fmjax.predictions.convert` made of the velocity is that
    only if x0 is standard normal and independent of x1: not under minibatch transport, nor after
    reflow. Source: Tong et al., arXiv:2307.03672.

    Args:
        velocity: u_t(x).
        score: grad log p_t(x), shaped as velocity.
        diffusion: g, a number, or an array that broadcasts against the velocity.

    Returns:
        The forward and the backward drift.
    """
    correction = 0.5 * diffusion**2 * score
    return Drifts(velocity + correction, velocity - correction)
