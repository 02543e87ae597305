"""Which examples of a source without a test part are set apart to test on."""

import numpy as np
from jaxtyping import Int

from fmjax.data.dataset import stratified_split
from fmjax.errors import InputError

SHARE = 0.1
"""The share of the test part where none is asked for."""


def set_apart(
    what: str,
    count: int,
    classes: list[Int[np.ndarray, " {count}"]],
    fraction: float | None,
    least: int = 1,
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """The positions to train on and to test on; every class keeps an example to train on.

    Args:
        what: the examples are called in a message, e.g. ``"images"``.
        count: how many there are.
        classes: class ids (count,), an array for each condition of classes; one gives each class
            its share of the test part.
        fraction: the share of the test part; None for a tenth.
        least: how many must be left to train on.

    Raises:
        InputError: there are too few for that.
    """
    size = max(1, round((SHARE if fraction is None else fraction) * count))
    needed = max([least, *(len(np.unique(ids)) for ids in classes)])
    if count - size < needed:
        kept = f"one of each class ({needed})" if needed > least else f"{needed}"
        raise InputError(
            f"{count} {what} are too few to set {size} apart for testing and keep {kept} to train "
            "on; give more, or a smaller --test_fraction."
        )
    if len(classes) <= 1:
        return stratified_split(classes[0] if classes else np.zeros(count, int), size)
    return _keeping_all_classes(what, count, classes, size)


def _keeping_all_classes(
    what: str, count: int, classes: list[Int[np.ndarray, " {count}"]], size: int
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """A random test part, without the last example of any class of any condition."""
    left = [np.bincount(ids) for ids in classes]
    apart: list[int] = []
    for i in np.random.default_rng(0).permutation(count):
        if len(apart) < size and all(n[ids[i]] > 1 for n, ids in zip(left, classes, strict=True)):
            apart.append(i)
            for n, ids in zip(left, classes, strict=True):
                n[ids[i]] -= 1
    if not apart:
        raise InputError(
            f"none of the {count} {what} can be set apart for testing: each is the only one of a "
            "class; give more, or a part with _test behind its names."
        )
    test = np.sort(np.array(apart))
    return np.setdiff1d(np.arange(count), test), test
