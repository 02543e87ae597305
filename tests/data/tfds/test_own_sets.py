"""Sets of a user's own arrays: what is written is read back, and what they say is held to."""

import json
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from fmjax.conditions import ClassIds, ImageCondition, Mask, Sequence, Vector
from fmjax.data import pipeline
from fmjax.data.codecs import Pixels, States, Vectors
from fmjax.data.load import load
from fmjax.data.own import ArrayExamples, OwnData
from fmjax.data.pixels import to_unit
from fmjax.data.tfds import records
from fmjax.data.tfds.example_set import write_set
from fmjax.errors import InputError

RNG = np.random.default_rng(0)
N = 30


def floats(*shape):
    return RNG.normal(size=(N, *shape)).astype(np.float32)


CONDITIONS = {
    "kind": ClassIds(3, names=("a", "b", "c")),
    "dose": Vector(2),
    "text": Sequence(4, 3),
    "text_mask": Mask(4, of="text"),
    "map": ImageCondition((2, 3, 5)),
    "image": ImageCondition((2, 3, 1)),
}
LABELS = {
    "kind": np.arange(N) % 3,
    "dose": floats(2),
    "text": floats(4, 3),
    "text_mask": RNG.random((N, 4)) < 0.5,
    "map": floats(2, 3, 5),
    "image": RNG.integers(0, 256, (N, 2, 3, 1), np.uint8),
}
CODECS = {
    "table": (Vectors(5, (1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 2.0, 0.5, 4.0, 1.0)), floats(5)),
    "latents": (States((2, 2, 7), 0.5, 2.0), floats(2, 2, 7)),
    "images": (Pixels((4, 5, 3)), RNG.integers(0, 256, (N, 4, 5, 3), np.uint8)),
}


def write(data_dir, codec, arrays, conditions, name="own"):
    """Writes 20 rows to train on and 10 to test on."""
    examples = ArrayExamples(arrays)
    train, test = examples.take(np.arange(20)), examples.take(np.arange(20, N))
    return write_set(name, data_dir, OwnData(codec, conditions, train, test))


def order_of(x, arrays):
    """Where each example that was read stands in what was written."""
    keys = {row.tobytes(): i for i, row in enumerate(arrays["x"])}
    return [keys[row.tobytes()] for row in x]


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("cached", [True, False])
def test_arrays_and_all_kinds_of_conditions_are_read_back(data_dir, monkeypatch, kind, cached):
    monkeypatch.setattr(records, "CACHE_BYTES", 2**30 if cached else 0)
    codec, x = CODECS[kind]
    arrays = {"x": x, **LABELS}
    write(data_dir, codec, arrays, CONDITIONS)
    dataset = load("own")
    assert (dataset.codec, dataset.conditions) == (codec, CONDITIONS)
    for split, number in (("train", 20), ("test", 10)):
        read, labels = dataset.arrays(split)
        order = order_of(read, arrays)
        assert sorted(order) == list(range(20) if split == "train" else range(20, N))
        assert len(read) == number
        for name, written in LABELS.items():
            expected = to_unit(written) if name == "image" else written
            np.testing.assert_array_equal(labels[name], expected[order])
            assert labels[name].dtype == CONDITIONS[name].null_value().dtype
    copy = pickle.loads(pickle.dumps(dataset.train))
    np.testing.assert_array_equal(copy.read([3])[0], dataset.train.read([3])[0])


def test_a_lone_condition_of_classes_is_one_array(data_dir):
    write(data_dir, *CODECS["table"][:1], {"x": floats(5), "kind": LABELS["kind"]},
          {"kind": CONDITIONS["kind"]})  # fmt: skip
    dataset = load("own")
    assert dataset.classes == CONDITIONS["kind"]
    assert dataset.train.read([0])[1].shape == (1,)


