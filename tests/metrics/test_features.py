"""Features give one row an example, and their digest tells them apart."""

import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.metrics import Features, fit_pca, network_features, pca_features, pixel_features
from fmjax.metrics.features import digest_of

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, size=(30, 4, 4, 1), dtype=np.uint8)


def test_pixels_of_bytes_and_of_floats_are_in_one_unit():
    from fmjax.data.pixels import to_unit

    found = pixel_features()(IMAGES)
    assert np.array_equal(found, pixel_features()(to_unit(IMAGES)))
    assert found.shape == (30, 16)
    assert found.min() >= -1
    assert found.max() <= 1


def test_principal_components_are_those_of_the_reference():
    found = pca_features(IMAGES, dims=3)
    expected = fit_pca(pixel_features()(IMAGES), 3)
    np.testing.assert_allclose(found(IMAGES[:5]), expected(pixel_features()(IMAGES[:5])))
    assert found.name == "pca of 3 dimensions"
    assert pca_features(IMAGES, dims=99)(IMAGES).shape == (30, 16)


def test_a_network_sees_batches_of_one_size_and_gives_each_example_its_row():
    shapes = []

    def apply(variables, x):
        shapes.append(x.shape)
        return x.reshape(len(x), -1).astype(jnp.float32) @ variables["w"]

    variables = {"w": np.ones((16, 2), np.float32)}
    found = network_features("sum", apply, variables, batch=8)(IMAGES)
    assert set(shapes) == {(8, 4, 4, 1)}
    np.testing.assert_allclose(found[:, 1], IMAGES.reshape(30, -1).sum(axis=1))


def test_the_digest_is_that_of_names_shapes_and_numbers():
    a = {"x": np.arange(4.0), "y": np.zeros(2)}
    same = {"y": np.zeros(2), "x": np.arange(4.0)[::1]}
    assert digest_of(a) == digest_of(same)
    others = [
        {"x": np.arange(4.0), "z": np.zeros(2)},
        {"x": np.arange(4.0).reshape(2, 2), "y": np.zeros(2)},
        {"x": np.arange(4.0).astype(np.float32), "y": np.zeros(2)},
        {"x": np.nextafter(np.arange(4.0), 9), "y": np.zeros(2)},
    ]
    assert len({digest_of(tree) for tree in [a, *others]}) == 5


def test_features_of_other_weights_have_another_digest():
    one, two = (
        network_features("net", lambda v, x: x, {"w": np.full(3, value)}) for value in (1.0, 2.0)
    )
    assert one.digest != two.digest
    assert pca_features(IMAGES).digest != pca_features(IMAGES[::-1].copy() // 2).digest


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: pca_features(IMAGES[:1]), "reference must hold at least 2"),
        (lambda: pca_features(IMAGES, dims=0), "dims must be a whole number of at least 1"),
        (lambda: network_features("n", lambda v, x: x, {}, batch=0), "batch must be a whole"),
        (lambda: Features("mine", lambda x: x)(IMAGES), "one row per example"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
