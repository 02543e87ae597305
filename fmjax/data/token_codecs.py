"""Codecs of tokens: states are whole numbers from 0 to K - 1, K being the size of the vocabulary.

===========  ==========================================  ======================================
`Tokens`     int32 of any shape                          the numbers themselves
`Levels`     uint8 images (H, W, C)                      which of K equally spaced levels it is
`Text`       int32 (L,), L symbols of a text             the numbers of the symbols
===========  ==========================================  ======================================

One token more, the number K, may stand for "masked" in the states of a flow; it is no data.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Int32, Shaped, UInt8

from fmjax.checks import check_at_least, check_between
from fmjax.conventions import Array
from fmjax.errors import InputError

BYTES = 256
MASKED = "▒"
"""What stands for a masked symbol where a text is shown."""


class _OfTokens:
    """The part that these codecs share: data are tokens, and there are no levels to spread over."""

    data_dtype: ClassVar[np.dtype] = np.dtype(np.int32)
    bin_width: ClassVar[None] = None
    vocabulary: int
    shape: tuple[int, ...]

    @property
    def data_shape(self) -> tuple[int, ...]:
        """That of a state."""
        return self.shape

    def encode(self, data: Int[Any, "*shape"]) -> Int[Any, "*shape"]:
        """The tokens, int32; those of a numpy array are checked.

        Raises:
            InputError: they are no integers, or one is no symbol of the vocabulary.
        """
        return as_tokens(data, self.vocabulary, f"the data of {type(self).__name__}")

    def decode(self, x: Int[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        """The tokens."""
        return x

    def dequantize(
        self, keys: Shaped[Array, "batch ..."], data: Shaped[Array, " batch *shape"]
    ) -> Float[Array, " batch *shape"]:
        """Refused.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{type(self).__name__} are tokens, which have likelihoods of their own and are not "
            "spread over levels; write data.dequantize=False."
        )


@dataclass(frozen=True)
class Tokens(_OfTokens):
    """Tokens of any shape.

    Args:
        shape: of one example.
        vocabulary: K, how many symbols there are.

    Raises:
        InputError: there are fewer than two symbols, or a side is not positive.
    """

    shape: tuple[int, ...]
    vocabulary: int
    kind: ClassVar[str] = "tokens"

    def __post_init__(self):
        if not self.shape or min(self.shape) < 1:
            raise InputError(f"tokens have a shape of positive sizes; got {self.shape}.")
        _check_vocabulary(self.vocabulary)


