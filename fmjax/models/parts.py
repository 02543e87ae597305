"""Outputs of a flow map beside its average velocity: names, checks, and the `Output` of all.

================  ==================================================================================
``"divergence"``  the average divergence over a constant (batch,), for the likelihood in few jumps
``"diagonal"``    a second velocity head shaped as x: v(x, s), whatever t is
================  ==================================================================================

Both read the features that the velocity reads, and start at zero.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jaxtyping import Float

from fmjax.checks import check_name
from fmjax.conventions import Array, Output
from fmjax.errors import InputError

PARTS = ("divergence", "diagonal")


def check_parts(parts: Any, span: bool) -> None:
    """Refuse parts that a network cannot have.

    Args:
        parts: names of `PARTS`, each at most once.
        span: whether the network takes two times, which a network with parts must.

    Raises:
        InputError: they are no tuple, a name is unknown or there twice, or there is one time.
    """
    if not isinstance(parts, tuple):
        raise InputError(f'parts={parts!r}: expected a tuple of names, e.g. ("divergence",).')
    for name in parts:
        check_name("part of a network", name, PARTS)
    if len(set(parts)) < len(parts):
        raise InputError(f"parts={parts!r}: expected each name once.")
    if parts and not span:
        raise InputError(
            f"parts={parts!r} are those of a flow map, and this network takes one time: build it "
            "with span=True."
        )


def _scalar_head(h: Array) -> Array:
    """The divergence (B,) of features h (B, D), in a network's compact method; zero at first."""
    zeros = nn.initializers.zeros_init()
    return nn.Dense(1, kernel_init=zeros, name="divergence")(h)[:, 0]


def parts_products(parts: tuple, width: int, velocity: int) -> int:
    """Multiply-adds of the parts of one example.

    Args:
        parts: their names.
        width: D, the number of features.
        velocity: multiply-adds of the output layer of the velocity.
    """
    return sum({"divergence": width, "diagonal": velocity}[name] for name in parts)


def with_parts(
    head: Callable[[str], Float[Array, "B ..."]],
    features: Callable[[], Float[Array, "B D"]],
    parts: tuple,
) -> Float[Array, "B ..."] | Output:
    """What a network returns: the velocity, or an `Output` of it and the parts.

    In a network's compact method.

    Args:
        head: makes an output layer of that name and gives its velocity, shaped as x.
        features: gives h (B, D), of which the divergence is a linear map.
        parts: names of `PARTS`.
    """
    velocity = head("out")
    if not parts:
        return velocity
    heads = {
        "divergence": lambda: _scalar_head(features()),
        "diagonal": lambda: head("diagonal"),
    }
    return Output(velocity=velocity, **{name: heads[name]() for name in parts})
