"""Examples with weights: how often each is visited, and in which order."""

import functools
import sys

import numpy as np
from jaxtyping import Float32, Int64, Real

from fmjax.errors import InputError


def check_weights(
    what: str, weights: Real[np.ndarray, " {count}"], count: int
) -> Float32[np.ndarray, " {count}"]:
    """Weights as float32 (n,), once they are such.

    Args:
        what: the weights, as the message names them.
        weights: what came in, an array.
        count: how many examples there are.

    Raises:
        InputError: they are not one number of at least 0 for each example, or all 0.
    """
    good = weights.shape == (count,) and weights.dtype.kind in "fiu"
    found = weights.astype(np.float32) if good else weights
    if not good or not np.isfinite(found).all() or found.min() < 0 or not found.any():
        came = (
            f"values from {weights.min()} to {weights.max()}"
            if good
            else f"{weights.dtype} {weights.shape}"
        )
        raise InputError(
            f"{what} must be one number of at least 0 for each of the {count} examples, not all of "
            f"them 0; got {came}."
        )
    return found


def resample(
    weights: Real[np.ndarray, " n"], count: int, u: float
) -> Int64[np.ndarray, " {count}"]:
    """Positions drawn by systematic resampling: example i floor or ceil of count w_i / sum w times.

    The k-th position is where the running sum of weights passes (k + u) / count of the whole.

    Args:
        weights: (n,), not negative, their sum positive.
        count: how many positions.
        u: the offset of the grid, in [0, 1).

    Returns:
        Positions int64 (count,), in increasing order.
    """
    passed = np.cumsum(np.asarray(weights, np.float64))
    places = (np.arange(count) + u) * (passed[-1] / count)
    last = np.flatnonzero(weights)[-1]  # rounding may put a place past the whole sum
    return np.minimum(np.searchsorted(passed, places, side="right"), last)


class WeightedOrder:
    """An endless source of positions: epochs of n, each resampled by the weights and shuffled.

    Item k is a function of the weights, the seed and k alone.

    Attributes:
        weights: (n,), not negative, their sum positive.
        seed: of all epochs.
    """

    def __init__(self, weights: Real[np.ndarray, " n"], seed: int):
        """Args as the attributes."""
        self.weights, self.seed = weights, seed
        self._order = functools.lru_cache(maxsize=2)(self._make_order)  # a batch may span two

    def _make_order(self, epoch: int) -> Int64[np.ndarray, " n"]:
        rng = np.random.default_rng((self.seed, epoch))
        return rng.permutation(resample(self.weights, len(self.weights), rng.random()))

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, k: int) -> int:
        epoch, place = divmod(int(k), len(self.weights))
        return int(self._order(epoch)[place])
