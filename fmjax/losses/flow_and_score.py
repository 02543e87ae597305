"""The loss of flow and score together, on a Brownian bridge."""

import jax.numpy as jnp

from fmjax.array_checks import check_returned, check_training_batch
from fmjax.conventions import ApplyFn, at_least_float32, expand, take_part
from fmjax.losses.base import LossFn, declare
from fmjax.paths import BrownianBridge, squared


def make_flow_and_score_loss_fn(
    flow_fn: ApplyFn, score_fn: ApplyFn, bridge: BrownianBridge
) -> LossFn:
    """Makes the loss of flow and score together on a Brownian bridge, for one set of parameters.

    L = E ||v(x_t, t) - u_t||^2 / d + E ||std_t s(x_t, t) + z||^2 / d,

    the score weighted by the bridge's standard deviation std_t, under which its target, -z, has
    variance one at every t. Source: Tong et al., arXiv:2307.03672 ([SF]2M), section 3, whose
    weight is 2 std_t / sigma^2.

    Args:
        flow_fn: the velocity network, ``flow_fn(params, x, t, labels)``.
        score_fn: the score network, ``score_fn(params, x, t, labels)``.
        bridge: the path.

    Returns:
        ``loss_fn(params, x0, x1, t, labels, noise={"z": z}) -> scalar``.

    Raises:
        InputError: calling the result raises it when shapes do not fit.
    """

    def loss_fn(params, x0, x1, t, labels, *, noise):
        check_training_batch(x0, x1, t, labels)
        x_t, u_t = bridge.sample(x0, x1, t, noise)
        t = at_least_float32(t)
        flow = take_part(flow_fn(params, x_t, t, labels), "velocity")
        score = take_part(score_fn(params, x_t, t, labels), "score")
        check_returned("score_fn", score, "x", x_t)
        scaled = expand(bridge.std(t), x_t) * score
        error = squared(flow, u_t) + squared(scaled, -at_least_float32(noise["z"]))
        return jnp.mean(error)

    return declare(loss_fn, noise=bridge.noise)
