"""Embeddings of times, conditions, guidance scale and position.

`EMBEDDERS` says which module embeds a condition of which kind. A condition of another kind brings
its own: a method ``embedder(width, name)`` that makes a Linen module, from the array (B, ...) of
such labels to (B, width). Its operations are counted if the module has a method
``forward_flops()``, those of one example.

Time is embedded in float32 (float64 if `t` is) whatever the network computes in: half of the times
0, 1/1000, ..., 1 coincide in bfloat16.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import freeze
from jaxtyping import Float, Integer, Real

from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.names import named_leaves

TIME_SCALE = 1000.0
MAX_PERIOD = 10_000.0
GUIDANCE_SCALE = 10.0  # of a scale w up to 10: angles up to 100, smooth between scales
SPAN_SCALE = 10.0  # of t - s, by which losses of flow maps differentiate: 1000 would make it rough
_normal = nn.initializers.normal(0.02)


def sinusoidal(
    t: Real[Array, " B"], dim: int, *, scale: float = TIME_SCALE, max_period: float = MAX_PERIOD
) -> Float[Array, "B {dim}"]:
    """Cosines, then sines, of the time at geometrically spaced frequencies.

    With h = dim / 2 and k = 0, ..., h - 1:

        f_k = max_period^(-k / h),    out = [cos(scale t f_0), ..., sin(scale t f_{h-1})]

    The frequencies are those of DiT (arXiv:2212.09748), which counts 1000 diffusion steps; our t
    lies in [0, 1], so that `scale` is 1000 to use the same frequencies on the same range.

    Args:
        t: times in [0, 1], shape (B,).
        dim: number of features, even.
        scale: what t is multiplied by.
        max_period: the ratio of the fastest to the slowest frequency (approached, not reached).

    Returns:
        Shape (B, dim), float32 (float64 if t is).
    """
    t = t.astype(jnp.promote_types(t.dtype, jnp.float32))
    half = dim // 2
    frequencies = np.exp(-np.log(max_period) * np.arange(half) / half)
    angles = t[:, None] * jnp.asarray(scale * frequencies, t.dtype)[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def sincos_2d(
    rows: int, columns: int, width: int, spacing: float = 1.0
) -> Float[np.ndarray, "{rows}*{columns} {width}"]:
    """The fixed position embedding of a grid of patches (MAE, arXiv:2111.06377, as in DiT).

    With q = width / 4 and w_k = spacing 10000^(-k / q), the patch in row i and column j, number
    i * columns + j, gets

        [sin(j w), cos(j w), sin(i w), cos(i w)]

    Args:
        rows: number of rows of patches.
        columns: number of columns of patches.
        width: number of features, a multiple of 4.
        spacing: the distance between neighbours, in the paper's units.

    Returns:
        A NumPy array of shape (rows * columns, width), float32: a constant, not a parameter.
    """
    quarter = width // 4
    frequencies = spacing * 10_000.0 ** (-np.arange(quarter) / quarter)
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    across, down = (np.outer(k.ravel(), frequencies) for k in (j, i))
    parts = [np.sin(across), np.cos(across), np.sin(down), np.cos(down)]
    return np.concatenate(parts, axis=1).astype(np.float32)


class TimeEmbed(nn.Module):
    """Sinusoidal features of the time, then Dense, SiLU, Dense (arXiv:2212.09748, section 3.2).

    Attributes:
        width: number of output features.
        features: number of sinusoidal features, even.
        scale: what t in [0, 1] is multiplied by first; see `sinusoidal`.
        zero_init: whether the embedding is zero at first.
        max_period: see `sinusoidal`.
    """

    width: int
    features: int = 256
    scale: float = TIME_SCALE
    zero_init: bool = False
    max_period: float = MAX_PERIOD

    @nn.compact
    def __call__(self, t: Float[Array, " B"]) -> Float[Array, "B {self.width}"]:
        """Embed t of shape (B,) as (B, width), float32 (float64 if t is)."""
        h = sinusoidal(t, self.features, scale=self.scale, max_period=self.max_period)
        h = nn.silu(nn.Dense(self.width, kernel_init=_normal, name="dense_0")(h))
        init = nn.initializers.zeros_init() if self.zero_init else _normal
        return nn.Dense(self.width, kernel_init=init, name="dense_1")(h)

    @nn.nowrap
    def forward_flops(self) -> int:
        """Operations of one time: two for each multiply-add of the two products."""
        return 2 * (self.features * self.width + self.width * self.width)


class LabelEmbed(nn.Module):
    """One learned vector per class, and one more for "no class" (arXiv:2207.12598).

    Attributes:
        num_classes: number of classes; the null class is row `num_classes` of the table.
        width: number of features.
    """

    num_classes: int
    width: int

    @nn.compact
    def __call__(
        self, labels: Integer[Array, " B"] | Float[Array, "B {self.num_classes}+1"]
    ) -> Float[Array, "B {self.width}"]:
        """Embed class ids (B,), or weights over the classes, as (B, width), float32.

        Weights are of floating dtype and of shape (B, num_classes + 1); they embed as the weighted
        sum of the rows, a row of the identity as its class. Ids out of range become NaN.
        """
        table = self.param("table", _normal, (self.num_classes + 1, self.width), jnp.float32)
        if jnp.issubdtype(labels.dtype, jnp.floating):
            return jnp.matmul(labels, table, precision=jax.lax.Precision.HIGHEST)
        # An id out of range would otherwise be clipped, or wrap to the null class, in silence.
        return (
            jnp.asarray(table)
            .at[labels]
            .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        )

    @nn.nowrap
    def forward_flops(self) -> int:
        """Operations of one class id: a look-up is no product."""
        return 0


class VectorEmbed(nn.Module):
    """Dense, SiLU, Dense, as the time is embedded after its sinusoidal features.

    Attributes:
        size: how many numbers a vector has.
        width: number of output features.
    """

    size: int
    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B size"]) -> Float[Array, "B {self.width}"]:
        """Embed vectors (B, size) as (B, width), float32 (float64 if they are)."""
        h = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        h = nn.silu(nn.Dense(self.width, kernel_init=_normal, name="dense_0")(h))
        return nn.Dense(self.width, kernel_init=_normal, name="dense_1")(h)

    @nn.nowrap
    def forward_flops(self) -> int:
        """Operations of one vector: two for each multiply-add of the two products."""
        return 2 * (self.size * self.width + self.width * self.width)


EMBEDDERS: dict[str, Callable[[Any, int, str], nn.Module]] = {
    "class": lambda condition, width, name: LabelEmbed(condition.num_classes, width, name=name),
    "vector": lambda condition, width, name: VectorEmbed(condition.size, width, name=name),
}
"""By the kind of a condition: ``make(condition, width, name)``, the module that embeds it."""


def make_embedder(condition: Any, width: int, name: str) -> nn.Module:
    """The module that embeds a condition: its own, or that of its kind.

    Args:
        condition: see `fmjax.conditions`.
        width: number of output features.
        name: of the module, and so of its parameters.

    Raises:
        InputError: it has none of its own, and no module is known for its kind.
    """
    if hasattr(condition, "embedder"):
        return condition.embedder(width, name)
    if condition.kind not in EMBEDDERS:
        raise InputError(
            f"the network cannot embed a condition of kind {condition.kind!r}, and can of "
            f"{', '.join(EMBEDDERS)}: give {type(condition).__name__} a method embedder(width, "
            "name) that makes a Linen module from (batch, ...) to (batch, width)."
        )
    return EMBEDDERS[condition.kind](condition, width, name)


class HashableConditions:
    """Freezes the field `conditions` of a module that inherits from this before `nn.Module`.

    Flax hashes a module under ``jax.jit(module.init)``, and a dictionary has no hash.
    """

    conditions: Any

    def __post_init__(self):
        if isinstance(self.conditions, dict):
            self.conditions = freeze(self.conditions)
        super().__post_init__()  # type: ignore[misc]  # flax makes it


class ConditionEmbed(HashableConditions, nn.Module):
    """The vector that a network is conditioned by: a sum of embeddings.

        embed(t) + sum_i embed_i(labels_i) + embed(w) + embed(t - s)

    Of two times the first, s, takes the place of t: it is the time of x.
    The last two, where they are asked for, are zero at first: a network that takes its other
    parameters from a trained one without them (`fmjax.models.adapters.extend_params`) starts as
    that one.

    Attributes:
        width: number of features.
        conditions: a condition, or a dictionary of them, as `fmjax.conditions` describes; None for
            no labels.
        time_features: number of sinusoidal features.
        time_scale: what t in [0, 1] is multiplied by; see `sinusoidal`.
        guidance: whether a guidance scale w is embedded.
        span: whether there are two times.
        max_period: of the features of times; see `sinusoidal`.
        guidance_scale: what w is multiplied by.
        labels_apart: whether the embeddings of the labels are given by themselves, too.
    """

    width: int
    conditions: Any = None
    time_features: int = 256
    time_scale: float = TIME_SCALE
    guidance: bool = False
    span: bool = False
    max_period: float = MAX_PERIOD
    guidance_scale: float = GUIDANCE_SCALE
    labels_apart: bool = False

    @nn.compact
    def __call__(self, t: Any, labels: Any = None, w: Float[Array, " B"] | None = None) -> Any:
        """Embed times, labels and guidance scales.

        Args:
            t: times (B,), or ``Span(s, t)`` with `span`.
            labels: arrays (B, ...), built as the conditions are.
            w: (B,) with `guidance`.

        Returns:
            (B, width), float32 (float64 if the times are); with `labels_apart`, a pair of this and
            the sum over the labels alone.

        Raises:
            InputError: there is no embedding for a condition, or it gives another shape.
        """
        embed, arrays = self._modules(), named_leaves(labels)
        c = embed["time"](t.s if self.span else t)
        of_labels = jnp.zeros_like(c)
        for name in named_leaves(self.conditions):
            label = embed[_label_name(name)](arrays[name])
            if label.shape != c.shape:
                raise InputError(
                    f"the embedding of {name} must be of shape {c.shape}; got {label.shape}: see "
                    "what the method embedder of its condition makes."
                )
            c, of_labels = c + label, of_labels + label
        if self.guidance:
            c = c + embed["guidance"](w)
        if self.span:
            c = c + embed["span"](t.t - t.s)
        return (c, of_labels) if self.labels_apart else c

    @nn.nowrap
    def forward_flops(self) -> int | None:
        """Operations of one example; None where a module of a condition's own does not say."""
        total = 0
        for module in self._modules().values():
            if not hasattr(module, "forward_flops"):
                return None
            total += module.forward_flops()
        return total

    @nn.nowrap
    def _modules(self) -> dict[str, nn.Module]:
        """Each embedding, under the name of its parameters."""
        time = partial(TimeEmbed, self.width, self.time_features, max_period=self.max_period)
        made: dict[str, nn.Module] = {"time": time(self.time_scale, name="time")}
        for leaf, condition in named_leaves(self.conditions).items():
            name = _label_name(leaf)
            made[name] = make_embedder(condition, self.width, name)
        if self.guidance:
            made["guidance"] = time(self.guidance_scale, zero_init=True, name="guidance")
        if self.span:
            made["span"] = time(SPAN_SCALE, zero_init=True, name="span")
        return made


def _label_name(leaf: str) -> str:
    """What the embedding of a condition is called: "label" of a single one."""
    return "label" if leaf == "labels" else f"label_{leaf.replace('/', '_')}"
