"""Codecs of tokens: what is encoded comes back, and what is no symbol is one sentence."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.data.codecs import Pixels, vocabulary_of
from fmjax.data.token_codecs import MASKED, Levels, Text, Tokens
from fmjax.errors import InputError
from fmjax.names import describe, rebuild

RNG = np.random.default_rng(0)
CODECS = {
    "tokens": (Tokens((3, 2), 7), RNG.integers(0, 7, (8, 3, 2))),
    "levels": (Levels((4, 4, 3), 256), RNG.integers(0, 256, (8, 4, 4, 3), np.uint8)),
    "characters": (Text(5, tuple("abé\n")), RNG.integers(0, 4, (8, 5))),
    "bytes": (Text(5), RNG.integers(0, 256, (8, 5))),
}


@pytest.mark.parametrize(("codec", "data"), CODECS.values(), ids=CODECS)
def test_what_is_encoded_is_decoded_again(codec, data):
    tokens = jax.jit(codec.encode)(data)
    assert (tokens.shape[1:], tokens.dtype) == (codec.shape, jnp.int32)
    assert 0 <= tokens.min() <= tokens.max() < codec.vocabulary == vocabulary_of(codec)
    np.testing.assert_array_equal(tokens, codec.encode(data))  # numpy and the device agree
    back = jax.jit(codec.decode)(tokens)
    assert back.shape[1:] == codec.data_shape
    assert codec.bin_width is None
    np.testing.assert_array_equal(back, data)
    if codec.kind == "pixels":
        assert back.dtype == codec.data_dtype


@pytest.mark.parametrize("codec", [codec for codec, _ in CODECS.values()], ids=CODECS)
def test_a_codec_of_tokens_comes_back_from_the_record_of_a_run(codec):
    assert rebuild(json.loads(json.dumps(describe(codec)))) == codec


def test_pixels_are_no_tokens():
    assert vocabulary_of(Pixels((4, 4, 1))) is None


@pytest.mark.parametrize("count", [2, 3, 17, 100, 256])
def test_levels_reach_from_black_to_white_and_each_is_its_own_nearest(count):
    codec = Levels((1, 1, 1), count)
    levels = np.asarray(codec.decode(jnp.arange(count))).astype(float)
    np.testing.assert_allclose(levels, 255 * np.arange(count) / (count - 1), atol=0.5)
    np.testing.assert_array_equal(codec.encode(levels.astype(np.uint8)), np.arange(count))
    shades = np.arange(256, dtype=np.uint8)
    distance = np.abs(shades[:, None] - 255 * np.arange(count) / (count - 1))
    found = np.take_along_axis(distance, codec.encode(shades)[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(found, distance.min(axis=1))


def test_the_digits_have_seventeen_levels_and_lose_nothing(digits):
    images, _ = digits.arrays("train")
    codec = Levels((8, 8, 1), 17)
    np.testing.assert_array_equal(codec.decode(codec.encode(images)), images)
    assert set(np.unique(codec.encode(images))) == set(range(17))


def test_a_text_is_read_and_written():
    codec = Text.fitted("to be, or not", 5)
    tokens = codec.read("to be")
    assert codec.write(tokens[None]) == ["to be"]
    assert codec.write(np.append(tokens[:4], codec.vocabulary)) == [f"to b{MASKED}"]
    assert codec.symbols == tuple(sorted(codec.symbols))


def test_a_text_of_bytes_knows_every_character_and_shows_what_is_none():
    codec = Text(4)
    tokens = codec.read("aé€")
    assert len(tokens) == 1 + 2 + 3
    assert codec.write(tokens[None]) == ["aé€"]
    assert codec.write(np.array([97, 256, 255, 98])) == [f"a{MASKED}\N{REPLACEMENT CHARACTER}b"]


def test_unknown_symbols_are_told():
    with pytest.raises(InputError, match=r"poem has the character 'x' at place 2, which is none o"):
        Text(2, ("a", "b")).read("abxy", "poem")
    with pytest.raises(InputError, match=r"from 0 to 6; got 7 at \(1, 0\), the first of 1"):
        Tokens((2,), 7).encode(np.array([[0, 6], [7, 1]]))
    with pytest.raises(InputError, match="got -1"):
        Tokens((2,), 7).encode(np.array([[0, -1]]))
    with pytest.raises(InputError, match="must be integers from 0 to 6; got float32"):
        Tokens((2,), 7).encode(np.zeros((1, 2), np.float32))
    with pytest.raises(InputError, match="images must be uint8 from 0 to 255; got int64"):
        Levels((1, 1, 1), 2).encode(np.zeros((1, 1, 1, 1), np.int64))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Tokens((), 4), "tokens have a shape of positive sizes; got"),
        (lambda: Tokens((3, 0), 4), "tokens have a shape of positive sizes; got"),
        (
            lambda: Tokens((3,), 1),
            "the size of a vocabulary must be a whole number of at least 2",
        ),
        (lambda: Levels((3, 2), 4), r"images have the shape \(H, W, C\); got \(3, 2\)"),
        (lambda: Levels((3, 2, 1), 257), r"the number of levels must lie in \[2, 256\]"),
        (lambda: Text(0), "the length of a text must be a whole number of at least 1"),
        (
            lambda: Text(3, ("a",)),
            "the size of a vocabulary must be a whole number of at least 2",
        ),
        (lambda: Text(3, ("a", "bc")), "the symbols of Text must be different characters"),
        (lambda: Text(3, ("a", "a")), "the symbols of Text must be different characters"),
    ],
)
def test_codecs_that_cannot_be_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


@pytest.mark.parametrize("codec", [codec for codec, _ in CODECS.values()], ids=CODECS)
def test_tokens_are_not_spread_over_levels(codec):
    with pytest.raises(InputError, match="are tokens, which have likelihoods of their own"):
        codec.dequantize(jax.random.split(jax.random.key(0), 2), jnp.zeros((2, *codec.shape)))
