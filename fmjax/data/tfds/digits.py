"""The embedded digits as a set of tensorflow_datasets, for the first run without a download."""

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from fmjax.data.dataset import stratified_split
from fmjax.data.tfds import directory
from fmjax.data.tfds.example_set import encode_array, quiet

_DIGIT_SHAPE = (8, 8, 1)
_TEST_EXAMPLES = 297


def prepare_digits(root: Path) -> Path:
    """Prepares the embedded digits in `root`, in a second or two; returns their folder."""
    with quiet():
        return directory.publish(lambda scratch: Digits(data_dir=scratch), root)


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 handwritten digits, 8x8, that scikit-learn carries (UCI; Alpaydin and Kaynak).

    Levels 0 to 16 become 0 to 255; 297 examples, each digit's share, are set apart for testing.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # as in `ExampleSet`

    def __init__(self, *, file_format=directory.FORMAT, **kwargs):
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=_DIGIT_SHAPE, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list("0123456789")),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        from sklearn.datasets import load_digits  # slow to import, and needed only here

        digits = load_digits()
        images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
        train, test = stratified_split(digits.target, _TEST_EXAMPLES)
        return {
            "train": self._generate_examples(images[train], digits.target[train]),
            "test": self._generate_examples(images[test], digits.target[test]),
        }

    def _generate_examples(self, images, labels):
        for key, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield key, {"image": encode_array(image), "label": int(label)}
