"""Arrays from files: what is read is what was saved, and what is wrong is one sentence."""

import numpy as np
import pytest

from fmjax.conditions import ClassIds, ImageCondition, Mask, Sequence, Vector
from fmjax.data.codecs import Pixels, States, Vectors
from fmjax.data.read_own import read_own
from fmjax.data.token_codecs import Tokens
from fmjax.errors import InputError

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, size=shape, dtype=np.uint8)


def save(tmp_path, **arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    return str(tmp_path / "set.npz")


def write_csv(tmp_path, text):
    (tmp_path / "table.csv").write_text(text)
    return str(tmp_path / "table.csv")


def whole(found):
    """The arrays of both parts together, in the order of x."""
    parts = [part.arrays for part in (found.train, found.test)]
    both = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(both["x"].reshape(len(both["x"]), -1)[:, 0], kind="stable")
    return {name: x[order] for name, x in both.items()}


# ------------------------------------------------------------------------------ images


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3)])
@pytest.mark.parametrize("column", [False, True])
def test_images_keep_their_pixels(tmp_path, shape, column):
    x, y = noise(20, *shape), np.arange(20) % 4
    found = read_own(save(tmp_path, images=x, labels=y[:, None] if column else y))
    full = (*shape[:2], shape[2] if len(shape) == 3 else 1)
    assert found.codec == Pixels(full)
    assert found.conditions == {"label": ClassIds(4, names=("0", "1", "2", "3"))}
    assert (len(found.train), len(found.test)) == (18, 2)
    read = [(a.tobytes(), a.shape, b) for p in (found.train, found.test)
            for a, b in zip(p.arrays["x"], p.arrays["label"], strict=True)]  # fmt: skip
    assert sorted(read) == sorted((a.tobytes(), full, b) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("images", "labels", "images_test", "labels_test"),
    ],
)
def test_names_say_what_is_held_out(tmp_path, names):
    x, y = noise(20, 6, 5), np.arange(20) % 4
    arrays = dict(zip(names, (x[:12], y[:12], x[12:], y[12:]), strict=True))
    found = read_own(save(tmp_path, **arrays))
    assert (len(found.train), len(found.test)) == (12, 8)
    np.testing.assert_array_equal(found.test.arrays["x"][..., 0], x[12:])
    np.testing.assert_array_equal(found.test.arrays["label"], y[12:])


def test_images_without_labels_have_no_conditions(tmp_path):
    found = read_own(save(tmp_path, images=noise(20, 6, 5)))
    assert found.conditions == {}
    assert set(found.train[0]) == {"x"}


# ------------------------------------------------------------------------------ tables


def test_a_table_is_standardised_by_what_is_trained_on(tmp_path):
    x = np.arange(40.0)[:, None] * [1.0, -3.0] + [0.0, 100.0]
    found = read_own(save(tmp_path, x=x), test_fraction=0.25)
    train = found.train.arrays["x"]
    assert (len(train), len(found.test)) == (30, 10)
    assert isinstance(found.codec, Vectors)
    np.testing.assert_allclose(found.codec.encode(train).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.codec.encode(train).std(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(whole(found)["x"], x.astype(np.float32))


def test_latents_have_one_shift_and_one_scale(tmp_path):
    x = 5 + 3 * RNG.normal(size=(50, 4, 4, 8))
    found = read_own(save(tmp_path, x=x))
    assert isinstance(found.codec, States)
    z = found.codec.encode(found.train.arrays["x"])
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-5)


def test_one_column_is_a_table_too(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20.0))
    found = read_own(str(tmp_path / "x.npy"))
    assert found.codec.shape == (1,)
    np.testing.assert_array_equal(whole(found)["x"][:, 0], np.arange(20))


CONDITIONS = {
    "kind": (np.arange(20) % 3, ClassIds(3, names=("0", "1", "2"))),
    "organ": (np.array(["lung", "eye"])[np.arange(20) % 2], ClassIds(2, names=("eye", "lung"))),
    "on": (np.arange(20) % 2 == 0, ClassIds(2, names=("0", "1"))),
    "age": (RNG.normal(size=20), Vector(1)),
    "dose": (RNG.normal(size=(20, 3)), Vector(3)),
    "text": (RNG.normal(size=(20, 4, 2)), Sequence(4, 2)),
    "text_mask": (RNG.random((20, 4)) < 0.5, Mask(4, of="text")),
    "photo": (noise(20, 3, 2, 1), ImageCondition((3, 2, 1))),
    "map": (RNG.normal(size=(20, 3, 2, 5)), ImageCondition((3, 2, 5))),
}


