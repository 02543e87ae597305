"""Two folders of images in pairs: each image comes with the one of its name."""

import numpy as np
import pytest
from PIL import Image

from fmjax.data.load import load
from fmjax.data.prepare import main
from fmjax.data.read_own import read_own
from fmjax.errors import InputError


def save(path, level, shape=(6, 6, 3)):
    """An image of one grey level, by which it is known again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, level, np.uint8).squeeze()).save(path)


@pytest.fixture
def folders(tmp_path):
    """Photos of level k and grey sketches of level 100 + k, whose names sort differently."""
    for k in range(20):
        kind, stem = "ab"[k % 2], f"{k}" if k % 3 else f"{k} {k}"
        save(tmp_path / "photos" / kind / f"{stem}.png", k)
        save(tmp_path / "sketches" / kind / f"{stem}.{'png' if k % 4 else 'bmp'}", 100 + k, (6, 6))
    return tmp_path / "photos", tmp_path / "sketches"


def test_each_image_has_the_partner_of_its_name(folders):
    found = read_own(str(folders[0]), x0=str(folders[1]))
    assert found.codec.shape == (6, 6, 3)  # of three channels, as one of the two is
    levels = []
    for part in (found.train, found.test):
        for example in (part[i] for i in range(len(part))):
            level = example["x"][0, 0, 0]
            np.testing.assert_array_equal(example["x0"], np.full((6, 6, 3), 100 + level))
            assert example["label"] == level % 2
            levels.append(level)
    assert sorted(levels) == list(range(20))


def test_the_command_writes_a_set_of_pairs(folders, data_dir, capsys):
    assert main(["--name=own", f"--source={folders[0]}", f"--x0={folders[1]}"]) == 0
    assert "paired with x0" in capsys.readouterr().out
    x0, x, labels = load("own").train.read_pairs(np.arange(18))
    np.testing.assert_allclose((x0[:, 0, 0, 0] + 1) * 127.5, x[:, 0, 0, 0] + 100.0, atol=1e-3)
    np.testing.assert_array_equal(labels, x[:, 0, 0, 0] % 2)


def test_the_parts_of_both_folders_belong_together(tmp_path):
    for part in ("train", "test"):
        for k in range(3):
            save(tmp_path / "after" / part / f"{k}.png", k)
            save(tmp_path / "before" / part / f"{k}.png", 100 + k)
    found = read_own(str(tmp_path / "after"), x0=str(tmp_path / "before"))
    assert (len(found.train), len(found.test)) == (3, 3)
    assert found.test[2]["x0"][0, 0, 0] == 102


def test_another_partner_is_another_fingerprint(folders):
    part = read_own(str(folders[0]), x0=str(folders[1])).train
    before = part.fingerprint(range(len(part)))
    save(part.starts.paths[4], 7)
    assert part.fingerprint(range(len(part))) != before


def test_an_image_without_a_partner_is_named(folders):
    photos, sketches = map(str, folders)
    (folders[1] / "a" / "2.png").unlink()
    with pytest.raises(InputError, match=r"photos/a/2\.png has no partner .* \(1 images"):
        read_own(photos, x0=sketches)
    with pytest.raises(InputError, match=r"photos/a/2\.png has no partner .*sketches"):
        read_own(sketches, x0=photos)


def test_two_partners_are_one_too_many(folders):
    save(folders[1] / "a" / "2.webp", 1)
    with pytest.raises(InputError, match="have one name but for the suffix"):
        read_own(str(folders[0]), x0=str(folders[1]))
    with pytest.raises(InputError, match="shares it with another image"):
        read_own(str(folders[1]), x0=str(folders[0]))


def test_images_of_another_size_are_scaled_only_when_asked(folders):
    for path in folders[1].rglob("*.*"):
        save(path, 9, (12, 12))
    with pytest.raises(InputError, match=r"are 6x6 and those of .* 12x12: give the side"):
        read_own(str(folders[0]), x0=str(folders[1]))
    found = read_own(str(folders[0]), x0=str(folders[1]), size=6)
    assert found.train[0]["x0"].shape == (6, 6, 3)


@pytest.mark.parametrize(
    ("source", "x0", "sentence"),
    [
        ("photos", "nowhere", "--x0=.* must be a folder of images"),
        ("table.npz", "photos", "in an .npz the array x0 holds"),
    ],
)
def test_x0_is_a_folder_beside_a_folder(folders, tmp_path, source, x0, sentence):
    np.savez(tmp_path / "table.npz", x=np.zeros((20, 2), np.float32))
    with pytest.raises(InputError, match=sentence):
        read_own(str(tmp_path / source), x0=str(tmp_path / x0))
