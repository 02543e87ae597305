"""A text as examples: blocks of equally many tokens one after another, its end set apart."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from fmjax.data.own import ArrayExamples
from fmjax.data.token_codecs import Text
from fmjax.errors import InputError
from fmjax.files import first_line
from fmjax.machine import check_memory

LENGTH = 128
"""How many symbols an example has unless another number is asked for."""
_TEST = 0.1


def read_text(path: Path) -> str:
    """The text of a file of UTF-8, whose line ends become those of Unix.

    Raises:
        InputError: it cannot be read, does not fit into memory, or is no UTF-8.
    """
    try:
        check_memory(8 * path.stat().st_size, f"the tokens of {path}", "give a smaller file")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no text in UTF-8 ({first_line(error)}): save it as UTF-8."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}).") from error


def make_blocks(
    name: str, text: str, codec: Text, test_fraction: float | None = None
) -> tuple[ArrayExamples, ArrayExamples]:
    """The blocks of a text, the last of them to test on.

    Neighbouring blocks continue one another, so that a part is set apart in one piece; what is left
    at the end of either part, fewer symbols than a block has, is left out.

    Args:
        name: of the text, for messages.
        text: all of it.
        codec: which symbols, and how many in a block.
        test_fraction: the share to set apart; None for a tenth.

    Raises:
        InputError: there are too few symbols for a block of either part, or unknown ones.
    """
    tokens = codec.read(text, name)
    share = _TEST if test_fraction is None else test_fraction
    cut = round((1 - share) * len(tokens))
    train, test = (_blocks(part, codec.length) for part in (tokens[:cut], tokens[cut:]))
    if not (len(train) and len(test)):
        raise InputError(
            f"{name} has {len(tokens)} symbols, too few for a block of {codec.length} to train on "
            f"and one to test on, {share:g} of it set apart: give more text, or a smaller --length."
        )
    return train, test


def _blocks(tokens: Int[np.ndarray, " n"], length: int) -> ArrayExamples:
    count = len(tokens) // length
    return ArrayExamples({"x": tokens[: count * length].reshape(count, length)})
