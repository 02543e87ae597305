"""A condition of your own: classes in an order, and a data set that has it.

Class k is embedded as the sum of k learned steps, so that neighbours are near each other. For
``--config.data.name=ordinal_condition:load``, rings that are numbered from the inside.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fmjax.data.codecs import Vectors
from fmjax.data.dataset import Dataset
from fmjax.data.toys import TOYS
from fmjax.errors import InputError


class OrdinalEmbed(nn.Module):
    """From classes (B,) to (B, width): the first k of the learned steps, none for the null."""

    steps: int
    width: int

    @nn.compact
    def __call__(self, classes: Any) -> Any:
        """The sum of the steps up to each class."""
        steps = self.param("steps", nn.initializers.normal(0.02), (self.steps, self.width))
        return (jnp.arange(self.steps)[None] <= classes[:, None]).astype(steps.dtype) @ steps


@dataclass(frozen=True)
class Ordinal:
    """Classes from 0 to ``count - 1`` in their order; -1 stands for none."""

    count: int
    drop_rate: float = 0.0
    kind: ClassVar[str] = "ordinal"

    def null_value(self) -> np.integer:
        """-1."""
        return np.int32(-1)

    def check(self, name: str, x: Any, batch: int) -> None:
        """Classes are integers (batch,)."""
        if not jnp.issubdtype(jnp.result_type(x), jnp.integer) or jnp.shape(x) != (batch,):
            raise InputError(f"{name} must be integers ({batch},); got shape {jnp.shape(x)}.")

    def embedder(self, width: int, name: str) -> nn.Module:
        """The embedding that a network makes of it."""
        return OrdinalEmbed(self.count, width, name=name)


def load() -> Dataset:
    """The toy of four rings, its labels in their order."""
    return Dataset("rings in order", Vectors(2), Ordinal(4), toy=TOYS["rings"])
