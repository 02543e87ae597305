"""Points on a manifold as data: prepared, kept as they are, and refused where they lie off it."""

import json

import jax
import numpy as np
import pytest

from fmjax.data import prepare
from fmjax.data.codecs import Vectors
from fmjax.data.dataset import Dataset
from fmjax.data.load import load
from fmjax.data.points import Points, space_of
from fmjax.data.tfds import directory
from fmjax.errors import InputError
from fmjax.manifolds import SO3, FlatProduct, Sphere, Torus
from fmjax.names import describe, rebuild

POSE = "so3,euclidean3"


def rotations(n=20):
    return np.asarray(SO3().uniform(jax.random.key(0), (n,)))


def on_sphere(n=20):
    return np.asarray(Sphere(2).uniform(jax.random.key(1), (n,)))


def prepared(tmp_path, name="set", **arrays):
    """The set of a file of arrays, after preparing with the flags of the name."""
    np.savez(tmp_path / "set.npz", **arrays)
    flags = ["--name=set", f"--source={tmp_path / 'set.npz'}", f"--manifold={name}"]
    assert prepare.main(flags) == 0
    return load("set")


def test_points_are_states_as_they_are_and_come_back_from_a_record():
    codec = Points("so3", 9)
    assert (codec.shape, codec.data_shape, codec.kind) == ((3, 3), (3, 3), "points")
    assert space_of(codec) == codec.manifold == SO3()
    assert space_of(Vectors(3)) is None
    x = rotations()
    np.testing.assert_array_equal(codec.encode(x), x)
    np.testing.assert_array_equal(codec.decode(x), x)
    assert codec.encode(x.astype(np.float64)).dtype == np.float64
    assert rebuild(json.loads(json.dumps(describe(codec)))) == codec
    with pytest.raises(InputError, match="no point of the manifold 'so3' has 8 numbers"):
        Points("so3", 8)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("flat", [True, False])
def test_rotations_are_prepared_from_rows_or_matrices(flat, tmp_path, data_dir, capsys):
    x = rotations()
    found = prepared(tmp_path, "so3", x=x.reshape(20, 9) if flat else x)
    assert found.codec == Points("so3", 9)
    assert "examples of shape (3, 3) on SO3(), no classes" in capsys.readouterr().out
    data = np.concatenate([found.arrays(split)[0] for split in ("train", "test")])
    assert data.shape == (20, 3, 3)
    gap = np.abs(data[:, None] - x[None]).max(axis=(2, 3)).min(axis=1)
    assert gap.max() < 1e-6  # not standardised


@pytest.mark.slow
def test_a_product_is_read_in_slices_with_conditions_and_a_held_out_part(tmp_path, data_dir):
    x = np.concatenate([rotations().reshape(20, 9), np.full((20, 3), 40.0)], axis=1)
    found = prepared(tmp_path, POSE, x=x, x_test=x[:3], label=np.arange(20) % 2,
                     label_test=np.zeros(3, int))  # fmt: skip
    assert isinstance(found.codec.manifold, FlatProduct)
    assert (len(found.train), len(found.test), found.classes.num_classes) == (20, 3, 2)
    np.testing.assert_array_equal(found.arrays("train")[0][:, 9:], 40)


def test_latitude_and_longitude_are_places_on_the_sphere(tmp_path, data_dir):
    source = tmp_path / "places.csv"
    source.write_text("longitude,latitude\n0,90\n" + "90,0\n" * 9 + "180,45\n")
    assert prepare.main(["--name=places", f"--source={source}", "--manifold=sphere"]) == 0
    data = np.concatenate([load("places").arrays(split)[0] for split in ("train", "test")])
    expected = [[0, 0, 1], [0, 1, 0], [-(0.5**0.5), 0, 0.5**0.5]]
    gap = np.abs(data[:, None] - np.array(expected)).max(axis=2)
    assert gap.min(axis=1).max() < 1e-6
    assert set(gap.argmin(axis=1)) == {0, 1, 2}
    source.write_text("latitude,longitude\n10,20\n95,20\n")
    with pytest.raises(InputError, match=r"latitudes in degrees, from -90 to 90; row 1 has 95"):
        prepare.main(["--name=far", f"--source={source}", "--manifold=sphere"])


def test_angles_are_taken_to_half_a_turn_either_way(tmp_path, data_dir):
    found = prepared(tmp_path, "torus", x=np.linspace(0, 6.2, 40).reshape(20, 2))
    x = found.arrays("train")[0]
    assert np.abs(x).max() <= np.pi
    assert found.codec.manifold == Torus(2)


