"""The texts that come with fmjax: there without a download, the same on every machine.

====================  ==============================================================================
romeo_and_juliet      Shakespeare's play without its prologues, 133,465 characters of 61 kinds; in
                      the public domain; cut out of the file of github.com/karpathy/char-rnn
====================  ==============================================================================
"""

import hashlib
from pathlib import Path

from fmjax.data.arrays import ArraySplit
from fmjax.data.dataset import Dataset
from fmjax.data.texts.blocks import LENGTH, make_blocks, read_text
from fmjax.data.token_codecs import Text
from fmjax.errors import InputError, unknown_name

PREFIX = "text/"
TEXTS = ("romeo_and_juliet",)


def open_corpus(name: str) -> Dataset:
    """A text by name, characters for tokens; the last tenth of it is to test on.

    Args:
        name: ``"text/romeo_and_juliet"``, or with the number of characters of an example
            ``"text/romeo_and_juliet/256"``; else it is 128.

    Raises:
        InputError: there is no such text, or the number is none.
    """
    title, _, length = name.removeprefix(PREFIX).partition("/")
    if title not in TEXTS:
        raise unknown_name("text", name, [f"{PREFIX}{known}" for known in TEXTS])
    if length and not (length.isascii() and length.isdigit() and len(length) < 10):
        raise InputError(
            f"a text is {PREFIX}NAME or, with the number of characters of an example, "
            f"{PREFIX}NAME/LENGTH, e.g. {PREFIX}{title}/256; got {name!r}."
        )
    text = read_text(Path(__file__).parent / f"{title}.txt")
    codec = Text.fitted(text, int(length or LENGTH))
    found = make_blocks(name, text, codec)
    train, test = (ArraySplit(part.arrays["x"]) for part in found)
    told = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Dataset(name, codec, None, train, test, fingerprint=told)
