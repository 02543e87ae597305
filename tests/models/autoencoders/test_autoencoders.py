"""Autoencoders: shapes, draws, tiles, and what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.models.autoencoders import AutoencoderKL, Latent, TinyAutoencoder, sample, tiled

KL = AutoencoderKL(latent_channels=2, widths=(4, 8), blocks=1, groups=2)
TINY = TinyAutoencoder(latent_channels=2, width=4, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
MODELS = {"kl": KL, "tiny": TINY}
X = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 8, 4, 3)), jnp.float32)


@functools.cache
def init(model):
    return jax.jit(model.init)(jax.random.key(0), X)


def run(model, method, x):
    return jax.jit(functools.partial(model.apply, method=method))(init(model), x)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_sides_shrink_by_the_factor_and_come_back(name):
    model = MODELS[name]
    latent = run(model, "encode", X)
    assert latent.mean.shape == (2, 4, 2, 2)
    assert (latent.logvar is None) == (name == "tiny")
    assert run(model, "decode", latent.mean).shape == X.shape
    assert model.factor == 2


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_computes_near_float32_and_gives_float32(name):
    model = MODELS[name]
    exact, rounded = (run(m, "encode", X).mean for m in (model, model.clone(dtype=jnp.bfloat16)))
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, atol=0.05 * np.abs(exact).max())


def test_draws_have_the_mean_and_the_variance():
    shape = (1, 100, 100, 2)
    latent = Latent(jnp.full(shape, 3.0), jnp.full(shape, 2 * np.log(0.5)))
    drawn = np.asarray(sample(latent, jax.random.key(0)))
    assert abs(drawn.mean() - 3) < 0.02
    assert abs(drawn.std() - 0.5) < 0.01
    assert sample(Latent(X, None), jax.random.key(0)) is X


def test_a_small_array_is_one_tile():
    np.testing.assert_array_equal(tiled(lambda x: 2 * x, X, 8), 2 * X)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(("tile", "overlap"), [(4, 0.25), (8, 0.5), (8, 0.0)])
def test_tiles_of_a_function_of_single_pixels_make_the_whole(tile, overlap):
    """Where neighbours do not matter, tiles agree, and fading changes nothing."""
    x = np.random.default_rng(0).normal(size=(1, 13, 18, 2)).astype(np.float32)

    def twice_as_large(x):
        return np.repeat(np.repeat(np.sin(x), 2, axis=1), 2, axis=2)

    np.testing.assert_allclose(
        tiled(twice_as_large, x, tile, overlap), twice_as_large(x), atol=1e-6
    )
    large = twice_as_large(x)
    smaller = tiled(lambda x: x[:, ::2, ::2], large, 2 * tile, overlap)
    np.testing.assert_allclose(smaller, large[:, ::2, ::2], atol=1e-6)


@pytest.mark.slow
def test_seams_are_faded():
    """Tiles that disagree by a constant meet along a slope, not a step."""
    level = iter(range(100))
    x = jnp.zeros((1, 4, 16, 1))
    row = np.asarray(tiled(lambda part: part + next(level), x, 8, 0.5))[0, 0, :, 0]
    assert np.abs(np.diff(row)).max() <= 0.25 + 1e-6
    assert row[-1] > row[0]


WRONG = {
    "sides": (KL, "encode", X[:, :7], "images of 7x4 cannot be encoded to sides 2 times smaller"),
    "sides, tiny": (TINY, "encode", X[:, :, :3], "crop or pad both sides to multiples of 2"),
    "channels": (KL, "encode", X[..., :1], "expected 3 channels along the last axis"),
    "whole numbers": (
        TINY,
        "encode",
        X.astype(jnp.int32),
        "images have dtype int32, .* scale them",
    ),
    "axes": (KL, "encode", X[0], r"expected \(batch, height, width, channels\)"),
    "latents": (KL, "decode", X, "latents have shape .* expected 2 channels"),
    "latents, whole": (TINY, "decode", X.astype(jnp.int32), "latents have dtype int32"),
    "groups": (KL.clone(groups=3), "encode", X, r"widths=\(4, 8\) are not multiples of groups=3"),
    "width": (TINY.clone(width=0), "encode", X, "width"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_said(name):
    model, method, x, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, method=method), x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], 4), "batch, height"),
        ((X, 0), "tile"),
        ((X, 2, 0.6), "overlap"),
        ((X, 6, 0.25), "tiles of 6, 6 in the result, do not fit with overlap=0.25"),
    ],
)
def test_wrong_tiles_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        tiled(lambda x: x, *arguments)
