"""A data set with two conditions: ``--config.data.name=tests.run.two_conditions:load``.

Points of two moons, their moon and, as a vector, the height that they are at.
"""

from dataclasses import dataclass

import numpy as np

from fmjax.conditions import ClassIds, Vector
from fmjax.data.codecs import Vectors
from fmjax.data.dataset import Dataset
from fmjax.data.toys import moons

POINTS = {name: moons(np.random.default_rng(seed), 256) for seed, name in enumerate(("a", "b"))}


@dataclass(frozen=True)
class Moons:
    """Some points, with their labels."""

    name: str

    def __len__(self):
        return 256

    def __getitem__(self, index):
        return {"x": POINTS[self.name][0][index]}

    def read(self, indices):
        x, moon = (part[np.asarray(indices)] for part in POINTS[self.name])
        return x, {"moon": moon, "height": x[:, 1:]}


def load():
    """The set; its heights are dropped more often than its moons."""
    codec = Vectors.fitted(POINTS["a"][0])
    conditions = {"moon": ClassIds(2), "height": Vector(1, null=(9.0,), drop_rate=0.5)}
    return Dataset("moons", codec, conditions, Moons("a"), Moons("b"))
