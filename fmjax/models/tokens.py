"""Tokens into networks: as one-hot vectors; and networks that do without the time.

Tokens are integers from 0 to K - 1, and K more stands for a masked one. A network of tokens gives
logits over the K data tokens. One of floats becomes one of tokens by `on_one_hot`: the vectors of
the numbers that x has at a place stand side by side, so that its first layer embeds them, each
place of a patch by a table of its own; and its output has a number for each token.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Integer

from fmjax.checks import check_at_least, check_methods
from fmjax.conventions import ApplyFn, Array
from fmjax.errors import InputError

_ONE_HOT = 1024  # up to this vocabulary a product with one-hot vectors is faster than a look-up
_normal = nn.initializers.normal(0.02)


def check_vocabulary(vocabulary: int) -> None:
    """Refuse a number of tokens below 2.

    Raises:
        InputError: it is one, or no whole number.
    """
    check_at_least("vocabulary", vocabulary, 2)


def check_tokens(x: Any) -> None:
    """Refuse tokens that are not integers.

    Raises:
        InputError: they are not.
    """
    dtype = getattr(x, "dtype", type(x).__name__)
    if not (hasattr(x, "dtype") and jnp.issubdtype(dtype, jnp.integer)):
        raise InputError(
            f"x has dtype {dtype}, and a network of tokens takes integers from 0 to vocabulary, "
            "the last for a masked token: write x.astype(jnp.int32), or take a network of floats."
        )


def one_hot(
    x: Integer[Array, "*places"], vocabulary: int, dtype: Any = jnp.float32
) -> Float[Array, "*places {vocabulary}+1"]:
    """Tokens (...) as one-hot vectors (..., vocabulary + 1), the last for a masked one.

    Those of a number that is no token are NaN: zeros would go unseen.
    """
    unknown = (x < 0) | (x > vocabulary)
    vectors = jax.nn.one_hot(x, vocabulary + 1, dtype=dtype)
    return jnp.where(unknown[..., None], jnp.asarray(jnp.nan, dtype), vectors)


class TokenEmbed(nn.Module):
    """A learned vector for each token, and one for the masked token.

    Attributes:
        vocabulary: K, how many data tokens there are; the masked one is row K of the table.
        width: number of features.
        dtype: of the vectors.
    """

    vocabulary: int
    width: int
    dtype: Any = jnp.float32

    def setup(self):  # noqa: D102
        self.table = self.param("table", _normal, (self.vocabulary + 1, self.width), jnp.float32)

    def __call__(self, x: Integer[Array, "*places"]) -> Float[Array, "*places {self.width}"]:
        """Embed tokens (...) as (..., width); a number that is no token becomes NaN."""
        table = jnp.asarray(self.table, self.dtype)
        if self.vocabulary > _ONE_HOT:
            return table.at[x].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        rows = one_hot(x.reshape(-1), self.vocabulary, self.dtype) @ table
        return rows.reshape(*x.shape, self.width)

    def logits(
        self, h: Float[Array, "*places {self.width}"]
    ) -> Float[Array, "*places {self.vocabulary}"]:
        """The product of features (..., width) with the vector of each data token, float32."""
        return h.astype(jnp.float32) @ self.table[: self.vocabulary].T

    @nn.nowrap
    def forward_flops(self, places: int) -> int:
        """Operations of so many tokens: two for each multiply-add; a look-up is no product."""
        if self.vocabulary > _ONE_HOT:
            return 0
        return 2 * places * (self.vocabulary + 1) * self.width


def on_one_hot(apply_fn: ApplyFn, vocabulary: int) -> ApplyFn:
    """A network of floats as one of tokens.

    Args:
        apply_fn: ``apply_fn(params, x, t, labels)``, with x of `one_hot_shape` and what it gives
            shaped as x: a `DiT` or a `UNet` on images, an `MLP` on anything.
        vocabulary: how many data tokens there are.

    Returns:
        ``logits_fn(params, x, t, labels)``, from integers (batch, ...) to logits
        (batch, ..., vocabulary). The number that the network gives for the masked token is left
        out.

    Raises:
        InputError: the network is no function, or the vocabulary is none. Calling the result raises
            it for x of floats.
    """
    check_methods("apply_fn", apply_fn, such_as="adapters.from_linen(model)")
    check_vocabulary(vocabulary)

    def logits_fn(
        params: Any, x: Integer[Array, "*places"], t: Any, labels: Any = None
    ) -> Float[Array, "*places tokens"]:
        check_tokens(x)
        vectors = one_hot(x, vocabulary).reshape(
            x.shape[0], *one_hot_shape(x.shape[1:], vocabulary)
        )
        out = apply_fn(params, vectors, t, labels)
        return out.reshape(*x.shape, vocabulary + 1)[..., :vocabulary]

    return logits_fn


def one_hot_shape(shape: tuple[int, ...], vocabulary: int) -> tuple[int, ...]:
    """The shape of one example for the network of `on_one_hot`: more numbers on its last axis.

    Args:
        shape: of the tokens, (h, w, c) or (n,).
        vocabulary: how many data tokens there are.
    """
    return (*shape[:-1], shape[-1] * (vocabulary + 1))


def without_time(apply_fn: ApplyFn) -> ApplyFn:
    """A network that is not told the time: it is called as at t = 0, whatever the time is.

    Where tokens start as masks, how many are masked says all that the time could say, and the
    posterior of the data does not depend on it (arXiv:2406.04329, proposition 1).

    Args:
        apply_fn: ``apply_fn(params, x, t, labels)``.

    Raises:
        InputError: the network is no function.
    """
    check_methods("apply_fn", apply_fn, such_as="adapters.from_linen(model)")

    def timeless(params: Any, x: Any, t: Float[Array, " batch"], labels: Any = None) -> Any:
        return apply_fn(params, x, jnp.zeros_like(t), labels)

    return timeless
