"""A data set with every condition: ``--config.data.name=tests.run.every_condition:load``."""

from dataclasses import dataclass

import numpy as np

from fmjax.conditions import as_labels, conditions_of
from fmjax.data.codecs import Pixels
from fmjax.data.dataset import Dataset

SIZE = 64


def arrays(seed):
    """Images, and what they are conditioned on as a user has it."""
    rng = np.random.default_rng(seed)
    labels = {
        "kind": np.arange(SIZE) % 3,
        "age": rng.normal(size=SIZE),
        "text": rng.normal(size=(SIZE, 3, 2)),
        "text_mask": rng.uniform(size=(SIZE, 3)) < 0.5,
        "photo": rng.integers(0, 256, (SIZE, 4, 4, 3)).astype(np.uint8),
    }
    return rng.integers(0, 256, (SIZE, 4, 4, 1)).astype(np.uint8), labels


@dataclass(frozen=True)
class Images:
    """Some of the images, with their labels."""

    seed: int

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return {"image": arrays(self.seed)[0][index]}

    def read(self, indices):
        images, labels = arrays(self.seed)
        chosen = {name: x[np.asarray(indices)] for name, x in labels.items()}
        return images[np.asarray(indices)], as_labels(chosen, conditions_of(labels))


def load():
    """The set."""
    conditions = conditions_of(arrays(0)[1], drop_rate=0.2)
    return Dataset("every", Pixels((4, 4, 1)), conditions, Images(0), Images(1))
