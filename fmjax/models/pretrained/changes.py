"""Changes: how arrays of PyTorch become one of ours, and back.

PyTorch keeps a dense layer as (out, in) and a convolution as (out, in, height, width); Flax as
(in, out) and (height, width, in, out). Every change moves numbers and computes none, so that
weights that come in and go out again are the same bit for bit.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

Tensor = Shaped[np.ndarray, "..."]
"""An array of weights of any shape and dtype."""


class Change(NamedTuple):
    """From the arrays of the other program to one of ours, and back.

    Attributes:
        forward: takes their arrays, in the order of the rule, and gives ours.
        backward: takes ours and gives theirs, the inverse of `forward`.
    """

    forward: Callable[[Sequence[Tensor]], Tensor]
    backward: Callable[[Tensor], list[Tensor]]

    def then(self, forward: Callable, backward: Callable) -> "Change":
        """This change, and after it one of a single array into another.

        Args:
            forward: takes what `self` gives, and gives an array.
            backward: its inverse.
        """
        return Change(
            lambda theirs: forward(self.forward(theirs)), lambda x: self.backward(backward(x))
        )


def permute(*axes: int) -> Change:
    """One array with its axes in another order, as `numpy.transpose`."""
    back = tuple(int(i) for i in np.argsort(axes))
    return Change(lambda theirs: theirs[0].transpose(axes), lambda x: [x.transpose(back)])


SAME = Change(lambda theirs: theirs[0], lambda x: [x])
"""One array as it is: biases, scales, tables."""
DENSE = permute(1, 0)
"""The weight of a dense layer, (out, in) there."""
CONV = permute(2, 3, 1, 0)
"""The weight of a convolution, (out, in, height, width) there."""


def joined(count: int, change: Change) -> Change:
    """Several arrays joined along their first axis, and then changed as one.

    Args:
        count: how many arrays of equal shape, such as 3 for queries, keys and values.
        change: of the joined array.
    """
    return Change(
        lambda theirs: change.forward([np.concatenate(theirs)]),
        lambda x: list(np.split(change.backward(x)[0], count)),
    )


def swapped_halves(change: Change) -> Change:
    """One array whose halves along the last axis of ours stand in the other order there.

    For a modulation that gives (scale, shift) there and (shift, scale) here.
    """

    def swap(x: np.ndarray) -> np.ndarray:
        return np.concatenate(np.split(x, 2, axis=-1)[::-1], axis=-1)

    return change.then(swap, swap)


def by_head(heads: int, change: Change) -> Change:
    """The fused projection to queries, keys and values, in the order of ours.

    There the columns are (q, k, v) x heads x size; here heads x (q, k, v) x size, so that a shard
    of them holds whole heads.

    Args:
        heads: how many.
        change: what turns the array into one with the columns last: `DENSE`, or `SAME` for a bias.
    """

    def reorder(x: np.ndarray, first: int, second: int) -> np.ndarray:
        parts = x.reshape(*x.shape[:-1], first, second, -1)
        return parts.swapaxes(-3, -2).reshape(x.shape)

    return change.then(lambda x: reorder(x, 3, heads), lambda x: reorder(x, heads, 3))


def patches(size: int) -> Change:
    """The convolution that embeds patches, as the dense layer on flattened patches that it is.

    There (width, channels, size, size); here (size * size * channels, width), as
    `fmjax.models.dit.patchify` flattens.

    Args:
        size: side of a patch.
    """
    return CONV.then(
        lambda x: x.reshape(-1, x.shape[-1]),
        lambda x: x.reshape(size, size, -1, x.shape[-1]),
    )


def pointwise() -> Change:
    """The weight of a dense layer of ours that is a 1x1 convolution there."""
    return CONV.then(lambda x: x[0, 0], lambda x: x[None, None])
