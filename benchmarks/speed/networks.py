"""The networks of the speed benchmarks, with weights that make them velocity fields."""

from typing import Any

import jax
import jax.numpy as jnp

from fmjax.conditions import ClassIds
from fmjax.models import adapters
from fmjax.models.dit import DiT

DIGITS = {"width": 64, "depth": 4, "heads": 4, "patch_size": 2, "num_classes": 10}
XL = {"width": 1152, "depth": 28, "heads": 16, "patch_size": 2, "num_classes": 1000}


def make_dit(sizes: dict[str, int]) -> DiT:
    """The network of sizes such as `DIGITS`, which the workers of PyTorch take, too."""
    fields = dict(sizes)
    return DiT(conditions=ClassIds(fields.pop("num_classes")), **fields)


def with_noise(params: Any, key: jax.Array) -> Any:
    """Parameters with noise of the size of their weights: a fresh DiT gives zero everywhere."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noisy = [p + 0.02 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def network(module, shape: tuple[int, ...], batch: int):
    """A velocity ``apply_fn``, its parameters, and points and labels for it."""
    x0 = jax.random.normal(jax.random.key(0), (batch, *shape))
    classes = module.conditions
    labels = None if classes is None else jnp.arange(batch) % classes.num_classes
    params = module.init(jax.random.key(1), x0, jnp.zeros(batch), labels)["params"]
    return adapters.from_linen(module), with_noise(params, jax.random.key(2)), x0, labels
