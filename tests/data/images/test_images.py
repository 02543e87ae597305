import warnings

import numpy as np
import pytest
from PIL import Image

from fmjax.data.images import folder
from fmjax.data.read_own import read_own
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
    examples = (part[i] for i in range(len(part)))
    return sorted((e["x"].tobytes(), e["x"].shape, e.get("label")) for e in examples)


def names_of(found):
    """The names of the classes, or None."""
    return found.conditions["label"].names if found.conditions else None


def labels_of(part):
    return {part[i].get("label") for i in range(len(part))}


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
    found = read_own(str(tmp_path))
    assert (found.codec.shape, names_of(found)) == (shape, ("a", "b"))
    assert (len(found.train), len(found.test)) == (18, 2)
    assert sorted(multiset(found.train) + multiset(found.test)) == expected(written, ["a", "b"])


def test_train_and_test_folders_are_the_two_parts(tmp_path):
    train = fill(tmp_path / "train", {"a": 3, "b": 2})
    test = fill(tmp_path / "test", {"a": 1, "b": 4})
    found = read_own(str(tmp_path))
    assert multiset(found.train) == expected(train, ["a", "b"])
    assert multiset(found.test) == expected(test, ["a", "b"])


def test_a_train_folder_alone_gives_its_share(tmp_path):
    fill(tmp_path / "train", {"a": 10, "b": 10})
    found = read_own(str(tmp_path), test_fraction=0.2)
    assert sorted(found.test[i]["label"] for i in range(4)) == [0, 0, 1, 1]


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, {"car": 5, "train": 5})
    assert names_of(read_own(str(tmp_path))) == ("car", "train")


@pytest.mark.parametrize(
    "name", ["   ", "a\nb", " cat", b"cat\xff".decode(errors="surrogateescape")]
)
def test_a_class_folder_whose_name_a_set_cannot_keep_is_refused(tmp_path, name):
    fill(tmp_path, {"cat": 3, name: 3})
    with pytest.raises(InputError, match="cannot be kept exactly") as refused:
        read_own(str(tmp_path))
    assert repr(name)[1:-1] in str(refused.value)


def test_the_name_of_an_image_may_be_any_bytes(tmp_path):
    written = fill(tmp_path, {"cat": 10})
    for path in written:
        path.rename(path.with_name(f"\udcff\n{path.name}"))
    found = read_own(str(tmp_path))
    assert sorted(multiset(found.train) + multiset(found.test)) == expected(written, ["cat"])


def test_images_without_class_folders_have_no_labels(tmp_path):
    fill(tmp_path, {"": 20})
    found = read_own(str(tmp_path))
    assert names_of(found) is None
    assert labels_of(found.train) | labels_of(found.test) == {None}
    assert (len(found.train), len(found.test)) == (18, 2)


def test_other_files_are_left_alone(tmp_path):
    fill(tmp_path, {"a": 10})
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / ".hidden.png").write_text("no image")
    (tmp_path / ".cache").mkdir()
    found = read_own(str(tmp_path))
    assert len(found.train) + len(found.test) == 10


def test_size_scales_the_shorter_side_and_crops_the_centre(tmp_path):
    # Three bands of 8 x 8: only the middle one may be left.
    bands = np.repeat(np.array([0, 100, 255], np.uint8), 8)
    wide = np.broadcast_to(bands, (8, 24))
    Image.fromarray(np.ascontiguousarray(wide)).save(tmp_path / "wide.png")
    Image.fromarray(np.ascontiguousarray(wide.T)).save(tmp_path / "high.png")
    found = read_own(str(tmp_path), size=4, test_fraction=0.5)
    for part in (found.train, found.test):
        image = part[0]["x"]
        assert len(part) == 1
        assert image.shape == (4, 4, 1)
        # The resampling window reaches into the bands beside.
        np.testing.assert_allclose(image[1:3, 1:3].astype(int), 100, atol=5)


