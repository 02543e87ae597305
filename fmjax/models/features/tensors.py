"""Weights of a network in PyTorch, by the names and shapes of its tensors, as Flax variables."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Shaped

from fmjax.errors import InputError

_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
_UNUSED = "num_batches_tracked"  # counts the steps of training


def variables_from_tensors(
    network: nn.Module, tensors: Mapping[str, Shaped[np.ndarray, "..."]], source: str
) -> Any:
    """The variables of a network of features from the tensors of the same network in PyTorch.

    A convolution's kernel is turned from (out, in, h, w) to (h, w, in, out), that of a dense layer
    from (out, in) to (in, out).

    Args:
        network: one of this package, whose parts are named as the tensors are.
        tensors: by name, of any floating type.
        source: where they come from, as a message names it.

    Returns:
        Variables in float32, for ``network.apply``.

    Raises:
        InputError: a tensor is missing, is there beside those of the network, has another shape, or
            is not finite.
    """
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)
    wanted = jax.eval_shape(network.init, jax.random.key(0), image)
    used = set()

    def take(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        kind, *parts, last = (key.key for key in path)
        name = ".".join([*parts, _NAMES[kind, last]])
        used.add(name)
        return _turned(name, tensors, leaf.shape, last == "kernel", source)

    variables = jax.tree_util.tree_map_with_path(take, wanted)
    left = sorted(name for name in tensors if name not in used and not name.endswith(_UNUSED))
    if left:
        raise InputError(
            f"{source} holds {left[0]}, and {len(left) - 1} more tensors, that "
            f"{type(network).__name__} does not have; give the weights of that network alone."
        )
    return variables


def tensor_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that `variables_from_tensors` reads, as PyTorch has it."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)
    wanted = jax.eval_shape(network.init, jax.random.key(0), image)
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(wanted)[0]:
        kind, *parts, last = (key.key for key in path)
        shape = _shape_there(leaf.shape, last == "kernel")
        found[".".join([*parts, _NAMES[kind, last]])] = shape
    return found


def _shape_there(shape: tuple[int, ...], kernel: bool) -> tuple[int, ...]:
    return (*shape[:-3:-1], *shape[:-2]) if kernel else shape


def _turned(
    name: str, tensors: Mapping[str, np.ndarray], shape: tuple[int, ...], kernel: bool, source: str
) -> np.ndarray:
    if name not in tensors:
        raise InputError(f"{source} does not hold the tensor {name}; give a whole file.")
    tensor = np.asarray(tensors[name])
    expected = _shape_there(shape, kernel)
    if tensor.shape != expected or tensor.dtype.kind != "f":
        raise InputError(
            f"{source} holds {name} as {tensor.dtype} of shape {tensor.shape}; expected floats of "
            f"shape {expected}."
        )
    if not np.isfinite(tensor).all():
        raise InputError(f"{source} holds {name} with NaN or infinity in it; give a whole file.")
    if not kernel:
        return tensor.astype(np.float32)
    order = (2, 3, 1, 0) if tensor.ndim == 4 else (1, 0)
    return np.ascontiguousarray(tensor.transpose(order), np.float32)
