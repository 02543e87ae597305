"""Floating-point operations of the networks of this package, counted by hand.

What is counted: every matrix product, two operations for each multiply-add, attention's two
products of all pairs of tokens included. What is not: sums, norms, activations, softmax, embedding
look-ups and anything computed a second time to save memory. This is the count that the utilisation
of a chip (MFU, arXiv:2204.02311) is quoted by: XLA's own count holds recomputation, too.
"""

import math
from typing import Any

from fmjax.models.dit import DiT
from fmjax.models.embedders import Condition
from fmjax.models.mlp import MLP


def forward_flops(model: Any, shape: tuple[int, ...]) -> int | None:
    """Operations of one forward pass over one example.

    Args:
        model: a `DiT` or an `MLP`.
        shape: of one example: (H, W, C) of an image, or (D,).

    Returns:
        The number; None for any other network. Where a number is taken, that of your own network
        can be given: two for each multiply-add that it does on one example.
    """
    if isinstance(model, DiT):
        return _dit_flops(model, shape)
    if isinstance(model, MLP):
        return _mlp_flops(model, shape)
    return None


def training_flops(forward: int | None) -> int | None:
    """Operations of one training example: the forward pass, and twice as many backward.

    Each product of the forward pass has two in the backward pass, one for each factor's gradient.
    """
    return None if forward is None else 3 * forward


def _dit_flops(model: DiT, shape: tuple[int, ...]) -> int:
    height, width, channels = shape
    patch = model.patch_size**2 * channels
    D, T = model.width, height * width // model.patch_size**2
    attention = T * 3 * D * D + 2 * T * T * D + T * D * D  # q, k and v; all pairs, twice; out
    feed_forward = 2 * T * D * int(model.mlp_ratio * D)
    block = attention + feed_forward + D * 6 * D  # six vectors of modulation
    ends = T * patch * D + D * 2 * D + T * D * patch
    condition = _condition(Condition.time_features, D, model.guidance)
    return 2 * (model.depth * block + ends + condition)


def _mlp_flops(model: MLP, shape: tuple[int, ...]) -> int:
    features, D = math.prod(shape), model.width
    layers = features * D + (model.depth - 1) * D * D + model.depth * D * D + D * features
    return 2 * (layers + _condition(model.time_features, D, model.guidance))


def _condition(features: int, width: int, guidance: bool) -> int:
    """Multiply-adds of the embedding of the time and, where there is one, of the scale."""
    return (2 if guidance else 1) * (features * width + width * width)
