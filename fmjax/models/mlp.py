"""A multilayer perceptron for vectors: two-dimensional toys, tabular data, small latents."""

import math
from typing import Any

from flax import linen as nn
from jaxtyping import Float

from fmjax.checks import check_positive
from fmjax.conventions import Array, Output, Span
from fmjax.errors import InputError
from fmjax.models.context import ContextEmbed, image_sizes, images, pooled, summed
from fmjax.models.embedders import ConditionEmbed, HashableConditions
from fmjax.models.input_checks import check_inputs, check_rank, check_sizes
from fmjax.models.parts import check_parts, parts_products, with_parts


class MLP(HashableConditions, nn.Module):
    """Velocity of a vector at a time, and optionally given labels.

    With c = SiLU(embed(t) + embed(labels) + embed(w) + embed(t - s)), for k = 1, ..., depth:

        h_0 = x,    h_k = SiLU(W_k h_{k-1} + V_k c),    out = W h_depth

    The condition enters every layer, so that a deep network need not carry it along. A sequence
    adds the mean of its embedded places, those that its mask leaves out not counted. An image is
    put beside x: sum_i U_i image_i is added within the first layer, and U_i starts at zero.

    Attributes:
        width: size of the hidden layers and of the condition.
        depth: number of hidden layers.
        conditions: a condition such as ``ClassIds(10)``, or a dictionary of them, which the labels
            are; see `fmjax.conditions`. None: unconditional.
        time_features: number of sinusoidal features of the time, even.
        time_scale: what t is multiplied by first; see `fmjax.models.embedders`. With DiT's 1000 the
            velocity of a mixture of Gaussians was learned as well, but the mean square error of
            its time derivative, which some losses use, was twelve times as large.
        zero_init: whether the output layer starts at zero, so that a fresh model outputs 0.
        guidance: whether the network takes a guidance scale w as an input, embedded and added to
            the condition; labels is then ``{"labels": labels, "guidance": w}``.
        span: whether the network takes two times, ``Span(s, t)`` in the place of t, for the average
            velocity between them; see `fmjax.conventions.Span`. What t - s adds is zero at first.
        parts: further outputs of a network of two times, names of `fmjax.models.parts.PARTS`, e.g.
            ``("divergence",)``. Each is one more linear map of h_depth: the divergence starts at
            zero, and the diagonal as the velocity does.

    Example:
        >>> model = MLP(width=16, depth=1)
        >>> x, t = jnp.zeros((4, 2)), jnp.zeros(4)
        >>> params = model.init(jax.random.key(0), x, t, None)["params"]
        >>> model.apply({"params": params}, x, t, None).shape
        (4, 2)
    """

    width: int = 128
    depth: int = 3
    conditions: Any = None
    time_features: int = 64
    time_scale: float = 100.0
    zero_init: bool = True
    guidance: bool = False
    span: bool = False
    parts: tuple[str, ...] = ()

    @nn.compact
    def __call__(
        self, x: Float[Array, " B *features"], t: Float[Array, " B"] | Span, labels: Any = None
    ) -> Float[Array, " B *features"] | Output:
        """Predict the velocity.

        Args:
            x: shape (B, ...), at least one feature axis; the features are flattened inside.
            t: times in [0, 1], shape (B,), float32; with `span`, ``Span(s, t)`` of two such.
            labels: arrays with a leading axis B, built as `conditions` are; None exactly if that
                is None. With `guidance`, a dict of these and the scale w, shape (B,), floating.

        Returns:
            Shape of `x`, float32 (float64 for float64 inputs); with `parts` an `Output` that has
            this as ``velocity``, beside ``divergence`` (B,) and ``diagonal``, shaped as `x`.

        Raises:
            InputError: a field or an argument does not fit; see `fmjax.models.input_checks`.
        """
        labels, w = self._check(x, t, labels)
        c = self._embedding()(t, labels, w)
        context = self._context()(labels)
        c = nn.silu(c if context is None else c + pooled(context))
        h = x.reshape(x.shape[0], -1)
        for k in range(self.depth):
            layer = nn.Dense(self.width, name=f"hidden_{k}")
            shift = nn.Dense(self.width, use_bias=False, name=f"condition_{k}")
            h = layer(h) + shift(c)
            h = nn.silu(h if k else self._with_images(h, labels))
        init = nn.initializers.zeros_init() if self.zero_init else nn.initializers.lecun_normal()

        def velocity(name: str) -> Array:
            layer = nn.Dense(math.prod(x.shape[1:]), kernel_init=init, name=name)
            return layer(h).reshape(x.shape)

        return with_parts(velocity, lambda: h, self.parts)

    def _with_images(self, h: Array, labels: Any) -> Array:
        """The first layer as it is with the images that stand beside x."""
        zeros = nn.initializers.zeros_init()
        for name, image in images(self.conditions, labels).items():
            flat = image.reshape(image.shape[0], -1)
            layer = nn.Dense(self.width, use_bias=False, kernel_init=zeros, name=f"image_{name}")
            h = h + layer(flat)
        return h

    @nn.nowrap
    def forward_flops(self, shape: tuple[int, ...]) -> int | None:
        """Operations of one forward pass over one example; see `fmjax.models.flops`.

        Args:
            shape: of the example.

        Returns:
            The number; None where an embedding of a condition's own does not say.
        """
        features, D = math.prod(shape), self.width
        layers = features * D + (self.depth - 1) * D * D + self.depth * D * D + D * features
        layers += parts_products(self.parts, D, D * features) + image_sizes(self.conditions) * D
        embedding, context = self._embedding().forward_flops(), self._context().forward_flops()
        return None if embedding is None else 2 * layers + embedding + context

    @nn.nowrap
    def _embedding(self) -> ConditionEmbed:
        return ConditionEmbed(
            self.width,
            summed(self.conditions),
            self.time_features,
            self.time_scale,
            self.guidance,
            self.span,
            name="condition",
        )

    @nn.nowrap
    def _context(self) -> ContextEmbed:
        return ContextEmbed(self.width, self.conditions, name="context")

    def _check(self, x: Array, t: Any, labels: Any) -> tuple[Any, Array | None]:
        """The labels and the guidance scale, or None, once everything fits."""
        check_sizes(self, "width", "depth", "time_features")
        check_positive("time_scale", self.time_scale)
        if self.time_features % 2:
            raise InputError(
                f"time_features={self.time_features}: expected an even number, half of them "
                f"cosines and half sines, e.g. {self.time_features + 1}."
            )
        check_parts(self.parts, self.span)
        check_rank(x, "(batch, ...)", 2, math.inf)
        return check_inputs(self, x, t, labels)
