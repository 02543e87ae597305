"""Codecs: between data as they are stored and the states in which a flow is learned.

===========  ==========================================  ======================================
`Pixels`     uint8 images (H, W, C)                      [-1, 1]; clipped on the way back
`Vectors`    float vectors (D,), such as rows of tables  standardised; undone on the way back
`States`     floats of any shape, such as latents        one shift and one scale; never clipped
===========  ==========================================  ======================================

Those of tokens, whose states are whole numbers, are in `fmjax.data.token_codecs`; that of points on
a manifold is in `fmjax.data.points`.

A data set has one, a run's record keeps it, and pictures, files and figures ask it what the data
are. One of your own is a frozen dataclass of numbers and tuples with the members of `Codec`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real, Shaped, UInt8

from fmjax.array_checks import check_shaped_as
from fmjax.checks import check_at_least, check_finite_number, check_positive
from fmjax.conventions import AnyArray, Array
from fmjax.data import pixels
from fmjax.errors import InputError


class Codec(Protocol):
    """What data are, and how they become states and data again.

    One whose states are tokens, int32 from 0 to K - 1, also says how many symbols there are, by an
    attribute ``vocabulary``.

    Attributes:
        kind: the name by which pictures and evaluations know what the data are.
    """

    kind: ClassVar[str]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example as a state."""

    @property
    def data_shape(self) -> tuple[int, ...]:
        """The shape of one example as data."""

    @property
    def data_dtype(self) -> np.dtype:
        """The dtype of data."""

    @property
    def bin_width(self) -> float | None:
        """The distance of neighbouring levels of a state; None where data have no levels."""

    def encode(self, data: Shaped[Any, "..."]) -> Shaped[Any, "..."]:
        """Data (..., *data_shape) as states, float32; of numpy arrays by numpy alone."""

    def decode(self, x: Shaped[Any, "..."]) -> Shaped[Any, "..."]:
        """States (..., *shape), of jax or numpy, as data; undoes `encode`."""

    def dequantize(
        self, keys: Shaped[Array, "batch ..."], data: Shaped[Array, " batch *shape"]
    ) -> Float[Array, " batch *shape"]:
        """States of data with levels, spread evenly over a level, by one key per example."""


def vocabulary_of(codec: Codec) -> int | None:
    """How many symbols the tokens are of that states consist of; None where states are floats."""
    return getattr(codec, "vocabulary", None)


class WithoutLevels:
    """The part of a codec of floats: as data they have the shape of states, and no levels."""

    data_dtype: ClassVar[np.dtype] = np.dtype(np.float32)
    bin_width: ClassVar[None] = None
    shape: tuple[int, ...]

    @property
    def data_shape(self) -> tuple[int, ...]:
        """That of a state."""
        return self.shape

    def dequantize(
        self, keys: Shaped[Array, "batch ..."], data: Shaped[Array, " batch *shape"]
    ) -> Float[Array, " batch *shape"]:
        """Refused.

        Raises:
            InputError: always.
        """
        raise InputError(f"{type(self).__name__} are floats, which have no levels to spread over.")


@dataclass(frozen=True)
class Pixels:
    """Images of 256 levels: states are ``pixels / 127.5 - 1``; samples are rounded and clipped.

    Args:
        shape: (H, W, C).

    Raises:
        InputError: the shape is not of three positive sizes.
    """

    shape: tuple[int, ...]
    kind: ClassVar[str] = "pixels"
    data_dtype: ClassVar[np.dtype] = np.dtype(np.uint8)
    bin_width: ClassVar[float] = pixels.BIN_WIDTH

    def __post_init__(self):
        if np.shape(self.shape) != (3,) or min(self.shape) < 1:
            raise InputError(f"images have the shape (H, W, C); got {self.shape}.")

    @property
    def data_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.shape

    def encode(self, data: Real[AnyArray, "*shape"]) -> Float[AnyArray, "*shape"]:
        """uint8 levels to [-1, 1]; see `fmjax.data.pixels.to_unit`."""
        return pixels.to_unit(data)

    def decode(self, x: Float[Array, "*shape"]) -> UInt8[Array, "*shape"]:
        """[-1, 1] to the nearest of 256 levels; see `fmjax.data.pixels.to_pixels`."""
        return pixels.to_pixels(x)

    def dequantize(
        self, keys: Shaped[Array, "batch ..."], data: UInt8[Array, " batch *shape"]
    ) -> Float[Array, " batch *shape"]:
        """States with uniform noise of one level; see `fmjax.data.pixels.dequantize`."""
        return pixels.dequantize(keys, data)