def test_an_image_of_the_right_size_is_not_resampled(tmp_path):
    written = fill(tmp_path, {"a": 10}, (8, 8, 3))
    found = read_own(str(tmp_path), size=8)
    assert sorted(multiset(found.train) + multiset(found.test)) == expected(written, ["a"])


def test_channels_are_inferred_or_chosen(tmp_path):
    fill(tmp_path, {"a": 5}, (6, 5, 1))
    assert read_own(str(tmp_path)).codec.shape == (6, 5, 1)
    assert read_own(str(tmp_path), channels=3).codec.shape == (6, 5, 3)
    fill(tmp_path, {"b": 5}, (6, 5, 3))
    assert read_own(str(tmp_path)).codec.shape == (6, 5, 3)
    found = read_own(str(tmp_path), channels=1)
    assert {found.train[i]["x"].shape for i in range(len(found.train))} == {(6, 5, 1)}


def test_a_photo_is_turned_upright(tmp_path):
    pixels = noise(6, 4, 3)
    exif = Image.Exif()
    exif[folder.ORIENTATION] = 6  # stored a quarter turn counter-clockwise
    for name in "ab":
        Image.fromarray(np.rot90(pixels)).save(tmp_path / f"{name}.png", exif=exif)
    found = read_own(str(tmp_path))
    assert found.codec.shape == (6, 4, 3)
    image = found.train[0]["x"]
    np.testing.assert_array_equal(image, pixels)


def test_what_is_transparent_becomes_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, :, 3] = 255  # the upper row is opaque black, the lower one invisible black
    for name in "ab":
        Image.fromarray(pixels, "RGBA").save(tmp_path / f"{name}.png")
    image = read_own(str(tmp_path)).train[0]["x"]
    assert image.shape == (2, 2, 3)
    assert (image[0] == 0).all()
    assert (image[1] == 255).all()


def test_a_broken_image_is_named(tmp_path):
    fill(tmp_path, {"a": 10})
    broken = tmp_path / "a" / "broken.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(InputError, match=f"the image {broken} cannot be read; repair"):
        read_own(str(tmp_path))


def test_an_image_cut_short_is_named_when_it_is_decoded(tmp_path):
    fill(tmp_path, {"a": 10}, (64, 64, 3))
    cut = tmp_path / "a" / "3.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    found = read_own(str(tmp_path))
    with pytest.raises(InputError, match=f"the image {cut} cannot be read .*truncated"):
        multiset(found.train), multiset(found.test)


def test_what_a_decoder_warns_of_is_not_said(tmp_path):
    cut = b"Exif\0\0II*\0\x08\0\0\0\x05\0"  # announces five entries, and has none
    for i in range(10):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"{i}.jpg", exif=cut)
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(tmp_path / "0.jpg") as image:
        image.getexif()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(multiset(read_own(str(tmp_path)).train)) > 0


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep.png has pixels of kind 'I;16'; convert it to 8"):
        read_own(str(tmp_path))


def test_images_of_several_sizes_need_a_size(tmp_path):
    fill(tmp_path, {"a": 3}, (6, 5, 3))
    fill(tmp_path, {"b": 3}, (8, 8, 3))
    with pytest.raises(InputError, match=r"2 sizes \(5x6 in .*a/0.png, 8x8 in .*b/0.png\).*--size"):
        read_own(str(tmp_path))


def test_an_empty_class_folder_is_named(tmp_path):
    fill(tmp_path, {"a": 3, "b": 0})
    with pytest.raises(InputError, match=f"class folder {tmp_path / 'b'} has no images"):
        read_own(str(tmp_path))


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="neither class folders nor images"):
        read_own(str(tmp_path))


def test_train_and_test_need_the_same_classes(tmp_path):
    fill(tmp_path / "train", {"a": 3, "b": 3})
    fill(tmp_path / "test", {"a": 3, "c": 3})
    with pytest.raises(InputError, match=r"same class folders, got a, b and a, c"):
        read_own(str(tmp_path))


def test_a_class_cannot_be_set_apart_entirely(tmp_path):
    fill(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(InputError, match="2 images are too few to set 1 apart for testing"):
        read_own(str(tmp_path))
