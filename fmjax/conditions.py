"""Conditions: what each array of the labels is, what stands for none, and how often it is dropped.

The labels of a batch are one array, or a dictionary (any pytree) of arrays, each with a leading
batch axis. A data set describes them by conditions built in the same way, one for each array:

    ClassIds(10)                                           labels (batch,), integers
    {"class": ClassIds(10), "age": Vector(1)}              {"class": (batch,), "age": (batch, 1)}

Draws drop each array at its own rate, guidance takes its null from here, and networks choose the
embedding of each by its kind. A condition of your own is a frozen dataclass with the members of
`Condition`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.checks import check_at_least, check_between, check_finite_number
from fmjax.errors import InputError
from fmjax.names import named_leaves


@runtime_checkable
class Condition(Protocol):
    """What is known of one array of the labels.

    Attributes:
        kind: the name by which a network finds the embedding.
        drop_rate: the probability that training replaces it by its null, in [0, 1].
    """

    kind: ClassVar[str]
    drop_rate: float

    def null_value(self) -> np.ndarray:
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

    def null_value(self) -> np.ndarray:
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
    """

    size: int
    null: tuple[float, ...] | None = None
    drop_rate: float = 0.0
    kind: ClassVar[str] = "vector"

    def __post_init__(self):
        check_at_least("the size of a vector", self.size)
        _check_drop_rate(self.drop_rate)
        if self.null is not None and not _has_size(self.null, self.size):
            raise InputError(
                f"the null of a vector must be shaped as the vector, ({self.size},); got "
                f"{self.null!r:.60}."
            )
        for number in () if self.null is None else self.null:
            check_finite_number("each number of the null", number)

    def null_value(self) -> np.ndarray:
        """The null vector, float32 (size,)."""
        return np.asarray([0.0] * self.size if self.null is None else self.null, np.float32)

    def check(self, name: str, x: Any, batch: int) -> None:
        """Checks vectors (batch, size).

        Raises:
            InputError: they have another dtype or shape.
        """
        dtype = getattr(x, "dtype", None)
        floating = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
        if not floating or np.shape(x) != (batch, self.size):
            raise InputError(
                f"{name} must be vectors, floats of shape {(batch, self.size)}; got "
                f"{dtype or type(x).__name__} of shape {np.shape(x)}."
            )


def _has_size(vector: Any, size: int) -> bool:
    return hasattr(vector, "__len__") and np.ndim(vector) == 1 and len(vector) == size


def _check_drop_rate(rate: float) -> None:
    check_between("the drop rate", rate, 0, 1)


def check_conditions(conditions: Any) -> None:
    """Checks that every leaf of a tree is a condition.

    Raises:
        InputError: one is not.
    """
    for leaf in jax.tree.leaves(conditions):
        if isinstance(leaf, type) or not isinstance(leaf, Condition):
            came = f"the class {leaf.__name__}" if isinstance(leaf, type) else type(leaf).__name__
            raise InputError(
                "conditions must be conditions such as ClassIds(10) or Vector(3), built as the "
                f"labels are; got {came}."
            )


def check_labels(labels: Any, conditions: Any, batch: int) -> None:
    """Checks labels against the conditions that describe them; values are not looked at.

    Args:
        labels: arrays (batch, ...), traced or not, or None.
        conditions: as `fmjax.conditions` describes; None where there are to be no labels.
        batch: the number of examples.

    Raises:
        InputError: there are labels where none are expected or the reverse, one is missing or too
            many, or one has another shape or dtype.
    """
    if conditions is None and labels is not None:
        raise InputError(
            "labels were given to an unconditional model: pass labels=None, or build the model "
            "with conditions, e.g. conditions=ClassIds(10)."
        )
    given, expected = named_leaves(labels), named_leaves(conditions)
    if labels is None and expected:
        raise InputError(
            f"labels=None came to a model with {_listed(expected)}, expected arrays with a leading "
            f"batch axis of {batch}: for the unconditional velocity pass what stands for none, "
            f"fmjax.conditions.nulls(conditions, {batch})."
        )
    if given.keys() != expected.keys():
        raise InputError(
            f"labels must have the conditions {_listed(expected)}; got {_listed(given)}."
        )
    for name, condition in expected.items():
        condition.check(name, given[name], batch)


def _listed(leaves: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} ({leaf.kind})" if isinstance(leaf, Condition) else name
        for name, leaf in leaves.items()
    )


def null_labels(conditions: Any) -> Any:
    """What stands for none, of one example, for each condition; built as the conditions are."""
    return jax.tree.map(lambda condition: condition.null_value(), conditions)


def nulls(conditions: Any, batch: int) -> Any:
    """Labels that stand for none, for every example of a batch: numpy arrays (batch, ...)."""
    return jax.tree.map(
        lambda null: np.broadcast_to(null, (batch, *np.shape(null))), null_labels(conditions)
    )


def abstract_labels(conditions: Any, batch: int) -> Any:
    """Shapes and dtypes of the labels of a batch, nothing allocated."""
    return jax.tree.map(
        lambda null: jax.ShapeDtypeStruct((batch, *null.shape), null.dtype),
        null_labels(conditions),
    )


def share(labels: Any, batch: int) -> Any:
    """Labels with every lone one repeated: a number, or an array with a leading axis of one.

    Args:
        labels: any pytree of numbers and arrays, or None.
        batch: the number of examples.

    Raises:
        InputError: something is neither a number nor an array.
    """

    def repeat(leaf: Any) -> Any:
        if not (hasattr(leaf, "shape") or isinstance(leaf, int | float)):
            raise InputError(
                f"labels must be numbers or arrays, (batch, ...); got {type(leaf).__name__} "
                f"{leaf!r:.60}."
            )
        shape = jnp.shape(leaf)
        if shape[:1] == (batch,) or (shape and shape[0] != 1):
            return leaf
        return jnp.broadcast_to(jnp.asarray(leaf), (batch, *shape[1:]))

    return jax.tree.map(repeat, labels)


def conditions_of(labels: Any, drop_rate: float = 0.0) -> Any:
    """The conditions that arrays are: integers (n,) are classes, floats (n, k) are vectors.

    Args:
        labels: arrays with a leading axis of examples, or None.
        drop_rate: of each.

    Returns:
        Conditions built as the labels are.

    Raises:
        InputError: an array is neither; there is no telling what it is then.

    Example:
        >>> conditions_of({"class": np.array([0, 2]), "age": np.zeros((2, 1))})
        {'age': Vector(size=1, null=None, drop_rate=0.0), 'class': ClassIds(num_classes=3, ...)}
    """

    def one(x: Any) -> Condition:
        x = np.asarray(x)
        if x.ndim == 1 and x.dtype.kind in "iu" and len(x) and x.min() >= 0:
            return ClassIds(int(x.max()) + 1, drop_rate=drop_rate)
        if x.ndim == 2 and x.dtype.kind == "f":
            return Vector(x.shape[1], drop_rate=drop_rate)
        raise InputError(
            "labels are integer class ids (n,), from 0 on, or vectors of floats (n, k); got "
            f"{x.dtype} of shape {x.shape}. Describe others by a condition of your own."
        )

    return jax.tree.map(one, labels)
