"""Images of texts, as features of them: ``--config.data.name=tests.run.texts:load``."""

from dataclasses import dataclass

import numpy as np

from fmjax.conditions import as_labels, conditions_of
from fmjax.data.codecs import Pixels
from fmjax.data.dataset import Dataset

SIZE = 64


def arrays(seed):
    """Images, and what a text encoder would give of their texts, of three places each."""
    rng = np.random.default_rng(seed)
    labels = {"text": rng.normal(size=(SIZE, 3, 6)), "pooled": rng.normal(size=(SIZE, 5))}
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
    return Dataset("texts", Pixels((4, 4, 1)), conditions_of(arrays(0)[1]), Images(0), Images(1))