@dataclass(frozen=True)
class Levels(_OfTokens):
    """Images of uint8 as tokens: each pixel is the nearest of K equally spaced levels.

        level_k = round(255 k / (K - 1)),    k = 0, ..., K - 1

    Images that have these levels alone come back as they were; any other loses what lies between.

    Args:
        shape: (H, W, C).
        vocabulary: K, from 2 to 256.

    Raises:
        InputError: the shape is not of three positive sizes, or K lies outside.
    """

    shape: tuple[int, ...]
    vocabulary: int
    kind: ClassVar[str] = "pixels"
    data_dtype: ClassVar[np.dtype] = np.dtype(np.uint8)

    def __post_init__(self):
        if np.shape(self.shape) != (3,) or min(self.shape) < 1:
            raise InputError(f"images have the shape (H, W, C); got {self.shape}.")
        check_between("the number of levels", self.vocabulary, 2, BYTES)

    def encode(self, data: Any) -> Any:
        """uint8 pixels to the numbers of their levels, int32.

        Raises:
            InputError: they are not uint8.
        """
        if data.dtype != np.uint8:
            raise InputError(f"images must be uint8 from 0 to 255; got {data.dtype}.")
        # In whole numbers, so that numpy and a device agree: (255 + 2 (K - 1) x) // 510.
        return (data.astype(np.int32) * (2 * (self.vocabulary - 1)) + 255) // 510

    def decode(self, x: Int[Array, "*shape"]) -> UInt8[Array, "*shape"]:
        """Numbers of levels to uint8 pixels; a masked token, which has no level, as the last."""
        last = self.vocabulary - 1
        x = jnp.clip(x, 0, last)
        return ((510 * x + last) // (2 * last)).astype(jnp.uint8)


@dataclass(frozen=True)
class Text(_OfTokens):
    """Texts of L symbols, each a character of a table, or a byte of UTF-8.

    Args:
        length: L.
        symbols: the characters, in the order of their tokens; None for the 256 bytes.

    Raises:
        InputError: the length is not positive, or the table is not of two or more different
            characters.
    """

    length: int
    symbols: tuple[str, ...] | None = None
    kind: ClassVar[str] = "text"

    def __post_init__(self):
        check_at_least("the length of a text", self.length)
        if self.symbols is not None:
            single = all(isinstance(s, str) and len(s) == 1 for s in self.symbols)
            if not single or len(set(self.symbols)) != len(self.symbols):
                raise InputError(
                    "the symbols of Text must be different characters, one in each text; got "
                    f"{self.symbols!r:.60}."
                )
            _check_vocabulary(len(self.symbols))

    @classmethod
    def fitted(cls, text: str, length: int) -> "Text":
        """The codec of the characters that a text uses, in the order of their code points.

        Raises:
            InputError: as the class.
        """
        return cls(length, tuple(sorted(set(text))))

    @property
    def vocabulary(self) -> int:  # type: ignore[override]  # a field of other codecs
        """How many symbols there are."""
        return BYTES if self.symbols is None else len(self.symbols)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # as above
        """(L,)."""
        return (self.length,)

    def read(self, text: str, what: str = "the text") -> Int32[np.ndarray, " n"]:
        """The tokens of a text of any length, int32 (n,).

        Args:
            text: the text.
            what: as a message names it.

        Raises:
            InputError: the table lacks one of its characters.
        """
        if self.symbols is None:
            return np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        number = {symbol: i for i, symbol in enumerate(self.symbols)}
        if unknown := sorted(set(text) - number.keys()):
            place = text.index(unknown[0])
            raise InputError(
                f"{what} has the character {unknown[0]!r} at place {place}, which is none of the "
                f"{len(number)} that the tokeniser knows ({len(unknown)} such in all): leave them "
                "out, or take bytes for tokens."
            )
        return np.fromiter(map(number.__getitem__, text), np.int32, len(text))

    def write(self, tokens: Any) -> list[str]:
        """Tokens (n, L) as n texts; a masked one, the number K, is shown as `MASKED`."""
        rows = np.asarray(tokens).reshape(-1, np.shape(tokens)[-1])
        if self.symbols is not None:
            table = (*self.symbols, MASKED)
            return ["".join(table[k] for k in row) for row in rows.tolist()]
        return [_decoded(row) for row in rows]


def as_tokens(data: Any, vocabulary: int, what: str) -> Any:
    """Whole numbers as tokens, int32; those of a numpy array are checked one by one.

    Args:
        data: an array (...).
        vocabulary: how many symbols there are.
        what: the array, as the message names it.

    Raises:
        InputError: they are no integers, or one is no symbol.
    """
    dtype = getattr(data, "dtype", type(data).__name__)
    if not (hasattr(data, "dtype") and jnp.issubdtype(dtype, jnp.integer)):
        raise InputError(f"{what} must be integers from 0 to {vocabulary - 1}; got {dtype}.")
    if isinstance(data, np.ndarray) and data.size:
        wrong = np.argwhere((data < 0) | (data >= vocabulary))
        if len(wrong):
            place = tuple(wrong[0].tolist())
            raise InputError(
                f"{what} must be integers from 0 to {vocabulary - 1}; got {data[place]} at "
                f"{place}, the first of {len(wrong)}."
            )
    return data.astype(np.int32)


def _check_vocabulary(size: int) -> None:
    check_at_least("the size of a vocabulary", size, 2)


def _decoded(row: Iterable[int]) -> str:
    """Bytes as a text; the masked ones among them as `MASKED`, and what is no UTF-8 as U+FFFD."""
    joined = b"".join(MASKED.encode() if k == BYTES else bytes([k]) for k in map(int, row))
    return joined.decode(errors="replace")
