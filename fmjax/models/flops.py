"""Floating-point operations of a network.

A network that can count its own has a method ``forward_flops(shape)``, of one example of that
shape. What is counted: every matrix product, two operations for each multiply-add, attention's two
products of all pairs of tokens included. What is not: sums, norms, activations, softmax, embedding
look-ups and anything computed a second time to save memory. This is the count that the utilisation
of a chip (MFU, arXiv:2204.02311) is quoted by: XLA's own count holds recomputation, too.
"""

from typing import Any


def training_flops(model: Any, shape: tuple[int, ...]) -> int | None:
    """Operations of one training example: the forward pass, and twice as many backward.

    Each product of the forward pass has two in the backward pass, one for each factor's gradient.

    Args:
        model: a network.
        shape: of one example: (H, W, C) of an image, or (D,).

    Returns:
        The number; None for a network that does not count its own.
    """
    forward = model.forward_flops(shape) if hasattr(model, "forward_flops") else None
    return None if forward is None else 3 * forward
