"""What a prepared set says of itself is held to kinds and ranges before TFDS believes it."""

import json
import re
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fmjax.data.load import load
from fmjax.data.tfds.stored_info import FEATURES, INFO, check_stored
from fmjax.errors import InputError
from tests.data.tfds.image_sets import odd, rewrite, write


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The two files of a set, as TFDS writes them."""
    folder = write(tmp_path_factory.mktemp("set"))[0]
    return {name: json.loads((folder / name).read_text()) for name in (INFO, FEATURES)}


def store(folder, whole, file, path, value):
    """Writes the two files, one of them with one value changed."""
    changed = json.loads(json.dumps(whole))
    *steps, last = path
    here = changed[file]
    for step in steps:
        here = here[step]
    here[last] = value
    for name, content in changed.items():
        (folder / name).write_text(json.dumps(content))


SPLIT = ("splits", 0)
IMAGE = ("featuresDict", "features", "image")
LABEL = ("featuresDict", "features", "label")
SIZES = (*IMAGE, "image", "shape", "dimensions")
NESTED = {"a": 1}
for _ in range(40):
    NESTED = {"a": NESTED}
WRONG = [
    (INFO, ("name",), "../other", "'name' in dataset_info.json must be a name without /"),
    (INFO, ("name",), 5, "must be a name without /"),
    (INFO, ("version",), 1, "'version' .* must be a text"),
    (INFO, ("splits",), {}, "'splits' .* must be a list of objects"),
    (INFO, ("splits",), [5], "'splits' .* must be a list of objects"),
    (INFO, ("fileFormat",), 7, "must be a text"),
    (INFO, ("alternativeFileFormats",), "x", "must be a list of texts"),
    (INFO, (*SPLIT, "name"), "a/b", "'name' in a split in .* must be a name without /"),
    (INFO, (*SPLIT, "filepathTemplate"), "../{SPLIT}", "must be a name without /"),
    (INFO, (*SPLIT, "filepath_template"), "/etc/{SPLIT}", "must be a name without /"),
    (INFO, (*SPLIT, "shardLengths"), ["-1"], "shardLengths.* must be a list, each a whole number"),
    (INFO, (*SPLIT, "shardLengths"), [2**31], "from 0 to 2.31 - 1"),
    (INFO, (*SPLIT, "shard_lengths"), ["9" * 30], "from 0 to 2.31 - 1"),
    (INFO, (*SPLIT, "shardLengths"), "12", "must be a list"),
    (FEATURES, ("pythonClassName",), "antigravity.Mine", "must be a feature of TFDS; got 'antig"),
    (FEATURES, (*IMAGE, "python_class_name"), "a.B", "must be a feature of TFDS"),
    (FEATURES, (*IMAGE, "type"), "a.B", "must be a feature of TFDS"),
    (FEATURES, (*LABEL, "classLabel", "numClasses"), "-3", "'numClasses' .* whole number"),
    (FEATURES, (*LABEL, "classLabel", "numClasses"), str(2**31), "'numClasses' .* whole number"),
    (FEATURES, SIZES, ["80000", "80000", "1"], "'dimensions' .* must be a shape"),
    (FEATURES, SIZES, ["-2", "5", "3"], "'dimensions' .* must be a shape"),
    (FEATURES, SIZES, "435", "'dimensions' .* must be a shape"),
    (FEATURES, SIZES, ["1"] * 9, "'dimensions' .* must be a shape"),
    (FEATURES, ("more",), NESTED, "nested deeper than 32"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "path", "value", "message"), WRONG)
def test_what_cannot_be_is_refused(tmp_path, whole, file, path, value, message):
    store(tmp_path, whole, file, path, value)
    with pytest.raises(InputError, match=message):
        check_stored(tmp_path)


RIGHT = [
    (INFO, ("fileFormat",), "array_record"),
    (INFO, (*SPLIT, "shardLengths"), [0, "2147483647"]),
    (FEATURES, SIZES, ["-1", "-1", "3"]),
    (FEATURES, SIZES, []),
    (FEATURES, ("featuresDict", "features", "dimensions"), {"tensor": {}}),
    (FEATURES, ("featuresDict", "features", "type"), {"tensor": {}}),
]


@pytest.mark.parametrize(("file", "path", "value"), RIGHT)
def test_what_can_be_passes(tmp_path, whole, file, path, value):
    store(tmp_path, whole, file, path, value)
    assert check_stored(tmp_path) == ["array_record"]


def test_a_set_older_than_the_file_format_is_of_tfrecord(tmp_path, whole):
    info = {key: value for key, value in whole[INFO].items() if key != "fileFormat"}
    store(tmp_path, whole | {INFO: info}, INFO, ("alternativeFileFormats",), ["array_record"])
    assert check_stored(tmp_path) == ["tfrecord", "array_record"]


def test_no_module_is_imported_because_a_set_names_it(data_dir, tmp_path, monkeypatch):
    folder, _, _ = write(data_dir)
    (tmp_path / "of_a_stranger.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(tmp_path)
    rewrite(folder / FEATURES, pythonClassName="of_a_stranger.Features")
    sentence = rf"'blobs' in {re.escape(str(folder))} cannot be read \('pythonClassName' in .*TFDS"
    with pytest.raises(InputError, match=sentence):
        load("blobs")
    assert "of_a_stranger" not in sys.modules


def test_features_may_have_the_names_of_keys(data_dir):
    features = {
        name: tfds.features.Tensor(shape=(2,), dtype=np.float32) for name in ("image", "type")
    }
    x = np.ones(2, np.float32)
    with pytest.raises(InputError, match="one example only"):
        odd(data_dir, features, {"image": x, "type": x})
