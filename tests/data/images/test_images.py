import numpy as np
import pytest
from PIL import Image

from fmjax.data.images import folder
from fmjax.data.images.read import read_images
from fmjax.errors import InputError

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, size=shape, dtype=np.uint8)


def fill(folder, counts, shape=(6, 5, 3), suffix="png", **options):
    """Class folders with so many random images each; returns {path: pixels}."""
    written = {}
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = noise(*shape)
            path = folder / name / f"{i}.{suffix}"
            Image.fromarray(pixels.squeeze()).save(path, **options)
            written[path] = pixels
    return written


def multiset(part):
    return sorted((image.tobytes(), image.shape, label) for image, label in part)


def expected(written, names):
    return sorted(
        (pixels.tobytes(), pixels.shape, names.index(path.parent.name))
        for path, pixels in written.items()
    )


# ------------------------------------------------------------------------------ folders


@pytest.mark.parametrize(
    ("suffix", "shape", "options"),
    [
        ("png", (6, 5, 3), {}),
        ("png", (6, 5, 1), {}),
        ("bmp", (6, 5, 3), {}),
        ("PNG", (6, 5, 1), {}),
        ("webp", (6, 5, 3), {"lossless": True}),
    ],
)
def test_lossless_files_keep_their_pixels(tmp_path, suffix, shape, options):
    written = fill(tmp_path, {"b": 7, "a": 13}, shape, suffix, **options)
    found = read_images(str(tmp_path))
    assert (found.shape, found.class_names) == (shape, ("a", "b"))
    assert (len(found.train), len(found.test)) == (18, 2)
    assert sorted(multiset(found.train) + multiset(found.test)) == expected(written, ["a", "b"])


def test_train_and_test_folders_are_the_two_parts(tmp_path):
    train = fill(tmp_path / "train", {"a": 3, "b": 2})
    test = fill(tmp_path / "test", {"a": 1, "b": 4})
    found = read_images(str(tmp_path))
    assert multiset(found.train) == expected(train, ["a", "b"])
    assert multiset(found.test) == expected(test, ["a", "b"])


def test_a_train_folder_alone_gives_its_share(tmp_path):
    fill(tmp_path / "train", {"a": 10, "b": 10})
    found = read_images(str(tmp_path), test_fraction=0.2)
    assert sorted(label for _, label in found.test) == [0, 0, 1, 1]


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, {"car": 5, "train": 5})
    assert read_images(str(tmp_path)).class_names == ("car", "train")


@pytest.mark.parametrize(
    "name", ["   ", "a\nb", " cat", b"cat\xff".decode(errors="surrogateescape")]
)
def test_a_class_folder_whose_name_a_set_cannot_keep_is_refused(tmp_path, name):
    fill(tmp_path, {"cat": 3, name: 3})
    with pytest.raises(InputError, match="cannot be kept exactly") as refused:
        read_images(str(tmp_path))
    assert repr(name)[1:-1] in str(refused.value)


def test_the_name_of_an_image_may_be_any_bytes(tmp_path):
    written = fill(tmp_path, {"cat": 10})
    for path in written:
        path.rename(path.with_name(f"\udcff\n{path.name}"))
    found = read_images(str(tmp_path))
    assert sorted(multiset(found.train) + multiset(found.test)) == expected(written, ["cat"])


def test_images_without_class_folders_have_no_labels(tmp_path):
    fill(tmp_path, {"": 20})
    found = read_images(str(tmp_path))
    assert found.class_names is None
    assert {label for part in (found.train, found.test) for _, label in part} == {None}
    assert (len(found.train), len(found.test)) == (18, 2)


def test_other_files_are_left_alone(tmp_path):
    fill(tmp_path, {"a": 10})
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / ".hidden.png").write_text("no image")
    (tmp_path / ".cache").mkdir()
    found = read_images(str(tmp_path))
    assert len(found.train) + len(found.test) == 10


def test_size_scales_the_shorter_side_and_crops_the_centre(tmp_path):
    # Three bands of 8 x 8: only the middle one may be left.
    bands = np.repeat(np.array([0, 100, 255], np.uint8), 8)
    wide = np.broadcast_to(bands, (8, 24))
    Image.fromarray(np.ascontiguousarray(wide)).save(tmp_path / "wide.png")
    Image.fromarray(np.ascontiguousarray(wide.T)).save(tmp_path / "high.png")
    found = read_images(str(tmp_path), size=4, test_fraction=0.5)
    for part in (found.train, found.test):
        ((image, _),) = part
        assert image.shape == (4, 4, 1)
        # The resampling window reaches into the bands beside.
        np.testing.assert_allclose(image[1:3, 1:3].astype(int), 100, atol=5)


