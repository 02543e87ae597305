"""Which device holds which part of the state: an ordered list of rules, the first that fits wins.

A rule is a pattern of the path of a leaf (``blocks/attention/qkv/kernel``) and an axis of the mesh
for each dimension of the array. Each network brings its own, as the attribute ``sharding_rules``.
The same rules serve the parameters, their average and the optimiser's moments, whose paths end as
the parameters' do. What no rule names is split by the automatic one, over fsdp alone.
"""

import math
import re
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.axes import FSDP, TENSOR

Rules = tuple[tuple[str, tuple[str | None, ...]], ...]
"""In order: the pattern of a path, and the axis that splits each dimension, None for none."""

_SMALL = 2**14  # numbers: splitting less costs a message and saves nothing


def automatic(path: str, shape: tuple[int, ...], parts: int) -> P:
    """The largest dimension that the fsdp axis divides is split; nothing is, in a small array."""
    if math.prod(shape) < _SMALL:
        return P()
    stacked = "blocks/" in path
    able = [i for i, size in enumerate(shape) if size % parts == 0 and not (stacked and i == 0)]
    if not able:
        return P()
    largest = max(able, key=lambda i: shape[i])
    return P(*[FSDP if i == largest else None for i in range(len(shape))])


def partition_of(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, rules: Rules) -> P:
    """The axes of one leaf; an axis that does not divide its dimension is left out of it."""
    for pattern, axes in rules:
        if re.search(pattern, path) and len(axes) == len(shape):
            fits = [
                axis if axis and size % mesh.shape[axis] == 0 else None
                for axis, size in zip(axes, shape, strict=True)
            ]
            if any(axis and mesh.shape[axis] > 1 for axis in fits):
                return P(*fits)
    return automatic(path, shape, mesh.shape[FSDP])


def _path(keys: tuple) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def state_shardings(abstract: Any, mesh: Mesh | AbstractMesh, rules: Rules = ()) -> Any:
    """The sharding of every leaf of a tree of arrays or of their shapes."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, x: NamedSharding(mesh, partition_of(_path(keys), x.shape, mesh, rules)),
        abstract,
    )


def notes(params: Any, mesh: Mesh | AbstractMesh, rules: Rules) -> list[str]:
    """A sentence for each axis of the mesh, beyond data, that splits no parameter at all."""
    specs = [sharding.spec for sharding in jax.tree.leaves(state_shardings(params, mesh, rules))]
    used = {axis for spec in specs for axis in spec}
    return [
        f"mesh.{axis}={mesh.shape[axis]} divides no parameter of this model: they are replicated "
        "over it."
        for axis in (FSDP, TENSOR)
        if mesh.shape[axis] > 1 and axis not in used
    ]
