"""A network of your own: a residual MLP, for ``--config.model.name=residual_network:build``."""

import math
from typing import Any

import jax
from flax import linen as nn

from fmjax.conditions import check_labels
from fmjax.models.embedders import ConditionEmbed, HashableConditions


class ResidualMLP(HashableConditions, nn.Module):
    """Velocity of a vector: h = h + W_k SiLU(norm(h) + V_k c) in each layer.

    Attributes:
        width: of the layers.
        depth: how many there are.
        conditions: what the labels are, as `fmjax.conditions` describes.
    """

    width: int
    depth: int
    conditions: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, labels: Any = None) -> jax.Array:
        """Predict the velocity at points x (B, ...) and times t (B,); the shape of x."""
        check_labels(labels, self.conditions, len(x))
        embed = ConditionEmbed(self.width, self.conditions, time_scale=100.0, name="condition")
        c = nn.silu(embed(t, labels))
        h = nn.Dense(self.width, name="in")(x.reshape(len(x), -1))
        for k in range(self.depth):
            shift = nn.Dense(self.width, use_bias=False, name=f"condition_{k}")(c)
            inner = nn.silu(nn.LayerNorm(name=f"norm_{k}")(h) + shift)
            h = h + nn.Dense(self.width, name=f"layer_{k}")(inner)
        last = nn.Dense(math.prod(x.shape[1:]), kernel_init=nn.initializers.zeros_init())
        return last(h).reshape(x.shape)


def build(model_config: Any, conditions: Any) -> ResidualMLP:
    """The network of a configuration: ``model.width`` and ``model.depth``, or 64 and 3."""
    return ResidualMLP(model_config.width or 64, model_config.depth or 3, conditions)