def test_an_image_of_the_right_size_is_not_resampled(tmp_path):
    written = fill(tmp_path, {"a": 10}, (8, 8, 3))
    found = read_images(str(tmp_path), size=8)
    assert sorted(multiset(found.train) + multiset(found.test)) == expected(written, ["a"])


def test_channels_are_inferred_or_chosen(tmp_path):
    fill(tmp_path, {"a": 5}, (6, 5, 1))
    assert read_images(str(tmp_path)).shape == (6, 5, 1)
    assert read_images(str(tmp_path), channels=3).shape == (6, 5, 3)
    fill(tmp_path, {"b": 5}, (6, 5, 3))
    assert read_images(str(tmp_path)).shape == (6, 5, 3)
    found = read_images(str(tmp_path), channels=1)
    assert {image.shape for image, _ in found.train} == {(6, 5, 1)}


def test_a_photo_is_turned_upright(tmp_path):
    pixels = noise(6, 4, 3)
    exif = Image.Exif()
    exif[folder.ORIENTATION] = 6  # stored a quarter turn counter-clockwise
    for name in "ab":
        Image.fromarray(np.rot90(pixels)).save(tmp_path / f"{name}.png", exif=exif)
    found = read_images(str(tmp_path))
    assert found.shape == (6, 4, 3)
    ((image, _),) = found.train
    np.testing.assert_array_equal(image, pixels)


def test_what_is_transparent_becomes_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, :, 3] = 255  # the upper row is opaque black, the lower one invisible black
    for name in "ab":
        Image.fromarray(pixels, "RGBA").save(tmp_path / f"{name}.png")
    ((image, _),) = read_images(str(tmp_path)).train
    assert image.shape == (2, 2, 3)
    assert (image[0] == 0).all()
    assert (image[1] == 255).all()


def test_a_broken_image_is_named(tmp_path):
    fill(tmp_path, {"a": 10})
    broken = tmp_path / "a" / "broken.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(InputError, match=f"the image {broken} cannot be read; repair"):
        read_images(str(tmp_path))


def test_an_image_cut_short_is_named_when_it_is_decoded(tmp_path):
    fill(tmp_path, {"a": 10}, (64, 64, 3))
    cut = tmp_path / "a" / "3.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    found = read_images(str(tmp_path))
    with pytest.raises(InputError, match=f"the image {cut} cannot be read .*truncated"):
        list(found.train), list(found.test)


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep.png has pixels of kind 'I;16'; convert it to 8"):
        read_images(str(tmp_path))


def test_images_of_several_sizes_need_a_size(tmp_path):
    fill(tmp_path, {"a": 3}, (6, 5, 3))
    fill(tmp_path, {"b": 3}, (8, 8, 3))
    with pytest.raises(InputError, match=r"2 sizes \(5x6 in .*a/0.png, 8x8 in .*b/0.png\).*--size"):
        read_images(str(tmp_path))


def test_an_empty_class_folder_is_named(tmp_path):
    fill(tmp_path, {"a": 3, "b": 0})
    with pytest.raises(InputError, match=f"class folder {tmp_path / 'b'} has no images"):
        read_images(str(tmp_path))


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="neither class folders nor images"):
        read_images(str(tmp_path))


def test_train_and_test_need_the_same_classes(tmp_path):
    fill(tmp_path / "train", {"a": 3, "b": 3})
    fill(tmp_path / "test", {"a": 3, "c": 3})
    with pytest.raises(InputError, match=r"same class folders, got a, b and a, c"):
        read_images(str(tmp_path))


def test_a_class_cannot_be_set_apart_entirely(tmp_path):
    fill(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(InputError, match="2 images of 2 classes are too few to set 1 apart"):
        read_images(str(tmp_path))


# ------------------------------------------------------------------------------ .npz


def save(tmp_path, **arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    return str(tmp_path / "set.npz")


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3)])
@pytest.mark.parametrize("column", [False, True])
def test_arrays_keep_their_pixels(tmp_path, shape, column):
    x, y = noise(20, *shape), np.arange(20) % 4
    found = read_images(save(tmp_path, images=x, labels=y[:, None] if column else y))
    whole = (*shape[:2], shape[2] if len(shape) == 3 else 1)
    assert (found.shape, found.class_names) == (whole, ("0", "1", "2", "3"))
    assert (len(found.train), len(found.test)) == (18, 2)
    both = multiset(found.train) + multiset(found.test)
    assert sorted(both) == sorted(
        (image.tobytes(), whole, int(label)) for image, label in zip(x, y, strict=True)
    )


