"""Published weights in."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from fmjax.errors import InputError
from fmjax.models.pretrained.families import FAMILIES
from fmjax.models.pretrained.family import Family, check_path, recognise
from fmjax.models.pretrained.filling import fill
from fmjax.models.pretrained.report import Report, check_whole, compare
from fmjax.models.pretrained.rules import Origin, by_path, origins
from fmjax.storage.weight_files import WeightFiles, open_weights
from fmjax.training.sharding import state_shardings


def load(
    path: str | Path,
    layout: str | None = None,
    *,
    dtype: Any = jnp.float32,
    mesh: Mesh | None = None,
    model: nn.Module | None = None,
) -> Any:
    """Reads published weights into a network of fmjax.

    Names, shapes and the network's fit are checked before a number is read; then the file is read
    tensor by tensor, each device its own part, so that the host holds little more than its devices
    do.

    Args:
        path: of a ``.safetensors`` file, an index of several, a folder of diffusers, or a file of
            PyTorch, which torch reads and nothing of it is run; see `fmjax.storage.weight_files`.
        layout: the name of a family, needed only where names and shapes are those of several; see
            `LAYOUTS`.
        dtype: of the parameters.
        mesh: the devices that hold them, split as the network's ``sharding_rules`` say; None for
            the default device.
        model: the network to fill, to choose what names and shapes leave open: heads, dtype,
            attention, remat. None builds it from the file.

    Returns:
        A `Network`, or an `Autoencoder` where the weights are one's.

    Raises:
        InputError: the file is damaged, of no known or another layout, not whole, of another
            network than `model`, or holds NaN; in one sentence.
    """
    _check_dtype(dtype)
    files = open_weights(check_path(path))
    family = recognise(files, layout, FAMILIES)
    model = family.build(files.shapes, files.config) if model is None else model
    where, target, report = _plan(files, family, model)
    check_whole(report, files.path, family.what)
    leaves = _with_shardings(target, dtype, mesh, getattr(model, "sharding_rules", ()))
    filled = [fill(files, origin, leaf) for origin, leaf in zip(where, leaves, strict=True)]
    params = jax.tree.unflatten(jax.tree.structure(target), filled)
    return family.finish(family, model, params, report, files)


def inspect(path: str | Path, layout: str | None = None, model: nn.Module | None = None) -> Report:
    """Compares the names and shapes of a file with a network's, and reads no numbers.

    Args:
        path: as in `load`.
        layout: as in `load`.
        model: as in `load`.

    Returns:
        What would be read, what would be left out, what is missing, of another shape or unknown.

    Raises:
        InputError: the file is damaged, or of no known layout.
    """
    files = open_weights(check_path(path))
    family = recognise(files, layout, FAMILIES)
    model = family.build(files.shapes, files.config) if model is None else model
    return _plan(files, family, model)[2]


def _plan(files: WeightFiles, family: Family, model: nn.Module) -> tuple[list[Origin], Any, Report]:
    """Where each parameter comes from, the parameters' shapes, and what the file has of them."""
    target = family.abstract_params(model, family.shape(files), files.config)
    where = origins(family.rules(model), target)
    return where, target, compare(files.shapes, where, family.left_out(files, model))


def _with_shardings(
    target: Any, dtype: Any, mesh: Mesh | None, rules: tuple
) -> list[jax.ShapeDtypeStruct]:
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), target)
    if mesh is None:
        return list(by_path(shapes).values())
    return jax.tree.leaves(
        jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding),
            shapes,
            state_shardings(shapes, mesh, rules),
        )
    )


def _check_dtype(dtype: Any) -> None:
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise InputError(f"dtype={dtype!r}: expected a floating dtype, e.g. jnp.bfloat16.")