OFF = {
    "off by a half": (
        {"x": 1.5 * on_sphere()},
        "sphere",
        r"x must be points of Sphere\(n=2\), unit vectors; got points off by up to 0.5. Write "
        r".*project.* The flag --project of `fmjax prepare` projects them",
    ),
    "degrees": (
        {"x": np.linspace(0, 350.0, 40).reshape(20, 2)},
        "torus",
        r"angles in radians between -2 pi and 2 pi; got .* Write jnp.deg2rad\(x\) for degrees",
    ),
    "another dimension": (
        {"x": on_sphere()},
        "so3",
        "no point of the manifold 'so3' has 3 numbers",
    ),
    "an unknown name": ({"x": on_sphere()}, "globe", "unknown manifold 'globe'"),
    "not finite": ({"x": np.full((20, 3), np.nan)}, "sphere", "must be finite in float32; row 0"),
    "no positive definite matrix": (
        {"x": np.tile(np.diag([1.0, -1.0]), (20, 1, 1))},
        "spd",
        "symmetric positive definite matrices; got points off by",
    ),
    "a part of a product": (
        {"x": np.concatenate([rotations().reshape(20, 9) + 0.1, np.zeros((20, 3))], axis=1)},
        POSE,
        r"manifold.split\(x\)\[0\] must be points of SO3\(\)",
    ),
    "a held-out part": (
        {"x": on_sphere(), "x_test": 2 * on_sphere()},
        "sphere",
        "'x_test' in .*: x must be points of Sphere",
    ),
    "pairs": ({"x": on_sphere(), "x0": 2 * on_sphere()}, "sphere", "'x0' in .*: x must be points"),
    "bytes": ({"x": np.ones((20, 3), np.uint8)}, "sphere", "must be floats, or images of uint8"),
}


@pytest.mark.parametrize(("arrays", "name", "message"), OFF.values(), ids=OFF)
def test_what_is_no_point_is_refused_before_anything_is_written(
    arrays, name, message, tmp_path, data_dir
):
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, name, **arrays)
    assert "set" not in directory.prepared(directory.data_root(None))


def test_points_are_projected_where_that_is_asked(tmp_path, data_dir):
    x = on_sphere()
    np.savez(tmp_path / "set.npz", x=3 * x)
    flags = ["--name=set", f"--source={tmp_path / 'set.npz'}", "--manifold=sphere", "--project"]
    assert prepare.main(flags) == 0
    data = load("set").arrays("train")[0]
    assert np.abs(data[:, None] - x[None]).max(axis=2).min(axis=1).max() < 1e-6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--project"], "--project moves data to the nearest points of --manifold: give both"),
        (["--manifold=sphere", "--tokens=3"], "--tokens are no points of a --manifold"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, message, tmp_path, data_dir):
    np.savez(tmp_path / "set.npz", x=on_sphere())
    with pytest.raises(InputError, match=message):
        prepare.main(["--name=set", f"--source={tmp_path / 'set.npz'}", *flags])


def test_a_manifold_is_of_files_of_numbers(tmp_path, data_dir):
    (tmp_path / "text.txt").write_text("abc")
    with pytest.raises(InputError, match=r"--manifold says where the numbers of an .npz"):
        prepare.main(["--name=set", f"--source={tmp_path / 'text.txt'}", "--manifold=sphere"])
    with pytest.raises(InputError, match="--manifold needs --source"):
        prepare.main(["--name=mnist", "--manifold=sphere"])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"kind": "points"}, "'manifold' of the codec in .* must be"),
        ({"kind": "points", "manifold": "so3"}, "no point of the manifold 'so3' has 3 numbers"),
        ({"kind": "points", "manifold": 7}, "'manifold' of the codec in .* must be"),
    ],
)
def test_a_record_that_cannot_be_is_refused(said, message, tmp_path, data_dir):
    prepared(tmp_path, "sphere", x=on_sphere())
    path = next(directory.data_root(None).glob("set/*/metadata.json"))
    stored = json.loads(path.read_text())
    stored["fmjax"]["codec"] = said
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=message):
        load("set")


class OwnPoints:
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def read(self, indices):
        return self.x[indices], None


def off_the_sphere():
    points = OwnPoints(np.ones((8, 3), np.float32))
    return Dataset("own", Points("sphere", 3), train=points, test=points)


def test_points_of_ones_own_set_are_looked_at():
    with pytest.raises(InputError, match=r"data.name='.*': x must be points of Sphere"):
        load("tests.data.test_points:off_the_sphere")


def test_a_toy_lies_on_the_torus():
    toy = load("toy/torus_checkerboard")
    assert toy.codec == Points("torus", 2)
    x, labels = toy.arrays("train", 4000)
    toy.codec.manifold.check("x", x)
    cell = np.floor((x + np.pi) / (np.pi / 2)).astype(int)
    assert (cell.sum(axis=1) % 2 == 0).all()
    assert np.bincount(labels).min() > 400