def test_arrays_beside_the_data_are_conditions_of_their_own_names(tmp_path):
    arrays = {name: x for name, (x, _) in CONDITIONS.items()}
    found = read_own(save(tmp_path, x=np.arange(20.0), **arrays))
    assert found.conditions == {name: condition for name, (_, condition) in CONDITIONS.items()}
    read = whole(found)
    for name, x in arrays.items():
        if name == "organ":
            x = (x == "lung").astype(int)
        np.testing.assert_array_equal(read[name].reshape(x.shape), x.astype(read[name].dtype))


def test_pairs_and_weights_go_with_their_examples(tmp_path):
    x = np.arange(20.0)[:, None] * [1, 2]
    found = read_own(save(tmp_path, x=x, x0=x + 0.5, weights=np.arange(20)))
    for part in (found.train, found.test):
        np.testing.assert_array_equal(part.arrays["x0"], part.arrays["x"] + 0.5)
        np.testing.assert_array_equal(part.arrays["weights"], part.arrays["x"][:, 0])


def test_held_out_examples_without_weights_count_once(tmp_path):
    x = np.arange(20.0)[:, None]
    found = read_own(save(tmp_path, x=x, weights=np.arange(20), x_test=x[:3]))
    np.testing.assert_array_equal(found.test.arrays["weights"], 1)


