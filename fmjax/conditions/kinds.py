"""What one array of the labels is: class ids, a vector, a sequence and its mask, an image."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Shaped

from fmjax.checks import check_at_least, check_between, check_finite_number
from fmjax.errors import InputError


@runtime_checkable
class Condition(Protocol):
    """What is known of one array of the labels.

    Attributes:
        kind: the name by which a network finds the embedding.
    """

    kind: ClassVar[str]

    @property
    def drop_rate(self) -> float:
        """The probability that training replaces it by its null, in [0, 1]."""

    def null_value(self) -> Shaped[np.ndarray, "..."] | np.generic:
        """What stands for none, of one example; it has the shape and the dtype of one example's."""

    def check(self, name: str, x: Any, batch: int) -> None:
        """Raises InputError where x is no array (batch, ...) of this condition; traced or not."""


@dataclass(frozen=True)
class ClassIds:
    """A class id per example: integers (batch,) from 0 to ``num_classes - 1``, and the null id.

    Weights over the classes and the null class, floats (batch, num_classes + 1), are taken in their
    place, for interpolation between classes.

    Args:
        num_classes: how many classes there are.
        null: the id that stands for none: one past the last class if None, or one of the classes.
        drop_rate: as in `Condition`.
        names: one name per class, or None.

    Raises:
        InputError: a number lies outside its range, or the names are not one per class.

    Example:
        >>> int(ClassIds(10, drop_rate=0.1).null_value())
        10
    """

    num_classes: int
    null: int | None = None
    drop_rate: float = 0.0
    names: tuple[str, ...] | None = None
    kind: ClassVar[str] = "class"

    def __post_init__(self):
        check_at_least("num_classes", self.num_classes)
        _check_drop_rate(self.drop_rate)
        if self.null is not None:
            what = "the null class, a class or the number of classes,"
            check_at_least(what, self.null, 0)
            check_between(what, self.null, 0, self.num_classes)
        if self.names is None:
            return
        if not (
            isinstance(self.names, tuple | list) and all(isinstance(n, str) for n in self.names)
        ):
            raise InputError(f"names must be a tuple of texts; got {self.names!r:.60}.")
        if len(self.names) != self.num_classes:
            raise InputError(
                f"{self.num_classes} classes must have as many names; got {len(self.names)}."
            )

    def null_value(self) -> np.integer:
        """The null id, int32 ()."""
        return np.int32(self.num_classes if self.null is None else self.null)

    def check(self, name: str, x: Any, batch: int) -> None:
        """Checks class ids (batch,), or weights over the classes; their values are not looked at.

        Raises:
            InputError: they have another dtype or shape.
        """
        dtype = getattr(x, "dtype", None)
        if dtype is not None and jnp.issubdtype(dtype, jnp.floating) and np.ndim(x) == 2:
            if np.shape(x) != (batch, self.num_classes + 1):
                raise InputError(
                    f"weights over classes have shape {np.shape(x)}, expected one for each class "
                    f"and one for the null class, {(batch, self.num_classes + 1)}."
                )
            return
        if dtype is None or not jnp.issubdtype(dtype, jnp.integer):
            found = f"dtype {dtype}" if dtype is not None else type(x).__name__
            raise InputError(
                f"{name} are of {found}, expected one array of integer class ids of shape "
                f"({batch},): write jnp.asarray({name}, jnp.int32)."
            )
        if np.shape(x) != (batch,):
            raise InputError(
                f"{name} have shape {np.shape(x)}, expected one class id per example, ({batch},): "
                f"write jnp.full(({batch},), label) for one class shared by the batch."
            )


@dataclass(frozen=True)
class Vector:
    """A vector per example: floats (batch, size).

    Args:
        size: how many numbers.
        null: the vector that stands for none, of `size` numbers; zeros if None.
        drop_rate: as in `Condition`.

    Raises:
        InputError: the size is below 1, the null has another size, or the rate is outside [0, 1].

    Example:
        >>> Vector(3).null_value()
        array([0., 0., 0.], dtype=float32)
    """

    size: int
    null: tuple[float, ...] | None = None
    drop_rate: float = 0.0
    kind: ClassVar[str] = "vector"

    def __post_init__(self):
        check_at_least("the size of a vector", self.size)
        _check_drop_rate(self.drop_rate)
        _check_null(self.null, self.size, "a vector")

    def null_value(self) -> Float32[np.ndarray, " {self.size}"]:
        """The null vector, float32 (size,)."""
        return np.asarray([0.0] * self.size if self.null is None else self.null, np.float32)

    def check(self, name: str, x: Any, batch: int) -> None:
        """Checks vectors (batch, size).

        Raises:
            InputError: they have another dtype or shape.
        """
        _check_array(name, x, "vectors", (batch, self.size))