@dataclass(frozen=True)
class Vectors(WithoutLevels):
    """Float vectors, each number standardised: states are ``(data - mean) / scale``.

    Args:
        size: how many numbers, D.
        mean: of each number; zeros if None.
        scale: of each number, positive; ones if None.

    Raises:
        InputError: mean or scale has another size, or a scale is not positive.
    """

    size: int
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    kind: ClassVar[str] = "vectors"

    def __post_init__(self):
        check_at_least("the size of a vector", self.size)
        for name, value in (("mean", self.mean), ("scale", self.scale)):
            if value is not None:
                check_shaped_as(f"{name} of Vectors", np.asarray(value), "the vector", self.shape)
        for one in self.scale or ():
            check_positive("a scale of Vectors", one)

    @classmethod
    def fitted(cls, data: Real[np.ndarray, "n d"]) -> "Vectors":
        """The codec that gives these rows (n, D) mean 0 and standard deviation 1.

        Raises:
            InputError: the data are not rows, not finite, or one of their columns is constant.
        """
        data = np.asarray(data, np.float64)
        if data.ndim != 2 or not len(data) or not np.isfinite(data).all():
            raise InputError(f"Vectors are fitted to finite rows (n, D); got {data.shape}.")
        scale = data.std(axis=0)
        if constant := np.flatnonzero(scale == 0).tolist():
            raise InputError(f"columns {constant} are constant: leave them out of the data.")
        return cls(data.shape[1], tuple(data.mean(axis=0).tolist()), tuple(scale.tolist()))

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # a field of other codecs
        """(D,)."""
        return (self.size,)

    def encode(self, data: Float[Any, "*shape"]) -> Float[Any, "*shape"]:
        """(data - mean) / scale, float32."""
        x = floats(data, "Vectors")
        x = x if self.mean is None else x - _like(x, self.mean)
        return x if self.scale is None else x / _like(x, self.scale)

    def decode(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """X scale + mean."""
        x = x if self.scale is None else x * _like(x, self.scale)
        return x if self.mean is None else x + _like(x, self.mean)


@dataclass(frozen=True)
class States(WithoutLevels):
    """Floats of any shape, which are states already, up to one shift and one scale for all.

    States are ``(data - shift) * scale``, as latents of an autoencoder are normalised by the
    shift and scale that come with it.

    Args:
        shape: of one example.
        shift: subtracted.
        scale: what the rest is multiplied by, positive.

    Raises:
        InputError: the shift is not finite, or the scale is not positive.
    """

    shape: tuple[int, ...]
    shift: float = 0.0
    scale: float = 1.0
    kind: ClassVar[str] = "states"

    def __post_init__(self):
        check_finite_number("the shift of States", self.shift)
        check_positive("the scale of States", self.scale)

    def encode(self, data: Float[Any, "*shape"]) -> Float[Any, "*shape"]:
        """(data - shift) * scale, float32."""
        x = floats(data, "States")
        return x if (self.shift, self.scale) == (0, 1) else (x - self.shift) * self.scale

    def decode(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """X / scale + shift."""
        return x if (self.shift, self.scale) == (0, 1) else x / self.scale + self.shift


def floats(data: Float[Any, "*shape"], kind: str) -> Float[Any, "*shape"]:
    """Data as floats, float32 or wider; of numpy arrays by numpy alone.

    Args:
        data: an array.
        kind: the codec, as the message names it.

    Raises:
        InputError: they are no floats.
    """
    xp = np if isinstance(data, np.ndarray) else jnp
    x = xp.asarray(data)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"{kind} are floats; got {x.dtype}. Write data.astype(np.float32); images of uint8 "
            "have the codec Pixels."
        )
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _like(x: Any, values: tuple[float, ...]) -> Any:
    """The values as an array that broadcasts against x (..., D)."""
    xp = np if isinstance(x, np.ndarray) else jnp
    return xp.asarray(values, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
