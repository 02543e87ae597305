"""Texts as blocks of tokens: nothing of them is lost, and their end is set apart."""

import numpy as np
import pytest

from fmjax.data.load import load
from fmjax.data.read_own import read_own
from fmjax.data.texts.corpus import TEXTS
from fmjax.data.token_codecs import Text
from fmjax.errors import InputError


def save(tmp_path, text, name="poem.txt"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(tmp_path / name)


def joined(found):
    return ["".join(found.codec.write(part.arrays["x"])) for part in (found.train, found.test)]


def test_the_text_of_every_machine_is_the_same_everywhere():
    dataset = load("text/romeo_and_juliet")
    assert dataset.codec.shape == (128,)
    assert dataset.codec.vocabulary == 61
    assert (len(dataset.train), len(dataset.test)) == (938, 104)
    train, labels = dataset.arrays("train")
    assert labels is None
    assert dataset.codec.write(train[:1])[0].startswith("SAMPSON:\nGregory, o' my word, we'll not")
    assert dataset.fingerprint == "daf75ba27c60f42b"
    assert load("text/romeo_and_juliet/256").shape == (256,)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("text/romeo", "unknown text 'text/romeo'. Did you mean 'text/romeo_and_juliet'"),
        ("text/romeo_and_juliet/x", "text/NAME/LENGTH, e.g. text/romeo_and_juliet/256; got"),
        (
            "text/romeo_and_juliet/0",
            "the length of a text must be a whole number of at least 1; got 0",
        ),
        ("text/romeo_and_juliet/99999", "too few for a block of 99999"),
    ],
)
def test_texts_that_are_not_there_are_refused(name, sentence):
    with pytest.raises(InputError, match=sentence):
        load(name)
    assert TEXTS == ("romeo_and_juliet",)


def test_a_text_of_ones_own_becomes_blocks_and_its_end_is_set_apart(tmp_path):
    text = "".join(chr(97 + i % 7) for i in range(100))
    found = read_own(save(tmp_path, text), length=8)
    assert found.codec == Text(8, tuple("abcdefg"))
    assert found.conditions == {}
    assert joined(found) == [text[:88], text[90:98]]
    found = read_own(save(tmp_path, text), length=8, test_fraction=0.5)
    assert joined(found) == [text[:48], text[50:98]]


def test_bytes_of_a_text_become_tokens(tmp_path):
    text = "é€" * 40
    found = read_own(save(tmp_path, text), length=5, by_bytes=True)
    assert found.codec == Text(5)
    np.testing.assert_array_equal(found.train.arrays["x"][0], list("é€".encode()))


def test_line_ends_and_the_mark_of_utf8_are_none_of_the_text(tmp_path):
    found = read_own(save(tmp_path, b"\xef\xbb\xbf" + b"a\r\n" * 40), length=2)
    assert found.codec.symbols == ("\n", "a")


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        (b"a\xff", {}, "is no text in UTF-8"),
        ("ab", {}, "has 2 symbols, too few for a block of 128 to train on and one to test on"),
        ("aaaa", {"length": 1}, "must have two different characters or more"),
        ("", {}, "must have two different characters or more"),
        (
            "ab" * 99,
            {"length": 0},
            "the length of a text must be a whole number of at least 1; got 0",
        ),
        ("ab" * 99, {"tokens": 4}, "--tokens is the size of the vocabulary of an .npz or an .npy"),
        ("ab" * 99, {"size": 4}, "--size and --channels are for folders"),
    ],
)
def test_what_is_wrong_with_a_text_is_one_sentence(tmp_path, text, options, sentence):
    with pytest.raises(InputError, match=sentence):
        read_own(save(tmp_path, text), **options)


def test_length_and_bytes_are_of_a_text(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 2), np.int64))
    for options in ({"length": 8}, {"by_bytes": True}):
        with pytest.raises(InputError, match=r"--length and --bytes are for a .txt; got"):
            read_own(str(tmp_path / "x.npy"), **options)
