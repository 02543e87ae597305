import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.data.codecs import Pixels, States, Vectors
from fmjax.errors import InputError
from fmjax.names import describe, rebuild

RNG = np.random.default_rng(0)
TABLE = RNG.normal([3.0, -100.0, 0.01], [0.5, 20.0, 0.001], size=(500, 3)).astype(np.float32)
CODECS = {
    "pixels": (Pixels((4, 4, 3)), RNG.integers(0, 256, (8, 4, 4, 3), np.uint8)),
    "vectors": (Vectors(3), TABLE),
    "table": (Vectors.fitted(TABLE), TABLE),
    "states": (States((2, 2, 5)), RNG.normal(size=(8, 2, 2, 5)).astype(np.float32)),
    "latents": (States((2, 2, 4), 0.1159, 0.3611), RNG.normal(size=(8, 2, 2, 4)) * 5),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("codec", "data"), CODECS.values(), ids=CODECS)
def test_what_is_encoded_is_decoded_again(codec, data):
    states = jax.jit(codec.encode)(data)
    assert states.shape[1:] == codec.shape
    assert states.dtype == jnp.float32
    back = jax.jit(codec.decode)(states)
    assert (back.shape[1:], back.dtype) == (codec.data_shape, codec.data_dtype)
    np.testing.assert_allclose(back, data, rtol=1e-5, atol=2e-5)
    # A trajectory has a leading axis more.
    np.testing.assert_array_equal(codec.decode(states[None])[0], codec.decode(states))


@pytest.mark.parametrize(("codec", "data"), CODECS.values(), ids=CODECS)
def test_a_data_thread_encodes_without_a_device(codec, data):
    on_host = codec.encode(data)
    assert isinstance(on_host, np.ndarray)
    np.testing.assert_allclose(on_host, jax.jit(codec.encode)(data), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("codec", [codec for codec, _ in CODECS.values()], ids=CODECS)
def test_a_codec_comes_back_from_a_record(codec):
    assert rebuild(json.loads(json.dumps(describe(codec)))) == codec


def test_a_table_is_standardised_column_by_column():
    states = Vectors.fitted(TABLE).encode(TABLE)
    np.testing.assert_allclose(states.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(states.std(axis=0), 1, atol=1e-4)


def test_only_pixels_are_clipped_and_have_levels():
    far = jnp.full((1, 2, 2, 4), 7.0)
    np.testing.assert_array_equal(States((2, 2, 4)).decode(far), far)
    np.testing.assert_array_equal(Pixels((2, 2, 4)).decode(far), np.full((1, 2, 2, 4), 255))
    assert Pixels((2, 2, 4)).bin_width == 2 / 255
    assert States((2, 2, 4)).bin_width is Vectors(3).bin_width is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pixels((8, 8)), r"shape \(H, W, C\); got \(8, 8\)"),
        (lambda: Vectors(3, mean=(1.0,)), r"mean of Vectors must be shaped as the vector, \(3,\)"),
        (lambda: Vectors(1, scale=(0.0,)), "a scale of Vectors must be a positive number"),
        (lambda: Vectors.fitted(np.ones((3, 2))), r"columns \[0, 1\] are constant"),
        (lambda: Vectors.fitted(np.full((3, 2), np.nan)), "finite rows"),
        (lambda: States((2,), scale=-1.0), "the scale of States must be a positive number"),
        (lambda: Vectors(2).encode(np.ones((3, 2), np.uint8)), "are floats; got uint8.*Pixels"),
        (
            lambda: States((2,)).dequantize(None, np.ones((3, 2))),
            "States are floats",
        ),
    ],
)
def test_codecs_that_cannot_be_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