def test_four_arrays_are_the_two_parts(tmp_path):
    x, y = noise(20, 6, 5), np.arange(20) % 4
    path = save(tmp_path, x_train=x[:12], y_train=y[:12], x_test=x[12:], y_test=y[12:])
    found = read_images(path)
    assert (len(found.train), len(found.test)) == (12, 8)
    np.testing.assert_array_equal(found.test.images[..., 0], x[12:])
    np.testing.assert_array_equal(found.test.labels, y[12:])


def test_arrays_without_labels_have_no_classes(tmp_path):
    found = read_images(save(tmp_path, images=noise(20, 6, 5)))
    assert found.class_names is None
    assert {label for _, label in found.train} == {None}


X, Y = noise(20, 6, 5), np.arange(20) % 4
BAD_ARRAYS = {
    "floats": ({"images": X / 255.0}, "'images' in .* must be uint8 .*, got float64"),
    "flat": ({"images": X.reshape(20, -1)}, r"must have shape .*, got \(20, 30\)"),
    "channels": ({"images": noise(20, 6, 5, 4)}, r"must have shape .*, got \(20, 6, 5, 4\)"),
    "none": ({"images": X[:0]}, r"must have shape .*, got \(0, 6, 5\)"),
    "fewer labels": ({"images": X, "labels": Y[:9]}, r"each of the 20 images, got shape \(9,\)"),
    "one-hot": ({"images": X, "labels": np.eye(4)[Y]}, r"one label .* got shape \(20, 4\)"),
    "float labels": ({"images": X, "labels": Y / 2}, "whole numbers, got float64"),
    "from 1": ({"images": X, "labels": Y + 1}, "from 1 to 4 and take 4 values"),
    "negative": ({"images": X, "labels": Y - 1}, "from -1 to 2"),
    "a gap": ({"images": X, "labels": Y * 2}, "from 0 to 6 and take 4 values"),
    "other names": ({"data": X, "target": Y}, "must hold 'images' .* it holds data, target"),
    "pickles": ({"images": np.array([X, None], object)}, "cannot be read as an .npz"),
    "test shape": (
        {"x_train": X, "x_test": X[:, :5]},
        r"one shape, got \(6, 5, 1\) and \(5, 5, 1\)",
    ),
    "test labels": ({"x_train": X, "y_train": Y, "x_test": X}, "both 'y_train' and 'y_test'"),
    "new classes": (
        {"x_train": X, "y_train": Y % 3, "x_test": X, "y_test": Y},
        "classes that 'y_train' does not have",
    ),
}


@pytest.mark.parametrize(("arrays", "sentence"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_bad_arrays_are_explained(tmp_path, arrays, sentence):
    with pytest.raises(InputError, match=sentence):
        read_images(save(tmp_path, **arrays))


@pytest.mark.parametrize("cut", [0, 300])
def test_a_broken_npz_is_named(tmp_path, cut):
    path = tmp_path / "set.npz"
    path.write_bytes(open(save(tmp_path, images=X), "rb").read()[:cut])  # noqa: SIM115
    with pytest.raises(InputError, match=f"{path} cannot be read as an .npz"):
        read_images(str(path))


# ------------------------------------------------------------------------------ options


def test_bad_options_are_explained(tmp_path):
    path = save(tmp_path, images=X)
    both = {"x_train": X, "x_test": X}
    for given, options, sentence in (
        ("nowhere", {}, "--source=nowhere does not exist"),
        (__file__, {}, "must be a folder or an .npz file"),
        (path, {"size": 0}, "--size must be a whole number of at least 1; got 0"),
        (path, {"channels": 2}, "--channels must be 1 or 3, got 2"),
        (path, {"test_fraction": 0.0}, r"--test_fraction must lie in \(0, 1\); got 0.0"),
        (path, {"test_fraction": 1.5}, r"--test_fraction must lie in \(0, 1\); got 1.5"),
        (path, {"size": 8}, "--size and --channels are for folders"),
        (save(tmp_path, **both), {"test_fraction": 0.5}, "source without a test part"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_images(given, **options)
