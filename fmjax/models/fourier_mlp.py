"""An MLP on Fourier features that open as the noise goes: for fine densities of few numbers.

Features sin(w d.x) and cos(w d.x), d a random unit vector and w log-spaced from 1 to the scale of
the data, are multiplied by exp(-(1.2 w (1 - t))^2 / 2): at a time t the points of a path are spread
over a width near 1 - t, and what is finer than that is noise to a network.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from fmjax.checks import check_positive
from fmjax.conventions import Array, Span
from fmjax.models.embedders import ConditionEmbed, HashableConditions
from fmjax.models.input_checks import check_inputs, check_rank, check_sizes

_GATE = 1.2
_TIMES = 8  # cosines of the time
_OF_TIME = _TIMES + 1


class FourierMLP(HashableConditions, nn.Module):
    """A velocity of few numbers, such as the coordinates around a manifold, with fine features.

    With phi(x, t) the features of the module, tau(t) the cosines of t and log(1.01 - t), for
    k = 1, ..., depth:

        h_0 = W_0 [x, phi, tau],    h_k = h_{k-1} + SiLU(W_k h_{k-1} + V_k [tau, SiLU(c)])

    where c, of a network with labels, embeds them and t.

    Attributes:
        features: the number of frequencies.
        frequency: the largest of them, in radians for a unit of x: about one over the width of the
            finest part of the data.
        width: of the hidden layers.
        depth: their number; each adds to the one before.
        conditions: a condition such as ``ClassIds(10)``, or a dictionary of them, which the labels
            are; see `fmjax.conditions`. None: unconditional.
        outputs: how many numbers it gives; None for as many as a point has.
        guidance: whether the network takes a guidance scale w as an input, embedded into c; labels
            is then ``{"labels": labels, "guidance": w}``.
        span: whether it takes two times, ``Span(s, t)``, for the average velocity between them.

    Example:
        >>> model = FourierMLP(features=8, width=16, depth=1)
        >>> x, t = jnp.zeros((4, 3)), jnp.zeros(4)
        >>> jax.eval_shape(model.init_with_output, jax.random.key(0), x, t)[0].shape
        (4, 3)
    """

    features: int = 128
    frequency: float = 100.0
    width: int = 256
    depth: int = 4
    conditions: Any = None
    outputs: int | None = None
    guidance: bool = False
    span: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B ..."], t: Float[Array, " B"] | Span, labels: Any = None
    ) -> Float[Array, "B ..."]:
        """Predict the velocity.

        Args:
            x: points (B, ...), at least one feature axis; the features are flattened inside.
            t: times in [0, 1], shape (B,); with `span`, ``Span(s, t)`` of two such.
            labels: arrays with a leading axis B, built as `conditions` are; None exactly if that
                is None.

        Returns:
            Numbers shaped as x, or (B, outputs).

        Raises:
            InputError: a field or an argument does not fit; see `fmjax.models.input_checks`.
        """
        labels, w = self._check(x, t, labels)
        flat = x.reshape(len(x), -1)
        s, end = (t.s, t.t) if isinstance(t, Span) else (t, None)
        h = jnp.concatenate([flat, self._waves(flat, s), _of_time(s)], axis=1)
        h = nn.Dense(self.width, name="first")(h)
        given = _of_time(s) if end is None else jnp.concatenate([_of_time(s), _of_time(end)], 1)
        if self._is_told:
            given = jnp.concatenate([given, nn.silu(self._embedding()(t, labels, w))], axis=1)
        for k in range(self.depth):
            shift = nn.Dense(self.width, use_bias=False, name=f"time_{k}")(given)
            h = h + nn.silu(nn.Dense(self.width, name=f"hidden_{k}")(h) + shift)
        count = self.outputs or flat.shape[1]
        out = nn.Dense(count, kernel_init=nn.initializers.zeros_init(), name="out")(h)
        return out if self.outputs else out.reshape(x.shape)

    @nn.nowrap
    def forward_flops(self, shape: tuple[int, ...]) -> int | None:
        """Operations of one forward pass over one example; see `fmjax.models.flops`.

        Args:
            shape: of the example.

        Returns:
            The number; None where an embedding of a condition's own does not say.
        """
        size, D = math.prod(shape), self.width
        embedding = self._embedding().forward_flops() if self._is_told else 0
        given = _OF_TIME * (2 if self.span else 1) + (D if self._is_told else 0)
        first = size * self.features + (size + 2 * self.features + _OF_TIME) * D
        products = first + self.depth * (D + given) * D + D * (self.outputs or size)
        return None if embedding is None else 2 * products + embedding

    @property
    def _is_told(self) -> bool:
        return self.conditions is not None or self.guidance

    @nn.nowrap
    def _embedding(self) -> ConditionEmbed:
        return ConditionEmbed(
            self.width,
            self.conditions,
            64,
            guidance=self.guidance,
            span=self.span,
            name="condition",
        )

    def _waves(self, flat: Array, s: Array) -> Array:
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(self.features, flat.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        w = np.geomspace(1, self.frequency, self.features)
        phase = flat @ jnp.asarray((w[:, None] * directions).T, flat.dtype)
        gate = jnp.exp(-0.5 * jnp.square(_GATE * jnp.asarray(w[None], s.dtype) * (1 - s)[:, None]))
        return jnp.concatenate([gate * jnp.sin(phase), gate * jnp.cos(phase)], axis=1)

    def _check(self, x: Array, t: Any, labels: Any) -> tuple[Any, Array | None]:
        """The labels and the guidance scale, or None, once everything fits."""
        check_sizes(self, "features", "width", "depth")
        check_positive("frequency", self.frequency)
        check_rank(x, "(batch, ...)", 2, math.inf)
        return check_inputs(self, x, t, labels)


def _of_time(t: Array) -> Array:
    """Cosines of t, and log(1 - t + 0.01), which tells late times apart (batch, 9)."""
    waves = jnp.cos(math.pi * jnp.arange(_TIMES)[None] * t[:, None])
    return jnp.concatenate([waves, jnp.log(1 - t[:, None] + 0.01)], axis=1)