def test_several_conditions_of_classes_keep_one_of_each_to_train_on(tmp_path):
    rare = np.arange(40) // 2
    found = read_own(save(tmp_path, x=np.arange(40.0), a=rare, b=np.arange(40) % 5 // 4))
    assert len(found.test) == 4
    for name in ("a", "b"):
        assert set(found.test.arrays[name]) <= set(found.train.arrays[name])


# ------------------------------------------------------------------------------ .csv


def test_columns_of_a_csv_are_data_unless_they_are_conditions(tmp_path):
    rows = "\n".join(
        f"{i}, {2 * i}.5,{'ab'[i % 2]},{10 * (i % 3)},{i / 4},{i % 2 + 1}" for i in range(20)
    )
    path = write_csv(tmp_path, f"\ufeffu,v,kind,year,age,w\n{rows}\n\n")
    found = read_own(path, conditions=["kind", "year", "age"], weights="w")
    assert found.conditions == {
        "kind": ClassIds(2, names=("a", "b")),
        "year": ClassIds(3, names=("0", "10", "20")),
        "age": Vector(1),
    }
    i, read = np.arange(20), whole(found)
    np.testing.assert_array_equal(read["x"], np.stack([i, 2 * i + 0.5], axis=1))
    for name, expected in (("kind", i % 2), ("year", i % 3), ("weights", i % 2 + 1)):
        np.testing.assert_array_equal(read[name], expected)
    np.testing.assert_array_equal(read["age"][:, 0], i / 4)


def test_several_columns_of_a_csv_are_one_vector(tmp_path):
    rows = "\n".join(f"{i},{i / 4},{i},{'ab'[i % 2]},{i % 3}" for i in range(20))
    path = write_csv(tmp_path, f"u,in the morning,evening,kind,a b\n{rows}\n")
    found = read_own(path, conditions=["kind", "dose:evening,in the morning", "group:a b"])
    assert found.conditions == {
        "kind": ClassIds(2, names=("a", "b")),
        "dose": Vector(2),
        "group": ClassIds(3, names=("0", "1", "2")),
    }
    i, read = np.arange(20), whole(found)
    np.testing.assert_array_equal(read["x"][:, 0], i)
    np.testing.assert_array_equal(read["dose"], np.stack([i, i / 4], axis=1))
    np.testing.assert_array_equal(read["group"], i % 3)


BAD_TABLES = {
    "text": ("a,b\n1,2\n3,x\n", {}, r"column 'b' of .* holds text, 'x' in row 1: .*--condition=b"),
    "empty cell": ("a,b\n1,2\n,4\n", {}, "column 'a' of .* is empty in row 1"),
    "empty text": ("a,b\n1,x\n2,\n", {"conditions": ["b"]}, "column 'b' of .* is empty in row 1"),
    "ragged": ("a,b\n1,2\n3\n", {}, "row 1 of .* has 1 cells, and there are 2 columns"),
    "no names": ("1,2\n3,4\n", {}, "first line of .* must name the columns"),
    "one name twice": ("a,a\n3,4\n", {}, "two columns named 'a'"),
    "no name": ("a,\n3,4\n", {}, "a column without a name"),
    "semicolons": ("a;b\n3;4\n", {}, "must be separated by commas; got 'a;b'"),
    "no rows": ("a,b\n", {}, "has no rows"),
    "nothing": ("", {}, "has no rows"),
    "nan": ("a,b\n1,2\n3,nan\n5,6\n", {}, r"row 1 holds nan in column 'b', the first of 1"),
    "nan in a condition": (
        "a,b\n1,2.5\n3,nan\n5,6\n",
        {"conditions": ["b"]},
        "'column b' in .* row 1 holds nan in column 'b'",
    ),
    "nan in a group": (
        "a,b,c\n1,2,3\n3,4,nan\n5,6,7\n",
        {"conditions": ["d:c,b"]},
        "row 1 holds nan in column 'c'",
    ),
    "constant": ("a,b\n1,7\n2,7\n3,7\n4,7\n", {}, "constant columns b, over the rows"),
    "unknown": (
        "age,b\n1,7\n2,8\n",
        {"conditions": ["agee"]},
        "Did you mean 'age'",
    ),
    "no weights": ("a,b\n1,7\n2,8\n", {"weights": "w"}, "unknown column of .* 'w'"),
    "no data": ("a,b\n1,7\n2,8\n", {"conditions": ["a"], "weights": "b"}, "no column left"),
    "one row": ("a,b\n1,7\n", {}, "1 examples are too few to set 1 apart for testing and keep 2"),
    "two uses": ("a,b\n1,7\n2,8\n", {"conditions": ["b", "c:b"]}, "column 'b' .* has two uses"),
    "a weight": ("a,b\n1,7\n2,8\n", {"conditions": ["b"], "weights": "b"}, "has two uses"),
    "twice": ("a,b\n1,7\n2,8\n", {"conditions": ["c:a", "c:b"]}, "names 'c' twice"),
    "named x": ("x,b\n1,7\n2,8\n", {"conditions": ["x"]}, "'x' in --condition=x would be"),
    "without a name": ("a,b\n1,7\n2,8\n", {"conditions": [":a"]}, "'' in --condition=:a would be"),
    "without columns": ("a,b\n1,7\n2,8\n", {"conditions": ["c:"]}, "unknown column of .* ''"),
    "text in a group": (
        "a,b,c\n1,7,x\n2,8,y\n",
        {"conditions": ["d:b,c"]},
        "'c' of .* holds text, 'x' in row 0: make it a condition of its own",
    ),
    "its name": ("a,a b\n1,7\n2,8\n", {"conditions": ["a b"]}, "must be of letters, digits and _"),
}


@pytest.mark.parametrize(("text", "options", "sentence"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_bad_csv_is_explained(tmp_path, text, options, sentence):
    with pytest.raises(InputError, match=sentence):
        read_own(write_csv(tmp_path, text), **options)


def test_a_csv_in_another_encoding_is_named(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"a,b\n\xff,1\n")
    with pytest.raises(InputError, match=r"cannot be read as a \.csv"):
        read_own(str(tmp_path / "table.csv"))


# ------------------------------------------------------------------------------ mistakes

X, Y = noise(20, 6, 5), np.arange(20) % 4
T = RNG.normal(size=(20, 3))
HOLED = np.where(np.arange(60).reshape(20, 3) == 31, np.nan, T)
BAD_ARRAYS = {
    "latents as images": ({"images": T}, "'images' in .* must be uint8 .*, got float64; .*are 'x'"),
    "pixels as latents": ({"x": np.float32(noise(9, 4, 4, 3))}, r"which are pixels: .*np.uint8"),
    "flat": ({"images": X.reshape(20, -1)}, r"must have shape .*; got \(20, 30\)"),
    "channels": ({"images": noise(20, 6, 5, 4)}, r"must have shape .*; got \(20, 6, 5, 4\)"),
    "no images": ({"images": X[:0]}, r"must have shape .*; got \(0, 6, 5\)"),
    "empty": ({"x": T[:0]}, r"with at least one example; got \(0, 3\)"),
    "whole numbers": ({"x": Y}, "must be floats, or images of uint8; got int64"),
    "text": ({"x": np.array(["a"] * 20)}, "must be numbers, got text; texts can only be classes"),
    "nan": ({"x": HOLED}, "row 10 holds nan in column 1, the first of 1"),
    "infinity": ({"x": T * [1, 1, 1e300]}, "must be finite in float32; row 0 holds .* in column 2"),
    "nan in latents": ({"x": HOLED[..., None]}, r"row 10 holds nan at \(1, 0\)"),
    "constant": ({"x": T * [1, 0, 1]}, "constant columns 1, over"),
    "constant latents": ({"x": np.full((9, 2, 2, 4), 0.5)}, "is constant: there is nothing"),
    "one row": ({"x": T[:1]}, "1 examples are too few to set 1 apart"),
    "two rows": ({"x": T[:2]}, "2 examples are too few to set 1 apart for testing and keep 2"),
    "one row to train on": ({"x": T[:1], "x_test": T}, "one example only"),
    "another length": ({"x": T, "age": T[:9]}, r"one entry for each of the 20 examples, got .*\(9"),
    "of one dimension less": ({"x": T, "age": np.float64(3)}, r"each of the 20 .* got shape \(\)"),
    "nan in a condition": ({"x": T, "age": HOLED}, "'age' in .* row 10 holds nan in column 1"),
    "a condition of ids": ({"x": T, "age": Y[:, None] * [1, 1]}, "a condition is whole numbers"),
    "a mask alone": ({"x": T, "text_mask": T > 0}, "text_mask"),
    "fewer labels": ({"images": X, "labels": Y[:9]}, r"each of the 20 examples, got shape \(9,\)"),
    "one-hot": ({"images": X, "labels": np.eye(4)[Y]}, r"one label .* got .* shape \(20, 4\)"),
    "float labels": ({"images": X, "labels": Y / 2}, "whole numbers, one label .* got float64"),
    "from 1": ({"images": X, "labels": Y + 1}, "from 1 to 4 and take 4 values"),
    "negative": ({"images": X, "labels": Y - 1}, "from -1 to 2"),
    "a gap": ({"images": X, "labels": Y * 2}, "from 0 to 6 and take 4 values"),
    "other names": ({"data": X, "target": Y}, "must hold 'x', or .* it holds data, target"),
    "two names": ({"x": T, "images": X}, "holds both 'x' and 'images', which are one"),
    "pickles": ({"images": np.array([X, None], object)}, "cannot be read as an .npz"),
    "test shape": ({"x": T, "x_test": T[:, :2]}, r"one shape and dtype; got .*\(3,\) and .*\(2,\)"),
    "test labels": ({"x_train": X, "y_train": Y, "x_test": X}, "y_train is there for one of the"),
    "train labels": ({"x": X, "x_test": X, "y_test": Y}, "label_test is there for one of the two"),
    "new classes": (
        {"x_train": X, "y_train": Y % 3, "x_test": X, "y_test": Y},
        "'y_test' in .* has classes that the training part does not have: 3",
    ),
    "another length in the test": (
        {"x": T, "a": Y, "x_test": T, "a_test": Y[:3]},
        r"'a_test' in .* one entry for each of the 20 examples",
    ),
    "another size in the test": (
        {"x": T, "a": T, "x_test": T, "a_test": T[:, :2]},
        r"must be vectors, floats of shape \(20, 3\)",
    ),
    "pairs of another shape": ({"x": T, "x0": T[:, :2]}, r"'x0' in .* one point for each"),
    "pairs of images": ({"x": X, "x0": X / 255}, r"one point for each, uint8"),
    "nan in pairs": ({"x": T, "x0": HOLED}, "'x0' in .* row 10 holds nan in column 1"),
    "negative weights": ({"x": T, "weights": T[:, 0]}, "one number of at least 0 for each"),
    "no weights": ({"x": T, "weights": np.zeros(20)}, "not all of them 0"),
    "fewer weights": ({"x": T, "weights": np.ones(9)}, r"got float64 \(9,\)"),
    "a class name": ({"x": T, "a": np.array([" a", "b"] * 10)}, "the class name ' a' cannot"),
    "every class once": ({"x": T, "a": np.arange(20), "b": Y}, "too few to set 2 apart"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "sentence"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_are_explained(tmp_path, arrays, sentence):
    with pytest.raises(InputError, match=sentence):
        read_own(save(tmp_path, **arrays))


@pytest.mark.parametrize("cut", [0, 300])
def test_a_broken_npz_is_named(tmp_path, cut):
    path = tmp_path / "set.npz"
    path.write_bytes(open(save(tmp_path, images=X), "rb").read()[:cut])  # noqa: SIM115
    with pytest.raises(InputError, match=f"{path} cannot be read as an .npz"):
        read_own(str(path))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"no array at all"])
def test_a_broken_npy_is_named(tmp_path, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} cannot be read as an .npy"):
        read_own(str(path))


def test_an_npy_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="it holds objects"):
        read_own(str(tmp_path / "x.npy"))


def test_bad_options_are_explained(tmp_path):
    path = save(tmp_path, images=X)
    (tmp_path / "both").mkdir()
    both = save(tmp_path / "both", x_train=X, x_test=X)
    for given, options, sentence in (
        ("nowhere", {}, "--source=nowhere does not exist"),
        (__file__, {}, "must be a folder of images, an .npz, .npy, .csv or .txt"),
        (path, {"size": 0}, "--size must be a whole number of at least 1; got 0"),
        (path, {"channels": 2}, "--channels must be 1 or 3, got 2"),
        (path, {"test_fraction": 0.0}, r"--test_fraction must lie in \(0, 1\); got 0.0"),
        (path, {"test_fraction": 1.5}, r"--test_fraction must lie in \(0, 1\); got 1.5"),
        (path, {"size": 8}, "--size and --channels are for folders"),
        (path, {"conditions": ["label"]}, "--condition and --weights name columns of a .csv"),
        (path, {"test_fraction": 0.99}, "20 images are too few to set 20 apart"),
        (both, {"test_fraction": 0.5}, "source without a test part"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_own(given, **options)


# ------------------------------------------------------------------------------ tokens


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16])
@pytest.mark.parametrize("shape", [(), (6,), (3, 2, 1)])
def test_whole_numbers_become_tokens(tmp_path, dtype, shape):
    x = RNG.integers(0, 9, size=(20, *shape)).astype(dtype)
    found = read_own(save(tmp_path, x=x, labels=np.arange(20) % 4), tokens=9)
    assert found.codec == Tokens(shape or (1,), 9)
    assert found.conditions["label"] == ClassIds(4, names=("0", "1", "2", "3"))
    read = np.concatenate([found.train.arrays["x"], found.test.arrays["x"]])
    assert read.dtype == np.int32
    assert sorted(map(tuple, read.reshape(20, -1))) == sorted(map(tuple, x.reshape(20, -1)))


@pytest.mark.parametrize(
    ("arrays", "tokens", "sentence"),
    [
        ({"x": np.full((20, 3), 9)}, 9, r"'x' in .* from 0 to 8; got 9 at \(0, 0\), the first of"),
        ({"x": np.zeros((20, 3))}, 9, "must be integers from 0 to 8; got float64"),
        (
            {"x": np.zeros((20, 3), int)},
            1,
            "of the vocabulary, must be a whole number of at least 2",
        ),
        ({"x": np.zeros((0, 3), int)}, 9, r"must have shape \(n, ...\) with at least one example"),
        ({"x": np.zeros((20, 3), int)}, None, "and --tokens=K if they are symbols from 0 to K - 1"),
        (
            {"x": np.zeros((20, 3), int), "x0": np.zeros((20, 3), int)},
            9,
            "a flow of tokens has a source, masks or uniform tokens, and no stored pairs",
        ),
    ],
)
def test_what_is_wrong_with_tokens_is_one_sentence(tmp_path, arrays, tokens, sentence):
    with pytest.raises(InputError, match=sentence):
        read_own(save(tmp_path, **arrays), tokens=tokens)


def test_tokens_of_the_held_out_part_are_of_the_vocabulary(tmp_path):
    path = save(tmp_path, x=np.zeros((9, 2), int), x_test=np.full((3, 2), 4))
    with pytest.raises(InputError, match=r"'x_test' in .* must be integers from 0 to 3; got 4"):
        read_own(path, tokens=4)