@pytest.mark.parametrize("kind", CODECS)
def test_pairs_come_as_states_and_stay_together(data_dir, kind):
    codec, x = CODECS[kind]
    arrays = {"x": x, "x0": x[::-1].copy(), "weights": np.arange(N, dtype=np.float32)}
    write(data_dir, codec, arrays, {})
    dataset = load("own")
    x0, x1, labels = dataset.train.read_pairs(range(20))
    order = order_of(x1, arrays)
    np.testing.assert_array_equal(x0, codec.encode(arrays["x0"])[order])
    np.testing.assert_array_equal(dataset.train.weights, arrays["weights"][order])
    assert labels is None
    stream = pipeline.batches(dataset, global_batch=4, seed=0, flip=kind == "images")
    batch = next(stream)
    stream.close()
    assert batch["x0"].dtype == np.float32
    assert batch["x0"].shape == batch["x1"].shape == (4, *codec.shape)


def test_a_pair_of_images_is_mirrored_as_one(data_dir):
    codec, x = CODECS["images"]
    write(data_dir, codec, {"x": x, "x0": x}, {})
    stream = pipeline.batches(load("own"), global_batch=64, seed=0, flip=True)
    batch = next(stream)
    stream.close()
    np.testing.assert_array_equal(batch["x0"], to_unit(batch["x1"]))


def test_vectors_that_are_not_scaled_are_read_back(data_dir):
    _, x = CODECS["table"]
    write(data_dir, Vectors(5), {"x": x}, {})
    np.testing.assert_array_equal(load("own").codec.encode(x), x)


def test_pairs_without_a_test_part_are_held_out_as_pairs(data_dir):
    codec, x = CODECS["table"]
    write_set("own", data_dir, OwnData(codec, {}, ArrayExamples({"x": x, "x0": x}), None))
    dataset = load("own")
    assert (len(dataset.train), len(dataset.test)) == (27, 3)
    for part in (dataset.train, dataset.test):
        x0, x1, _ = part.read_pairs(range(len(part)))
        np.testing.assert_array_equal(x0, codec.encode(x1))


def test_tfds_reads_a_table_without_fmjax(data_dir):
    codec, x = CODECS["table"]
    write(data_dir, codec, {"x": x, **LABELS}, CONDITIONS)
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        "source = tfds.builder('own').as_data_source('train')\n"
        "print(sum(float(e['x'].sum()) + float(e['text'].sum()) for e in source), 'fmjax' in "
        "sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    total, ours = done.stdout.split()
    assert ours == "False"
    np.testing.assert_allclose(float(total), x[:20].sum() + LABELS["text"][:20].sum(), rtol=1e-4)


# ------------------------------------------------------------------------------ metadata

DAMAGES = {
    "another version": ({"version": 2}, "is of version 2, and this fmjax reads 1"),
    "no version": ({"version": None}, "'version' in .* must be a whole number"),
    "x is a number": ({"x": 3}, "'x' in .* must be a text; got 3"),
    "x is no feature": ({"x": "y"}, r"unknown feature of data set 'own' \(data.x\) 'y'"),
    "x is no data": ({"x": "kind"}, "is nothing that a flow is trained on"),
    "an unknown condition": ({"conditions": ["agee"]}, r"\(data.conditions\) 'agee'"),
    "conditions are a text": ({"conditions": "kind"}, "'conditions' in .* must be a list of texts"),
    "unknown weights": ({"weights": "w"}, "unknown feature .* 'w'"),
    "weights of classes": ({"weights": "kind"}, "must be floats; prepare the set again"),
    "x0 of another kind": ({"x0": "kind"}, "must be floats; prepare the set again"),
    "no codec": ({"codec": {}}, "the kind of the codec in .*; got None"),
    "another codec": ({"codec": {"kind": "sounds"}}, "the kind of the codec .*; got 'sounds'"),
    "tokens of floats": ({"codec": {"kind": "tokens"}}, "its tokens must be integers of one fixed"),
    "no mean": ({"codec": {"kind": "vectors"}}, "'mean' of the codec .* must be 5 of: a number"),
    "mean too short": ({"codec": {"kind": "vectors", "mean": [0.0]}}, "'mean' .* must be 5 of"),
    "mean not finite": (
        {"codec": {"kind": "vectors", "mean": [float("nan")] * 5, "scale": [1] * 5}},
        "'mean' .* must be 5 of: a number of at most 1e30",
    ),
    "mean of texts": ({"codec": {"kind": "vectors", "mean": ["1"] * 5}}, "'mean' .* must be 5 of"),
    "scale is zero": (
        {"codec": {"kind": "vectors", "mean": [0] * 5, "scale": [1, 1, 0, 1, 1]}},
        "'scale' .* must be 5 of: a number from 1e-30 to 1e30",
    ),
    "states without a scale": ({"codec": {"kind": "states", "shift": 0}}, "'scale' of the codec"),
    "too large": ({"codec": {"kind": "states", "shift": 10**400}}, "'shift' of the codec"),
    "content is a text": ({"content": "x"}, "'content' in .* must be texts by split"),
}


