"""U-Net: the convolutional network of ADM (Dhariwal and Nichol, arXiv:2105.05233).

torchcfm and the image examples of flow_matching train it.

    c   = SiLU(embed(t) + embed(labels) + embed(w) + embed(t - s))         w and s if asked for
    h   = conv(x) + sum_i conv_i(image_i)                                  images to condition on
    h   = stage(h, c), kept as a skip                                      down, level by level
    h   = stage(h, c)                                                      twice, in the middle
    h   = stage([h, skip], c)                                              up again, last skip first
    out = conv'(SiLU(norm(h)))

A level is `depth` stages, and between two levels the sides are halved, or doubled on the way up,
where a level has one stage more. A stage is a residual block, and at some levels attention between
all pixels (`fmjax.models.unet_blocks`). conv' starts at zero, so that a fresh network outputs 0,
and so do conv_i and what attends to sequences: a network that gains either begins as that without
it.

Differences from ADM: no dropout, which would need a key, where a network here is a function of its
arguments alone; as many channels out as in, no learned variance; any conditions beside classes; a
guidance scale and a second time as inputs. Weights of ADM mean the same here, but for the order of
queries, keys and values where it was trained with ``use_new_attention_order``.
"""

import math
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from fmjax.checks import check_at_least, check_name, check_positive, is_number
from fmjax.conventions import Array, Output, Span
from fmjax.errors import InputError
from fmjax.models.context import ContextEmbed, check_sides, image_sizes, images, summed
from fmjax.models.embedders import TIME_SCALE, ConditionEmbed, HashableConditions
from fmjax.models.input_checks import check_inputs, check_rank, check_sizes
from fmjax.models.parts import check_parts, parts_products, with_parts
from fmjax.models.presets import from_preset
from fmjax.models.transformer import check_computing
from fmjax.models.unet_blocks import (
    REMAT,
    RESAMPLING,
    SHARDING_RULES,
    Place,
    Stage,
    convolution,
    group_norm,
)

PRESETS: dict[str, dict[str, Any]] = {
    "UNet-CIFAR10/torchcfm": {
        "width": 128,
        "depth": 2,
        "channel_mult": (1, 2, 2, 2),
        "attention_factors": (2,),
        "head_size": 64,
        "scale_shift": False,
    },
    "UNet-CIFAR10/flow_matching": {
        "width": 128,
        "depth": 4,
        "channel_mult": (2, 2, 2),
        "attention_factors": (2,),
        "heads": 1,
        "resampling": "pool",
    },
    "UNet-ImageNet64": {
        "width": 192,
        "depth": 3,
        "channel_mult": (1, 2, 3, 4),
        "attention_factors": (2, 4, 8),
        "head_size": 64,
        "resampling": "residual",
    },
}
"""Of images of 32x32, 32x32 and 64x64; the last is ADM's own, and flow_matching's for ImageNet."""


