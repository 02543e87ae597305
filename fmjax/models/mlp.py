"""A multilayer perceptron for vectors: two-dimensional toys, tabular data, small latents."""

import math
from typing import Any

import jax
from flax import linen as nn

from fmjax.errors import InputError
from fmjax.models.embedders import Condition
from fmjax.models.input_checks import (
    check_batch,
    check_labels,
    check_rank,
    check_sizes,
    split_guidance,
)


class MLP(nn.Module):
    """Velocity of a vector at a time, and optionally given its class.

    With c = SiLU(embed(t) + embed(label) + embed(w)), for k = 1, ..., depth:

        h_0 = x,    h_k = SiLU(W_k h_{k-1} + V_k c),    out = W h_depth

    The condition enters every layer, so that a deep network need not carry it along.

    Attributes:
        width: size of the hidden layers and of the condition.
        depth: number of hidden layers.
        num_classes: number of classes; the null class is index `num_classes`. None: unconditional.
        time_features: number of sinusoidal features of the time, even.
        time_scale: what t is multiplied by first; see `fmjax.models.embedders`. With DiT's 1000 the
            velocity of a mixture of Gaussians was learned as well, but the mean square error of
            its time derivative, which some losses use, was twelve times as large.
        zero_init: whether the output layer starts at zero, so that a fresh model outputs 0.
        guidance: whether the network takes a guidance scale w as an input, embedded and added to
            the condition; labels is then ``{"labels": labels, "guidance": w}``.
    """

    width: int = 128
    depth: int = 3
    num_classes: int | None = None
    time_features: int = 64
    time_scale: float = 100.0
    zero_init: bool = True
    guidance: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, labels: Any = None) -> jax.Array:
        """Predict the velocity.

        Args:
            x: shape (B, ...), at least one feature axis; the features are flattened inside.
            t: times in [0, 1], shape (B,), float32.
            labels: class ids, shape (B,), integer, or weights over the classes and the null class,
                (B, num_classes + 1), floating; None exactly if `num_classes` is None. With
                `guidance`, a dict of these and the scale w, shape (B,), floating.

        Returns:
            Shape of `x`, float32 (float64 for float64 inputs).

        Raises:
            InputError: a field or an argument does not fit; see `fmjax.models.input_checks`.
        """
        labels, w = self._check(x, t, labels)
        condition = Condition(
            self.width,
            self.num_classes,
            self.time_features,
            self.time_scale,
            self.guidance,
            name="condition",
        )
        c = nn.silu(condition(t, labels, w))
        h = x.reshape(x.shape[0], -1)
        for k in range(self.depth):
            layer = nn.Dense(self.width, name=f"hidden_{k}")
            shift = nn.Dense(self.width, use_bias=False, name=f"condition_{k}")
            h = nn.silu(layer(h) + shift(c))
        init = nn.initializers.zeros_init() if self.zero_init else nn.initializers.lecun_normal()
        return nn.Dense(math.prod(x.shape[1:]), kernel_init=init, name="out")(h).reshape(x.shape)

    def _check(self, x: jax.Array, t: jax.Array, labels: Any) -> tuple[Any, jax.Array | None]:
        """The labels and the guidance scale, or None, once everything fits."""
        check_sizes(self, "width", "depth", "num_classes", "time_features")
        if self.time_features % 2:
            raise InputError(
                f"time_features={self.time_features}: expected an even number, half of them "
                f"cosines and half sines, e.g. {self.time_features + 1}."
            )
        check_rank(x, "(batch, ...)", 2, math.inf)
        check_batch(x, t)
        labels, w = split_guidance(labels, x.shape[0], self.guidance)
        check_labels(labels, x.shape[0], self.num_classes)
        return labels, w
