"""The loss of flow and score together, on a Brownian bridge."""

import jax.numpy as jnp

from fmjax.array_checks import check_training_batch
from fmjax.conventions import ApplyFn, at_least_float32, expand
from fmjax.losses.base import LossFn, error_of
from fmjax.losses.distances import squared
from fmjax.paths import BrownianBridge


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
        ``loss_fn(params, Noisy(x0, z), x1, t, labels) -> scalar``.

    Raises:
        InputError: calling the result raises it when shapes do not fit.
    """

    def loss_fn(params, x0, x1, t, labels=None):
        check_training_batch(x0, x1, t, labels)
        x_t, u_t = bridge.sample(x0, x1, t)
        t = at_least_float32(t)
        flow = error_of(flow_fn(params, x_t, t, labels), u_t)
        scaled = expand(bridge.std(t), x_t) * score_fn(params, x_t, t, labels)
        score = error_of(scaled, -at_least_float32(x0.z))
        return jnp.mean(squared(flow)) + jnp.mean(squared(score))

    return loss_fn
