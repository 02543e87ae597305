"""Labels as a whole: whether they are what their conditions say, their nulls, and guesses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.conditions.kinds import ClassIds, Condition, ImageCondition, Mask, Sequence, Vector
from fmjax.errors import InputError
from fmjax.names import named_leaves

_MASK = "_mask"  # what the name of a mask ends in


def check_conditions(conditions: Any) -> None:
    """Checks that every leaf of a tree is a condition, and every mask that of a sequence beside it.

    Raises:
        InputError: one is not.
    """
    leaves = named_leaves(conditions)
    for leaf in leaves.values():
        if isinstance(leaf, type) or not isinstance(leaf, Condition):
            came = f"the class {leaf.__name__}" if isinstance(leaf, type) else type(leaf).__name__
            raise InputError(
                "conditions must be conditions such as ClassIds(10) or Vector(3), built as the "
                f"labels are; got {came}."
            )
    for name, leaf in leaves.items():
        sequence = leaves.get(leaf.of) if isinstance(leaf, Mask) else None
        if isinstance(leaf, Mask) and getattr(sequence, "length", None) != leaf.length:
            known = [f"{n} of {c.length}" for n, c in leaves.items() if isinstance(c, Sequence)]
            raise InputError(
                f"the mask {name} is of a sequence {leaf.of!r} of {leaf.length} places; got the "
                f"sequences {', '.join(known) or '(none)'}. A mask stands beside its sequence: "
                '{"text": Sequence(8, 64), "text_mask": Mask(8, of="text")}.'
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
    _check_same_names(given, expected)
    for name, condition in expected.items():
        condition.check(name, given[name], batch)


def _check_same_names(given: dict[str, Any], expected: dict[str, Any]) -> None:
    if given.keys() != expected.keys():
        raise InputError(
            f"labels must have the conditions {_listed(expected)}; got {_listed(given)}."
        )


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


def abstract_labels(conditions: Any, batch: Any) -> Any:
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


def as_labels(arrays: Any, conditions: Any) -> Any:
    """Arrays as the conditions take them: numpy arrays in their dtypes, pixels in [-1, 1].

    Integers of any width become int32, floats float32, and the pixels p of a uint8 image
    p / 127.5 - 1. Numbers (n,) where vectors of one number are expected become (n, 1). What is of
    another kind stays as it is, for `check_labels` to refuse.

    Args:
        arrays: arrays with a leading axis of examples.
        conditions: what they are, built as they are.

    Raises:
        InputError: the two are not built alike.
    """
    given, expected = named_leaves(arrays), named_leaves(conditions)
    _check_same_names(given, expected)
    leaves = [_as_label(given[name], condition) for name, condition in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(conditions), leaves)


def _as_label(x: Any, condition: Condition) -> np.ndarray:
    x, dtype = np.asarray(x), condition.null_value().dtype
    if isinstance(condition, ImageCondition) and x.dtype == np.uint8:
        return x.astype(np.float32) / np.float32(127.5) - 1
    if isinstance(condition, Vector) and condition.size == 1 and x.ndim == 1:
        x = x[:, None]
    if x.dtype.kind == dtype.kind == "f":
        return x.astype(dtype)
    # Ids are looked at before they are shortened: 2^32 would come out as class 0.
    if x.dtype.kind in "iu" and dtype.kind == "i" and _within(x, dtype):
        return x.astype(dtype)
    return x


def _within(x: np.ndarray, dtype: np.dtype) -> bool:
    info = np.iinfo(dtype)
    return not x.size or bool(info.min <= x.min() and x.max() <= info.max)


def check_values(labels: Any, conditions: Any) -> None:
    """Checks the values of labels, which are at hand: finite numbers, and classes that there are.

    Args:
        labels: numpy arrays (n, ...) that `check_labels` took.
        conditions: what they are.

    Raises:
        InputError: a number is NaN or infinite, and the first row with one is named; or a class id
            is none of a class, nor the null.
    """
    expected = named_leaves(conditions)
    for name, x in named_leaves(labels).items():
        x = np.asarray(x)
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            row = int(np.argwhere(~np.isfinite(x))[0][0])
            raise InputError(f"{name} must be finite numbers; row {row} holds NaN or infinity.")
        classes = expected[name]
        if isinstance(classes, ClassIds) and x.dtype.kind in "iu":
            last = max(classes.num_classes - 1, int(classes.null_value()))
            if x.size and (x.min() < 0 or x.max() > last):
                row = int(np.argwhere((x < 0) | (x > last))[0][0])
                raise InputError(
                    f"{name} must be class ids from 0 to {classes.num_classes - 1}; row {row} "
                    f"holds {x[row]}."
                )


def conditions_of(labels: Any, drop_rate: float = 0.0) -> Any:
    """The conditions that arrays are, guessed from their dtypes and shapes.

    ==========================================  ====================================================
    integers (n,)                               classes
    floats (n,), (n, k)                         vectors, of 1 and of k numbers
    floats (n, l, k)                            sequences
    bool (n, l), under the name ``X_mask``      the mask of the sequence under the name ``X``
    floats or uint8 (n, h, w, c)                images
    ==========================================  ====================================================

    `as_labels` then makes labels of the arrays.

    Args:
        labels: arrays with a leading axis of examples, or None.
        drop_rate: of each.

    Returns:
        Conditions built as the labels are.

    Raises:
        InputError: an array is none of these, there is no telling what it is then; or a mask has
            no sequence.

    Example:
        >>> conditions_of({"class": np.array([0, 2]), "age": np.zeros((2, 1))})
        {'age': Vector(size=1, null=None, drop_rate=0.0), 'class': ClassIds(num_classes=3, ...)}
    """
    arrays = named_leaves(labels)
    found = [_condition_of(name, np.asarray(x), drop_rate) for name, x in arrays.items()]
    conditions = jax.tree.unflatten(jax.tree.structure(labels), found)
    check_conditions(conditions)
    return conditions


def _condition_of(name: str, x: np.ndarray, drop_rate: float) -> Condition:
    kind, example = x.dtype.kind, x.shape[1:]
    if x.ndim == 1 and kind in "iu" and len(x) and x.min() >= 0:
        return ClassIds(int(x.max()) + 1, drop_rate=drop_rate)
    if x.ndim in (1, 2) and kind == "f":
        return Vector(example[0] if example else 1, drop_rate=drop_rate)
    if x.ndim == 3 and kind == "f":
        return Sequence(x.shape[1], x.shape[2], drop_rate=drop_rate)
    if x.ndim == 2 and kind == "b" and name.endswith(_MASK):
        return Mask(x.shape[1], of=name.removesuffix(_MASK))
    if x.ndim == 4 and (kind == "f" or x.dtype == np.uint8):
        return ImageCondition(example, drop_rate=drop_rate)
    raise InputError(
        "labels are integer class ids (n,), from 0 on, vectors of floats (n, k), sequences of them "
        "(n, l, k) with a mask, bool (n, l), under the same name and _mask, or images (n, h, w, c);"
        f" got {name} of {x.dtype} and shape {x.shape}. Describe others by a condition of your own."
    )