@pytest.mark.parametrize(("changes", "sentence"), DAMAGES.values(), ids=DAMAGES)
def test_what_a_set_says_of_itself_is_checked(data_dir, changes, sentence):
    codec, x = CODECS["table"]
    folder = write(data_dir, codec, {"x": x, "kind": LABELS["kind"]}, {"kind": CONDITIONS["kind"]})
    path = folder / "metadata.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({"fmjax": stored["fmjax"] | changes}))
    with pytest.raises(InputError, match=sentence):
        load("own")


@pytest.mark.parametrize("text", ["{", "[]", '{"fmjax": []}', '{"fmjax": {}}'])
def test_metadata_that_are_no_such_json_are_refused(data_dir, text):
    folder = write(data_dir, CODECS["table"][0], {"x": CODECS["table"][1]}, {})
    (folder / "metadata.json").write_text(text)
    with pytest.raises(InputError, match=r"metadata\.json"):
        load("own")


def test_a_set_with_metadata_of_somebody_else_is_read_as_any(data_dir):
    folder = write(data_dir, CODECS["images"][0], {"x": CODECS["images"][1]}, {})
    (folder / "metadata.json").write_text('{"homepage": "x"}')
    assert load("own").codec == CODECS["images"][0]


def test_class_ids_outside_the_classes_are_named(data_dir):
    folder = write(data_dir, CODECS["table"][0], {"x": floats(5), "kind": LABELS["kind"]},
                   {"kind": CONDITIONS["kind"]})  # fmt: skip
    features = json.loads((folder / "features.json").read_text())
    features["featuresDict"]["features"]["kind"]["classLabel"]["numClasses"] = "1"
    (folder / "features.json").write_text(json.dumps(features))
    (folder / "kind.labels.txt").unlink()
    with pytest.raises(InputError, match=r"kind \d of 1 classes"):
        load("own").train.read(range(20))


# ------------------------------------------------------------------------------ fingerprints


def test_a_fingerprint_is_of_the_content(data_dir):
    codec, x = CODECS["table"]
    arrays = {"x": x, "kind": LABELS["kind"]}
    conditions = {"kind": CONDITIONS["kind"]}
    told = []
    for name, changes in (("one", {}), ("same", {}), ("x", {"x": np.roll(x, 1)}),
                          ("kind", {"kind": (LABELS["kind"] + 1) % 3})):  # fmt: skip
        write(data_dir, codec, arrays | changes, conditions, name)
        told.append(load(name).fingerprint)
    assert told[0] == told[1]
    assert len(set(told)) == 3


def test_the_digits_have_no_fingerprint(digits):
    assert digits.fingerprint is None


def test_batches_of_conditions_are_trees_of_arrays(data_dir):
    write(data_dir, CODECS["table"][0], {"x": floats(5), **LABELS}, CONDITIONS)
    stream = pipeline.batches(load("own"), global_batch=6, seed=0)
    batch = next(stream)
    stream.close()
    shapes = jax.tree.map(lambda x: x.shape[1:], batch["labels"])
    assert shapes == {name: c.null_value().shape for name, c in CONDITIONS.items()}
