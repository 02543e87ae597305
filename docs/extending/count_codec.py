"""A codec of your own: counts, learned as log(1 + count), and a data set of them.

For ``--config.data.name=count_codec:load``: how often each of two genes is read in a cell, in two
kinds of cells.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Codec
from fmjax.data.dataset import Dataset
from fmjax.data.toys import Toy
from fmjax.errors import InputError


@dataclass(frozen=True)
class Counts(Codec):
    """Whole numbers that are not negative; samples are rounded, and none is below 0."""

    size: int
    kind: ClassVar[str] = "counts"
    data_dtype: ClassVar[np.dtype] = np.dtype(np.int32)
    bin_width: ClassVar[None] = None  # on the scale of the states, levels have no one distance

    @property
    def shape(self) -> tuple[int, ...]:
        """(size,), of a state as of the data."""
        return (self.size,)

    data_shape = shape

    def encode(self, data: Any) -> Any:
        """log(1 + count), by numpy where the data are numpy's."""
        return (np if isinstance(data, np.ndarray) else jnp).log1p(data.astype(np.float32))

    def decode(self, x: Any) -> Any:
        """exp(x) - 1, rounded."""
        return jnp.maximum(jnp.round(jnp.expm1(x)), 0).astype(jnp.int32)

    def dequantize(self, keys: Any, data: Any) -> Any:
        """Refused: between the logarithms of neighbouring counts there is no one distance."""
        raise InputError("counts cannot be dequantised; write data.dequantize=False.")


def cells(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts (n, 2) and kinds (n,): the one kind of cell reads the first gene, the other both."""
    kinds = rng.integers(2, size=n).astype(np.int32)
    rates = np.array([[20.0, 1.0], [15.0, 60.0]])[kinds]
    return rng.poisson(rates).astype(np.int32), kinds


def load() -> Dataset:
    """Cells, drawn anew for every batch."""
    return Dataset("cells", Counts(2), ClassIds(2, names=("one", "other")), toy=Toy(cells, 2))
