"""A user's own data, whatever they came as: examples ready to be written as a set."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int, Shaped

from fmjax.conditions import Vector
from fmjax.data.codecs import Codec


class Examples(Protocol):
    """Examples by their position, each a dictionary of arrays by what they are.

    ``"x"`` is the data; ``"x0"``, ``"weights"`` and the names of conditions may stand beside it.
    Those that take long to make may have ``fingerprint(indices)``, a text that changes whenever one
    of these examples does: a preparation that was stopped does not make them again.
    """

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One of them; threads may ask."""


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayExamples:
    """Examples in memory.

    Attributes:
        arrays: (n, ...) by what they are.
    """

    arrays: Mapping[str, Shaped[np.ndarray, "n ..."]]

    def __len__(self) -> int:
        return len(self.arrays["x"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: x[index] for name, x in self.arrays.items()}

    def take(self, indices: Int[np.ndarray, " k"]) -> "ArrayExamples":
        """The examples at `indices` (k,)."""
        return ArrayExamples({name: x[indices] for name, x in self.arrays.items()})


LARGE = 10.0
"""Numbers of a condition beyond this are far from the order of one."""


def large_vectors(own: "OwnData") -> list[str]:
    """The vectors among the conditions that are far from the order of one."""
    arrays = getattr(own.train, "arrays", {})  # images are read one by one, and have classes alone
    vectors = (name for name, one in own.conditions.items() if isinstance(one, Vector))
    return [name for name in vectors if np.abs(arrays[name]).max() > LARGE]


class OwnData(NamedTuple):
    """What a source holds.

    Attributes:
        codec: what x are, and x0 beside it.
        conditions: of the examples, by name.
        train: to train on.
        test: to test on.
    """

    codec: Codec
    conditions: Mapping[str, Any]
    train: Examples
    test: Examples
