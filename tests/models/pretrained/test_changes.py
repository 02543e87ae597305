"""Every change of arrays has its inverse, and gives the layer that PyTorch means."""

import numpy as np
import pytest

from fmjax.models.dit import patchify
from fmjax.models.pretrained import changes

RNG = np.random.default_rng(0)
CHANGES = {
    "same": (changes.SAME, [(5,)]),
    "dense": (changes.DENSE, [(6, 4)]),
    "convolution": (changes.CONV, [(5, 4, 3, 3)]),
    "patches": (changes.patches(2), [(8, 3, 2, 2)]),
    "pointwise": (changes.pointwise(), [(5, 4, 1, 1)]),
    "heads": (changes.by_head(2, changes.DENSE), [(12, 4)]),
    "heads of a bias": (changes.by_head(2, changes.SAME), [(12,)]),
    "joined": (changes.joined(3, changes.by_head(2, changes.DENSE)), [(4, 4)] * 3),
    "halves": (changes.swapped_halves(changes.DENSE), [(6, 4)]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_backward_is_the_inverse(name):
    change, shapes = CHANGES[name]
    theirs = [RNG.normal(size=shape) for shape in shapes]
    back = change.backward(change.forward(theirs))
    assert len(back) == len(theirs)
    for one, other in zip(back, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", CHANGES)
def test_shapes_follow_without_numbers(name):
    """An array of equal entries, of which one is kept, passes as any other."""
    change, shapes = CHANGES[name]
    ours = change.forward([np.zeros(shape) for shape in shapes])
    empty = np.broadcast_to(np.zeros((), bool), ours.shape)
    assert [part.shape for part in change.backward(empty)] == shapes


def test_patches_are_the_convolution():
    weight, image = RNG.normal(size=(7, 3, 2, 2)), RNG.normal(size=(1, 4, 4, 3))
    found = patchify(image, 2) @ changes.patches(2).forward([weight])
    cut = image.reshape(1, 2, 2, 2, 2, 3)  # rows, in a row, columns, in a column
    expected = np.einsum("bipjqc,ocpq->bijo", cut, weight).reshape(1, 4, 7)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_heads_lie_outermost():
    heads, size, width = 2, 3, 6
    q, k, v = (RNG.normal(size=(width, width)) for _ in range(3))
    ours = changes.by_head(heads, changes.DENSE).forward([np.concatenate([q, k, v])])
    h = RNG.normal(size=width)
    parts = np.split((h @ ours).reshape(heads, 3 * size), 3, axis=-1)
    for part, weight in zip(parts, (q, k, v), strict=True):
        np.testing.assert_allclose(part, (weight @ h).reshape(heads, size), atol=1e-12)


def test_the_second_half_comes_first():
    ours = changes.swapped_halves(changes.DENSE).forward([np.arange(4.0)[:, None]])
    np.testing.assert_array_equal(ours, [[2, 3, 0, 1]])
