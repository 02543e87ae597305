"""Conditions: what each array of the labels is, what stands for none, and how often it is dropped.

The labels of a batch are one array, or a dictionary (any pytree) of arrays, each with a leading
batch axis. A data set describes them by conditions built in the same way, one for each array:

    ClassIds(10)                                           labels (batch,), integers
    {"class": ClassIds(10), "age": Vector(1)}              {"class": (batch,), "age": (batch, 1)}
    {"text": Sequence(77, 768), "text_mask": Mask(77, of="text")}    (batch, 77, 768), (batch, 77)

====================  ====================================================  ========================
`ClassIds`            integers (batch,)                                     null: one past the last
`Vector`              floats (batch, size)                                  null: zeros
`Sequence`            floats (batch, length, size)                          null: zeros
`Mask`                bool (batch, length): which places of a sequence      null: none of them
                      hold something; dropped with the sequence
`ImageCondition`      floats (batch, height, width, channels)               null: zeros
====================  ====================================================  ========================

Draws drop each array at its own rate, guidance takes its null from here, and networks choose the
embedding of each by its kind. A condition of your own is a frozen dataclass with the members of
`Condition`.
"""

from fmjax.conditions.kinds import ClassIds, Condition, ImageCondition, Mask, Sequence, Vector
from fmjax.conditions.labels import (
    abstract_labels,
    as_labels,
    check_conditions,
    check_labels,
    check_values,
    conditions_of,
    null_labels,
    nulls,
    share,
)

__all__ = [
    "ClassIds",
    "Condition",
    "ImageCondition",
    "Mask",
    "Sequence",
    "Vector",
    "abstract_labels",
    "as_labels",
    "check_conditions",
    "check_labels",
    "check_values",
    "conditions_of",
    "null_labels",
    "nulls",
    "share",
]
