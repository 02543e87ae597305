"""The bytes under a benchmark of a DiT; over a chip's bandwidth they are its memory bound.

Calculated, never measured, from the number of parameters P and from A = batch x tokens x width, the
numbers in one activation, 2 bytes each. It is supposed that all that is elementwise is fused into
the products and the attention beside it, so that a block writes 16 tensors of size A: the two
normalised inputs, q, k, v, the attention, both residuals, and four each before and after the GELU.

The compute bound is the operations of `fmjax.models.flops` over the chip's peak.
"""

_TENSORS, _BYTES = 16, 2


def tokens(model: dict, shape: list[int]) -> int:
    """Number of patches of an image."""
    return (shape[0] // model["patch_size"]) * (shape[1] // model["patch_size"])


def train_bytes(model: dict, shape: list[int], batch: int, parameters: int) -> int:
    """Bytes that one training step moves.

    50 P: forward reads the parameters (4) and backward a bfloat16 copy (2); gradients are written
    (4) and read for their norm (4); the update reads gradients, parameters, two moments and average
    (20) and writes the last four (16). And 5 times each tensor: written and read by forward, read
    by backward, its gradient written and read.
    """
    size = batch * tokens(model, shape) * model["width"]
    return 50 * parameters + 5 * model["depth"] * _TENSORS * _BYTES * size


def sample_bytes(model: dict, shape: list[int], batch: int, parameters: int, steps: int) -> int:
    """Bytes that one guided batch moves.

    At each step the parameters, 2 bytes each, are read, and the tensors of both branches are
    written and read.
    """
    size = 2 * batch * tokens(model, shape) * model["width"]
    return steps * (2 * parameters + 2 * model["depth"] * _TENSORS * _BYTES * size)