class UNet(HashableConditions, nn.Module):
    """Velocity of an image at a time, and optionally given labels.

    Called as `model.apply({"params": params}, x, t, labels)`.

    Attributes:
        width: channels D that `channel_mult` multiplies; even, as there are D features of the time.
        depth: residual blocks of a level, on the way down.
        channel_mult: channels of each level over `width`; the sides are halved between two.
        attention_factors: at which levels pixels attend to one another, by the factor that their
            sides are smaller by: 2 for the second. In the middle they do in any case.
        heads: number of attention heads; None with `head_size`.
        head_size: channels of a head, for more heads where there are more channels; None with
            `heads`.
        scale_shift: whether the condition scales the channels in a residual block, beside adding to
            them.
        resampling: a name of `fmjax.models.unet_blocks.RESAMPLING`: how sides are halved and
            doubled.
        groups: of channels in each norm; it divides the channels of every level.
        conditions: a condition such as ``ClassIds(10)``, or a dictionary of them, which the labels
            are; see `fmjax.conditions`. None: unconditional.
        dtype: dtype of the images inside and of the large products, e.g. `jnp.bfloat16`.
            Parameters, time embedding, normalisation, softmax and output stay float32.
        guidance: whether the network takes a guidance scale w as an input, embedded and added to
            the condition; labels is then ``{"labels": labels, "guidance": w}``.
        attention: ``"xla"``, or ``"cudnn"`` for the fused kernel of NVIDIA GPUs, which has no
            forward-mode derivative.
        remat: what each stage keeps for its backward pass: a name of
            `fmjax.models.unet_blocks.REMAT`.
        span: whether the network takes two times, ``Span(s, t)`` in the place of t, for the average
            velocity between them; see `fmjax.conventions.Span`. What t - s adds is zero at first.
        time_scale: what t is multiplied by first, so that the frequencies are those of 1000
            diffusion steps; 1 for weights of torchcfm and flow_matching, which take t as it is.
        parts: further outputs of a network of two times, names of `fmjax.models.parts.PARTS`, e.g.
            ``("divergence",)``, all zero at first: the diagonal is a second conv', and the
            divergence a linear map of the mean over the pixels that conv' reads.
        sharding_rules: which axis of a mesh splits which parameter; see `fmjax.training.sharding`.

    Example:
        >>> model = UNet(width=16, depth=1, channel_mult=(1, 2), heads=2, groups=8)
        >>> x, t = jnp.zeros((4, 8, 8, 3)), jnp.zeros(4)
        >>> params = jax.eval_shape(model.init, jax.random.key(0), x, t)["params"]
        >>> jax.eval_shape(model.apply, {"params": params}, x, t).shape
        (4, 8, 8, 3)
    """

    width: int
    depth: int
    channel_mult: tuple[float, ...] = (1, 2, 2, 2)
    attention_factors: tuple[int, ...] = (2,)
    heads: int | None = None
    head_size: int | None = None
    scale_shift: bool = True
    resampling: str = "conv"
    groups: int = 32
    conditions: Any = None
    dtype: Any = jnp.float32
    guidance: bool = False
    attention: str = "xla"
    remat: str = "none"
    span: bool = False
    time_scale: float = TIME_SCALE
    parts: tuple[str, ...] = ()
    sharding_rules: ClassVar = SHARDING_RULES

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], t: Float[Array, " B"] | Span, labels: Any = None
    ) -> Float[Array, "B H W C"] | Output:
        """Predict the velocity.

        Args:
            x: images, shape (B, H, W, C), any floating dtype.
            t: times in [0, 1], shape (B,), float32; with `span`, ``Span(s, t)`` of two such.
            labels: arrays with a leading axis B, built as `conditions` are; None exactly if that
                is None. With `guidance`, a dict of these and the scale w, shape (B,), floating.

        Returns:
            Shape of `x`, float32 (float64 if `dtype` is); with `parts` an `Output` that has this as
            ``velocity``, beside ``divergence`` (B,) and ``diagonal``, shaped as `x`.

        Raises:
            InputError: a field or an argument does not fit; see `fmjax.models.input_checks`. Raised
                while tracing, before any work on a device.
        """
        labels, w = self._check(x, t, labels)
        c = nn.silu(self._embedding()(t, labels, w))
        context = self._context()(labels)
        down, middle, up = places(self)
        skips = [self._first(x, images(self.conditions, labels))]
        for place in down:
            skips.append(self._stage(place)(skips[-1], c, context))
        h = skips[-1]
        for place in middle:
            h = self._stage(place)(h, c, context)
        for place in up:
            h = self._stage(place)(jnp.concatenate([h, skips.pop()], axis=-1), c, context)
        h = nn.silu(group_norm(h, self.groups, "norm"))

        def velocity(name: str) -> Array:
            return convolution(x.shape[-1], kernel_init=nn.initializers.zeros_init(), name=name)(h)

        return with_parts(velocity, lambda: jnp.mean(h, axis=(1, 2)), self.parts)

    def _first(self, x: Array, beside: dict[str, Array]) -> Array:
        """What the images become, those to condition on beside the channels of x."""
        channels = _channels(self)[0]
        h = convolution(channels, dtype=self.dtype, name="in")(x)
        zeros = nn.initializers.zeros_init()
        for name, image in beside.items():
            layer = convolution(
                channels, use_bias=False, kernel_init=zeros, dtype=self.dtype, name=f"in_{name}"
            )
            h = h + layer(image)
        return h

    @nn.nowrap
    def _stage(self, place: Place) -> Stage:
        stage = Stage if self.remat == "none" else nn.remat(Stage, policy=REMAT[self.remat])
        how = (self.groups, self.scale_shift, self.resampling, self.dtype, self.attention)
        return stage(place, *how, name=place.name)

    @nn.nowrap
    def forward_flops(self, shape: tuple[int, ...]) -> int | None:
        """Operations of one forward pass over one example; see `fmjax.models.flops`.

        Args:
            shape: of the image, (H, W, C).

        Returns:
            The number; None where an embedding of a condition's own does not say.
        """
        height, width, channels = shape
        pixels, first = height * width, _channels(self)[0]
        last, context = 9 * pixels * first * channels, self._context()
        products = 2 * last + parts_products(self.parts, first, last)
        products += 9 * image_sizes(self.conditions) * first
        for place in (p for part in places(self) for p in part):
            stage = self._stage(place)
            products += stage.products(pixels // 4**place.level, 4 * self.width, context.places())
        embedding = self._embedding().forward_flops()
        return None if embedding is None else 2 * products + embedding + context.forward_flops()

    @nn.nowrap
    def head_sizes(self) -> set[int]:
        """The channels of a head, wherever there is attention.

        Raises:
            InputError: fields that say how many channels and heads there are do not fit.
        """
        _check_levels(self)
        _check_heads(self)
        return {place.outputs // place.heads for p in places(self) for place in p if place.heads}

    @nn.nowrap
    def _embedding(self) -> ConditionEmbed:
        return ConditionEmbed(
            4 * self.width,
            summed(self.conditions),
            self.width,
            self.time_scale,
            self.guidance,
            self.span,
            name="condition",
        )

    @nn.nowrap
    def _context(self) -> ContextEmbed:
        return ContextEmbed(4 * self.width, self.conditions, name="context")

    def _check(self, x: Array, t: Any, labels: Any) -> tuple[Any, Array | None]:
        """The labels and the guidance scale, or None, once everything fits."""
        sizes = self.head_sizes()
        check_positive("time_scale", self.time_scale)
        for size in sizes:
            check_computing(self.dtype, self.remat, self.attention, size)
        check_name("way of resampling", self.resampling, RESAMPLING)
        check_parts(self.parts, self.span)
        check_rank(x, "(batch, height, width, channels)", 4, 4)
        smallest = 2 ** (len(self.channel_mult) - 1)
        if x.shape[1] % smallest or x.shape[2] % smallest:
            raise InputError(
                f"images of {x.shape[1]}x{x.shape[2]} cannot be halved "
                f"{len(self.channel_mult) - 1} times, once after each level of channel_mult but "
                f"the last: pad both sides to multiples of {smallest}, or give fewer levels."
            )
        checked = check_inputs(self, x, t, labels)
        check_sides(self.conditions, x)
        return checked


def _channels(model: UNet) -> tuple[int, ...]:
    """The channels of each level."""
    return tuple(round(mult * model.width) for mult in model.channel_mult)


def _heads(model: UNet, level: int) -> int:
    """How many heads there are at a level, with attention or without."""
    size = model.head_size
    return model.heads or _channels(model)[level] // size  # type: ignore[operator]  # one is given


def places(model: UNet) -> tuple[list[Place], list[Place], list[Place]]:
    """What a U-Net is made of: the places down, in the middle and up, in order.

    Args:
        model: whose fields fit one another.

    Returns:
        Three lists. Names count as ADM's ``input_blocks``, ``middle_block`` and ``output_blocks``
        do; number 0 on the way down is the first convolution, which is no place.
    """
    channels, deepest = _channels(model), len(model.channel_mult) - 1

    def attending(level: int) -> int:
        return _heads(model, level) if 2**level in model.attention_factors else 0

    kept, down = [channels[0]], []
    for level, outputs in enumerate(channels):
        for _ in range(model.depth):
            name, inputs = f"down_{len(kept)}", kept[-1]
            down.append(Place(name, inputs, outputs, level, heads=attending(level)))
            kept.append(outputs)
        if level < deepest:
            name = f"down_{len(kept)}"
            down.append(Place(name, outputs, outputs, level, residual=False, resample="down"))
            kept.append(outputs)
    inputs = channels[-1]
    middle = [
        Place("middle_0", inputs, inputs, deepest, heads=_heads(model, deepest)),
        Place("middle_1", inputs, inputs, deepest),
    ]
    up: list[Place] = []
    for level, outputs in reversed(list(enumerate(channels))):
        for i in range(model.depth + 1):
            resample = "up" if level and i == model.depth else ""
            both = inputs + kept.pop()
            up.append(
                Place(f"up_{len(up)}", both, outputs, level, True, attending(level), resample)
            )
            inputs = outputs
    return down, middle, up


def _check_levels(model: UNet) -> None:
    """Checks the fields that say how many channels there are, and where."""
    check_sizes(model, "width", "depth", "groups")
    if model.width % 2:
        raise InputError(
            f"width={model.width}: expected an even number, half of the features of the time being "
            f"cosines and half sines, e.g. {model.width + 1}."
        )
    levels, factors = model.channel_mult, model.attention_factors
    if not (isinstance(levels, tuple) and levels and all(_is_multiplier(m) for m in levels)):
        raise InputError(
            f"channel_mult={levels!r}: expected a tuple of positive numbers, one for each level, "
            "e.g. (1, 2, 2, 2)."
        )
    for mult in levels:
        if mult * model.width % model.groups:
            raise InputError(
                f"a level of {mult} times width={model.width} channels does not divide into "
                f"groups={model.groups} of a norm: take a width that is a multiple of "
                f"{model.groups}, or fewer groups."
            )
    known = tuple(2**level for level in range(len(levels)))
    if not (isinstance(factors, tuple) and all(factor in known for factor in factors)):
        raise InputError(
            f"attention_factors={factors!r}: expected a tuple of the factors by which the sides "
            f"are smaller at levels of channel_mult={levels}, which are "
            f"{', '.join(map(str, known))}; () for the middle alone."
        )


def _is_multiplier(mult: Any) -> bool:
    return is_number(mult) and math.isfinite(mult) and mult > 0


def _check_heads(model: UNet) -> None:
    """Checks that the channels divide into heads wherever there is attention."""
    if (model.heads is None) == (model.head_size is None):
        raise InputError(
            f"heads={model.heads} and head_size={model.head_size}: give one of the two, the number "
            "of heads or the channels of each, e.g. head_size=64."
        )
    name = "heads" if model.head_size is None else "head_size"
    number = check_at_least(name, getattr(model, name))
    deepest = len(model.channel_mult) - 1
    for level, channels in enumerate(_channels(model)):
        if (2**level in model.attention_factors or level == deepest) and channels % number:
            raise InputError(
                f"{name}={number} does not divide the {channels} channels of level {level}, where "
                "pixels attend to one another: change it, the width or channel_mult."
            )


def preset(name: str, **overrides: Any) -> UNet:
    """A published U-Net by name, e.g. `preset("UNet-CIFAR10/torchcfm", conditions=ClassIds(10))`.

    The dropout that its authors trained with is left out; see the top of this module.

    Args:
        name: one of `PRESETS`.
        **overrides: fields of `UNet` to set or to change. One of `heads` and `head_size` replaces
            the other.

    Returns:
        The module.

    Raises:
        InputError: there is no such preset or no such field.

    Example:
        >>> preset("UNet-CIFAR10/torchcfm").channel_mult
        (1, 2, 2, 2)
    """
    other = {"heads": "head_size", "head_size": "heads"}
    replaced = {other[field]: None for field in other.keys() & overrides.keys()}
    return from_preset(UNet, PRESETS, name, {**replaced, **overrides})