@dataclass(frozen=True)
class Sequence:
    """A sequence of vectors per example, of a text, say: floats (batch, length, size).

    Shorter ones are filled up, and a `Mask` beside them says which places count.

    Args:
        length: how many places there are.
        size: how many numbers each holds.
        null: the vector, of `size` numbers, that stands at every place for none; zeros if None.
        drop_rate: as in `Condition`.

    Raises:
        InputError: the length or the size is below 1, the null has another size, or the rate is
            outside [0, 1].
    """

    length: int
    size: int
    null: tuple[float, ...] | None = None
    drop_rate: float = 0.0
    kind: ClassVar[str] = "sequence"

    def __post_init__(self):
        check_at_least("the length of a sequence", self.length)
        check_at_least("the size of a vector of a sequence", self.size)
        _check_drop_rate(self.drop_rate)
        _check_null(self.null, self.size, "a sequence")

    def null_value(self) -> Float32[np.ndarray, "{self.length} {self.size}"]:
        """The null sequence, float32 (length, size)."""
        row = np.asarray([0.0] * self.size if self.null is None else self.null, np.float32)
        return np.tile(row, (self.length, 1))

    def check(self, name: str, x: Any, batch: int) -> None:
        """Checks sequences (batch, length, size).

        Raises:
            InputError: they have another dtype or shape.
        """
        _check_array(name, x, "sequences", (batch, self.length, self.size))


@dataclass(frozen=True)
class Mask:
    """Which places of a sequence hold something: bool (batch, length), True where one does.

    It has no drop rate of its own, and is dropped whenever its sequence is.

    Args:
        length: as that of the sequence.
        of: the name of the sequence among the labels, e.g. ``"text"`` of ``labels["text"]``.

    Raises:
        InputError: the length is below 1, or the name is no text.
    """

    length: int
    of: str
    drop_rate: ClassVar[float] = 0.0
    kind: ClassVar[str] = "mask"

    def __post_init__(self):
        check_at_least("the length of a mask", self.length)
        if not isinstance(self.of, str):
            raise InputError(
                f"of must be the name of the sequence that a mask is of; got {self.of!r:.60}."
            )

    def null_value(self) -> Bool[np.ndarray, " {self.length}"]:
        """No place at all, bool (length,)."""
        return np.zeros(self.length, bool)

    def check(self, name: str, x: Any, batch: int) -> None:
        """Checks masks (batch, length).

        Raises:
            InputError: they have another dtype or shape.
        """
        _check_array(name, x, "masks", (batch, self.length), "bool", jnp.bool_)


@dataclass(frozen=True)
class ImageCondition:
    """An image per example: floats (batch, height, width, channels), pixels in [-1, 1].

    Args:
        shape: (height, width, channels).
        drop_rate: as in `Condition`.

    Raises:
        InputError: the shape is not three whole numbers of at least 1, or the rate is outside
            [0, 1].
    """

    shape: tuple[int, ...]
    drop_rate: float = 0.0
    kind: ClassVar[str] = "image"

    def __post_init__(self):
        if not isinstance(self.shape, tuple | list) or len(self.shape) != 3:
            raise InputError(
                f"the shape of an image must be (height, width, channels); got {self.shape!r:.60}."
            )
        for size in self.shape:
            check_at_least("each size of an image", size)
        object.__setattr__(self, "shape", tuple(map(int, self.shape)))
        _check_drop_rate(self.drop_rate)

    def null_value(self) -> Float32[np.ndarray, "height width channels"]:
        """The null image, zeros, float32 (height, width, channels)."""
        return np.zeros(self.shape, np.float32)

    def check(self, name: str, x: Any, batch: int) -> None:
        """Checks images (batch, height, width, channels).

        Raises:
            InputError: they have another dtype or shape.
        """
        _check_array(name, x, "images", (batch, *self.shape))


def _check_null(null: Any, size: int, what: str) -> None:
    if null is None:
        return
    if not (hasattr(null, "__len__") and np.ndim(null) == 1 and len(null) == size):
        raise InputError(
            f"the null of {what} must be shaped as the vector, ({size},); got {null!r:.60}."
        )
    for number in null:
        check_finite_number("each number of the null", number)


def _check_array(
    name: str, x: Any, what: str, shape: tuple, kind: str = "floats", dtype: Any = jnp.floating
) -> None:
    """Refuses what is no array of such numbers and of this shape, (batch, ...)."""
    found = getattr(x, "dtype", None)
    if found is None or not jnp.issubdtype(found, dtype) or np.shape(x) != shape:
        raise InputError(
            f"{name} must be {what}, {kind} of shape {shape}; got "
            f"{found or type(x).__name__} of shape {np.shape(x)}."
        )


def _check_drop_rate(rate: float) -> None:
    check_between("the drop rate", rate, 0, 1)
