"""A user's own text from a ``.txt``."""

from pathlib import Path

from fmjax.data.own import OwnData
from fmjax.data.texts.blocks import LENGTH, make_blocks, read_text
from fmjax.data.token_codecs import Text
from fmjax.errors import InputError


def own_text(
    path: Path,
    length: int | None = None,
    by_bytes: bool = False,
    test_fraction: float | None = None,
) -> OwnData:
    """The text of a file as blocks of tokens.

    Args:
        path: of a text in UTF-8.
        length: symbols in a block, 128 if None.
        by_bytes: whether tokens are bytes; else they are the characters that the text has, and the
            table of them is stored with the set.
        test_fraction: the share of the text, at its end, to set apart for testing; None for a
            tenth.

    Raises:
        InputError: the file cannot be read, or is too short.
    """
    text = read_text(path)
    length = LENGTH if length is None else length
    if not by_bytes and len(set(text)) < 2:
        raise InputError(f"{path} must have two different characters or more.")
    codec = Text(length) if by_bytes else Text.fitted(text, length)
    return OwnData(codec, {}, *make_blocks(str(path), text, codec, test_fraction))
